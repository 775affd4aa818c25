//! A whole runtime in this process, as an embedder has one: all of the product but HTTP and its process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::future::try_join_all;
use godwit::identity::HostKey;
use godwit::runtime::agents::CreateAgent;
use godwit::runtime::call::{AgentCall, AgentReply, Submission};
use godwit::runtime::plugins::PluginLabel;
use godwit::runtime::routing::Forward;
use godwit::runtime::{Parts, PeerDoor, Runtime, RuntimeConfig};
use godwit_core::agent::MemoryNotes;
use godwit_core::id::AgentId;
use godwit_core::input::{Kind, Mode, Outcome, Source};
use godwit_core::lease::LeaseProfile;
use godwit_core::limits::{ASK_TIMEOUT_DEFAULT, INPUTS_KEPT};
use godwit_core::time::{Clock, SystemClock};
use godwit_engine::{Engine, EngineConfig};
use godwit_mesh::{IrohMesh, MeshConfig};
use godwit_store::{SqliteMode, SqliteStore};

use crate::product;

/// Guests at a time; a quarter more have room beside them.
const RESIDENT_MAX: usize = 1_500;
const GUESTS_MAX: u32 = 2_048;
/// As many as a host has by itself.
const GUEST_THREADS: usize = 8;
/// No agent parks by itself while it is measured.
const PARK_AFTER: Duration = Duration::from_secs(3_600);
/// Agents that are set up at the same time.
const LANES: usize = 16;

/// A running runtime, and its store.
pub(crate) struct Inside {
    pub(crate) runtime: Runtime,
    store: Arc<SqliteStore>,
}

impl Inside {
    /// Starts one with its data in `directory`, the store in `file`.
    ///
    /// # Errors
    /// When a part does not start.
    pub(crate) async fn start(directory: &Path, file: &Path) -> Result<Self> {
        let key = HostKey::load_or_create(&directory.join("data"))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = SqliteStore::open(file, SqliteMode::Exclusive, clock.clone())?;
        let engine =
            Engine::new(EngineConfig { cache_dir: directory.join("cache"), resident_max: GUESTS_MAX })?;
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let door = PeerDoor::default();
        let mesh = MeshConfig { secret_key: key.secret(), listen: nowhere, peers: Vec::new() };
        let mesh = IrohMesh::start(mesh, Arc::new(door.clone())).await?;
        let config = RuntimeConfig {
            host: key.id(),
            name: product::AGENT.into(),
            api: nowhere,
            carries_identity: true,
            takes_only_expected: false,
            arrival_rules: Vec::new(),
            delta_bytes_max: godwit_core::limits::DELTA_BYTES_MAX,
            capabilities: Default::default(),
            lease_profile: LeaseProfile::NORMAL,
            resident_max: RESIDENT_MAX,
            guest_threads: GUEST_THREADS,
            park_after: PARK_AFTER,
            inputs_kept: INPUTS_KEPT,
            receipts_kept: None,
            operations: Default::default(),
            scratch: None,
            needs_edges: false,
            secrets: Default::default(),
        };
        let loader = Arc::new(engine);
        let parts = Parts {
            store: store.clone(),
            loader,
            mesh,
            clock,
            peer_book: None,
            signer: None,
            unsealer: None,
            load_notes: Arc::new(MemoryNotes::default()),
            head: None,
            roster: Default::default(),
            hooks: Default::default(),
        };
        Ok(Self { runtime: Runtime::start(config, parts, &door).await?, store })
    }

    /// Stops it and closes the store.
    pub(crate) async fn stop(self) {
        self.runtime.stop().await;
        self.store.close().await;
    }
}

/// Makes agents of a component, unless they are there, and asks each `first`.
///
/// # Errors
/// When the runtime refuses.
pub(crate) async fn populate(
    runtime: &Runtime,
    plugin: &str,
    component: Bytes,
    agents: &[AgentId],
    first: &str,
) -> Result<()> {
    let label =
        PluginLabel { name: Some(plugin.into()), version: Some(product::VERSION.into()), manifest: None };
    runtime.load_plugin(component, label).await?;
    let lanes = agents.chunks(agents.len().div_ceil(LANES).max(1));
    try_join_all(lanes.map(|lane| async move {
        for agent in lane {
            runtime.create_agent(CreateAgent::new(agent.clone(), plugin)).await?;
            ask(runtime, agent, first).await?;
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    Ok(())
}

/// Asks as the HTTP API does. Answers the reply's text.
///
/// # Errors
/// When there is no reply.
pub(crate) async fn ask(runtime: &Runtime, agent: &AgentId, payload: &str) -> Result<String> {
    let submission = Submission {
        id: runtime.new_input_id(),
        kind: Kind::Message,
        source: Source::External { name: "http".into() },
        content_type: "text/plain".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        headers: Vec::new(),
        idempotency_key: None,
        mode: Mode::Default,
        is_silent: false,
        supersedes: None,
        traceparent: None,
        correlation: None,
        is_dispatched: false,
    };
    let timeout_ms = u64::try_from(ASK_TIMEOUT_DEFAULT.as_millis())?;
    let called = runtime.call(agent, AgentCall::Ask { submission, timeout_ms }, Forward::Yes).await;
    match called.with_context(|| format!("{agent} was not asked"))?.reply {
        AgentReply::Asked(asked) => match asked.outcome {
            Outcome::Committed { reply, .. } => product::text(&reply),
            other => bail!("{payload:?} was not answered: {other:?}"),
        },
        other => bail!("{payload:?} was not answered: {other:?}"),
    }
}
