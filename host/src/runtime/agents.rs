//! Creating, showing and listing agents and hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use godwit_core::failpoint;
use godwit_core::group;
use godwit_core::id::{AgentId, ClaimId, HostId};
use godwit_core::placement::{Offer, RESIDENCY_LABEL, Wants};
use godwit_core::reconcile::{Desired, RESERVED_LABEL};
use godwit_core::spec::{Spec, SpecPatch, check_pairs};
use godwit_core::standby;
use godwit_core::store::{AgentRow, Home, Lifecycle, NewAgent, SessionRow, StoreError};
use serde::{Deserialize, Serialize};

use super::call::{AgentView, CallError};
use super::routing::store_error;
use super::wire::{ClaimAnswer, PeerAnswer, PeerRequest};
use super::{Runtime, idle};

/// How long a peer may take to say its name.
const HELLO_MAX: Duration = Duration::from_secs(1);

/// How long a peer may take to say whether an id is free: well within the life of a claim.
const CLAIM_ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long another host may take to create an agent: it asks all its peers about the id.
const CREATE_MAX: Duration = Duration::from_secs(10);

/// An agent to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateAgent {
    /// Its name.
    pub agent: AgentId,
    /// `NAME`, `NAME@VERSION`, or a digest.
    pub plugin: String,
    /// For people and selections.
    pub labels: BTreeMap<String, String>,
    /// What else is said of it.
    pub patch: SpecPatch,
    /// Whether one of this name that was deleted is made anew.
    pub recreates: bool,
    /// Whether it is made though peers that may have one of this name do not answer.
    pub is_forced: bool,
}

impl CreateAgent {
    /// One of which nothing is said but its plugin.
    pub fn new(agent: AgentId, plugin: impl Into<String>) -> Self {
        let plugin = plugin.into();
        let (labels, patch) = (BTreeMap::new(), SpecPatch::default());
        Self { agent, plugin, labels, patch, recreates: false, is_forced: false }
    }
}

/// A host as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its key.
    pub id: HostId,
    /// For people; empty while it has not answered.
    pub name: String,
    /// Whether it is the answering host.
    pub is_self: bool,
    /// Where its HTTP API listens, when it has said so.
    pub api: Option<SocketAddr>,
    /// Where its mesh listens.
    pub mesh: SocketAddr,
    /// `ready` or `unreachable`.
    pub state: String,
    /// What it offers, when it has said so.
    pub offer: Option<Offer>,
    /// The release of its program, when it has said so: hosts of protocol version 1 don't.
    pub release: Option<String>,
}

impl Runtime {
    /// Creates an agent at home here; the same content again is success. Answers whether it is new.
    ///
    /// # Errors
    /// `NoSuch` for an unknown plugin, `Conflict` when the id has another spec or is a peer's, `PeersSilent` when a peer that
    /// might have it does not answer, `Invalid` when the config or labels are too large, `Deleted` when one of this name was
    /// deleted and the request does not say `recreates`.
    pub async fn create_agent(&self, request: CreateAgent) -> Result<(AgentView, bool), CallError> {
        check_sizes(&request.patch, &request.labels)?;
        check_labels(&request.labels)?;
        let plugin = self.plugin(&request.plugin).await?.digest;
        let spec = request.patch.clone().apply(&Spec::new(plugin));
        let labels = request.labels.clone();
        let agent = request.agent.clone();
        let created = self.create_as(request, Desired { spec, labels }).await?;
        if created.1 {
            self.inner().hooks.post_spawn(vec![agent]);
        }
        Ok(created)
    }

