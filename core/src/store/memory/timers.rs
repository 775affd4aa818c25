//! Timers: which are due for whom, and firing one.

use crate::id::{Incarnation, Revision, Seq};
use crate::input::NewInput;
use crate::lifecycle::Lifecycle;
use crate::store::agent::Home;
use crate::store::commit::{AcceptError, Owner};
use crate::store::memory::commit::{admit, door};
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::Tables;
use crate::store::rows::{Row, RowKey};
use crate::timer::{DueTimer, NewTimer, StoredTimer, input_id};

impl Tables {
    /// Timers of the agents that an incarnation should look after, earliest first.
    fn timers_for(&self, incarnation: Incarnation) -> Vec<DueTimer> {
        let may_fire = |rows: &&AgentRows| {
            rows.standing.home == Home::Here
                && rows.portable().lifecycle == Lifecycle::Active
                && self.quotas.has_inbox_room(rows.open_inputs(), rows.open_bytes())
                && self.holder(rows).is_none_or(|holder| holder.incarnation == incarnation)
        };
        let of_agent = |rows: &'_ AgentRows| -> Vec<DueTimer> {
            let agent = &rows.portable().agent;
            let due = |stored: &StoredTimer| DueTimer {
                agent: agent.clone(),
                name: stored.name.clone(),
                revision: stored.revision,
                at_ms: stored.timer.at_ms,
            };
            rows.timers().map(due).collect()
        };
        let mut timers: Vec<DueTimer> = self.agents.values().filter(may_fire).flat_map(of_agent).collect();
        timers.sort_by_key(|timer| timer.at_ms);
        timers
    }

    pub(super) fn due_timers(&self, incarnation: Incarnation, now_ms: u64, limit: usize) -> Vec<DueTimer> {
        let timers = self.timers_for(incarnation).into_iter();
        timers.take_while(|timer| timer.at_ms <= now_ms).take(limit).collect()
    }

    pub(super) fn next_timer_at(&self, incarnation: Incarnation) -> Option<u64> {
        self.timers_for(incarnation).first().map(|timer| timer.at_ms)
    }

    pub(super) fn fire_timer(
        &mut self,
        owner: &Owner,
        name: &str,
        revision: Revision,
        now_ms: u64,
    ) -> Result<Option<Seq>, AcceptError> {
        let quotas = self.quotas;
        let rows = self.fenced(owner)?;
        let Some(stored) = rows.timer(name).filter(|stored| stored.revision == revision) else {
            let fired = input_id(&owner.agent, owner.generation, name, revision);
            return Ok(rows.input_by_id(fired).map(|input| input.seq));
        };
        let mut input = stored.input(&owner.agent);
        input.accepted_at_ms = now_ms;
        let new = NewInput::of_host(&owner.agent, input);
        let known = door(rows, &new, &quotas)?;
        rows.delete(RowKey::Timer(name.to_owned()));
        Ok(Some(match known {
            Some(known) => known.seq,
            None => admit(rows, new, owner.incarnation),
        }))
    }
}

/// Sets or cancels a timer with a boundary.
pub(super) fn write(rows: &mut AgentRows, name: String, timer: Option<NewTimer>, revision: Revision) {
    let generation = rows.portable().generation;
    match timer {
        Some(timer) => rows.put(Row::Timer(StoredTimer { name, generation, revision, timer })),
        None => rows.delete(RowKey::Timer(name)),
    }
}
