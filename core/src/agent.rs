//! Running one agent: the handle that others hold, and what travels between them and its driver.
//!
//! ```text
//! Runtime --Handle--> mailbox --> Driver (one task per resident agent)
//!                                   |-- Inbox                 what runs next, and what runs together; pure
//!                                   |-- GuestPool (threads)   turn.rs: pure rules; burst.rs: what runs there
//!                                   |-- RuntimeStore          chain.rs: turns waiting for one commit
//! ```
//! A parked agent has no driver: it is a row in the store and, while owned, a lease in the runtime's directory.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::agent::rebuild::Rebuilt;
use crate::digest::Digest;
use crate::guest::{GuestLoader, Interrupt};
use crate::id::{AgentId, Generation, HostId, InputId, Revision, Seq, SpecRevision};
use crate::input::{NewInput, Outcome};
use crate::lease::{Lease, LeaseGuard};
use crate::snapshot::Snapshot;
use crate::spec::{PluginInfo, Spec};
use crate::store::{AcceptError, BrokenReason, Owner, RuntimeStore};
use crate::time::Clock;

mod burst;
mod chain;
mod control;
mod driver;
mod inbox;
pub mod load_notes;
mod loading;
mod overlay;
pub mod pool;
pub mod prover;
pub mod query;
pub mod rebuild;
pub mod recover;
pub mod sabotage;
mod tail;
pub mod turn;
pub mod watched;

use control::{Control, Ending};

pub use control::Interrupted;
pub use driver::spawn;
pub use load_notes::{LoadNotes, MemoryNotes};
pub use loading::{CatchUpError, catch_up, guest_request, outside_context, state_reader};
pub use overlay::Overlay;
pub use pool::GuestPool;
pub use watched::{Watch, Watched};

/// Commands that wait for one driver; more are refused as busy. Each is an ask of a client that waits.
pub const MAILBOX_MAX: usize = 1_024;

/// What every driver of a host shares.
#[derive(Clone)]
pub struct AgentEnv {
    /// Everything durable.
    pub store: Arc<dyn RuntimeStore>,
    /// Starts guests.
    pub loader: Arc<dyn GuestLoader>,
    /// Runs guest calls.
    pub pool: Arc<GuestPool>,
    /// The queries that run or wait.
    pub queries: Arc<query::Queries>,
    /// How many guests are kept, in all, to prove snapshots of busy agents with: they take room beside the residents.
    pub spares: Arc<Semaphore>,
    /// Which agents are being loaded, for the next process to know.
    pub load_notes: Arc<dyn LoadNotes>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// This host.
    pub host: HostId,
    /// Told what the rest of the host must know. Called from the driver's task; must not block.
    pub notify: Arc<dyn Fn(Notice) + Send + Sync>,
    /// An agent without work for this long is parked.
    pub park_after: Duration,
    /// Agents whose next boundary somebody waits for.
    pub watched: Arc<Watched>,
}

/// What a driver tells its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Outputs have committed.
    Outputs(AgentId),
    /// Timers have been set or cancelled.
    Timers,
    /// Operations have been started or cancelled.
    Operations(AgentId),
    /// A snapshot was taken before the agent was parked.
    Checkpointed(AgentId),
    /// It is durable that the agent can't run.
    Broke(AgentId, BrokenReason),
    /// The host has no room for this agent's guest: somebody idle should be parked.
    NoRoom(AgentId),
    /// The driver is gone. Its handle takes nothing any more.
    Ended(AgentId, End),
}

/// Why a driver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It had nothing to do, or was asked to. The lease is still held.
    Parked,
    /// The agent can't run until somebody acts. The lease is still held.
    Broken,
    /// The lease is another's.
    Lost,
    /// A migration took it away.
    Moved,
}

/// The right to run an agent, and a guest that may already be warm.
pub struct Grant {
    /// The lease.
    pub lease: Lease,
    /// The guard of that lease; a warm guest was started with it.
    pub guard: LeaseGuard,
    /// A guest that is warm already: used only if the store's newest snapshot is the one that it was restored from.
    pub warm: Option<WarmGuest>,
}

