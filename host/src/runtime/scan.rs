//! The scan: finds agents with work that no hint announced. Correctness rests on it; hints only make it fast.

use std::time::Duration;

use godwit_core::store::{AgentRow, Lifecycle};
use godwit_core::time::sleep;

use super::Runtime;

/// Pause between scans of a store that only this process writes: hints announce everything, but for a restart.
const EXCLUSIVE_PAUSE: Duration = Duration::from_secs(1);
/// Pause between scans of a shared store: other processes accept inputs for our agents.
const SHARED_PAUSE: Duration = Duration::from_millis(50);
/// Agents looked at in one scan; the store orders them so that none starves.
const SCAN_MAX: usize = 512;

/// Scans until shutdown.
pub(crate) async fn run(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    loop {
        look(&runtime).await;
        let pause = if runtime.session().profile.is_some() { SHARED_PAUSE } else { EXCLUSIVE_PAUSE };
        // Cancel safe: nothing is held while waiting.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = runtime.inner().rescan.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Whether a driver has something to do: run what wakes, or come to rest. Other agents are named for their outputs alone.
pub(super) fn has_turns(row: &AgentRow) -> bool {
    row.lifecycle == Lifecycle::Retiring || row.lifecycle.runs() && row.waking_inputs > 0
}

async fn look(runtime: &Runtime) {
    let inner = runtime.inner();
    let runnable = match inner.store.runnable(runtime.session().incarnation, SCAN_MAX).await {
        Ok(runnable) => runnable,
        Err(error) => {
            tracing::warn!(%error, "can't scan for work");
            return;
        }
    };
    for agent in runnable {
        if let Err(error) = runtime.own(&agent).await {
            tracing::debug!(%agent, %error, "not ours to run");
            continue;
        }
        runtime.publish(&agent);
        match inner.store.agent(&agent).await {
            Ok(Some(row)) if has_turns(&row) => runtime.remind(&agent).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(%agent, %error, "can't read the agent's row"),
        }
    }
}
