//! Moving agents: the transfer inside a shared store, and the handoff between stores.

use std::time::Duration;

use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, FencingToken, HostId, Incarnation, MigrationId, Revision};
use crate::lease::{GrantCause, Lease};
use crate::store::Adoption;
use crate::store::agent::{Home, Tombstone};
use crate::store::commit::Owner;
use crate::store::error::StoreError;
use crate::store::handoff::{Handoff, PrepareRequest};
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::{Tables, conflict, fenced, lease, stale};
use crate::store::rows::RowFrame;

impl Tables {
    pub(super) fn transfer(
        &mut self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
        (boot, now_ms): (Duration, u64),
    ) -> Result<Lease, StoreError> {
        let cause = GrantCause::Transferred { migration, revision: base };
        self.at_home(&owner.agent)?;
        let rows = &self.agents[&owner.agent];
        let is_done = rows.standing.cause == cause && rows.standing.token == owner.token.next();
        if let Some(holder) = self.holder(rows).filter(|holder| is_done && holder.host == target) {
            return Ok(lease(rows, holder.incarnation));
        }
        let token = self.fenced_at(owner, base)?.standing.token.next();
        let incarnation = self.live_session(target, boot).ok_or(StoreError::NoSession)?;
        Ok(self.grant(&owner.agent, token, incarnation, cause, Some(migration), now_ms))
    }

