//! Rebuilding an agent from the store: image, checks, guest, restored state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::chain::{Author, Chain, Head};
use crate::agent::load_notes::Noted;
use crate::agent::pool::{Alone, PoolError};
use crate::agent::prover::Prover;
use crate::agent::rebuild::{RebuildError, Rebuilt, Start, rebuild};
use crate::agent::tail::Tail;
use crate::agent::{AgentEnv, Grant, Overlay, WarmGuest};
use crate::channel::{ChannelName, ChannelView, Subscription};
use crate::digest::Digest;
use crate::failpoint;
use crate::guest::{
    Answers, Guest, GuestError, GuestRequest, Interrupt, StateRead, StateReadError, TurnContext,
};
use crate::id::{AgentId, FencingToken, Generation, OperationId, Revision};
use crate::identity::EntityKey;
use crate::lease::{Lease, LeaseGuard};
use crate::limits::SUBSCRIBERS_MAX;
use crate::operation::StoredOperation;
use crate::store::{AgentImage, AgentRow, BrokenReason, Lifecycle, Owner, RuntimeStore, StoreError};
use crate::time::within;

/// Longest wait of a guest for one state read.
const STATE_READ_MAX: Duration = Duration::from_millis(250);
/// A loaded agent: everything about it but its queue.
pub(crate) struct Loaded {
    pub(crate) author: Arc<Author>,
    pub(crate) guard: LeaseGuard,
    /// `Active`, `Paused` (it is held and runs nothing) or `Retiring` (it ends when nothing is left).
    pub(crate) lifecycle: Lifecycle,
    /// As in the agent's row.
    pub(crate) failed_starts: u32,
    pub(crate) head: Head,
    pub(crate) guest: Option<Box<dyn Guest>>,
    /// Ends a call of the guest.
    pub(crate) interrupt: Interrupt,
    /// What the guest reads its rows through.
    pub(crate) rows: Arc<Overlay>,
    pub(crate) prover: Prover,
    /// What lies behind the newest snapshot.
    pub(crate) tail: Tail,
}

impl Loaded {
    /// A chain on top of the head.
    pub(crate) fn chain(&self) -> Chain {
        Chain::new(self.author.clone(), &self.head, self.rows.clone())
    }
}

/// Where the jobs of a load run.
struct Seat<'a> {
    env: &'a AgentEnv,
    /// Who is noted as being loaded while one runs.
    agent: Option<&'a AgentId>,
    /// Set when no other guest may run meanwhile.
    alone: Option<Alone>,
}

impl Seat<'_> {
    async fn run<T: Send + 'static>(
        &self,
        plugin: Digest,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (notes, agent) = (self.env.load_notes.clone(), self.agent.cloned());
        let job = move || {
            // Only while it runs: what waits for a thread harms nobody.
            let noted = agent.map(|agent| Noted::new(notes, &agent));
            if noted.is_some() {
                failpoint::hit("load.after-noted");
            }
            job()
        };
        match &self.alone {
            Some(alone) => alone.run(job).await,
            None => self.env.pool.run(plugin, job).await,
        }
    }
}

/// Why an agent could not be loaded.
pub(crate) enum LoadFailure {
    /// It can't run until somebody acts.
    Broken(BrokenReason),
    /// As `Broken`, and another try now would be one too many.
    UsedUp(BrokenReason),
    /// It neither runs nor waits for anything.
    Resting,
    /// The lease is not ours any more.
    Lost,
    /// The store can't answer now.
    Store(StoreError),
}

impl From<StoreError> for LoadFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { what } => Self::Broken(BrokenReason::Corrupt { what }),
            StoreError::NoAgent | StoreError::NotHome { .. } | StoreError::Fenced { .. } => Self::Lost,
            other => Self::Store(other),
        }
    }
}

/// An agent as the store has it, sound and allowed to be loaded: all of it but the guest.
pub(crate) struct Opened {
    pub(crate) image: AgentImage,
    grant: Grant,
}

