//! Moving agents between hosts: who leaves, who arrives, and what a restart makes of it.
//!
//! `source.rs` reads top to bottom as the protocol; it coordinates. `target.rs` answers it. `recovery.rs` settles what a
//! restart finds; `claims.rs` judges what a peer says. The truth about an agent is its row, never these maps: they hold warm guests and running digests only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_core::id::{AgentId, HostId, MigrationId};
use godwit_core::mesh::MeshError;
use godwit_core::migration::{Failure, Phase, Role};
use godwit_core::retry::{Backoff, Retry, Retryable};
use godwit_core::store::{MigrationRecord, SessionRow, StoreError};
use godwit_core::time::within;

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;
use super::wire::{MigrationAnswer, MigrationMessage, PeerAnswer, PeerRequest};

mod adopt;
pub(super) mod claims;
mod identity;
mod packing;
mod policy;
mod recovery;
pub(in crate::runtime) mod source;
mod target;

pub(in crate::runtime) use claims::check_token;
pub(in crate::runtime) use identity::Passage;
pub use policy::{ArrivalRule, PluginRule};
pub(crate) use recovery::{open_migrations, tend};
use target::Arrival;
use tokio::sync::Semaphore;

/// Longest one message and its answer may take.
const MESSAGE_MAX: Duration = Duration::from_secs(10);
/// How long both stores put off their own work for a large agent, from its last rounds on: longer than it takes until it runs at
/// its target, unless operations are waited for. What is put off for longer is more, and comes in the way of the next one.
const QUIET_FOR: Duration = Duration::from_millis(100);
/// Bundles of rows that are read at a time, of all agents that arrive: each may unpack to `UNPACKED_BYTES_MAX`.
const BUNDLES_READ_MAX: usize = 8;
/// First and longest pause before the end of a migration is written again.
const END_RETRY_FIRST: Duration = Duration::from_millis(100);
const END_RETRY_MAX: Duration = Duration::from_secs(5);
/// Migrations that a list shows at most.
const LISTED_MAX: usize = 1_000;

/// What moves now.
#[derive(Default)]
pub(crate) struct Migrator {
    outgoing: Mutex<BTreeMap<AgentId, Outgoing>>,
    incoming: Mutex<BTreeMap<MigrationId, Arc<Arrival>>>,
    expected: identity::Expectations,
    reading: BundlesRead,
    /// Those whose end is being sought, or written.
    settling: Mutex<BTreeSet<(MigrationId, Role)>>,
}

/// Whoever reads a bundle of an agent that arrives has a permit of these.
struct BundlesRead(Semaphore);

impl Default for BundlesRead {
    fn default() -> Self {
        Self(Semaphore::new(BUNDLES_READ_MAX))
    }
}

/// One migration's end is sought by one task at a time.
struct Settling {
    runtime: Runtime,
    of: (MigrationId, Role),
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.runtime.inner().migrator.settling().remove(&self.of);
    }
}

#[derive(Debug, Clone)]
struct Outgoing {
    id: MigrationId,
    target: HostId,
    course: Arc<Course>,
}

/// Whether a migration may still be called off: either it is, or its source goes on to the commit point, and never both.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Course(AtomicU8);

impl Course {
    const OPEN: u8 = 0;
    const CALLED_OFF: u8 = 1;
    const DECIDING: u8 = 2;

    /// Calls it off, unless it is too late. Answers whether it is called off.
    pub(in crate::runtime) fn call_off(&self) -> bool {
        self.leave_open(Self::CALLED_OFF)
    }

    /// Goes on to the commit point, unless it was called off. Answers whether it does.
    pub(in crate::runtime) fn decide(&self) -> bool {
        self.leave_open(Self::DECIDING)
    }

    pub(in crate::runtime) fn is_called_off(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::CALLED_OFF
    }

    fn leave_open(&self, to: u8) -> bool {
        match self.0.compare_exchange(Self::OPEN, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => now == to,
        }
    }
}

impl Migrator {
    fn outgoing(&self) -> MutexGuard<'_, BTreeMap<AgentId, Outgoing>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settling(&self) -> MutexGuard<'_, BTreeSet<(MigrationId, Role)>> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incoming(&self) -> MutexGuard<'_, BTreeMap<MigrationId, Arc<Arrival>>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime {
    /// Migrations that this host took part in, newest first.
    ///
    /// # Errors
    /// As the store's.
    pub async fn migrations(&self) -> Result<Vec<MigrationRecord>, CallError> {
        self.inner().store.migrations(LISTED_MAX).await.map_err(store_error)
    }

    /// One migration.
    ///
    /// # Errors
    /// `NoSuch`.
    pub async fn migration(&self, id: MigrationId) -> Result<MigrationRecord, CallError> {
        let record = self.inner().store.migration(id).await.map_err(store_error)?;
        record.ok_or_else(|| CallError::NoSuch { what: format!("migration {id}") })
    }

