//! Why a store method did not do what it was asked. A variant exists because some caller acts differently on it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgentId, FencingToken, Generation, Incarnation, Revision};
use crate::lease::Holder;
use crate::lifecycle::Lifecycle;
use crate::retry::{Retry, Retryable};
use crate::store::agent::Home;

/// The store's errors. Unless a variant says otherwise nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The caller's token, incarnation or generation is not the current one. Stop acting for the agent at once.
    #[error("fenced: the current token is {current}")]
    Fenced {
        /// The agent's current token.
        current: FencingToken,
        /// Who holds it, when anybody does.
        holder: Option<Holder>,
    },
    /// The caller owns the agent and builds on a revision that is not the head.
    #[error("stale: the head is revision {revision} of generation {generation}")]
    Stale {
        /// The agent's generation.
        generation: Generation,
        /// The agent's revision.
        revision: Revision,
    },
    /// The agent's authoritative rows are not here, or not to be written now.
    #[error("agent is not at home in this store: {home:?}")]
    NotHome {
        /// Where they are.
        home: Home,
    },
    /// No agent of that id was ever here.
    #[error("no such agent in this store")]
    NoAgent,
    /// The plugin is not stored.
    #[error("no such plugin in this store: {plugin}")]
    NoPlugin {
        /// Its digest.
        plugin: Digest,
    },
    /// The plugin is needed.
    #[error("plugin is in use: {}", pin.of(agent))]
    Pinned {
        /// By whom.
        agent: AgentId,
        /// For what.
        pin: Pin,
    },
    /// The host has no live session.
    #[error("the target host has no live session in this store")]
    NoSession,
    /// The caller's session is dead. It may join again as a new incarnation.
    #[error("session {incarnation} is dead")]
    SessionDead {
        /// The session.
        incarnation: Incarnation,
    },
    /// The agent's state does not allow it.
    #[error("agent is {}", state.name())]
    Lifecycle {
        /// The state it is in.
        state: Lifecycle,
    },
    /// The claim of a new agent's id stands no more: it has run out, or a lower host has come first.
    #[error("the claim of the agent's id stands no more")]
    Unclaimed,
    /// Something else is stored under the same key.
    #[error("conflict: {what}")]
    Conflict {
        /// What stands in the way.
        what: String,
    },
    /// Somebody else is writing, or a queue is full.
    #[error("store is busy")]
    Busy,
    /// The disk or a quota is full.
    #[error("store is full")]
    Full,
    /// The write happened or it did not.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What the engine said.
        reason: String,
    },
    /// Stored bytes are damaged.
    #[error("corrupt: {what}")]
    Corrupt {
        /// Which bytes.
        what: String,
    },
    /// This store does not do that.
    #[error("this store does not support {what}")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// The store no longer takes calls.
    #[error("store is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}

/// What of an agent needs a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pin {
    /// The agent is made of it.
    Spec,
    /// A kept snapshot is of it.
    Snapshot {
        /// Of which revision.
        revision: Revision,
    },
    /// A turn that is kept to be run again ran in it.
    Turn {
        /// Which.
        revision: Revision,
    },
}

impl Pin {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Snapshot { .. } => "snapshot",
            Self::Turn { .. } => "turn",
        }
    }

    /// The kept thing's revision.
    pub fn revision(self) -> Option<Revision> {
        match self {
            Self::Spec => None,
            Self::Snapshot { revision } | Self::Turn { revision } => Some(revision),
        }
    }

    /// Says it of an agent.
    pub fn of(self, agent: &AgentId) -> String {
        match self {
            Self::Spec => format!("agent {agent} runs it; upgrade or delete the agent first"),
            Self::Snapshot { revision } => format!(
                "agent {agent} keeps its snapshot of revision {revision}; newer checkpoints take its place"
            ),
            Self::Turn { revision } => format!(
                "agent {agent} keeps turn {revision} to be run again; newer checkpoints take its place"
            ),
        }
    }
}

impl Retryable for StoreError {
    fn retry(&self) -> Retry {
        match self {
            Self::Busy | Self::Full => Retry::Later,
            Self::Unknown { .. } => Retry::ReadBack,
            _ => Retry::Never,
        }
    }
}
