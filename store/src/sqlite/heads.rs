//! Rows of agents that the writer keeps, so that the next job on the same agent need not read them again.
//!
//! They are the rows: whoever writes an agent's row otherwise than through `Tx::with_head` drops them first, and so does a
//! transaction that is not committed. In a file that other processes write, none outlives its transaction.

use std::collections::HashMap;

use godwit_core::id::AgentId;
use rusqlite::Connection;

use super::agents::Head;
use super::error::Fallible;
use super::writer::Tx;

/// Whether each kept row is compared with the stored one before it is used.
const IS_COMPARED: bool = cfg!(any(test, feature = "test-util"));
/// Rows kept from one transaction to the next: about 2 MiB. Of more, all are dropped, and each is read again once.
const HEADS_MAX: usize = 4_096;

/// Rows of agents at home here.
#[derive(Default)]
pub(super) struct Heads {
    rows: HashMap<AgentId, Head>,
    /// Those that differ from what is stored.
    changed: Vec<AgentId>,
}

impl Heads {
    /// The row of an agent, if it is kept.
    ///
    /// # Errors
    /// An engine error, in builds that compare it with what is stored.
    pub(super) fn get(&self, conn: &Connection, agent: &AgentId) -> Fallible<Option<Head>> {
        let kept = self.rows.get(agent).cloned();
        if IS_COMPARED && let Some(kept) = kept.as_ref().filter(|kept| !kept.is_changed()) {
            assert_eq!(
                Some(kept),
                Head::load(conn, agent)?.as_ref(),
                "the row that is kept is the one that is stored"
            );
        }
        Ok(kept)
    }

    /// Keeps a row.
    pub(super) fn put(&mut self, head: Head) {
        if head.is_changed() {
            self.changed.push(head.agent.clone());
        }
        self.rows.insert(head.agent.clone(), head);
    }

    /// Stores what has changed.
    ///
    /// # Errors
    /// An engine error; what is kept is worth nothing then.
    pub(super) fn store(&mut self, tx: &Tx<'_>) -> Result<(), rusqlite::Error> {
        for agent in self.changed.drain(..) {
            if let Some(head) = self.rows.get_mut(&agent).filter(|head| head.is_changed()) {
                head.save(tx)?;
            }
        }
        Ok(())
    }

    /// What the next transaction may build on.
    pub(super) fn kept(self) -> Self {
        if self.rows.len() > HEADS_MAX { Self::default() } else { self }
    }
}
