//! The runtime: owns every part of a running host, and is what HTTP, embedders and peers call.
//!
//! ```text
//!   api, cli, embedder        peers
//!            \                 /
//!   routing.rs  call.rs   peers.rs  wire.rs
//!            \                 /
//!   submit.rs  agents.rs  plugins.rs     migrator.rs (source.rs, target.rs, recovery.rs)
//!            \        |         /
//!         directory.rs (leases, drivers)   delivery.rs (outbox)   session.rs   scan.rs
//!                                            timers.rs   operations.rs (background work)
//! ```
//! `Starting -> Ready -> Draining -> Stopped`. Nothing here is authority over an agent: the store is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use godwit_core::agent::{AgentEnv, End, LoadNotes, Notice};
use godwit_core::guest::GuestLoader;
use godwit_core::id::{AgentId, HostId, InputId};
use godwit_core::lease::LeaseProfile;
use godwit_core::mesh::{Mesh, Peer};
use godwit_core::store::{RuntimeStore, StoreError};
use godwit_core::task::TaskGroup;
use godwit_core::time::{Clock, within};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::call::CallError;
use self::directory::Directory;
use self::groups::Groups;
use self::long_calls::LongCalls;
use self::migrator::Migrator;
use self::operations::{OperationPolicy, Operations};
use self::placement::Placement;
use self::reconcile::{Reconciler, RosterSources};
use self::routing::Hints;
use self::secrets::Secrets;
use self::session::Current;
use self::shutdown::Stopping;
use self::standby::Standbys;
use self::watchdog::Watchdog;
use crate::head::Head;
use crate::hooks::{ErrorEvent, HookQueue};
use crate::peer_book::PeerBook;
use crate::secrets::SecretsConfig;
use zeroize::Zeroizing;

pub mod agents;
pub mod archive;
pub mod audit;
pub mod backup;
pub mod boot;
pub mod call;
pub mod counts;
mod delivery;
mod directory;
pub mod drain;
pub mod edges;
pub mod events;
pub mod groups;
mod idle;
pub mod inspect;
mod long_calls;
mod lost;
mod migrator;
pub mod operations;
pub mod outputs;
mod peers;
pub mod placement;
pub mod plugins;
mod query;
pub mod reconcile;
pub mod replay;
pub mod respec;
mod retention;
pub mod routing;
mod scan;
pub mod secrets;
mod session;
pub mod shutdown;
pub mod standby;
mod start;
mod submit;
mod timers;
pub mod verbs;
pub mod verify;
mod watchdog;
pub(crate) mod wire;

pub use migrator::{ArrivalRule, PluginRule};
pub use peers::PeerDoor;
pub use shutdown::{ShutdownBounds, ShutdownReport};
pub(crate) use start::Starting;

/// How long a probe of readiness may take.
const READY_MAX: Duration = Duration::from_secs(2);
/// What calls are told that come too late.
const STOPPING: &str = "the host is stopping";

/// What a runtime is started with.
pub struct Parts {
    /// Everything durable.
    pub store: Arc<dyn RuntimeStore>,
    /// Loads and starts guests.
    pub loader: Arc<dyn GuestLoader>,
    /// Talks to other hosts.
    pub mesh: Arc<dyn Mesh>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Remembers peers over a restart; without one they are forgotten.
    pub peer_book: Option<PeerBook>,
    /// Signs with the host's key; without it no receipts are removed.
    pub signer: Option<Signer>,
    /// Opens envelopes to the host's key; without it agents whose key travels can't come here.
    pub unsealer: Option<Unsealer>,
    /// Notes what is being loaded; without a file a guest that kills the host when it is loaded does so at each start.
    pub load_notes: Arc<dyn LoadNotes>,
    /// Notes outside the store how far it has come; without one a restored backup is not noticed.
    pub head: Option<Head>,
    /// Which agents and edges there should be.
    pub roster: RosterSources,
    /// Tells an embedder; the default tells nobody.
    pub hooks: HookQueue,
}