    pub(super) fn export_rows(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<RowFrame>, StoreError> {
        let Some(rows) = self.agents.get(agent) else {
            return Ok(Vec::new());
        };
        let home = &rows.standing.home;
        if !matches!(home, Home::Here | Home::HandingOff { .. }) {
            return Err(StoreError::NotHome { home: home.clone() });
        }
        let mut bytes = 0;
        let mut frames = Vec::new();
        for frame in rows.frames_after(after) {
            bytes += postcard::to_stdvec(&frame).expect("a row has no type that postcard can't write").len();
            if bytes > bytes_max && !frames.is_empty() {
                break;
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    pub(super) fn begin_handoff(
        &mut self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
        now_ms: u64,
    ) -> Result<Handoff, StoreError> {
        let granted = owner.token.next();
        let home = Home::HandingOff { migration, target, granted };
        let rows = self.agents.get(&owner.agent).ok_or(StoreError::NoAgent)?;
        if rows.standing.home == home && rows.portable().generation == owner.generation {
            return if rows.portable().revision == base {
                let change = rows.change();
                Ok(Handoff { granted, change })
            } else {
                Err(stale(rows))
            };
        }
        self.fenced_at(owner, base)?;
        // Its events are counted as long as it is at home here.
        self.close_migrations(&owner.agent, Some(migration), now_ms);
        let rows = self.at_home(&owner.agent)?;
        rows.standing.home = home;
        rows.standing.token = granted;
        rows.standing.holder = None;
        Ok(Handoff { granted, change: rows.change() })
    }

    pub(super) fn receive_rows(
        &mut self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        if self.bound_to(migration).is_some_and(|bound| bound == agent) {
            return Ok(());
        }
        let copy = self.copy_with(migration, agent, frames)?;
        self.copies.insert(migration, copy);
        Ok(())
    }

    /// The copy as it is with more rows; nothing is stored.
    fn copy_with(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<AgentRows, StoreError> {
        let known = self.copies.get(&migration).cloned();
        let mut copy = known.unwrap_or_else(|| AgentRows::empty(agent, Home::Here));
        if copy.portable().agent != *agent {
            return Err(conflict(format!("migration {migration} moves another agent")));
        }
        for frame in frames {
            copy.receive(frame).map_err(conflict)?;
        }
        Ok(copy)
    }

    /// The agent whose prepared copy a migration is.
    fn bound_to(&self, migration: MigrationId) -> Option<&AgentId> {
        let mut agents = self.agents.iter();
        agents
            .find(|(_, rows)| {
                matches!(rows.standing.home, Home::Prepared { migration: bound, .. } if bound == migration)
            })
            .map(|(agent, _)| agent)
    }

    pub(super) fn prepare(&mut self, request: PrepareRequest) -> Result<(), StoreError> {
        let PrepareRequest { migration, agent, source, token, generation, revision, frames } = request;
        let known = self.agents.get(&agent);
        if known.is_some_and(|rows| is_prepared_so(rows, migration, source, token)) {
            return Ok(());
        }
        let before = match known.map(|rows| &rows.standing.home) {
            None => None,
            Some(Home::Moved(tombstone)) if tombstone.token < token && tombstone.generation <= generation => {
                Some(*tombstone)
            }
            Some(home) => return Err(conflict(format!("agent {agent} is here: {home:?}"))),
        };
        let mut copy = self.copy_with(migration, &agent, frames)?;
        let portable = copy.portable();
        let arrived = (portable.generation, portable.revision);
        if !copy.has_agent_row() || arrived != (generation, revision) {
            let what =
                format!("the copy of agent {agent} is not at revision {revision} of generation {generation}");
            return Err(conflict(what));
        }
        if let Some(plugin) = copy.spec().map(|spec| spec.plugin).filter(|plugin| !self.has_plugin(*plugin)) {
            return Err(StoreError::NoPlugin { plugin });
        }
        copy.standing.home = Home::Prepared { migration, source, token, before };
        copy.standing.token = token;
        self.copies.remove(&migration);
        self.agents.insert(agent, copy);
        Ok(())
    }

    pub(super) fn finish_handoff(
        &mut self,
        agent: &AgentId,
        migration: MigrationId,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let rows = self.agents.get_mut(agent).ok_or(StoreError::NoAgent)?;
        let (target, token) = match rows.standing.home {
            Home::HandingOff { migration: begun, target, granted } if begun == migration => (target, granted),
            Home::Moved(tombstone) if tombstone.migration == migration => return Ok(()),
            _ => {
                return Err(conflict(format!("migration {migration} does not hand agent {agent} off")));
            }
        };
        rows.standing.home =
            Home::Moved(Tombstone { migration, target, token, generation: rows.portable().generation });
        let event = NewEvent::of_agent(agent, EventKind::HomeMoved, now_ms)
            .with("migration", migration)
            .with("target", target)
            .with("token", token);
        self.append([event]);
        Ok(())
    }

    pub(super) fn adopt(
        &mut self,
        agent: &AgentId,
        migration: MigrationId,
        (incarnation, how): (Incarnation, Adoption),
        now_ms: u64,
    ) -> Result<Lease, StoreError> {
        self.check_session(incarnation)?;
        let rows = self.agents.get(agent).ok_or(StoreError::NoAgent)?;
        let revision = rows.portable().revision;
        let token = match &rows.standing.home {
            Home::Prepared { migration: bound, token, .. } if *bound == migration => how.token(*token),
            Home::Here => return self.adopted(rows, migration, incarnation),
            home => return Err(StoreError::NotHome { home: home.clone() }),
        };
        let cause = GrantCause::Transferred { migration, revision };
        if let Some(rows) = self.agents.get_mut(agent) {
            rows.standing.home = Home::Here;
        }
        let event = NewEvent::of_agent(agent, EventKind::HomeMoved, now_ms)
            .with("migration", migration)
            .with("token", token);
        self.append([event]);
        Ok(self.grant(agent, token, incarnation, cause, Some(migration), now_ms))
    }

    /// Answers a repeated `adopt`.
    fn adopted(
        &self,
        rows: &AgentRows,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError> {
        if !is_caused_by(rows, migration) {
            return Err(conflict(format!("migration {migration} did not bring the agent here")));
        }
        match self.holder(rows) {
            Some(holder) if holder.incarnation == incarnation => Ok(lease(rows, incarnation)),
            holder => Err(fenced(rows, holder)),
        }
    }

    pub(super) fn abort_handoff(
        &mut self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        now_ms: u64,
    ) -> Result<Lease, StoreError> {
        self.check_session(incarnation)?;
        let rows = self.agents.get(agent).ok_or(StoreError::NoAgent)?;
        match &rows.standing.home {
            Home::HandingOff { migration: begun, granted, .. } if *begun == migration => {
                let token = granted.next();
                let own = Some(migration);
                Ok(self.grant(agent, token, incarnation, GrantCause::Acquired, own, now_ms))
            }
            Home::Here => match self.holder(rows) {
                Some(holder) if holder.incarnation == incarnation => Ok(lease(rows, incarnation)),
                holder => Err(fenced(rows, holder)),
            },
            home => Err(StoreError::NotHome { home: home.clone() }),
        }
    }

    pub(super) fn discard_copy(&mut self, migration: MigrationId) {
        self.copies.remove(&migration);
        let Some(agent) = self.bound_to(migration).cloned() else {
            return;
        };
        if let Some(rows) = self.agents.remove(&agent)
            && let Home::Prepared { before: Some(tombstone), .. } = rows.standing.home
        {
            let rows = AgentRows::tombstone(&agent, tombstone);
            self.agents.insert(agent, rows);
        }
    }

    pub(super) fn forget_moved(&mut self, agent: &AgentId, migration: MigrationId) {
        if let Some(rows) = self.agents.get_mut(agent)
            && let Home::Moved(tombstone) = rows.standing.home
            && tombstone.migration == migration
        {
            *rows = AgentRows::tombstone(agent, tombstone);
        }
    }
}

/// Whether a repeated `prepare` finds its work done.
fn is_prepared_so(rows: &AgentRows, migration: MigrationId, source: HostId, token: FencingToken) -> bool {
    match rows.standing.home {
        Home::Prepared { migration: bound, source: from, token: held, .. } => {
            (bound, from, held) == (migration, source, token)
        }
        Home::Here => is_caused_by(rows, migration) && rows.standing.token == token,
        _ => false,
    }
}

fn is_caused_by(rows: &AgentRows, migration: MigrationId) -> bool {
    matches!(rows.standing.cause, GrantCause::Transferred { migration: cause, .. } if cause == migration)
}
