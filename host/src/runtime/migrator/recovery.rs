//! What a restart makes of open migrations. The row is the truth; nobody guesses.
//!
//! ```text
//! source's row   HandingOff: nobody else can run it: back out under a higher token (if the target says it runs: forked)
//!                Moved:      tell the target until it has heard
//!                Here:       the commit point was not reached, or it went to another host of the same store
//! target's row   Prepared:   ask the source until it answers; only its word decides
//!                Here:       it was adopted: done
//!                else:       a copy that was never bound: drop it
//! ```

use std::time::Duration;

use godwit_core::id::FencingToken;
use godwit_core::lease::GrantCause;
use godwit_core::migration::{Failure, Phase, Role};
use godwit_core::retry::Backoff;
use godwit_core::store::{AgentRow, Home, MigrationRecord, StoreError};
use godwit_core::time::within;

use super::super::Runtime;
use super::super::wire::{MigrationAnswer, MigrationMessage};
use super::{LISTED_MAX, MESSAGE_MAX, source};

/// Pause between tries of a store that does not answer.
const READ_RETRY: Duration = Duration::from_millis(100);

/// The migrations that were open when the host stopped. Read before the host serves anybody, so that none that begins now is
/// among them.
///
/// # Errors
/// As the store's.
pub(crate) async fn open_migrations(runtime: &Runtime) -> Result<Vec<MigrationRecord>, StoreError> {
    let records = runtime.inner().store.migrations(LISTED_MAX).await?;
    Ok(records.into_iter().filter(|record| !record.phase.is_terminal()).collect())
}

/// Settles them.
pub(crate) async fn recover(runtime: Runtime, open: Vec<MigrationRecord>) {
    let own = runtime.inner().host;
    let settling = open.into_iter().map(|record| {
        let runtime = runtime.clone();
        async move {
            match record.role {
                Role::Source if record.source == own => settle_source(&runtime, record).await,
                Role::Target if record.target == own => settle_target(&runtime, record).await,
                // Another host's, on a shared store.
                Role::Source | Role::Target => {}
            }
        }
    });
    futures::future::join_all(settling).await;
    runtime.inner().rescan.notify_one();
}

async fn settle_source(runtime: &Runtime, record: MigrationRecord) {
    let (store, agent, id) = (&runtime.inner().store, record.agent.clone(), record.id);
    let Some(row) = read_row(runtime, &record).await else {
        return;
    };
    let by_restart = || Some(Failure::Aborted { by: "restart".into() });
    match row.home {
        Home::Moved(tombstone) if tombstone.migration == id => {
            source::activate(runtime, &record, tombstone.token).await;
            source::finish(runtime, record).await;
        }
        Home::HandingOff { migration, .. } if migration == id => {
            let told = runtime.tell(record.target, id, &agent, MigrationMessage::WhatHaveYou);
            if let Some(Ok(MigrationAnswer::Adopted)) = within(MESSAGE_MAX, told).await {
                tracing::error!(migration = %id, %agent, "the target runs an agent that was never let go: it stays held here");
                let failure = Failure::StateFailed { reason: "forked: the target runs it already".into() };
                runtime.end_record(record, Phase::Failed, Some(failure)).await;
                return;
            }
            let Some(token) = back_out(runtime, &record).await else { return };
            tracing::info!(migration = %id, %agent, %token, "migration backed out after a restart");
            // Best effort: a bound copy asks by itself.
            drop(runtime.tell(record.target, id, &agent, MigrationMessage::Abort).await);
            runtime.end_record(record, Phase::Aborted, by_restart()).await;
        }
        _ => {
            let lease = store.lease(&agent).await.ok().flatten();
            let transferred = lease.filter(
                |lease| matches!(lease.cause, GrantCause::Transferred { migration, .. } if migration == id),
            );
            match transferred {
                Some(lease) => {
                    source::activate(runtime, &record, lease.token).await;
                    source::finish(runtime, record).await;
                }
                None => {
                    // Best effort: an unbound copy is dropped at its deadline.
                    drop(runtime.tell(record.target, id, &agent, MigrationMessage::Abort).await);
                    runtime.end_record(record, Phase::Aborted, by_restart()).await;
                }
            }
        }
    }
}

/// Takes an agent back that was being handed off, however often that must be tried: nobody else can. `None` when the host
/// stops before.
async fn back_out(runtime: &Runtime, record: &MigrationRecord) -> Option<FencingToken> {
    let shutdown = runtime.inner().tasks.shutdown();
    while !shutdown.is_cancelled() {
        let incarnation = runtime.session().incarnation;
        match runtime.inner().store.abort_handoff(&record.agent, record.id, incarnation).await {
            Ok(lease) => return Some(lease.token),
            Err(error) => {
                tracing::error!(migration = %record.id, agent = %record.agent, %error, "migration can't be backed out now");
            }
        }
        // The pause ends early at shutdown.
        let _ = within(READ_RETRY, shutdown.cancelled()).await;
    }
    None
}

/// Reads the agent's row until the store answers; `None` when there is none, or the host stops.
async fn read_row(runtime: &Runtime, record: &MigrationRecord) -> Option<AgentRow> {
    let shutdown = runtime.inner().tasks.shutdown();
    while !shutdown.is_cancelled() {
        match runtime.inner().store.agent(&record.agent).await {
            Ok(row) => return row,
            Err(error) => tracing::error!(migration = %record.id, %error, "row can't be read now"),
        }
        // The pause ends early at shutdown.
        let _ = within(READ_RETRY, shutdown.cancelled()).await;
    }
    None
}

/// Settles a migration at its target; for a bound copy this waits for the source's word, however long that takes.
pub(super) async fn settle_target(runtime: &Runtime, record: MigrationRecord) {
    let shutdown = runtime.inner().tasks.shutdown();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let (id, agent) = (record.id, record.agent.clone());
    while !shutdown.is_cancelled() {
        let row = match runtime.inner().store.agent(&agent).await {
            Ok(row) => row,
            Err(error) => {
                tracing::error!(migration = %id, %agent, %error, "row can't be read now");
                // The pause ends early at shutdown.
                let _ = within(READ_RETRY, shutdown.cancelled()).await;
                continue;
            }
        };
        let token = match row.map(|row| row.home) {
            Some(Home::Prepared { migration, token, .. }) if migration == id => token,
            Some(Home::Here) if was_adopted(runtime, &record).await => {
                runtime.end_record(record, Phase::Complete, None).await;
                return;
            }
            _ => {
                runtime.discard(record, "restart").await;
                return;
            }
        };
        match runtime.tell(record.source, id, &agent, MigrationMessage::WhatBecame).await {
            Ok(MigrationAnswer::Adopted) => {
                let answer = runtime.activate_here(record.clone(), token).await;
                tracing::info!(migration = %id, %agent, ?answer, "bound copy settled on the source's word");
                return;
            }
            Ok(MigrationAnswer::Nothing) => {
                runtime.discard(record, "source").await;
                return;
            }
            answer => {
                tracing::warn!(migration = %id, %agent, ?answer, "agent is in doubt until its source answers");
                let [random] = runtime.inner().clock.random();
                // The pause ends early at shutdown.
                let _ = within(backoff.delay(random), shutdown.cancelled()).await;
            }
        }
    }
}

async fn was_adopted(runtime: &Runtime, record: &MigrationRecord) -> bool {
    let lease = runtime.inner().store.lease(&record.agent).await.ok().flatten();
    lease.is_some_and(
        |lease| matches!(lease.cause, GrantCause::Transferred { migration, .. } if migration == record.id),
    )
}