/// Reads an agent from the store under a grant.
pub(crate) async fn open(env: &AgentEnv, grant: Grant) -> Result<Opened, LoadFailure> {
    let agent = &grant.lease.agent;
    let image = match &grant.warm {
        Some(warm) => env.store.image_with(agent, warm.built_from.clone(), warm.state).await?,
        None => env.store.image(agent, None).await?,
    };
    let image = image.ok_or(LoadFailure::Lost)?;
    if !is_held(&image.row, &grant.lease) {
        return Err(LoadFailure::Lost);
    }
    match &image.row.lifecycle {
        Lifecycle::Broken(reason) => return Err(LoadFailure::Broken(reason.clone())),
        Lifecycle::Active | Lifecycle::Paused | Lifecycle::Retiring | Lifecycle::Retired => {}
        Lifecycle::Suspended(_) | Lifecycle::Deleted => return Err(LoadFailure::Resting),
    }
    image.check().map_err(|what| LoadFailure::Broken(BrokenReason::Corrupt { what }))?;
    if image.row.lifecycle == Lifecycle::Retired {
        return Err(LoadFailure::Resting);
    }
    Ok(Opened { image, grant })
}

impl Opened {
    /// Brings a guest to the head; `alone` is given when no other guest may run meanwhile.
    pub(crate) async fn load(self, env: &AgentEnv, alone: Option<Alone>) -> Result<Loaded, LoadFailure> {
        let Self { image, grant: Grant { lease, guard, warm } } = self;
        let agent = lease.agent.clone();
        let seat = Seat { env, agent: Some(&agent), alone };
        let plugin_version = ensure_plugin(&seat, &image).await?;
        let row = &image.row;
        let author = Author {
            owner: Owner {
                agent: agent.clone(),
                generation: row.generation,
                incarnation: lease.incarnation,
                token: lease.token,
            },
            host: env.host,
            plugin: image.spec.plugin,
            plugin_version,
            spec_revision: row.spec_revision,
            clock: env.clock.clone(),
        };
        let interrupt = warm.as_ref().map(|warm| warm.interrupt.clone()).unwrap_or_default();
        let committed = || Overlay::new(state_reader(env.store.clone(), agent.clone()));
        let rows = warm.as_ref().map_or_else(committed, |warm| warm.rows.clone());
        let request = guest_request(&image, guard.clone(), rows.clone(), interrupt.clone());
        let prover = Prover::new(env.loader.clone(), request.clone(), env.spares.clone());
        let last_token = image.receipts.last().map_or(row.token, |receipt| receipt.token);
        let head = Head {
            revision: row.revision,
            digest: row.head,
            next_seq: row.next_seq,
            time_ms: row.time_ms,
            token: last_token,
        };
        let (lifecycle, failed_starts) = (row.lifecycle.clone(), row.failed_starts);
        let (guest, tail) = rebuild_guest(&seat, request, image, warm).await?;
        Ok(Loaded {
            author: Arc::new(author),
            guard,
            lifecycle,
            failed_starts,
            head,
            guest: Some(guest),
            interrupt,
            rows,
            prover,
            tail,
        })
    }
}

/// Whether an agent's row names this lease.
pub(crate) fn is_held(row: &AgentRow, lease: &Lease) -> bool {
    let holds = row.holder.is_some_and(|holder| holder.incarnation == lease.incarnation);
    row.token == lease.token && holds
}

/// What a guest of an agent is started with.
pub fn guest_request(
    image: &AgentImage,
    guard: LeaseGuard,
    state: Arc<dyn StateRead>,
    interrupt: Interrupt,
) -> GuestRequest {
    GuestRequest {
        agent: image.row.agent.clone(),
        spec: Arc::new(image.spec.clone()),
        grants: image.plugin.iter().flat_map(|plugin| &plugin.grants).cloned().collect(),
        guard,
        state,
        interrupt,
    }
}

/// Makes sure that the plugin is compiled; its bytes come from the store.
async fn ensure_plugin(seat: &Seat<'_>, image: &AgentImage) -> Result<String, LoadFailure> {
    let digest = image.spec.plugin;
    let missing = |message: String| LoadFailure::Broken(BrokenReason::Plugin { message });
    let info = image.plugin.as_ref().ok_or_else(|| missing(format!("plugin {digest} is not stored")))?;
    match compile_on(seat, digest).await {
        Ok(()) => Ok(info.version.clone()),
        Err(Unloadable::Store(error)) => Err(error.into()),
        Err(Unloadable::Missing(message)) => Err(missing(message)),
    }
}

/// Why a plugin can't be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unloadable {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Missing(String),
}

