//! Tests of the driver over the memory store and scripted guests.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::*;
use crate::agent::{GuestPool, MemoryNotes};
use crate::guest::GuestLoader;
use crate::id::{FencingToken, HostId, Incarnation};
use crate::input::{DeadLetterReason, Input, Kind, Mode, NewInput, Outcome, ReplyOutcome, Source};
use crate::lease::{LeaseProfile, SessionLease};
use crate::limits::Quotas;
use crate::spec::{Durability, Spec};
use crate::store::memory::MemoryStore;
use crate::store::{AcceptError, AgentRow, NewAgent, RuntimeStore, SessionRequest, Sharing};
use crate::testing::{ScriptedLoader, script_plugin};
use crate::time::{Clock, SystemClock};

mod flight;
mod journal;
mod query;
mod quotas;
mod recover;
mod start;

struct World {
    env: AgentEnv,
    /// Also in `env`, as are the notes.
    memory: MemoryStore,
    load_notes: Arc<MemoryNotes>,
    loader: Arc<ScriptedLoader>,
    tasks: TaskGroup,
    agent: AgentId,
    incarnation: Incarnation,
    session: Arc<SessionLease>,
    notices: Arc<Mutex<Vec<Notice>>>,
    ids: std::cell::Cell<u8>,
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(Duration::from_secs(20), wait).await.unwrap_or_else(|| panic!("never: {what}"));
}

fn host() -> HostId {
    HostId([7; 32])
}

async fn join(store: &dyn RuntimeStore) -> Incarnation {
    let address = "127.0.0.1:1".parse().unwrap();
    let request = SessionRequest {
        host: host(),
        name: "h".into(),
        api: address,
        mesh: address,
        ttl: LeaseProfile::FAST.ttl,
        now_ms: 1,
    };
    store.join(request).await.unwrap().incarnation
}

async fn world() -> World {
    world_of(Durability::Auto).await
}

async fn world_of(durability: Durability) -> World {
    world_within(durability, Quotas::default()).await
}

async fn world_within(durability: Durability, quotas: Quotas) -> World {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let memory = MemoryStore::new(Sharing::Exclusive, clock.clone(), quotas);
    let store: Arc<dyn RuntimeStore> = Arc::new(memory.clone());
    let (plugin, component) = script_plugin();
    let loader = Arc::new(ScriptedLoader::default());
    loader.load(&component).unwrap();
    let agent = AgentId::parse("a").unwrap();
    let spec = Spec { durability, ..Spec::new(plugin.digest) };
    store.put_plugin(plugin, component).await.unwrap();
    store
        .create(NewAgent { agent: agent.clone(), spec, labels: BTreeMap::new(), now_ms: 1, claim: None })
        .await
        .unwrap();
    let incarnation = join(store.as_ref()).await;
    let notices = Arc::new(Mutex::new(Vec::new()));
    let told = notices.clone();
    let load_notes = Arc::new(MemoryNotes::default());
    let env = AgentEnv {
        store,
        loader: loader.clone(),
        pool: GuestPool::start(2),
        queries: Arc::default(),
        spares: Arc::new(Semaphore::new(1)),
        clock,
        host: host(),
        load_notes: load_notes.clone(),
        notify: Arc::new(move |notice| told.lock().unwrap().push(notice)),
        park_after: Duration::from_secs(60),
        watched: Arc::default(),
    };
    let session = SessionLease::unlimited();
    let ids = std::cell::Cell::new(0);
    World {
        env,
        memory,
        load_notes,
        loader,
        tasks: TaskGroup::default(),
        agent,
        incarnation,
        session,
        notices,
        ids,
    }
}

impl World {
    async fn grant(&self) -> Grant {
        let agents = std::slice::from_ref(&self.agent);
        let lease = self.env.store.acquire(self.incarnation, agents).await.unwrap().remove(0).unwrap();
        let guard = LeaseGuard::new(self.session.clone(), lease.token);
        Grant { lease, guard, warm: None }
    }

