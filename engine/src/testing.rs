//! What the engine's tests share: an engine of its own for each test, the components that xtask builds, rows in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use godwit_core::channel::{ChannelName, ChannelView};
use godwit_core::digest::Digest;
use godwit_core::guest::{
    Answers, Guest, GuestError, GuestLoader, GuestRequest, Interrupt, StateRead, StateReadError, TurnContext,
};
use godwit_core::id::{AgentId, FencingToken, Generation, InputId, OperationId, Revision};
use godwit_core::identity::EntityKey;
use godwit_core::input::{FaultKind, Input, Kind, ReplyOutcome, Source};
use godwit_core::lease::{LeaseGuard, SessionLease};
use godwit_core::limits::GuestLimits;
use godwit_core::spec::Spec;
use tempfile::TempDir;

use crate::{Engine, EngineConfig};

/// The variable that names the directory of built components.
const GUESTS: &str = "GODWIT_GUESTS";

/// The turn time of `turn`.
pub(crate) const NOW_MS: u64 = 1_700_000_000_123;

/// An engine with a cache of its own.
pub(crate) struct TestEngine {
    pub(crate) engine: Engine,
    pub(crate) cache: TempDir,
}

impl TestEngine {
    pub(crate) fn new() -> Self {
        let cache = tempfile::tempdir().expect("a temporary directory");
        Self { engine: Engine::new(test_config(&cache)).expect("an engine"), cache }
    }

    /// Loads a built component: `counter`, `test/hostile`.
    pub(crate) fn load(&self, name: &str) -> Digest {
        let loaded = self.engine.load(&component(name));
        loaded.unwrap_or_else(|error| panic!("{name}: {error}")).digest
    }

    /// Starts a guest and runs `init`.
    pub(crate) fn start(&self, request: GuestRequest) -> Box<dyn Guest> {
        let mut guest = self.engine.start(request).expect("the plugin is loaded");
        guest.init(&turn(0)).expect("init");
        guest
    }
}

/// The configuration of a test's engine: room for a few guests only.
pub(crate) fn test_config(cache: &TempDir) -> EngineConfig {
    EngineConfig { cache_dir: cache.path().join("code"), resident_max: 8 }
}

/// The bytes of a built component.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let directory = std::env::var_os(GUESTS)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/guests"), PathBuf::from);
    let path = directory.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "cannot read the component {}: {error}; run `cargo xtask guests --all`, or `cargo xtask test`",
            path.display()
        )
    })
}

/// A request for a guest of a plugin: agent `agent-1`, no rows, the default limits, a lease that never ends.
pub(crate) fn request(plugin: Digest) -> GuestRequest {
    GuestRequest {
        agent: AgentId::parse("agent-1").expect("an agent id"),
        spec: Arc::new(Spec {
            config: BTreeMap::from([("greeting".to_string(), "hello".to_string())]),
            ..Spec::new(plugin)
        }),
        grants: Arc::new([]),
        guard: LeaseGuard::new(SessionLease::unlimited(), FencingToken(7)),
        state: Arc::new(Rows::default()),
        interrupt: Interrupt::default(),
    }
}

/// The same request with other limits.
pub(crate) fn with_limits(mut request: GuestRequest, change: impl FnOnce(&mut GuestLimits)) -> GuestRequest {
    change(&mut Arc::make_mut(&mut request.spec).limits);
    request
}

/// The circumstances of a turn on top of a revision.
pub(crate) fn turn(revision: u64) -> TurnContext {
    TurnContext {
        generation: Generation(1),
        token: FencingToken(7),
        revision: Revision(revision),
        attempt: 1,
        now_ms: NOW_MS,
        seed: [9; 32],
        answers: Answers::Forget,
    }
}

