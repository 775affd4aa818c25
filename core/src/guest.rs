//! The guest port: loading components and calling them, one turn at a time.
//!
//! Calls are synchronous and run on plain threads of a bounded set; nothing here may be called from an async task.
//!
//! Contract of an implementation:
//! 1. Before a guest is entered, and before any import does anything, the `LeaseGuard` is asked; not held means
//!    `GuestError::Fenced`, whatever else it looks like. The guard is asked once more when the call returns.
//! 2. All that a guest does to the world is collected in `TurnEffects`. Nothing leaves before the caller commits.
//! 3. After any `Err` the guest is dead: the caller drops it and rebuilds from the store.
//! 4. A call ends by its deadline plus 100 ms whatever the guest does, and soon after `Interrupt::interrupt`.
//! 5. The guest sees the same time and random bytes for the same `TurnContext`.
//! 6. Under `Answers::Record` a turn gives the answers that running it again needs. Under `Answers::Replay` it gets them from
//!    there and from nowhere else; calls that do not fit them are `GuestError::Diverged`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::channel::{ChannelChange, ChannelName, ChannelView, Subscription};
use crate::digest::Digest;
use crate::id::{AgentId, FencingToken, Generation, OperationId, Revision};
use crate::identity::EntityKey;
use crate::input::{Fault, Input, Reply, ReplyOutcome};
use crate::journal::RecordedAnswer;
use crate::lease::LeaseGuard;
use crate::operation::OperationChange;
use crate::output::Output;
use crate::spec::Spec;
use crate::timer::NewTimer;

/// Loads components and starts guests.
pub trait GuestLoader: Send + Sync + 'static {
    /// Checks a component against what the host serves and compiles it into the cache. Idempotent per digest.
    ///
    /// # Errors
    /// `LoadError` names everything that is wrong at once; nothing is kept.
    fn load(&self, component: &[u8]) -> Result<LoadedPlugin, LoadError>;

    /// Whether a plugin is compiled and ready without its bytes.
    fn is_loaded(&self, plugin: Digest) -> bool;

    /// Whether guests of a plugin answer queries: `false` also for one that is not loaded.
    fn answers_queries(&self, plugin: Digest) -> bool;

    /// Starts a guest of a loaded plugin. Neither `init` nor `restore` has run. The component may be instantiated by the first
    /// call, which then ends in `FaultKind::Start` when the host has no room for it.
    ///
    /// # Errors
    /// `GuestError::Fault` with `FaultKind::Start` when the plugin is not loaded; `GuestError::Fenced`.
    fn start(&self, request: GuestRequest) -> Result<Box<dyn Guest>, GuestError>;
}

/// What loading found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPlugin {
    /// BLAKE3 of the component's bytes.
    pub digest: Digest,
    /// From the component's manifest section.
    pub name: Option<String>,
    /// From the component's manifest section.
    pub version: Option<String>,
    /// Names of all imports, sorted.
    pub imports: Vec<String>,
    /// Grants that the manifest asks for, sorted.
    pub grants: Vec<String>,
}

/// Why a component can't be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("component can't be loaded: {}", problems.join("; "))]
pub struct LoadError {
    /// Every problem found, each a sentence that says what would help.
    pub problems: Vec<String>,
}

/// What a guest is started with.
#[derive(Clone)]
pub struct GuestRequest {
    /// For which agent.
    pub agent: AgentId,
    /// Plugin, configuration, limits.
    pub spec: Arc<Spec>,
    /// What the plugin was granted beyond what stays in the store.
    pub grants: Arc<[String]>,
    /// Asked on entry and on each import.
    pub guard: LeaseGuard,
    /// Serves the `state` interface.
    pub state: Arc<dyn StateRead>,
    /// Lets another thread end a running call.
    pub interrupt: Interrupt,
}