/// Makes sure that a plugin is compiled; its bytes come from the store.
pub(crate) async fn ensure_loaded(env: &AgentEnv, digest: Digest) -> Result<(), Unloadable> {
    compile_on(&Seat { env, agent: None, alone: None }, digest).await
}

async fn compile_on(seat: &Seat<'_>, digest: Digest) -> Result<(), Unloadable> {
    let env = seat.env;
    if env.loader.is_loaded(digest) {
        return Ok(());
    }
    let component = env.store.component(digest).await?;
    let component = component
        .ok_or_else(|| Unloadable::Missing(format!("component of plugin {digest} is not stored")))?;
    let loader = env.loader.clone();
    let loaded = seat.run(digest, move || loader.load(&component)).await.map_err(|_| closing())?;
    loaded.map(drop).map_err(|error| Unloadable::Missing(error.to_string()))
}

/// Brings a guest to the head: a warm one that has the newest snapshot's state, or a new one.
async fn rebuild_guest(
    seat: &Seat<'_>,
    request: GuestRequest,
    image: AgentImage,
    warm: Option<WarmGuest>,
) -> Result<(Box<dyn Guest>, Tail), LoadFailure> {
    // Boundaries behind the snapshot that are no turns leave the state: the snapshot's revision names it (I9).
    let newest = image.snapshot.as_ref().map(|snapshot| (snapshot.revision, snapshot.state.len() as u64));
    let warm = warm.filter(|warm| {
        warm.is_of(image.snapshot.as_ref(), &image.spec) && warm.rebuilt.at <= image.row.revision
    });
    let (plugin, durability) = (image.spec.plugin, image.spec.durability);
    let (loader, clock) = (seat.env.loader.clone(), seat.env.clock.clone());
    let start = warm.map_or(Start::Cold(request), |warm| Start::Warm(warm.rebuilt));
    let job = move || rebuild((loader.as_ref(), clock.as_ref()), start, &image, image.row.revision);
    let rebuilt = seat.run(plugin, job).await.map_err(|_| LoadFailure::Store(closing()))?;
    let Rebuilt { guest, restore, turns, .. } = rebuilt.map_err(failure)?;
    let mut tail = Tail::new(durability, newest, restore);
    for (bytes, elapsed) in turns {
        tail.add_replayed(bytes, elapsed);
    }
    Ok((guest, tail))
}