    async fn drive(&self) -> Handle {
        spawn(self.env.clone(), &self.tasks, self.grant().await)
    }

    fn input(&self, text: &str, key: Option<&str>) -> NewInput {
        self.ids.set(self.ids.get() + 1);
        let input = Input {
            id: InputId([self.ids.get(); 16]),
            kind: Kind::Message,
            source: Source::Operator,
            content_type: "text/plain".into(),
            payload: Bytes::from(text.to_owned()),
            headers: Vec::new(),
            correlation: None,
            accepted_at_ms: 1,
        };
        let idempotency_key = key.map(str::to_owned);
        NewInput { idempotency_key, ..NewInput::of_host(&self.agent, input) }
    }

    async fn row(&self) -> AgentRow {
        self.env.store.agent(&self.agent).await.unwrap().unwrap()
    }

    async fn change(&self, verb: &Verb) {
        let lease = self.grant().await.lease;
        let Lease { agent, generation, token, incarnation, .. } = lease;
        let owner = Owner { agent, generation, incarnation, token };
        let from = self.row().await.lifecycle;
        let commit = LifecycleCommit::plan(&self.agent, &from, verb, 1).unwrap();
        self.env.store.commit_lifecycle(&owner, commit).await.unwrap();
    }

    async fn ask(&self, handle: &Handle, text: &str) -> Answer {
        let asked = handle.ask(self.input(text, None));
        within(Duration::from_secs(20), asked).await.expect("an answer in time").expect("a driver")
    }

    /// Occupies a guest thread until it is told otherwise, or for good.
    async fn occupy(&self) -> (std::sync::mpsc::SyncSender<()>, impl Future<Output = ()>) {
        let (begin, begun) = oneshot::channel();
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let pool = self.env.pool.clone();
        let other = tokio::spawn(async move {
            let job = move || {
                begin.send(()).unwrap();
                released.recv().unwrap();
            };
            pool.run(crate::digest::Digest::of(b"other"), job).await
        });
        begun.await.unwrap();
        (release, async move { other.await.unwrap().unwrap() })
    }
}

