//! Retrying: which errors allow it, and the delays between tries.

use std::time::Duration;

/// What a caller may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing was done; the same call may succeed later.
    Later,
    /// Repeating cannot help.
    Never,
    /// It may or may not have happened: read the truth back before doing anything.
    ReadBack,
}

/// Errors that know whether a retry can help.
pub trait Retryable {
    /// What a caller may do.
    fn retry(&self) -> Retry;
}

/// Delays that double from `first` to `cap`, each spread by ±25 % with the caller's random byte.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    cap: Duration,
}

impl Backoff {
    /// A back-off starting at `first` and never above `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { next: first.min(cap), cap }
    }

    /// The delay before the next try; `random` spreads it.
    pub fn delay(&mut self, random: u8) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.cap);
        base.mul_f64(0.75 + f64::from(random) / 510.0)
    }
}

#[cfg(test)]
mod tests;
