//! Bringing a host up, stage by stage. A stage that has started something says at once how that is undone, so that whatever
//! fails later leaves nothing behind.
//!
//! ```text
//! data directory -> key -> store -> admission -> engine -> listener -> mesh -> hooks
//!   -> join -> recovery -> plugins -> services -> agents -> serving
//! ```

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cap_std::fs::{Dir, File};
use futures::FutureExt;
use godwit_core::agent::{LoadNotes, MemoryNotes, prover};
use godwit_core::failpoint;
use godwit_core::guest::GuestLoader;
use godwit_core::id::HostId;
use godwit_core::limits::QUERIES_RUNNING_MAX;
use godwit_core::mesh::Mesh;
use godwit_core::store::RuntimeStore;
use godwit_core::task::TaskGroup;
use godwit_core::time::Clock;
use godwit_engine::{Engine, EngineConfig};
use godwit_mesh::{IrohMesh, MeshConfig};
use godwit_store::{SealKey, SqliteMode, SqliteStore};
use tokio::net::TcpListener;

use super::stage::{Stage, StartCause, StartError};
use super::undo::Undo;
use super::{Host, HostBuilder, Preload, Running, StageCheck};
use crate::config::{HostConfig, RosterConfig};
use crate::data_dir::{self, DataDirError};
use crate::head::{Head, HeadError};
use crate::hooks::{HookQueue, Hooks};
use crate::identity::{HostKey, open_data_dir};
use crate::load_notes::LoadingFile;
use crate::peer_book::{PeerBook, ReadPeers};
use crate::roster::RosterFile;
use crate::runtime::{
    Parts, PeerDoor, Runtime, RuntimeConfig, ShutdownBounds, Signer, Starting, Unsealer, shutdown::Stopping,
};

/// Guests that incoming migrations may keep warm at once.
const WARM_MAX: usize = 16;
/// An agent without work for this long gives its memory back.
const PARK_AFTER: Duration = Duration::from_secs(30);
/// How long agents that had begun to work may go on when the start fails.
const UNDO_TURNS_MAX: Duration = Duration::from_secs(1);

/// Starts a host, or undoes what was started.
pub(super) async fn start(builder: HostBuilder) -> Result<Host, StartError> {
    let mut boot = Bootstrap {
        stage: Stage::DataDirectory,
        undo: Undo::default(),
        check: builder.check.clone(),
        clock: builder.clock.clone(),
        began: builder.clock.boot(),
    };
    // Undoing is outside of what may panic: an embedder's own parts run in there.
    let running = AssertUnwindSafe(boot.bring_up(builder)).catch_unwind().await;
    let cause = match running {
        Ok(Ok(running)) => return Ok(Host { running: Arc::new(running) }),
        Ok(Err(cause)) => cause,
        Err(_) => StartCause::Panicked,
    };
    let Bootstrap { stage, undo, .. } = boot;
    let (undone, left) = undo.run().await;
    Err(StartError { stage, cause, undone, left })
}

/// Where a start stands.
struct Bootstrap {
    stage: Stage,
    undo: Undo,
    check: Option<StageCheck>,
    clock: Arc<dyn Clock>,
    /// Boot time of the begin of the stage.
    began: Duration,
}

/// The data directory, held.
struct Held {
    dir: Dir,
    /// Without links, for paths that outlive the working directory.
    path: PathBuf,
    /// For files in the making.
    scratch: PathBuf,
    lock: Arc<File>,
}

/// The store, opened here or brought by the embedder.
struct Opened {
    store: Arc<dyn RuntimeStore>,
    own: Option<Arc<SqliteStore>>,
    /// As the ready line shows it.
    shown: String,
    head: Head,
}

