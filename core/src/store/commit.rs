//! Accepting and committing: the arguments and answers of the two writes that everything else is built around.

use bytes::Bytes;

use crate::channel::{ChannelChange, ChannelName};
use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, FencingToken, Generation, Incarnation, InputId, Revision, Seq};
use crate::identity::OriginHash;
use crate::input::{DeadLetterReason, InputState, NewInput, Outcome};
use crate::journal::JournalEntry;
use crate::lease::Lease;
use crate::lease::fence::Claim;
use crate::lifecycle::{Lifecycle, LifecycleCommit};
use crate::operation::OperationChange;
use crate::output::Output;
use crate::receipt::{BoundaryKind, Receipt};
use crate::snapshot::Snapshot;
use crate::spec::SpecChange;
use crate::store::agent::StoredInput;
use crate::store::error::StoreError;
use crate::timer::NewTimer;

/// Who writes: compared with the agent's row inside the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// For which agent.
    pub agent: AgentId,
    /// In which generation.
    pub generation: Generation,
    /// Under which session.
    pub incarnation: Incarnation,
    /// With which token.
    pub token: FencingToken,
}

impl Owner {
    /// What the fence compares.
    pub fn claim(&self) -> Claim {
        Claim { generation: self.generation, incarnation: self.incarnation, token: self.token }
    }
}

/// A chain of consecutive steps of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Who commits.
    pub owner: Owner,
    /// The revision that the first step builds on.
    pub base: Revision,
    /// At least one, in order.
    pub steps: Vec<Step>,
}

/// One member of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Accepts an input whose turn, or failure, follows in the same unit. The row's next seq must be `seq`, otherwise
    /// `Stale`.
    Accept {
        /// The input.
        input: Box<NewInput>,
        /// The seq that the owner expects it to get.
        seq: Seq,
    },
    /// Sets state and attempts of open inputs. Not a boundary.
    Attempts(Vec<Attempt>),
    /// Sets `AgentRow::failed_starts`, whatever the lifecycle. Not a boundary.
    FailedStarts(u32),
    /// A boundary: receipt, fates, state and outputs, all or nothing.
    Boundary(Box<Boundary>),
    /// A snapshot of the base revision, or a kept one once more, without a receipt. Not a boundary.
    Checkpoint(Snapshot),
    /// Another configuration of the same plugin; before the first boundary also another plugin. Not a boundary.
    Configure(SpecChange),
    /// Another plugin on the same state: a boundary of kind `Upgrade` and the spec that it begins, all or nothing.
    Upgrade(Box<Upgrade>),
    /// Another state than the history names, accepted by an operator: a boundary of kind `Repair` and the move out of
    /// `Broken`, all or nothing.
    Repair(Box<Repair>),
}

impl Step {
    /// The boundary that the step makes.
    pub fn boundary(&self) -> Option<&Boundary> {
        match self {
            Self::Boundary(boundary) => Some(boundary),
            Self::Upgrade(upgrade) => Some(&upgrade.boundary),
            Self::Repair(repair) => Some(&repair.boundary),
            Self::Accept { .. }
            | Self::Attempts(_)
            | Self::FailedStarts(_)
            | Self::Checkpoint(_)
            | Self::Configure(_) => None,
        }
    }
}

/// An upgrade with all its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Its receipt names the new plugin and spec revision, and in `from` the plugin before. No input ends here.
    pub boundary: Boundary,
    /// What the agent is made of from here.
    pub change: SpecChange,
}

/// A repair with all its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Its receipt names the accepted state, and in `from` the digest that the history names instead. It holds the snapshot
    /// and events, and nothing else: no input ends here, and no effect is repeated.
    pub boundary: Boundary,
    /// The move from `Broken` to `Active`.
    pub commit: LifecycleCommit,
}

impl Repair {
    /// Whether it is what a repair may be.
    pub fn is_sound(&self) -> bool {
        let Boundary {
            receipt, ends, snapshot, journal, state, outputs, channels, timers, operations, ..
        } = &self.boundary;
        let is_bare = ends.is_empty() && state.is_empty() && outputs.is_empty();
        let has_no_wishes =
            journal.is_none() && channels.is_empty() && timers.is_empty() && operations.is_empty();
        let names_both = receipt.from.is_some() && snapshot.is_some();
        let is_recovery = matches!(self.commit.from(), Lifecycle::Broken(_))
            && *self.commit.next() == Lifecycle::Active
            && self.commit.keeps_all();
        receipt.kind == BoundaryKind::Repair && is_bare && has_no_wishes && names_both && is_recovery
    }
}

/// State and attempts of one open input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which input.
    pub seq: Seq,
    /// `Queued` or `Staged`.
    pub state: InputState,
    /// Attempts so far.
    pub attempts: u32,
    /// Times that it was found staged.
    pub deaths: u32,
}

/// A boundary with all its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Names the revision it makes (the one before + 1) and the head as its parent.
    pub receipt: Receipt,
    /// The inputs that end here, in the order of `receipt.inputs`.
    pub ends: Vec<InputEnd>,
    /// The state after it.
    pub snapshot: Option<Snapshot>,
    /// What running it again needs.
    pub journal: Option<JournalEntry>,
    /// Writes to the guest's `state` rows; `None` deletes.
    pub state: Vec<(String, Option<Bytes>)>,
    /// Outputs in commit order. Publications become one for each subscriber.
    pub outputs: Vec<Output>,
    /// What becomes of the agent's own channels, in the order of the calls.
    pub channels: Vec<ChannelChange>,
    /// What becomes of timers, at most once per name; `None` cancels.
    pub timers: Vec<(String, Option<NewTimer>)>,
    /// What becomes of operations, in the order of the calls.
    pub operations: Vec<OperationChange>,
    /// What happened.
    pub events: Vec<NewEvent>,
}