/// A started guest that holds the state of a snapshot, and may have run again what was journaled behind it.
pub struct WarmGuest {
    /// The guest, and where it is.
    pub rebuilt: Rebuilt,
    /// The snapshot that it was restored from, whatever the sender of the snapshot called it.
    pub built_from: Snapshot,
    /// Digest of that one's state.
    pub state: Digest,
    /// What it was started with.
    pub spec: Arc<Spec>,
    /// Ends its calls: what it was started with.
    pub interrupt: Interrupt,
    /// Serves its reads: what it was started with.
    pub rows: Arc<Overlay>,
}

impl WarmGuest {
    /// Whether it is what this snapshot and spec make.
    pub fn is_of(&self, snapshot: Option<&Snapshot>, spec: &Spec) -> bool {
        let is_same = |snapshot: &Snapshot| {
            (snapshot.generation, snapshot.revision) == (self.built_from.generation, self.built_from.revision)
        };
        snapshot.is_some_and(is_same) && *self.spec == *spec
    }
}

/// How an ask ended, as far as this host can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The input has ended, durably.
    Ended {
        /// Which input: the earlier one for a duplicate.
        input: InputId,
        /// Its place.
        seq: Seq,
        /// Its end.
        outcome: Outcome,
        /// Whether the key or id was accepted before.
        is_duplicate: bool,
    },
    /// Definitely not accepted; nothing will run.
    NotAccepted(NotAccepted),
    /// It was not accepted here because the agent is elsewhere now: route it again.
    Elsewhere,
    /// It is durable and the agent is elsewhere now: its end must be read where the agent is.
    Follow {
        /// Which input.
        input: InputId,
    },
    /// Nobody knows whether it was accepted: read it by its id, or repeat it with its key.
    Unknown {
        /// Which input.
        input: InputId,
    },
}

/// Why an ask was definitely not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// Refused at the door.
    #[error(transparent)]
    Refused(#[from] AcceptError),
    /// The agent can't run until somebody acts.
    #[error("agent is broken: {}", .0.name())]
    Broken(BrokenReason),
    /// Too many callers wait for this agent.
    #[error("too many callers wait for this agent")]
    Busy,
    /// An operator ended its turn before it committed.
    #[error("its turn was interrupted by an operator")]
    Interrupted,
    /// The host is stopping or can't write now.
    #[error("host can't take it now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Where the stored snapshot of a checkpoint is in the agent's history. Of two, that of a later state is the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checkpointed {
    /// In which generation.
    pub generation: Generation,
    /// Of which revision.
    pub revision: Revision,
}

/// Why a command had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The driver ended first; activate the agent and try again.
    #[error("agent was parked or moved meanwhile")]
    Gone,
    /// The agent is being loaded; try again soon.
    #[error("agent is being loaded")]
    Loading,
    /// It happened or it did not.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What the store said.
        reason: String,
    },
    /// The agent can't do it.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

/// An agent held at a turn boundary. Thaws when dropped.
#[derive(Debug)]
pub struct Frozen {
    /// Who may write.
    pub owner: Owner,
    /// The boundary.
    pub revision: Revision,
    handle: Handle,
    is_armed: bool,
}

impl Frozen {
    /// Ends the driver because the agent has moved: waiting callers are routed again.
    pub async fn moved(self) {
        self.end(End::Moved).await;
    }

    /// Ends the driver because something about the agent has changed: waiting callers are routed again, and the next that
    /// needs the agent loads it anew.
    pub async fn parked(self) {
        self.end(End::Parked).await;
    }