fn reply(answer: &Answer) -> String {
    match answer {
        Answer::Ended { outcome: Outcome::Committed { reply, .. }, .. } => match &reply.outcome {
            ReplyOutcome::Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lone_ask_of_a_quick_agent_stays_on_the_thread_of_its_task() {
    let world = world().await;
    let handle = world.drive().await;
    let mut places = Vec::new();
    // A turn that the machine held up is not quick, and the one after it goes to the pool.
    while places.len() < 20 && !places.contains(&"task".to_owned()) {
        places.push(reply(&world.ask(&handle, "where").await));
    }
    assert_eq!(places.last().map(String::as_str), Some("task"), "{places:?}");
    let (release, other) = world.occupy().await;
    assert_eq!(reply(&world.ask(&handle, "where").await), "pool", "beside another turn");
    release.send(()).unwrap();
    other.await;
}

#[tokio::test]
async fn asks_are_answered_after_their_commit_and_survive_a_new_driver() {
    let world = world().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 2").await), "2");
    assert_eq!(reply(&world.ask(&handle, "add 3").await), "5");
    handle.park().await;
    let row = world.env.store.agent(&world.agent).await.unwrap().unwrap();
    assert_eq!(row.revision, Revision(3), "init and two turns");
    assert_eq!(row.open_inputs, 0);
    let again = world.drive().await;
    assert_eq!(reply(&world.ask(&again, "get").await), "5");
}

#[tokio::test]
async fn sends_run_before_later_asks_and_in_order() {
    let world = world().await;
    for text in ["add 1", "add 10"] {
        world.env.store.accept(world.input(text, None), world.incarnation).await.unwrap();
    }
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 100").await), "111");
}

#[tokio::test]
async fn a_repeated_key_is_answered_from_the_store_and_another_body_is_refused() {
    let world = world().await;
    let handle = world.drive().await;
    let first = handle.ask(world.input("add 2", Some("k"))).await.unwrap();
    let second = handle.ask(world.input("add 2", Some("k"))).await.unwrap();
    assert_eq!(reply(&first), reply(&second));
    assert!(matches!(second, Answer::Ended { is_duplicate: true, .. }), "{second:?}");
    let other = handle.ask(world.input("add 3", Some("k"))).await.unwrap();
    assert_eq!(other, Answer::NotAccepted(NotAccepted::Refused(AcceptError::KeyReused)));
    assert_eq!(reply(&world.ask(&handle, "get").await), "2");
}

#[tokio::test]
async fn refusing_commits_fatal_is_dead_lettered_and_the_agent_goes_on() {
    let world = world().await;
    let handle = world.drive().await;
    assert!(reply(&world.ask(&handle, "refuse").await).contains("Refused"));
    match world.ask(&handle, "fatal").await {
        Answer::Ended {
            outcome: Outcome::DeadLettered { reason: DeadLetterReason::Fatal { .. }, .. },
            ..
        } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
}

#[tokio::test]
async fn a_host_that_panics_in_a_turn_goes_on_and_does_not_hurry() {
    let world = world().await;
    let handle = world.drive().await;
    assert!(matches!(world.ask(&handle, "panic").await, Answer::Unknown { .. }), "nobody knows");
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    let before = world.loader.started();
    world.accept(world.input("panic", None)).await;
    handle.wake();
    sleep(Duration::from_millis(400)).await;
    let tries = world.loader.started() - before;
    assert!((1..=6).contains(&tries), "{tries} tries in 400 ms");
    assert_eq!(world.open().await.len(), 1, "it waits");
}

#[tokio::test]
async fn attempts_are_durable_and_end_in_a_dead_letter() {
    let world = world().await;
    let handle = world.drive().await;
    match world.ask(&handle, "trap").await {
        Answer::Ended { outcome: Outcome::DeadLettered { reason, .. }, .. } => {
            assert!(matches!(reason, DeadLetterReason::Fault { attempts: 3, .. }), "{reason:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reply(&world.ask(&handle, "retry-until 3").await), "0");
    let open = world.env.store.open_inputs(&world.agent, Page { after: 0, limit: 10 }).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test]
async fn a_driver_that_lost_its_lease_commits_nothing_and_sends_callers_on() {
    let world = world().await;
    let stale = world.drive().await;
    assert_eq!(reply(&world.ask(&stale, "add 1").await), "1");
    let newer = join(world.env.store.as_ref()).await;
    let agents = std::slice::from_ref(&world.agent);
    world.env.store.acquire(newer, agents).await.unwrap().remove(0).unwrap();
    assert_eq!(world.ask(&stale, "add 1").await, Answer::Elsewhere);
    let row = world.env.store.agent(&world.agent).await.unwrap().unwrap();
    assert_eq!(row.revision, Revision(2));
    let ended = Notice::Ended(world.agent.clone(), End::Lost);
    assert!(world.notices.lock().unwrap().contains(&ended));
}

#[tokio::test]
async fn a_frozen_agent_keeps_callers_waiting_and_thaws() {
    let world = world().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    let frozen = handle.freeze().await.unwrap();
    assert_eq!(frozen.revision, Revision(2));
    let asking = world.ask(&handle, "add 1");
    tokio::pin!(asking);
    assert_eq!(within(Duration::from_millis(50), &mut asking).await, None);
    drop(frozen);
    assert_eq!(reply(&asking.await), "2");
    let frozen = handle.freeze().await.unwrap();
    let asking = world.ask(&handle, "add 1");
    tokio::pin!(asking);
    assert_eq!(within(Duration::from_millis(20), &mut asking).await, None);
    frozen.moved().await;
    assert_eq!(asking.await, Answer::Elsewhere);
}

#[tokio::test]
async fn outputs_are_announced_with_their_commit() {
    let world = world().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "send b hello").await), "0");
    assert!(world.notices.lock().unwrap().contains(&Notice::Outputs(world.agent.clone())));
    let pending = world.env.store.pending_outputs(&world.agent, Page { after: 0, limit: 10 }).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].number, 1);
}

#[tokio::test]
async fn a_dead_letter_that_is_tried_again_runs_at_its_old_place() {
    let world = world().await;
    let handle = world.drive().await;
    let input = world.input("fatal", Some("k"));
    let id = input.input.id;
    handle.ask(input).await.unwrap();
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    world.env.store.redrive(&world.agent, id).await.unwrap();
    let joined = handle.join(id, Seq(1));
    let again = within(Duration::from_secs(20), joined).await.expect("it ends again");
    assert!(matches!(again, Answer::Ended { outcome: Outcome::DeadLettered { .. }, .. }), "{again:?}");
    world.env.store.redrive(&world.agent, id).await.unwrap();
    handle.reload().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "2");
    let open = world.env.store.open_inputs(&world.agent, Page { after: 0, limit: 10 }).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
}

impl World {
    fn steer(&self, text: &str) -> NewInput {
        NewInput { mode: Mode::Steer, ..self.input(text, None) }
    }

    fn silent(&self, text: &str) -> NewInput {
        NewInput { is_silent: true, ..self.input(text, None) }
    }

    fn event(&self, text: &str) -> NewInput {
        let mut new = self.input(text, None);
        new.input.kind = Kind::Event;
        new
    }

    async fn accept(&self, new: NewInput) -> InputId {
        let id = new.input.id;
        self.env.store.accept(new, self.incarnation).await.unwrap();
        id
    }

    /// The inputs that each turn's receipt names, in order.
    async fn turns(&self) -> Vec<Vec<InputId>> {
        let generation = crate::id::Generation(1);
        let receipts = self.env.store.receipts(&self.agent, generation, Revision(1), 100).await.unwrap();
        receipts.into_iter().map(|receipt| receipt.inputs).collect()
    }

    async fn open(&self) -> Vec<InputId> {
        let open = self.env.store.open_inputs(&self.agent, Page { after: 0, limit: 100 }).await.unwrap();
        open.into_iter().map(|input| input.input.id).collect()
    }
}

#[tokio::test]
async fn steer_runs_before_queue_also_by_the_next_driver_of_another_session() {
    let mut world = world().await;
    let first = world.accept(world.input("add 1", None)).await;
    let second = world.accept(world.input("add 2", None)).await;
    let steered = world.accept(world.steer("add 10")).await;
    let later = world.accept(world.steer("add 20")).await;
    world.incarnation = join(world.env.store.as_ref()).await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "get").await), "33");
    assert_eq!(world.turns().await[..4], [[steered], [later], [first], [second]]);
}

