//! The one policy table: what becomes of an input by its kind, the mode its sender chose, and what the agent does.
//!
//! | kind | lane | wakes | batch | replaces |
//! |---|---|---|---|---|
//! | message, flow-step, peer-request | queue | yes | alone | no |
//! | peer-message, peer-response-terminal, event | queue | yes | joins | no |
//! | peer-response-progress | steer | no | joins | yes |
//! | continuation | steer | yes | joins | no |
//! | operation, timer | queue | yes | joins | no |
//!
//! | mode | changes |
//! |---|---|
//! | default | nothing |
//! | queue, steer | the lane, for every kind but peer-response-progress |
//!
//! | agent | an input that wakes | one that doesn't |
//! |---|---|---|
//! | idle | `Activate` | `Nothing` |
//! | running | `Tell` | `Tell` |
//!
//! An agent's inputs run steer lane before queue lane, and by admission within a lane. They are due up to the last one
//! that wakes; what lies behind it waits in silence. *Alone* is one guest call for one input; inputs that *join* share one
//! with their neighbours of the same lane. An input that *replaces* ends the queued one of the same sender and correlation
//! without being asked to; any other does so only under a supersession key.
//!
//! Here too: which kinds a client may submit, and `Placing`, what admission makes of an input. Not here: whether a peer
//! request's intent is silent; the agent's spec says that.

use serde::{Deserialize, Serialize};

use crate::input::{Kind, Source};

/// The line in which an input waits. The variants' order is the lanes' order, and part of the stored encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Runs before the queue lane.
    Steer,
    /// The usual one.
    Queue,
}

impl Lane {
    /// Both lanes, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Steer, Self::Queue];

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steer => "steer",
            Self::Queue => "queue",
        }
    }
}

/// What the sender asked for. The variants' order is part of the wire encoding: append only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The kind decides.
    #[default]
    Default,
    /// Behind what waits.
    Queue,
    /// Before what waits.
    Steer,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Default, Self::Queue, Self::Steer];

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Queue => "queue",
            Self::Steer => "steer",
        }
    }
}

/// Whether inputs share a guest call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Batch {
    /// One call for this input.
    Alone,
    /// With neighbours of its lane that join too.
    Joins,
}

/// What the agent does when an input arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Nobody runs it: it is a row.
    Idle,
    /// It has a guest, which may be in a turn.
    Running,
}

/// What is done when an input has been accepted. Only a hint: correctness rests on the stored `wakes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Nothing: the next turn finds it.
    Nothing,
    /// The running agent is told that its inbox has grown.
    Tell,
    /// The agent is started.
    Activate,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Where it waits.
    pub lane: Lane,
    /// Whether it may not wait for another input to run.
    pub wakes: bool,
    /// Whether it shares a guest call.
    pub batch: Batch,
    /// Whether it takes the place of an older one of the same sender and correlation.
    pub replaces: bool,
}

impl Policy {
    /// The row of a kind under a mode.
    pub fn of(kind: &Kind, mode: Mode) -> Self {
        let row = |lane, wakes, batch, replaces| Self { lane, wakes, batch, replaces };
        let by_kind = match kind {
            Kind::Message | Kind::FlowStep | Kind::PeerRequest { .. } => {
                row(Lane::Queue, true, Batch::Alone, false)
            }
            Kind::PeerMessage | Kind::PeerResponseTerminal | Kind::Event | Kind::Operation | Kind::Timer => {
                row(Lane::Queue, true, Batch::Joins, false)
            }
            Kind::PeerResponseProgress => return row(Lane::Steer, false, Batch::Joins, true),
            Kind::Continuation => row(Lane::Steer, true, Batch::Joins, false),
        };
        match mode {
            Mode::Default => by_kind,
            Mode::Queue => Self { lane: Lane::Queue, ..by_kind },
            Mode::Steer => Self { lane: Lane::Steer, ..by_kind },
        }
    }

    /// What is done once the input is durable.
    pub fn signal(wakes: bool, activity: Activity) -> Signal {
        match (activity, wakes) {
            (Activity::Running, _) => Signal::Tell,
            (Activity::Idle, true) => Signal::Activate,
            (Activity::Idle, false) => Signal::Nothing,
        }
    }
}

/// Why a client may not submit a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KindRefused {
    /// Inputs of this kind follow from something the store knows: a timer, an operation, the agent's own work.
    #[error("the host itself makes inputs of this kind")]
    Derived,
    /// Only another agent sends it, through its outbox.
    #[error("only another agent sends inputs of this kind")]
    FromPeers,
}

/// Whether a client of the API may submit inputs of a kind.
///
/// # Errors
/// `KindRefused` says who makes such inputs.
pub fn check_submittable(kind: &Kind) -> Result<(), KindRefused> {
    match kind {
        Kind::Message | Kind::FlowStep | Kind::Event => Ok(()),
        Kind::Continuation | Kind::Operation | Kind::Timer => Err(KindRefused::Derived),
        Kind::PeerMessage
        | Kind::PeerRequest { .. }
        | Kind::PeerResponseProgress
        | Kind::PeerResponseTerminal => Err(KindRefused::FromPeers),
    }
}

/// What a newer input must share to take the place of an older one: besides the kind, this text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope(pub String);

impl Scope {
    /// The scope of an input: the key that its sender chose, otherwise sender and correlation where the kind replaces.
    pub fn of(
        policy: Policy,
        source: &Source,
        correlation: Option<&str>,
        supersedes: Option<&str>,
    ) -> Option<Self> {
        if let Some(key) = supersedes {
            return Some(Self(format!("key {key}")));
        }
        let correlation = correlation.filter(|_| policy.replaces)?;
        let sender = match source {
            Source::Peer { agent, .. } => agent.as_str(),
            // Nobody else sends a kind that replaces; they would share one scope.
            Source::Operator | Source::Flow { .. } | Source::System | Source::External { .. } => "",
        };
        Some(Self(format!("answer {sender} {correlation}")))
    }
}

/// What admission makes of an input: stored with it, and never changed but for `wakes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    /// Where it waits.
    pub lane: Lane,
    /// Whether it may not wait for another input to run.
    pub wakes: bool,
    /// Set when it takes the place of older ones.
    pub scope: Option<Scope>,
}

#[cfg(test)]
mod tests;
