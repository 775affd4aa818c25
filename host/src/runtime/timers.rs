//! Timers: finds those whose time has come, and fires them as the agents' owner.
//!
//! A timer is a row until it fires, and an input from then on; the store does both in one transaction. So nothing here
//! need be remembered: a host that dies in between has left one or the other, and the next owner goes on. A timer of a
//! parked agent, of one whose host died, or one that was missed over a restart is simply due.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use godwit_core::failpoint;
use godwit_core::id::AgentId;
use godwit_core::store::{AcceptError, StoreError};
use godwit_core::time::sleep;
use godwit_core::timer::DueTimer;

use super::Runtime;

/// Timers that one look takes: they come earliest first.
const DUE_MAX: usize = 512;
/// Agents whose timers fire at the same time; the store groups their writes.
const FIRING_MAX: usize = 64;
/// The longest pause on a store that only this process writes: drivers announce new timers.
const EXCLUSIVE_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause on a shared store: agents come from other hosts, with their timers.
const SHARED_PAUSE: Duration = Duration::from_millis(100);
/// The pause when a timer could not be fired.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Fires timers until shutdown.
pub(crate) async fn run(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    loop {
        let pause = look(&runtime).await;
        // Cancel safe: nothing is held while waiting.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = runtime.inner().timers_changed.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Fires what is due, and answers how long to wait for more.
async fn look(runtime: &Runtime) -> Duration {
    match fire_due(runtime).await {
        Ok(pause) => pause,
        Err(error) => {
            tracing::warn!(%error, "timers can't be read");
            RETRY_PAUSE
        }
    }
}

async fn fire_due(runtime: &Runtime) -> Result<Duration, StoreError> {
    let (store, clock) = (&runtime.inner().store, &runtime.inner().clock);
    let session = runtime.session();
    let due = store.due_timers(session.incarnation, clock.wall_ms(), DUE_MAX).await?;
    let is_full = due.len() == DUE_MAX;
    let mut by_agent: BTreeMap<AgentId, Vec<DueTimer>> = BTreeMap::new();
    for timer in due {
        by_agent.entry(timer.agent.clone()).or_default().push(timer);
    }
    let firing = by_agent.into_iter().map(|(agent, timers)| fire_all(runtime, agent, timers));
    let fired: Vec<bool> = futures::stream::iter(firing).buffer_unordered(FIRING_MAX).collect().await;
    if fired.contains(&false) {
        return Ok(RETRY_PAUSE);
    }
    if is_full {
        return Ok(Duration::ZERO);
    }
    let longest = if session.profile.is_some() { SHARED_PAUSE } else { EXCLUSIVE_PAUSE };
    let next = store.next_timer_at(session.incarnation).await?;
    let until_next = next.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(clock.wall_ms()).max(1)));
    Ok(until_next.map_or(longest, |until| until.min(longest)))
}

/// Fires timers of one agent in order, and wakes it. Answers whether all are done with.
async fn fire_all(runtime: &Runtime, agent: AgentId, timers: Vec<DueTimer>) -> bool {
    let owned = match runtime.own(&agent).await {
        Ok(owned) if owned.guard.is_held() => owned,
        Ok(_) => return false,
        // Somebody else's by now, or gone: its owner fires them.
        Err(error) => {
            tracing::debug!(%agent, %error, "not ours to wake");
            return false;
        }
    };
    let mut has_fired = false;
    let mut is_done = true;
    for timer in timers {
        failpoint::hit("timer.before-fire");
        match runtime.inner().store.fire_timer(&owned.owner(), &timer.name, timer.revision).await {
            Ok(fired) => has_fired |= fired.is_some(),
            Err(error) => {
                is_done = false;
                if matches!(error, AcceptError::Store(StoreError::Fenced { .. })) {
                    runtime.fenced(&owned, "timer").await;
                    break;
                }
                tracing::warn!(%agent, timer = timer.name, %error, "timer can't be fired");
            }
        }
        failpoint::hit("timer.after-fire");
    }
    if has_fired {
        runtime.look_at(&agent, true).await;
    }
    is_done
}