    async fn end(mut self, end: End) {
        self.is_armed = false;
        let (done, ended) = oneshot::channel();
        if self.handle.send(Command::Stop { end, done }).await.is_ok() {
            // An error means that the driver is gone, which is what was wanted.
            let _ = ended.await;
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.is_armed {
            self.handle.thaw();
        }
    }
}

pub(crate) struct AskRequest {
    pub(crate) input: NewInput,
    pub(crate) answer: oneshot::Sender<Answer>,
}

pub(crate) struct RespecRequest {
    pub(crate) spec: Spec,
    /// What the spec names.
    pub(crate) plugin: PluginInfo,
    pub(crate) done: oneshot::Sender<Result<Respecced, CommandError>>,
}

/// How a start has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// There is a guest at this revision; 0 of one that is new and does not run.
    Loaded {
        /// Which.
        revision: Revision,
    },
    /// It can't run until somebody acts.
    Broken(BrokenReason),
}

/// A spec that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Respecced {
    /// The plugin before.
    pub plugin_before: Digest,
    /// The spec revision from here.
    pub spec_revision: SpecRevision,
    /// The revision from here: another one after an upgrade.
    pub revision: Revision,
}

pub(crate) enum Command {
    Ask(Box<AskRequest>),
    Join { input: InputId, seq: Seq, answer: oneshot::Sender<Answer> },
    Wake,
    Remind,
    Reload,
    Checkpoint { done: oneshot::Sender<Result<Checkpointed, CommandError>> },
    Recycle { done: oneshot::Sender<Result<Revision, CommandError>> },
    Started { done: oneshot::Sender<Started> },
    Respec(Box<RespecRequest>),
    Freeze { done: oneshot::Sender<Frozen> },
    Stop { end: End, done: oneshot::Sender<()> },
}

