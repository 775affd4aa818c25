//! Moving an agent along the table of lifecycles, and making a deleted one anew.

use crate::channel::rules;
use crate::digest::Digest;
use crate::event::{EventKind, NewEvent};
use crate::id::Revision;
use crate::identity::{EntityKey, EntityKeyRow};
use crate::input::{AbandonReason, InputEvent, Outcome};
use crate::lease::GrantCause;
use crate::lifecycle::{Lifecycle, LifecycleCommit, OpenInputs, TokenMove, Verb};
use crate::store::agent::{Home, NewAgent, StoredInput};
use crate::store::commit::{Owner, Repair, Standing};
use crate::store::error::StoreError;
use crate::store::memory::channels::Table;
use crate::store::memory::commit::{admit_initial, check_boundary, write_boundary};
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::{Tables, conflict, lease};
use crate::store::rows::Row;

impl Tables {
    pub(super) fn commit_lifecycle(
        &mut self,
        owner: &Owner,
        commit: LifecycleCommit,
        now_ms: u64,
    ) -> Result<Standing, StoreError> {
        self.at_home(&owner.agent)?;
        if self.is_raised_already(owner, &commit) {
            return Ok(self.standing(owner, 0));
        }
        let rows = self.fenced(owner)?;
        let state = rows.portable().lifecycle.clone();
        if state != *commit.from() {
            let open_inputs = rows.open_inputs();
            return if commit.is_done(&state, open_inputs) {
                Ok(self.standing(owner, 0))
            } else {
                Err(StoreError::Lifecycle { state })
            };
        }
        let ending = ending(rows, commit.inputs(), now_ms);
        let stay_open = rows.open_inputs() - ending.len() as u64;
        if commit.next().is_terminal() && stay_open > 0 {
            return Err(conflict(format!("{stay_open} inputs are open")));
        }
        for input in &ending {
            rows.put(Row::Input(input.clone()));
        }
        if let Some(Outcome::Abandoned { reason }) = ending.first().and_then(|input| input.outcome.clone()) {
            self.append([abandoned_event(owner, ending.len(), reason, now_ms)]);
        }
        self.raise(owner, commit.token(), now_ms);
        let rows = self.at_home(&owner.agent)?;
        let mut told = Vec::new();
        if commit.is_state_cleared() {
            rows.clear_state();
        }
        if *commit.next() == Lifecycle::Deleted {
            rows.clear_edges();
            let mut table = Table::between(rows, now_ms);
            let Ok(()) = rules::delete(&mut table, &owner.agent, now_ms);
            told = table.events;
        }
        if *commit.from() != *commit.next() || commit.is_generation_raised() {
            rows.update(|portable| {
                portable.lifecycle = commit.next().clone();
                if commit.is_generation_raised() {
                    portable.generation = portable.generation.next();
                    portable.revision = Revision(0);
                    portable.head = Digest::ZERO;
                }
                if commit.is_start_fresh() {
                    portable.failed_starts = 0;
                }
            });
        }
        if commit.is_generation_raised() {
            let Ok(()) = rules::reset(&mut Table::between(rows, now_ms));
            admit_initial(rows, now_ms);
        }
        // What it has sent is still to be proven its own.
        if *commit.next() == Lifecycle::Deleted && rows.pending_outputs() == 0 {
            rows.erase_secret();
        }
        self.append(told);
        self.append(commit.events().iter().cloned());
        Ok(self.standing(owner, ending.len() as u64))
    }

    /// A boundary of kind `Repair`, and the recovery that it is part of.
    pub(super) fn repair(&mut self, owner: &Owner, repair: Repair, now_ms: u64) -> Result<(), StoreError> {
        let rows = self.at_home(&owner.agent)?;
        check_boundary(rows, owner, &repair.boundary)?;
        if !repair.is_sound() {
            return Err(conflict("the boundary is not a repair, or what moves the agent no recovery"));
        }
        let Repair { boundary, commit } = repair;
        let state = &rows.portable().lifecycle;
        if state != commit.from() {
            return Err(StoreError::Lifecycle { state: state.clone() });
        }
        let events = write_boundary(rows, boundary, now_ms);
        rows.update(|portable| portable.lifecycle = commit.next().clone());
        self.append(events);
        self.append(commit.events().iter().cloned());
        Ok(())
    }

