//! Random sequences against a model that shares no code with any store: tokens, numbers, revisions, fates of inputs,
//! lifecycles.
//!
//! Three hosts share a store with two agents. They acquire, commit, lose and return; every grant that was ever given is
//! tried again later. After each step everything that the store shows must equal the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{AgentId, FencingToken, Generation, InputId, MigrationId, Revision, Seq};
use crate::input::{AbandonReason, InputState, Lane, Mode, NewInput};
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Desk, Site, Store, TTL, Turn, World, done, host, id, keyed, message,
};
use crate::store::conformance::{Case, START_MS};
use crate::store::{
    AcceptError, Accepted, AgentRow, OutputEnd, OutputKey, Owner, Pruned, Retention, Sharing, StoreError,
    StoredInput, UnitFailure,
};
use crate::time::Clock;

mod model;
mod verbs;

use model::{Answer, Fate, Life, Model, ModelInput, Random, answer, fate};

const STEPS: u64 = 120;
const HOSTS: u64 = 3;
/// Ended inputs are kept for less than two expiries.
const KEPT: Duration = Duration::from_secs(20);
const AGENTS: [&str; 2] = ["one", "two"];
const DESTINATIONS: [&str; 2] = ["x", "y"];
const TIMERS: [&str; 2] = ["s", "t"];

pub(super) fn cases() -> Vec<Case> {
    vec![Case::of(random_sequences_equal_the_model)]
}

async fn random_sequences_equal_the_model(world: World) {
    for seed in world.factory.seeds() {
        let world = World::new(world.factory.clone(), &format!("random-{seed}"));
        let mut run = Run::start(world, seed).await;
        for step in 0..STEPS {
            run.at = format!("seed {seed} step {step}");
            run.step().await;
            run.compare().await;
        }
    }
}

struct Run {
    world: World,
    random: Random,
    at: String,
    sites: Vec<Site>,
    models: Vec<Model>,
    /// Every grant ever given: host number and owner.
    grants: Vec<Vec<(usize, Owner)>>,
    migrations: u8,
}

impl Run {
    async fn start(world: World, seed: u64) -> Self {
        let store = world.open("a", Sharing::Shared).await;
        let mut sites = Vec::new();
        for number in 0..HOSTS {
            sites.push(Site::join(store.clone(), host(number)).await);
        }
        for agent in AGENTS {
            sites[0].create(agent).await;
        }
        Self {
            world,
            random: Random(seed),
            at: String::new(),
            sites,
            models: AGENTS.iter().map(|_| Model { generation: 1, ..Model::default() }).collect(),
            grants: AGENTS.iter().map(|_| Vec::new()).collect(),
            migrations: 0,
        }
    }

    fn store(&self) -> &Store {
        &self.sites[0].store
    }

    async fn step(&mut self) {
        let agent = self.random.below(AGENTS.len());
        match self.random.below(100) {
            0..18 => self.acquire(agent).await,
            18..40 => self.accept(agent).await,
            40..61 => self.commit(agent).await,
            61..64 => self.fire(agent).await,
            64..67 => self.stage(agent).await,
            67..70 => self.abandon(agent).await,
            70..76 => self.verb(agent).await,
            76..78 => self.release(agent).await,
            78..83 => self.redrive(agent).await,
            83..88 => self.acknowledge(agent).await,
            88..92 => self.transfer(agent).await,
            92..94 => self.leave().await,
            94..95 => self.recreate(agent).await,
            95..97 => self.expire().await,
            97..98 => self.prune(agent).await,
            _ => self.reopen().await,
        }
    }

    /// A grant of the past, more often the last one; `None` before the first.
    fn grant(&mut self, agent: usize) -> Option<Desk> {
        let count = self.grants[agent].len();
        if count == 0 {
            return None;
        }
        let is_last = self.random.chance(80);
        let chosen = if is_last { count - 1 } else { self.random.below(count) };
        let (number, owner) = self.grants[agent][chosen].clone();
        let site = Site { incarnation: owner.incarnation, ..self.sites[number].clone() };
        Some(Desk { site, owner })
    }

    fn is_current(&self, agent: usize, owner: &Owner) -> bool {
        let model = &self.models[agent];
        let holder = model.holder.map(|number| self.sites[number].incarnation);
        let is_of_generation = owner.generation.0 == model.generation;
        owner.token.0 == model.token && is_of_generation && holder == Some(owner.incarnation)
    }

