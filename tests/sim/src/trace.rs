//! What happened in a run, as a hash over all of it; printed as well, when one seed is replayed.

use std::fmt::{Arguments, Write as _};
use std::io::Write as _;
use std::time::Duration;

use crate::clock::millis;

/// The trace of a run.
pub struct Trace {
    hasher: blake3::Hasher,
    line: String,
    lines: u64,
    is_printed: bool,
}

impl Trace {
    /// An empty trace.
    pub fn new(is_printed: bool) -> Self {
        Self { hasher: blake3::Hasher::new(), line: String::new(), lines: 0, is_printed }
    }

    /// Takes down what happened at a time.
    pub fn note(&mut self, at: Duration, what: Arguments<'_>) {
        self.line.clear();
        // Writing to a string can't fail.
        let _ = writeln!(self.line, "{:>6} {what}", millis(at));
        self.hasher.update(self.line.as_bytes());
        self.lines += 1;
        if self.is_printed {
            // Past the capture of tests: who replays a seed wants to see it. A closed pipe is no failure of the run.
            let _ = std::io::stdout().write_all(self.line.as_bytes());
        }
    }

    /// The hash so far, and how many lines there are.
    pub fn sum_up(&self) -> (String, u64) {
        (self.hasher.finalize().to_hex().as_str()[..16].to_owned(), self.lines)
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}
