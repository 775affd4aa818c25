//! The product's own parts in this process, for figures that leave out HTTP and disk: the engine, a store that has an
//! agent, the driver.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use godwit_core::agent::prover::Prover;
use godwit_core::agent::{AgentEnv, Answer, Grant, GuestPool, Handle, MemoryNotes, spawn};
use godwit_core::digest::Digest;
use godwit_core::guest::{
    Guest, GuestLoader, GuestRequest, Interrupt, LoadedPlugin, StateRead, StateReadError, TurnContext,
};
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, InputId, OperationId, Revision};
use godwit_core::identity::EntityKey;
use godwit_core::input::{Input, Kind, NewInput, Outcome, Reach, Reply, ReplyOutcome, Source};
use godwit_core::lease::{Lease, LeaseGuard, SessionLease};
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::{NewAgent, RuntimeStore, Session, SessionRequest};
use godwit_core::task::TaskGroup;
use godwit_core::time::{Clock, SystemClock};
use godwit_engine::{Engine, EngineConfig};
use tokio::sync::Semaphore;

/// The name that all agents in this process have.
pub(crate) const AGENT: &str = "bench";
/// The plugin version under which components are stored here.
pub(crate) const VERSION: &str = "0.1.0";
const GUESTS_MAX: u32 = 16;
const GUEST_THREADS: usize = 4;
/// No agent parks by itself while it is measured.
const PARK_AFTER: Duration = Duration::from_secs(3_600);

/// The engine with one plugin in it.
#[derive(Clone)]
pub(crate) struct Product {
    pub(crate) engine: Arc<Engine>,
    plugin: LoadedPlugin,
    component: Bytes,
}

impl Product {
    /// Compiles a component, with the cache in `directory`.
    ///
    /// # Errors
    /// When the engine refuses.
    pub(crate) fn compile(component: &[u8], directory: &Path) -> Result<Self> {
        let engine =
            Engine::new(EngineConfig { cache_dir: directory.join("cache"), resident_max: GUESTS_MAX })?;
        let plugin = engine.load(component)?;
        Ok(Self { engine: Arc::new(engine), plugin, component: Bytes::copy_from_slice(component) })
    }

    /// What a guest of `spec` is started with, under `guard`.
    pub(crate) fn request(&self, guard: LeaseGuard) -> GuestRequest {
        GuestRequest {
            agent: agent(),
            spec: Arc::new(self.spec()),
            grants: Arc::new([]),
            guard,
            state: Arc::new(NoRows),
            interrupt: Interrupt::default(),
        }
    }

    /// A guest that nothing has been called of.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn start(&self) -> Result<Box<dyn Guest>> {
        let guard = LeaseGuard::new(SessionLease::unlimited(), FencingToken(1));
        Ok(self.engine.start(self.request(guard))?)
    }

    /// A prover of snapshots of what `start` starts.
    pub(crate) fn prover(&self) -> Prover {
        let guard = LeaseGuard::new(SessionLease::unlimited(), FencingToken(1));
        Prover::new(self.engine.clone(), self.request(guard), Arc::new(Semaphore::new(1)))
    }

    fn spec(&self) -> Spec {
        Spec::new(self.plugin.digest)
    }

    /// Stores the plugin.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn put(&self, store: &dyn RuntimeStore) -> Result<()> {
        let plugin = PluginInfo {
            digest: self.plugin.digest,
            name: self.plugin.name.clone().unwrap_or_else(|| AGENT.to_owned()),
            version: self.plugin.version.clone().unwrap_or_else(|| VERSION.to_owned()),
            imports: self.plugin.imports.clone(),
            grants: self.plugin.grants.clone(),
            size: self.component.len() as u64,
            loaded_at_ms: SystemClock.wall_ms(),
            killed_hosts: 0,
        };
        store.put_plugin(plugin, self.component.clone()).await?;
        Ok(())
    }

    /// Makes an agent of the stored plugin.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn create(&self, store: &dyn RuntimeStore, agent: AgentId) -> Result<()> {
        let now_ms = SystemClock.wall_ms();
        store
            .create(NewAgent { agent, spec: self.spec(), labels: Default::default(), now_ms, claim: None })
            .await?;
        Ok(())
    }

    /// The plugin's digest.
    pub(crate) fn digest(&self) -> Digest {
        self.plugin.digest
    }

    /// Makes the agent in a store and takes its lease.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn settle(&self, store: Arc<dyn RuntimeStore>) -> Result<Settled> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        self.put(store.as_ref()).await?;
        self.create(store.as_ref(), agent()).await?;
        let session = join(store.as_ref()).await?;
        let leases = store.acquire(session.incarnation, &[agent()]).await?;
        let lease = leases.into_iter().next().context("one agent, one answer")??;
        let guard = LeaseGuard::new(SessionLease::unlimited(), lease.token);
        let env = AgentEnv {
            store,
            loader: self.engine.clone(),
            pool: GuestPool::start(GUEST_THREADS),
            queries: Arc::default(),
            spares: Arc::new(Semaphore::new(1)),
            load_notes: Arc::new(MemoryNotes::default()),
            clock,
            host: host(),
            notify: Arc::new(drop),
            park_after: PARK_AFTER,
            watched: Arc::default(),
        };
        Ok(Settled { env, lease, guard, tasks: TaskGroup::default() })
    }
}

