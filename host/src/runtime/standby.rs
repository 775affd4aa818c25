//! Warm copies of agents on hosts with stores of their own (`core::standby`): this host's agents copied to others (`source`), others'
//! agents copied here (`copies`), and a copy that becomes the agent (`promote`).
//!
//! A host that starts does not know whether one of its guarded agents was promoted while it was away. Those are *held*: not run, and
//! nothing is accepted for them, until the standby has said so, or an operator has given it up. Hosts that share a store need none
//! of this: there the lease says who has an agent.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, HostId, MigrationId, Revision};
use godwit_core::lifecycle::Lifecycle;
use godwit_core::mesh::MeshError;
use godwit_core::standby::{LABEL, of};
use godwit_core::store::{AgentRow, BrokenReason, Home, StoreError};
use godwit_core::time::within;
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::{AgentReply, CallError};
use super::routing::store_error;
use super::wire::{PeerAnswer, PeerRequest, StandbyAnswer, StandbyMessage};

mod copies;
mod promote;
mod source;

pub use promote::Promoted;
pub(crate) use source::feed;

/// Longest one message to a standby and its answer may take.
const MESSAGE_MAX: Duration = Duration::from_secs(3);
/// Pause before a standby that did not answer is asked again about agents that are held.
const HELD_RETRY: Duration = Duration::from_millis(500);
/// Standbys that are asked about held agents at the same time.
const HELD_ASKED_AT_ONCE: usize = 8;
/// Agents read at once.
const AGENTS_AT_ONCE: usize = 256;

/// What this host knows of copies, beside what its store says.
#[derive(Default)]
pub(crate) struct Standbys {
    /// Agents at home here, or bound here by a migration, that may have been promoted elsewhere, and where.
    held: Mutex<BTreeMap<AgentId, HostId>>,
    /// Agents that are copied now, and how far that is.
    fed: Mutex<BTreeMap<AgentId, Fed>>,
    /// Whole copies that arrive.
    arriving: Mutex<BTreeMap<MigrationId, copies::Arriving>>,
}

/// How far the copy of an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Fed {
    /// The last round that the standby has acknowledged.
    round: Option<LastRound>,
    trouble: Option<String>,
}

/// The last round that a standby has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRound {
    /// The session that it was of.
    pub session: MigrationId,
    /// The change number that the copy is as of.
    pub change: u64,
    /// The head's revision then.
    pub revision: Revision,
    /// Wall time in Unix milliseconds.
    pub at_ms: u64,
}

/// What is asked about an agent's standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StandbyCall {
    /// How is it?
    Show,
    /// Keep a copy on this host: a name, a key, or a unique prefix of a key.
    On {
        /// Which.
        host: String,
    },
    /// Keep none.
    Off {
        /// Also while the agent is held, or its standby does not answer: whatever that may have made of its copy.
        is_forced: bool,
    },
}

/// An agent's standby as its home sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyView {
    /// Which agent.
    pub agent: AgentId,
    /// Which host keeps the copy; `None` when none does.
    pub standby: Option<HostId>,
    /// Whether the agent waits for the standby's word before it runs.
    pub is_held: bool,
    /// What the standby has acknowledged since this host started; `None` before the first copy is whole.
    pub round: Option<LastRound>,
    /// Boundaries that the copy does not have.
    pub lag_revisions: Option<u64>,
    /// Changes of rows that the copy does not have.
    pub lag_changes: Option<u64>,
    /// Why no copy is made, or the last one was not.
    pub trouble: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Standbys {
    /// The standby whose word an agent at home here waits for.
    pub(crate) fn holder_of(&self, agent: &AgentId) -> Option<HostId> {
        lock(&self.held).get(agent).copied()
    }

    fn release(&self, agent: &AgentId) {
        lock(&self.held).remove(agent);
    }
}

impl Runtime {
    /// Refuses what must not happen to an agent that may live elsewhere.
    ///
    /// # Errors
    /// `Unavailable`: nothing was done.
    pub(crate) fn check_not_held(&self, agent: &AgentId) -> Result<(), CallError> {
        match self.inner().standbys.holder_of(agent) {
            None => Ok(()),
            Some(standby) => Err(CallError::Unavailable { reason: held(agent, standby) }),
        }
    }

    /// As `check_not_held`, in the words of a store.
    pub(crate) fn check_may_own(&self, agent: &AgentId) -> Result<(), StoreError> {
        match self.inner().standbys.holder_of(agent) {
            None => Ok(()),
            Some(standby) => Err(StoreError::Closed { reason: held(agent, standby) }),
        }
    }