    async fn acquire(&mut self, agent: usize) {
        let number = self.random.below(self.sites.len());
        let site = self.sites[number].clone();
        let answered = site.try_take(&id(AGENTS[agent])).await;
        let model = &mut self.models[agent];
        match model.holder {
            Some(holder) if holder != number => {
                assert_eq!(answer(answered), Answer::Fenced, "{}", self.at);
                return;
            }
            Some(_) => {}
            None => {
                model.token += 1;
                model.holder = Some(number);
            }
        }
        let lease = answered.unwrap();
        assert_eq!(lease.token, FencingToken(model.token), "{}", self.at);
        self.grants[agent].push((number, site.desk(lease).owner));
    }

    async fn accept(&mut self, agent: usize) {
        let key = self.random.chance(60).then(|| format!("key {}", self.random.below(5)));
        let body = format!("body {}", self.random.below(2));
        let name: AgentId = id(AGENTS[agent]);
        let new = match &key {
            Some(key) => keyed(&name, key, &body),
            None => message(&name, &body),
        };
        let new = self.placed(new);
        let input = new.input.id;
        let by = self.sites[0].incarnation;
        let (is_silent, supersedes) = (new.is_silent, new.supersedes.clone());
        let lane = if new.mode == Mode::Steer { Lane::Steer } else { Lane::Queue };
        let answered = self.store().accept(new, by).await;
        let now_ms = self.world.clock.wall_ms();
        let model = &mut self.models[agent];
        let is_known = |input: &ModelInput| key.is_some() && input.key == key && !input.is_gone;
        let known = model.inputs.iter().position(is_known);
        match (known, answered) {
            (None, Ok(Accepted::New { seq })) => {
                assert!(model.life.accepts(), "{}", self.at);
                model.replace(supersedes.as_ref(), now_ms);
                let wakes = !is_silent;
                let (is_staged, fate) = (false, Fate::Waiting);
                let new = ModelInput {
                    id: input,
                    key,
                    body,
                    lane,
                    wakes,
                    supersedes,
                    is_staged,
                    fate,
                    ended_at_ms: None,
                    is_gone: false,
                    is_ended_by_verb: false,
                };
                model.inputs.push(new);
                assert_eq!(seq, Seq(model.inputs.len() as u64), "{}", self.at);
            }
            (Some(known), Ok(Accepted::Duplicate(stored))) => {
                let known = &mut model.inputs[known];
                known.wakes |= known.fate == Fate::Waiting && !is_silent;
                assert_eq!((stored.input.id, &body), (known.id, &known.body), "{}", self.at);
            }
            (None, Err(AcceptError::Store(StoreError::Lifecycle { state }))) => {
                assert!(!model.life.accepts(), "{}", self.at);
                assert_eq!(state, model.life.stored(), "{}", self.at);
            }
            (Some(known), Err(AcceptError::KeyReused)) => {
                assert_ne!(model.inputs[known].body, body, "{}", self.at);
            }
            (known, answered) => panic!("{}: {known:?} {answered:?}", self.at),
        }
    }

    /// An input with a lane, in silence or not, and perhaps in the place of others.
    fn placed(&mut self, new: NewInput) -> NewInput {
        NewInput {
            mode: Mode::ALL[self.random.below(3)],
            is_silent: self.random.chance(30),
            supersedes: self.random.chance(25).then(|| format!("scope {}", self.random.below(2))),
            ..new
        }
    }

    /// Stages an input that waits, or puts a staged one back.
    async fn stage(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let Some(chosen) = self.some_input(agent) else { return };
        let input = &self.models[agent].inputs[chosen];
        let state = if input.is_staged { InputState::Queued } else { InputState::Staged };
        let (fate, is_gone) = (input.fate, input.is_gone);
        let unit = desk.chain().await.attempt(Seq(chosen as u64 + 1), state, 1).unit();
        let outcome = desk.commit(unit).await;
        let expected = match fate {
            _ if !self.is_current(agent, &desk.owner) => Answer::Fenced,
            Fate::Waiting => Answer::Done,
            Fate::Replaced | Fate::Abandoned if !is_gone => Answer::Stale,
            _ => Answer::Conflict,
        };
        let answered = match outcome.failure {
            None => Answer::Done,
            Some(UnitFailure::Store(error)) => answer::<()>(Err(error)),
            Some(other) => panic!("{}: {other:?}", self.at),
        };
        assert_eq!(answered, expected, "{}", self.at);
        if expected == Answer::Done {
            self.models[agent].inputs[chosen].is_staged = state == InputState::Staged;
        }
    }

