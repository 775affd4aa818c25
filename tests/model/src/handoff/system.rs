//! The whole as stateright steps through it: who may do what next, and what comes of it.

use std::collections::BTreeSet;

use godwit_core::id::{FencingToken, MigrationId, Revision};
use godwit_core::migration::Role;
use godwit_core::store::{Adoption, Home};
use stateright::{Model, Property};

use super::host::{Answer, Host, Message, Step, Task};
use super::properties::properties;
use super::rows::{DELIVERED, KEYED};
use super::rules::{Bug, Rules};
use super::store::{Store, host_id, migration_id};

mod heal;
mod steps;

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Hosts.
    pub hosts: u8,
    /// Whether they share one store.
    pub is_shared: bool,
    /// Migrations that are begun.
    pub migrations: u8,
    /// Crashes, lost answers, repeated and damaged messages, sessions that expire, aborts.
    pub faults: u8,
    /// Inputs that are sent: the delivery, or also the client's.
    pub inputs: usize,
    /// Inputs that are sent again though they were acknowledged.
    pub repeats: u8,
    /// Whether an operator may take the word of a source that is down.
    pub may_force: bool,
}

/// A model: bounds, and the decisions it makes.
#[derive(Debug, Clone, Copy)]
pub struct Handoffs {
    /// How much may happen.
    pub bounds: Bounds,
    /// Who decides.
    pub rules: Rules,
}

/// What must be true, whoever has the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Truth {
    /// How often each input was acknowledged as new.
    pub accepted: [u8; 2],
    /// How often each input was applied.
    pub applied: [u8; 2],
    /// Migrations that have passed their commit point.
    pub moved: BTreeSet<MigrationId>,
    /// The highest token under which somebody could run the agent.
    pub token: FencingToken,
    /// A grant did not raise it.
    pub was_token_repeated: bool,
    /// The agent was moved by another than its owner, or not from its head.
    pub was_fence_passed: bool,
}

/// Everything, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// One, or one of each host.
    pub stores: Vec<Store>,
    /// By number.
    pub hosts: Vec<Host>,
    /// What may still arrive: from, to, about which migration, what.
    pub stray: Option<(u8, u8, MigrationId, Message)>,
    /// The witness.
    pub truth: Truth,
    /// Migrations begun so far.
    pub migrations: u8,
    /// Faults so far.
    pub faults: u8,
    /// Repeats so far.
    pub repeats: u8,
    /// An operator has decided.
    pub was_forced: bool,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An input is sent to a host.
    Accept(u8, usize),
    /// A host takes the agent.
    Own(u8),
    /// The guest of a host runs a turn.
    Turn(u8),
    /// Somebody asks a host to move the agent.
    Migrate(u8, u8),
    /// A task takes its next step, or says its next message.
    Step(u8, usize),
    /// What a task has said is handled where it was sent.
    Handle(u8, usize),
    /// A task hears the answer.
    Receive(u8, usize),
    /// A task gives up waiting; what it said may arrive later.
    GiveUp(u8, usize),
    /// A task hears the answer, and what it said arrives once more, later.
    Repeat(u8, usize),
    /// A row is missing from what a task has said.
    Damage(u8, usize),
    /// What may still arrive arrives.
    Arrive,
    /// A target is told to run the agent under a token that nobody granted.
    Forge(u8),
    /// An operator, or a deadline, ends what a task works at.
    Abort(u8, usize),
    /// A host sees an open record that nobody works at.
    Settle(u8, MigrationId, Role),
    /// An operator takes the word of a source that is down.
    Force(u8),
    /// A process dies.
    Crash(u8),
    /// A new one starts.
    Restart(u8),
    /// The session of a host dies, on a shared store.
    Expire(u8),
    /// It joins again.
    Join(u8),
}

impl State {
    /// Where a host's store is.
    pub fn place(&self, host: u8) -> usize {
        if self.stores.len() == 1 { 0 } else { usize::from(host) }
    }

    /// A host's store.
    pub fn store(&self, host: u8) -> &Store {
        &self.stores[self.place(host)]
    }

    /// A host.
    pub fn host(&self, host: u8) -> &Host {
        &self.hosts[usize::from(host)]
    }

    pub(super) fn store_mut(&mut self, host: u8) -> &mut Store {
        let place = self.place(host);
        &mut self.stores[place]
    }

    pub(super) fn host_mut(&mut self, host: u8) -> &mut Host {
        &mut self.hosts[usize::from(host)]
    }

