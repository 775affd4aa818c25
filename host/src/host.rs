//! A whole host inside a process: `HostBuilder` starts one in stages, `Host` is the running one, `Host::stop` takes it down in
//! order and says how that went. `godwit serve` is a thin user of it.
//!
//! `host/stage.rs` names the stages and why one may fail, `host/bootstrap.rs` goes through them, `host/undo.rs` takes back what a
//! start that fails has done. What a host does while it runs is in `runtime`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cap_std::fs::File;
use godwit_core::id::HostId;
use godwit_core::store::RuntimeStore;
use godwit_core::task::TaskGroup;
use godwit_core::time::{Clock, SystemClock, within};
use godwit_store::SqliteStore;
use tokio::sync::oneshot;

use crate::config::HostConfig;
use crate::hooks::Hooks;
use crate::peer_book::ReadPeers;
use crate::roster::{AgentCustomizer, RosterProvider, TopologyProvider};
use crate::runtime::plugins::PluginLabel;
use crate::runtime::reconcile::RosterSources;
use crate::runtime::shutdown::Stopping;
use crate::runtime::{Runtime, ShutdownBounds, ShutdownReport};

mod bootstrap;
mod stage;
mod undo;

pub use stage::{Left, Stage, StartCause, StartError};

/// How long clients of the API are waited for: longer than it waits for them itself.
const SERVING_MAX: Duration = Duration::from_secs(8);
/// How long the store may take to close: its log is written into its file then.
const STORE_MAX: Duration = Duration::from_secs(30);

/// Called when a stage is done; an error ends the start there.
type StageCheck = Arc<dyn Fn(Stage) -> Result<(), String> + Send + Sync>;

enum Preload {
    Bytes(Bytes, PluginLabel),
    File(PathBuf),
}

/// What a host is started from: a configuration, and what the embedder brings.
#[must_use = "nothing is started before `start`"]
pub struct HostBuilder {
    config: HostConfig,
    is_restoring: bool,
    serves_api: bool,
    store: Option<Arc<dyn RuntimeStore>>,
    clock: Arc<dyn Clock>,
    hooks: Option<Arc<dyn Hooks>>,
    plugins: Vec<Preload>,
    roster: RosterSources,
    read_peers: Option<ReadPeers>,
    check: Option<StageCheck>,
}

impl std::fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl HostBuilder {
    /// A host of this configuration, with everything else as `godwit serve` has it.
    pub fn new(config: HostConfig) -> Self {
        Self {
            config,
            is_restoring: false,
            serves_api: true,
            store: None,
            clock: Arc::new(SystemClock),
            hooks: None,
            plugins: Vec::new(),
            roster: RosterSources::default(),
            read_peers: None,
            check: None,
        }
    }

    /// Uses a store of the embedder's instead of the configured one. It stays open when the host stops: it is the embedder's
    /// to close. The data directory notes which store it was used with, and refuses another.
    pub fn store(mut self, store: Arc<dyn RuntimeStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Uses another source of time and randomness.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells `hooks` what happens.
    pub fn hooks(mut self, hooks: Arc<dyn Hooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// Loads a component before anything runs; one that is stored already costs nothing.
    pub fn plugin(mut self, component: Bytes, label: PluginLabel) -> Self {
        self.plugins.push(Preload::Bytes(component, label));
        self
    }

    /// As `plugin`, from a file.
    pub fn plugin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.plugins.push(Preload::File(path.into()));
        self
    }

    /// Says which agents there should be, in place of a roster file: they are there when the host is, and follow the provider
    /// from then on.
    pub fn roster(mut self, provider: Arc<dyn RosterProvider>) -> Self {
        self.roster.roster = Some(provider);
        self
    }

    /// Says which edges there should be, beside those of the roster.
    pub fn topology(mut self, provider: Arc<dyn TopologyProvider>) -> Self {
        self.roster.topology = Some(provider);
        self
    }

    /// Has the last word on each agent of the roster.
    pub fn customizer(mut self, customizer: Arc<dyn AgentCustomizer>) -> Self {
        self.roster.customizer = Some(customizer);
        self
    }

    /// Says how the configured peers are read again (`Runtime::reload_peers`). Without it they stay those of the configuration.
    pub fn read_peers(mut self, read: ReadPeers) -> Self {
        self.read_peers = Some(read);
        self
    }

    /// Whether HTTP is served at the configured address. Without it the host is reached through `Host::runtime` and the mesh
    /// alone.
    pub fn serves_api(mut self, serves_api: bool) -> Self {
        self.serves_api = serves_api;
        self
    }

    /// Takes the store for a backup that was put back: its agents are suspended until each is resumed.
    pub fn restoring(mut self, is_restoring: bool) -> Self {
        self.is_restoring = is_restoring;
        self
    }

    /// Calls `check` when a stage is done, to show progress or to end the start there: with an error everything is undone.
    pub fn after_each_stage(
        mut self,
        check: impl Fn(Stage) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// Starts the host. Several may run in one process, each in its own data directory.
    ///
    /// # Errors
    /// `StartError` names the stage and the cause. What had been started is undone, last first: the same process can start
    /// again on the same directory.
    ///
    /// # Cancel safety
    /// Dropping the future lets the start go to its end in the background, and stops the host that came of it.
    pub async fn start(self) -> Result<Host, StartError> {
        let (started, host) = oneshot::channel();
        tokio::spawn(async move {
            // Nobody waits for it any more.
            if let Err(Ok(host)) = started.send(bootstrap::start(self).await) {
                host.stop().await;
            }
        });
        match host.await {
            Ok(host) => host,
            Err(_) => {
                let stage = Stage::DataDirectory;
                let left =
                    vec![Left { stage, what: "undoing it was broken off: end this process".to_owned() }];
                Err(StartError { stage, cause: StartCause::Panicked, undone: Vec::new(), left })
            }
        }
    }
}

/// Why a host can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A newer process uses its key, or its session can't be kept: this one must end.
    #[error("{reason}")]
    Host {
        /// Why.
        reason: String,
    },
    /// The store can't say any more what is on the disk: stop the host, and start it again, which reads the truth.
    #[error("the store can't go on: {reason}")]
    Store {
        /// Why.
        reason: String,
    },
}

/// How `Host::run_until` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why the host could not go on; `None` when it was told to end.
    pub failure: Option<Failure>,
    /// How it was taken down.
    pub report: ShutdownReport,
}