/// Signs bytes with the host's key.
pub type Signer = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// Opens an envelope to the host's key: its context, and its bytes. `None` for one that does not open.
pub type Unsealer = Arc<dyn Fn(&[u8], &[u8]) -> Option<Zeroizing<[u8; 32]>> + Send + Sync>;

/// How a runtime behaves.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// This host's key.
    pub host: HostId,
    /// For people.
    pub name: String,
    /// Where the HTTP API listens.
    pub api: SocketAddr,
    /// Whether the entity keys of agents that leave go with them, sealed to their target.
    pub carries_identity: bool,
    /// Whether only agents are taken from other hosts whose coming was announced (`Runtime::expect_migration`).
    pub takes_only_expected: bool,
    /// Which agents are taken from other hosts, by what they run and whence they come; without a rule any.
    pub arrival_rules: Vec<ArrivalRule>,
    /// What may be left to send of an agent when it is held for its move.
    pub delta_bytes_max: usize,
    /// What this host offers to agents that require it: names and values.
    pub capabilities: BTreeMap<String, String>,
    /// Life of sessions on a shared store.
    pub lease_profile: LeaseProfile,
    /// Guests kept at once.
    pub resident_max: usize,
    /// Threads that guests run on.
    pub guest_threads: usize,
    /// An agent without work for this long is parked.
    pub park_after: Duration,
    /// How long ended inputs are kept.
    pub inputs_kept: Duration,
    /// Receipts of each agent that are kept; of older ones a signed checkpoint. All are kept when nothing is said.
    pub receipts_kept: Option<u64>,
    /// What the work of agents may reach.
    pub operations: OperationPolicy,
    /// What that work may carry without the agents seeing it.
    pub secrets: SecretsConfig,
    /// Where backups lie while they are made; without it there are none.
    pub scratch: Option<PathBuf>,
    /// Whether agents may send only to those with which they have an edge.
    pub needs_edges: bool,
}

/// A running host. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn RuntimeStore>,
    pub(crate) mesh: Arc<dyn Mesh>,
    /// Leads from the mesh to here, so it must be closed for anything to be freed.
    door: PeerDoor,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) env: AgentEnv,
    pub(crate) host: HostId,
    pub(crate) name: String,
    pub(crate) api: SocketAddr,
    peer_book: Option<PeerBook>,
    head: Option<Head>,
    scratch: Option<PathBuf>,
    pub(crate) lease_profile: LeaseProfile,
    pub(crate) resident_max: usize,
    pub(crate) needs_edges: bool,
    /// What works by itself and what calls have begun. Its shutdown begins the host's: nothing new is taken from there on.
    pub(crate) tasks: TaskGroup,
    /// Calls that change something, while they last.
    calls: TaskGroup,
    /// Drivers of agents; they end when their turns have.
    pub(crate) drivers: TaskGroup,
    /// What delivers outputs; it outlives the drivers, whose last turns have some.
    pub(crate) publishers: TaskGroup,
    /// Set when the host has no time left for what is in outboxes.
    pub(crate) hurry: CancellationToken,
    /// What keeps the session; it outlives all that needs a lease.
    pub(crate) keeping: TaskGroup,
    pub(crate) directory: Directory,
    pub(crate) watchdog: Watchdog,
    pub(crate) hints: Hints,
    pub(crate) long_calls: LongCalls,
    pub(crate) migrator: Migrator,
    pub(crate) carries_identity: bool,
    pub(crate) takes_only_expected: bool,
    pub(crate) arrival_rules: Vec<ArrivalRule>,
    pub(crate) delta_bytes_max: usize,
    unsealer: Option<Unsealer>,
    pub(crate) placement: Placement,
    pub(crate) groups: Groups,
    pub(crate) standbys: Standbys,
    /// Room for those who follow agents or wait for outputs.
    pub(crate) watchers: Arc<Semaphore>,
    /// Set when something may be runnable that no hint announced.
    pub(crate) rescan: Notify,
    pub(crate) operations: Operations,
    pub(crate) reconciler: Reconciler,
    pub(crate) secrets: Secrets,
    /// Set when a turn has set or cancelled timers.
    pub(crate) timers_changed: Notify,
    pub(crate) hooks: HookQueue,
    /// Snapshots taken before agents were parked.
    checkpoints: Arc<AtomicU64>,
    /// Outputs that their receivers have, durably ended.
    pub(crate) outputs_sent: AtomicU64,
    session: OnceLock<RwLock<Arc<Current>>>,
    failed: watch::Sender<Option<String>>,
    stopping: Stopping,
}

