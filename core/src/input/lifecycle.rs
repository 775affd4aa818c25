//! The one transition table of inputs.
//!
//! ```text
//! queued --stage--> staged --commit--> consumed
//!    ^                |  \--dead-letter--> dead-lettered --redrive--> queued
//!    \----requeue-----/
//! queued --commit--> consumed        (the undurable first run of the accepting incarnation)
//! queued --dead-letter--> dead-lettered
//! queued --replace--> replaced       any open, dead-lettered --abandon--> abandoned
//! ```
//! A dead letter is abandoned by dropping it; all other verbs end open inputs only.

use serde::{Deserialize, Serialize};

/// Where an input is. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InputState {
    /// Waits for its turn.
    Queued,
    /// Its turn has started, and that was made durable first.
    Staged,
    /// Applied.
    Consumed,
    /// Given up with a reason.
    DeadLettered,
    /// Superseded by a newer input.
    Replaced,
    /// Ended by a named verb.
    Abandoned,
}

/// What can happen to an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputEvent {
    /// Its turn is about to start, durably.
    Stage,
    /// Its turn did not commit; it waits again.
    Requeue,
    /// Its turn committed.
    Commit,
    /// It is given up.
    DeadLetter,
    /// An operator gives a dead letter another chance.
    Redrive,
    /// A newer input takes its place.
    Replace,
    /// A verb ends it.
    Abandon,
}

/// An event that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an input that is {} can't be {}", from.name(), event.done())]
pub struct TransitionError {
    /// The state it was in.
    pub from: InputState,
    /// What was tried.
    pub event: InputEvent,
}

impl InputEvent {
    /// What has become of an input that it happened to.
    fn done(self) -> &'static str {
        match self {
            Self::Stage => "staged",
            Self::Requeue => "put back",
            Self::Commit => "committed",
            Self::DeadLetter => "given up",
            Self::Redrive => "given another chance: only dead letters are",
            Self::Replace => "replaced",
            Self::Abandon => "ended",
        }
    }
}

impl InputState {
    /// All states, for tables and listings.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Staged, Self::Consumed, Self::DeadLettered, Self::Replaced, Self::Abandoned];

    /// Whether the input still waits for an end.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Staged)
    }

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Staged => "staged",
            Self::Consumed => "consumed",
            Self::DeadLettered => "dead-lettered",
            Self::Replaced => "replaced",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state after an event.
    ///
    /// # Errors
    /// `TransitionError` for every pair that the table above does not show.
    pub fn on(self, event: InputEvent) -> Result<Self, TransitionError> {
        match (self, event) {
            (Self::Queued, InputEvent::Stage) => Ok(Self::Staged),
            (Self::Staged, InputEvent::Requeue) | (Self::DeadLettered, InputEvent::Redrive) => {
                Ok(Self::Queued)
            }
            (Self::Queued | Self::Staged, InputEvent::Commit) => Ok(Self::Consumed),
            (Self::Queued | Self::Staged, InputEvent::DeadLetter) => Ok(Self::DeadLettered),
            (Self::Queued, InputEvent::Replace) => Ok(Self::Replaced),
            (Self::Queued | Self::Staged | Self::DeadLettered, InputEvent::Abandon) => Ok(Self::Abandoned),
            (from, event) => Err(TransitionError { from, event }),
        }
    }
}

#[cfg(test)]
mod tests;
