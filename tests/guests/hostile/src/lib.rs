//! A guest that misbehaves in the way its input says. Only for wasm32, only for tests.
//!
//! The payload is one line: a command, a space, its arguments. `N`, `MS`, `BYTES` are decimal. What is not listed is
//! `refused("malformed")`.
//!
//! | command | does |
//! |---|---|
//! | `echo TEXT` | replies TEXT |
//! | `none`, `refuse CODE`, `fatal TEXT` | no reply; a refusal; a fatal error |
//! | `retry N` | a retryable error at the attempts 1 to N, then replies the attempt |
//! | `turns`, `note TEXT`, `noted` | replies how many inputs the state has seen; keeps TEXT in the state; replies it |
//! | `word WORD`, `words` | keeps WORD in a std `HashMap`, also in the snapshot; replies all, in the map's own order |
//! | `turn`, `input` | replies `agent=.. generation=.. token=.. revision=.. attempt=.. now_ms=..`; the input's debug form |
//! | `config KEY` | replies the value, or no reply |
//! | `clock`, `random` | replies `SystemTime` in ms and `Instant` steps within the call in ns; a number from the host's random seed |
//! | `set KEY VALUE`, `get KEY`, `delete KEY`, `keys PREFIX` | the agent's rows; `get` of nothing has no reply; keys by line |
//! | `send ID TEXT` | sends TEXT, replies the output's id |
//! | `request ID MS TEXT` | sends TEXT and waits MS for the reply, replies the output's id |
//! | `ends` | replies the ends of requests so far, by line: correlation, how, text |
//! | `log TEXT`, `print TEXT` | writes to the log; to standard output and error |
//! | `loop`, `spin N` | computes for ever; N rounds, then replies `spun` |
//! | `spin-import N`, `spin-state N` | calls `turn.current`, or reads the row `spin`, N times (0: for ever), then replies `spun` |
//! | `sleep MS`, `poll MS`, `stdin` | sleeps; polls a clock; reads standard input to its end and replies its length |
//! | `trap`, `panic`, `recurse`, `exit N` | unreachable; a panic; endless recursion; leaves the process with code N |
//! | `allocate N` | allocates and touches N MiB (0: for ever), then replies `allocated` |
//! | `replies N` | answers the whole batch with N replies |
//! | `reply-bytes N` | replies N bytes |
//! | `flood-log N BYTES`, `flood-print N BYTES` | N lines of BYTES each, then replies `flooded` |
//! | `flood-outputs N BYTES`, `flood-state N BYTES [FROM]` | N outputs to `sink`, or rows `flood-FROM` (0) up; replies `ok N`, or `K ERROR` after K good ones |
//! | `noise-state N BYTES [FROM]` | as `flood-state`, with values that no packing makes smaller |
//! | `mode MODE` | keeps MODE in the state; it decides over snapshot and restore |
//!
//! | mode | snapshot or restore |
//! |---|---|
//! | `trap-in-snapshot`, `loop-in-snapshot`, `fail-in-snapshot` | as said |
//! | `changing-snapshot` | other bytes at each call, all of which can be restored |
//! | `garbage-snapshot` | bytes that `restore` refuses |
//! | `big-snapshot N` | N MiB; 1024 is more than any guest may have |
//! | `effect-in-snapshot` | sends, writes and logs, and ends with what came of it |
//! | `trap-in-restore`, `loop-in-restore`, `fail-in-restore` | as said, for snapshots taken in this mode |
//!
//! A query is such a line as well: the agent that it runs in obeys it, as far as the host lets it.
//!
//! The configuration `behave` is a command line that `init` runs first; its refusal is fatal.

#![cfg(target_arch = "wasm32")]
#![deny(unsafe_code)]

mod calls;
mod harm;
mod modes;

use std::collections::HashMap;

use godwit_guest::component::RealHost;
use godwit_guest::{Agent, AgentError, Host, Input, Kind, Outcome, PeerKind, Query, ReadHost, Reply};
use serde::{Deserialize, Serialize};

/// What lives on between turns.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Hostile {
    turns: u64,
    note: String,
    mode: String,
    /// In no order but its own, which is another one in each instance.
    /// None until the first: a map draws random numbers as soon as it is there.
    words: Option<HashMap<String, ()>>,
    /// How requests ended.
    ends: Vec<String>,
}

impl Agent for Hostile {
    fn init(&mut self, host: &mut impl Host) -> Result<(), AgentError> {
        let Some(line) = host.config("behave")? else {
            return Ok(());
        };
        match self.obey(&Input::message(&line), host)?.outcome {
            Outcome::Refused { code, .. } => Err(AgentError::fatal(format!("{line}: {code}"))),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        self.turns += 1;
        self.obey(input, host)
    }

    fn handle_batch(&mut self, inputs: &[Input], host: &mut impl Host) -> Result<Vec<Reply>, AgentError> {
        let count = |input: &Input| input.text()?.strip_prefix("replies ")?.parse().ok();
        match inputs.iter().find_map(count) {
            Some(count) => Ok(vec![Reply::none(); count]),
            None => inputs.iter().map(|input| self.handle(input, host)).collect(),
        }
    }

    fn snapshot(&self) -> Result<Vec<u8>, AgentError> {
        modes::snapshot(self)
    }

    fn restore(state: &[u8], _from_version: &str) -> Result<Self, AgentError> {
        modes::restore(state)
    }
}

impl Query for Hostile {
    fn query(&self, payload: &[u8], _host: &mut impl ReadHost) -> Result<Reply, AgentError> {
        // What it must not do it tries all the same, on itself and on the world.
        self.clone().obey(&Input::message(payload), &mut RealHost)
    }
}

impl Hostile {
    /// The words in the order of the map.
    fn words(&self) -> String {
        self.words.iter().flat_map(HashMap::keys).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn obey(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        if input.kind == Kind::Peer(PeerKind::ResponseTerminal) {
            let correlation = input.correlation.as_deref().unwrap_or_default();
            let how = input.header("godwit-reply").unwrap_or_default();
            self.ends.push(format!("{correlation} {how} {}", input.text().unwrap_or_default()));
            return Ok(Reply::none());
        }
        let line = input.text().unwrap_or_default();
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "turns" => return Ok(Reply::text(self.turns.to_string())),
            "note" => self.note = rest.into(),
            "noted" => return Ok(Reply::text(&*self.note)),
            "word" => drop(self.words.get_or_insert_default().insert(rest.into(), ())),
            "words" => return Ok(Reply::text(self.words())),
            "ends" => return Ok(Reply::text(self.ends.join("\n"))),
            "mode" => self.mode = rest.into(),
            "input" => return Ok(Reply::text(format!("{input:?}"))),
            _ => {
                if let Some(reply) = harm::run(command, rest) {
                    return Ok(reply);
                }
                return calls::run(command, rest, host);
            }
        }
        Ok(Reply::text("ok"))
    }
}

/// Two arguments; the second goes to the end of the line.
fn pair(rest: &str) -> (&str, &str) {
    rest.split_once(' ').unwrap_or((rest, ""))
}

/// A number; what is none counts as 0.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

godwit_guest::export!(Hostile: Query);
