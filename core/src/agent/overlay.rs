//! The rows of an agent as its next turn must see them: the committed ones, under what turns before it have written and not
//! committed yet.
//!
//! Commits arrive while a guest reads. So each read looks at what is pending first, and at the rows after that: what leaves
//! in between has become a row.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::channel::{ChannelName, ChannelVerb, ChannelView, Subscription};
use crate::guest::{StateRead, StateReadError, TurnEffects};
use crate::id::{AgentId, OperationId, Revision};
use crate::identity::EntityKey;
use crate::limits::PAGE_MAX;
use crate::operation::OperationChange;

/// Serves a guest's reads.
pub struct Overlay {
    committed: Arc<dyn StateRead>,
    pending: Mutex<Pending>,
}

/// What is not committed yet, each with the revision that its commit makes.
#[derive(Default)]
struct Pending {
    /// The last write of each key; `None` deletes.
    writes: BTreeMap<String, (Revision, Option<Bytes>)>,
    /// By name: whether it is set.
    timers: BTreeMap<String, (Revision, bool)>,
    started: Vec<(Revision, OperationId)>,
    channels: Vec<(Revision, ChannelVerb)>,
    /// Requests to the owners of channels: to whom, about which, what.
    asked: Vec<(Revision, Subscription)>,
}

impl Overlay {
    /// An overlay with nothing in it.
    pub fn new(committed: Arc<dyn StateRead>) -> Arc<Self> {
        Arc::new(Self { committed, pending: Mutex::default() })
    }

    /// A turn has run, and its boundary will be `revision`: the next one sees what it did.
    pub(crate) fn add(&self, revision: Revision, effects: &TurnEffects) {
        let mut pending = self.pending();
        let writes = effects.state.iter().map(|(key, value)| (key.clone(), (revision, value.clone())));
        pending.writes.extend(writes);
        let timers = effects.timers.iter().map(|(name, timer)| (name.clone(), (revision, timer.is_some())));
        pending.timers.extend(timers);
        let started = effects.operations.iter().filter_map(|change| match change {
            OperationChange::Start(operation) => Some((revision, operation.id)),
            OperationChange::Cancel(_) => None,
        });
        pending.started.extend(started);
        let verbs = effects.channels.iter().map(|change| (revision, change.verb.clone()));
        pending.channels.extend(verbs);
        let asked = effects.outputs.iter().filter_map(Subscription::asked_by);
        pending.asked.extend(asked.map(|subscription| (revision, subscription)));
    }

    /// All boundaries up to this one have committed.
    pub(crate) fn committed(&self, revision: Revision) {
        let mut pending = self.pending();
        pending.writes.retain(|_, (made, _)| *made > revision);
        pending.timers.retain(|_, (made, _)| *made > revision);
        pending.started.retain(|(made, _)| *made > revision);
        pending.channels.retain(|(made, _)| *made > revision);
        pending.asked.retain(|(made, _)| *made > revision);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys of one listing that were written: whether each is set.
struct Written(BTreeMap<String, bool>);

impl Written {
    /// Written keys behind `after` and up to `end`.
    fn range<'a>(
        &'a self,
        after: Option<&str>,
        end: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a String, bool)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let written = self.0.range::<str, _>((from, Bound::Unbounded));
        let is_in = move |(key, _): &(&String, _)| end.is_none_or(|end| key.as_str() <= end);
        written.take_while(is_in).map(|(key, is_set)| (key, *is_set))
    }
}

impl Pending {
    /// Written keys with a prefix behind `after`.
    fn written(&self, prefix: &str, after: Option<&str>) -> Written {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let written = self.writes.range::<str, _>((from, Bound::Unbounded));
        let written = written.take_while(|(key, _)| key.starts_with(prefix));
        Written(written.map(|(key, (_, value))| (key.clone(), value.is_some())).collect())
    }
}

impl StateRead for Overlay {
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError> {
        if let Some((_, written)) = self.pending().writes.get(key) {
            return Ok(written.clone());
        }
        self.committed.get(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError> {
        let written = self.pending().written(prefix, after);
        if written.0.is_empty() {
            return self.committed.list(prefix, after, limit);
        }
        let removed = written.0.values().filter(|is_set| !**is_set).count();
        // Room for those that were removed, so that one page is most often enough.
        let page_max = (limit + removed).min(PAGE_MAX);
        let mut keys = Vec::new();
        let mut after = after.map(str::to_owned);
        while keys.len() < limit {
            let page = self.committed.list(prefix, after.as_deref(), page_max)?;
            let end = if page.len() < page_max { None } else { page.last().cloned() };
            let mut merged: BTreeSet<String> = page.into_iter().collect();
            for (key, is_set) in written.range(after.as_deref(), end.as_deref()) {
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
        let pending = self.pending().timers.clone();
        let mut names: BTreeSet<String> = self.committed.timers()?.into_iter().collect();
        for (name, (_, is_set)) in pending {
            if is_set {
                names.insert(name);
            } else {
                names.remove(&name);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        let started: Vec<OperationId> = self.pending().started.iter().map(|(_, started)| *started).collect();
        let mut active = self.committed.operations()?;
        for operation in started {
            if !active.contains(&operation) {
                active.push(operation);
            }
        }
        Ok(active)
    }

    fn channels(&self, only: Option<&ChannelName>) -> Result<Vec<ChannelView>, StateReadError> {
        let pending = self.pending().channels.clone();
        let verbs = pending.iter().map(|(_, verb)| verb);
        let verbs = verbs.filter(|verb| only.is_none_or(|only| verb.channel() == only));
        Ok(verbs.fold(self.committed.channels(only)?, ChannelView::after))
    }

    fn subscribers(&self, channel: &ChannelName) -> Result<Vec<AgentId>, StateReadError> {
        let pending = self.pending().channels.clone();
        let mut subscribers = self.committed.subscribers(channel)?;
        for (_, verb) in &pending {
            match verb {
                ChannelVerb::Close { channel: closed } if closed == channel => subscribers.clear(),
                ChannelVerb::Remove { channel: of, agent } if of == channel => {
                    subscribers.retain(|subscriber| subscriber != agent);
                }
                _ => {}
            }
        }
        Ok(subscribers)
    }

    fn subscriptions(&self) -> Result<Vec<Subscription>, StateReadError> {
        let asked = self.pending().asked.clone();
        let subscriptions = self.committed.subscriptions()?;
        Ok(asked.into_iter().fold(subscriptions, |known, (_, asked)| asked.put_into(known)))
    }

    fn waiting(&self, receiver: &AgentId) -> Result<u64, StateReadError> {
        self.committed.waiting(receiver)
    }

    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError> {
        self.committed.entity_key()
    }
}

#[cfg(test)]
mod tests;
