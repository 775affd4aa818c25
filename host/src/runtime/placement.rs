//! What this host offers to agents, and what is asked of a host as a whole: to take no more agents, to send its own away, or
//! to share them out. Any host can be asked; the one that is meant does it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use godwit_core::id::HostId;
use godwit_core::migration::Refusal;
use godwit_core::placement::{Offer, Unmet, Wants};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::agents::HostView;
use super::call::CallError;
use super::counts::HostCounts;
use super::drain::{Drain, DrainView, Plan};
use super::wire::{PeerAnswer, PeerRequest};

/// How long a host may take to say what it offers: it counts its agents.
const OFFER_MAX: Duration = Duration::from_secs(3);
/// How long a host may take over what it is asked for as a whole: a plan looks at each of its agents.
const HOST_CALL_MAX: Duration = Duration::from_secs(30);

/// What a host takes and sends away.
pub(crate) struct Placement {
    capabilities: BTreeMap<String, String>,
    /// Until it is taken back, or the process ends.
    is_cordoned: AtomicBool,
    /// The last drain or rebalance, which may be running.
    pub(super) last: Mutex<Option<Drain>>,
}

impl Placement {
    pub(crate) fn new(capabilities: BTreeMap<String, String>) -> Self {
        Self { capabilities, is_cordoned: AtomicBool::new(false), last: Mutex::new(None) }
    }

    pub(crate) fn is_cordoned(&self) -> bool {
        self.is_cordoned.load(Ordering::Relaxed)
    }

    /// Whether this host may be given an agent that wants this.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_take(&self, wants: &Wants) -> Result<(), Unfit> {
        if self.is_cordoned() {
            return Err(Unfit::Cordoned);
        }
        self.may_keep(wants)
    }

    /// As `may_take`, of one that is here.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_keep(&self, wants: &Wants) -> Result<(), Unfit> {
        wants.unmet(&self.capabilities).map_or(Ok(()), |unmet| Err(Unfit::Unmet(unmet)))
    }
}

/// Why this host takes no agent, or not this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the host is cordoned: it takes no more agents")]
    Cordoned,
    #[error("{0}, which this host does not offer")]
    Unmet(Unmet),
}

impl Unfit {
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Cordoned => Refusal::Cordoned,
            Self::Unmet(Unmet::Requirement { .. }) => Refusal::Requirements,
            Self::Unmet(Unmet::Residency { .. }) => Refusal::Policy,
        }
    }
}

/// Which agents of a host are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exodus {
    /// All: the host is emptied.
    Drain,
    /// So many that no other host has fewer by more than one.
    Rebalance,
}

/// What is asked of a host as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostCall {
    /// Take no more agents, or take some again.
    Cordon(bool),
    /// Say where agents would go.
    Plan(Exodus),
    /// Send them there. A host that is drained is cordoned first.
    Begin(Exodus),
    /// How far the last one is.
    Progress,
    /// Say what you have.
    Counts,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostReply {
    /// To `Cordon`.
    Offer(Offer),
    /// To `Plan`.
    Plan(Plan),
    /// To `Begin` and `Progress`; `None` when nothing was begun since the start.
    Progress(Option<DrainView>),
    /// To `Counts`.
    Counts(HostCounts),
}

impl Runtime {
    /// What this host offers.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn offer(&self) -> Result<Offer, CallError> {
        let placement = &self.inner().placement;
        let agents = match self.session().profile {
            // Those of a shared store are everybody's; those that it runs are its own.
            Some(_) => self.inner().directory.owned_count() as u64,
            None => self.count_agents().await?,
        };
        let (capabilities, is_cordoned) = (placement.capabilities.clone(), placement.is_cordoned());
        Ok(Offer { capabilities, is_cordoned, agents })
    }

    /// What those of all other hosts offer that answer.
    pub(super) async fn offers_of_others(&self) -> BTreeMap<HostId, Offer> {
        self.offers_of(self.inner().mesh.peers().into_iter().map(|peer| peer.host)).await
    }

    async fn offers_of(&self, hosts: impl Iterator<Item = HostId>) -> BTreeMap<HostId, Offer> {
        let asked = hosts.map(|host| async move {
            match self.ask_peer(host, &PeerRequest::Offer, OFFER_MAX).await {
                Ok(PeerAnswer::Offer(offer)) => Some((host, offer)),
                _ => None,
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Asks a host, named as in `find_host`, or `self`.
    ///
    /// # Errors
    /// `NoSuch` when no host fits; `Unknown` when a host that was to do something has not answered; as the call otherwise.
    pub async fn call_host(&self, host: &str, call: HostCall) -> Result<HostReply, CallError> {
        let own = self.inner().host;
        let host = if host == "self" { own } else { self.find_host(host).await? };
        if host == own {
            return self.on_host_call(call).await;
        }
        let answer = self.ask_peer(host, &PeerRequest::Host { call }, HOST_CALL_MAX).await;
        let silent = |reason: String| match call {
            HostCall::Plan(_) | HostCall::Progress | HostCall::Counts => CallError::Unavailable { reason },
            HostCall::Cordon(_) | HostCall::Begin(_) => CallError::Unknown { reason },
        };
        match answer {
            Ok(PeerAnswer::Host(answer)) => *answer,
            Ok(PeerAnswer::Malformed { reason } | PeerAnswer::NotNow { reason, .. }) => {
                Err(CallError::Unavailable { reason })
            }
            Ok(_) => Err(silent(format!("host {host} gave another kind of answer"))),
            Err(error) => Err(silent(error.to_string())),
        }
    }

    /// Does what is asked of this host.
    pub(crate) async fn on_host_call(&self, call: HostCall) -> Result<HostReply, CallError> {
        let _inside = self.admit()?;
        match call {
            HostCall::Cordon(is_cordoned) => {
                self.set_cordoned(is_cordoned);
                Ok(HostReply::Offer(self.offer().await?))
            }
            HostCall::Plan(exodus) => Ok(HostReply::Plan(self.plan_exodus(exodus).await?)),
            HostCall::Begin(exodus) => Ok(HostReply::Progress(Some(self.begin_exodus(exodus).await?))),
            HostCall::Progress => Ok(HostReply::Progress(self.exodus_progress())),
            HostCall::Counts => Ok(HostReply::Counts(self.counts().await?)),
        }
    }

    pub(super) fn set_cordoned(&self, is_cordoned: bool) {
        let was = self.inner().placement.is_cordoned.swap(is_cordoned, Ordering::Relaxed);
        if was != is_cordoned {
            tracing::info!(is_cordoned, "what new agents find here has changed");
        }
    }

    /// Adds what each host that answers offers.
    pub(crate) async fn with_offers(&self, mut views: Vec<HostView>) -> Result<Vec<HostView>, CallError> {
        // Who has just not said hello is not asked again.
        let others = views.iter().filter(|view| !view.is_self && view.state == "ready").map(|view| view.id);
        let mut offers = self.offers_of(others).await;
        offers.insert(self.inner().host, self.offer().await?);
        for view in &mut views {
            view.offer = offers.remove(&view.id);
        }
        Ok(views)
    }
}
