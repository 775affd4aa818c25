//! What a task does next, what a host answers, and what an answer comes to.

use godwit_core::id::{FencingToken, MigrationId, Revision};
use godwit_core::migration::handoff::Binding;
use godwit_core::migration::recovery::{
    self, Activation, Have, SourceDoes, SourceFinds, TargetDoes, TargetFinds,
};
use godwit_core::migration::{Phase, Role};
use godwit_core::store::Adoption;

use super::super::host::{Answer, Arrival, Message, NOT_MOVED, Step, Task, applied, digest};
use super::super::rules::Bug;
use super::super::store::{host_id, migration_id};
use super::{Handoffs, State};

impl Handoffs {
    /// The next step of a task that waits for nothing.
    pub(super) fn task_step(&self, state: &mut State, host: u8, index: usize) -> Option<()> {
        let task = state.host(host).tasks.get(index)?.clone();
        let (id, store) = (task.migration, state.store(host));
        let say = |state: &mut State, message| {
            state.host_mut(host).tasks[index].call = Some((message, None));
            Some(())
        };
        match task.step {
            Step::Reserve => say(state, Message::Reserve(task.began)),
            Step::Transfer if self.bounds.is_shared => say(state, Message::Restore),
            Step::Transfer => {
                let frames = self.rules.sent(store.rows.after(0));
                self.note(state, host, index, &frames);
                say(state, Message::Rows(frames))
            }
            Step::Freeze => self.freeze(state, host, index),
            Step::Cutover => self.cut_over(state, host, index, &task),
            Step::Prepare => {
                let (claim, base) = task.frozen?;
                let frames = self.rules.sent(store.rows.after(task.sent));
                self.note(state, host, index, &frames);
                let binding = Binding {
                    migration: id,
                    source: host_id(host),
                    token: claim.token.next(),
                    generation: claim.generation,
                    revision: base,
                };
                let bundle = state.host(host).tasks[index].digest;
                say(state, Message::Prepare(binding, frames, bundle))
            }
            Step::Finish => {
                if !state.store_mut(host).finish(id, self.rules) {
                    return self.go_on(state, host, index, Step::Look);
                }
                state.truth.moved.insert(id);
                state.host_mut(host).guest = None;
                self.go_on(state, host, index, Step::Complete(task.frozen?.0.token.next()))
            }
            Step::Look => self.look(state, host, index, id),
            Step::Ask => say(state, Message::WhatHaveYou),
            Step::CallOff => say(state, Message::Abort),
            Step::Complete(token) => say(state, Message::Activate(token)),
            Step::AskSource => say(state, Message::WhatBecame),
        }
    }

    fn go_on(&self, state: &mut State, host: u8, index: usize, step: Step) -> Option<()> {
        state.host_mut(host).tasks.get_mut(index)?.step = step;
        Some(())
    }

    fn note(&self, state: &mut State, host: u8, index: usize, frames: &[super::super::rows::Frame]) {
        let change = state.store(host).rows.change;
        let task = &mut state.host_mut(host).tasks[index];
        task.digest = digest(task.digest, frames);
        task.sent = change;
    }

    fn freeze(&self, state: &mut State, host: u8, index: usize) -> Option<()> {
        let began = state.host(host).tasks.get(index)?.began;
        let guest = state.host(host).guest.filter(|guest| self.rules.may_cut_over(began, guest.claim.token));
        let Some(guest) = guest else {
            return self.go_on(state, host, index, Step::CallOff);
        };
        let host = state.host_mut(host);
        host.is_frozen = true;
        let task = host.tasks.get_mut(index)?;
        task.frozen = Some((guest.claim, Revision(u64::from(guest.base))));
        task.step = Step::Cutover;
        Some(())
    }

