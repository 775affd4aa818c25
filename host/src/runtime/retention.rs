//! The retention service: goes round all agents at home here and removes what has ended and is no longer kept.
//!
//! Its place is beside the work, never in front of it: each step looks at a bounded number of rows, and it pauses between
//! agents that had something to remove. A round that is cut short loses nothing: the next one begins anew.

use std::time::Duration;

use godwit_core::id::{AgentId, Seq};
use godwit_core::store::{Home, Retention};
use godwit_core::time::within;
use tokio_util::sync::CancellationToken;

use super::Runtime;

/// Longest pause between two rounds.
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Shortest pause between two rounds.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(250);
/// Pause after a step that removed something.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// Agents read at once.
const AGENTS_AT_ONCE: usize = 256;

/// Goes round until shutdown.
pub(crate) async fn run(runtime: Runtime, inputs_kept: Duration) {
    let shutdown = runtime.inner().tasks.shutdown();
    let retention = Retention { inputs: inputs_kept, ..Retention::default() };
    let pause = (inputs_kept / 8).clamp(ROUND_PAUSE_MIN, ROUND_PAUSE_MAX);
    while !sleep_or_stop(&shutdown, pause).await {
        if let Err(error) = round(&runtime, &retention, &shutdown).await {
            tracing::warn!(%error, "old inputs can't be removed now");
        }
    }
}

/// Whether shutdown came first.
async fn sleep_or_stop(shutdown: &CancellationToken, pause: Duration) -> bool {
    within(pause, shutdown.cancelled()).await.is_some()
}

async fn round(
    runtime: &Runtime,
    retention: &Retention,
    shutdown: &CancellationToken,
) -> Result<(), godwit_core::store::StoreError> {
    let mut after: Option<AgentId> = None;
    loop {
        let rows = runtime.inner().store.agents(after.as_ref(), AGENTS_AT_ONCE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.agent.clone());
        for row in rows.iter().filter(|row| row.home == Home::Here) {
            prune(runtime, retention, &row.agent, shutdown).await;
            if shutdown.is_cancelled() {
                return Ok(());
            }
        }
    }
}

async fn prune(runtime: &Runtime, retention: &Retention, agent: &AgentId, shutdown: &CancellationToken) {
    let mut after = Seq(0);
    loop {
        let pruned = match runtime.inner().store.prune(agent, retention, after).await {
            Ok(pruned) => pruned,
            Err(error) => {
                // It may have moved away since its row was read.
                tracing::debug!(%agent, %error, "not pruned");
                return;
            }
        };
        if pruned.inputs + pruned.outputs > 0 {
            tracing::debug!(%agent, inputs = pruned.inputs, outputs = pruned.outputs, "removed what had ended long ago");
            if sleep_or_stop(shutdown, STEP_PAUSE).await {
                return;
            }
        }
        match pruned.next {
            Some(next) => after = next,
            None => return,
        }
    }
}
