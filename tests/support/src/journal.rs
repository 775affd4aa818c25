//! What clients did and what they were told: the ground truth that checkers compare hosts with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fate::{Answer, Fate};

/// One thing that a client wanted done, with every try of it.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Who: each client does one thing after the other.
    pub client: usize,
    /// The client's count, 0...
    pub index: u64,
    /// Of which agent.
    pub agent: String,
    /// The idempotency key, the same at each try.
    pub key: String,
    /// What was submitted, the same at each try.
    pub payload: String,
    /// What each try was told, in order.
    pub fates: Vec<Fate>,
    /// From the first try to the last answer.
    pub took: Duration,
}

impl Operation {
    /// What it was told, if a host has acknowledged it.
    pub fn acknowledged(&self) -> Option<&Answer> {
        self.fates.iter().find_map(Fate::answer)
    }

    /// Whether no host acknowledged it, but one may have accepted it.
    pub fn is_unknown(&self) -> bool {
        let may_be = self.fates.iter().any(|fate| matches!(fate, Fate::Unknown(_)));
        may_be && self.acknowledged().is_none()
    }
}

/// Operations in the order in which they ended. Clones write to the same journal.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<Operation>>>);

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an operation down.
    pub fn record(&self, operation: Operation) {
        self.lock().push(operation);
    }

    /// How many have been acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let is_acknowledged = |operation: &&Operation| operation.acknowledged().is_some();
        self.lock().iter().filter(is_acknowledged).count()
    }

    /// Everything so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().clone()
    }
}

/// Figures of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Operations that a host acknowledged.
    pub acknowledged: usize,
    /// Operations whose fate stayed unknown.
    pub unknown: usize,
    /// Tries that had to be repeated.
    pub repeated: usize,
    /// The longest that a client waited for one operation, repetitions included.
    pub longest: Duration,
}

impl Summary {
    /// Counts.
    pub fn of(operations: &[Operation]) -> Self {
        let count = |is: fn(&&Operation) -> bool| operations.iter().filter(is).count();
        Self {
            acknowledged: count(|operation| operation.acknowledged().is_some()),
            unknown: count(|operation| operation.is_unknown()),
            repeated: operations.iter().map(|operation| operation.fates.len() - 1).sum(),
            longest: operations.iter().map(|operation| operation.took).max().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} acknowledged, {} of unknown fate, {} tries repeated, longest wait of a client {:.0} ms",
            self.acknowledged,
            self.unknown,
            self.repeated,
            self.longest.as_secs_f64() * 1_000.0
        )
    }
}