    /// The hosts that could commit now.
    pub fn owners(&self) -> Vec<u8> {
        let numbers = 0..u8::try_from(self.hosts.len()).unwrap_or(u8::MAX);
        numbers.filter(|host| self.store(*host).claim_of(*host).is_some()).collect()
    }

    /// Notes the grants that a step has made.
    fn note_grants(&mut self, before: &[Store]) {
        for (place, store) in self.stores.iter().enumerate() {
            let Some(seat) = store.seat.as_ref().filter(|seat| seat.home == Home::Here) else { continue };
            let known = before[place].seat.as_ref().filter(|known| known.home == Home::Here);
            let is_known =
                known.is_some_and(|known| (known.token, known.holder) == (seat.token, seat.holder));
            if is_known || seat.holder.is_none() {
                continue;
            }
            self.truth.was_token_repeated |= seat.token <= self.truth.token;
            self.truth.token = self.truth.token.max(seat.token);
        }
    }
}

impl Handoffs {
    fn task_actions(&self, state: &State, number: u8, actions: &mut Vec<Action>) {
        let may_fail = state.faults < self.bounds.faults;
        for (index, task) in state.host(number).tasks.iter().enumerate() {
            match &task.call {
                None => actions.push(Action::Step(number, index)),
                Some((_, Some(_))) => actions.push(Action::Receive(number, index)),
                Some(_) if state.host(task.peer).is_up => actions.push(Action::Handle(number, index)),
                Some(_) => {}
            }
            let is_open = task.call.is_some();
            // Who returns after an operator has decided can reach the other side: that is what the operator relies on.
            let is_decided = state.was_forced && task.step == Step::Ask;
            let may_give_up = is_open && !is_decided && (may_fail || !state.host(task.peer).is_up);
            actions.extend(may_give_up.then_some(Action::GiveUp(number, index)));
            let is_answered = matches!(task.call, Some((_, Some(_))));
            let may_repeat = is_answered && may_fail && state.stray.is_none();
            actions.extend(may_repeat.then_some(Action::Repeat(number, index)));
            let has_rows = matches!(&task.call, Some((Message::Rows(rows), None)) if rows.len() > 1);
            actions.extend((has_rows && may_fail).then_some(Action::Damage(number, index)));
            let is_after = matches!(task.step, Step::Complete(_)) && self.rules.has(Bug::AbortAfterCutover);
            let may_abort = task.role == Role::Source && !is_open && (task.may_be_aborted() || is_after);
            actions.extend((may_abort && may_fail).then_some(Action::Abort(number, index)));
        }
    }

    fn host_actions(&self, state: &State, number: u8, actions: &mut Vec<Action>) {
        let (host, store) = (state.host(number), state.store(number));
        let may_fail = state.faults < self.bounds.faults;
        if !host.is_up {
            actions.push(Action::Restart(number));
            return;
        }
        self.task_actions(state, number, actions);
        actions.extend(may_fail.then_some(Action::Crash(number)));
        if self.bounds.is_shared {
            match store.session_of(number) {
                Some(_) => actions.extend(may_fail.then_some(Action::Expire(number))),
                None => actions.push(Action::Join(number)),
            }
        }
        let resumes = self.rules.has(Bug::SourceResumes)
            && matches!(store.seat.as_ref().map(|seat| &seat.home), Some(Home::Moved(_)));
        if host.guest.is_none() && host.tasks.is_empty() && (resumes || self.may_own(store, number)) {
            actions.push(Action::Own(number));
        }
        if let Some(guest) = host.guest.filter(|_| !host.is_frozen) {
            actions.extend(store.rows.next().map(|_| Action::Turn(number)));
            let is_free = host.tasks.is_empty() || self.rules.has(Bug::DuplicateMigration);
            let is_current = store.claim_of(number) == Some(guest.claim);
            if is_free && is_current && state.migrations < self.bounds.migrations {
                let others = (0..self.bounds.hosts).filter(|other| *other != number);
                actions.extend(others.map(|other| Action::Migrate(number, other)));
            }
        } else if self.rules.has(Bug::DuplicateMigration)
            && host.is_frozen
            && state.migrations < self.bounds.migrations
        {
            let others = (0..self.bounds.hosts).filter(|other| *other != number);
            actions.extend(others.map(|other| Action::Migrate(number, other)));
        }
        for ((migration, role), record) in &store.records {
            let is_own = *role == Role::Source && record.source == number
                || *role == Role::Target && record.target == number;
            let is_anothers = self.bounds.is_shared && record.target == number;
            let is_idle = host.task(*migration, *role).is_none();
            if (is_own || is_anothers) && is_idle && !record.phase.is_terminal() {
                actions.push(Action::Settle(number, *migration, *role));
            }
        }
        if let Some(Home::Prepared { source, .. }) = store.seat.as_ref().map(|seat| &seat.home) {
            let source = (0..self.bounds.hosts).find(|host| host_id(*host) == *source);
            // A source that has taken its agent back and died before it could say so is one of the known limits.
            let is_held = |source: u8| {
                matches!(
                    state.store(source).seat.as_ref().map(|seat| &seat.home),
                    Some(Home::HandingOff { .. })
                )
            };
            let is_down = source.is_some_and(|source| !state.host(source).is_up && is_held(source));
            let may_force = self.bounds.may_force && is_down && !state.was_forced;
            actions.extend(may_force.then_some(Action::Force(number)));
            actions.extend(may_fail.then_some(Action::Forge(number)));
        }
    }