    /// As `create_agent`, at home on the host named so (as for `find_host`, or `self`). Its plugin, which this host may find by
    /// name, must be loaded there.
    ///
    /// # Errors
    /// As `create_agent`; `Unknown` when that host has not answered: the same again is no error.
    pub async fn create_agent_on(
        &self,
        host: &str,
        request: CreateAgent,
    ) -> Result<(AgentView, bool), CallError> {
        let own = self.inner().host;
        let host = if host == "self" { own } else { self.find_host(host).await? };
        if host == own {
            return self.create_agent(request).await;
        }
        // All that are created through one host have one plugin, whatever others mean by the name.
        let plugin = self.plugin(&request.plugin).await?.digest.to_string();
        let request = Box::new(CreateAgent { plugin, ..request });
        match self.ask_peer(host, &PeerRequest::Create { request }, CREATE_MAX).await {
            Ok(PeerAnswer::Created(created)) => *created,
            Ok(PeerAnswer::Malformed { reason } | PeerAnswer::NotNow { reason, .. }) => {
                Err(CallError::Unavailable { reason })
            }
            Ok(_) => Err(CallError::Unknown { reason: format!("host {host} gave another kind of answer") }),
            Err(error) => Err(CallError::Unknown { reason: error.to_string() }),
        }
    }

    /// As `create_agent`, of exactly this.
    pub(super) async fn create_as(
        &self,
        request: CreateAgent,
        desired: Desired,
    ) -> Result<(AgentView, bool), CallError> {
        let _inside = self.admit()?;
        let CreateAgent { agent, recreates, is_forced, .. } = request;
        let Desired { spec, labels } = desired;
        let known = self.inner().store.agent(&agent).await.map_err(store_error)?;
        if let Some(Home::Moved(tombstone)) = known.as_ref().map(|row| &row.home) {
            let host = tombstone.target;
            return Err(CallError::Conflict { what: format!("agent {agent} has moved to host {host}") });
        }
        let recreates = recreates && known.as_ref().is_some_and(|row| row.lifecycle == Lifecycle::Deleted);
        let is_made = known.is_none() || recreates;
        let wants = Wants::of(&spec, &labels);
        let may_take = || match self.inner().placement.may_take(&wants) {
            Err(why) if is_made => {
                Err(CallError::Conflict { what: format!("agent {agent} can't be created here: {why}") })
            }
            _ => Ok(()),
        };
        may_take()?;
        // The store looks at it only if the agent is not there by then.
        let claim = ClaimId::generate(self.now_ms(), self.inner().clock.random());
        if known.is_none() {
            self.claim(&agent, claim, is_forced).await?;
        }
        // Peers have taken their time: what empties this host since has not seen it.
        may_take()?;
        let new = NewAgent { agent: agent.clone(), spec, labels, now_ms: self.now_ms(), claim: Some(claim) };
        let store = &self.inner().store;
        let created = if recreates { store.recreate(new).await } else { store.create(new).await };
        let is_new = created.map_err(store_error)?;
        failpoint::hit("agent.after-create");
        let row = self.inner().store.agent(&agent).await.map_err(store_error)?;
        let row = row.ok_or(CallError::NotFound { agent })?;
        Ok((self.view(&row).await?, is_new))
    }

