//! What the next boundary writes of an agent's state: pure rules about the turns behind its newest snapshot.
//!
//! ```text
//!             snapshot mode                                journal mode
//!   each turn: snapshot ------ larger than 16 KiB ----> each turn: journal entry
//!                      <-- a small one, under `auto` -- when the tail is costly: snapshot as well, and a new base
//! ```
//! A guest holds more than its snapshot (the layout of its maps, caches, statics), so a turn that is run again must start
//! from where it started when it ran first. Hence the **base**: in journal mode a guest goes on in an instance that was
//! restored from the newest snapshot, and has run the tail and nothing else since.

use std::time::Duration;

use crate::id::Revision;
use crate::limits::{AUTO_SNAPSHOT_BYTES_MAX, TAIL_BYTES_MAX, TAIL_TURNS_MAX};
use crate::spec::Durability;

/// A snapshot pays when the tail has at least this many bytes.
const PAYING_BYTES: u64 = 64 * 1024;
/// A snapshot pays when running the tail again takes at least this long, and `PAYING_TIMES` as long as a restore.
const PAYING_TIME: Duration = Duration::from_millis(50);
const PAYING_TIMES: u32 = 4;
/// Share of a paying tail for which a snapshot is taken when the agent is parked anyway.
const PARKING_SHARE: u32 = 16;

/// What a boundary writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// The state, and nothing to build on it.
    Snapshot,
    /// What running the turn again needs.
    Entry,
    /// Both: the state is the new base.
    Base,
}

/// The turns behind the newest snapshot, with all that is not committed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    durability: Durability,
    /// Revision and size of the newest snapshot; `None` before the first.
    snapshot: Option<(Revision, u64)>,
    /// How long the last restore took.
    restore: Duration,
    turns: u32,
    bytes: u64,
    elapsed: Duration,
}

impl Tail {
    /// The tail of an agent that was just restored.
    pub(crate) fn new(durability: Durability, snapshot: Option<(Revision, u64)>, restore: Duration) -> Self {
        Self { durability, snapshot, restore, turns: 0, bytes: 0, elapsed: Duration::ZERO }
    }

    /// Whether turns are journaled, so that their answers must be recorded.
    pub(crate) fn is_journaled(&self) -> bool {
        match (self.durability, self.snapshot) {
            // The first boundary is a base in any case.
            (_, None) | (Durability::Snapshot, _) => false,
            (Durability::Journal, _) => true,
            (Durability::Auto, Some((_, bytes))) => bytes > AUTO_SNAPSHOT_BYTES_MAX as u64,
        }
    }

    /// Whether an instance must be restored from a snapshot of this size that a boundary has just written.
    pub(crate) fn is_base(&self, bytes: usize) -> bool {
        match self.durability {
            Durability::Snapshot => false,
            Durability::Journal => true,
            Durability::Auto => bytes > AUTO_SNAPSHOT_BYTES_MAX,
        }
    }

    /// Adds a turn, and says what its boundary writes. `entry_bytes`: its journal entry and payloads; `None` when it can't
    /// be journaled.
    pub(crate) fn add(&mut self, entry_bytes: Option<usize>, elapsed: Duration) -> Write {
        let Some(bytes) = entry_bytes.filter(|_| self.is_journaled()) else {
            return Write::Snapshot;
        };
        self.add_replayed(bytes, elapsed);
        if self.is_costly(1) { Write::Base } else { Write::Entry }
    }

    /// Adds a turn that is in the journal already.
    pub(crate) fn add_replayed(&mut self, bytes: usize, elapsed: Duration) {
        self.turns += 1;
        self.bytes += bytes as u64;
        self.elapsed += elapsed;
    }

    /// A snapshot was taken: nothing is behind it.
    pub(crate) fn begin(&mut self, revision: Revision, bytes: usize, restore: Option<Duration>) {
        let restore = restore.unwrap_or(self.restore);
        *self = Self::new(self.durability, Some((revision, bytes as u64)), restore);
    }

    /// Whether the newest snapshot is of this revision.
    pub(crate) fn is_at(&self, revision: Revision) -> bool {
        self.snapshot.is_some_and(|(newest, _)| newest == revision)
    }

    /// Whether the tail is long enough for a snapshot when the guest is given up anyway.
    pub(crate) fn is_worth_a_snapshot(&self) -> bool {
        self.turns > 0 && self.is_costly(PARKING_SHARE)
    }

    /// Whether running the tail again costs as much as a snapshot, or a share of that.
    fn is_costly(&self, share: u32) -> bool {
        let snapshot_bytes = self.snapshot.map_or(0, |(_, bytes)| bytes);
        let bytes_max = snapshot_bytes.clamp(PAYING_BYTES, TAIL_BYTES_MAX);
        let time_max = PAYING_TIME.max(self.restore * PAYING_TIMES);
        self.turns >= TAIL_TURNS_MAX / share
            || self.bytes >= bytes_max / u64::from(share)
            || self.elapsed >= time_max / share
    }
}

#[cfg(test)]
mod tests;