impl Runtime {
    /// Acts on what drivers tell.
    async fn hear(self, mut notices: mpsc::Receiver<Notice>) {
        let shutdown = self.inner.tasks.shutdown();
        loop {
            // Cancel safe: `recv` and `cancelled` lose nothing when dropped.
            let notice = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                notice = notices.recv() => notice,
            };
            match notice {
                None => return,
                Some(Notice::Outputs(agent)) => self.publish_more(&agent),
                Some(Notice::Timers) => self.inner.timers_changed.notify_one(),
                Some(Notice::Operations(agent)) => {
                    let runtime = self.clone();
                    self.inner.tasks.spawn(async move { operations::look(&runtime, &agent).await });
                }
                Some(Notice::NoRoom(agent)) => self.make_room(&agent),
                // Dealt with where they are told.
                Some(Notice::Checkpointed(_) | Notice::Broke(..)) => {}
                Some(Notice::Ended(agent, End::Lost | End::Moved)) => {
                    self.inner.directory.forget_lost(&agent);
                    self.inner.rescan.notify_one();
                }
                Some(Notice::Ended(agent, end @ (End::Parked | End::Broken))) => {
                    tracing::debug!(%agent, ?end, "driver ended");
                    self.inner.directory.drop_dead_handle(&agent);
                }
            }
        }
    }

    /// Notes how far the store has come, outside of it.
    ///
    /// # Errors
    /// `Closed` when the note can't be written.
    pub(crate) async fn note_head(&self) -> Result<(), StoreError> {
        let Some(head) = &self.inner.head else {
            return Ok(());
        };
        head.note(self.inner.store.as_ref()).await.map_err(|error| {
            let source =
                std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            StoreError::Closed { reason: format!("{error}{source}") }
        })
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn session(&self) -> Arc<Current> {
        self.session_if_joined().expect("`start` joins before anything else can hold a runtime")
    }

    /// As `session`, also before there is one.
    fn session_if_joined(&self) -> Option<Arc<Current>> {
        let lock = self.inner.session.get()?;
        Some(lock.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(crate) fn set_session(&self, current: Current) {
        let lock = self.inner.session.get().expect("`start` joins before anything else can hold a runtime");
        *lock.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
    }

    /// Ends the host: it can't go on safely.
    pub(crate) fn fail(&self, reason: &str) {
        tracing::error!(reason, "host can't go on");
        self.inner.hooks.error(ErrorEvent::HostFailed { reason: reason.to_owned() });
        self.inner.failed.send_replace(Some(reason.to_owned()));
    }

    /// Resolves when the host can't go on, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "the runtime is gone".into())
    }

    /// This host's key.
    pub fn host(&self) -> HostId {
        self.inner.host
    }

    /// This host's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Resolves when shutdown begins.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.inner.tasks.shutdown()
    }

    /// What tells an embedder's hooks.
    pub fn hooks(&self) -> &HookQueue {
        &self.inner.hooks
    }

    /// Refuses what comes after shutdown has begun.
    ///
    /// # Errors
    /// `Unavailable`: nothing was done, and another try, here after a restart or elsewhere, may succeed.
    pub(crate) fn check_admission(&self) -> Result<(), CallError> {
        match self.inner.tasks.is_ending() {
            true => Err(CallError::Unavailable { reason: STOPPING.to_owned() }),
            false => Ok(()),
        }
    }

    /// Lets a call in. Shutdown waits a while for those that are in when it begins.
    ///
    /// # Errors
    /// As `check_admission`.
    pub(crate) fn admit(&self) -> Result<TaskTrackerToken, CallError> {
        // In first: whoever is not refused is waited for.
        let inside = self.inner.calls.enter();
        self.check_admission()?;
        Ok(inside)
    }

    /// Wall time in Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.inner.clock.wall_ms()
    }

    /// An id for a submission.
    pub fn new_input_id(&self) -> InputId {
        InputId::generate(self.now_ms(), self.inner.clock.random())
    }

    /// Whether a claim and a commit would work now.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn ready(&self) -> Result<(), String> {
        if self.inner.tasks.is_ending() {
            return Err(STOPPING.to_owned());
        }
        if self.session().lease.state() != godwit_core::lease::LeaseState::Held {
            return Err("the host's session is not held: the store did not answer its heartbeat".into());
        }
        match within(READY_MAX, self.inner.store.probe()).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(format!("the store can't write: {error}")),
            None => Err("the store did not write within 2 s".into()),
        }
    }

    /// Agents that have work and make no progress, each with the reason.
    pub fn stuck(&self) -> Vec<(AgentId, String)> {
        self.inner.watchdog.stuck()
    }

    /// The listed peers.
    pub fn peers(&self) -> Vec<Peer> {
        self.inner.mesh.peers()
    }

    /// Lists a peer, also for after a restart.
    ///
    /// # Errors
    /// `Internal` when the list can't be written; the peer is then not listed.
    pub fn add_peer(&self, key: HostId, address: SocketAddr) -> Result<(), CallError> {
        if let Some(book) = &self.inner.peer_book {
            book.insert(key, address).map_err(unwritable)?;
        }
        self.inner.mesh.add_peer(key, address);
        Ok(())
    }

    /// Forgets a peer. Answers whether it was listed.
    ///
    /// # Errors
    /// `Internal` when the list can't be written; the peer is then still listed.
    pub fn remove_peer(&self, key: HostId) -> Result<bool, CallError> {
        if let Some(book) = &self.inner.peer_book {
            book.remove(key).map_err(unwritable)?;
        }
        Ok(self.part_with(key))
    }

    /// Reads the configured peers again: those that are new are listed, those that are gone are removed as by `remove_peer`.
    ///
    /// # Errors
    /// `Conflict` when the configuration can't be read; nothing has changed then.
    pub fn reload_peers(&self) -> Result<PeerChanges, CallError> {
        let Some(book) = &self.inner.peer_book else { return Ok(PeerChanges::default()) };
        let (before, after) = book.reload().map_err(|reason| {
            let what = format!("the configured peers can't be read, and stay as they were: {reason}");
            CallError::Conflict { what }
        })?;
        let mut changes = PeerChanges::default();
        for (key, address) in after.iter().filter(|(key, address)| before.get(key) != Some(address)) {
            self.inner.mesh.add_peer(*key, *address);
            if !before.contains_key(key) {
                changes.added.push(*key);
            }
        }
        for key in before.into_keys().filter(|key| !after.contains_key(key)) {
            self.part_with(key);
            changes.removed.push(key);
        }
        tracing::info!(added = changes.added.len(), removed = changes.removed.len(), "peers read again");
        Ok(changes)
    }

    /// Closes what is open to a peer, and ends what is open with it. Answers whether it was listed.
    fn part_with(&self, key: HostId) -> bool {
        let was_listed = self.inner.mesh.remove_peer(key);
        if was_listed {
            tracing::info!(peer = %key, "peer removed: its connections are closed");
            self.abandon_migrations_with(key);
        }
        was_listed
    }
}

/// What reading the configured peers again has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerChanges {
    /// Peers that are new.
    pub added: Vec<HostId>,
    /// Peers that are none any more.
    pub removed: Vec<HostId>,
}

fn unwritable(error: std::io::Error) -> CallError {
    CallError::Internal { reason: format!("the list of peers can't be written: {error}") }
}

#[cfg(test)]
pub(crate) mod tests;