    /// Whether the commit was made before: the token is the one that it raised.
    fn is_raised_already(&self, owner: &Owner, commit: &LifecycleCommit) -> bool {
        let rows = &self.agents[&owner.agent];
        let generation = match commit.is_generation_raised() {
            true => owner.generation.next(),
            false => owner.generation,
        };
        let holder = match commit.token() {
            TokenMove::Keep => return false,
            TokenMove::Raise => Some(owner.incarnation),
            TokenMove::RaiseAndFree => None,
        };
        rows.standing.token == owner.token.next()
            && rows.portable().generation == generation
            && rows.portable().lifecycle == *commit.next()
            && self.holder(rows).map(|holder| holder.incarnation) == holder
    }

    fn raise(&mut self, owner: &Owner, token: TokenMove, now_ms: u64) {
        let raised = owner.token.next();
        let before = self.seat(&self.agents[&owner.agent]);
        match token {
            TokenMove::Keep => {}
            TokenMove::Raise => {
                let cause = GrantCause::Acquired;
                self.grant(&owner.agent, raised, owner.incarnation, cause, (None, &before), now_ms);
            }
            TokenMove::RaiseAndFree => {
                let rows = self.agents.get_mut(&owner.agent).expect("the caller has found the agent");
                rows.standing.token = raised;
                rows.standing.holder = None;
                rows.standing.cause = GrantCause::Acquired;
                self.close_migrations(&owner.agent, (None, &before), now_ms);
            }
        }
    }

    fn standing(&self, owner: &Owner, inputs_abandoned: u64) -> Standing {
        let rows = &self.agents[&owner.agent];
        let portable = rows.portable();
        Standing {
            lifecycle: portable.lifecycle.clone(),
            generation: portable.generation,
            revision: portable.revision,
            token: rows.standing.token,
            lease: self.holder(rows).map(|holder| lease(rows, holder.incarnation)),
            inputs_abandoned,
            inputs_open: rows.open_inputs(),
        }
    }

    pub(super) fn recreate(&mut self, new: NewAgent, key: EntityKey) -> Result<bool, StoreError> {
        let plugin = new.spec.plugin;
        let has_plugin = self.has_plugin(plugin);
        self.at_home(&new.agent)?;
        let before = self.seat(&self.agents[&new.agent]);
        let rows = self.at_home(&new.agent)?;
        let state = rows.portable().lifecycle.clone();
        if state == Lifecycle::Active {
            return if rows.spec() == Some(&new.spec) && rows.portable().labels == new.labels {
                Ok(false)
            } else {
                Err(conflict(format!("agent {} exists with another spec or other labels", new.agent)))
            };
        }
        let commit = LifecycleCommit::plan(&new.agent, &state, &Verb::Recreate, new.now_ms);
        let commit = commit.map_err(|_| StoreError::Lifecycle { state })?;
        if !has_plugin {
            return Err(StoreError::NoPlugin { plugin });
        }
        rows.standing.home = Home::Here;
        rows.standing.token = rows.standing.token.next();
        rows.standing.holder = None;
        rows.standing.cause = GrantCause::Acquired;
        let revision = rows.portable().spec_revision.next();
        rows.put(Row::Spec { revision, spec: new.spec });
        rows.put(Row::EntityKey(EntityKeyRow::Whole(key)));
        rows.update(|portable| {
            portable.lifecycle = commit.next().clone();
            portable.generation = portable.generation.next();
            portable.revision = Revision(0);
            portable.head = Digest::ZERO;
            portable.failed_starts = 0;
            portable.spec_revision = revision;
            portable.labels = new.labels;
        });
        admit_initial(rows, new.now_ms);
        self.close_migrations(&new.agent, (None, &before), new.now_ms);
        self.append(commit.events().iter().cloned());
        Ok(true)
    }
}

/// The inputs that a commit ends, as they are afterwards.
fn ending(rows: &AgentRows, inputs: &OpenInputs, now_ms: u64) -> Vec<StoredInput> {
    let (reason, only) = match inputs {
        OpenInputs::Keep => return Vec::new(),
        OpenInputs::Abandon(reason) => (*reason, None),
        OpenInputs::AbandonThese { inputs, reason } => (*reason, Some(inputs)),
    };
    let open = rows.inputs_after(0).filter(|input| input.state.is_open());
    open.filter(|input| only.is_none_or(|only| only.contains(&input.seq)))
        .filter_map(|input| {
            let state = input.state.on(InputEvent::Abandon).ok()?;
            let outcome = Some(Outcome::Abandoned { reason });
            Some(StoredInput { state, outcome, ended_at_ms: Some(now_ms), ..input.clone() })
        })
        .collect()
}

fn abandoned_event(owner: &Owner, count: usize, reason: AbandonReason, now_ms: u64) -> NewEvent {
    NewEvent::of_agent(&owner.agent, EventKind::InputsAbandoned, now_ms)
        .with("inputs", count)
        .with("reason", reason.name())
}