#[tokio::test]
async fn silent_inputs_wait_for_one_that_wakes_and_run_before_it() {
    let world = world().await;
    let silent = world.accept(world.silent("add 1")).await;
    let handle = world.drive().await;
    handle.wake();
    handle.park().await;
    assert_eq!(world.turns().await, Vec::<Vec<InputId>>::new(), "nothing woke it");
    assert_eq!(world.open().await, [silent]);
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 10").await), "11");
    assert_eq!(world.turns().await[0], [silent]);
    let behind = world.accept(world.silent("add 100")).await;
    handle.wake();
    assert_eq!(reply(&world.ask(&handle, "add 0").await), "111", "an ask takes along what waits");
    assert!(!world.open().await.contains(&behind));
}

#[tokio::test]
async fn an_ask_that_joins_a_silent_input_rouses_it() {
    let world = world().await;
    let silent = NewInput { is_silent: true, ..world.input("add 1", Some("k")) };
    world.accept(silent).await;
    let handle = world.drive().await;
    let asked = handle.ask(world.input("add 1", Some("k")));
    let answer = within(Duration::from_secs(20), asked).await.expect("it runs").unwrap();
    assert_eq!(reply(&answer), "1");
}

#[tokio::test]
async fn neighbours_that_join_share_a_turn_with_one_receipt_and_a_reply_each() {
    let world = world().await;
    let mut ids = Vec::new();
    for text in ["add 1", "add 2", "add 3"] {
        ids.push(world.accept(world.event(text)).await);
    }
    let alone = world.accept(world.input("add 10", None)).await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "get").await), "16");
    let turns = world.turns().await;
    assert_eq!(turns[..2], [ids.clone(), vec![alone]]);
    for (id, sum) in ids.iter().zip(["1", "3", "6"]) {
        let stored = world.env.store.input(&world.agent, *id).await.unwrap().unwrap();
        let Some(Outcome::Committed { revision, reply, .. }) = stored.outcome else {
            panic!("{:?}", stored.outcome);
        };
        assert_eq!(revision, Revision(2), "one boundary");
        assert_eq!(reply.outcome, ReplyOutcome::Ok(Bytes::from(sum)));
    }
}