    /// Claims an id for an agent that is about to be created, or to come from an archive: one id, one agent per mesh. Of two hosts
    /// that claim it at the same moment each hears of the other's claim, and the lower one's stands.
    pub(super) async fn claim(
        &self,
        agent: &AgentId,
        claim: ClaimId,
        is_forced: bool,
    ) -> Result<(), CallError> {
        self.inner().store.claim(agent, self.inner().host, claim).await.map_err(store_error)?;
        failpoint::hit("agent.after-claim");
        let peers = self.inner().mesh.peers();
        // Hosts of the same store know no more than it does.
        let others = peers.into_iter().filter(|peer| !self.inner().hints.is_store_mate(peer.host));
        let asked = others.map(|peer| async move {
            let request = PeerRequest::Claim { agent: agent.clone() };
            (peer.host, self.ask_peer(peer.host, &request, CLAIM_ANSWER_MAX).await)
        });
        let mut silent = 0;
        for (peer, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(PeerAnswer::Claim(ClaimAnswer::Free)) => {}
                Ok(PeerAnswer::Claim(ClaimAnswer::Taken { host })) => {
                    self.inner().hints.learn(agent, host);
                    return Err(CallError::Conflict { what: format!("agent {agent} exists on host {host}") });
                }
                Ok(PeerAnswer::Claim(ClaimAnswer::Claimed { host })) => {
                    return Err(CallError::Claimed { agent: agent.clone(), host });
                }
                Ok(_) | Err(_) => {
                    tracing::debug!(%agent, %peer, "no answer about the id");
                    silent += 1;
                }
            }
        }
        if silent > 0 && !is_forced {
            return Err(CallError::PeersSilent { agent: agent.clone(), silent });
        }
        Ok(())
    }

    /// What this host says when a peer is about to create an agent.
    pub(crate) async fn on_claim(&self, agent: &AgentId, by: HostId) -> Result<ClaimAnswer, StoreError> {
        let host = self.inner().host;
        if let Some(row) = self.inner().store.agent(agent).await? {
            return Ok(match row.home {
                Home::Moved(tombstone) => ClaimAnswer::Taken { host: tombstone.target },
                Home::Here | Home::HandingOff { .. } | Home::Prepared { .. } => ClaimAnswer::Taken { host },
            });
        }
        Ok(match self.inner().store.yield_claims(agent, by).await? {
            Some(host) => ClaimAnswer::Claimed { host },
            // It may have been created between the two looks; then its claim went, and it is here now.
            None => match self.inner().store.agent(agent).await? {
                Some(_) => ClaimAnswer::Taken { host },
                None => ClaimAnswer::Free,
            },
        })
    }

    /// Agents at home in this host's store, after an id.
    ///
    /// # Errors
    /// As the store's.
    pub async fn agents(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentView>, CallError> {
        let mut views = Vec::new();
        let mut after = after.cloned();
        while views.len() < limit {
            let rows = self.inner().store.agents(after.as_ref(), limit).await.map_err(store_error)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.agent.clone());
            for row in rows.iter().filter(|row| !matches!(row.home, Home::Moved(_))) {
                views.push(self.view(row).await?);
            }
        }
        views.truncate(limit);
        Ok(views)
    }

    /// How an agent stands, in a word.
    pub(super) fn state_of(&self, row: &AgentRow) -> &'static str {
        match (&row.home, &row.lifecycle) {
            (Home::Here, _) if self.check_not_held(&row.agent).is_err() => "held",
            (Home::HandingOff { .. }, _) => "handing_off",
            (Home::Prepared { .. }, _) => "prepared",
            (Home::Moved(_), _) => "moved",
            (Home::Here, Lifecycle::Active) if self.inner().directory.handle(&row.agent).is_none() => {
                "dormant"
            }
            (Home::Here, lifecycle) => lifecycle.name(),
        }
    }

    pub(crate) async fn view(&self, row: &AgentRow) -> Result<AgentView, CallError> {
        let state = self.state_of(row);
        let held = self.check_not_held(&row.agent).err();
        let broken = match &row.lifecycle {
            Lifecycle::Broken(reason) if row.home == Home::Here => Some(reason.clone()),
            _ => None,
        };
        let plugin = self.plugin_info(row.plugin).await?;
        let lease_ms = match (row.holder, self.session().profile) {
            (Some(holder), Some(_)) => {
                let sessions = self.inner().store.sessions().await.map_err(store_error)?;
                let holds = |session: &&SessionRow| session.incarnation == holder.incarnation;
                let remaining = sessions.iter().find(holds).and_then(|session| session.remaining);
                remaining.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
            }
            _ => None,
        };
        Ok(AgentView {
            id: row.agent.clone(),
            state: state.to_owned(),
            host: row.holder.map(|holder| holder.host),
            home: self.inner().host,
            token: row.token,
            lease_ms,
            generation: row.generation,
            revision: row.revision,
            spec_revision: row.spec_revision,
            plugin: row.plugin,
            plugin_name: plugin.as_ref().map_or_else(String::new, |plugin| plugin.name.clone()),
            plugin_version: plugin.map_or_else(String::new, |plugin| plugin.version),
            public_key: row.public_key,
            labels: row.labels.clone(),
            queue_depth: row.open_inputs,
            last_receipt: row.head,
            broken,
            created_at_ms: row.created_at_ms,
            stuck: held.map(|held| held.to_string()).or_else(|| self.inner().watchdog.reason(&row.agent)),
        })
    }

    /// This host, the others on its store, and its peers.
    ///
    /// # Errors
    /// As the store's.
    pub async fn hosts(&self) -> Result<Vec<HostView>, CallError> {
        let inner = self.inner();
        let mut views: BTreeMap<HostId, HostView> = BTreeMap::new();
        for session in inner.store.sessions().await.map_err(store_error)? {
            views.insert(session.host, session_view(&session, inner.host));
        }
        let unknown: Vec<_> =
            self.peers().into_iter().filter(|peer| !views.contains_key(&peer.host)).collect();
        let asked = unknown.into_iter().map(|peer| async move {
            let hello = self.ask_peer(peer.host, &PeerRequest::Hello, HELLO_MAX).await;
            let (name, api, release, state) = match hello {
                Ok(PeerAnswer::Hello { name, api }) => (name, Some(api), None, "ready"),
                Ok(PeerAnswer::Introduction { name, api, release }) => {
                    (name, Some(api), Some(release), "ready")
                }
                _ => (String::new(), None, None, "unreachable"),
            };
            let (id, mesh, state) = (peer.host, peer.address, state.to_owned());
            HostView { id, name, is_self: false, api, mesh, state, offer: None, release }
        });
        for view in futures::future::join_all(asked).await {
            views.insert(view.id, view);
        }
        Ok(views.into_values().collect())
    }

    /// Agents that this host's store has. Those that were deleted are a trace, and no load.
    pub(super) async fn count_agents(&self) -> Result<u64, CallError> {
        let mut count = 0;
        let mut after = None;
        loop {
            let rows = self.inner().store.agents(after.as_ref(), godwit_core::limits::PAGE_MAX).await;
            let rows = rows.map_err(store_error)?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = Some(last.agent.clone());
            let is_there = |row: &&AgentRow| row.home == Home::Here && row.lifecycle != Lifecycle::Deleted;
            count += rows.iter().filter(is_there).count() as u64;
        }
    }

    /// Finds a host by key, unique key prefix, or name.
    ///
    /// # Errors
    /// `NoSuch` when none fits or several do.
    pub(crate) async fn find_host(&self, text: &str) -> Result<HostId, CallError> {
        let hosts = self.hosts().await?;
        let by_name: Vec<_> = hosts.iter().filter(|host| host.name == text).collect();
        let is_hex = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let by_key: Vec<_> =
            hosts.iter().filter(|host| is_hex && host.id.to_string().starts_with(text)).collect();
        match (by_name.as_slice(), by_key.as_slice()) {
            ([host], _) | ([], [host]) => Ok(host.id),
            ([], []) => {
                Err(CallError::NoSuch { what: format!("host {text}: it is no name or key of a peer") })
            }
            _ => Err(CallError::NoSuch {
                what: format!("single host {text}: several fit, give the whole key"),
            }),
        }
    }
}