    /// Cancels one that is queued, or drops one that was given up.
    async fn abandon(&mut self, agent: usize) {
        let Some(chosen) = self.some_input(agent) else { return };
        let input = &self.models[agent].inputs[chosen];
        let from = match self.random.chance(50) {
            true => InputState::Queued,
            false => InputState::DeadLettered,
        };
        let fits = match input.fate {
            Fate::Waiting => from == InputState::Queued && !input.is_staged,
            Fate::GivenUp => from == InputState::DeadLettered,
            Fate::Abandoned => !input.is_ended_by_verb,
            Fate::Applied | Fate::Replaced => false,
        } && !input.is_gone;
        let name = id(AGENTS[agent]);
        let answered = self.store().abandon(&name, input.id, from, AbandonReason::Cancelled).await;
        assert_eq!(answer(answered), if fits { Answer::Done } else { Answer::Conflict }, "{}", self.at);
        if fits {
            let input = &mut self.models[agent].inputs[chosen];
            if input.fate != Fate::Abandoned {
                input.ended_at_ms = Some(self.world.clock.wall_ms());
            }
            input.fate = Fate::Abandoned;
        }
    }

    fn some_input(&mut self, agent: usize) -> Option<usize> {
        let count = self.models[agent].inputs.len();
        (count > 0).then(|| self.random.below(count))
    }

    async fn commit(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let kind = match self.random.chance(25) {
            true => BoundaryKind::DeadLetter,
            false => BoundaryKind::Turn,
        };
        let is_wrong_base = self.models[agent].revision > 0 && self.random.chance(15);
        let (ended, mut turn) = self.some_waiting(agent, Turn::of(kind));
        let key = format!("state {}", self.random.below(3));
        let value = self.random.chance(70).then(|| format!("value {}", self.random.below(9)));
        turn = turn.state(&key, value.as_deref());
        let (mut turn, written) = self.some_state(kind, turn);
        let destination = self.random.chance(50).then(|| DESTINATIONS[self.random.below(2)]);
        turn = destination.iter().fold(turn, |turn, destination| turn.output(&id(destination), "hello"));
        let timer = self.random.chance(30).then(|| TIMERS[self.random.below(2)]);
        let sets = self.random.chance(70);
        if let Some(timer) = timer {
            turn = turn.timer(timer, sets.then_some((START_MS, "due")));
        }
        let mut chain = desk.chain().await;
        if is_wrong_base {
            chain.base = Revision(chain.base.0 - 1);
            chain.revision = chain.base;
        }
        let unit = chain.turn(turn).unit();
        let outcome = desk.commit(unit.clone()).await;
        let does_run = self.models[agent].life.runs();
        if !self.is_current(agent, &desk.owner) || is_wrong_base || !does_run {
            let expected = match self.is_current(agent, &desk.owner) {
                false => Answer::Fenced,
                true if is_wrong_base => Answer::Stale,
                true => Answer::Lifecycle,
            };
            let Some(UnitFailure::Store(error)) = outcome.failure else {
                panic!("{}: {outcome:?}", self.at);
            };
            assert_eq!((answer::<()>(Err(error)), outcome.committed), (expected, 0), "{}", self.at);
            return;
        }
        assert_eq!(outcome, done(1), "{}", self.at);
        if self.random.chance(20) {
            assert_eq!(desk.commit(unit).await, done(1), "{}: repeated", self.at);
        }
        let model = &mut self.models[agent];
        model.revision += 1;
        model.write(written, &ended);
        for index in ended {
            model.inputs[index].ended_at_ms = Some(self.world.clock.wall_ms());
            model.inputs[index].is_staged = false;
            model.inputs[index].fate = match kind {
                BoundaryKind::DeadLetter => Fate::GivenUp,
                _ => Fate::Applied,
            };
        }
        match value {
            Some(value) => model.state.insert(key, value),
            None => model.state.remove(&key),
        };
        if let Some(destination) = destination {
            let number = model.sent.entry(destination).or_default();
            *number += 1;
            model.pending.push((destination, model.generation, *number));
        }
        match timer {
            Some(timer) if sets => drop(model.timers.insert(timer, model.revision)),
            Some(timer) => drop(model.timers.remove(timer)),
            None => {}
        }
    }

