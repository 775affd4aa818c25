//! How far a store has come: what tells an older copy of it from the store itself.
//!
//! A host notes the mark outside the store when it joins and when an agent's home moves. A store that is behind the note is
//! a restored backup: agents in it may have moved away since, and tokens may have been given that it knows nothing of. Only
//! `RuntimeStore::restore` makes such a copy usable, under a higher epoch.

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, StoreEpoch, StoreId};

/// How far a store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMark {
    /// Which store.
    pub store: StoreId,
    /// How often it was restored from a backup.
    pub epoch: StoreEpoch,
    /// The newest session.
    pub incarnation: Incarnation,
    /// Seq of the newest event.
    pub event: u64,
}

/// What a restore has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The store's epoch now.
    pub epoch: StoreEpoch,
    /// Agents whose tokens were raised: all but those that had moved away.
    pub agents: u64,
}

/// How a store relates to a mark that was noted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is there, or further.
    Current,
    /// It lacks what the mark knows of: an older copy.
    Behind,
    /// It is another store.
    Foreign,
}

impl StoreMark {
    /// How this store relates to a mark that was noted earlier.
    pub fn relation_to(&self, noted: &Self) -> Relation {
        let lacks = self.incarnation < noted.incarnation || self.event < noted.event;
        if self.store != noted.store {
            Relation::Foreign
        } else if self.epoch < noted.epoch || (self.epoch == noted.epoch && lacks) {
            Relation::Behind
        } else {
            Relation::Current
        }
    }
}

#[cfg(test)]
mod tests;
