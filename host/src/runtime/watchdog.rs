//! The watchdog: names every agent that has work and makes no progress, with the reason.
//!
//! It asks the store and the directory, never the driver: a driver that hangs can't hide. Progress is a commit, or an attempt
//! at the input that is next; accepting more work is none. What it finds is in the log, in the events, in the agent's view
//! and in `readyz`, until the agent moves on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, Generation, Revision, Seq};
use godwit_core::lease::LeaseState;
use godwit_core::store::{Home, Page, StoreError};
use godwit_core::time::sleep;

use super::Runtime;
use super::scan::has_turns;
use crate::hooks::ErrorEvent;

/// Pause between looks.
const PAUSE: Duration = Duration::from_secs(5);
/// An agent without progress for this long is stuck; longer than a turn with all its attempts and back-offs.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// Agents that one look takes from the store, which orders them so that none is passed over for ever; and so many more of those
/// seen before, which the store has not named this time.
pub(super) const LOOKED_AT_MAX: usize = 512;

/// How far an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    generation: Generation,
    revision: Revision,
    /// The input that is next, its attempts, and the attempts at it that killed a host.
    next: Option<(Seq, u32, u32)>,
}

/// An agent with work.
#[derive(Debug)]
struct Watched {
    mark: Mark,
    /// Boot time at which it was first seen there.
    since: Duration,
    /// Boot time of the last look at it.
    looked: Duration,
    /// Set once it is stuck.
    reason: Option<String>,
}

/// What the watchdog has seen.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Mutex<BTreeMap<AgentId, Watched>>);

impl Watchdog {
    /// Why an agent makes no progress; `None` when it does, or has nothing to do.
    pub(crate) fn reason(&self, agent: &AgentId) -> Option<String> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.get(agent).and_then(|watched| watched.reason.clone())
    }

    /// All agents that are stuck, each with its reason.
    pub(crate) fn stuck(&self) -> Vec<(AgentId, String)> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck =
            watched.iter().filter_map(|(agent, watched)| Some((agent.clone(), watched.reason.clone()?)));
        stuck.collect()
    }

    /// Agents seen before that are not among these, at most so many: first those that nobody has looked at for longest.
    fn others(&self, named: &BTreeSet<AgentId>, limit: usize) -> Vec<AgentId> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = watched.iter().filter(|(agent, _)| !named.contains(*agent));
        let mut others: Vec<_> = others.map(|(agent, watched)| (watched.looked, agent.clone())).collect();
        others.sort();
        others.truncate(limit);
        others.into_iter().map(|(_, agent)| agent).collect()
    }

    /// Takes what one look has found, at boot time `now`: how far agents with work are, and who has none. Answers who is
    /// stuck from here on, and since when.
    fn take(&self, found: Vec<(AgentId, Option<Mark>)>, now: Duration) -> Vec<(AgentId, Duration)> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stuck = Vec::new();
        for (agent, mark) in found {
            let Some(mark) = mark else {
                watched.remove(&agent);
                continue;
            };
            let first = Watched { mark, since: now, looked: now, reason: None };
            let entry = watched.entry(agent.clone()).or_insert(first);
            entry.looked = now;
            if entry.mark != mark {
                *entry = Watched { mark, since: now, looked: now, reason: None };
            }
            let still = now.saturating_sub(entry.since);
            if still >= STUCK_AFTER && entry.reason.is_none() {
                stuck.push((agent, still));
            }
        }
        stuck
    }

    fn name(&self, agent: &AgentId, reason: String) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = watched.get_mut(agent) {
            watched.reason = Some(reason);
        }
    }
}

/// Looks until shutdown.
pub(crate) async fn run(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    loop {
        // Cancel safe: nothing is held while waiting.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(PAUSE) => {}
        }
        if let Err(error) = look(&runtime, runtime.inner().clock.boot(), LOOKED_AT_MAX).await {
            tracing::warn!(%error, "can't look for agents that are stuck");
        }
    }
}

/// Looks once, at boot time `now`: at so many agents that the store names, and as many of those seen before.
///
/// # Errors
/// As the store's.
pub(super) async fn look(runtime: &Runtime, now: Duration, at_most: usize) -> Result<(), StoreError> {
    let inner = runtime.inner();
    let runnable = inner.store.runnable(runtime.session().incarnation, at_most).await?;
    let named: BTreeSet<AgentId> = runnable.into_iter().collect();
    let others = inner.watchdog.others(&named, at_most);
    let mut found = Vec::with_capacity(named.len() + others.len());
    for agent in named.into_iter().chain(others) {
        let mark = mark(runtime, &agent).await?;
        found.push((agent, mark));
    }
    for (agent, still) in inner.watchdog.take(found, now) {
        let reason = reason(runtime, &agent);
        tracing::warn!(%agent, reason, still_ms = still.as_millis(), "agent has work and makes no progress");
        let event = NewEvent::of_agent(&agent, EventKind::AgentStuck, runtime.now_ms())
            .with("reason", &reason)
            .with("still_ms", still.as_millis());
        inner.watchdog.name(&agent, reason.clone());
        inner.hooks.error(ErrorEvent::AgentStuck { agent, reason, still });
        inner.store.append_events(vec![event]).await?;
    }
    Ok(())
}

/// How far an agent is that has work and is this host's to run; `None` for any other.
async fn mark(runtime: &Runtime, agent: &AgentId) -> Result<Option<Mark>, StoreError> {
    let store = &runtime.inner().store;
    let Some(row) = store.agent(agent).await? else { return Ok(None) };
    let is_ours = row.holder.is_none_or(|holder| holder.incarnation == runtime.session().incarnation);
    // One that is named for its outputs alone has a publisher that tries for days, and says so in the outbox.
    if row.home != Home::Here || !is_ours || !has_turns(&row) {
        return Ok(None);
    }
    let next = store.open_inputs(agent, Page { after: 0, limit: 1 }).await?;
    let next = next.first().map(|input| (input.seq, input.attempts, input.deaths));
    Ok(Some(Mark { generation: row.generation, revision: row.revision, next }))
}

/// Why an agent makes no progress, as far as it shows from outside.
fn reason(runtime: &Runtime, agent: &AgentId) -> String {
    let inner = runtime.inner();
    let Some(owned) = inner.directory.owned(agent) else {
        return "this host does not hold its lease".into();
    };
    match owned.guard.state() {
        LeaseState::Held => {}
        LeaseState::Expiring => return "the lease is expiring: the store does not answer heartbeats".into(),
        LeaseState::Lost => return "the lease is lost".into(),
    }
    match inner.directory.handle(agent) {
        None => "it has no driver: none could be started, or it ended".into(),
        Some(handle) if handle.is_running() => "a turn runs and does not end".into(),
        Some(_) if inner.env.pool.has_waiting() => "its turn waits for a guest thread".into(),
        Some(_) => "its driver waits: it backs off, loads the agent, or waits for the store".into(),
    }
}
