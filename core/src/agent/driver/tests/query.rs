//! Queries beside the driver: what they see, and that they leave nothing.

use super::*;
use crate::agent::Interrupted;
use crate::agent::query::{Queried, QueryError, query};
use crate::input::{FaultKind, Reply};
use crate::limits::QUERIES_PER_AGENT_MAX;
use crate::testing::scripted::MUTE;

/// Longer than any query takes, shorter than a guest that hangs.
const SOON: Duration = Duration::from_secs(5);

impl World {
    async fn query(&self, text: &str) -> Result<Queried, QueryError> {
        let asked = query(&self.env, self.grant().await, Bytes::from(text.to_owned()));
        within(SOON, asked).await.expect("an answer in time")
    }

    async fn says(&self, text: &str) -> String {
        said(&self.query(text).await.expect("an answer").reply)
    }
}

fn said(reply: &Reply) -> String {
    match &reply.outcome {
        ReplyOutcome::Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_query_is_answered_and_leaves_nothing() {
    for durability in [Durability::Auto, Durability::Snapshot, Durability::Journal] {
        let world = world_of(durability).await;
        let handle = world.drive().await;
        for text in ["add 2", "write a hello", "add 3"] {
            world.ask(&handle, text).await;
        }
        let before = world.row().await;
        assert_eq!(world.says("get").await, "5");
        assert_eq!(world.says("read a").await, "hello");
        let Queried { revision, token, .. } = world.query("get").await.unwrap();
        assert_eq!((revision, token), (Revision(4), before.token));
        assert_eq!(world.says("when").await, format!("4 {}", before.time_ms));
        assert_eq!(world.says("dice").await, world.says("dice").await, "no randomness of its own");
        assert!(said(&world.query("refuse").await.unwrap().reply).contains("Refused"));
        assert_eq!(world.row().await, before, "no row has changed: {durability:?}");
        assert_eq!(reply(&world.ask(&handle, "add 1").await), "6");
    }
}

#[tokio::test]
async fn a_query_is_answered_while_a_turn_runs_and_sees_nothing_of_it() {
    let world = world().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 2").await), "2");
    // Two turns of one burst: the first has run and is not committed when the second hangs.
    world.accept(world.input("add 40", None)).await;
    let hanging = world.accept(world.input("hang", None)).await;
    handle.wake();
    eventually("the second turn", || world.loader.hung() == 1).await;
    let row = world.row().await;
    let queried = world.query("get").await.unwrap();
    assert!(queried.revision >= row.revision);
    assert_eq!(said(&queried.reply), if queried.revision == Revision(2) { "2" } else { "42" });
    assert!(handle.is_running(), "the turn goes on");
    let ended = handle.interrupt().await.unwrap();
    assert_eq!(ended, Interrupted::Abandoned(vec![hanging]));
    assert_eq!(reply(&world.ask(&handle, "get").await), "42");
    assert_eq!(world.says("get").await, "42");
}

#[tokio::test]
async fn a_journaled_agent_is_asked_at_its_head() {
    let world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    for text in ["add 2", "dice", "write a x", "read a"] {
        world.ask(&handle, text).await;
    }
    let live = reply(&world.ask(&handle, "get").await);
    assert_eq!(world.says("get").await, live);
    assert_eq!(world.says("age").await, "5", "all turns since the base have run in it");
}

#[tokio::test]
async fn parked_paused_and_retiring_agents_answer_and_others_say_why_not() {
    let world = world().await;
    let new = world.query("get").await;
    assert_eq!(new, Err(QueryError::NotInitialized));
    let handle = world.drive().await;
    world.ask(&handle, "add 7").await;
    handle.park().await;
    assert_eq!(world.says("get").await, "7", "parked");
    world.change(&Verb::Pause).await;
    assert_eq!(world.says("get").await, "7", "paused");
    world.change(&Verb::Retire).await;
    assert_eq!(world.says("get").await, "7", "retiring");
    for verb in [Verb::Drained, Verb::Break(BrokenReason::Forked), Verb::Delete] {
        world.change(&verb).await;
        let refused = world.query("get").await;
        let state = world.row().await.lifecycle;
        assert_eq!(refused, Err(QueryError::Store(StoreError::Lifecycle { state })));
    }
}

#[tokio::test]
async fn a_query_that_fails_harms_nobody_and_counts_for_nothing() {
    let world = world().await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    let before = world.row().await;
    for _ in 0..5 {
        match world.query("nonsense").await {
            Err(QueryError::Fault(fault)) => assert_eq!(fault.kind, FaultKind::Trap),
            other => panic!("{other:?}"),
        }
    }
    let failed =
        |message: &str, is_retryable| Err(QueryError::Agent { message: message.into(), is_retryable });
    assert_eq!(world.query("fatal").await, failed("never", false));
    assert_eq!(world.query("retry").await, failed("later", true));
    assert_eq!(world.row().await, before);
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "2");
}

#[tokio::test]
async fn queries_of_one_agent_are_bounded_and_end_with_their_callers() {
    let world = world().await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    let grant = world.grant().await;
    let again = || Grant { lease: grant.lease.clone(), guard: grant.guard.clone(), warm: None };
    let hang = |_| Box::pin(query(&world.env, again(), Bytes::from_static(b"hang")));
    let mut hanging: Vec<_> = (0..QUERIES_PER_AGENT_MAX).map(hang).collect();
    for query in &mut hanging {
        // Looked at once, it has its place.
        assert_eq!(within(Duration::ZERO, query).await, None);
    }
    assert_eq!(world.query("get").await, Err(QueryError::Busy { depth: QUERIES_PER_AGENT_MAX }));
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "2", "turns are not held up");
    drop(hanging);
    assert_eq!(world.says("get").await, "2", "their threads are free again");
}

