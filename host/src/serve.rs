//! `godwit serve`: builds every part from the configuration, runs until a signal, takes it down in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cap_std::fs::{Dir, File};
use godwit_core::agent::{LoadNotes, MemoryNotes, prover};
use godwit_core::guest::GuestLoader;
use godwit_core::id::HostId;
use godwit_core::limits::QUERIES_RUNNING_MAX;
use godwit_core::store::RuntimeStore;
use godwit_core::time::{Clock, SystemClock};
use godwit_engine::{Engine, EngineConfig};
use godwit_mesh::{IrohMesh, MeshConfig};
use godwit_store::{SealKey, SqliteMode, SqliteStore};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::HostConfig;
use crate::head::{Head, HeadError};
use crate::identity::{HostKey, open_data_dir};
use crate::load_notes::LoadingFile;
use crate::peer_book::PeerBook;
use crate::roster::{RosterFile, RosterProvider};
use crate::runtime::reconcile::RosterSources;
use crate::runtime::{Parts, PeerDoor, Runtime, RuntimeConfig, Signer};

/// The store can't say whether a write happened: start again, and it reads the truth from the disk.
const EXIT_RESTART: u8 = 75;
/// Files in the making, in the data directory.
const SCRATCH: &str = "scratch";
/// Guests that incoming migrations may keep warm at once.
const WARM_MAX: usize = 16;
/// An agent without work for this long gives its memory back.
const PARK_AFTER: Duration = Duration::from_secs(30);

/// Runs a host until SIGTERM, SIGINT, or a failure that it can't survive.
///
/// # Errors
/// When a part can't be started; what was started is taken down by the process's end.
pub async fn serve(config: HostConfig, is_restoring: bool) -> anyhow::Result<ExitCode> {
    let dir = open_data_dir(&config.data)?;
    let _lock = lock_data_dir(&dir, &config.data)?;
    let key = HostKey::load_or_create(&config.data)?;
    let data = config.data.canonicalize().context("cannot resolve the data directory")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);

    let store_url =
        config.store_url.clone().unwrap_or_else(|| format!("sqlite:{}", data.join("godwit.db").display()));
    let (store_path, mode) = godwit_store::parse_url(&store_url)?;
    let head = Head::open(dir.try_clone()?)?;
    if let Some(noted) = head.noted().await.filter(|_| !store_path.exists()) {
        return Err(HeadError::Missing { noted, path: store_path.display().to_string() }.into());
    }
    let seal_key = SealKey::new(key.seal_key_of(&store_path, mode == SqliteMode::Shared)?);
    let store = SqliteStore::open_sealing(&store_path, mode, clock.clone(), seal_key, config.quotas)
        .with_context(|| format!("cannot open the store {store_url}"))?;
    admit(&store, &head, is_restoring).await?;
    // Beside the residents there are guests for proofs, at most one fresh one per thread, and those that migrations warm.
    // Parking takes a moment, in which newcomers need room too.
    let spares = prover::spares_max(config.resident_max);
    let beside = spares + config.guest_threads + QUERIES_RUNNING_MAX + WARM_MAX;
    let guests_max = config.resident_max + config.resident_max / 4 + beside;
    let resident_max = u32::try_from(guests_max).context("limits.resident_max is too large")?;
    let engine = Engine::new(EngineConfig { cache_dir: data.join("cache"), resident_max })?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen at {} for the API", config.listen))?;
    let api = listener.local_addr()?;
    let peer_book = PeerBook::open(dir.try_clone()?)?;
    let door = PeerDoor::default();
    let mesh = start_mesh(&config, &key, &peer_book, &door).await?;
    let mesh_address = godwit_core::mesh::Mesh::local_address(mesh.as_ref());

    let name = config.name.clone().unwrap_or_else(|| key.id().to_string()[..8].to_owned());
    let host = key.id();
    let scratch = empty_scratch(&dir, &data)?;
    let runtime_config = runtime_config(&config, &name, host, api, scratch);
    let signer: Signer = Arc::new(move |bytes| key.sign(bytes));
    let loader: Arc<dyn GuestLoader> = Arc::new(engine);
    let parts = Parts {
        store: store.clone(),
        loader,
        mesh,
        clock,
        peer_book: Some(peer_book),
        signer: Some(signer),
        load_notes: load_notes(&dir),
        head: Some(head),
        roster: roster_sources(&config),
    };
    let runtime = Runtime::start(runtime_config, parts, &door).await.context("cannot join the store")?;

    let roster = &config.roster;
    runtime.bring_up_all(roster.boot, roster.boot_concurrency).await.context("cannot bring the agents up")?;

    let shared = if mode == SqliteMode::Shared { "?shared" } else { "" };
    let absolute = store_path.canonicalize().unwrap_or(store_path);
    // Whoever reads the ready line may end the host at once, and in order.
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!(
        "godwit ready name={name} id={host} api=http://{api} mesh={mesh_address} store=sqlite:{}{shared}",
        absolute.display(),
    );
    let exit = run_until_end(&runtime, &store, listener, &config, signals).await?;
    store.close().await;
    Ok(exit)
}

