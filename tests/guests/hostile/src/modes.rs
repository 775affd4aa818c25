//! Snapshots of a guest that is not to be trusted with them: five lines of text, turns, mode, words,
//! ends and note, when it behaves.

use std::sync::atomic::{AtomicU64, Ordering};

use godwit_guest::component::RealHost;
use godwit_guest::{AgentError, Host, ReadHost};

use crate::{Hostile, harm, number, pair};

/// Stands between the ends of requests, which are single lines.
const BETWEEN_ENDS: &str = "\x1f";

/// Differs at each call, and is no part of the state.
static SNAPSHOTS: AtomicU64 = AtomicU64::new(0);

/// Takes the snapshot that the mode asks for.
pub(crate) fn snapshot(agent: &Hostile) -> Result<Vec<u8>, AgentError> {
    let ends = agent.ends.join(BETWEEN_ENDS);
    let (head, words) = (format!("{}\n{}\n", agent.turns, agent.mode), agent.words());
    // A large one has room for one copy of itself, and not for what a growing text leaves behind.
    let mut text = String::with_capacity(head.len() + words.len() + ends.len() + agent.note.len() + 2);
    for part in [&head, &words, "\n", &ends, "\n", &agent.note] {
        text += part;
    }
    drop(words);
    let (mode, argument) = pair(&agent.mode);
    match mode {
        "trap-in-snapshot" => harm::trap(),
        "loop-in-snapshot" => harm::endless(),
        "fail-in-snapshot" => return Err(AgentError::fatal("asked to fail in snapshot")),
        "changing-snapshot" => text += &SNAPSHOTS.fetch_add(1, Ordering::Relaxed).to_string(),
        "garbage-snapshot" => return Ok(vec![0xff; 64]),
        "big-snapshot" => text += &"x".repeat((number(argument) as usize) << 20),
        "effect-in-snapshot" => {
            RealHost.info("log in snapshot");
            let sent = RealHost.send_message("sink", b"sent in snapshot");
            let set = RealHost.state_set("snapshot", b"set in snapshot");
            text += &format!("{sent:?} {set:?}");
        }
        _ => {}
    }
    Ok(text.into_bytes())
}

/// Reads a snapshot, unless its mode says otherwise.
pub(crate) fn restore(state: &[u8]) -> Result<Hostile, AgentError> {
    let garbage = || AgentError::fatal("the snapshot is garbage");
    let text = std::str::from_utf8(state).map_err(|_| garbage())?;
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().ok_or_else(garbage);
    let (turns, mode) = (number(line()?), line()?.to_string());
    let words = Some(line()?).filter(|words| !words.is_empty());
    let words = words.map(|words| words.split(' ').map(|word| (word.to_string(), ())).collect());
    let ends = Some(line()?).filter(|ends| !ends.is_empty());
    let ends = ends.into_iter().flat_map(|ends| ends.split(BETWEEN_ENDS)).map(str::to_string).collect();
    let note = line()?.to_string();
    match mode.as_str() {
        "trap-in-restore" => harm::trap(),
        "loop-in-restore" => harm::endless(),
        "fail-in-restore" => return Err(AgentError::fatal("asked to fail in restore")),
        _ => {}
    }
    Ok(Hostile { turns, note, mode, words, ends })
}