    /// Fires a timer, more often as the boundary has set it that set it last.
    async fn fire(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let name = TIMERS[self.random.below(2)];
        let set_at = self.models[agent].timers.get(name).copied();
        let is_guess = self.random.chance(30);
        let head = usize::try_from(self.models[agent].revision).unwrap();
        let guessed = self.random.below(head + 1) as u64;
        let revision = set_at.filter(|_| !is_guess).unwrap_or(guessed);
        let fired = self.store().fire_timer(&desk.owner, name, Revision(revision)).await;
        if !self.is_current(agent, &desk.owner) {
            let refused = fired.map_err(|error| match error {
                AcceptError::Store(error) => error,
                other => panic!("{}: {other:?}", self.at),
            });
            assert_eq!(answer(refused), Answer::Fenced, "{}", self.at);
            return;
        }
        let model = &mut self.models[agent];
        let generation = Generation(model.generation);
        let input = InputId::of_timer(&id(AGENTS[agent]), generation, name, Revision(revision));
        if set_at == Some(revision) && !model.life.accepts() {
            let refused = AcceptError::Store(StoreError::Lifecycle { state: model.life.stored() });
            assert_eq!(fired, Err(refused), "{}", self.at);
            return;
        }
        if set_at == Some(revision) {
            model.timers.remove(name);
            let body = "due".to_owned();
            let fired = ModelInput {
                id: input,
                key: None,
                body,
                lane: Lane::Queue,
                wakes: true,
                supersedes: None,
                is_staged: false,
                fate: Fate::Waiting,
                ended_at_ms: None,
                is_gone: false,
                is_ended_by_verb: false,
            };
            model.inputs.push(fired);
        }
        let place = model.inputs.iter().position(|known| known.id == input && !known.is_gone);
        let expected = place.map(|place| Seq(place as u64 + 1));
        assert_eq!(fired, Ok(expected), "{}", self.at);
    }

    /// Lets the boundary write a snapshot, a journal entry, or both: in this order they are told.
    fn some_state(&mut self, kind: BoundaryKind, turn: Turn) -> (Turn, (bool, bool)) {
        let state = format!("snapshot {}", self.random.below(99));
        let written = match self.random.below(3) {
            0 if kind == BoundaryKind::Turn => (false, true),
            1 if kind == BoundaryKind::Turn => (true, true),
            _ => (true, false),
        };
        let turn = match written {
            (false, _) => turn,
            (true, false) => turn.snapshot(&state),
            (true, true) => turn.snapshot(&state).journaled(),
        };
        (turn, written)
    }

    /// Ends some of the inputs that wait.
    fn some_waiting(&mut self, agent: usize, mut turn: Turn) -> (Vec<usize>, Turn) {
        let mut ended = Vec::new();
        for (index, input) in self.models[agent].inputs.iter().enumerate() {
            if input.fate == Fate::Waiting && self.random.chance(40) {
                turn = turn.end(Seq(index as u64 + 1), input.id);
                ended.push(index);
            }
        }
        (ended, turn)
    }

    async fn release(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let model = &self.models[agent];
        let is_same = (desk.owner.token.0, desk.owner.generation.0) == (model.token, model.generation);
        let is_free = model.holder.is_none() && is_same;
        let expected = match self.is_current(agent, &desk.owner) || is_free {
            true => Answer::Done,
            false => Answer::Fenced,
        };
        assert_eq!(answer(self.store().release(&desk.owner).await), expected, "{}", self.at);
        if expected == Answer::Done {
            self.models[agent].holder = None;
        }
    }

    async fn redrive(&mut self, agent: usize) {
        let Some(chosen) = self.some_input(agent) else { return };
        let (input, fate) = {
            let input = &self.models[agent].inputs[chosen];
            (input.id, input.fate)
        };
        let expected = match fate {
            _ if self.models[agent].inputs[chosen].is_gone => Answer::Conflict,
            _ if !self.models[agent].life.accepts() => Answer::Lifecycle,
            Fate::GivenUp => Answer::Done,
            _ => Answer::Conflict,
        };
        let answered = self.store().redrive(&id(AGENTS[agent]), input).await;
        assert_eq!(answer(answered), expected, "{}", self.at);
        if expected == Answer::Done {
            let input = &mut self.models[agent].inputs[chosen];
            (input.fate, input.ended_at_ms) = (Fate::Waiting, None);
            input.wakes = true;
        }
    }

    async fn acknowledge(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let count = self.models[agent].pending.len();
        if count == 0 {
            return;
        }
        let chosen = self.random.below(count);
        let (destination, generation, number) = self.models[agent].pending[chosen];
        let generation = Generation(generation);
        let key = OutputKey { destination: id(destination), generation, number };
        let expected = match self.is_current(agent, &desk.owner) {
            true => Answer::Done,
            false => Answer::Fenced,
        };
        let answered = self.store().end_outputs(&desk.owner, &[(key, OutputEnd::Acknowledged)]).await;
        assert_eq!(answer(answered), expected, "{}", self.at);
        if expected == Answer::Done {
            self.models[agent].pending.remove(chosen);
        }
    }

