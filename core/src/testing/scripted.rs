//! A guest in plain Rust that does what its inputs say, for driving the drivers without an engine.
//!
//! Inputs are text: `add N`, `get`, `refuse`, `fatal`, `retry` (always), `retry-until K` (until attempt K), `trap`,
//! `hang` (until it is interrupted), `nap MILLISECONDS`, `panic` (not as a guest does, but as a host with a fault), `send AGENT TEXT`, `read KEY` and `write KEY TEXT` (rows), `paint N TEXT` (N rows at once), `start` (adds one, and starts an operation), `dice` (adds a random number), `drift` (adds a number that no
//! replay can give again), `fragile` (adds one, and traps when it runs again), `moody` (adds one; of two, one traps when they
//! run again, each time the other one), `age` (answers how many turns this instance has run), `where` (answers `pool` on a
//! thread of the pool, or `task`), `pad N` (makes the snapshot N bytes larger).
//! The configuration `init` holds such a text for `init`, where `no-room` is a host without room for another guest.
//! State is the sum, as text, and the padding. Queries take the verbs that change nothing, `scan N`, which reads N rows
//! and answers how many different values they had, and `started`, which answers the sum and the number of operations.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::agent::pool::is_replaceable;
use crate::digest::Digest;
use crate::guest::{
    Answers, Guest, GuestError, GuestLoader, GuestRequest, Interrupt, LoadError, LoadedPlugin, StateRead,
    TurnContext, TurnEffects,
};
use crate::id::{AgentId, OperationId};
use crate::input::{Fault, FaultKind, Input, Kind, Reply, ReplyOutcome};
use crate::journal::RecordedAnswer;
use crate::lease::LeaseGuard;
use crate::operation::{Class, HttpRequest, NewOperation, OperationChange, Request};
use crate::output::{Output, ReplyRole};
use crate::reply;
use crate::spec::PluginInfo;
use crate::timer::NewTimer;

/// A call that hangs ends by itself after this many milliseconds, as by its deadline.
const HANG_MS_MAX: u32 = 10_000;

/// The component of a plugin that takes no state.
pub const PICKY: &[u8] = b"picky script";
/// The component of a plugin that answers no queries.
pub const MUTE: &[u8] = b"mute script";

/// Starts scripted guests for whatever plugin was loaded.
#[derive(Default)]
pub struct ScriptedLoader {
    loaded: Mutex<BTreeSet<Digest>>,
    handled: Arc<AtomicU64>,
    hung: Arc<AtomicU64>,
    started: AtomicU64,
}

impl ScriptedLoader {
    /// Guests that it has started so far.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::SeqCst)
    }

    /// Guest calls that its guests have ended so far, whatever became of them.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::SeqCst)
    }

    /// Guest calls that have begun to hang so far, whether or not they still do.
    pub fn hung(&self) -> u64 {
        self.hung.load(Ordering::SeqCst)
    }
}

/// The plugin that a test stores: any bytes will do.
pub fn script_plugin() -> (PluginInfo, Bytes) {
    let component = Bytes::from_static(b"script");
    let info = PluginInfo {
        digest: Digest::of(&component),
        name: "script".into(),
        version: "1.0.0".into(),
        imports: Vec::new(),
        grants: Vec::new(),
        size: component.len() as u64,
        loaded_at_ms: 1,
        killed_hosts: 0,
    };
    (info, component)
}

impl GuestLoader for ScriptedLoader {
    fn load(&self, component: &[u8]) -> Result<LoadedPlugin, LoadError> {
        let digest = Digest::of(component);
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        Ok(LoadedPlugin { digest, name: None, version: None, imports: Vec::new(), grants: Vec::new() })
    }

