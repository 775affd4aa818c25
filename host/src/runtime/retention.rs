//! The retention service: goes round all agents at home here and removes what has ended and is no longer kept.
//!
//! Its place is beside the work, never in front of it: each step looks at a bounded number of rows, and it pauses between
//! agents that had something to remove. A round that is cut short loses nothing: the next one begins anew.

use std::time::Duration;

use godwit_core::id::{AgentId, Seq};
use godwit_core::limits::PRUNE_ROWS_MAX;
use godwit_core::receipt::Checkpoint;
use godwit_core::store::{AgentRow, Home, Retention, StoreError};
use godwit_core::time::within;
use tokio_util::sync::CancellationToken;

use super::{Runtime, Signer};

/// Longest pause between two rounds.
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Shortest pause between two rounds.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(250);
/// Pause after a step that removed something.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// Agents read at once.
const AGENTS_AT_ONCE: usize = 256;

/// What is kept.
pub(crate) struct Policy {
    retention: Retention,
    /// How many, and the key that speaks for those that go.
    receipts: Option<(u64, Signer)>,
}

impl Policy {
    /// Receipts go only where a count is given and somebody signs.
    pub(crate) fn new(inputs: Duration, receipts_kept: Option<u64>, signer: Option<Signer>) -> Self {
        let retention = Retention { inputs, ..Retention::default() };
        Self { retention, receipts: receipts_kept.zip(signer) }
    }
}

/// Goes round until shutdown.
pub(crate) async fn run(runtime: Runtime, policy: Policy) {
    let shutdown = runtime.inner().tasks.shutdown();
    let pause = (policy.retention.inputs / 8).clamp(ROUND_PAUSE_MIN, ROUND_PAUSE_MAX);
    while !sleep_or_stop(&shutdown, pause).await {
        if let Err(error) = round(&runtime, &policy, &shutdown).await {
            tracing::warn!(%error, "old inputs can't be removed now");
        }
    }
}

/// Whether shutdown came first.
async fn sleep_or_stop(shutdown: &CancellationToken, pause: Duration) -> bool {
    within(pause, shutdown.cancelled()).await.is_some()
}

async fn round(runtime: &Runtime, policy: &Policy, shutdown: &CancellationToken) -> Result<(), StoreError> {
    let mut after: Option<AgentId> = None;
    loop {
        let rows = runtime.inner().store.agents(after.as_ref(), AGENTS_AT_ONCE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.agent.clone());
        for row in rows.iter().filter(|row| row.home == Home::Here) {
            prune(runtime, &policy.retention, &row.agent, shutdown).await;
            if let Some((kept, signer)) = &policy.receipts
                && let Err(error) = checkpoint(runtime, row, *kept, signer, shutdown).await
            {
                // It may have moved away since its row was read.
                tracing::debug!(agent = %row.agent, %error, "receipts stay");
            }
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
        match pruned.next.filter(|_| !shutdown.is_cancelled()) {
            Some(next) => after = next,
            None => return,
        }
    }
}

/// Replaces the oldest receipts of an agent by checkpoints, step by step. A history with a break keeps all of them.
async fn checkpoint(
    runtime: &Runtime,
    row: &AgentRow,
    kept: u64,
    signer: &Signer,
    shutdown: &CancellationToken,
) -> Result<(), StoreError> {
    let (store, agent) = (&runtime.inner().store, &row.agent);
    let first_needed = store.kept_from(agent).await?;
    let newest_spare = row.revision.0.saturating_sub(kept).min(first_needed.0.saturating_sub(1));
    let known = store.receipt_checkpoints(agent).await?;
    let mut checkpoint = known
        .into_iter()
        .find(|known| known.checkpoint.generation == row.generation)
        .map_or_else(|| Checkpoint::start(agent, row.generation), |known| known.checkpoint);
    while checkpoint.revision.0 < newest_spare && !shutdown.is_cancelled() {
        let room = newest_spare - checkpoint.revision.0;
        let count = usize::try_from(room).unwrap_or(PRUNE_ROWS_MAX).min(PRUNE_ROWS_MAX);
        let receipts = store.receipts(agent, row.generation, checkpoint.revision, count).await?;
        if receipts.is_empty() {
            return Ok(());
        }
        for receipt in &receipts {
            if let Err(what) = checkpoint.push(receipt) {
                tracing::error!(%agent, what, "receipts stay: the history has a break");
                return Ok(());
            }
        }
        let signed = checkpoint.clone().sign(runtime.inner().host, |bytes| signer(bytes));
        let gone = store.checkpoint_receipts(signed).await?;
        tracing::debug!(%agent, receipts = gone, to = %checkpoint.revision, "a checkpoint stands for receipts");
        if sleep_or_stop(shutdown, STEP_PAUSE).await {
            return Ok(());
        }
    }
    Ok(())
}
