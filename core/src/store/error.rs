//! Why a store method did not do what it was asked. A variant exists because some caller acts differently on it.

use crate::digest::Digest;
use crate::id::{FencingToken, Generation, Incarnation, Revision};
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

impl Retryable for StoreError {
    fn retry(&self) -> Retry {
        match self {
            Self::Busy | Self::Full => Retry::Later,
            Self::Unknown { .. } => Retry::ReadBack,
            _ => Retry::Never,
        }
    }
}
