//! Replaying beside the agent: what can't be run again is passed by, and what comes out otherwise is said.

use std::sync::atomic::{AtomicU32, Ordering};

use godwit_core::id::Revision;
use godwit_core::spec::{Durability, SpecPatch};
use godwit_store::{SqliteMode, SqliteStore};

use super::*;
use crate::runtime::replay::ReplayReport;
use crate::runtime::respec::SpecUpdate;
use crate::runtime::verbs::{VerbCall, VerbDetail};

async fn agent(durability: Durability) -> Runtime {
    agent_in(separate_store(), durability).await
}

async fn agent_in(store: Arc<dyn RuntimeStore>, durability: Durability) -> Runtime {
    let network = SimNetwork::default();
    let host = host(&network, 1, store).await;
    let patch = SpecPatch { durability: Some(durability), ..SpecPatch::default() };
    let request = CreateAgent { patch, ..CreateAgent::new(id("a"), "script") };
    host.create_agent(request).await.unwrap();
    host
}

async fn replay(host: &Runtime, to: Option<u64>) -> Result<ReplayReport, CallError> {
    let replay = AgentCall::Replay { to: to.map(Revision) };
    call(host, "a", replay).await.map(|reply| match reply {
        AgentReply::Replayed(report) => report,
        other => panic!("{other:?}"),
    })
}

/// The report of a replay in which all is well: where it began, where it ended, and the turns that ran again.
async fn replayed(host: &Runtime, to: Option<u64>) -> (u64, u64, u64) {
    let report = replay(host, to).await.unwrap();
    assert_eq!(report.breaks, [""; 0]);
    assert!(report.state.is_some(), "{report:?}");
    (report.from.0, report.to.0, report.turns)
}

async fn checkpoint(host: &Runtime) {
    call(host, "a", AgentCall::Checkpoint).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_respawn_that_can_t_rebuild_the_agent_has_happened() {
    let host = agent(Durability::Journal).await;
    ask(&host, "a", "drift").await;
    let before = host.inner().store.agent(&id("a")).await.unwrap().unwrap().token;
    let respawn = call(&host, "a", AgentCall::Verb(VerbCall::Respawn)).await;
    let Ok(AgentReply::Verb(report)) = respawn else { panic!("{respawn:?}") };
    let VerbDetail::Fenced { token_before, token, .. } = report.detail else { panic!("{report:?}") };
    assert_eq!((token_before, token), (before, before.next()));
    let broken = super::verbs::becomes(&host, "a", "broken").await.broken;
    assert_eq!(broken.map(|reason| reason.name()), Some("diverged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_agent_answers_what_it_answered_before() {
    let host = agent(Durability::Journal).await;
    let new =
        |text: &str, key: &str| Submission { idempotency_key: Some(key.into()), ..submission(&host, text) };
    let keyed = |text: &str, key: &str| {
        call(&host, "a", AgentCall::Ask { submission: new(text, key), timeout_ms: 5_000 })
    };
    let Ok(AgentReply::Asked(first)) = keyed("add 2", "k").await else { panic!("it is well") };
    ask(&host, "a", "drift").await;
    call(&host, "a", AgentCall::Verb(VerbCall::Respawn)).await.unwrap();
    super::verbs::becomes(&host, "a", "broken").await;

    let Ok(AgentReply::Asked(again)) = keyed("add 2", "k").await else { panic!("its end is stored") };
    assert_eq!((again.input, again.outcome), (first.input, first.outcome));
    assert!(again.is_duplicate && !first.is_duplicate);
    assert!(matches!(keyed("add 3", "k").await, Err(CallError::KeyReused)));
    assert!(matches!(keyed("add 2", "k2").await, Err(CallError::Broken { .. })));

    // What was accepted and still waits is no refusal: whoever asks for it waits with it.
    call(&host, "a", AgentCall::Send { submission: new("add 4", "k3") }).await.unwrap();
    let waiting = AgentCall::Ask { submission: new("add 4", "k3"), timeout_ms: 200 };
    assert!(matches!(call(&host, "a", waiting).await, Err(CallError::Unknown { .. })));
    let (told, _) = tokio::join!(keyed("add 4", "k3"), async {
        sleep(Duration::from_millis(100)).await;
        call(&host, "a", AgentCall::Verb(VerbCall::Reset)).await.unwrap();
    });
    let Ok(AgentReply::Asked(told)) = told else { panic!("{told:?}") };
    assert!(matches!(told.outcome, Outcome::Abandoned { .. }), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_journals_is_replayed_from_its_oldest_kept_snapshot() {
    let host = agent(Durability::Journal).await;
    for text in ["add 1", "dice", "write k v", "read k"] {
        ask(&host, "a", text).await;
    }
    checkpoint(&host).await;
    ask(&host, "a", "fatal").await;
    ask(&host, "a", "age").await;
    assert_eq!(replayed(&host, None).await, (1, 7, 5));
    assert_eq!(replayed(&host, Some(3)).await, (1, 3, 2));
    assert_eq!(replayed(&host, Some(5)).await, (1, 5, 4));
    assert!(matches!(replay(&host, Some(8)).await, Err(CallError::NoSuch { .. })), "not so far");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_journaled_is_passed_by() {
    let host = agent(Durability::Auto).await;
    ask(&host, "a", "add 1").await;
    ask(&host, "a", "fatal").await;
    checkpoint(&host).await;
    ask(&host, "a", "add 1").await;
    // Kept are the snapshots of the dead letter and of the turn behind it, which is in no journal.
    assert_eq!(replayed(&host, None).await, (4, 4, 0));
    assert_eq!(replayed(&host, Some(3)).await, (3, 3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_under_another_spec_are_passed_by() {
    let host = agent(Durability::Journal).await;
    ask(&host, "a", "add 1").await;
    let update = SpecUpdate {
        base: godwit_core::id::SpecRevision(1),
        plugin: "script".into(),
        labels: None,
        patch: SpecPatch {
            config: Some(BTreeMap::from([("key".into(), "other".into())])),
            ..SpecPatch::default()
        },
    };
    call(&host, "a", AgentCall::Update(update)).await.unwrap();
    ask(&host, "a", "add 1").await;
    assert_eq!(replayed(&host, None).await, (2, 3, 1));
    assert_eq!(ask(&host, "a", "get").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_comes_out_otherwise_is_named() {
    let host = agent(Durability::Journal).await;
    ask(&host, "a", "add 1").await;
    ask(&host, "a", "drift").await;
    let report = replay(&host, None).await.unwrap();
    assert!(report.breaks.iter().any(|what| what.contains("turn 3")), "{report:?}");
    assert_eq!(report.state, None);
    ask(&host, "a", "get").await;
}

/// In a file, where a commit comes between any two reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_agent_is_replayed_all_the_same() {
    for durability in Durability::ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path, SqliteMode::Exclusive, Arc::new(SystemClock)).unwrap();
        let host = agent_in(store, durability).await;
        ask(&host, "a", "add 1").await;
        let asks = Arc::new(AtomicU32::new(0));
        let asking = tokio::spawn({
            let (host, asks) = (host.clone(), asks.clone());
            async move {
                loop {
                    ask(&host, "a", "add 1").await;
                    asks.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut replays = 0;
        while replays < 100 || asks.load(Ordering::Relaxed) < 50 {
            let report = replay(&host, None).await.unwrap();
            assert_eq!((report.breaks.len(), report.state.is_some()), (0, true), "{report:?}");
            replays += 1;
        }
        asking.abort();
    }
}
