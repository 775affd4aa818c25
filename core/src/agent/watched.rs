//! Agents whose next boundary somebody waits for.
//!
//! A hint and no more: whoever is woken reads the store, and looks now and then by itself. A driver pays one load for it
//! while nobody waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::id::AgentId;

/// Those who wait, by agent.
#[derive(Debug, Default)]
pub struct Watched {
    watches: AtomicUsize,
    agents: Mutex<HashMap<AgentId, watch::Sender<()>>>,
}

/// Somebody's wait for boundaries of an agent.
#[derive(Debug)]
pub struct Watch {
    agent: AgentId,
    receiver: Option<watch::Receiver<()>>,
    watched: Arc<Watched>,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, watch::Sender<()>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for boundaries of an agent from now on. As many as its callers bound.
    pub fn watch(self: &Arc<Self>, agent: &AgentId) -> Watch {
        let receiver = self.lock().entry(agent.clone()).or_default().subscribe();
        self.watches.fetch_add(1, Ordering::SeqCst);
        Watch { agent: agent.clone(), receiver: Some(receiver), watched: Arc::clone(self) }
    }

    /// A boundary of an agent is durable.
    pub(crate) fn committed(&self, agent: &AgentId) {
        if self.watches.load(Ordering::SeqCst) > 0
            && let Some(sender) = self.lock().get(agent)
        {
            sender.send_replace(());
        }
    }
}

impl Watch {
    /// Forgets the hints until now: what the caller is about to read is newer.
    pub fn rest(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.mark_unchanged();
        }
    }

    /// Resolves when a boundary has committed since the last `rest`, or the one before.
    ///
    /// # Cancel safety
    /// A hint that is not taken stays.
    pub async fn committed(&mut self) {
        match &mut self.receiver {
            // The sender lives as long as this does.
            Some(receiver) => drop(receiver.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut agents = self.watched.lock();
        self.receiver = None;
        if agents.get(&self.agent).is_some_and(|sender| sender.receiver_count() == 0) {
            agents.remove(&self.agent);
        }
        self.watched.watches.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