    fn cut_over(&self, state: &mut State, host: u8, index: usize, task: &Task) -> Option<()> {
        let (claim, base) = task.frozen?;
        let (id, target) = (task.migration, host_id(task.peer));
        let seat = state.store(host).seat()?;
        let is_owner = state.store(host).claim_of(host) == Some(claim) && seat.revision == base;
        if self.bounds.is_shared {
            let session = state.store(host).session_of(task.peer).map(|holder| holder.incarnation);
            let step = self.rules.transfer(&seat, &claim, base, id, (target, session));
            if let Ok(Some(seat)) = step {
                state.store_mut(host).sit(seat, Some(id));
                state.truth.moved.insert(id);
                state.truth.was_fence_passed |= !is_owner;
            }
            return self.go_on(state, host, index, Step::Look);
        }
        match self.rules.begin(&seat, &claim, base, id, target) {
            Ok(begun) => {
                if let Some(begun) = begun {
                    state.store_mut(host).sit(begun, Some(id));
                    state.truth.was_fence_passed |= !is_owner;
                }
                self.go_on(state, host, index, Step::Prepare)
            }
            Err(_) => self.go_on(state, host, index, Step::Look),
        }
    }

    /// The row decides how it goes on.
    fn look(&self, state: &mut State, host: u8, index: usize, id: MigrationId) -> Option<()> {
        let seat = state.store(host).seat();
        let is_anothers =
            state.store(host).records.get(&(id, Role::Source)).is_some_and(|it| it.source != host);
        let step = match self.rules.source_finds(seat.as_ref(), id) {
            SourceFinds::Passed(token) => Step::Complete(token),
            SourceFinds::HandedOff => Step::Ask,
            SourceFinds::NotReached => Step::CallOff,
        };
        if self.bounds.is_shared && is_anothers {
            return None;
        }
        // Its driver ends, unless it still owns the agent: then that goes on.
        let is_owner =
            state.host(host).guest.is_some_and(|guest| state.store(host).claim_of(host) == Some(guest.claim));
        if !is_owner {
            state.host_mut(host).guest = None;
        }
        self.go_on(state, host, index, step)
    }

    /// What a task makes of an answer; `None`: none came.
    pub(super) fn hear(
        &self,
        state: &mut State,
        host: u8,
        index: usize,
        answer: Option<Answer>,
    ) -> Option<()> {
        let task = state.host(host).tasks.get(index)?.clone();
        let id = task.migration;
        match task.step {
            Step::Reserve => self.on_yes(state, (host, index), answer, Step::Transfer, Step::CallOff),
            Step::Transfer => self.on_yes(state, (host, index), answer, Step::Freeze, Step::CallOff),
            Step::Prepare => {
                let is_whole = match answer {
                    Some(Answer::Prepared(bundle)) => {
                        bundle == task.digest || self.rules.has(Bug::DigestSkipped)
                    }
                    _ => false,
                };
                self.go_on(state, host, index, if is_whole { Step::Finish } else { Step::Look })
            }
            Step::Ask => {
                let have = match answer {
                    Some(Answer::Have(have)) => Some(have),
                    _ => None,
                };
                if self.rules.source_hears(have) == SourceDoes::Hold {
                    state.store_mut(host).end(id, Role::Source, Phase::Failed);
                    return self.drop_task(state, host, index);
                }
                state.store_mut(host).abort(id, host, self.rules);
                self.go_on(state, host, index, Step::CallOff)
            }
            Step::CallOff => {
                state.store_mut(host).end(id, Role::Source, NOT_MOVED);
                state.host_mut(host).is_frozen = false;
                self.drop_task(state, host, index)
            }
            Step::Complete(_) if Self::is_yes(answer) => {
                let store = state.store_mut(host);
                store.end(id, Role::Source, Phase::Complete);
                if !self.bounds.is_shared {
                    store.forget(id);
                }
                self.drop_task(state, host, index)
            }
            Step::AskSource => self.hear_source(state, host, index, answer),
            _ => Some(()),
        }
    }

    fn on_yes(
        &self,
        state: &mut State,
        (host, index): (u8, usize),
        answer: Option<Answer>,
        yes: Step,
        no: Step,
    ) -> Option<()> {
        self.go_on(state, host, index, if Self::is_yes(answer) { yes } else { no })
    }

