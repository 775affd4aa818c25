//! A store that can't be reached for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::error::StoreError;
use crate::store::memory::MemoryStore;

/// The event log, agents' rows and their keys are `Busy` while this lives.
#[must_use = "the store answers again when it is dropped"]
pub struct Outage(Arc<AtomicUsize>);

impl Drop for Outage {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MemoryStore {
    /// Answers neither for the event log nor for agents' rows and keys, as a store that can't be reached for a while.
    pub fn outage(&self) -> Outage {
        self.outages.fetch_add(1, Ordering::SeqCst);
        Outage(Arc::clone(&self.outages))
    }

    pub(super) fn check_up(&self) -> Result<(), StoreError> {
        if self.outages.load(Ordering::SeqCst) > 0 { Err(StoreError::Busy) } else { Ok(()) }
    }
}