    /// Ends a migration that has not passed its commit point. Asked at the source.
    ///
    /// # Errors
    /// `Conflict` when it is over or about to pass its commit point, or this host is not its source.
    pub async fn abort_migration(&self, id: MigrationId) -> Result<MigrationRecord, CallError> {
        let _inside = self.admit()?;
        let record = self.migration(id).await?;
        let running = self.inner().migrator.outgoing().get(&record.agent).filter(|out| out.id == id).cloned();
        let Some(running) = running else {
            let what =
                format!("migration {id} is not running here: it is over, or its source is another host");
            return Err(CallError::Conflict { what });
        };
        if !running.course.call_off() {
            let what = format!("migration {id} is at its commit point, and can't be called off any more");
            return Err(CallError::Conflict { what });
        }
        Ok(record)
    }

    /// The session of another host on this host's store.
    async fn session_of(&self, host: HostId) -> Result<Option<SessionRow>, StoreError> {
        let sessions = self.inner().store.sessions().await?;
        Ok(sessions.into_iter().find(|session| session.host == host))
    }

    /// Whether an agent is on its way to another host.
    pub(in crate::runtime) fn is_migrating(&self, agent: &AgentId) -> bool {
        self.inner().migrator.outgoing().contains_key(agent)
    }

    /// Ends migrations with a host that is no peer any more, as far as both stores allow: those to it before their commit
    /// point, and those from it whose copy is not bound.
    pub(crate) fn abandon_migrations_with(&self, peer: HostId) {
        for outgoing in self.inner().migrator.outgoing().values().filter(|out| out.target == peer) {
            // Behind its commit point it comes to its end by itself.
            let _ = outgoing.course.call_off();
        }
        let runtime = self.clone();
        self.inner().tasks.spawn(async move { runtime.discard_arrivals_of(peer).await });
    }

    /// Sends one message of a migration and waits for the answer.
    async fn tell(
        &self,
        peer: HostId,
        id: MigrationId,
        agent: &AgentId,
        message: MigrationMessage,
    ) -> Result<MigrationAnswer, MeshError> {
        let request = PeerRequest::Migration { id, agent: agent.clone(), message };
        match self.ask_peer(peer, &request, MESSAGE_MAX).await? {
            PeerAnswer::Migration(answer) => Ok(answer),
            PeerAnswer::NotNow { reason, .. } => Ok(MigrationAnswer::NotReady { reason }),
            PeerAnswer::Malformed { reason } => Err(MeshError::NoAnswer { peer, reason }),
            _ => Err(MeshError::NoAnswer { peer, reason: "another kind of answer".into() }),
        }
    }

    /// Writes the record; a record that can't be written is logged, because the agent's row decides anyway.
    async fn record(&self, record: &MigrationRecord) {
        if let Err(error) = self.inner().store.put_migration(record.clone()).await {
            tracing::warn!(migration = %record.id, %error, "migration record can't be written");
        }
    }

    async fn end_record(&self, mut record: MigrationRecord, phase: Phase, failure: Option<Failure>) {
        record.phase = phase;
        record.failure = failure;
        let put = self.inner().store.put_migration(record.clone()).await;
        let Err(error) = put else { return };
        tracing::warn!(migration = %record.id, %error, "the end of a migration can't be written");
        if error.retry() == Retry::Never {
            return;
        }
        // Whoever seeks its end already finds the record open, and writes it then.
        if let Some(settling) = self.settling(&record) {
            let runtime = self.clone();
            self.inner().tasks.spawn(async move {
                runtime.end_record_later(record).await;
                drop(settling);
            });
        }
    }

    /// The right to settle a migration; `None` while another task does.
    fn settling(&self, record: &MigrationRecord) -> Option<Settling> {
        let of = (record.id, record.role);
        let is_free = self.inner().migrator.settling().insert(of);
        is_free.then(|| Settling { runtime: self.clone(), of })
    }

    /// Tries until the store has taken the end of a migration: an open record keeps the agent from every other one. A host
    /// that stops leaves it to its next start.
    async fn end_record_later(&self, record: MigrationRecord) {
        let shutdown = self.inner().tasks.shutdown();
        let mut backoff = Backoff::new(END_RETRY_FIRST, END_RETRY_MAX);
        loop {
            let [random] = self.inner().clock.random();
            if within(backoff.delay(random), shutdown.cancelled()).await.is_some() {
                return;
            }
            match self.inner().store.put_migration(record.clone()).await {
                Err(error) if error.retry() != Retry::Never => {}
                Err(error) => {
                    tracing::warn!(migration = %record.id, %error, "the end of a migration was not taken");
                    return;
                }
                Ok(()) => return,
            }
        }
    }
}

fn unreachable(error: &MeshError) -> Failure {
    match error {
        MeshError::Incompatible { reason, .. } => Failure::IncompatibleVersion { reason: reason.clone() },
        other => Failure::PeerUnreachable { reason: other.to_string() },
    }
}

fn refused_by_store(error: &StoreError) -> Failure {
    match error {
        StoreError::Fenced { .. } | StoreError::Stale { .. } | StoreError::NotHome { .. } => Failure::Fenced,
        other => Failure::StateFailed { reason: other.to_string() },
    }
}
