//! The pure rules of a turn: may it start at once, and what its failure means for its input.

use crate::guest::GuestError;
use crate::id::Incarnation;
use crate::input::{DeadLetterReason, InputState};
use crate::limits::{ATTEMPTS_MAX, DEATHS_MAX};
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
        /// Deaths to write.
        deaths: u32,
    },
    /// As `Stage`, while the process makes no other guest call: twice it died with this input staged, and if it does so
    /// again there is nobody else to blame.
    StageAlone {
        /// Attempts to write.
        attempts: u32,
        /// Deaths to write.
        deaths: u32,
    },
    /// Don't run it: the process died each time it ran, the last time when nothing else ran.
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
///
/// An input that was staged as one of a batch has no attempt yet: what became of the batch says nothing about it. One that
/// can be replaced is staged always, so that a newer one can't take its turn away from it for ever.
pub fn start(input: &StoredInput, incarnation: Incarnation) -> Start {
    let is_first_here =
        input.accepted_by == incarnation && input.attempts == 0 && input.placing.scope.is_none();
    let was_staged_by_itself = input.state == InputState::Staged && input.attempts > 0;
    let deaths = input.deaths + u32::from(was_staged_by_itself);
    let attempts = input.attempts + 1;
    match input.state {
        InputState::Queued if is_first_here => Start::Now,
        _ if deaths > DEATHS_MAX => Start::GiveUp(DeadLetterReason::KilledHost { attempts: input.attempts }),
        _ if deaths == DEATHS_MAX => Start::StageAlone { attempts, deaths },
        _ => Start::Stage { attempts, deaths },
    }
}

/// Decides what a failed turn means. `attempts` counts this turn.
pub fn after_failure(error: &GuestError, attempts: u32) -> Verdict {
    let exhausted = attempts >= ATTEMPTS_MAX;
    match error {
        // A turn that runs first can't diverge from anything.
        GuestError::Fenced
        | GuestError::Interrupted
        | GuestError::StateRead(_)
        | GuestError::Diverged { .. } => Verdict::Uncounted,
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
