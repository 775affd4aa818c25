//! A copy becomes the agent: when nobody has it any more, or an operator says so.

use std::time::Duration;

use futures::future::join_all;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, HostId, MigrationId};
use godwit_core::standby::{LABEL, Promotion, Said, of, promotion};
use godwit_core::store::standby::StandbyCopy;
use godwit_core::store::{AgentRow, Home};

use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply, AgentView, CallError};
use crate::runtime::routing::{Forward, store_error};
use crate::runtime::wire::{HomeAnswer, PeerAnswer, PeerRequest};

/// How long a peer may take to say whether it has the agent.
const ASK_MAX: Duration = Duration::from_secs(3);

/// What came of a promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoted {
    /// The agent lives: it moves here, and nothing is lost.
    Moves {
        /// From where.
        from: HostId,
        /// By which migration.
        migration: MigrationId,
    },
    /// The copy is the agent from now on.
    TakenUp {
        /// The agent.
        agent: Box<AgentView>,
        /// What the copy was as of: what its source did behind that is lost.
        copy: Box<StandbyCopy>,
    },
}

impl Runtime {
    /// Makes the copy that stands by here the agent. If a host has the agent and answers, it moves here instead. With `is_forced`
    /// hosts that do not answer are taken for lost: that is right only when they are stopped, because one that runs and can't be
    /// reached goes on until it hears of it, and what it accepts meanwhile is lost.
    ///
    /// # Errors
    /// `NoSuch` when no copy stands by here; `Conflict` when the agent is here; `PromotionInDoubt` when hosts that may have it do not
    /// answer, and nothing is forced.
    pub async fn promote(&self, agent: &AgentId, is_forced: bool) -> Result<Promoted, CallError> {
        let _inside = self.admit()?;
        let store = &self.inner().store;
        let row = store.agent(agent).await.map_err(store_error)?;
        if row.is_some_and(|row| row.home == Home::Here) {
            return match self.session().profile {
                Some(_) => self.move_here(agent, self.inner().host).await,
                None => Err(CallError::Conflict { what: format!("agent {agent} is at home here already") }),
            };
        }
        let copy = store.standby_copy(agent).await.map_err(store_error)?;
        let copy =
            copy.ok_or_else(|| CallError::NoSuch { what: format!("copy of agent {agent} on this host") })?;
        let said = self.whereabouts(&copy).await;
        match promotion(&copy.standing, &said, is_forced) {
            Promotion::Move(host) => {
                self.inner().hints.learn(agent, host);
                self.move_here(agent, host).await
            }
            Promotion::InDoubt(silent) => Err(CallError::PromotionInDoubt {
                agent: agent.clone(),
                silent,
                revision: copy.standing.revision,
                age_ms: self.now_ms().saturating_sub(copy.at_ms),
            }),
            Promotion::TakeUp => self.take_copy_up(copy).await,
        }
    }

    async fn take_copy_up(&self, copy: StandbyCopy) -> Result<Promoted, CallError> {
        let (agent, session) = (&copy.agent, copy.standing.session);
        let row = self.inner().store.promote(agent, session).await.map_err(store_error)?;
        failpoint::hit("standby.after-promote");
        let (source, revision, token) = (copy.standing.source, copy.standing.revision, row.token);
        tracing::warn!(%agent, %source, %revision, %token, "promoted: what its source did since is lost");
        self.inner().hints.forget(agent);
        self.inner().rescan.notify_one();
        if let Err(error) = self.note_head().await {
            tracing::error!(%agent, %error, "a backup of before this promotion would not be recognized");
        }
        let row = self.unguarded(row).await?;
        Ok(Promoted::TakenUp { agent: Box::new(self.view(&row).await?), copy: Box::new(copy) })
    }

    /// The label that made this host the agent's standby has done its part: left, it would make it that again wherever the agent goes.
    async fn unguarded(&self, row: AgentRow) -> Result<AgentRow, CallError> {
        let store = &self.inner().store;
        if !matches!(of(&row.labels), Ok(Some(standby)) if standby == self.inner().host) {
            return Ok(row);
        }
        let mut labels = row.labels.clone();
        labels.remove(LABEL);
        store.set_labels(&row.agent, labels).await.map_err(store_error)?;
        Ok(store.agent(&row.agent).await.map_err(store_error)?.unwrap_or(row))
    }

    async fn move_here(&self, agent: &AgentId, from: HostId) -> Result<Promoted, CallError> {
        let to = self.inner().host.to_string();
        match self.call(agent, AgentCall::Migrate { to }, Forward::Yes).await?.reply {
            AgentReply::Migrating(migration) => Ok(Promoted::Moves { from, migration }),
            other => Err(CallError::Internal { reason: format!("{other:?} is no migration") }),
        }
    }

    /// What all peers say of where an agent is, and whoever had it last.
    async fn whereabouts(&self, copy: &StandbyCopy) -> Vec<Said> {
        let peers: Vec<_> = self.inner().mesh.peers().into_iter().map(|peer| peer.host).collect();
        let asked = peers.iter().map(|peer| async move {
            let request = PeerRequest::WhoIsHome { agent: copy.agent.clone() };
            (*peer, self.ask_peer(*peer, &request, ASK_MAX).await)
        });
        let (own, mut said) = (self.inner().host, Vec::new());
        let is_asked = |host: HostId| host == own || peers.contains(&host);
        for (peer, answer) in join_all(asked).await {
            said.push(match answer {
                Ok(PeerAnswer::Home(HomeAnswer::Here { token } | HomeAnswer::HereAs { token, .. })) => {
                    Said::Here(peer, token)
                }
                Ok(PeerAnswer::Home(HomeAnswer::Unknown)) => Said::Nothing,
                Ok(PeerAnswer::Home(HomeAnswer::Moved { target, token })) if is_asked(target) => {
                    Said::Moved(target, token)
                }
                Ok(PeerAnswer::Home(HomeAnswer::Moved { target, .. })) => Said::Silent(target),
                _ => Said::Silent(peer),
            });
        }
        if !is_asked(copy.standing.source) {
            said.push(Said::Silent(copy.standing.source));
        }
        said
    }
}
