//! Hosts that are emptied and evened out: by plan, with what stays named, and with nothing lost.

use godwit_core::migration::Role;
use godwit_core::spec::SpecPatch;
use godwit_core::store::{BrokenReason, Lifecycle};

use super::verbs::{act, show};
use super::*;
use crate::runtime::drain::{DrainView, Ended, Plan};
use crate::runtime::placement::{Exodus, HostCall, HostReply};
use crate::runtime::verbs::VerbCall;

/// Three hosts with stores of their own; the third has what the others don't.
pub(super) async fn three_hosts() -> Vec<Runtime> {
    three_hosts_in(&SimNetwork::default()).await
}

async fn three_hosts_in(network: &SimNetwork) -> Vec<Runtime> {
    let mut hosts = Vec::new();
    for number in 1..=3 {
        let (mut config, parts, door) =
            set_up(network, number, separate_store(), godwit_core::limits::INPUTS_KEPT);
        if number == 3 {
            config.capabilities.insert("gpu".to_owned(), "yes".to_owned());
        }
        let runtime = Runtime::start(config, parts, &door).await.unwrap();
        let (plugin, component) = script_plugin();
        drop(runtime.inner().store.put_plugin(plugin, component).await);
        hosts.push(runtime);
    }
    for one in &hosts {
        for other in hosts.iter().filter(|other| other.host() != one.host()) {
            one.add_peer(other.host(), "127.0.0.1:1".parse().unwrap()).unwrap();
        }
    }
    hosts
}

pub(super) async fn plan(asked: &Runtime, host: &str, exodus: Exodus) -> Plan {
    match asked.call_host(host, HostCall::Plan(exodus)).await.unwrap() {
        HostReply::Plan(plan) => plan,
        other => panic!("{other:?}"),
    }
}

async fn carried_out(asked: &Runtime, host: &str, exodus: Exodus) -> DrainView {
    asked.call_host(host, HostCall::Begin(exodus)).await.unwrap();
    over(asked, host).await
}