/// Refuses a store that is a backup put back; with `--restored`, makes it usable: above all that was noted, its agents
/// suspended.
async fn admit(store: &SqliteStore, head: &Head, is_restoring: bool) -> anyhow::Result<()> {
    let found = store.mark().await?;
    let Some(above) = head.check(found, store.is_backup().await?, is_restoring).await? else {
        return Ok(());
    };
    let restored = store.restore(above).await.context("cannot restore the store")?;
    tracing::warn!(
        epoch = %restored.epoch,
        agents = restored.agents,
        "the store was restored from a backup: its agents are suspended until an operator resumes each"
    );
    Ok(())
}

/// The mesh knows the peers of the book and those of the configuration, which win.
async fn start_mesh(
    config: &HostConfig,
    key: &HostKey,
    book: &PeerBook,
    door: &PeerDoor,
) -> anyhow::Result<Arc<IrohMesh>> {
    let peers = book.entries().into_iter().chain(config.peers.iter().copied()).collect();
    let mesh_config = MeshConfig { secret_key: key.secret(), listen: config.mesh, peers };
    IrohMesh::start(mesh_config, Arc::new(door.clone()))
        .await
        .with_context(|| format!("cannot listen at {} for the mesh", config.mesh))
}

fn runtime_config(
    config: &HostConfig,
    name: &str,
    host: HostId,
    api: SocketAddr,
    scratch: PathBuf,
) -> RuntimeConfig {
    RuntimeConfig {
        host,
        name: name.to_owned(),
        api,
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

fn roster_sources(config: &HostConfig) -> RosterSources {
    let file = config.roster.file.as_ref();
    let file = file.map(|path| Arc::new(RosterFile::new(path)) as Arc<dyn RosterProvider>);
    RosterSources { roster: file, ..RosterSources::default() }
}

/// Serves until a signal or a failure; a second signal ends the process at once.
async fn run_until_end(
    runtime: &Runtime,
    store: &SqliteStore,
    listener: tokio::net::TcpListener,
    config: &HostConfig,
    (mut terminate, mut interrupt): (Signal, Signal),
) -> anyhow::Result<ExitCode> {
    let router = crate::api::router(runtime.clone(), config)?;
    let serving = tokio::spawn(crate::api::serve(listener, router, runtime.shutdown_token()));
    let mut fatal = store.fatal();
    // Cancel safe: the first to resolve ends the host, the others are not needed any more.
    let exit = tokio::select! {
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        reason = runtime.failed() => {
            tracing::error!(reason, "stopping");
            ExitCode::FAILURE
        }
        Ok(reason) = fatal.wait_for(Option::is_some) => {
            let reason = reason.clone().unwrap_or_default();
            tracing::error!(reason, "the store can't go on: exit 75, start again");
            return Ok(ExitCode::from(EXIT_RESTART));
        }
    };
    let stopping = async {
        runtime.stop().await;
        drop(serving.await);
    };
    // Cancel safe: a second signal gives up waiting, and everything durable is durable already.
    tokio::select! {
        () = stopping => Ok(exit),
        _ = terminate.recv() => Ok(ExitCode::FAILURE),
        _ = interrupt.recv() => Ok(ExitCode::FAILURE),
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

/// A directory of this process for files in the making; what a former one left there goes.
fn empty_scratch(dir: &Dir, data: &Path) -> anyhow::Result<PathBuf> {
    match dir.remove_dir_all(SCRATCH) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("cannot empty DATA/scratch"),
    }
    dir.create_dir(SCRATCH).context("cannot make DATA/scratch")?;
    Ok(data.join(SCRATCH))
}

/// Holds the directory for this process; the lock ends with it.
fn lock_data_dir(dir: &Dir, data: &Path) -> anyhow::Result<File> {
    let file = dir.create("lock")?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => bail!("another host runs on the data directory {}", data.display()),
    }
}
