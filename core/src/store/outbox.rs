//! Arguments of lists and of the outbox: a part of a list, one output by name, and how it left.

use crate::id::{AgentId, Generation};
use crate::output::UndeliverableReason;

/// Which part of a list to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Rows after this position (seq, position, ...); 0 starts at the first.
    pub after: u64,
    /// At most this many rows, capped at `PAGE_MAX`.
    pub limit: usize,
}

/// How an output left the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputEnd {
    /// The destination has it durably: the row is deleted.
    Acknowledged,
    /// It will never arrive: the row is kept with the reason, and an `OutputUndeliverable` event is appended.
    Undeliverable(UndeliverableReason),
}

/// Names one output of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutputKey {
    /// For whom it is.
    pub destination: AgentId,
    /// The sender's generation when it committed.
    pub generation: Generation,
    /// Its number to this destination.
    pub number: u64,
}