    /// Whether the agent is free, or this host's; its fence decides.
    fn may_own(&self, store: &Store, number: u8) -> bool {
        let mut asked = store.clone();
        asked.acquire(number).is_some()
    }

    /// Takes a step. `None` when it changes nothing.
    pub fn step(&self, state: &mut State, action: Action) -> Option<()> {
        let before = state.stores.clone();
        match action {
            Action::Accept(host, input) => self.accept(state, host, input)?,
            Action::Own(host) => self.own(state, host)?,
            Action::Turn(host) => self.turn(state, host)?,
            Action::Migrate(host, target) => {
                state.migrations += 1;
                let migration = migration_id(state.migrations);
                let store = state.store_mut(host);
                let is_recorded = store.open(migration, Role::Source, (host, target));
                if !is_recorded && !self.rules.has(Bug::DuplicateMigration) {
                    return None;
                }
                let began = state.host(host).guest?.claim.token;
                let task = Task::new(migration, Role::Source, target, Step::Reserve);
                let task = Task { began, ..task };
                state.host_mut(host).tasks.push(task);
            }
            Action::Step(host, task) => self.task_step(state, host, task)?,
            Action::Handle(..)
            | Action::Receive(..)
            | Action::GiveUp(..)
            | Action::Repeat(..)
            | Action::Damage(..)
            | Action::Arrive
            | Action::Forge(_) => self.carry(state, action)?,
            Action::Abort(host, index) => {
                state.faults += 1;
                state.host_mut(host).tasks.get_mut(index)?.step = Step::CallOff;
            }
            Action::Settle(host, migration, role) => self.settle(state, host, migration, role)?,
            Action::Force(host) => {
                let Home::Prepared { migration, .. } = state.store(host).seat.as_ref()?.home else {
                    return None;
                };
                state.was_forced = true;
                self.take_up(state, host, migration, Adoption::Forced);
            }
            Action::Crash(host) => {
                state.faults += 1;
                *state.host_mut(host) = Host::default();
            }
            Action::Restart(host) => {
                *state.host_mut(host) = Host::up();
                state.store_mut(host).join(host);
            }
            Action::Expire(host) => {
                state.faults += 1;
                state.store_mut(host).expire(host);
            }
            Action::Join(host) => {
                state.store_mut(host).join(host);
                state.host_mut(host).guest = None;
            }
        }
        state.note_grants(&before);
        Some(())
    }