    fn is_loaded(&self, plugin: Digest) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).contains(&plugin)
    }

    fn answers_queries(&self, plugin: Digest) -> bool {
        self.is_loaded(plugin) && plugin != Digest::of(MUTE)
    }

    fn start(&self, request: GuestRequest) -> Result<Box<dyn Guest>, GuestError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let (handled, hung) = (self.handled.clone(), self.hung.clone());
        let is_picky = request.spec.plugin == Digest::of(PICKY);
        let GuestRequest { spec, guard, state, interrupt, .. } = request;
        let init = spec.config.get("init").cloned();
        Ok(Box::new(ScriptedGuest {
            sum: 0,
            padding: 0,
            age: 0,
            moods: 0,
            init,
            guard,
            state,
            interrupt,
            is_picky,
            handled,
            hung,
        }))
    }
}

/// What `drift` has added so far, in all guests.
static DRIFT: AtomicI64 = AtomicI64::new(1);

/// How often a `moody` turn has failed, in all guests.
static MOODS: AtomicU64 = AtomicU64::new(0);

struct ScriptedGuest {
    sum: i64,
    padding: usize,
    /// No part of its state.
    age: u64,
    /// `moody` turns that it has run again; no part of its state either.
    moods: u64,
    /// What `init` does.
    init: Option<String>,
    guard: LeaseGuard,
    interrupt: Interrupt,
    state: Arc<dyn StateRead>,
    /// Takes no state that it has not written itself.
    is_picky: bool,
    /// Counts guest calls.
    handled: Arc<AtomicU64>,
    /// Counts those that hang.
    hung: Arc<AtomicU64>,
}

fn ok(text: String) -> Reply {
    let outcome = ReplyOutcome::Ok(Bytes::from(text));
    Reply { outcome, content_type: "text/plain".into(), headers: Vec::new() }
}

fn trap(message: &str) -> GuestError {
    GuestError::Fault(Fault { kind: FaultKind::Trap, message: message.into() })
}