    /// Notes which agents may have been promoted while this host was away. Done before anybody is served.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn hold_guarded(&self) -> Result<(), StoreError> {
        let mut after: Option<AgentId> = None;
        loop {
            let rows = self.inner().store.guarded(after.as_ref(), AGENTS_AT_ONCE).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.agent.clone());
            let mut held = lock(&self.inner().standbys.held);
            for row in rows {
                if let Some(standby) = self.standby_of_any(&row) {
                    held.insert(row.agent, standby);
                }
            }
        }
    }

    /// The other host that is to keep a copy of an agent at home here, with a store of its own.
    fn standby_of(&self, row: &AgentRow) -> Option<HostId> {
        self.standby_of_any(row).filter(|_| row.home == Home::Here)
    }

    /// As `standby_of`, also of an agent on its way out or in: it may come to be at home here.
    fn standby_of_any(&self, row: &AgentRow) -> Option<HostId> {
        let ends = [Lifecycle::Deleted, Lifecycle::Broken(BrokenReason::Forked)];
        let is_kept = !matches!(row.home, Home::Moved(_)) && !ends.contains(&row.lifecycle);
        let standby = of(&row.labels).ok().flatten().filter(|host| *host != self.inner().host);
        standby.filter(|_| is_kept && self.session().profile.is_none())
    }

    /// Asks about the agents that are held until all are decided, or shutdown.
    pub(crate) async fn decide_held(self) {
        let shutdown = self.inner().tasks.shutdown();
        loop {
            let held: Vec<_> = lock(&self.inner().standbys.held).clone().into_iter().collect();
            if held.is_empty() {
                return;
            }
            let asked = held.into_iter().map(|(agent, standby)| self.decide(agent, standby));
            let deciding = futures::stream::iter(asked).buffer_unordered(HELD_ASKED_AT_ONCE).collect::<()>();
            // Cancel safe: who is not decided stays held.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = deciding => {}
            }
            self.inner().rescan.notify_one();
            if within(HELD_RETRY, shutdown.cancelled()).await.is_some() {
                return;
            }
        }
    }

    /// Asks a standby whether an agent of this host may run, and does what it says. Without an answer the agent stays held.
    async fn decide(&self, agent: AgentId, standby: HostId) {
        let row = match self.inner().store.agent(&agent).await {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(%agent, %error, "a held agent's row can't be read now");
                return;
            }
        };
        let row = match row {
            Some(row) if row.home == Home::Here => row,
            // Its migration decides first whose it is.
            Some(AgentRow { home: Home::HandingOff { .. } | Home::Prepared { .. }, .. }) => return,
            _ => return self.inner().standbys.release(&agent),
        };
        match self.tell_standby(standby, &agent, StandbyMessage::May { token: row.token }).await {
            Ok(StandbyAnswer::Superseded { token }) => self.break_promoted(&agent, standby, token).await,
            Ok(StandbyAnswer::Ok) => {
                tracing::info!(%agent, %standby, "the standby has not promoted it: it runs here");
                self.inner().standbys.release(&agent);
            }
            Ok(answer) => tracing::warn!(%agent, %standby, ?answer, "the agent stays held"),
            Err(error) => {
                tracing::warn!(%agent, %standby, %error, "the agent stays held: its standby does not answer")
            }
        }
    }

    /// The agent lives at its standby: what is here never runs again by itself. What has come back here since, under a higher token,
    /// is another matter.
    async fn break_promoted(&self, agent: &AgentId, standby: HostId, token: FencingToken) {
        let row = self.inner().store.agent(agent).await;
        if row.is_ok_and(|row| row.is_none_or(|row| row.home != Home::Here || row.token >= token)) {
            tracing::warn!(%agent, %standby, %token, "promoted there, and no longer what was asked about");
            return;
        }
        match self.break_as_forked(agent).await {
            Ok(()) => {
                tracing::error!(%agent, %standby, %token, "the agent was promoted there: it is broken here as forked");
                failpoint::hit("standby.source.after-broken");
                self.inner().standbys.release(agent);
                self.inner().hints.learn(agent, standby);
            }
            Err(error) => tracing::error!(%agent, %error, "a promoted agent can't be stopped here now"),
        }
    }

    /// Tells a host that it is to keep no copy, and waits until it keeps none.
    async fn end_standby(&self, standby: HostId, agent: &AgentId) -> Result<(), MeshError> {
        match self.tell_standby(standby, agent, StandbyMessage::End).await? {
            StandbyAnswer::Ok => Ok(()),
            answer => Err(MeshError::NoAnswer { peer: standby, reason: format!("{answer:?}") }),
        }
    }

    /// Ends the copy at the standby of before. It could be promoted for as long as it is there: so the label stays until it is gone.
    async fn end_former(&self, row: &AgentRow, next: Option<HostId>) -> Result<(), CallError> {
        let Some(former) = self.standby_of(row).filter(|former| Some(*former) != next) else {
            return Ok(());
        };
        let agent = &row.agent;
        self.end_standby(former, agent).await.map_err(|error| CallError::Unavailable {
            reason: format!(
                "host {former} may still have a copy of agent {agent} ({error}): try again when it answers, or, if it is lost for \
                 good: `godwit agent standby {agent} --off --force`"
            ),
        })
    }

    /// Sends one message about a copy and waits for the answer.
    async fn tell_standby(
        &self,
        standby: HostId,
        agent: &AgentId,
        message: StandbyMessage,
    ) -> Result<StandbyAnswer, MeshError> {
        let request = PeerRequest::Standby { agent: agent.clone(), message: Box::new(message) };
        match self.ask_peer(standby, &request, MESSAGE_MAX).await? {
            PeerAnswer::Standby(answer) => Ok(answer),
            PeerAnswer::Malformed { reason } | PeerAnswer::NotNow { reason, .. } => {
                Err(MeshError::NoAnswer { peer: standby, reason })
            }
            _ => Err(MeshError::NoAnswer { peer: standby, reason: "another kind of answer".into() }),
        }
    }

    /// Does what is asked about the standby of an agent at home here.
    pub(crate) async fn standby_here(
        &self,
        row: &AgentRow,
        call: &StandbyCall,
    ) -> Result<AgentReply, CallError> {
        let (agent, store) = (&row.agent, &self.inner().store);
        match call {
            StandbyCall::Show => {}
            StandbyCall::On { host } => {
                self.check_not_held(agent)?;
                let standby = self.find_host(host).await?;
                if standby == self.inner().host {
                    let what =
                        format!("agent {agent} is at home on host {standby}: a copy there helps nobody");
                    return Err(CallError::Conflict { what });
                }
                if self.session().profile.is_some() {
                    let what =
                        "hosts that share a store take over from each other: no copy is needed".to_owned();
                    return Err(CallError::Conflict { what });
                }
                self.end_former(row, Some(standby)).await?;
                let mut labels = row.labels.clone();
                labels.insert(LABEL.to_owned(), standby.to_string());
                store.set_labels(agent, labels).await.map_err(store_error)?;
            }
            StandbyCall::Off { is_forced } => {
                if !is_forced {
                    self.check_not_held(agent)?;
                    self.end_former(row, None).await?;
                }
                let mut labels = row.labels.clone();
                labels.remove(LABEL);
                store.set_labels(agent, labels).await.map_err(store_error)?;
                if self.inner().standbys.holder_of(agent).is_some() {
                    tracing::warn!(%agent, "it runs here on an operator's word, whatever its standby has made of the copy");
                    self.inner().standbys.release(agent);
                    self.inner().rescan.notify_one();
                }
            }
        }
        let row = store.agent(agent).await.map_err(store_error)?;
        let row = row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?;
        Ok(AgentReply::Standby(Box::new(self.standby_view(&row))))
    }

    fn standby_view(&self, row: &AgentRow) -> StandbyView {
        let standbys = &self.inner().standbys;
        let fed = lock(&standbys.fed).get(&row.agent).cloned().unwrap_or_default();
        let lag = |now: u64, then: Option<u64>| then.map(|then| now.saturating_sub(then));
        StandbyView {
            agent: row.agent.clone(),
            standby: self.standby_of(row),
            is_held: standbys.holder_of(&row.agent).is_some(),
            lag_revisions: lag(row.revision.0, fed.round.map(|round| round.revision.0)),
            lag_changes: lag(row.change, fed.round.map(|round| round.change)),
            round: fed.round,
            trouble: fed.trouble,
        }
    }
}

fn held(agent: &AgentId, standby: HostId) -> String {
    format!(
        "agent {agent} is held until its standby, host {standby}, has said that it was not promoted there; \
         if that host is lost for good: `godwit agent standby {agent} --off --force`"
    )
}
