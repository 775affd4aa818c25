//! Starting a runtime, step by step. A step that fails leaves what the ones before it have done: `Runtime::stop` takes all of
//! that back, from wherever it stands.
//!
//! ```text
//! assemble (threads) -> join (session) -> settle (notes, open migrations) -> run (door open, tasks)
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use godwit_core::agent::{AgentEnv, GuestPool, Notice, prover};
use godwit_core::failpoint;
use godwit_core::store::{MigrationRecord, StoreError};
use godwit_core::task::TaskGroup;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::groups::Groups;
use super::long_calls::LongCalls;
use super::migrator::{self, Migrator};
use super::operations::{self, Operations};
use super::placement::Placement;
use super::reconcile::Reconciler;
use super::routing::Hints;
use super::secrets::Secrets;
use super::shutdown::Stopping;
use super::standby::Standbys;
use super::watchdog::{self, Watchdog};
use super::{
    Inner, Parts, PeerDoor, Runtime, RuntimeConfig, events, idle, lost, retention, scan, session, standby,
    timers,
};
use crate::hooks::{ErrorEvent, HookQueue};

/// Notices of drivers that wait; more are dropped, and the scan finds what they said.
const NOTICES_MAX: usize = 4_096;

/// A runtime that does nothing yet.
pub(crate) struct Starting {
    runtime: Runtime,
    notices: mpsc::Receiver<Notice>,
    policy: retention::Policy,
    /// Migrations that the process before has left open.
    open: Vec<MigrationRecord>,
}

impl Starting {
    /// Puts the parts together and starts the guest threads.
    pub(crate) fn assemble(config: RuntimeConfig, parts: Parts, door: &PeerDoor) -> Self {
        let pool = GuestPool::start(config.guest_threads);
        Self::assemble_on(config, parts, door, (TaskGroup::default(), pool))
    }

    fn assemble_on(
        config: RuntimeConfig,
        parts: Parts,
        door: &PeerDoor,
        (tasks, pool): (TaskGroup, Arc<GuestPool>),
    ) -> Self {
        let (heard, notices) = mpsc::channel(NOTICES_MAX);
        let checkpoints = Arc::new(AtomicU64::new(0));
        let notify = Arc::new(told(heard, parts.hooks.clone(), checkpoints.clone()));
        let env = agent_env(&config, &parts, pool, notify);
        let policy = retention::Policy::new(config.inputs_kept, config.receipts_kept, parts.signer);
        let secrets = Secrets::new(
            config.host,
            config.secrets,
            parts.store.clone(),
            parts.clock.clone(),
            tasks.clone(),
        );
        let inner = Inner {
            store: parts.store,
            mesh: parts.mesh,
            door: door.clone(),
            clock: parts.clock,
            env,
            host: config.host,
            name: config.name,
            api: config.api,
            peer_book: parts.peer_book,
            head: parts.head,
            scratch: config.scratch,
            lease_profile: config.lease_profile,
            resident_max: config.resident_max,
            needs_edges: config.needs_edges,
            calls: tasks.sibling(),
            drivers: tasks.sibling(),
            publishers: tasks.sibling(),
            hurry: CancellationToken::new(),
            keeping: tasks.sibling(),
            tasks,
            directory: Directory::default(),
            watchdog: Watchdog::default(),
            hints: Hints::default(),
            long_calls: LongCalls::default(),
            migrator: Migrator::default(),
            placement: Placement::new(config.capabilities),
            groups: Groups::default(),
            standbys: Standbys::default(),
            carries_identity: config.carries_identity,
            takes_only_expected: config.takes_only_expected,
            arrival_rules: config.arrival_rules,
            delta_bytes_max: config.delta_bytes_max,
            unsealer: parts.unsealer,
            watchers: Arc::new(Semaphore::new(events::WATCHERS_MAX)),
            secrets,
            rescan: Notify::new(),
            timers_changed: Notify::new(),
            operations: Operations::new(config.operations),
            reconciler: Reconciler::new(parts.roster),
            hooks: parts.hooks,
            checkpoints,
            outputs_sent: AtomicU64::new(0),
            session: OnceLock::new(),
            failed: watch::Sender::new(None),
            stopping: Stopping::default(),
        };
        Self { runtime: Runtime { inner: Arc::new(inner) }, notices, policy, open: Vec::new() }
    }

