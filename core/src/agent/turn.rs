//! The pure rules of a turn: may it start at once, and what its failure means for its input.

use crate::guest::GuestError;
use crate::id::Incarnation;
use crate::input::{DeadLetterReason, InputState};
use crate::limits::ATTEMPTS_MAX;
use crate::store::StoredInput;

/// What must happen before an input's turn starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Nothing: the first run by the session that accepted it.
    Now,
    /// Make the attempt durable first, so that a turn that kills the process is counted.
    Stage {
        /// Attempts to write.
        attempts: u32,
    },
    /// Don't run it: the process died each time it ran.
    GiveUp(DeadLetterReason),
}

/// What a failed turn means for its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was counted: the same turn may run again under a valid lease.
    Uncounted,
    /// It waits again, with this many attempts behind it.
    Again {
        /// Attempts to write.
        attempts: u32,
    },
    /// It is dead-lettered, and the agent goes on.
    DeadLetter(DeadLetterReason),
}

/// Decides how an input's turn starts.
pub fn start(input: &StoredInput, incarnation: Incarnation) -> Start {
    let is_first_here = input.accepted_by == incarnation && input.attempts == 0;
    match input.state {
        InputState::Queued if is_first_here => Start::Now,
        InputState::Staged if input.attempts >= ATTEMPTS_MAX => {
            Start::GiveUp(DeadLetterReason::KilledHost { attempts: input.attempts })
        }
        _ => Start::Stage { attempts: input.attempts + 1 },
    }
}

/// Decides what a failed turn means. `attempts` counts this turn.
pub fn after_failure(error: &GuestError, attempts: u32) -> Verdict {
    let exhausted = attempts >= ATTEMPTS_MAX;
    match error {
        GuestError::Fenced | GuestError::Interrupted | GuestError::StateRead(_) => Verdict::Uncounted,
        GuestError::Fatal { message } => {
            Verdict::DeadLetter(DeadLetterReason::Fatal { message: message.clone() })
        }
        GuestError::Retryable { message } if exhausted => {
            Verdict::DeadLetter(DeadLetterReason::AttemptsExhausted { message: message.clone(), attempts })
        }
        GuestError::Fault(fault) if exhausted => {
            Verdict::DeadLetter(DeadLetterReason::Fault { fault: fault.clone(), attempts })
        }
        GuestError::Retryable { .. } | GuestError::Fault(_) => Verdict::Again { attempts },
    }
}

#[cfg(test)]
mod tests;
