//! Moving agents: the transfer inside a shared store, and the handoff between stores.

use std::time::Duration;

use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, HostId, Incarnation, MigrationId, Revision};
use crate::lease::Lease;
use crate::migration::handoff::{Discard, Seat};
use crate::store::Adoption;
use crate::store::agent::Home;
use crate::store::commit::Owner;
use crate::store::error::StoreError;
use crate::store::handoff::{Handoff, PrepareRequest};
use crate::store::memory::rows::{AgentRows, Standing};
use crate::store::memory::tables::{Tables, conflict};
use crate::store::rows::RowFrame;

impl Standing {
    /// Takes over what a step of a handoff has decided.
    pub(super) fn sit(&mut self, seat: Seat) {
        let Seat { home, token, generation: _, revision: _, holder, cause } = seat;
        *self = Self { home, token, holder: holder.map(|holder| holder.incarnation), cause };
    }
}

impl Tables {
    pub(super) fn transfer(
        &mut self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
        (boot, now_ms): (Duration, u64),
    ) -> Result<Lease, StoreError> {
        let (seat, session) = (self.seat_of(&owner.agent)?, self.live_session(target, boot));
        let step = seat.transfer(&owner.claim(), base, migration, (target, session));
        let step = step.map_err(|refusal| seat.error(refusal))?;
        self.take_seat(&owner.agent, step, (migration, &seat), now_ms)
    }

    /// What the steps of a handoff decide by.
    fn seat_of(&self, agent: &AgentId) -> Result<Seat, StoreError> {
        self.agents.get(agent).map(|rows| self.seat(rows)).ok_or(StoreError::NoAgent)
    }

    /// Carries out a step that gives the agent to a session. A step that was made before answers the lease as it stands.
    fn take_seat(
        &mut self,
        agent: &AgentId,
        step: Option<Seat>,
        (own, before): (MigrationId, &Seat),
        now_ms: u64,
    ) -> Result<Lease, StoreError> {
        match step {
            Some(Seat { token, cause, holder: Some(holder), .. }) => {
                Ok(self.grant(agent, token, holder.incarnation, cause, (Some(own), before), now_ms))
            }
            _ => self.lease(agent).ok_or(StoreError::NoAgent),
        }
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
        let seat = self.seat_of(&owner.agent)?;
        let step = seat.begin(&owner.claim(), base, migration, target);
        let Some(begun) = step.map_err(|refusal| seat.error(refusal))? else {
            let change = self.agents[&owner.agent].change();
            return Ok(Handoff { granted: seat.token, change });
        };
        // Its events are counted as long as it is at home here.
        self.close_migrations(&owner.agent, (Some(migration), &seat), now_ms);
        let rows = self.at_home(&owner.agent)?;
        rows.standing.sit(begun);
        Ok(Handoff { granted: rows.standing.token, change: rows.change() })
    }

    pub(super) fn receive_rows(
        &mut self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        if self.agents.get(agent).is_some_and(|rows| self.seat(rows).is_bound(migration)) {
            return Ok(());
        }
        let copy = self.copy_with(migration, agent, frames)?;
        self.copies.insert(migration, copy);
        Ok(())
    }

    /// The copy as it is with more rows; nothing is stored.
    pub(super) fn copy_with(
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

    pub(super) fn prepare(&mut self, request: PrepareRequest) -> Result<(), StoreError> {
        let (binding, agent, migration) = (request.binding(), request.agent, request.migration);
        let known = self.agents.get(&agent).map(|rows| self.seat(rows));
        // Rows that come too late for a bound copy stay outside.
        let copy = self.copy_with(migration, &agent, request.frames);
        let arrived = copy.as_ref().ok().filter(|copy| copy.has_agent_row());
        let arrived = arrived.map(|copy| (copy.portable().generation, copy.portable().revision));
        let Some(seat) = Seat::prepare(known.as_ref(), &binding, arrived)? else { return Ok(()) };
        let mut copy = copy?;
        if let Some(plugin) = copy.spec().map(|spec| spec.plugin).filter(|plugin| !self.has_plugin(*plugin)) {
            return Err(StoreError::NoPlugin { plugin });
        }
        copy.standing.sit(seat);
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
        let seat = self.seat_of(agent)?;
        let Some(moved) = seat.finish(migration).map_err(|refusal| seat.error(refusal))? else {
            return Ok(());
        };
        let mut event = NewEvent::of_agent(agent, EventKind::HomeMoved, now_ms).with("migration", migration);
        if let Home::Moved(tombstone) = &moved.home {
            event = event.with("target", tombstone.target).with("token", tombstone.token);
        }
        if let Some(rows) = self.agents.get_mut(agent) {
            rows.standing.sit(moved);
        }
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
        let holder = self.holder_of(incarnation)?;
        let seat = self.seat_of(agent)?;
        let step = seat.adopt(migration, holder, how).map_err(|refusal| seat.error(refusal))?;
        if let Some(taken) = &step {
            // From here its events are counted here.
            if let Some(rows) = self.agents.get_mut(agent) {
                rows.standing.home = Home::Here;
            }
            let event = NewEvent::of_agent(agent, EventKind::HomeMoved, now_ms)
                .with("migration", migration)
                .with("token", taken.token);
            self.append([event]);
        }
        self.take_seat(agent, step, (migration, &seat), now_ms)
    }

    pub(super) fn abort_handoff(
        &mut self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        now_ms: u64,
    ) -> Result<Lease, StoreError> {
        let holder = self.holder_of(incarnation)?;
        let seat = self.seat_of(agent)?;
        let step = seat.abort(migration, holder).map_err(|refusal| seat.error(refusal))?;
        self.take_seat(agent, step, (migration, &seat), now_ms)
    }

    pub(super) fn discard_copy(&mut self, migration: MigrationId) {
        self.copies.remove(&migration);
        let bound = self.agents.iter().map(|(agent, rows)| (agent, self.seat(rows).discard(migration)));
        let bound =
            bound.filter(|(_, discard)| *discard != Discard::Stays).map(|(id, how)| (id.clone(), how));
        let Some((agent, discard)) = bound.take(1).next() else { return };
        let copy = self.agents.remove(&agent);
        if let (Some(copy), Discard::Replaced(tombstone)) = (copy, discard) {
            self.agents.insert(agent, copy.tombstone(tombstone));
        }
    }

    pub(super) fn forget_moved(&mut self, agent: &AgentId, migration: MigrationId) {
        let Some(rows) = self.agents.get(agent) else { return };
        if let Some(tombstone) = self.seat(rows).forget(migration) {
            let rows = rows.tombstone(tombstone);
            self.agents.insert(agent.clone(), rows);
        }
    }
}