/// The committed `state` rows, timers, operations and channels of one agent, and its entity key, read from inside a turn. Blocking; at most 250 ms.
pub trait StateRead: Send + Sync + 'static {
    /// The value under a key.
    ///
    /// # Errors
    /// When the store could not answer in time; the turn then ends uncounted.
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError>;

    /// Up to `limit` keys with a prefix, after a key, ascending.
    ///
    /// # Errors
    /// As `get`.
    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError>;

    /// The names of the timers that wait, ascending: at most `TIMERS_MAX`.
    ///
    /// # Errors
    /// As `get`.
    fn timers(&self) -> Result<Vec<String>, StateReadError>;

    /// The ids of the operations that have not ended, in the order of their starts: at most `OPERATIONS_MAX`.
    ///
    /// # Errors
    /// As `get`.
    fn operations(&self) -> Result<Vec<OperationId>, StateReadError>;

    /// The agent's channels, all or one. A reader that knows of none has none, and so the next three.
    ///
    /// # Errors
    /// As `get`.
    fn channels(&self, _only: Option<&ChannelName>) -> Result<Vec<ChannelView>, StateReadError> {
        Ok(Vec::new())
    }

    /// Who subscribes to one of its channels, by name: at most `SUBSCRIBERS_MAX`.
    ///
    /// # Errors
    /// As `get`.
    fn subscribers(&self, _channel: &ChannelName) -> Result<Vec<AgentId>, StateReadError> {
        Ok(Vec::new())
    }

    /// What it subscribes to, by owner and channel: at most `SUBSCRIPTIONS_MAX`.
    ///
    /// # Errors
    /// As `get`.
    fn subscriptions(&self) -> Result<Vec<Subscription>, StateReadError> {
        Ok(Vec::new())
    }

    /// How many of its outputs wait for a receiver.
    ///
    /// # Errors
    /// As `get`.
    fn waiting(&self, _receiver: &AgentId) -> Result<u64, StateReadError> {
        Ok(0)
    }

    /// The agent's entity key; `None` when it can't sign here.
    ///
    /// # Errors
    /// As `get`.
    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError>;
}

/// The store could not answer a read in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state can't be read: {reason}")]
pub struct StateReadError {
    /// What the store said.
    pub reason: String,
}

/// Ends a running guest call from another thread. Clones share the request.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<std::sync::atomic::AtomicBool>);

impl Interrupt {
    /// Asks the running call to end; it ends with `GuestError::Interrupted` within 100 ms.
    pub fn interrupt(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Takes the request back: the call that it was for has ended by itself.
    pub fn clear(&self) {
        self.0.store(false, std::sync::atomic::Ordering::Release);
    }

    /// Whether an end was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// What the guest may know of its turn, and what makes it repeatable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnContext {
    /// The agent's generation.
    pub generation: Generation,
    /// Token of the grant.
    pub token: FencingToken,
    /// The revision this turn builds on.
    pub revision: Revision,
    /// 1.. for the first input of the call.
    pub attempt: u32,
    /// Wall time that stands still within the turn, Unix milliseconds.
    pub now_ms: u64,
    /// Seed of the guest's random numbers.
    pub seed: [u8; 32],
    /// What becomes of the answers of its import calls.
    pub answers: Answers,
}

/// What becomes of those answers to import calls that can't be computed again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Answers {
    /// Nothing: the turn will not be run again.
    #[default]
    Forget,
    /// They are kept in `TurnEffects::answers`.
    Record,
    /// The turn runs again, and gets these.
    Replay(Arc<[RecordedAnswer]>),
}

/// What a turn did, before it is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnEffects {
    /// One per input, by position; empty for `init`.
    pub replies: Vec<Reply>,
    /// Writes to the `state` rows: the last write of each key, in key order. `None` deletes.
    pub state: Vec<(String, Option<Bytes>)>,
    /// Outputs in the order of the calls.
    pub outputs: Vec<Output>,
    /// What becomes of the agent's own channels, in the order of the calls.
    pub channels: Vec<ChannelChange>,
    /// What becomes of timers: the last call for each name, in name order. `None` cancels.
    pub timers: Vec<(String, Option<NewTimer>)>,
    /// What becomes of operations, in the order of the calls.
    pub operations: Vec<OperationChange>,
    /// What was recorded under `Answers::Record`; `None` when it was more than `ANSWER_BYTES_MAX`. No part of the digest.
    pub answers: Option<Vec<RecordedAnswer>>,
    /// Time in the guest.
    pub elapsed: Duration,
}