    /// What `Runtime::stop` takes back, however far it has come.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Joins the store: from here on there is a session.
    ///
    /// # Errors
    /// As `RuntimeStore::join`.
    pub(crate) async fn join(&self) -> Result<(), StoreError> {
        let current = session::join(&self.runtime).await?;
        drop(self.runtime.inner.session.set(RwLock::new(Arc::new(current))));
        Ok(())
    }

    /// Notes how far the store is, and reads what the process before has left undone.
    ///
    /// # Errors
    /// As the store's; `Closed` when the note can't be written.
    pub(crate) async fn settle(&mut self) -> Result<(), StoreError> {
        self.runtime.note_head().await?;
        failpoint::hit("bootstrap.after-noted");
        self.open = migrator::open_migrations(&self.runtime).await?;
        self.runtime.hold_guarded().await?;
        Ok(())
    }

    /// Opens the door to peers and starts everything that works by itself.
    ///
    /// # Errors
    /// `Closed` when there is no thread for the session.
    pub(crate) fn run(self, door: &PeerDoor) -> Result<Runtime, StoreError> {
        let Self { runtime, notices, policy, open } = self;
        door.open(runtime.clone());
        session::keep(&runtime)?;
        let tasks = &runtime.inner.tasks;
        tasks.spawn(runtime.clone().hear(notices));
        tasks.spawn(migrator::tend(runtime.clone(), open));
        tasks.spawn(scan::run(runtime.clone()));
        tasks.spawn(lost::tell(runtime.clone()));
        tasks.spawn(runtime.inner.secrets.flows().clone().run());
        tasks.spawn(watchdog::run(runtime.clone()));
        tasks.spawn(timers::run(runtime.clone()));
        tasks.spawn(retention::run(runtime.clone(), policy));
        tasks.spawn(idle::run(runtime.clone()));
        tasks.spawn(operations::scan(runtime.clone()));
        // Hosts of one store take over from each other: they need no copies.
        if runtime.session().profile.is_none() {
            tasks.spawn(runtime.clone().decide_held());
            tasks.spawn(standby::feed(runtime.clone()));
        }
        Ok(runtime)
    }
}

/// What drivers work with.
fn agent_env(
    config: &RuntimeConfig,
    parts: &Parts,
    pool: Arc<GuestPool>,
    notify: Arc<dyn Fn(Notice) + Send + Sync>,
) -> AgentEnv {
    AgentEnv {
        store: parts.store.clone(),
        loader: parts.loader.clone(),
        pool,
        queries: Arc::default(),
        spares: Arc::new(Semaphore::new(prover::spares_max(config.resident_max))),
        load_notes: parts.load_notes.clone(),
        clock: parts.clock.clone(),
        host: config.host,
        notify,
        park_after: config.park_after,
        watched: Arc::default(),
    }
}

/// What is done with the notices of drivers, at once and without waiting.
fn told(
    heard: mpsc::Sender<Notice>,
    hooks: HookQueue,
    checkpoints: Arc<AtomicU64>,
) -> impl Fn(Notice) + Send + Sync + 'static {
    move |notice| match notice {
        Notice::Checkpointed(_) => drop(checkpoints.fetch_add(1, Ordering::Relaxed)),
        Notice::Broke(agent, reason) => hooks.error(ErrorEvent::AgentBroken { agent, reason }),
        // Dropped when the channel is full: the scan finds outputs and dead handles are replaced on use.
        notice => drop(heard.try_send(notice)),
    }
}

impl Runtime {
    /// Joins the store and starts everything. The mesh must already listen, its door answering "not yet".
    ///
    /// # Errors
    /// As `RuntimeStore::join`; nothing is left running, and the mesh is closed.
    pub async fn start(config: RuntimeConfig, parts: Parts, door: &PeerDoor) -> Result<Self, StoreError> {
        let pool = GuestPool::start(config.guest_threads);
        Self::start_on(config, parts, door, (TaskGroup::default(), pool)).await
    }

    /// As `start`, with tasks and guests run where the caller says. With a pool that is inline it starts no threads.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_on(
        config: RuntimeConfig,
        parts: Parts,
        door: &PeerDoor,
        (tasks, pool): (TaskGroup, Arc<GuestPool>),
    ) -> Result<Self, StoreError> {
        let mut starting = Starting::assemble_on(config, parts, door, (tasks, pool));
        let runtime = starting.runtime().clone();
        let started = async {
            starting.join().await?;
            starting.settle().await?;
            starting.run(door)
        };
        match started.await {
            Ok(runtime) => Ok(runtime),
            Err(error) => {
                runtime.stop().await;
                Err(error)
            }
        }
    }
}