/// An agent in a store, owned and parked.
pub(crate) struct Settled {
    pub(crate) env: AgentEnv,
    pub(crate) lease: Lease,
    pub(crate) guard: LeaseGuard,
    tasks: TaskGroup,
}

impl Settled {
    /// Wakes the agent: starts its driver.
    pub(crate) fn wake(&self) -> Handle {
        let grant = Grant { lease: self.lease.clone(), guard: self.guard.clone(), warm: None };
        spawn(self.env.clone(), &self.tasks, grant)
    }

    /// Asks an agent that is awake.
    ///
    /// # Errors
    /// When there is no reply.
    pub(crate) async fn ask(&self, handle: &Handle, payload: &str) -> Result<String> {
        match handle.ask(new_input(agent(), payload)).await {
            Ok(Answer::Ended { outcome: Outcome::Committed { reply, .. }, .. }) => text(&reply),
            Ok(other) => bail!("{payload:?} was not answered: {other:?}"),
            Err(_) => bail!("{payload:?} was not answered: the driver has ended"),
        }
    }

    /// Ends drivers and threads.
    pub(crate) async fn close(self) {
        self.tasks.close().await;
        self.env.pool.close();
    }
}

/// The text of an agent's reply.
///
/// # Errors
/// When it gave none.
pub(crate) fn text(reply: &Reply) -> Result<String> {
    match &reply.outcome {
        ReplyOutcome::Ok(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        other => bail!("the agent did not reply: {other:?}"),
    }
}

/// An input as the guest sees it.
pub(crate) fn input(payload: &str) -> Input {
    Input {
        id: InputId([7; 16]),
        kind: Kind::Message,
        source: Source::External { name: "http".into() },
        content_type: "text/plain".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 1_700_000_000_000,
    }
}

/// A turn's context.
pub(crate) fn context() -> TurnContext {
    TurnContext {
        generation: Generation(1),
        token: FencingToken(1),
        revision: Revision(1),
        attempt: 1,
        now_ms: 1_700_000_000_000,
        seed: [9; 32],
        answers: Default::default(),
    }
}

/// The agent's id.
pub(crate) fn agent() -> AgentId {
    AgentId::parse(AGENT).expect("the name is within the alphabet")
}

/// An input with this payload, as a client of the API sends it.
pub(crate) fn new_input(agent: AgentId, payload: &str) -> NewInput {
    let mut input = input(payload);
    let clock: &dyn Clock = &SystemClock;
    input.id = InputId::generate(clock.wall_ms(), clock.random());
    NewInput {
        agent,
        input,
        idempotency_key: None,
        mode: Default::default(),
        is_silent: false,
        supersedes: None,
        traceparent: None,
        delivery: None,
        reach: Reach::Any,
    }
}

/// The host that this process is to its stores.
pub(crate) fn host() -> HostId {
    HostId([1; 32])
}

/// Joins a store as the only host.
///
/// # Errors
/// When the store refuses.
pub(crate) async fn join(store: &dyn RuntimeStore) -> Result<Session> {
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let request = SessionRequest {
        host: host(),
        name: AGENT.into(),
        api: nowhere,
        mesh: nowhere,
        ttl: Duration::from_secs(3_600),
        now_ms: SystemClock.wall_ms(),
    };
    Ok(store.join(request).await?)
}

/// No agent here keeps rows.
struct NoRows;

impl StateRead for NoRows {
    fn get(&self, _key: &str) -> Result<Option<Bytes>, StateReadError> {
        Ok(None)
    }

    fn list(
        &self,
        _prefix: &str,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<String>, StateReadError> {
        Ok(Vec::new())
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        Ok(Vec::new())
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        Ok(Vec::new())
    }

    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError> {
        Ok(None)
    }
}