impl ScriptedGuest {
    /// Reads a row, or what it was when the turn ran first. A turn reads once.
    fn read(
        &self,
        context: &TurnContext,
        key: &str,
        effects: &mut TurnEffects,
    ) -> Result<String, GuestError> {
        let diverged = || GuestError::Diverged { message: "it did not read before".into() };
        let answer = match &context.answers {
            Answers::Replay(kept) => kept.first().ok_or_else(diverged)?.answer.clone(),
            Answers::Forget | Answers::Record => self.state.get(key)?.unwrap_or_default(),
        };
        if context.answers == Answers::Record {
            effects.answers = Some(vec![RecordedAnswer { call: 0, answer: answer.clone() }]);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn check(&self) -> Result<(), GuestError> {
        if self.guard.is_held() { Ok(()) } else { Err(GuestError::Fenced) }
    }

    /// Goes on until somebody ends it, at most as long as a guest may.
    fn hang(&self) -> GuestError {
        self.hung.fetch_add(1, Ordering::SeqCst);
        match self.nap(HANG_MS_MAX) {
            Ok(()) => GuestError::Fault(Fault { kind: FaultKind::Deadline, message: "it hung".into() }),
            Err(error) => error,
        }
    }

    /// Goes on for so long, or until somebody ends it.
    fn nap(&self, milliseconds: u32) -> Result<(), GuestError> {
        for _ in 0..milliseconds {
            if !self.guard.is_held() {
                return Err(GuestError::Fenced);
            }
            if self.interrupt.is_set() {
                return Err(GuestError::Interrupted);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }

    fn handle_one(
        &mut self,
        context: &TurnContext,
        input: &Input,
        effects: &mut TurnEffects,
    ) -> Result<Reply, GuestError> {
        let text = String::from_utf8_lossy(&input.payload).into_owned();
        if input.kind == Kind::PeerResponseTerminal {
            // An answer is added; a request that nobody answered counts a thousand.
            self.sum += text.parse::<i64>().unwrap_or(1_000);
            return Ok(ok(self.sum.to_string()));
        }
        self.obey(context, &text, effects)
    }

    fn obey(
        &mut self,
        context: &TurnContext,
        text: &str,
        effects: &mut TurnEffects,
    ) -> Result<Reply, GuestError> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "add" => self.sum += rest.parse::<i64>().map_err(|_| trap("not a number"))?,
            "get" => {}
            "refuse" => {
                let outcome = ReplyOutcome::Refused { code: "no".into(), body: Bytes::new() };
                return Ok(Reply { outcome, content_type: String::new(), headers: Vec::new() });
            }
            "fatal" => {
                return Err(GuestError::Fatal { message: "never".into() });
            }
            "retry" => {
                return Err(GuestError::Retryable { message: "later".into() });
            }
            "retry-until" if context.attempt < rest.parse().unwrap_or(0) => {
                return Err(GuestError::Retryable { message: "not yet".into() });
            }
            "retry-until" => {}
            "hang" => return Err(self.hang()),
            "nap" => self.nap(rest.parse().map_err(|_| trap("not a number"))?)?,
            "panic" => panic!("asked to"),
            "no-room" => {
                let message = "no room".into();
                return Err(GuestError::Fault(Fault { kind: FaultKind::Start, message }));
            }
            "send" => effects.outputs.push(output(rest)?),
            "request" => request(rest, context, effects)?,
            "dice" => self.sum += i64::from(context.seed[0]),
            "drift" => self.sum += DRIFT.fetch_add(1, Ordering::Relaxed),
            "fragile" if matches!(context.answers, Answers::Replay(_)) => return Err(trap("once only")),
            "fragile" => self.sum += 1,
            "moody" => {
                self.sum += 1;
                self.moods += u64::from(matches!(context.answers, Answers::Replay(_)));
                if self.moods > MOODS.load(Ordering::Relaxed) % 2 {
                    MOODS.fetch_add(1, Ordering::Relaxed);
                    return Err(trap("not in the mood"));
                }
            }
            "age" => return Ok(ok(self.age.to_string())),
            "where" => return Ok(ok(if is_replaceable() { "pool" } else { "task" }.to_owned())),
            "pad" => self.padding += rest.parse::<usize>().map_err(|_| trap("not a number"))?,
            "write" => {
                let (key, value) = rest.split_once(' ').ok_or_else(|| trap("write KEY TEXT"))?;
                effects.state.push((key.to_owned(), Some(Bytes::from(value.to_owned()))));
            }
            "paint" => {
                let (count, value) = rest.split_once(' ').ok_or_else(|| trap("paint N TEXT"))?;
                let count = count.parse::<usize>().map_err(|_| trap("not a number"))?;
                let value = Bytes::from(value.to_owned());
                effects.state.extend((0..count).map(|row| (format!("row-{row}"), Some(value.clone()))));
            }
            "read" => return Ok(ok(self.read(context, rest, effects)?)),
            "start" => {
                self.sum += 1;
                effects.operations.push(OperationChange::Start(operation(context)));
            }
            _ => return Err(trap("unknown verb")),
        }
        Ok(ok(self.sum.to_string()))
    }
}

/// An operation of which there is no other: its id comes from the turn's random numbers.
fn operation(context: &TurnContext) -> NewOperation {
    let mut id = [0; 16];
    id.copy_from_slice(&context.seed[..16]);
    let request = HttpRequest {
        method: "GET".into(),
        url: "https://api.example.com/".into(),
        headers: Vec::new(),
        body: Bytes::new(),
        timeout_ms: 1_000,
        class: Class::AtMostOnce,
    };
    NewOperation { id: OperationId(id), index: 0, request: Request::Http(request) }
}

/// `request MILLISECONDS AGENT TEXT`: the text is the request's id as well.
fn request(rest: &str, context: &TurnContext, effects: &mut TurnEffects) -> Result<(), GuestError> {
    let (timeout_ms, rest) = rest.split_once(' ').ok_or_else(|| trap("request MILLISECONDS AGENT TEXT"))?;
    let timeout_ms: u64 = timeout_ms.parse().map_err(|_| trap("not a number"))?;
    let output = output(rest)?;
    let id = String::from_utf8_lossy(&output.payload).into_owned();
    let timer = NewTimer { at_ms: context.now_ms + timeout_ms, payload: Bytes::new() };
    effects.timers.push((reply::timer_name(&id), Some(timer)));
    effects.outputs.push(Output { correlation: Some(id), reply: ReplyRole::Expected, ..output });
    Ok(())
}

fn output(rest: &str) -> Result<Output, GuestError> {
    let (destination, payload) = rest.split_once(' ').ok_or_else(|| trap("send AGENT TEXT"))?;
    Ok(Output {
        destination: AgentId::parse(destination).map_err(|_| trap("bad agent"))?,
        kind: Kind::PeerMessage,
        content_type: "text/plain".into(),
        payload: Bytes::from(payload.to_owned()),
        headers: Vec::new(),
        correlation: None,
        reply: ReplyRole::None,
        channel: None,
    })
}

impl ScriptedGuest {
    fn handle_all(&mut self, context: &TurnContext, inputs: &[Input]) -> Result<TurnEffects, GuestError> {
        self.check()?;
        let mut effects = TurnEffects::default();
        if context.answers == Answers::Record {
            effects.answers = Some(Vec::new());
        }
        self.age += 1;
        for input in inputs {
            let reply = self.handle_one(context, input, &mut effects)?;
            effects.replies.push(reply);
        }
        self.check()?;
        Ok(effects)
    }
}

impl Guest for ScriptedGuest {
    fn init(&mut self, context: &TurnContext) -> Result<TurnEffects, GuestError> {
        self.check()?;
        let mut effects = TurnEffects::default();
        if let Some(text) = self.init.clone() {
            self.obey(context, &text, &mut effects)?;
        }
        Ok(effects)
    }

    fn handle(&mut self, context: &TurnContext, inputs: &[Input]) -> Result<TurnEffects, GuestError> {
        let handled = self.handle_all(context, inputs);
        self.handled.fetch_add(1, Ordering::SeqCst);
        handled
    }

    fn snapshot(&mut self, _context: &TurnContext) -> Result<Bytes, GuestError> {
        self.check()?;
        Ok(Bytes::from(format!("{:<width$}", self.sum, width = self.padding)))
    }

    fn restore(&mut self, _context: &TurnContext, state: &[u8], _from: &str) -> Result<(), GuestError> {
        self.check()?;
        if self.is_picky {
            return Err(trap("not my state"));
        }
        let text = String::from_utf8_lossy(state);
        self.sum = text.trim_end().parse().map_err(|_| trap("garbage state"))?;
        self.padding = if text.ends_with(' ') { text.len() } else { 0 };
        Ok(())
    }

    fn query(&mut self, context: &TurnContext, payload: &[u8]) -> Result<Reply, GuestError> {
        self.check()?;
        let text = String::from_utf8_lossy(payload).into_owned();
        let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let said = match verb {
            "get" => self.sum.to_string(),
            "age" => self.age.to_string(),
            "read" => self.read(context, rest, &mut TurnEffects::default())?,
            "dice" => context.seed[0].to_string(),
            "when" => format!("{} {}", context.revision, context.now_ms),
            "hang" => return Err(self.hang()),
            "panic" => panic!("asked to"),
            "fatal" => return Err(GuestError::Fatal { message: "never".into() }),
            "retry" => return Err(GuestError::Retryable { message: "later".into() }),
            "refuse" => {
                let outcome = ReplyOutcome::Refused { code: "no".into(), body: Bytes::new() };
                return Ok(Reply { outcome, content_type: String::new(), headers: Vec::new() });
            }
            "scan" => {
                let count = rest.parse::<usize>().map_err(|_| trap("not a number"))?;
                let keys = (0..count).map(|number| format!("row-{number}"));
                let values = keys.map(|key| self.state.get(&key)).collect::<Result<BTreeSet<_>, _>>()?;
                values.len().to_string()
            }
            "started" => format!("{} {}", self.sum, self.state.operations()?.len()),
            _ => return Err(trap("unknown verb")),
        };
        self.check()?;
        Ok(ok(said))
    }
}
