//! The roster, and edges: each agent's side of them.

use bytes::Bytes;

use crate::edge::Edge;
use crate::event::{EventKind, NewEvent};
use crate::id::AgentId;
use crate::limits::{EDGES_MAX, ROSTER_BYTES_MAX};
use crate::store::agent::Home;
use crate::store::error::StoreError;
use crate::store::rows::{Row, RowKey};

use super::commit::check_lives;
use super::tables::{Tables, conflict};

impl Tables {
    pub(super) fn put_roster(&mut self, roster: Bytes, now_ms: u64) -> Result<u64, StoreError> {
        if roster.len() > ROSTER_BYTES_MAX {
            return Err(StoreError::Full);
        }
        let revision = match &self.roster {
            Some((revision, known)) if *known == roster => return Ok(*revision),
            known => known.as_ref().map_or(1, |(revision, _)| revision + 1),
        };
        self.roster = Some((revision, roster));
        let (agent, kind) = (None, EventKind::RosterChanged);
        let event = NewEvent { agent, kind, at_ms: now_ms, data: Vec::new() };
        self.append([event.with("revision", revision)]);
        Ok(revision)
    }

    pub(super) fn put_edge(&mut self, agent: &AgentId, edge: Edge, now_ms: u64) -> Result<bool, StoreError> {
        let rows = self.at_home(agent)?;
        check_lives(rows)?;
        let known = rows.edges().get(&edge.peer);
        if known.is_some_and(|known| edge.managed_by.is_some() || known.managed_by.is_none()) {
            return Ok(false);
        }
        if known.is_none() && rows.edges().len() >= EDGES_MAX {
            return Err(conflict(format!("agent {agent} has {EDGES_MAX} edges, as many as it may")));
        }
        let event = NewEvent::of_agent(agent, EventKind::EdgeWired, now_ms)
            .with("peer", &edge.peer)
            .with("managed", edge.managed_by.is_some());
        rows.put(Row::Edge(edge));
        self.append([event]);
        Ok(true)
    }

    pub(super) fn remove_edge(
        &mut self,
        agent: &AgentId,
        peer: &AgentId,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let rows = self.at_home(agent)?;
        if !rows.edges().contains_key(peer) {
            return Ok(false);
        }
        rows.delete(RowKey::Edge(peer.clone()));
        self.append([NewEvent::of_agent(agent, EventKind::EdgeUnwired, now_ms).with("peer", peer)]);
        Ok(true)
    }

    pub(super) fn edges(
        &self,
        of: Option<&AgentId>,
        after: Option<&(AgentId, AgentId)>,
        limit: usize,
    ) -> Vec<(AgentId, Edge)> {
        let asked = self.agents.iter().filter(|(agent, _)| of.is_none_or(|of| *agent == of));
        let here = asked.filter(|(_, rows)| matches!(rows.standing.home, Home::Here));
        let sides = here.flat_map(|(agent, rows)| rows.edges().values().map(move |edge| (agent, edge)));
        let behind = sides
            .filter(|(agent, edge)| after.is_none_or(|(last, peer)| (*agent, &edge.peer) > (last, peer)));
        behind.take(limit).map(|(agent, edge)| (agent.clone(), edge.clone())).collect()
    }
}
