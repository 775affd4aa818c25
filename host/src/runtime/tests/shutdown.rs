//! Tests of ordered shutdown, over memory stores and scripted guests.

use godwit_core::retry::{Retry, Retryable};
use godwit_core::spec::{Durability, SpecPatch};
use godwit_core::store::Page;
use godwit_store::{SqliteMode, SqliteStore};

use super::super::placement::HostCall;
use super::super::plugins::PluginError;
use super::super::shutdown::{Phase, ShutdownBounds, ShutdownReport};
use super::verbs::is_running;
use super::*;

const SOON: Duration = Duration::from_secs(10);

pub(super) fn bounds(turns_ms: u64, outbox_ms: u64) -> ShutdownBounds {
    ShutdownBounds { turns: Duration::from_millis(turns_ms), outbox: Duration::from_millis(outbox_ms) }
}

fn no_troubles(report: &ShutdownReport) {
    assert_eq!(report.troubles().collect::<Vec<_>>(), [], "{report}");
}

/// Waits until shutdown has begun.
pub(super) async fn is_stopping(runtime: &Runtime) {
    within(SOON, runtime.shutdown_token().cancelled_owned()).await.expect("shutdown begins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_at_rest_goes_through_all_phases_and_frees_everything() {
    let runtime = lone_host().await;
    for agent in ["a", "b"] {
        create(&runtime, agent).await;
        ask(&runtime, agent, "add 1").await;
    }
    let report = runtime.stop().await;
    no_troubles(&report);
    let phases: Vec<_> = report.phases.iter().map(|report| report.phase).collect();
    assert_eq!(phases, Phase::ALL);
    assert_eq!((report.turns_finished, report.turns_interrupted), (0, 0));
    assert_eq!((report.leases_released, report.tasks_left), (2, 0));
    assert_eq!(runtime.inner().store.sessions().await.unwrap(), [], "the session is left");
    let row = runtime.inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!(row.holder, None);
    assert_eq!(runtime.stop_within(bounds(0, 0)).await, report, "it is done once");
    let door = runtime.inner().door.clone();
    let inner = Arc::downgrade(&runtime.inner);
    drop(runtime);
    let freed = async {
        while inner.strong_count() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(SOON, freed).await.expect("nobody holds a host that has stopped");
    drop(door);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_ends_in_time_commits_and_is_answered() {
    let runtime = lone_host().await;
    create(&runtime, "a").await;
    // Its beginning is a turn as well, and not the one that is meant.
    ask(&runtime, "a", "get").await;
    let asking = {
        let runtime = runtime.clone();
        tokio::spawn(async move { ask(&runtime, "a", "nap 1000").await })
    };
    is_running(&runtime, "a").await;
    let report = runtime.stop().await;
    no_troubles(&report);
    assert_eq!((report.turns_finished, report.turns_interrupted), (1, 0));
    assert_eq!(asking.await.unwrap(), "0");
    let row = runtime.inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!(row.revision.0, 3, "the turn is committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_does_not_end_is_interrupted_and_its_input_waits() {
    let runtime = lone_host().await;
    create(&runtime, "a").await;
    ask(&runtime, "a", "get").await;
    send(&runtime, "a", "hang").await;
    is_running(&runtime, "a").await;
    let report = runtime.stop_within(bounds(50, 50)).await;
    no_troubles(&report);
    assert_eq!((report.turns_finished, report.turns_interrupted), (0, 1));
    let turns = report.phases.iter().find(|report| report.phase == Phase::Turns).unwrap().elapsed;
    assert!(turns >= Duration::from_millis(50), "it had its time: {turns:?}");
    let open = runtime.inner().store.open_inputs(&id("a"), Page { after: 0, limit: 2 }).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].state, open[0].attempts), (InputState::Queued, 0), "uncounted, at its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_history_is_costly_to_run_again_is_snapshotted() {
    let runtime = lone_host().await;
    for (agent, note) in [("short", "x".to_owned()), ("long", "x".repeat(8_000))] {
        let patch = SpecPatch { durability: Some(Durability::Journal), ..SpecPatch::default() };
        let request = CreateAgent { patch, ..CreateAgent::new(id(agent), "script") };
        runtime.create_agent(request).await.unwrap();
        ask(&runtime, agent, &format!("write note {note}")).await;
    }
    let report = runtime.stop().await;
    no_troubles(&report);
    assert_eq!(report.checkpoints, 1, "{report}");
    let newest = |agent: &str| {
        let (store, agent) = (runtime.inner().store.clone(), id(agent));
        async move { store.kept_snapshots(&agent).await.unwrap().last().map(|kept| kept.revision.0) }
    };
    assert_eq!((newest("short").await, newest("long").await), (Some(1), Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_come_too_late_are_refused_and_may_be_tried_again() {
    let runtime = lone_host().await;
    create(&runtime, "a").await;
    ask(&runtime, "a", "get").await;
    send(&runtime, "a", "hang").await;
    is_running(&runtime, "a").await;
    let stopping = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.stop_within(bounds(300, 50)).await })
    };
    is_stopping(&runtime).await;
    let late = AgentCall::Send { submission: submission(&runtime, "add 1") };
    let refused = call(&runtime, "a", late).await.unwrap_err();
    assert!(matches!(refused, CallError::Unavailable { .. }), "{refused:?}");
    assert_eq!(refused.retry(), Retry::Later);
    let expected = runtime.expect_migration(id("b"), None, None);
    let aborted = runtime.abort_migration(MigrationId([1; 16])).await.map(drop);
    let created = runtime.create_agent(CreateAgent::new(id("b"), "script")).await.map(drop);
    let cordoned = runtime.call_host("self", HostCall::Cordon(true)).await.map(drop);
    let archive = tempfile::tempfile().unwrap();
    let imported = runtime.import_agent(archive, Default::default()).await.map(drop);
    let loaded = runtime.load_plugin(Bytes::new(), Default::default()).await.map(drop);
    let loaded = loaded.map_err(|error| match error {
        PluginError::Call(error) => error,
        other => panic!("{other:?}"),
    });
    for refused in [expected, aborted, created, cordoned, imported, loaded] {
        assert!(matches!(refused, Err(CallError::Unavailable { .. })), "{refused:?}");
    }
    assert!(runtime.counts().await.is_ok());
    let shown = call(&runtime, "a", AgentCall::Show).await;
    assert!(shown.is_ok(), "looking is no work: {shown:?}");
    stopping.await.unwrap();
    let open = runtime.inner().store.open_inputs(&id("a"), Page { after: 0, limit: 2 }).await.unwrap();
    assert_eq!(open.len(), 1, "what was refused is not there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_leave_before_the_leases_do_or_are_counted() {
    for is_back in [true, false] {
        let World { hosts, network } = two_hosts().await;
        create(&hosts[1], "far").await;
        create(&hosts[0], "near").await;
        ask(&hosts[0], "near", "get").await;
        network.set_cut(hosts[1].host(), true);
        ask(&hosts[0], "near", "send far add 5").await;
        let waits = async {
            let page = Page { after: 0, limit: 1 };
            while hosts[0].inner().store.pending_outputs(&id("near"), page).await.unwrap().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(SOON, waits).await.expect("the output waits");
        network.set_cut(hosts[1].host(), !is_back);
        let report = hosts[0].stop_within(bounds(1_000, if is_back { 5_000 } else { 200 })).await;
        no_troubles(&report);
        let expected = if is_back { (1, 0) } else { (0, 1) };
        assert_eq!((report.outputs_sent, report.outputs_left), expected, "{report}");
        if is_back {
            assert_eq!(ask(&hosts[1], "far", "get").await, "5");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_is_kept_while_turns_end() {
    // Longer than the session lives without heartbeats.
    const NAP_MS: u64 = 4_000;
    let World { hosts, .. } = two_hosts_on_one_store().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "get").await;
    send(&hosts[0], "a", &format!("nap {NAP_MS}")).await;
    is_running(&hosts[0], "a").await;
    // The nap is as much longer than it says as the machine is busy.
    let report = hosts[0].stop_within(bounds(60_000, 5_000)).await;
    no_troubles(&report);
    assert_eq!((report.turns_finished, report.leases_released), (1, 1), "nobody took it over: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_nobody_waits_for_goes_on() {
    let runtime = lone_host().await;
    create(&runtime, "a").await;
    ask(&runtime, "a", "get").await;
    send(&runtime, "a", "nap 200").await;
    is_running(&runtime, "a").await;
    let given_up = within(Duration::from_millis(20), runtime.stop()).await;
    assert_eq!(given_up, None);
    let report = runtime.stop().await;
    no_troubles(&report);
    assert_eq!((report.turns_finished, report.phases.len()), (1, Phase::ALL.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    SqliteStore::open(&file, SqliteMode::Exclusive, Arc::new(SystemClock)).unwrap().close().await;
    let store = SqliteStore::open_read_only(&file).unwrap();
    let (config, parts, door) =
        set_up(&SimNetwork::default(), 1, store.clone(), godwit_core::limits::INPUTS_KEPT);
    let Err(error) = Runtime::start(config, parts, &door).await else { panic!("it has joined") };
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error}");
    let freed = async {
        while Arc::strong_count(&store) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(SOON, freed).await.expect("nothing holds the store");
}