/// Waits for the end of what was begun at a host.
async fn over(asked: &Runtime, host: &str) -> DrainView {
    let over = async {
        loop {
            match asked.call_host(host, HostCall::Progress).await.unwrap() {
                HostReply::Progress(Some(view)) if view.is_over => return view,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    match within(Duration::from_secs(20), over).await {
        Some(view) => view,
        None => panic!("it does not end: {:#?}", asked.migrations().await),
    }
}

async fn homes(hosts: &[Runtime]) -> Vec<u64> {
    let mut counts = Vec::new();
    for host in hosts {
        counts.push(host.offer().await.unwrap().agents);
    }
    counts
}

fn requiring(agent: &str, value: &str) -> CreateAgent {
    let requires = Some(BTreeMap::from([("gpu".to_owned(), value.to_owned())]));
    let patch = SpecPatch { requires, ..SpecPatch::default() };
    CreateAgent { patch, ..CreateAgent::new(id(agent), "script") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_host_is_empty_and_what_can_not_go_is_named() {
    let hosts = three_hosts().await;
    for number in 0..6 {
        let agent = format!("a{number}");
        create(&hosts[0], &agent).await;
        ask(&hosts[0], &agent, "add 7").await;
    }
    hosts[0].create_agent(requiring("bound", "yes")).await.unwrap_err();
    hosts[2].create_agent(requiring("bound", "yes")).await.unwrap();
    // Asked of another host than the one that is meant.
    let planned = plan(&hosts[1], "h1", Exodus::Drain).await;
    assert_eq!(planned.moves.len(), 6);
    assert!(planned.moves.iter().all(|planned| planned.to.is_some() && planned.reason.is_none()));
    assert_eq!(homes(&hosts).await, [6, 0, 1], "a plan moves nobody");
    let done = carried_out(&hosts[1], "h1", Exodus::Drain).await;
    assert_eq!((done.total, done.moved, done.left.len()), (6, 6, 0), "{done:?}");
    assert!(done.pause_max_us >= done.pause_median_us && done.pause_median_us > 0, "{done:?}");
    let mut taken = homes(&hosts).await;
    taken.sort_unstable();
    assert_eq!(taken, [0, 3, 4], "the least loaded first");
    for number in 0..6 {
        assert_eq!(ask(&hosts[0], &format!("a{number}"), "get").await, "7");
    }
    // It is cordoned: nobody comes back, and nobody is made there.
    let made = hosts[0].create_agent(CreateAgent::new(id("new"), "script")).await;
    assert!(matches!(made, Err(CallError::Conflict { .. })), "{made:?}");
    let back = try_to_migrate(&hosts[1], "a0", &hosts[0]).await;
    assert!(back.failure.is_some_and(|failure| failure.to_string().contains("cordoned")));
    // What only this host offers stays.
    let stays = carried_out(&hosts[0], "h3", Exodus::Drain).await;
    assert_eq!(stays.left.keys().map(AgentId::as_str).collect::<Vec<_>>(), ["bound"], "{stays:?}");
    assert!(stays.left[&id("bound")].contains("gpu=yes"), "{stays:?}");
    assert_eq!(homes(&hosts).await, [0, 6, 1]);
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_goes_on_with_other_hosts_when_one_takes_no_more() {
    let network = SimNetwork::default();
    let hosts = three_hosts_in(&network).await;
    for number in 0..12 {
        create(&hosts[0], &format!("a{number:02}")).await;
    }
    network.set_bulk_delay(Duration::from_millis(400));
    hosts[0].call_host("self", HostCall::Begin(Exodus::Drain)).await.unwrap();
    // Those that are under way may arrive there; the others have been planned to.
    hosts[1].call_host("self", HostCall::Cordon(true)).await.unwrap();
    let done = over(&hosts[0], "self").await;
    assert_eq!((done.total, done.moved, &done.left), (12, 12, &BTreeMap::new()), "{done:?}");
    let homes = homes(&hosts).await;
    assert!(homes[0] == 0 && homes[2] > 6, "{homes:?}");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_arrives_at_a_host_that_is_emptied_is_sent_away_too() {
    let network = SimNetwork::default();
    let hosts = [host(&network, 1, separate_store()).await, host(&network, 2, separate_store()).await];
    create(&hosts[1], "late").await;
    network.set_bulk_delay(Duration::from_millis(20));
    let coming = hosts[1].migrate_to(&id("late"), hosts[0].host()).await.unwrap();
    until("it to be let in", async || hosts[0].migration(coming).await.is_ok()).await;
    let done = carried_out(&hosts[0], "self", Exodus::Drain).await;
    assert_eq!(done.left, BTreeMap::new(), "{done:?}");
    ended(&hosts[1], coming).await;
    assert_eq!(homes(&hosts).await, [0, 1]);
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_names_who_may_still_be_there() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 1").await;
    let owned = hosts[0].own(&id("a")).await.unwrap();
    let revision = hosts[0].inner().store.agent(&id("a")).await.unwrap().unwrap().revision;
    let migration = MigrationId([1; 16]);
    let store = &hosts[0].inner().store;
    store.begin_handoff(&owned.owner(), revision, migration, hosts[1].host()).await.unwrap();
    let done = carried_out(&hosts[0], "self", Exodus::Drain).await;
    assert_eq!((done.total, done.moved), (1, 0), "{done:?}");
    assert!(done.left[&id("a")].contains("not decided"), "{done:?}");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_gone_is_not_waited_for_though_its_new_host_says_nothing() {
    let host = lone_host().await;
    create(&host, "a").await;
    ask(&host, "a", "add 1").await;
    let owned = host.own(&id("a")).await.unwrap();
    let store = &host.inner().store;
    let revision = store.agent(&id("a")).await.unwrap().unwrap().revision;
    let (migration, target) = (MigrationId([1; 16]), HostId([9; 32]));
    let record = MigrationRecord {
        id: migration,
        agent: id("a"),
        role: Role::Source,
        source: host.host(),
        target,
        phase: Phase::Cutover,
        failure: None,
        rounds: 0,
        bytes: 0,
        pause_us: None,
        started_at_ms: 1,
        deadline_ms: 1,
    };
    store.begin_handoff(&owned.owner(), revision, migration, target).await.unwrap();
    let short = Duration::from_millis(50);
    let ended = async || within(Duration::from_secs(1), host.ended(&id("a"), migration, short)).await;
    let undecided = ended().await;
    assert!(undecided.is_none(), "it may still come back: {undecided:?}");
    store.finish_handoff(&id("a"), migration).await.unwrap();
    store.put_migration(record).await.unwrap();
    let gone = ended().await;
    assert!(matches!(gone, Some(Ok(Ended::Unconfirmed))), "{gone:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_made_again_on_a_cordoned_host() {
    let host = lone_host().await;
    create(&host, "a").await;
    act(&host, "a", VerbCall::Delete, "deleted").await;
    host.call_host("self", HostCall::Cordon(true)).await.unwrap();
    let anew = CreateAgent { recreates: true, ..CreateAgent::new(id("a"), "script") };
    let refused = host.create_agent(anew.clone()).await;
    assert!(
        matches!(&refused, Err(CallError::Conflict { what }) if what.contains("cordoned")),
        "{refused:?}"
    );
    host.call_host("self", HostCall::Cordon(false)).await.unwrap();
    assert!(host.create_agent(anew.clone()).await.unwrap().1);
    host.call_host("self", HostCall::Cordon(true)).await.unwrap();
    assert!(!host.create_agent(anew).await.unwrap().1, "it is there: a repetition asks for nothing");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_deleted_agent_is_no_load() {
    let host = lone_host().await;
    for agent in ["a", "b"] {
        create(&host, agent).await;
    }
    act(&host, "a", VerbCall::Delete, "deleted").await;
    assert_eq!(host.offer().await.unwrap().agents, 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_pass_for_the_rebalance_that_runs() {
    let network = SimNetwork::default();
    let hosts = [host(&network, 1, separate_store()).await, host(&network, 2, separate_store()).await];
    for number in 0..4 {
        create(&hosts[0], &format!("a{number}")).await;
    }
    network.set_bulk_delay(Duration::from_secs(1));
    let begun = hosts[0].call_host("self", HostCall::Begin(Exodus::Rebalance)).await.unwrap();
    let again = hosts[0].call_host("self", HostCall::Begin(Exodus::Rebalance)).await.unwrap();
    let total = |reply: &HostReply| match reply {
        HostReply::Progress(Some(view)) => (view.exodus, view.total),
        other => panic!("{other:?}"),
    };
    assert_eq!((total(&begun), total(&again)), ((Exodus::Rebalance, 2), (Exodus::Rebalance, 2)));
    let drain = hosts[0].call_host("self", HostCall::Begin(Exodus::Drain)).await;
    assert!(
        matches!(&drain, Err(CallError::Conflict { what }) if what.contains("a rebalance of this host is running")),
        "{drain:?}"
    );
    assert!(!hosts[0].offer().await.unwrap().is_cordoned, "nothing was done");
    network.set_bulk_delay(Duration::ZERO);
    until(
        "it to be over",
        async || matches!(hosts[0].exodus_progress(), Some(view) if view.is_over && view.moved == 2),
    )
    .await;
    let done = carried_out(&hosts[0], "self", Exodus::Drain).await;
    assert_eq!((done.exodus, done.moved), (Exodus::Drain, 2), "{done:?}");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_evened_out_under_load() {
    let hosts = three_hosts().await;
    let agents: Vec<_> = (0..9).map(|number| format!("a{number}")).collect();
    for agent in &agents {
        create(&hosts[0], agent).await;
    }
    let load: Vec<_> = agents
        .iter()
        .map(|agent| {
            let (hosts, agent) = (hosts.clone(), agent.clone());
            tokio::spawn(async move {
                for step in 0..20_usize {
                    ask(&hosts[step % 3], &agent, "add 1").await;
                }
            })
        })
        .collect();
    let done = carried_out(&hosts[0], "self", Exodus::Rebalance).await;
    for client in load {
        client.await.unwrap();
    }
    assert_eq!((done.moved, done.left.len()), (6, 0), "{done:?}");
    assert_eq!(homes(&hosts).await, [3, 3, 3]);
    for agent in &agents {
        assert_eq!(ask(&hosts[0], agent, "get").await, "20");
    }
    let again = plan(&hosts[0], "self", Exodus::Rebalance).await;
    assert!(again.moves.is_empty() && again.predicted_pause_us.is_some(), "{again:?}");
    for host in &hosts {
        host.stop().await;
    }
}

/// Breaks an agent whose rows are all sound.
async fn break_it(host: &Runtime, agent: &str) {
    use godwit_core::lifecycle::{LifecycleCommit, Verb};
    let owned = host.own(&id(agent)).await.unwrap();
    let row = host.inner().store.agent(&id(agent)).await.unwrap().unwrap();
    let verb = Verb::Break(BrokenReason::Restore { message: "its memory does not open".to_owned() });
    let commit = LifecycleCommit::plan(&id(agent), &row.lifecycle, &verb, 1).unwrap();
    host.inner().store.commit_lifecycle(&owned.owner(), commit).await.unwrap();
    if let Some(handle) = host.inner().directory.handle(&id(agent)) {
        handle.park().await;
    }
}

/// Agents in every state in which one can move, on the first of some hosts; `failed` has never begun.
async fn all_states(host: &Runtime) {
    for agent in ["paused", "retired", "gone", "new", "broken"] {
        create(host, agent).await;
    }
    for agent in ["paused", "retired", "gone", "broken"] {
        ask(host, agent, "add 7").await;
    }
    let mut failed = CreateAgent::new(id("failed"), "script");
    failed.patch.config = Some(BTreeMap::from([("init".to_owned(), "fatal".to_owned())]));
    host.create_agent(failed).await.unwrap();
    drop(call(host, "failed", AgentCall::Materialize).await);
    break_it(host, "broken").await;
    send(host, "broken", "add 1").await;
    act(host, "paused", VerbCall::Pause, "paused").await;
    act(host, "gone", VerbCall::Delete, "deleted").await;
    call(host, "retired", AgentCall::Verb(VerbCall::Retire)).await.unwrap();
    until("a retirement", async || show(host, "retired").await.state == "retired").await;
}

/// What an agent says of itself, but for who has it under which token.
async fn state(host: &Runtime, agent: &str) -> (String, Option<BrokenReason>, u64, u64) {
    let view = show(host, agent).await;
    (view.state, view.broken, view.revision.0, view.queue_depth)
}

/// An agent at rest moves as it is: no guest of it is built anywhere, and what woke it before wakes it there.
async fn rest_moves(hosts: &[Runtime]) {
    all_states(&hosts[0]).await;
    for agent in ["paused", "retired", "broken", "failed"] {
        let before = state(&hosts[0], agent).await;
        migrate(&hosts[0], agent, &hosts[1]).await;
        assert_eq!(show(&hosts[0], agent).await.host, Some(hosts[1].host()), "{agent}");
        assert_eq!(state(&hosts[1], agent).await, before, "{agent}");
    }
    let deleted = call(&hosts[0], "gone", AgentCall::Migrate { to: "h2".to_owned() }).await;
    assert!(matches!(deleted, Err(CallError::Deleted)), "{deleted:?}");
    act(&hosts[1], "paused", VerbCall::Resume, "active").await;
    act(&hosts[1], "retired", VerbCall::Resume, "active").await;
    act(&hosts[1], "broken", VerbCall::Recover(Default::default()), "active").await;
    for (agent, expected) in [("paused", "7"), ("retired", "7"), ("broken", "8")] {
        assert_eq!(ask(&hosts[0], agent, "get").await, expected, "{agent}");
        migrate(&hosts[1], agent, &hosts[0]).await;
        assert_eq!(ask(&hosts[1], agent, "get").await, expected, "{agent}");
    }
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_at_rest_moves_as_it_is() {
    rest_moves(&two_hosts().await.hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_at_rest_moves_as_it_is_within_a_shared_store() {
    rest_moves(&two_hosts_on_one_store().await.hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_suspended_moves_and_waits_for_a_word_there() {
    use godwit_core::lifecycle::{LifecycleCommit, SuspendReason, Verb};
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 7").await;
    let owned = hosts[0].own(&id("a")).await.unwrap();
    let verb = Verb::Suspend(SuspendReason::Imported);
    let commit = LifecycleCommit::plan(&id("a"), &Lifecycle::Active, &verb, 1).unwrap();
    hosts[0].inner().store.commit_lifecycle(&owned.owner(), commit).await.unwrap();
    hosts[0].inner().directory.lose(&id("a"), owned.lease.token);
    migrate(&hosts[0], "a", &hosts[1]).await;
    assert_eq!(show(&hosts[1], "a").await.state, "suspended");
    act(&hosts[1], "a", VerbCall::Resume, "active").await;
    assert_eq!(ask(&hosts[0], "a", "get").await, "7");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_empties_a_host_of_agents_in_every_state() {
    let hosts = three_hosts().await;
    all_states(&hosts[0]).await;
    let planned = plan(&hosts[0], "self", Exodus::Drain).await;
    assert!(planned.moves.iter().all(|planned| planned.to.is_some()), "{planned:?}");
    let done = carried_out(&hosts[0], "self", Exodus::Drain).await;
    assert_eq!((done.total, done.moved, done.left.len()), (5, 5, 0), "{done:?}");
    let counted = hosts[0].counts().await.unwrap();
    assert_eq!(counted.agents, BTreeMap::from([("deleted".to_owned(), 1)]), "but for the trace of one");
    for host in &hosts {
        host.stop().await;
    }
}