    async fn transfer(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let number = self.random.below(self.sites.len());
        let target = self.sites[number].clone();
        self.migrations += 1;
        let migration = MigrationId([self.migrations; 16]);
        let base = Revision(self.models[agent].revision);
        let answered = self.store().transfer(&desk.owner, base, migration, target.host).await;
        if !self.is_current(agent, &desk.owner) {
            assert_eq!(answer(answered), Answer::Fenced, "{}", self.at);
            return;
        }
        let lease = answered.unwrap();
        let model = &mut self.models[agent];
        model.token += 1;
        model.holder = Some(number);
        assert_eq!(lease.token, FencingToken(model.token), "{}", self.at);
        self.grants[agent].push((number, target.desk(lease).owner));
    }

    /// A session ends, and its host joins again.
    async fn rejoin(&mut self, number: usize) {
        self.sites[number] = Site::join(self.store().clone(), host(number as u64)).await;
        for model in &mut self.models {
            model.holder = model.holder.filter(|holder| *holder != number);
        }
    }

    async fn leave(&mut self) {
        let number = self.random.below(self.sites.len());
        self.store().leave(self.sites[number].incarnation).await.unwrap();
        self.rejoin(number).await;
    }

    async fn expire(&mut self) {
        let number = self.random.below(self.sites.len());
        self.world.clock.advance(TTL + Duration::from_secs(1));
        for (other, site) in self.sites.iter().enumerate() {
            if other != number {
                site.store.heartbeat(site.incarnation).await.unwrap();
            }
        }
        let buried = self.store().bury_expired().await;
        assert_eq!(buried, Ok(vec![self.sites[number].incarnation]), "{}", self.at);
        self.rejoin(number).await;
    }

    /// Age, being a dead letter, and being needed by the journal decide.
    async fn prune(&mut self, agent: usize) {
        let retention = Retention { inputs: KEPT, dead_letters: 1 };
        let before_ms = retention.inputs_before_ms(self.world.clock.wall_ms());
        let newest_dead = |input: &ModelInput| input.fate == Fate::GivenUp && !input.is_gone;
        let newest_dead = self.models[agent].inputs.iter().rposition(newest_dead);
        let needed: BTreeSet<usize> = self.models[agent].journal.values().flatten().copied().collect();
        let mut gone = 0;
        for (index, input) in self.models[agent].inputs.iter_mut().enumerate() {
            let is_over = input.ended_at_ms.is_some_and(|at| at <= before_ms);
            let is_kept = Some(index) == newest_dead || needed.contains(&index);
            if is_over && !input.is_gone && !is_kept {
                input.is_gone = true;
                gone += 1;
            }
        }
        let answered = self.store().prune(&id(AGENTS[agent]), &retention, Seq(0)).await;
        assert_eq!(answered, Ok(Pruned { inputs: gone, ..Pruned::default() }), "{}", self.at);
    }

    async fn reopen(&mut self) {
        let mut names = Vec::new();
        let mut last = None;
        for site in self.sites.drain(..) {
            names.push((site.host, site.incarnation));
            last = Some(site.store);
        }
        let store = self.world.reopen("a", Sharing::Shared, last.unwrap()).await;
        self.sites.extend(names.into_iter().map(|(host, incarnation)| Site {
            store: store.clone(),
            host,
            incarnation,
        }));
    }

    async fn compare(&self) {
        for (agent, model) in AGENTS.iter().zip(&self.models) {
            self.compare_agent(&id(agent), model).await;
            check_places(self.store(), &id(agent), &self.at).await;
        }
    }