/// Why a warm guest can't be brought to where its agent is.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// What the agent has done it does otherwise here.
    #[error("{0}")]
    Diverged(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Runs again, in a guest that is not the agent yet, what the agent has done since the snapshot that the guest is of. What can't be run
/// here, or does something else, is found so before anybody lets go of the agent. A guest of another snapshot than the newest, of an agent
/// that works meanwhile, stays as it is.
///
/// # Errors
/// `CatchUpError`; the guest is gone.
pub async fn catch_up(env: &AgentEnv, agent: &AgentId, warm: WarmGuest) -> Result<WarmGuest, CatchUpError> {
    let failed = |error: &dyn std::fmt::Display| CatchUpError::Failed(error.to_string());
    let image = env.store.image_with(agent, warm.built_from.clone(), warm.state).await;
    let image =
        image.map_err(|error| failed(&error))?.ok_or_else(|| failed(&"the agent is not in this store"))?;
    image.check().map_err(|what| failed(&what))?;
    if !warm.is_of(image.snapshot.as_ref(), &image.spec) || warm.rebuilt.at > image.row.revision {
        return Ok(warm);
    }
    let WarmGuest { rebuilt, built_from, state, spec, interrupt, rows } = warm;
    let (loader, clock) = (env.loader.clone(), env.clock.clone());
    let to = image.row.revision;
    let job = move || rebuild((loader.as_ref(), clock.as_ref()), Start::Warm(rebuilt), &image, to);
    let rebuilt = env.pool.run(spec.plugin, job).await.map_err(|error| failed(&error))?;
    let rebuilt = rebuilt.map_err(|error| match error {
        RebuildError::Diverged { .. } => CatchUpError::Diverged(error.to_string()),
        other => failed(&other),
    })?;
    Ok(WarmGuest { rebuilt, built_from, state, spec, interrupt, rows })
}

fn failure(error: RebuildError) -> LoadFailure {
    if error.is_for_want_of_room() {
        return LoadFailure::Store(StoreError::Busy);
    }
    match error {
        RebuildError::Stopped(_) | RebuildError::Restore(GuestError::Fenced | GuestError::Interrupted) => {
            LoadFailure::Lost
        }
        RebuildError::Restore(GuestError::StateRead(error)) => {
            LoadFailure::Store(StoreError::Closed { reason: error.reason })
        }
        RebuildError::Restore(other) => {
            LoadFailure::Broken(BrokenReason::Restore { message: other.to_string() })
        }
        RebuildError::Diverged { .. } => {
            LoadFailure::Broken(BrokenReason::Diverged { message: error.to_string() })
        }
    }
}

fn closing() -> StoreError {
    StoreError::Closed { reason: "the host is stopping".into() }
}

impl Head {
    /// The context outside a boundary, on top of this one.
    pub(crate) fn context(&self, owner: &Owner) -> TurnContext {
        outside_context(&owner.agent, owner.generation, self.token, self.revision, self.time_ms)
    }
}

/// The context of guest calls outside a boundary, on top of the one that `token`, `revision` and `time_ms` are of; the same
/// on every host.
pub fn outside_context(
    agent: &AgentId,
    generation: Generation,
    token: FencingToken,
    revision: Revision,
    time_ms: u64,
) -> TurnContext {
    let parts: [&[u8]; 4] = [
        b"godwit outside a boundary",
        agent.as_str().as_bytes(),
        &generation.0.to_be_bytes(),
        &revision.0.to_be_bytes(),
    ];
    TurnContext {
        generation,
        token,
        revision,
        attempt: 1,
        now_ms: time_ms,
        seed: Digest::of_parts(parts).0,
        answers: Answers::Forget,
    }
}

/// Serves a guest's `state` reads from the store. Must be made inside a tokio runtime; reads block the calling thread.
pub fn state_reader(store: Arc<dyn RuntimeStore>, agent: AgentId) -> Arc<dyn StateRead> {
    Arc::new(StoreReader { store, agent, runtime: tokio::runtime::Handle::current() })
}

struct StoreReader {
    store: Arc<dyn RuntimeStore>,
    agent: AgentId,
    runtime: tokio::runtime::Handle,
}

impl StoreReader {
    fn wait<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StateReadError> {
        let wait = || self.runtime.block_on(async { within(STATE_READ_MAX, read).await });
        // The turn may have stayed on a thread of the runtime.
        match tokio::task::block_in_place(wait) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(StateReadError { reason: error.to_string() }),
            None => Err(StateReadError { reason: "no answer within 250 ms".into() }),
        }
    }
}

impl StateRead for StoreReader {
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError> {
        self.wait(self.store.state_value(&self.agent, key))
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError> {
        self.wait(self.store.state_keys(&self.agent, prefix, after, limit))
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        let timers = self.wait(self.store.timers(&self.agent))?;
        Ok(timers.into_iter().map(|timer| timer.name).collect())
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        let operations = self.wait(self.store.operations(&self.agent))?;
        Ok(operations.iter().map(StoredOperation::id).collect())
    }

    fn channels(&self, only: Option<&ChannelName>) -> Result<Vec<ChannelView>, StateReadError> {
        self.wait(self.store.channels(&self.agent, only))
    }

    fn subscribers(&self, channel: &ChannelName) -> Result<Vec<AgentId>, StateReadError> {
        let subscribers = self.wait(self.store.subscribers(&self.agent, channel, None, SUBSCRIBERS_MAX))?;
        Ok(subscribers.into_iter().map(|subscriber| subscriber.agent).collect())
    }

    fn subscriptions(&self) -> Result<Vec<Subscription>, StateReadError> {
        self.wait(self.store.subscriptions(&self.agent))
    }

    fn waiting(&self, receiver: &AgentId) -> Result<u64, StateReadError> {
        self.wait(self.store.waiting(&self.agent, receiver))
    }

    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError> {
        let key = self.wait(async {
            match self.store.entity_key(&self.agent).await {
                Err(error @ (StoreError::Conflict { .. } | StoreError::Corrupt { .. })) => {
                    tracing::warn!(agent = %self.agent, %error, "the agent can't sign here");
                    Ok(None)
                }
                read => read,
            }
        })?;
        Ok(key)
    }
}