    fn drop_task(&self, state: &mut State, host: u8, index: usize) -> Option<()> {
        state.host_mut(host).tasks.remove(index);
        Some(())
    }

    fn hear_source(&self, state: &mut State, host: u8, index: usize, answer: Option<Answer>) -> Option<()> {
        let task = state.host(host).tasks.get(index)?.clone();
        self.drop_task(state, host, index)?;
        let became = match answer {
            Some(Answer::Became(became)) => Some(became),
            _ => None,
        };
        let finds = recovery::target_finds(state.store(host).seat().as_ref(), task.migration);
        match (finds, self.rules.target_hears(became)) {
            (TargetFinds::Bound(_), TargetDoes::Adopt) => {
                self.take_up(state, host, task.migration, Adoption::Granted);
            }
            (TargetFinds::Bound(_) | TargetFinds::Unbound, TargetDoes::Discard) => {
                self.discard(state, host, task.migration);
            }
            _ => {}
        }
        Some(())
    }

    pub(super) fn discard(&self, state: &mut State, host: u8, id: MigrationId) {
        let store = state.store_mut(host);
        store.discard(id);
        store.end(id, Role::Target, NOT_MOVED);
        state.host_mut(host).arrivals.remove(&id);
    }

    /// The copy becomes the agent, and runs.
    pub(super) fn take_up(&self, state: &mut State, host: u8, id: MigrationId, how: Adoption) {
        if state.store_mut(host).adopt(id, host, how) {
            state.store_mut(host).end(id, Role::Target, Phase::Complete);
            self.run(state, host, id);
        }
    }

    /// A guest for what this host holds: the warm one, if it is at the row's revision.
    fn run(&self, state: &mut State, host: u8, id: MigrationId) {
        let warm = state.host_mut(host).arrivals.remove(&id).and_then(|arrival| arrival.warm);
        let (Some(claim), rows) = (state.store(host).claim_of(host), state.store(host).rows) else { return };
        let host = state.host_mut(host);
        if host.guest.is_some_and(|guest| guest.claim == claim) {
            return;
        }
        host.load(claim, &rows);
        let is_current = |revision: u8| revision == rows.revision() || self.rules.has(Bug::StaleGuest);
        if let Some((applied, _)) = warm.filter(|(_, revision)| is_current(*revision))
            && let Some(guest) = &mut host.guest
        {
            guest.applied = applied;
        }
    }

    /// A host sees an open record that nobody works at.
    pub(super) fn settle(&self, state: &mut State, host: u8, id: MigrationId, role: Role) -> Option<()> {
        let record = *state.store(host).records.get(&(id, role))?;
        let seat = state.store(host).seat();
        match role {
            Role::Source if record.source == host => {
                let task = Task::new(id, Role::Source, record.target, Step::Look);
                state.host_mut(host).tasks.push(task);
            }
            // Of another host on the shared store.
            Role::Source => match self.rules.source_finds(seat.as_ref(), id) {
                SourceFinds::Passed(_) if state.store(host).claim_of(host).is_some() => {
                    state.store_mut(host).end(id, Role::Source, Phase::Complete);
                }
                _ => return None,
            },
            Role::Target => match recovery::target_finds(seat.as_ref(), id) {
                TargetFinds::Arrived => state.store_mut(host).end(id, Role::Target, Phase::Complete),
                TargetFinds::Unbound if !state.host(host).arrivals.contains_key(&id) => {
                    self.discard(state, host, id);
                }
                TargetFinds::Unbound | TargetFinds::Bound(_) => {
                    let task = Task::new(id, Role::Target, record.source, Step::AskSource);
                    state.host_mut(host).tasks.push(task);
                }
            },
        }
        Some(())
    }