struct Running {
    runtime: Runtime,
    /// Closed with the host; an embedder's own store is not.
    own_store: Option<Arc<SqliteStore>>,
    /// Let go when everything else is closed.
    lock: Mutex<Option<Arc<File>>>,
    api: Option<SocketAddr>,
    mesh: SocketAddr,
    ready_line: String,
    serving: TaskGroup,
    stopping: Stopping,
    /// Where it was started, for stopping it when it is dropped.
    tokio: tokio::runtime::Handle,
}

/// A running host. Dropping it stops it in the background; `stop` waits, and says how that went.
pub struct Host {
    running: Arc<Running>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.running.ready_line)
    }
}

impl Host {
    /// Everything that can be done with agents: what HTTP and command line do, they do through this. Cheap to clone.
    pub fn runtime(&self) -> &Runtime {
        &self.running.runtime
    }

    /// Where the HTTP API listens, if it is served.
    pub fn api(&self) -> Option<SocketAddr> {
        self.running.api
    }

    /// Where the mesh listens.
    pub fn mesh(&self) -> SocketAddr {
        self.running.mesh
    }

    /// The host's public key.
    pub fn key(&self) -> HostId {
        self.running.runtime.host()
    }

    /// What `godwit serve` prints when it is ready: names, addresses and store.
    pub fn ready_line(&self) -> &str {
        &self.running.ready_line
    }

    /// Resolves when the host can't go on, with the reason. It still has to be stopped.
    pub async fn failed(&self) -> Failure {
        let store_failed = async {
            match self.running.own_store.as_ref().map(|store| store.fatal()) {
                Some(mut fatal) => match fatal.wait_for(Option::is_some).await {
                    Ok(reason) => reason.clone().unwrap_or_default(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        // Cancel safe: both only look.
        tokio::select! {
            reason = self.running.runtime.failed() => Failure::Host { reason },
            reason = store_failed => Failure::Store { reason },
        }
    }

    /// Takes the host down in order, to the end, and answers how that went. Asked again, it answers the same report.
    ///
    /// # Cancel safety
    /// Once begun it goes on, whether anybody waits or not.
    pub async fn stop(&self) -> ShutdownReport {
        self.stop_within(ShutdownBounds::default()).await
    }

    /// As `stop`, with other bounds; those of the first who asks count.
    ///
    /// # Cancel safety
    /// As `stop`.
    pub async fn stop_within(&self, bounds: ShutdownBounds) -> ShutdownReport {
        let running = self.running.clone();
        self.running.stopping.once(&self.running.serving, || take_down(running, bounds)).await
    }

    /// Runs until the signal resolves or the host can't go on, and takes it down.
    pub async fn run_until(&self, signal: impl Future<Output = ()>) -> Ended {
        // Cancel safe: the first to resolve ends the host, the other is not needed any more.
        let failure = tokio::select! {
            () = signal => None,
            failure = self.failed() => Some(failure),
        };
        Ended { failure, report: self.stop().await }
    }

    /// Closes the store and leaves all else to the end of the process, which must come at once: for a store that has failed,
    /// behind which nothing can be taken down in order.
    pub async fn abandon(self) {
        let own_store = self.running.own_store.clone();
        let closed = async move {
            if let Some(store) = own_store {
                store.close().await;
            }
            ShutdownReport::default()
        };
        self.running.stopping.once(&self.running.serving, || closed).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.running.stopping.has_begun() {
            let running = self.running.clone();
            self.running.tokio.spawn(async move {
                let stopping = running.clone();
                let bounds = ShutdownBounds::default();
                running.stopping.once(&running.serving, || take_down(stopping, bounds)).await
            });
        }
    }
}

async fn take_down(running: Arc<Running>, bounds: ShutdownBounds) -> ShutdownReport {
    let mut report = running.runtime.stop_within(bounds).await;
    let clock = &running.runtime.inner().clock;
    let began = clock.boot();
    if within(SERVING_MAX, running.serving.ended()).await.is_none() {
        report.trouble_at_close("clients of the API did not end");
        report.tasks_left += running.serving.running() as u64;
    }
    let is_closed = match &running.own_store {
        Some(store) => within(STORE_MAX, store.close()).await.is_some(),
        None => true,
    };
    let lock = running.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    if is_closed {
        drop(lock);
    } else {
        std::mem::forget(lock);
        report.trouble_at_close("the store did not close: its data stays locked until the process ends");
    }
    let elapsed = clock.boot().saturating_sub(began);
    report.longer_at_close(elapsed);
    tracing::info!(
        elapsed_ms = report.elapsed().as_millis(),
        tasks_left = report.tasks_left,
        "host is stopped"
    );
    report
}

#[cfg(test)]
mod tests;
