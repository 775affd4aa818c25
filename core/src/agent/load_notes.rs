//! Notes of what is being loaded, kept where they outlive the process: who is named there when a process begins was being
//! loaded when the one before it died, and may be why. A driver counts that in the agent's row before it loads the agent again
//! (`driver/start.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::AgentId;

/// Keeps the notes. They are hints: one that is lost, or could not be taken, means a death that is not counted.
///
/// Crash: what was begun and not ended is a suspect in the next process.
pub trait LoadNotes: Send + Sync {
    /// Notes that an agent is being loaded from here on, and answers under which number; `None` when there is no room for
    /// another note. Takes microseconds.
    fn begin(&self, agent: &AgentId) -> Option<usize>;

    /// Takes a note away: the process has outlived that.
    fn end(&self, number: usize);

    /// Whether a former process died while it loaded the agent, and nobody has counted that.
    fn is_suspect(&self, agent: &AgentId) -> bool;

    /// It is counted: the agent is no suspect any more.
    fn acquit(&self, agent: &AgentId);
}

/// A note that is there until this is dropped.
pub(crate) struct Noted {
    notes: Arc<dyn LoadNotes>,
    number: Option<usize>,
}

impl Noted {
    pub(crate) fn new(notes: Arc<dyn LoadNotes>, agent: &AgentId) -> Self {
        let number = notes.begin(agent);
        Self { notes, number }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.notes.end(number);
        }
    }
}

/// Notes that end with the process, for a host without a place for them, and for tests, which hand them on by hand.
#[derive(Debug, Default)]
pub struct MemoryNotes(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    begun: BTreeMap<usize, AgentId>,
    next: usize,
    suspects: BTreeSet<AgentId>,
}

impl MemoryNotes {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next process finds if this one dies now.
    #[must_use]
    pub fn after_death(&self) -> Self {
        let memory = self.lock();
        let suspects = memory.begun.values().chain(&memory.suspects).cloned().collect();
        Self(Mutex::new(Memory { suspects, ..Memory::default() }))
    }
}

impl LoadNotes for MemoryNotes {
    fn begin(&self, agent: &AgentId) -> Option<usize> {
        let mut memory = self.lock();
        let number = memory.next;
        memory.next += 1;
        memory.begun.insert(number, agent.clone());
        Some(number)
    }

    fn end(&self, number: usize) {
        self.lock().begun.remove(&number);
    }

    fn is_suspect(&self, agent: &AgentId) -> bool {
        self.lock().suspects.contains(agent)
    }

    fn acquit(&self, agent: &AgentId) {
        self.lock().suspects.remove(agent);
    }
}
