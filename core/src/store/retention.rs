//! Retention: how long what has ended is kept, and what must stay because something still rests on it.
//!
//! An ended input keeps its key, outcome and reply for a while; then its row goes, and the same key is a new input. It
//! stays longer when replay would need it: while a journal entry of the turn that ended it is kept.
//! The newest dead letters stay until somebody drops them. Undeliverable outputs go as inputs do.

use std::time::Duration;

use crate::id::Seq;
use crate::limits::{DEAD_LETTERS_KEPT_MAX, INPUTS_KEPT, OUTPUT_LIFETIME};

/// How long what has ended is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Ended inputs stay this long after their end.
    pub inputs: Duration,
    /// So many of the newest dead letters stay however old they are.
    pub dead_letters: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { inputs: INPUTS_KEPT, dead_letters: DEAD_LETTERS_KEPT_MAX }
    }
}

impl Retention {
    /// Inputs that ended at this time or before it have been kept long enough.
    pub fn inputs_before_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(millis(self.inputs))
    }

    /// Undeliverable outputs that committed at this time or before it have been kept long enough. When each ended is not
    /// known, only that it was tried no longer than `OUTPUT_LIFETIME`.
    pub fn outputs_before_ms(&self, now_ms: u64) -> u64 {
        self.inputs_before_ms(now_ms).saturating_sub(millis(OUTPUT_LIFETIME))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What one call has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Ended inputs.
    pub inputs: u64,
    /// Undeliverable outputs.
    pub outputs: u64,
    /// Where to go on, whatever this step has removed; `None` when there is nothing behind, or nothing may go now.
    pub next: Option<Seq>,
}