    /// What becomes of a message or its answer on the way.
    fn carry(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Handle(host, index) => {
                let task = state.host(host).tasks.get(index)?.clone();
                let (message, None) = task.call? else { return None };
                let answer = self.handle(state, task.peer, (host, task.migration), &message);
                state.host_mut(host).tasks[index].call = Some((message, Some(answer)));
            }
            Action::Receive(host, index) => {
                let (_, answer) = state.host_mut(host).tasks.get_mut(index)?.call.take()?;
                self.hear(state, host, index, answer)?;
            }
            Action::GiveUp(host, index) => {
                let task = state.host_mut(host).tasks.get_mut(index)?;
                let (message, answer) = task.call.take()?;
                let (migration, peer) = (task.migration, task.peer);
                if answer.is_none() && state.stray.is_none() {
                    state.stray = Some((host, peer, migration, message));
                }
                state.faults += u8::from(state.host(peer).is_up);
                self.hear(state, host, index, None)?;
            }
            Action::Repeat(host, index) => {
                state.faults += 1;
                let task = state.host_mut(host).tasks.get_mut(index)?;
                let (message, answer) = task.call.take()?;
                state.stray = Some((host, task.peer, task.migration, message));
                self.hear(state, host, index, answer)?;
            }
            Action::Damage(host, index) => {
                state.faults += 1;
                let call = &mut state.host_mut(host).tasks.get_mut(index)?.call;
                if let Some((Message::Rows(rows), None)) = call {
                    rows.pop();
                }
            }
            Action::Arrive => {
                let (from, to, migration, message) = state.stray.take()?;
                if state.host(to).is_up {
                    self.handle(state, to, (from, migration), &message);
                }
            }
            Action::Forge(host) => {
                state.faults += 1;
                let Home::Prepared { migration, source, .. } = state.store(host).seat.as_ref()?.home else {
                    return None;
                };
                let source = (0..self.bounds.hosts).find(|host| host_id(*host) == source)?;
                let forged = Message::Activate(FencingToken(1 << 62));
                self.handle(state, host, (source, migration), &forged);
            }
            _ => return None,
        }
        Some(())
    }

    fn accept(&self, state: &mut State, host: u8, input: usize) -> Option<()> {
        state.repeats += u8::from(state.truth.accepted[input] > 0);
        let is_new = state.store_mut(host).accept(input, self.rules)?;
        state.truth.accepted[input] += u8::from(is_new);
        is_new.then_some(())
    }

    fn own(&self, state: &mut State, host: u8) -> Option<()> {
        if self.rules.has(Bug::SourceResumes) {
            let holder = state.store(host).session_of(host)?;
            let store = state.store_mut(host);
            if let Some(seat) = store.seat.as_mut().filter(|seat| matches!(seat.home, Home::Moved(_))) {
                (seat.home, seat.token, seat.holder) = (Home::Here, seat.token.next(), Some(holder));
            }
        }
        let claim = state.store_mut(host).acquire(host)?;
        let rows = state.store(host).rows;
        state.host_mut(host).load(claim, &rows);
        Some(())
    }

    fn turn(&self, state: &mut State, host: u8) -> Option<()> {
        let guest = state.host(host).guest?;
        let base = Revision(u64::from(guest.base));
        match state.store_mut(host).commit(&guest.claim, base) {
            Some(input) => {
                state.truth.applied[input] += 1;
                let guest = state.host_mut(host).guest.as_mut()?;
                guest.base += 1;
                guest.applied[input] = true;
            }
            // Fenced, or stale: what it holds is worth nothing.
            None => state.host_mut(host).guest = None,
        }
        Some(())
    }

    /// Whether an answer is a good one.
    pub(super) fn is_yes(answer: Option<Answer>) -> bool {
        matches!(answer, Some(Answer::Ok | Answer::Activated))
    }
}

impl Model for Handoffs {
    type State = State;
    type Action = Action;

    /// All hosts are up, and the agent runs at the first one.
    fn init_states(&self) -> Vec<State> {
        let numbers = 0..self.bounds.hosts;
        let mut stores = vec![Store::with_agent()];
        stores
            .resize(if self.bounds.is_shared { 1 } else { usize::from(self.bounds.hosts) }, Store::default());
        let hosts = numbers.clone().map(|_| Host::up()).collect();
        let mut state = State {
            stores,
            hosts,
            stray: None,
            truth: Truth { token: FencingToken(1), ..Truth::default() },
            migrations: 0,
            faults: 0,
            repeats: 0,
            was_forced: false,
        };
        for host in numbers {
            state.store_mut(host).join(host);
        }
        let claim = state.store_mut(0).acquire(0);
        let rows = state.store(0).rows;
        if let Some(claim) = claim {
            state.truth.token = claim.token;
            state.host_mut(0).load(claim, &rows);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for number in 0..self.bounds.hosts {
            self.host_actions(state, number, actions);
            let may_repeat = state.repeats < self.bounds.repeats;
            let store = state.store(number);
            let is_first = !self.bounds.is_shared || number == 0;
            for input in [DELIVERED, KEYED].into_iter().take(self.bounds.inputs) {
                let is_new = state.truth.accepted[input] == 0;
                let mut asked = store.clone();
                let is_taken = asked.accept(input, self.rules) == Some(true);
                if is_first && is_taken && (is_new || may_repeat) {
                    actions.push(Action::Accept(number, input));
                }
            }
        }
        actions.extend(state.stray.as_ref().map(|_| Action::Arrive));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}