    /// Answers a message of another host.
    pub(super) fn handle(
        &self,
        state: &mut State,
        host: u8,
        (from, id): (u8, MigrationId),
        message: &Message,
    ) -> Answer {
        let seat = state.store(host).seat();
        let record = state.store(host).records.get(&(id, Role::Target)).copied();
        let is_complete = record.is_some_and(|record| record.phase == Phase::Complete);
        match message {
            Message::Reserve(token) => self.on_reserve(state, host, (from, id), *token),
            Message::WhatHaveYou => Answer::Have(recovery::target_has(seat.as_ref(), id, is_complete)),
            Message::WhatBecame => {
                let is_open = state.store(host).is_open(id, Role::Source);
                Answer::Became(recovery::became(seat.as_ref(), id, is_open))
            }
            Message::Abort => {
                if record.is_none_or(|record| record.source != from) {
                    state.host_mut(host).arrivals.remove(&id);
                    return Answer::Refused;
                }
                if recovery::target_has(seat.as_ref(), id, is_complete) == Have::Agent {
                    return Answer::Have(Have::Agent);
                }
                self.discard(state, host, id);
                Answer::Ok
            }
            Message::Activate(token) => self.on_activate(state, host, (from, id), *token),
            Message::Rows(frames) | Message::Prepare(_, frames, _) => {
                let Some(arrival) = state.host_mut(host).arrivals.get_mut(&id) else {
                    return Answer::Refused;
                };
                arrival.digest = digest(arrival.digest, frames);
                let bundle = arrival.digest;
                let is_whole = match message {
                    Message::Prepare(_, _, sent) => bundle == *sent || self.rules.has(Bug::DigestSkipped),
                    _ => true,
                };
                let store = state.store_mut(host);
                match message {
                    Message::Prepare(binding, ..) if is_whole && store.prepare(binding, frames) => {
                        Answer::Prepared(bundle)
                    }
                    Message::Prepare(..) => Answer::Refused,
                    _ => {
                        store.receive(id, frames);
                        Answer::Ok
                    }
                }
            }
            Message::Restore => {
                let rows = state.store(host).rows;
                let Some(arrival) = state.host_mut(host).arrivals.get_mut(&id) else {
                    return Answer::Refused;
                };
                arrival.warm = Some((applied(&rows), rows.revision()));
                Answer::Ok
            }
        }
    }

    fn on_reserve(
        &self,
        state: &mut State,
        host: u8,
        (from, id): (u8, MigrationId),
        token: FencingToken,
    ) -> Answer {
        let seat = state.store(host).seat();
        if recovery::welcome(seat.as_ref(), token, self.bounds.is_shared).is_err() {
            return Answer::Refused;
        }
        if state.host(host).arrivals.contains_key(&id) {
            return Answer::Ok;
        }
        let open: Vec<MigrationId> = (1..=state.migrations)
            .map(migration_id)
            .filter(|other| *other != id && state.store(host).is_open(*other, Role::Target))
            .collect();
        for other in open {
            if recovery::supersedes(id, other).is_err() {
                return Answer::Refused;
            }
            let finds = recovery::target_finds(seat.as_ref(), other);
            if !matches!(finds, TargetFinds::Bound(_)) {
                self.discard(state, host, other);
            }
        }
        if !self.bounds.is_shared && !state.store_mut(host).open(id, Role::Target, (from, host)) {
            return Answer::Refused;
        }
        let arrival = Arrival { source: from, digest: 0, warm: None };
        state.host_mut(host).arrivals.insert(id, arrival);
        Answer::Ok
    }

    fn on_activate(
        &self,
        state: &mut State,
        host: u8,
        (from, id): (u8, MigrationId),
        token: FencingToken,
    ) -> Answer {
        let role = if self.bounds.is_shared { Role::Source } else { Role::Target };
        let record = state.store(host).records.get(&(id, role)).copied();
        let Some(record) = record.filter(|record| record.source == from) else { return Answer::Refused };
        if record.phase == Phase::Complete {
            return Answer::Activated;
        }
        let seat = state.store(host).seat();
        match self.rules.activation(seat.as_ref(), id, token) {
            Activation::Adopt => {
                self.take_up(state, host, id, Adoption::Granted);
                Answer::Activated
            }
            Activation::Run => {
                self.run(state, host, id);
                Answer::Activated
            }
            Activation::Passed => Answer::Activated,
            Activation::Refused => Answer::Refused,
        }
    }
}
