//! Tests of the driver over the memory store and scripted guests.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::*;
use crate::agent::GuestPool;
use crate::guest::GuestLoader;
use crate::id::{HostId, Incarnation};
use crate::input::{DeadLetterReason, Input, Kind, NewInput, Outcome, ReplyOutcome, Source};
use crate::lease::{LeaseProfile, SessionLease};
use crate::limits::GuestLimits;
use crate::spec::Spec;
use crate::store::memory::MemoryStore;
use crate::store::{AcceptError, NewAgent, RuntimeStore, SessionRequest};
use crate::testing::{ScriptedLoader, script_plugin};
use crate::time::{Clock, SystemClock};

struct World {
    env: AgentEnv,
    tasks: TaskGroup,
    agent: AgentId,
    incarnation: Incarnation,
    session: Arc<SessionLease>,
    notices: Arc<Mutex<Vec<Notice>>>,
    ids: std::cell::Cell<u8>,
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
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store: Arc<dyn RuntimeStore> = Arc::new(MemoryStore::exclusive(clock.clone()));
    let (plugin, component) = script_plugin();
    let loader = ScriptedLoader::default();
    loader.load(&component).unwrap();
    let agent = AgentId::parse("a").unwrap();
    let spec = Spec { plugin: plugin.digest, config: BTreeMap::new(), limits: GuestLimits::default() };
    store.put_plugin(plugin, component).await.unwrap();
    store.create(NewAgent { agent: agent.clone(), spec, labels: BTreeMap::new(), now_ms: 1 }).await.unwrap();
    let incarnation = join(store.as_ref()).await;
    let notices = Arc::new(Mutex::new(Vec::new()));
    let told = notices.clone();
    let env = AgentEnv {
        store,
        loader: Arc::new(loader),
        pool: GuestPool::start(2),
        spares: Arc::new(Semaphore::new(1)),
        clock,
        host: host(),
        notify: Arc::new(move |notice| told.lock().unwrap().push(notice)),
        park_after: Duration::from_secs(60),
    };
    let session = SessionLease::unlimited();
    let ids = std::cell::Cell::new(0);
    World { env, tasks: TaskGroup::default(), agent, incarnation, session, notices, ids }
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
        NewInput {
            agent: self.agent.clone(),
            input: Input {
                id: InputId([self.ids.get(); 16]),
                kind: Kind::Message,
                source: Source::Operator,
                content_type: "text/plain".into(),
                payload: Bytes::from(text.to_owned()),
                headers: Vec::new(),
                correlation: None,
                accepted_at_ms: 1,
            },
            idempotency_key: key.map(str::to_owned),
            delivery: None,
        }
    }

    async fn ask(&self, handle: &Handle, text: &str) -> Answer {
        let asked = handle.ask(self.input(text, None));
        within(Duration::from_secs(20), asked).await.expect("an answer in time").expect("a driver")
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