/// A batch with a poison in it fails as a whole; its inputs then run one by one, and only the poison is given up.
async fn a_failed_batch_runs_one_by_one(is_taken_over: bool) {
    let mut world = world().await;
    let mut ids = Vec::new();
    for text in ["add 1", "trap", "add 2"] {
        ids.push(world.accept(world.event(text)).await);
    }
    if is_taken_over {
        // Another session stages them first.
        world.incarnation = join(world.env.store.as_ref()).await;
    }
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "get").await), "3");
    assert_eq!(world.turns().await[..3], [[ids[0]], [ids[1]], [ids[2]]], "in their order");
    let poison = world.env.store.input(&world.agent, ids[1]).await.unwrap().unwrap();
    let Some(Outcome::DeadLettered { reason: DeadLetterReason::Fault { attempts, .. }, .. }) = poison.outcome
    else {
        panic!("{:?}", poison.outcome);
    };
    assert_eq!(attempts, crate::limits::ATTEMPTS_MAX, "the batch was no attempt");
}

#[tokio::test]
async fn a_failed_batch_counts_nothing_and_runs_one_by_one() {
    a_failed_batch_runs_one_by_one(false).await;
}

#[tokio::test]
async fn a_failed_batch_of_a_takeover_counts_nothing_either() {
    a_failed_batch_runs_one_by_one(true).await;
}

#[tokio::test]
async fn who_asked_for_a_replaced_input_is_told_by_which() {
    let world = world().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    let frozen = handle.freeze().await.unwrap();
    let keyed = |text| NewInput { supersedes: Some("k".into()), ..world.input(text, None) };
    let older = keyed("add 10");
    let (id, newer) = (older.input.id, keyed("add 100"));
    let by = newer.input.id;
    world.accept(older).await;
    let joined = handle.join(id, Seq(2));
    tokio::pin!(joined);
    assert_eq!(within(Duration::from_millis(20), &mut joined).await, None);
    world.accept(newer).await;
    drop(frozen);
    let answer = within(Duration::from_secs(20), joined).await.expect("an answer in time");
    let replaced = Outcome::Replaced { by };
    assert!(matches!(&answer, Answer::Ended { outcome, .. } if *outcome == replaced), "{answer:?}");
    assert_eq!(reply(&world.ask(&handle, "get").await), "101");
}