#[tokio::test]
async fn a_lease_that_is_anothers_answers_nothing() {
    let world = world().await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    let stale = world.grant().await;
    let newer = join(world.env.store.as_ref()).await;
    let agents = std::slice::from_ref(&world.agent);
    world.env.store.acquire(newer, agents).await.unwrap().remove(0).unwrap();
    let refused = query(&world.env, stale, Bytes::from_static(b"get")).await;
    assert_eq!(refused, Err(QueryError::Lost));
}

#[tokio::test]
async fn a_plugin_that_answers_none_says_so() {
    let world = world().await;
    let (plugin, _) = script_plugin();
    let component = Bytes::from_static(MUTE);
    let mute =
        crate::spec::PluginInfo { digest: crate::digest::Digest::of(MUTE), name: "mute".into(), ..plugin };
    world.env.loader.load(&component).unwrap();
    let spec = Spec::new(mute.digest);
    world.env.store.put_plugin(mute, component).await.unwrap();
    let agent = AgentId::parse("mute").unwrap();
    let new = NewAgent { agent: agent.clone(), spec, labels: BTreeMap::new(), now_ms: 1, claim: None };
    world.env.store.create(new).await.unwrap();
    let world = World { agent, ..world };
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    assert_eq!(world.query("get").await, Err(QueryError::NoQuery));
}

/// Turns paint all rows in one colour, while queries look at each: they must never see two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_never_sees_rows_of_two_revisions() {
    const ROWS: usize = 40;
    let paint = |turn| format!("paint {ROWS} colour-{turn}");
    look_while_turns_run(&format!("scan {ROWS}"), paint, |said| assert_eq!(said, "1", "colours at once"))
        .await;
}

/// Each turn adds one and starts an operation: the state and the list must be of one revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_never_sees_operations_of_another_revision() {
    let is_one = |said: &str| {
        let (sum, started) = said.split_once(' ').unwrap();
        assert_eq!(sum, started, "operations of another revision");
    };
    look_while_turns_run("started", |_| "start".to_owned(), is_one).await;
}

/// Asks the same again and again while turns commit, and has each answer checked.
async fn look_while_turns_run(question: &str, turn: impl Fn(u32) -> String, check: fn(&str)) {
    let world = world().await;
    let handle = world.drive().await;
    world.ask(&handle, &turn(0)).await;
    let grant = world.grant().await;
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let looks = {
        let (env, is_over, question) = (world.env.clone(), is_over.clone(), question.to_owned());
        tokio::spawn(async move {
            let (mut looked, mut busy) = (0, 0);
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let grant = Grant { lease: grant.lease.clone(), guard: grant.guard.clone(), warm: None };
                match query(&env, grant, Bytes::from(question.clone())).await {
                    Ok(queried) => {
                        check(&said(&queried.reply));
                        looked += 1;
                    }
                    Err(QueryError::Busy { .. }) => busy += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            (looked, busy)
        })
    };
    for number in 1..=200 {
        world.ask(&handle, &turn(number)).await;
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let (looked, busy) = looks.await.unwrap();
    println!("{looked} looks, {busy} busy");
    assert!(looked > 0, "no query was ever answered");
}
