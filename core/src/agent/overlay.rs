//! The rows of an agent as its next turn must see them: the committed ones, under what turns before it in the same chain
//! have written and not committed yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::guest::{StateRead, StateReadError, TurnEffects};
use crate::id::OperationId;
use crate::limits::PAGE_MAX;
use crate::operation::OperationChange;

/// Serves a guest's reads.
pub struct Overlay {
    committed: Arc<dyn StateRead>,
    pending: Mutex<Pending>,
}

/// What is not committed yet.
#[derive(Default)]
struct Pending {
    /// The last write of each key; `None` deletes.
    writes: BTreeMap<String, Option<Bytes>>,
    /// By name: whether it is set.
    timers: BTreeMap<String, bool>,
    started: Vec<OperationId>,
}

impl Overlay {
    /// An overlay with nothing in it.
    pub fn new(committed: Arc<dyn StateRead>) -> Arc<Self> {
        Arc::new(Self { committed, pending: Mutex::default() })
    }

    /// A turn has run: the next one sees what it did.
    pub(crate) fn add(&self, effects: &TurnEffects) {
        let mut pending = self.pending();
        pending.writes.extend(effects.state.iter().cloned());
        pending.timers.extend(effects.timers.iter().map(|(name, timer)| (name.clone(), timer.is_some())));
        let started = effects.operations.iter().filter_map(|change| match change {
            OperationChange::Start(operation) => Some(operation.id),
            OperationChange::Cancel(_) => None,
        });
        pending.started.extend(started);
    }

    /// All that was added has committed.
    pub(crate) fn clear(&self) {
        *self.pending() = Pending::default();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Written keys with a prefix behind `after` and up to `end`.
    fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
        end: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a String, bool)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let written = self.writes.range::<str, _>((from, Bound::Unbounded));
        written
            .take_while(move |(key, _)| key.starts_with(prefix) && end.is_none_or(|end| key.as_str() <= end))
            .map(|(key, value)| (key, value.is_some()))
    }
}

impl StateRead for Overlay {
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError> {
        if let Some(written) = self.pending().writes.get(key) {
            return Ok(written.clone());
        }
        self.committed.get(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError> {
        let pending = self.pending();
        if pending.writes.is_empty() {
            return self.committed.list(prefix, after, limit);
        }
        let removed = pending.range(prefix, after, None).filter(|(_, is_set)| !is_set).count();
        // Room for those that were removed, so that one page is most often enough.
        let page_max = (limit + removed).min(PAGE_MAX);
        let mut keys = Vec::new();
        let mut after = after.map(str::to_owned);
        while keys.len() < limit {
            let page = self.committed.list(prefix, after.as_deref(), page_max)?;
            let end = if page.len() < page_max { None } else { page.last().cloned() };
            let mut merged: BTreeSet<String> = page.into_iter().collect();
            for (key, is_set) in pending.range(prefix, after.as_deref(), end.as_deref()) {
                if is_set {
                    merged.insert(key.clone());
                } else {
                    merged.remove(key);
                }
            }
            keys.extend(merged.into_iter().take(limit - keys.len()));
            if end.is_none() {
                break;
            }
            after = end;
        }
        Ok(keys)
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        let mut names: BTreeSet<String> = self.committed.timers()?.into_iter().collect();
        for (name, is_set) in &self.pending().timers {
            if *is_set {
                names.insert(name.clone());
            } else {
                names.remove(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        let mut active = self.committed.operations()?;
        active.extend(self.pending().started.iter());
        Ok(active)
    }
}

#[cfg(test)]
mod tests;