#[tokio::test]
async fn an_ask_may_take_the_place_of_a_queued_input() {
    let world = world().await;
    let keyed = |text| NewInput { supersedes: Some("k".into()), ..world.input(text, None) };
    let older = NewInput { is_silent: true, ..keyed("add 10") };
    let id = world.accept(older).await;
    let handle = world.drive().await;
    let asked = handle.ask(keyed("add 1"));
    let answer = within(Duration::from_secs(20), asked).await.expect("an answer in time").unwrap();
    assert_eq!(reply(&answer), "1");
    let older = world.env.store.input(&world.agent, id).await.unwrap().unwrap();
    assert!(matches!(older.outcome, Some(Outcome::Replaced { .. })), "{older:?}");
}

#[tokio::test]
async fn an_input_under_suspicion_runs_while_nobody_else_does() {
    let world = world().await;
    let suspect = world.accept(world.input("add 1", None)).await;
    let desk = world.grant().await;
    let owner = Owner {
        agent: world.agent.clone(),
        generation: desk.lease.generation,
        incarnation: world.incarnation,
        token: desk.lease.token,
    };
    let attempt = |deaths| crate::store::Attempt {
        seq: Seq(1),
        state: crate::input::InputState::Staged,
        attempts: 2,
        deaths,
    };
    let stage = |deaths| crate::store::Unit {
        owner: owner.clone(),
        base: Revision(0),
        steps: vec![crate::store::Step::Attempts(vec![attempt(deaths)])],
    };
    assert_eq!(world.env.store.commit_turns(stage(1)).await.failure, None);
    // Somebody else's guest call is under way: the suspect must wait for its end.
    let (release, other) = world.occupy().await;
    let handle = spawn(world.env.clone(), &world.tasks, desk);
    let asked = world.ask(&handle, "get");
    tokio::pin!(asked);
    assert_eq!(within(Duration::from_millis(100), &mut asked).await, None);
    assert_eq!(world.turns().await, Vec::<Vec<InputId>>::new());
    release.send(()).unwrap();
    other.await;
    assert_eq!(reply(&asked.await), "1");
    assert_eq!(world.turns().await[0], [suspect]);
    let stored = world.env.store.input(&world.agent, suspect).await.unwrap().unwrap();
    assert_eq!((stored.attempts, stored.deaths), (3, 2), "durably marked before it ran");
}

#[tokio::test]
async fn an_input_that_killed_the_host_when_it_ran_alone_is_given_up() {
    let world = world().await;
    let killer = world.accept(world.input("add 1", None)).await;
    let desk = world.grant().await;
    let owner = Owner {
        agent: world.agent.clone(),
        generation: desk.lease.generation,
        incarnation: world.incarnation,
        token: desk.lease.token,
    };
    let attempt = crate::store::Attempt {
        seq: Seq(1),
        state: crate::input::InputState::Staged,
        attempts: 3,
        deaths: 2,
    };
    let steps = vec![crate::store::Step::Attempts(vec![attempt])];
    let unit = crate::store::Unit { owner, base: Revision(0), steps };
    assert_eq!(world.env.store.commit_turns(unit).await.failure, None);
    let handle = spawn(world.env.clone(), &world.tasks, desk);
    assert_eq!(reply(&world.ask(&handle, "add 5").await), "5", "the next input runs");
    let stored = world.env.store.input(&world.agent, killer).await.unwrap().unwrap();
    let killed = DeadLetterReason::KilledHost { attempts: 3 };
    assert!(matches!(&stored.outcome, Some(Outcome::DeadLettered { reason, .. }) if *reason == killed));
}