impl Bootstrap {
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.began = self.clock.boot();
    }

    /// The stage has done its work, and everything it has started is in `undo`.
    fn done(&self) -> Result<(), StartCause> {
        let elapsed_ms = self.clock.boot().saturating_sub(self.began).as_millis();
        tracing::debug!(stage = %self.stage, elapsed_ms, "stage is up");
        let checked = self.check.as_ref().map_or(Ok(()), |check| check(self.stage));
        checked.map_err(|reason| StartCause::Refused { reason })
    }

    async fn bring_up(&mut self, builder: HostBuilder) -> Result<Running, StartCause> {
        let HostBuilder {
            config,
            is_restoring,
            serves_api,
            store,
            clock,
            hooks,
            plugins,
            mut roster,
            read_peers,
            check: _,
        } = builder;
        let held = self.hold_directory(&config)?;
        let key = self.read_key(&config)?;
        let opened = self.open_store(&config, &held, store, &clock, &key).await?;
        self.admit(&opened, is_restoring).await?;
        let loader = self.start_engine(&config, &held).await?;
        let (listener, api) = self.listen(&config, serves_api).await?;
        let door = PeerDoor::default();
        let (mesh, peer_book) = self.start_mesh(&config, &key, &held, &door, read_peers).await?;
        let mesh_address = mesh.local_address();
        let hooks = self.start_hooks(hooks)?;

        if let (None, Some(file)) = (&roster.roster, &config.roster.file) {
            roster.roster = Some(Arc::new(RosterFile::new(file)));
        }
        let name = config.name.clone().unwrap_or_else(|| key.id().to_string()[..8].to_owned());
        let host = key.id();
        let runtime_config = runtime_config(&config, &name, host, api, held.scratch);
        let (signer, unsealer) = uses_of(Arc::new(key));
        let parts = Parts {
            store: opened.store.clone(),
            loader,
            mesh,
            clock,
            peer_book: Some(peer_book),
            signer: Some(signer),
            unsealer: Some(unsealer),
            load_notes: load_notes(&held.dir),
            head: Some(opened.head.clone()),
            roster,
            hooks,
        };
        let runtime = self.start_runtime(runtime_config, parts, &door, plugins).await?;
        self.bring_agents_up(&runtime, &config).await?;
        let serving = self.serve(&runtime, &config, listener)?;

        let shown_api = api.map_or_else(|| "none".to_owned(), |api| format!("http://{api}"));
        let ready_line = format!(
            "godwit ready name={name} id={host} api={shown_api} mesh={mesh_address} store={}",
            opened.shown
        );
        failpoint::hit("bootstrap.before-ready");
        let stopping = Stopping::default();
        let (own_store, lock) = (opened.own, std::sync::Mutex::new(Some(held.lock)));
        let tokio = tokio::runtime::Handle::current();
        Ok(Running {
            runtime,
            own_store,
            lock,
            api,
            mesh: mesh_address,
            ready_line,
            serving,
            stopping,
            tokio,
        })
    }

    fn hold_directory(&mut self, config: &HostConfig) -> Result<Held, StartCause> {
        self.enter(Stage::DataDirectory);
        let dir = open_data_dir(&config.data)?;
        let lock = Arc::new(data_dir::lock(&dir, &config.data)?);
        let held = lock.clone();
        self.undo.push(Stage::DataDirectory, async move {
            drop(held);
            Vec::new()
        });
        let unresolved = DataDirError::io("resolve the data directory", &config.data);
        let path = config.data.canonicalize().map_err(unresolved)?;
        let scratch = data_dir::empty_scratch(&dir, &path)?;
        self.done()?;
        Ok(Held { dir, path, scratch, lock })
    }

    fn read_key(&mut self, config: &HostConfig) -> Result<HostKey, StartCause> {
        self.enter(Stage::Key);
        let key = HostKey::load_or_create(&config.data)?;
        failpoint::hit("bootstrap.after-key");
        self.done()?;
        Ok(key)
    }

    async fn open_store(
        &mut self,
        config: &HostConfig,
        held: &Held,
        brought: Option<Arc<dyn RuntimeStore>>,
        clock: &Arc<dyn Clock>,
        key: &HostKey,
    ) -> Result<Opened, StartCause> {
        self.enter(Stage::Store);
        let dir = held.dir.try_clone().map_err(DataDirError::io("open", &held.path))?;
        let head = Head::open(dir)?;
        if let Some(store) = brought {
            self.done()?;
            let shown = store.id().to_string();
            return Ok(Opened { store, own: None, shown, head });
        }
        let url = config.store_url.clone();
        let url = url.unwrap_or_else(|| format!("sqlite:{}", held.path.join("godwit.db").display()));
        let (path, mode) = godwit_store::parse_url(&url)?;
        if let Some(noted) = head.noted().await.filter(|_| !path.exists()) {
            return Err(HeadError::Missing { noted, path: path.display().to_string() }.into());
        }
        let seal_key = SealKey::new(key.seal_key_of(&path, mode == SqliteMode::Shared)?);
        let (clock, quotas, file) = (clock.clone(), config.quotas, path.clone());
        let opened =
            blocking(move || SqliteStore::open_sealing(&file, mode, clock, seal_key, quotas)).await?;
        let store = opened.map_err(|source| StartCause::Open { url, source })?;
        let closing = store.clone();
        self.undo.push(Stage::Store, async move {
            closing.close().await;
            Vec::new()
        });
        failpoint::hit("bootstrap.after-store");
        self.done()?;
        let shared = if mode == SqliteMode::Shared { "?shared" } else { "" };
        let absolute = path.canonicalize().unwrap_or(path);
        let shown = format!("sqlite:{}{shared}", absolute.display());
        Ok(Opened { store: store.clone(), own: Some(store), shown, head })
    }

    /// Refuses a store that is a backup put back; when it is being restored, makes it usable: above all that was noted, its
    /// agents suspended.
    async fn admit(&mut self, opened: &Opened, is_restoring: bool) -> Result<(), StartCause> {
        self.enter(Stage::Admission);
        let unreadable = |source| StartCause::Store { action: "read", source };
        let found = opened.store.mark().await.map_err(unreadable)?;
        let is_backup = match &opened.own {
            Some(store) => store.is_backup().await.map_err(unreadable)?,
            None => false,
        };
        if let Some(above) = opened.head.check(found, is_backup, is_restoring).await? {
            let restored = opened.store.restore(above).await;
            let restored = restored.map_err(|source| StartCause::Store { action: "restore", source })?;
            tracing::warn!(
                epoch = %restored.epoch,
                agents = restored.agents,
                "the store was restored from a backup: its agents are suspended until an operator resumes each"
            );
            let what = format!(
                "the store was restored and stays so (epoch {}): start without restoring",
                restored.epoch
            );
            self.undo.stays(Stage::Admission, what);
        }
        self.done()
    }

    async fn start_engine(
        &mut self,
        config: &HostConfig,
        held: &Held,
    ) -> Result<Arc<dyn GuestLoader>, StartCause> {
        self.enter(Stage::Engine);
        // Beside the residents there are guests for proofs, at most one fresh one per thread, and those that migrations
        // warm. Parking takes a moment, in which newcomers need room too.
        let spares = prover::spares_max(config.resident_max);
        let beside = spares + config.guest_threads + QUERIES_RUNNING_MAX + WARM_MAX;
        let guests_max = config.resident_max + config.resident_max / 4 + beside;
        // More than fit are refused by the engine, which says how many maps they would need.
        let resident_max = u32::try_from(guests_max).unwrap_or(u32::MAX);
        let cache_dir = held.path.join("cache");
        let engine = blocking(move || Engine::new(EngineConfig { cache_dir, resident_max })).await??;
        self.done()?;
        Ok(Arc::new(engine))
    }

    async fn listen(
        &mut self,
        config: &HostConfig,
        serves_api: bool,
    ) -> Result<(Option<TcpListener>, Option<SocketAddr>), StartCause> {
        self.enter(Stage::Listener);
        if !serves_api {
            self.done()?;
            return Ok((None, None));
        }
        let address = config.listen;
        let refused = |source| StartCause::Listen { address, source };
        // It is closed when this start ends.
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let api = listener.local_addr().map_err(refused)?;
        self.done()?;
        Ok((Some(listener), Some(api)))
    }

    /// The mesh knows the peers of the book.
    async fn start_mesh(
        &mut self,
        config: &HostConfig,
        key: &HostKey,
        held: &Held,
        door: &PeerDoor,
        read_peers: Option<ReadPeers>,
    ) -> Result<(Arc<dyn Mesh>, PeerBook), StartCause> {
        self.enter(Stage::Mesh);
        let dir = held.dir.try_clone().map_err(DataDirError::io("open", &held.path))?;
        let book = PeerBook::open(dir, config.peers.iter().copied(), read_peers)?;
        let peers = book.peers().into_iter().collect();
        let mesh_config = MeshConfig { secret_key: key.secret(), listen: config.mesh, peers };
        let mesh = IrohMesh::start(mesh_config, Arc::new(door.clone())).await;
        let mesh = mesh.map_err(|source| StartCause::Mesh { address: config.mesh, source })?;
        let closing = mesh.clone();
        self.undo.push(Stage::Mesh, async move {
            closing.close().await;
            Vec::new()
        });
        self.done()?;
        Ok((mesh, book))
    }

    fn start_hooks(&mut self, hooks: Option<Arc<dyn Hooks>>) -> Result<HookQueue, StartCause> {
        self.enter(Stage::Hooks);
        let hooks = hooks.map(HookQueue::start).transpose().map_err(StartCause::Hooks)?.unwrap_or_default();
        let closing = hooks.clone();
        self.undo.push(Stage::Hooks, async move {
            let is_closed = closing.close(UNDO_TURNS_MAX).await;
            if is_closed { Vec::new() } else { vec!["a hook did not come back".to_owned()] }
        });
        self.done()?;
        Ok(hooks)
    }

    async fn start_runtime(
        &mut self,
        config: RuntimeConfig,
        parts: Parts,
        door: &PeerDoor,
        plugins: Vec<Preload>,
    ) -> Result<Runtime, StartCause> {
        let refused = |action| move |source| StartCause::Store { action, source };
        self.enter(Stage::Join);
        let mut starting = Starting::assemble(config, parts, door);
        let runtime = starting.runtime().clone();
        // However far it comes: a runtime knows what of it is up.
        let stopping = runtime.clone();
        self.undo.push(Stage::Join, async move {
            let bounds = ShutdownBounds { turns: UNDO_TURNS_MAX, ..ShutdownBounds::default() };
            let report = stopping.stop_within(bounds).await;
            report.troubles().map(|(phase, trouble)| format!("{phase}: {trouble}")).collect()
        });
        starting.join().await.map_err(refused("join"))?;
        self.done()?;

        self.enter(Stage::Recovery);
        starting.settle().await.map_err(refused("read"))?;
        self.done()?;

        self.enter(Stage::Plugins);
        for (place, plugin) in plugins.into_iter().enumerate() {
            preload(&runtime, place, plugin).await?;
        }
        self.done()?;

        self.enter(Stage::Services);
        let runtime = starting.run(door).map_err(refused("keep the session with"))?;
        self.done()?;
        Ok(runtime)
    }

    async fn bring_agents_up(&mut self, runtime: &Runtime, config: &HostConfig) -> Result<(), StartCause> {
        self.enter(Stage::Agents);
        let RosterConfig { boot, boot_concurrency, .. } = config.roster;
        runtime.bring_up_all(boot, boot_concurrency).await.map_err(StartCause::Agents)?;
        self.done()
    }

    fn serve(
        &mut self,
        runtime: &Runtime,
        config: &HostConfig,
        listener: Option<TcpListener>,
    ) -> Result<TaskGroup, StartCause> {
        self.enter(Stage::Serving);
        let serving = TaskGroup::default();
        if let Some(listener) = listener {
            let router = crate::api::router(runtime.clone(), config)?;
            let (shutdown, closing) = (runtime.shutdown_token(), serving.clone());
            serving.spawn(crate::api::serve(listener, router, shutdown.clone()));
            self.undo.push(Stage::Serving, async move {
                shutdown.cancel();
                closing.ended().await;
                Vec::new()
            });
        }
        self.done()?;
        Ok(serving)
    }
}

