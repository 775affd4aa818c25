//! Retires agents that have been idle for as long as their label allows.
//!
//! An agent is idle while nothing changes any row of it and it waits for nothing: it has no open input, no timer and no
//! operation. The time counts from the first sweep of this host that saw it so: never too early, and anew after a restart.
//! An input that comes at the last moment is run before the agent rests, as with every retirement.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use godwit_core::id::AgentId;
use godwit_core::lifecycle::Lifecycle;
use godwit_core::store::{AgentRow, Home, StoreError};
use godwit_core::time::sleep;

use super::Runtime;
use super::call::AgentCall;
use super::routing::Forward;
use super::verbs::VerbCall;

/// The label; its value is a number of seconds, 1 or more.
pub(crate) const LABEL: &str = "retire-after-idle-s";
/// Shortest pause between two sweeps.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest one.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A sweep takes at most this part of the time.
const SHARE: u32 = 20;
/// Agents read at once.
const AGENTS_AT_ONCE: usize = 256;

/// How long an agent may be idle; `None` where it may for ever.
///
/// # Errors
/// When the label's value is no number of seconds, 1 or more; in words.
pub(crate) fn allowed(labels: &BTreeMap<String, String>) -> Result<Option<Duration>, String> {
    let Some(value) = labels.get(LABEL) else { return Ok(None) };
    match value.parse() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(format!("label {LABEL}: `{value}` is not a number of seconds, 1 or more")),
    }
}

/// Agents that may be idle only for a time: number of the last change that was seen of each, and the boot time of the
/// first sweep that saw it.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<AgentId, (u64, Duration)>);

/// Sweeps until shutdown.
pub(crate) async fn run(runtime: Runtime) {
    let (shutdown, clock) = (runtime.inner().tasks.shutdown(), runtime.inner().clock.clone());
    let mut seen = Seen::default();
    let mut pause = PAUSE_MIN;
    loop {
        // Cancel safe: nothing is held while waiting.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(pause) => {}
        }
        let began = clock.boot();
        if let Err(error) = sweep(&runtime, &mut seen, began).await {
            tracing::warn!(%error, "can't look for idle agents now");
        }
        pause = (clock.boot().saturating_sub(began) * SHARE).clamp(PAUSE_MIN, PAUSE_MAX);
    }
}

/// Looks at all agents at boot time `now`. Those that it does not see to the end keep their time.
pub(super) async fn sweep(runtime: &Runtime, seen: &mut Seen, now: Duration) -> Result<(), StoreError> {
    let own = runtime.session().incarnation;
    let mut still = HashMap::new();
    let mut after: Option<AgentId> = None;
    while !runtime.inner().tasks.shutdown().is_cancelled() {
        let rows = runtime.inner().store.agents(after.as_ref(), AGENTS_AT_ONCE).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.agent.clone());
        for row in rows {
            // A value that is none was stored before labels were checked: it allows everything.
            let Ok(Some(allowed)) = allowed(&row.labels) else { continue };
            if row.holder.is_some_and(|holder| holder.incarnation != own) || !is_idle(runtime, &row).await? {
                continue;
            }
            let since = seen.0.get(&row.agent).filter(|(change, _)| *change == row.change);
            let since = since.map_or(now, |(_, since)| *since);
            if now.saturating_sub(since) >= allowed {
                retire(runtime, &row, allowed).await;
            }
            still.insert(row.agent, (row.change, since));
        }
    }
    seen.0 = still;
    Ok(())
}

async fn is_idle(runtime: &Runtime, row: &AgentRow) -> Result<bool, StoreError> {
    let store = &runtime.inner().store;
    Ok(row.home == Home::Here
        && row.lifecycle == Lifecycle::Active
        && row.open_inputs == 0
        && store.timers(&row.agent).await?.is_empty()
        && store.operations(&row.agent).await?.is_empty())
}

/// What is refused now is tried again by the next sweep.
async fn retire(runtime: &Runtime, row: &AgentRow, allowed: Duration) {
    let agent = &row.agent;
    match runtime.call(agent, AgentCall::Verb(VerbCall::Retire), Forward::No).await {
        Ok(_) => tracing::info!(%agent, idle_s = allowed.as_secs(), "retired: it was idle for that long"),
        Err(error) => tracing::debug!(%agent, %error, "idle, and can't be retired now"),
    }
}
