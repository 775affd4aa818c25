//! The whole as stateright steps through it: who may do what next, and what comes of it.

use godwit_core::id::{FencingToken, Generation, Incarnation};
use godwit_core::lease::fence::Claim;
use godwit_core::lease::keeper::Next;
use stateright::{Model, Property};

use crate::host::{Host, Lane, Owned, Stage, Stray};
use crate::properties::properties;
use crate::rules::{Rules, TTL, seconds};
use crate::store::{Request, Session, Store};

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Hosts that share the store.
    pub hosts: u8,
    /// Seconds that pass.
    pub seconds: u8,
    /// Answers that are given up, and crashes.
    pub faults: u8,
    /// Sessions ever joined.
    pub sessions: usize,
    /// Grants; one more when two are asked for at once.
    pub grants: u64,
    /// Commits of the agent.
    pub commits: usize,
}

/// A model: bounds, and the decisions it makes.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// How much may happen.
    pub bounds: Bounds,
    /// Who decides.
    pub rules: Rules,
}

/// Everything, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Boot time of all, who are on one machine.
    pub now: u8,
    /// What is durable.
    pub store: Store,
    /// By number.
    pub hosts: Vec<Host>,
    /// The witness: a bit for each input whose commit was acknowledged.
    pub acknowledged: u32,
    /// Faults so far.
    pub faults: u8,
}

/// One of a host's ways to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The keeper's.
    Session,
    /// The agent's.
    Agent,
}

/// One step. A paused host is one that takes none while others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A second passes.
    Tick,
    /// Somebody buries expired sessions.
    Bury,
    /// The keeper's next thing is done.
    Keep(usize),
    /// The store executes what was sent.
    Execute(usize, Way),
    /// The host gets the answer.
    Receive(usize, Way),
    /// The host gives up waiting.
    GiveUp(usize, Way),
    /// What was given up arrives after all.
    Arrive(usize, Way),
    /// The host asks for the agent.
    Acquire(usize),
    /// The host reads the agent, also to see what a commit did.
    Load(usize),
    /// The host commits a turn.
    Commit(usize),
    /// The host gives the agent back.
    Release(usize),
    /// The process dies.
    Crash(usize),
    /// A new one starts.
    Restart(usize),
}

impl State {
    fn lane(&mut self, host: usize, way: Way) -> &mut Lane {
        let host = &mut self.hosts[host];
        match way {
            Way::Session => &mut host.session,
            Way::Agent => &mut host.agent,
        }
    }

    fn acknowledge(&mut self, input: Option<u8>) {
        self.acknowledged |= input.map_or(0, |input| 1 << input);
    }

    /// Does the keeper's next thing. `None` when there is nothing to do.
    fn keep(&mut self, index: usize, rules: Rules) -> Option<()> {
        let (now, host) = (self.now, &mut self.hosts[index]);
        match host.keeper.as_ref()?.next(seconds(now)) {
            Next::Wait(_) => return None,
            Next::Beat => host.session.send(Request::Beat { incarnation: host.incarnation, sent: now }),
            Next::Stop => host.stop(rules, now),
            // No second process has this host's key.
            Next::Look => host.keep(|keeper| keeper.looked(seconds(now), Some(false))),
            Next::Join => host.session.send(Request::Join { host: index as u8, sent: now }),
            Next::Exit => host.crash(rules),
        }
        Some(())
    }

    fn execute(&mut self, index: usize, way: Way, rules: Rules) -> Option<()> {
        let (request, stage) = self.lane(index, way).call?;
        let reply = match (stage, request) {
            (Stage::Sent, _) => self.store.execute(request, rules, self.now),
            (Stage::Checked, Request::Commit { claim, base, entry }) => {
                Some(self.store.write(&claim, base, entry))
            }
            _ => return None,
        };
        let lane = self.lane(index, way);
        lane.call = Some((request, reply.map_or(Stage::Checked, Stage::Answered)));
        // A process's writes are executed in their order: what is older can't come any more.
        let is_overtaken = |stray: Stray| match stray {
            Stray::Request(old) => way == Way::Session || session_of(&old) == session_of(&request),
            Stray::Renewed(..) => false,
        };
        if rules.keeps_order() {
            lane.stray = lane.stray.filter(|stray| !is_overtaken(*stray));
        }
        Some(())
    }

    fn receive(&mut self, index: usize, way: Way, rules: Rules) -> Option<()> {
        let (request, Stage::Answered(reply)) = self.lane(index, way).call? else { return None };
        self.lane(index, way).call = None;
        let (now, host) = (self.now, &mut self.hosts[index]);
        match way {
            Way::Session => host.hear(request, reply, rules, now),
            Way::Agent => {
                let acknowledged = host.take(request, reply, rules);
                self.acknowledge(acknowledged);
            }
        }
        Some(())
    }

    fn arrive(&mut self, index: usize, way: Way, rules: Rules) -> Option<()> {
        let now = self.now;
        match self.lane(index, way).stray.take()? {
            Stray::Request(request) => {
                self.store.execute(request, rules, now)?;
            }
            Stray::Renewed(incarnation, sent) => self.hosts[index].hear_late(incarnation, sent, rules, now),
        }
        Some(())
    }
}

