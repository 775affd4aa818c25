//! The watchdog: names every agent that has work and makes no progress, with the reason.
//!
//! It asks the store and the directory, never the driver: a driver that hangs can't hide. Progress is a commit, or an attempt
//! at the input that is next; accepting more work is none. What it finds is in the log, in the events, in the agent's view
//! and in `readyz`, until the agent moves on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, Generation, Revision, Seq};
use godwit_core::lease::LeaseState;
use godwit_core::store::{Page, StoreError};
use godwit_core::time::sleep;

use super::Runtime;

/// Pause between looks.
const PAUSE: Duration = Duration::from_secs(5);
/// An agent without progress for this long is stuck; longer than a turn with all its attempts and back-offs.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// Agents looked at in one round; the store orders them so that none is passed over for ever.
const LOOKED_AT_MAX: usize = 512;

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

    /// Takes what one look has found, at boot time `now`, and answers who is stuck from here on, and since when.
    fn take(&self, found: Vec<(AgentId, Mark)>, now: Duration, is_all: bool) -> Vec<(AgentId, Duration)> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_all {
            watched.retain(|agent, _| found.iter().any(|(named, _)| named == agent));
        }
        let mut stuck = Vec::new();
        for (agent, mark) in found {
            let entry =
                watched.entry(agent.clone()).or_insert_with(|| Watched { mark, since: now, reason: None });
            if entry.mark != mark {
                *entry = Watched { mark, since: now, reason: None };
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
        if let Err(error) = look(&runtime, runtime.inner().clock.boot()).await {
            tracing::warn!(%error, "can't look for agents that are stuck");
        }
    }
}

/// Looks once, at boot time `now`.
///
/// # Errors
/// As the store's.
pub(super) async fn look(runtime: &Runtime, now: Duration) -> Result<(), StoreError> {
    let inner = runtime.inner();
    let runnable = inner.store.runnable(runtime.session().incarnation, LOOKED_AT_MAX).await?;
    let is_all = runnable.len() < LOOKED_AT_MAX;
    let mut found = Vec::new();
    for agent in runnable {
        let Some(row) = inner.store.agent(&agent).await? else { continue };
        // One that is named for its outputs alone has a publisher that tries for days, and says so in the outbox.
        if row.waking_inputs == 0 || !row.lifecycle.runs() {
            continue;
        }
        let next = inner.store.open_inputs(&agent, Page { after: 0, limit: 1 }).await?;
        let next = next.first().map(|input| (input.seq, input.attempts, input.deaths));
        found.push((agent, Mark { generation: row.generation, revision: row.revision, next }));
    }
    for (agent, still) in inner.watchdog.take(found, now, is_all) {
        let reason = reason(runtime, &agent);
        tracing::warn!(%agent, reason, still_ms = still.as_millis(), "agent has work and makes no progress");
        let event = NewEvent::of_agent(&agent, EventKind::AgentStuck, runtime.now_ms())
            .with("reason", &reason)
            .with("still_ms", still.as_millis());
        inner.watchdog.name(&agent, reason);
        inner.store.append_events(vec![event]).await?;
    }
    Ok(())
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
