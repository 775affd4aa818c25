//! Events: the append-only log of what happened to agents, hosts and migrations.
//!
//! An event is appended in the transaction that caused it. Turns are not events: receipts record them.
//!
//! Each store numbers all its events (`seq`). What happens to an agent where it is at home is counted in the agent's row as
//! well (`EventPlace`): that count moves with the agent, and so a reader can follow it from store to store and see what it
//! has missed. What one store notes about an agent that is at home in another has no place: it is that store's business.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Generation, InputId, StoreId};
use crate::input::AbandonReason;

/// An event about to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Whom it is about, when it is about an agent.
    pub agent: Option<AgentId>,
    /// From the closed set in `EventKind`.
    pub kind: EventKind,
    /// Wall time in Unix milliseconds.
    pub at_ms: u64,
    /// Details as name and value, in order; values are text.
    pub data: Vec<(String, String)>,
}

/// An appended event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The store it was appended to.
    pub store: StoreId,
    /// 1.., ascending within the store.
    pub seq: u64,
    /// Its place among the events of its agent; `None` when it is about no agent that was at home there.
    pub place: Option<EventPlace>,
    /// The agent's labels at that moment; of `LabelsChanged` the new ones. Without a place there are none.
    pub labels: BTreeMap<String, String>,
    /// What happened.
    pub event: NewEvent,
}

/// The place of an event among those of its agent, over all stores: written `GENERATION.NUMBER`.
///
/// `number`: 1.., one more with each event, also when the generation rises. It jumps only when the agent comes from a backup
/// or an archive, above every number that may have been given since that was made (`FencingToken::first_number`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventPlace {
    /// The agent's generation at that moment.
    pub generation: Generation,
    /// Which event of the agent.
    pub number: u64,
}

impl EventPlace {
    /// Before the first event.
    pub const START: Self = Self { generation: Generation(0), number: 0 };
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.number)
    }
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no place of an event: GENERATION.NUMBER, as 2.17")]
pub struct PlaceError {
    /// What was given.
    pub text: String,
}

impl FromStr for EventPlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| *number < u64::MAX);
        let parsed = text.split_once('.').and_then(|(generation, count)| {
            Some(Self { generation: Generation(number(generation)?), number: number(count)? })
        });
        parsed.ok_or_else(|| PlaceError { text: text.to_owned() })
    }
}

/// What can happen. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A host joined the store.
    HostJoined,
    /// A host left, or was buried after its lease ran out.
    HostGone,
    /// An agent was created.
    AgentCreated,
    /// A host took an agent's lease.
    LeaseAcquired,
    /// An act of a stale owner was refused.
    Fenced,
    /// An agent can't run until somebody acts.
    AgentBroken,
    /// An input was given up.
    InputDeadLettered,
    /// An output will never arrive.
    OutputUndeliverable,
    /// A plugin was loaded.
    PluginLoaded,
    /// A plugin was removed.
    PluginRemoved,
    /// A migration reached a phase.
    Migration,
    /// An agent's home moved away from, or to, this store.
    HomeMoved,
    /// An agent stopped taking turns and goes on accepting.
    AgentPaused,
    /// An agent runs again.
    AgentResumed,
    /// An agent accepts nothing more and runs what it has.
    AgentRetiring,
    /// An agent has nothing left to run and rests.
    AgentRetired,
    /// An agent was rebuilt under a new token.
    AgentRespawned,
    /// A broken agent may run again.
    AgentRecovered,
    /// An agent starts anew, in the next generation.
    AgentReset,
    /// An agent was deleted.
    AgentDeleted,
    /// An agent neither accepts nor runs until an operator says that it may.
    AgentSuspended,
    /// A verb ended inputs that waited, or an operator ended one.
    InputsAbandoned,
    /// An agent runs another plugin on its state.
    AgentUpgraded,
    /// An agent has another configuration.
    SpecChanged,
    /// An agent has other labels.
    LabelsChanged,
    /// An agent has work and makes no progress.
    AgentStuck,
    /// The store was restored from a backup.
    StoreRestored,
    /// An agent came in from an archive.
    AgentImported,
    /// An operator accepted another state of an agent than its history names.
    AgentRepaired,
    /// A plugin is suspected of killing host processes.
    PluginFlagged,
    /// A newer input took the place of one that waited.
    InputReplaced,
    /// An agent has another neighbour.
    EdgeWired,
    /// An agent has a neighbour less.
    EdgeUnwired,
    /// The store has another roster.
    RosterChanged,
    /// A host's session had died, and with it this lease; the host says so under its next session.
    LeaseLost,
    /// A host let go of an agent's lease while its session lives.
    LeaseReleased,
    /// An agent has another subscriber.
    ChannelSubscribed,
    /// A subscription to an agent's channel has ended.
    ChannelLeft,
    /// A warm copy has become the agent: what its source did behind the last round is lost.
    AgentPromoted,
}