fn session_of(request: &Request) -> Option<Incarnation> {
    match request {
        Request::Beat { incarnation, .. } | Request::Acquire { incarnation, .. } => Some(*incarnation),
        Request::Commit { claim, .. } | Request::Release { claim } => Some(claim.incarnation),
        Request::Join { .. } => None,
    }
}

impl Leases {
    fn host_actions(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let host = &state.hosts[index];
        let may_join = state.store.sessions.len() < self.bounds.sessions;
        if !host.is_up {
            actions.extend(may_join.then_some(Action::Restart(index)));
            return;
        }
        let may_fail = state.faults < self.bounds.faults;
        for (way, lane) in [(Way::Session, &host.session), (Way::Agent, &host.agent)] {
            match lane.call {
                Some((_, Stage::Answered(_))) => actions.push(Action::Receive(index, way)),
                Some(_) => actions.push(Action::Execute(index, way)),
                None => {}
            }
            let may_give_up = lane.call.is_some_and(|(_, stage)| stage != Stage::Checked);
            actions.extend((may_give_up && may_fail).then_some(Action::GiveUp(index, way)));
        }
        actions.extend(may_fail.then_some(Action::Crash(index)));
        let Some(keeper) = &host.keeper else { return };
        let is_idle = host.session.call.is_none();
        let keeps = match keeper.next(seconds(state.now)) {
            Next::Wait(_) => false,
            Next::Join => is_idle && may_join,
            _ => is_idle,
        };
        actions.extend(keeps.then_some(Action::Keep(index)));
        if host.agent.call.is_some() {
            return;
        }
        match &host.owned {
            None if !host.was_lost && state.store.token.0 < self.bounds.grants => {
                actions.push(Action::Acquire(index));
            }
            None => {}
            Some(owned) => {
                let load_or_commit = match &owned.loaded {
                    None => Some(Action::Load(index)),
                    Some((_, value)) => {
                        let may_commit = host.may_act(state.now) && value.len() < self.bounds.commits;
                        may_commit.then_some(Action::Commit(index))
                    }
                };
                actions.extend(load_or_commit);
                actions.push(Action::Release(index));
            }
        }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        let (rules, now) = (self.rules, state.now);
        match action {
            Action::Tick => state.now += 1,
            Action::Bury => state.store.bury(rules, now),
            Action::Keep(index) => state.keep(index, rules)?,
            Action::Execute(index, way) => state.execute(index, way, rules)?,
            Action::Receive(index, way) => state.receive(index, way, rules)?,
            Action::Arrive(index, way) => state.arrive(index, way, rules)?,
            Action::GiveUp(index, way) => {
                state.faults += 1;
                match way {
                    Way::Session => state.hosts[index].miss(now),
                    Way::Agent => state.hosts[index].doubt(rules),
                }
                if state.hosts[index].keeper.is_none() {
                    // Without its first session a process ends.
                    state.hosts[index].crash(rules);
                }
            }
            Action::Acquire(index) => {
                let host = &mut state.hosts[index];
                host.agent.send(Request::Acquire { incarnation: host.incarnation, known: host.former.0 });
            }
            Action::Load(index) => {
                let acknowledged = state.hosts[index].load(&state.store);
                state.acknowledge(acknowledged);
            }
            Action::Commit(index) => {
                let request = state.hosts[index].next_commit()?;
                state.hosts[index].agent.send(request);
            }
            Action::Release(index) => {
                let claim = state.hosts[index].disown(rules)?;
                state.hosts[index].agent.send(Request::Release { claim });
            }
            Action::Crash(index) => {
                state.faults += 1;
                state.hosts[index].crash(rules);
            }
            Action::Restart(index) => {
                state.hosts[index].is_up = true;
                state.hosts[index].was_lost = false;
                state.hosts[index].session.send(Request::Join { host: index as u8, sent: now });
            }
        }
        Some(())
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    /// All hosts have joined, and the first one owns the agent.
    fn init_states(&self) -> Vec<State> {
        let joined = |host| Session { host, expiry: TTL, is_dead: false };
        let (incarnation, token) = (Incarnation(1), FencingToken(1));
        let store = Store {
            sessions: (0..self.bounds.hosts).map(joined).collect(),
            token,
            holder: Some(incarnation),
            value: Vec::new(),
            highest: token,
            was_token_repeated: false,
            was_fence_passed: false,
        };
        let numbers = 1..=u64::from(self.bounds.hosts);
        let mut hosts: Vec<Host> = numbers.map(|number| Host::joined(Incarnation(number))).collect();
        let claim = Claim { generation: Generation(1), incarnation, token };
        hosts[0].owned = Some(Owned { claim, loaded: None, doubt: None });
        vec![State { now: 0, store, hosts, acknowledged: 0, faults: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.bounds.seconds {
            actions.push(Action::Tick);
        }
        let may_be_buried =
            |session: &Session| !session.is_dead && self.rules.may_bury(session.expiry, state.now);
        if state.store.sessions.iter().any(may_be_buried) {
            actions.push(Action::Bury);
        }
        for (index, host) in state.hosts.iter().enumerate() {
            self.host_actions(state, index, actions);
            for (way, lane) in [(Way::Session, &host.session), (Way::Agent, &host.agent)] {
                actions.extend(lane.stray.map(|_| Action::Arrive(index, way)));
            }
        }
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