impl Boundary {
    /// Inputs that end here because the host's process died each time they ran.
    pub fn killers(&self) -> impl Iterator<Item = InputId> + '_ {
        let is_killer = |outcome: &Outcome| {
            matches!(outcome, Outcome::DeadLettered { reason: DeadLetterReason::KilledHost { .. }, .. })
        };
        let ended = self.ends.iter().zip(&self.receipt.inputs);
        ended.filter(move |(end, _)| is_killer(&end.outcome)).map(|(_, input)| *input)
    }

    /// What is to be known of its plugin, for each of the killers.
    pub fn flags(&self, now_ms: u64) -> Vec<NewEvent> {
        let flag = |input| {
            NewEvent::of_agent(&self.receipt.agent, EventKind::PluginFlagged, now_ms)
                .with("plugin", self.receipt.plugin)
                .with("input", input)
        };
        self.killers().map(flag).collect()
    }
}

/// The end of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputEnd {
    /// Which input.
    pub seq: Seq,
    /// `Committed` (consumed) or `DeadLettered`.
    pub outcome: Outcome,
}

/// How much of a unit is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitOutcome {
    /// Steps from the first on that are durable. With `UnitFailure::Store(Unknown)` it is what is certain.
    pub committed: usize,
    /// Why the step after them is not; `None` when all are.
    pub failure: Option<UnitFailure>,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitFailure {
    /// The store refused or failed; `Stale` also when the row's next seq is not the expected one.
    Store(StoreError),
    /// `Step::Accept`: the input's key or id is already here, with the same body.
    Duplicate(Box<StoredInput>),
    /// `Step::Accept`: refused at the door.
    Refused(AcceptError),
    /// `Step::Boundary`: the agent's `state` rows would be more than they may.
    Quota {
        /// Which limit, in words.
        what: String,
    },
}

/// What acceptance did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is durable now.
    New {
        /// Its place.
        seq: Seq,
    },
    /// The same key or id, with the same body, was accepted before.
    Duplicate(Box<StoredInput>),
    /// A delivery that was accepted before, or that its sender has ended: acknowledge it.
    AlreadyEnded,
    /// A request to a channel: what it asked is done or refused, and the answer is in the agent's outbox.
    Answered,
}

/// How an agent stands after a lifecycle commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub lifecycle: Lifecycle,
    /// Its generation.
    pub generation: Generation,
    /// Boundaries in it.
    pub revision: Revision,
    /// Its token.
    pub token: FencingToken,
    /// The lease, when somebody still holds it.
    pub lease: Option<Lease>,
    /// Inputs that this commit ended; 0 for a repetition.
    pub inputs_abandoned: u64,
    /// Inputs that wait.
    pub inputs_open: u64,
}

/// Why an input was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The key was used for another body.
    #[error("idempotency key was used for another body")]
    KeyReused,
    /// The inbox is full.
    #[error("inbox is full: {depth} open inputs of {bytes} bytes")]
    Busy {
        /// Open inputs.
        depth: u64,
        /// Their payloads and headers.
        bytes: u64,
    },
    /// A delivery from an owner that is no longer the current one.
    #[error("publisher's token is stale: {highest} has been heard")]
    StalePublisher {
        /// The highest token heard from the origin.
        highest: FencingToken,
    },
    /// A delivery from another agent of the origin's name than the one that has been heard.
    #[error(
        "two agents are called {origin}: the destination has heard the one with origin hash {known}, this is {given}"
    )]
    Namesake {
        /// The name of both.
        origin: AgentId,
        /// Which one was heard.
        known: OriginHash,
        /// Which one this is.
        given: OriginHash,
    },
    /// A delivery that does not say which agent of its name sends, where that is known.
    #[error(
        "nothing proves that agent {origin} sends this, which the destination knows by the origin hash {known}: its host needs its key"
    )]
    Unproven {
        /// The sending agent.
        origin: AgentId,
        /// Which one was heard.
        known: OriginHash,
    },
    /// A delivery of an agent that may have been made anew, or come from an archive: nobody has looked whether the one of before
    /// is gone.
    #[error("agent {origin} has another key than was heard: origin hash {given}, not {known}")]
    AnotherKey {
        /// The sending agent.
        origin: AgentId,
        /// Which one was heard.
        known: OriginHash,
        /// Which one this is.
        given: OriginHash,
    },
    /// A delivery whose predecessor has not arrived.
    #[error("delivery is out of order: {next} is next")]
    Gap {
        /// The number that is next.
        next: u64,
    },
    /// A publication of a channel that the agent does not subscribe to.
    #[error("the agent does not subscribe to channel {channel} of agent {origin}")]
    NotSubscribed {
        /// The publishing agent.
        origin: AgentId,
        /// Its channel.
        channel: ChannelName,
    },
    /// The agent takes no inputs from outside.
    #[error("agent is internal: only other agents, and what is dispatched, reach it")]
    NotAddressable,
    /// The sender and the agent are no neighbours, and must be.
    #[error("no edge between agent {origin} and the receiver")]
    NoEdge {
        /// The sending agent.
        origin: AgentId,
    },
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