#[tokio::test]
async fn who_asked_for_a_reply_gets_one_however_the_input_ends() {
    let world = world().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "get").await), "0");
    for (text, expects_reply, how, payload) in [
        ("add 2", true, Some("ok"), "2"),
        ("refuse", true, Some("refused"), ""),
        ("fatal", true, Some("dead-letter"), "never"),
        ("add 1", false, None, ""),
    ] {
        let mut asked = world.input(text, None);
        let peer = AgentId::parse("peer").unwrap();
        asked.input.source = Source::Peer { agent: peer.clone(), expects_reply };
        asked.input.correlation = Some(format!("request {text}"));
        let before = world.pending().await.len();
        within(Duration::from_secs(20), handle.ask(asked)).await.expect("it ends").unwrap();
        let pending = world.pending().await;
        let Some(how) = how else {
            assert_eq!(pending.len(), before, "nobody waits");
            continue;
        };
        let answer = &pending.last().expect("an answer").output;
        assert_eq!(pending.len(), before + 1, "{text}");
        assert_eq!((&answer.destination, &answer.kind), (&peer, &Kind::PeerResponseTerminal));
        assert_eq!(answer.correlation, Some(format!("request {text}")));
        assert_eq!(answer.headers[0], (crate::reply::REPLY_HEADER.to_owned(), how.to_owned()));
        assert_eq!(answer.payload, payload);
    }
    assert!(world.notices.lock().unwrap().contains(&Notice::Outputs(world.agent.clone())));
}

impl World {
    async fn pending(&self) -> Vec<crate::output::StoredOutput> {
        self.env.store.pending_outputs(&self.agent, Page { after: 0, limit: 100 }).await.unwrap()
    }
}

#[tokio::test]
async fn what_retires_runs_what_waited_in_silence_and_rests() {
    let world = world().await;
    let silent = world.accept(world.silent("add 1")).await;
    let grant = world.grant().await;
    let owner = Owner {
        agent: world.agent.clone(),
        generation: grant.lease.generation,
        incarnation: world.incarnation,
        token: grant.lease.token,
    };
    let retire = LifecycleCommit::plan(&world.agent, &Lifecycle::Active, &Verb::Retire, 1).unwrap();
    world.env.store.commit_lifecycle(&owner, retire).await.unwrap();
    let handle = spawn(world.env.clone(), &world.tasks, grant);
    let retired = async {
        while handle.is_alive() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(within(Duration::from_secs(5), retired).await.is_some(), "it rests at last");
    let row = world.env.store.agent(&world.agent).await.unwrap().unwrap();
    assert_eq!(row.lifecycle, Lifecycle::Retired);
    assert_eq!(world.turns().await, [[silent]]);
}

#[tokio::test]
async fn an_input_that_another_host_opened_or_roused_is_found_by_the_scan() {
    let world = world().await;
    let handle = world.drive().await;
    let input = world.input("fatal", Some("k"));
    let id = input.input.id;
    handle.ask(input).await.unwrap();
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    // Done by another host on the same file: all that this one hears of it is its scan.
    world.env.store.redrive(&world.agent, id).await.unwrap();
    let ended = async {
        while !world.open().await.is_empty() {
            handle.remind();
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(within(Duration::from_secs(5), ended).await.is_some(), "it runs again");
    let silent = world.silent("add 10");
    let waking = NewInput { is_silent: false, ..silent.clone() };
    let silent = NewInput { idempotency_key: Some("s".into()), ..silent };
    let waking = NewInput { idempotency_key: Some("s".into()), ..waking };
    world.accept(silent).await;
    handle.wake();
    let kept = within(Duration::from_secs(20), handle.checkpoint()).await.unwrap().unwrap();
    assert_eq!(kept.revision, Revision(4));
    world.env.store.accept(waking, world.incarnation).await.unwrap();
    let ended = async {
        while !world.open().await.is_empty() {
            handle.remind();
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(within(Duration::from_secs(5), ended).await.is_some(), "it was roused");
}

#[test]
fn callers_who_gave_up_are_forgotten() {
    let mut waiters = Waiters::of(InputId([1; 16]));
    let (patient, waiting) = oneshot::channel();
    waiters.add(patient);
    for _ in 0..10_000 {
        waiters.add(oneshot::channel().0);
    }
    assert!(waiters.answers.len() < 10, "{}", waiters.answers.len());
    assert!(waiters.answers.iter().any(|answer| !answer.is_closed()), "who waits is kept");
    drop(waiting);
}