    async fn compare_agent(&self, agent: &AgentId, model: &Model) {
        let (store, at) = (self.store(), &self.at);
        let row = store.agent(agent).await.unwrap().unwrap();
        let holder = model.holder.map(|number| self.sites[number].incarnation);
        assert_eq!(row.token, FencingToken(model.token), "{at}");
        assert_eq!(row.holder.map(|holder| holder.incarnation), holder, "{at}");
        assert_eq!(row.revision, Revision(model.revision), "{at}");
        assert_eq!(row.generation, Generation(model.generation), "{at}");
        assert_eq!(row.lifecycle, model.life.stored(), "{at}");
        assert_eq!(row.next_seq, Seq(model.inputs.len() as u64 + 1), "{at}");

        let inputs = store.inputs(agent, None, ALL).await.unwrap();
        let stored: Vec<(u64, InputId, Fate)> =
            inputs.iter().map(|input| (input.seq.0, input.input.id, fate(input.state))).collect();
        let expected: Vec<(u64, InputId, Fate)> = (1..)
            .zip(&model.inputs)
            .filter(|(_, input)| !input.is_gone)
            .map(|(seq, input)| (seq, input.id, input.fate))
            .collect();
        assert_eq!(row.inputs_pruned, (model.inputs.len() - expected.len()) as u64, "{at}");
        assert_eq!(stored, expected, "{at}");
        let open = store.open_inputs(agent, ALL).await.unwrap();
        let waiting: Vec<&ModelInput> =
            model.inputs.iter().filter(|input| input.fate == Fate::Waiting).collect();
        assert_eq!((open.len(), counted(&row)), (waiting.len(), counters(&open)), "{at}");
        let placings: Vec<(Lane, bool, bool)> = open
            .iter()
            .map(|input| (input.placing.lane, input.placing.wakes, input.state == InputState::Staged))
            .collect();
        let expected: Vec<(Lane, bool, bool)> =
            waiting.iter().map(|input| (input.lane, input.wakes, input.is_staged)).collect();
        assert_eq!(placings, expected, "{at}");
        let waking = waiting.iter().filter(|input| input.wakes).count() as u64;
        assert_eq!(row.waking_inputs, waking, "{at}");
        let runnable = store.runnable(self.sites[0].incarnation, PAGE_MAX).await.unwrap();
        let has_work = model.life.runs() && waking > 0 || model.life == Life::Retiring;
        let is_runnable = (has_work || !model.pending.is_empty()) && model.holder.is_none_or(|at| at == 0);
        assert_eq!(runnable.contains(agent), is_runnable, "{at}");

        let mut state = BTreeMap::new();
        for key in store.state_keys(agent, "", None, PAGE_MAX).await.unwrap() {
            let value = store.state_value(agent, &key).await.unwrap().unwrap();
            state.insert(key, String::from_utf8(value.to_vec()).unwrap());
        }
        assert_eq!(state, model.state, "{at}");

        let pending = store.pending_outputs(agent, ALL).await.unwrap();
        let pending: Vec<(&str, u64, u64)> = pending
            .iter()
            .map(|output| (output.output.destination.as_str(), output.generation.0, output.number))
            .collect();
        assert_eq!(pending, model.pending, "{at}");

        let timers = store.timers(agent).await.unwrap();
        let timers: Vec<(&str, u64)> =
            timers.iter().map(|timer| (timer.name.as_str(), timer.revision.0)).collect();
        let expected: Vec<(&str, u64)> =
            model.timers.iter().map(|(name, revision)| (*name, *revision)).collect();
        assert_eq!(timers, expected, "{at}");

        let mut kept: Vec<u64> = model.kept.into_iter().filter(|revision| *revision > 0).collect();
        kept.sort_unstable();
        let stored = store.kept_snapshots(agent).await.unwrap();
        assert_eq!(stored.iter().map(|kept| kept.revision.0).collect::<Vec<_>>(), kept, "{at}");
        let image = store.image(agent, None).await.unwrap().unwrap();
        assert_eq!((image.check(), &image.row), (Ok(()), &row), "{at}");
        let receipts = store.receipts(agent, row.generation, Revision(0), PAGE_MAX).await.unwrap();
        assert_eq!(receipts.len() as u64, model.revision, "{at}");
        assert!(receipts.is_sorted_by(|one, next| one.token <= next.token), "{at}");
    }
}

/// What an agent's row says of its open inputs: how many, and of how many bytes.
fn counted(row: &AgentRow) -> (u64, u64) {
    (row.open_inputs, row.open_bytes)
}

/// The same of the inputs themselves.
fn counters(open: &[StoredInput]) -> (u64, u64) {
    (open.len() as u64, open.iter().map(|stored| stored.input.bytes()).sum())
}

/// Each event of an agent has a number, and none has another's.
async fn check_places(store: &Store, agent: &AgentId, at: &str) {
    let next = store.agent(agent).await.unwrap().unwrap().next_event;
    let events = store.agent_events(agent, 0, PAGE_MAX).await.unwrap();
    let numbers = events.iter().filter_map(|event| event.place).map(|place| place.number);
    assert!(numbers.eq(1..next), "{at}");
}