impl TurnEffects {
    /// Bytes of keys, values and payloads: about what its commit writes of it.
    pub fn bytes(&self) -> usize {
        let replies = self.replies.iter().map(|reply| match &reply.outcome {
            ReplyOutcome::None => 0,
            ReplyOutcome::Ok(body) | ReplyOutcome::Refused { body, .. } => body.len(),
        });
        let rows = self.state.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len));
        let outputs = self.outputs.iter().map(|output| output.payload.len());
        let timers =
            self.timers.iter().filter_map(|(_, timer)| timer.as_ref()).map(|timer| timer.payload.len());
        let operations = self.operations.iter().map(|change| match change {
            OperationChange::Start(operation) => operation.request.bytes(),
            OperationChange::Cancel(_) => 0,
        });
        replies.chain(rows).chain(outputs).chain(timers).chain(operations).sum()
    }

    /// Digest of all that the turn did: what its receipt names.
    pub fn digest(&self) -> Digest {
        let encode = |part: Result<Vec<u8>, postcard::Error>| {
            part.expect("effects have no type that postcard can't write")
        };
        let parts = [
            encode(postcard::to_stdvec(&self.replies)),
            encode(postcard::to_stdvec(&self.state)),
            encode(postcard::to_stdvec(&self.outputs)),
            encode(postcard::to_stdvec(&self.channels)),
            encode(postcard::to_stdvec(&self.timers)),
            encode(postcard::to_stdvec(&self.operations)),
        ];
        Digest::of_parts(parts.iter().map(Vec::as_slice))
    }
}

/// One running instance of a plugin, serving one agent.
pub trait Guest: Send {
    /// Runs `init`.
    ///
    /// # Errors
    /// `GuestError`; the guest is then dead.
    fn init(&mut self, context: &TurnContext) -> Result<TurnEffects, GuestError>;

    /// Runs one turn over `inputs`.
    ///
    /// # Errors
    /// `GuestError`; the guest is then dead.
    fn handle(&mut self, context: &TurnContext, inputs: &[Input]) -> Result<TurnEffects, GuestError>;

    /// Takes a snapshot. No effects are possible; `context` is that of the last committed turn.
    ///
    /// # Errors
    /// `GuestError`; the guest is then dead.
    fn snapshot(&mut self, context: &TurnContext) -> Result<Bytes, GuestError>;

    /// Gives a fresh guest its state.
    ///
    /// # Errors
    /// `GuestError`; the guest is then dead.
    fn restore(&mut self, context: &TurnContext, state: &[u8], from_version: &str) -> Result<(), GuestError>;

    /// Answers a question. Reads are served, effects are not possible; `context` is that of the last committed turn. The caller
    /// drops the guest afterwards: what the call left in it is no part of the agent.
    ///
    /// # Errors
    /// `GuestError`; the guest is then dead. `FaultKind::Start` when the plugin answers no queries.
    fn query(&mut self, context: &TurnContext, payload: &[u8]) -> Result<Reply, GuestError>;
}

/// Why a guest call gave nothing. Each variant is treated differently by the driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The agent asked to try again later. Counts as an attempt.
    #[error("agent asks for a retry: {message}")]
    Retryable {
        /// The agent's words.
        message: String,
    },
    /// The agent says it can never handle this. Dead letter.
    #[error("agent gave up: {message}")]
    Fatal {
        /// The agent's words.
        message: String,
    },
    /// The guest misbehaved. Counts as an attempt.
    #[error("guest fault {}: {}", .0.kind.name(), .0.message)]
    Fault(Fault),
    /// The lease was not held. Never counted.
    #[error("fenced: the lease is not held")]
    Fenced,
    /// `Interrupt` was set. Never counted.
    #[error("interrupted")]
    Interrupted,
    /// A replayed turn did something else than when it ran first.
    #[error("replay diverged: {message}")]
    Diverged {
        /// What did not fit.
        message: String,
    },
    /// The store could not answer a state read. Never counted.
    #[error(transparent)]
    StateRead(#[from] StateReadError),
}