/// Runs what may block away from the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartCause> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StartCause::Panicked)
}

async fn preload(runtime: &Runtime, place: usize, plugin: Preload) -> Result<(), StartCause> {
    let (what, component, label) = match plugin {
        Preload::Bytes(component, label) => (format!("number {}", place + 1), component, label),
        Preload::File(path) => {
            let file = path.clone();
            let read = blocking(move || std::fs::read(file)).await?;
            let what = path.display().to_string();
            let component = read.map_err(|source| StartCause::PluginFile { path, source })?;
            (what, Bytes::from(component), Default::default())
        }
    };
    let loaded = runtime.load_plugin(component, label).await;
    loaded.map(drop).map_err(|source| StartCause::Plugin { what, source })
}

/// What a runtime does with its host's key.
fn uses_of(key: Arc<HostKey>) -> (Signer, Unsealer) {
    let opener = key.clone();
    (Arc::new(move |bytes| key.sign(bytes)), Arc::new(move |context, sealed| opener.open(context, sealed)))
}

fn runtime_config(
    config: &HostConfig,
    name: &str,
    host: HostId,
    api: Option<SocketAddr>,
    scratch: PathBuf,
) -> RuntimeConfig {
    RuntimeConfig {
        host,
        name: name.to_owned(),
        // Port 0 is nowhere.
        api: api.unwrap_or_else(|| SocketAddr::new(config.listen.ip(), 0)),
        carries_identity: config.transport_identity,
        takes_only_expected: config.takes_only_expected,
        arrival_rules: config.arrival_rules.clone(),
        delta_bytes_max: config.delta_bytes_max,
        capabilities: config.capabilities.clone(),
        lease_profile: config.lease_profile,
        resident_max: config.resident_max,
        guest_threads: config.guest_threads,
        park_after: PARK_AFTER,
        inputs_kept: config.inputs_kept,
        receipts_kept: config.receipts_kept,
        operations: config.operations.clone(),
        secrets: config.secrets.clone(),
        scratch: Some(scratch),
        needs_edges: config.roster.needs_edges,
    }
}

/// Without a place for them the host runs as well: they are a defence.
fn load_notes(dir: &Dir) -> Arc<dyn LoadNotes> {
    match LoadingFile::open(dir) {
        Ok(file) => Arc::new(file),
        Err(error) => {
            tracing::warn!(%error, "DATA/loading can't be used: a guest that kills this host may do it again");
            Arc::new(MemoryNotes::default())
        }
    }
}