/// Reaches a resident agent's driver. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::Sender<Command>,
    thaw: Arc<tokio::sync::Notify>,
    control: Control,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    pub(crate) fn new(
        mailbox: mpsc::Sender<Command>,
        thaw: Arc<tokio::sync::Notify>,
        control: Control,
    ) -> Self {
        Self { mailbox, thaw, control }
    }

    async fn send(&self, command: Command) -> Result<(), CommandError> {
        self.mailbox.send(command).await.map_err(|_| CommandError::Gone)
    }

    /// Whether the driver still takes commands.
    pub fn is_alive(&self) -> bool {
        !self.mailbox.is_closed()
    }

    /// Asks the agent and waits for the end of the input. `None` when the driver ended before it looked at the input:
    /// nothing happened, activate the agent and ask again with the input given back.
    ///
    /// # Cancel safety
    /// Dropping the future before the input was accepted or started means that it is not run.
    pub async fn ask(&self, input: NewInput) -> Result<Answer, Box<NewInput>> {
        let id = input.input.id;
        let _waits = self.control.caller();
        let (answer, answered) = oneshot::channel();
        match self.mailbox.try_send(Command::Ask(Box::new(AskRequest { input, answer }))) {
            Ok(()) => Ok(answered.await.unwrap_or(Answer::Unknown { input: id })),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Answer::NotAccepted(NotAccepted::Busy)),
            Err(mpsc::error::TrySendError::Closed(Command::Ask(request))) => Err(Box::new(request.input)),
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(Answer::Unknown { input: id }),
        }
    }

    /// Waits for the end of an input that is already durable.
    pub async fn join(&self, input: InputId, seq: Seq) -> Answer {
        let (answer, answered) = oneshot::channel();
        match self.send(Command::Join { input, seq, answer }).await {
            Ok(()) => answered.await.unwrap_or(Answer::Follow { input }),
            Err(_) => Answer::Follow { input },
        }
    }

    /// Hints that the inbox has grown.
    pub fn wake(&self) {
        // A full mailbox means that the driver is awake and will look at the inbox anyway.
        let _ = self.mailbox.try_send(Command::Wake);
    }

    /// Hints that the store names an input that must run, whoever opened it, and whatever the driver has read.
    pub fn remind(&self) {
        // The store names it again as long as it waits.
        let _ = self.mailbox.try_send(Command::Remind);
    }

    /// Hints that an input at an old place is open again: the inbox must be read from its start.
    pub async fn reload(&self) {
        // A driver that is gone reads everything when it starts again.
        let _ = self.send(Command::Reload).await;
    }

    /// Stores a snapshot of the current revision.
    ///
    /// # Errors
    /// `CommandError`; the agent is as before.
    pub async fn checkpoint(&self) -> Result<Checkpointed, CommandError> {
        let (done, result) = oneshot::channel();
        self.send(Command::Checkpoint { done }).await?;
        result.await.unwrap_or(Err(CommandError::Gone))
    }

    /// Rebuilds the instance from the store at the next turn boundary; what waits goes on waiting.
    ///
    /// # Errors
    /// `CommandError`; `Loading` when the agent can't be loaded now.
    pub async fn recycle(&self) -> Result<Revision, CommandError> {
        let (done, result) = oneshot::channel();
        self.send(Command::Recycle { done }).await?;
        result.await.unwrap_or(Err(CommandError::Gone))
    }

    /// Waits until the agent is loaded and, when it is new and runs, has begun; or until it turns out to be broken.
    ///
    /// # Errors
    /// `Gone` when the driver ended first.
    pub async fn started(&self) -> Result<Started, CommandError> {
        let (done, started) = oneshot::channel();
        self.send(Command::Started { done }).await?;
        started.await.map_err(|_| CommandError::Gone)
    }

    /// How many wait for the end of what they have asked.
    pub fn callers(&self) -> u64 {
        self.control.callers()
    }

    /// Whether a turn's guest call runs now.
    pub fn is_running(&self) -> bool {
        self.control.is_running()
    }

    /// Whether the driver has ended, or is ending and runs no turn any more: its last one has committed, or never will.
    pub fn is_resting(&self) -> bool {
        self.control.is_resting() || !self.is_alive()
    }

    /// Takes another spec at the next turn boundary: another configuration, or an upgrade to the plugin that `spec` names.
    ///
    /// # Errors
    /// `CommandError`; but for `Unknown`, the agent goes on as before.
    pub async fn respec(&self, spec: Spec, plugin: PluginInfo) -> Result<Respecced, CommandError> {
        let (done, result) = oneshot::channel();
        self.send(Command::Respec(Box::new(RespecRequest { spec, plugin, done }))).await?;
        result.await.unwrap_or(Err(CommandError::Gone))
    }

    /// Ends the turn that runs now, within 100 ms, and gives its inputs up. Nothing is counted, and the agent goes on.
    ///
    /// # Errors
    /// `Gone` when the driver ended first: nobody knows what became of the turn, and nothing of it has committed.
    pub async fn interrupt(&self) -> Result<Interrupted, CommandError> {
        match self.control.ask(Ending::Interrupt) {
            None => Ok(Interrupted::Idle),
            Some(answer) => answer.await.map_err(|_| CommandError::Gone),
        }
    }

    /// Ends the turn that runs now, within 100 ms, and the driver with it. Nothing is given up. The agent must have been
    /// paused before, or the next who needs it starts it again.
    pub async fn stop(&self) -> Interrupted {
        let answer = self.control.ask(Ending::Stop);
        self.park().await;
        match answer {
            None => Interrupted::Idle,
            // Without an answer it was put back: that is what a driver that ends does.
            Some(answer) => answer.await.unwrap_or(Interrupted::PutBack),
        }
    }

    /// Holds the agent at its next turn boundary: callers wait, nothing runs.
    ///
    /// # Errors
    /// `Gone` when the driver ended first.
    pub async fn freeze(&self) -> Result<Frozen, CommandError> {
        let (done, frozen) = oneshot::channel();
        self.send(Command::Freeze { done }).await?;
        frozen.await.map_err(|_| CommandError::Gone)
    }

    /// Ends the driver at the next turn boundary; the agent is parked.
    pub async fn park(&self) {
        let (done, ended) = oneshot::channel();
        if self.send(Command::Stop { end: End::Parked, done }).await.is_ok() {
            // An error means that the driver is gone, which is what was wanted.
            let _ = ended.await;
        }
    }

    fn thaw(&self) {
        self.thaw.notify_one();
    }
}

impl Frozen {
    pub(crate) fn new(owner: Owner, revision: Revision, handle: Handle) -> Self {
        Self { owner, revision, handle, is_armed: true }
    }
}