/// A message from outside.
pub(crate) fn message(text: &str) -> Input {
    Input {
        id: InputId([1; 16]),
        kind: Kind::Message,
        source: Source::External { name: "http".into() },
        content_type: "text/plain".into(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 1,
    }
}

/// What a guest answers to one line of text.
pub(crate) fn ask(guest: &mut dyn Guest, line: &str) -> Result<String, GuestError> {
    let effects = guest.handle(&turn(1), &[message(line)])?;
    let [reply] = effects.replies.as_slice() else {
        panic!("{} replies to one input", effects.replies.len());
    };
    Ok(match &reply.outcome {
        ReplyOutcome::None => "none".into(),
        ReplyOutcome::Ok(body) => String::from_utf8_lossy(body).into_owned(),
        ReplyOutcome::Refused { code, .. } => format!("refused: {code}"),
    })
}

/// The kind and text of a fault; anything else fails the test.
pub(crate) fn fault_of<T: std::fmt::Debug>(result: Result<T, GuestError>) -> (FaultKind, String) {
    match result {
        Err(GuestError::Fault(fault)) => (fault.kind, fault.message),
        other => panic!("not a fault: {other:?}"),
    }
}

/// Committed rows in memory, or a store that does not answer.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<String, Bytes>,
    pub(crate) timers: Vec<String>,
    pub(crate) operations: Vec<OperationId>,
    pub(crate) channels: Vec<ChannelView>,
    pub(crate) is_broken: bool,
    pub(crate) entity_key: Option<EntityKey>,
    /// Outputs that wait for each receiver.
    pub(crate) waiting: u64,
}

impl Rows {
    pub(crate) fn of(keys: &[&str]) -> Self {
        let rows = keys.iter().map(|key| (key.to_string(), Bytes::from(format!("committed {key}"))));
        Self { rows: rows.collect(), ..Self::default() }
    }

    fn check(&self) -> Result<(), StateReadError> {
        if self.is_broken {
            return Err(StateReadError { reason: "no answer".into() });
        }
        Ok(())
    }
}

impl StateRead for Rows {
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError> {
        self.check()?;
        Ok(self.rows.get(key).cloned())
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError> {
        self.check()?;
        let listed =
            |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        Ok(self.rows.keys().filter(listed).take(limit).cloned().collect())
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        self.check()?;
        Ok(self.timers.clone())
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        self.check()?;
        Ok(self.operations.clone())
    }

    fn channels(&self, only: Option<&ChannelName>) -> Result<Vec<ChannelView>, StateReadError> {
        self.check()?;
        let wanted = |view: &&ChannelView| only.is_none_or(|only| view.channel.name == *only);
        Ok(self.channels.iter().filter(wanted).cloned().collect())
    }

    fn waiting(&self, _receiver: &AgentId) -> Result<u64, StateReadError> {
        self.check()?;
        Ok(self.waiting)
    }

    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError> {
        self.check()?;
        Ok(self.entity_key.clone())
    }
}

/// The first bytes of a component.
pub(crate) const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
/// An empty core module.
pub(crate) const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn number(value: usize) -> Vec<u8> {
    let mut value = value;
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("7 bits");
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

/// A text with its length before it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [number(text.len()), text.as_bytes().to_vec()].concat()
}

/// A section: its number, its length, its content.
pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], number(content.len()), content.to_vec()].concat()
}

fn names(id: u8, names: &[&str], kind: &[u8]) -> Vec<u8> {
    let items = names.iter().map(|name| [vec![0], text(name), kind.to_vec()].concat());
    section(id, &[number(names.len()), items.collect::<Vec<_>>().concat()].concat())
}

/// A component by hand: one empty instance type, imports of it, exports of the first import, more sections behind.
pub(crate) fn encode(imports: &[&str], exports: &[&str], more: &[Vec<u8>]) -> Vec<u8> {
    // One type: an instance without anything in it.
    let types = section(7, &[1, 0x42, 0]);
    // Imports of instances of type 0; exports of instance 0 without a type.
    [PREAMBLE.to_vec(), types, names(10, imports, &[5, 0]), names(11, exports, &[5, 0, 0]), more.concat()]
        .concat()
}

/// A component by hand that imports one function of an interface, without parameters and result.
pub(crate) fn encode_function_import(interface: &str, function: &str) -> Vec<u8> {
    // One type: an instance with a function type in it, and an export of that type.
    let instance = [&[1, 0x42, 2, 1, 0x40, 0, 1, 0, 4, 0], text(function).as_slice(), &[1, 0]].concat();
    [PREAMBLE.to_vec(), section(7, &instance), names(10, &[interface], &[5, 0])].concat()
}