impl EventKind {
    /// All kinds, in the order of their stored codes.
    pub const ALL: [Self; 39] = [
        Self::HostJoined,
        Self::HostGone,
        Self::AgentCreated,
        Self::LeaseAcquired,
        Self::Fenced,
        Self::AgentBroken,
        Self::InputDeadLettered,
        Self::OutputUndeliverable,
        Self::PluginLoaded,
        Self::PluginRemoved,
        Self::Migration,
        Self::HomeMoved,
        Self::AgentPaused,
        Self::AgentResumed,
        Self::AgentRetiring,
        Self::AgentRetired,
        Self::AgentRespawned,
        Self::AgentRecovered,
        Self::AgentReset,
        Self::AgentDeleted,
        Self::AgentSuspended,
        Self::InputsAbandoned,
        Self::AgentUpgraded,
        Self::SpecChanged,
        Self::LabelsChanged,
        Self::AgentStuck,
        Self::StoreRestored,
        Self::AgentImported,
        Self::AgentRepaired,
        Self::PluginFlagged,
        Self::InputReplaced,
        Self::EdgeWired,
        Self::EdgeUnwired,
        Self::RosterChanged,
        Self::LeaseLost,
        Self::LeaseReleased,
        Self::ChannelSubscribed,
        Self::ChannelLeft,
        Self::AgentPromoted,
    ];

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostJoined => "host-joined",
            Self::HostGone => "host-gone",
            Self::AgentCreated => "agent-created",
            Self::LeaseAcquired => "lease-acquired",
            Self::Fenced => "fenced",
            Self::AgentBroken => "agent-broken",
            Self::InputDeadLettered => "input-dead-lettered",
            Self::OutputUndeliverable => "output-undeliverable",
            Self::PluginLoaded => "plugin-loaded",
            Self::PluginRemoved => "plugin-removed",
            Self::Migration => "migration",
            Self::HomeMoved => "home-moved",
            Self::AgentPaused => "agent-paused",
            Self::AgentResumed => "agent-resumed",
            Self::AgentRetiring => "agent-retiring",
            Self::AgentRetired => "agent-retired",
            Self::AgentRespawned => "agent-respawned",
            Self::AgentRecovered => "agent-recovered",
            Self::AgentReset => "agent-reset",
            Self::AgentDeleted => "agent-deleted",
            Self::AgentSuspended => "agent-suspended",
            Self::InputsAbandoned => "inputs-abandoned",
            Self::AgentUpgraded => "agent-upgraded",
            Self::SpecChanged => "spec-changed",
            Self::LabelsChanged => "labels-changed",
            Self::AgentStuck => "agent-stuck",
            Self::StoreRestored => "store-restored",
            Self::AgentImported => "agent-imported",
            Self::AgentPromoted => "agent-promoted",
            Self::AgentRepaired => "agent-repaired",
            Self::PluginFlagged => "plugin-flagged",
            Self::InputReplaced => "input-replaced",
            Self::EdgeWired => "edge-wired",
            Self::EdgeUnwired => "edge-unwired",
            Self::RosterChanged => "roster-changed",
            Self::LeaseLost => "lease-lost",
            Self::LeaseReleased => "lease-released",
            Self::ChannelSubscribed => "channel-subscribed",
            Self::ChannelLeft => "channel-left",
        }
    }
}

impl NewEvent {
    /// An event about an agent.
    pub fn of_agent(agent: &AgentId, kind: EventKind, at_ms: u64) -> Self {
        Self { agent: Some(agent.clone()), kind, at_ms, data: Vec::new() }
    }

    /// An open input, or a dead letter, was ended by itself.
    pub fn input_abandoned(agent: &AgentId, input: InputId, reason: AbandonReason, at_ms: u64) -> Self {
        Self::of_agent(agent, EventKind::InputsAbandoned, at_ms)
            .with("inputs", 1)
            .with("reason", reason.name())
            .with("input", input)
    }

    /// A queued input has ended, and `by` is there instead.
    pub fn input_replaced(agent: &AgentId, input: InputId, by: InputId, at_ms: u64) -> Self {
        Self::of_agent(agent, EventKind::InputReplaced, at_ms).with("input", input).with("by", by)
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.data.push((name.to_owned(), value.to_string()));
        self
    }
}
