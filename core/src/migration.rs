//! Moving a running agent to another host: its phases, the roles of the two hosts, and why it did not move, as records and the
//! API show them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod handoff;
pub mod recovery;

/// How far a migration is. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Asking the target.
    Reserve,
    /// Rows travel while the agent works.
    Transfer,
    /// The target builds a guest from the snapshot.
    Restore,
    /// The source is frozen; the target catches up.
    Replay,
    /// The commit point.
    Cutover,
    /// The target runs it.
    Complete,
    /// It ended without moving: something failed.
    Failed,
    /// It ended without moving: somebody ended it.
    Aborted,
}

impl Phase {
    /// Whether nothing will change any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Aborted)
    }

    /// Longest that a migration stays in it; then it is ended, for it has not passed its commit point. `None` from there on: a
    /// cutover is decided by rows and answers alone, however long that takes.
    pub fn time_max(self) -> Option<Duration> {
        let seconds = match self {
            // The wait for a target that is not ready (30 s), and one message.
            Self::Reserve => 40,
            // Each bundle has its own bound; this one is for an agent that writes as fast as it is sent.
            Self::Transfer => 300,
            // One message, and the component's compilation at the target.
            Self::Restore => 30,
            // The freeze (5 s), and the last rows that do not go with the cutover's own message.
            Self::Replay => 30,
            Self::Cutover | Self::Complete | Self::Failed | Self::Aborted => return None,
        };
        Some(Duration::from_secs(seconds))
    }

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Transfer => "transfer",
            Self::Restore => "restore",
            Self::Replay => "replay",
            Self::Cutover => "cutover",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// Which side of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// The host it leaves; coordinates.
    Source,
    /// The host it goes to.
    Target,
}

/// Why a host does not take an agent. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// It would be granted less than it needs.
    Grants,
    /// It requires what the host does not offer.
    Requirements,
    /// The host takes no more agents.
    Cordoned,
    /// An agent of this id is there, or a newer tombstone of it.
    Exists,
    /// Its component is not what it should be, or can't be run.
    Plugin,
    /// The host's operator does not want it.
    Policy,
    /// There is no room for it.
    Capacity,
    /// The other side does not know this migration, or what it was told makes no sense in it.
    Protocol,
}

impl Refusal {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grants => "grants",
            Self::Requirements => "requirements",
            Self::Cordoned => "cordoned",
            Self::Exists => "exists",
            Self::Plugin => "plugin",
            Self::Policy => "policy",
            Self::Capacity => "capacity",
            Self::Protocol => "protocol",
        }
    }
}

/// Why a migration did not move the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The target will not take it.
    #[error("target refused: {reason}")]
    Refused {
        /// Of which kind.
        why: Refusal,
        /// In words.
        reason: String,
    },
    /// The plugin can't be had at the target.
    #[error("plugin unavailable at the target: {reason}")]
    PluginUnavailable {
        /// Why.
        reason: String,
    },
    /// The target can't build a guest from the state.
    #[error("state can't be restored at the target: {reason}")]
    StateFailed {
        /// Why.
        reason: String,
    },
    /// The source lost the agent.
    #[error("source was fenced")]
    Fenced,
    /// A phase took too long.
    #[error("timed out in phase {}", phase.name())]
    Timeout {
        /// Which.
        phase: Phase,
    },
    /// The other host does not answer.
    #[error("peer unreachable: {reason}")]
    PeerUnreachable {
        /// What the mesh said.
        reason: String,
    },
    /// Somebody ended it.
    #[error("aborted by {by}")]
    Aborted {
        /// Who: `operator`, `restart`, `takeover`.
        by: String,
    },
    /// The agent's key could not be handed over.
    #[error("the agent's key could not be handed over: {reason}")]
    IdentityTransportFailed {
        /// Why.
        reason: String,
    },
    /// The target takes nothing now: it starts or stops, its store does not answer, or it has not settled an earlier move.
    #[error("target is not ready: {reason}")]
    NotReady {
        /// Why.
        reason: String,
    },
    /// The target runs the agent, on an operator's word, though it was never let go here: it stays held at the source.
    #[error(
        "forked: the target runs the agent, which was not let go here. What is here stays held: adopt it here by force to give it up"
    )]
    Forked,
    /// It writes faster than it is sent: too much was left for the time that it may stand still. It goes on where it is.
    #[error(
        "the agent writes faster than it is sent: more than {bytes_max} bytes were left after {rounds} rounds, which is more than it may stand still for. Try again when it has less to do, or raise mesh.delta_bytes_max"
    )]
    DeltaTooLarge {
        /// What may be left.
        bytes_max: u64,
        /// Rounds of rows that were sent.
        rounds: u32,
    },
    /// The agent does something else at the target than it did here: it goes on where it is.
    #[error("the agent's last turns do something else at the target: {reason}")]
    Diverged {
        /// Which turn, and what did not fit.
        reason: String,
    },
    /// The hosts speak no common version of the protocol.
    #[error("no common version of the protocol: {reason}")]
    IncompatibleVersion {
        /// What each speaks.
        reason: String,
    },
}

impl Failure {
    /// The name in the HTTP API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::PluginUnavailable { .. } => "plugin_unavailable",
            Self::StateFailed { .. } => "state_failed",
            Self::Fenced => "fenced",
            Self::Timeout { .. } => "timeout",
            Self::PeerUnreachable { .. } => "peer_unreachable",
            Self::Aborted { .. } => "aborted",
            Self::IdentityTransportFailed { .. } => "identity_transport_failed",
            Self::NotReady { .. } => "not_ready",
            Self::Forked => "forked",
            Self::DeltaTooLarge { .. } => "delta_too_large",
            Self::Diverged { .. } => "diverged",
            Self::IncompatibleVersion { .. } => "incompatible_version",
        }
    }

    /// Of which kind a refusal is.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { why, .. } => Some(*why),
            _ => None,
        }
    }

    /// Whether starting it again can help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. }
                | Self::PeerUnreachable { .. }
                | Self::Aborted { .. }
                | Self::NotReady { .. }
                | Self::DeltaTooLarge { .. }
        )
    }
}
