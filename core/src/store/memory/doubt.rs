//! Writes of which the store can't say whether they are written.

/// A write whose answer may get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPoint {
    /// `RuntimeStore::commit_turns`.
    Turns,
    /// `RuntimeStore::transfer`.
    Transfer,
    /// `RuntimeStore::begin_handoff`.
    Begin,
    /// `RuntimeStore::finish_handoff`.
    Finish,
    /// `RuntimeStore::abort_handoff`.
    Abort,
    /// `RuntimeStore::put_migration` of one that goes on.
    Record,
    /// `RuntimeStore::put_migration` of one that is over.
    RecordEnd,
}

/// What has become of a write that is answered with `StoreError::Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is written.
    Written,
    /// It is not.
    NotWritten,
}
