//! Taking all rows of an agent out, and binding a copy that came from an archive.

use crate::event::{EventKind, NewEvent};
use crate::identity::{EntityKey, EntityKeyRow};
use crate::lifecycle::{LifecycleCommit, SuspendReason, Verb};
use crate::store::agent::{AgentRow, Home};
use crate::store::error::StoreError;
use crate::store::handoff::ImportRequest;
use crate::store::memory::tables::{Tables, conflict};
use crate::store::rows::Row;

impl Tables {
    pub(super) fn import(
        &mut self,
        request: &ImportRequest,
        key: EntityKey,
        now_ms: u64,
    ) -> Result<AgentRow, StoreError> {
        let ImportRequest { copy, agent, generation, revision, token, is_suspended, replaces_moved, claim } =
            request;
        let highest = match self.agents.get(agent).map(|rows| rows.standing.home.clone()) {
            None => token.raised(1),
            Some(Home::Moved(tombstone)) => {
                if !replaces_moved {
                    return Err(StoreError::NotHome { home: Home::Moved(tombstone) });
                }
                if tombstone.generation > *generation {
                    return Err(conflict(format!("agent {agent} had a later generation here")));
                }
                tombstone.token.max(*token).raised(1)
            }
            Some(_) => return Err(conflict(format!("agent {agent} is here"))),
        };
        let raised = highest.ok_or_else(|| conflict(format!("the token {token} has no room above")))?;
        let rows = self.copies.get(copy).ok_or_else(|| conflict("nothing has been received"))?;
        let portable = rows.portable();
        let arrived = (&portable.agent, portable.generation, portable.revision);
        if !rows.has_agent_row() || arrived != (agent, *generation, *revision) {
            return Err(conflict(format!(
                "the copy of agent {agent} is not at revision {revision} of generation {generation}"
            )));
        }
        let plugin = rows.spec().map(|spec| spec.plugin);
        let plugin = plugin.ok_or_else(|| conflict("the copy has no spec"))?;
        if !self.has_plugin(plugin) {
            return Err(StoreError::NoPlugin { plugin });
        }
        self.claims.take(agent, *claim, now_ms)?;
        let mut rows = self.copies.remove(copy).ok_or_else(|| conflict("nothing has been received"))?;
        rows.forget_deletes(u64::MAX);
        rows.standing.token = raised;
        rows.skip_numbers(1);
        let public_key = key.public();
        rows.put(Row::EntityKey(EntityKeyRow::Whole(key)));
        let verb = match is_suspended {
            true => Verb::Suspend(SuspendReason::Imported),
            false => Verb::Resume,
        };
        let from = rows.portable().lifecycle.clone();
        let commit = LifecycleCommit::plan(agent, &from, &verb, now_ms).ok();
        rows.update(|portable| {
            portable.next_event = portable.next_event.max(raised.first_number());
            if let Some(commit) = &commit {
                portable.lifecycle = commit.next().clone();
            }
        });
        self.agents.insert(agent.clone(), rows);
        let event = NewEvent::of_agent(agent, EventKind::AgentImported, now_ms)
            .with("token", raised)
            .with("public_key", public_key);
        self.append([event]);
        let is_changed = commit.as_ref().is_some_and(|commit| commit.from() != commit.next());
        self.append(commit.filter(|_| is_changed).iter().flat_map(|commit| commit.events().iter().cloned()));
        let rows = self.at_home(agent)?.clone();
        Ok(self.agent_row(&rows))
    }
}