fn session_view(session: &SessionRow, own: HostId) -> HostView {
    HostView {
        id: session.host,
        name: session.name.clone(),
        is_self: session.host == own,
        api: Some(session.api),
        mesh: session.mesh,
        state: "ready".to_owned(),
        offer: None,
        release: (session.host == own).then(|| env!("CARGO_PKG_VERSION").to_owned()),
    }
}

/// Refuses what is larger than a spec and labels may be.
pub(super) fn check_sizes(patch: &SpecPatch, labels: &BTreeMap<String, String>) -> Result<(), CallError> {
    let checked = patch.check().and_then(|()| check_pairs("label", labels));
    checked.map_err(|error| CallError::Invalid { reason: error.to_string() })
}

/// Refuses labels that only the host sets, and values that the host can't follow.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), CallError> {
    idle::allowed(labels).map_err(|reason| CallError::Invalid { reason })?;
    group::of(labels).map_err(|error| CallError::Invalid { reason: error.to_string() })?;
    standby::of(labels)
        .map_err(|error| CallError::Invalid { reason: format!("label {}: {error}", standby::LABEL) })?;
    match labels.keys().find(|name| is_reserved(name)) {
        None => Ok(()),
        Some(name) => {
            let reason = format!("label {name}: names that begin with `{RESERVED_LABEL}` are the host's own");
            Err(CallError::Invalid { reason })
        }
    }
}

/// Whether only the host sets a label.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_LABEL) && name != RESIDENCY_LABEL
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        store_error(error)
    }
}
