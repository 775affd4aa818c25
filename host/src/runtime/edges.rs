//! Edges: making, removing and listing them. Each side is written where its agent is at home, wherever that is.

use std::collections::BTreeMap;

use godwit_core::edge::{Edge, Pair};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, StoreId};
use godwit_core::limits::{EDGES_MAX, PAGE_MAX};
use godwit_core::reconcile::{self, Sides};

use super::Runtime;
use super::call::{AgentCall, AgentReply, CallError};
use super::routing::{Forward, store_error};

/// An edge as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeView {
    /// Between whom.
    pub pair: Pair,
    /// Whether a roster made it, of this store or another, and may remove it again.
    pub is_managed: bool,
    /// Whether both sides are known here to be there. The side of an agent that is at home elsewhere counts as there.
    pub is_whole: bool,
}

impl Runtime {
    /// Makes an edge, managed by the roster of a store or by nobody. One that is there stays; one that a roster manages is
    /// the operator's when nobody is to manage it. Answers whether anything changed.
    ///
    /// # Errors
    /// As a call on either agent. One side may be written then: repeat it.
    pub async fn wire(&self, pair: &Pair, managed_by: Option<StoreId>) -> Result<bool, CallError> {
        let mut has_changed = false;
        for (agent, peer) in pair.sides() {
            let edge = Edge { peer: peer.clone(), managed_by };
            has_changed |= self.change_edge(agent, AgentCall::PutEdge { edge }).await?;
            failpoint::hit("edge.after-side");
        }
        Ok(has_changed)
    }

    /// Removes an edge. Answers whether anything was there. An agent that is gone has no side.
    ///
    /// # Errors
    /// As a call on either agent. One side may be removed then: repeat it.
    pub async fn unwire(&self, pair: &Pair) -> Result<bool, CallError> {
        let mut has_changed = false;
        for (agent, peer) in pair.sides() {
            let removed = self.change_edge(agent, AgentCall::RemoveEdge { peer: peer.clone() }).await;
            has_changed |= match removed {
                Err(CallError::NotFound { .. }) => false,
                other => other?,
            };
            failpoint::hit("edge.after-side");
        }
        Ok(has_changed)
    }

    async fn change_edge(&self, agent: &AgentId, call: AgentCall) -> Result<bool, CallError> {
        match self.call(agent, call, Forward::Yes).await?.reply {
            AgentReply::Changed(has_changed) => Ok(has_changed),
            other => Err(CallError::Internal { reason: format!("{other:?} is no answer about an edge") }),
        }
    }

    pub(super) async fn put_edge_here(&self, agent: &AgentId, edge: &Edge) -> Result<AgentReply, CallError> {
        let changed = self.inner().store.put_edge(agent, edge.clone()).await;
        changed.map(AgentReply::Changed).map_err(store_error)
    }

    pub(super) async fn remove_edge_here(
        &self,
        agent: &AgentId,
        peer: &AgentId,
    ) -> Result<AgentReply, CallError> {
        let changed = self.inner().store.remove_edge(agent, peer).await;
        changed.map(AgentReply::Changed).map_err(store_error)
    }

    pub(super) async fn edges_here(&self, agent: &AgentId) -> Result<AgentReply, CallError> {
        let sides = self.inner().store.edges(Some(agent), None, EDGES_MAX).await.map_err(store_error)?;
        Ok(AgentReply::Edges(sides.into_iter().map(|(_, edge)| edge).collect()))
    }

    /// The sides of edges that this host's store knows, by pair.
    pub(super) async fn sides_here(&self) -> Result<BTreeMap<Pair, Sides>, CallError> {
        let mut listed = Vec::new();
        let mut after: Option<(AgentId, AgentId)> = None;
        loop {
            let page = self.inner().store.edges(None, after.as_ref(), PAGE_MAX).await.map_err(store_error)?;
            let Some((agent, edge)) = page.last() else { return Ok(reconcile::sides(listed)) };
            after = Some((agent.clone(), edge.peer.clone()));
            listed.extend(page);
        }
    }

    /// The edges of which this host's store has a side, by pair.
    ///
    /// # Errors
    /// As the store's.
    pub async fn edges(&self) -> Result<Vec<EdgeView>, CallError> {
        let mut views = Vec::new();
        for (pair, (first, second)) in self.sides_here().await? {
            let mut is_whole = true;
            for (agent, side) in [(pair.first(), first), (pair.second(), second)] {
                if side.is_none() {
                    let row = self.inner().store.agent(agent).await.map_err(store_error)?;
                    // One that was never here, or left, has its side elsewhere.
                    is_whole &= row.is_none_or(|row| row.home != godwit_core::store::Home::Here);
                }
            }
            let is_managed = first != Some(None) && second != Some(None);
            views.push(EdgeView { pair, is_managed, is_whole });
        }
        Ok(views)
    }
}
