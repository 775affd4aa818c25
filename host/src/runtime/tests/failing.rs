//! Migrations that do not come to their end: each says why, and the agent goes on where it is.

use std::time::Duration;

use godwit_core::id::SpecRevision;
use godwit_core::migration::Failure;
use godwit_core::spec::{Durability, SpecPatch};
use godwit_core::store::SessionRequest;

use super::*;
use crate::runtime::migrator::Course;
use crate::runtime::respec::SpecUpdate;

/// Three hosts with stores of their own.
async fn three(network: &SimNetwork) -> [Runtime; 3] {
    let [one, other] = hosts_apart(network, |_, _| {}).await;
    [one, other, host(network, 3, separate_store()).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_does_something_else_at_the_target_stays_where_it_works() {
    for (world, lets_go) in [(two_hosts().await, true), (two_hosts_on_one_store().await, false)] {
        let [one, other] = [&world.hosts[0], &world.hosts[1]];
        create(one, "a").await;
        let journal = SpecUpdate {
            base: SpecRevision(1),
            plugin: "script".into(),
            labels: None,
            patch: SpecPatch { durability: Some(Durability::Journal), ..SpecPatch::default() },
        };
        call(one, "a", AgentCall::Update(journal)).await.unwrap();
        assert_eq!(ask(one, "a", "add 1").await, "1");
        // Run again, it fails.
        assert_eq!(ask(one, "a", "fragile").await, "2");
        let record = try_to_migrate(one, "a", other).await;
        assert!(matches!(record.failure, Some(Failure::Diverged { .. })), "{record:?}");
        let row = one.inner().store.agent(&id("a")).await.unwrap().unwrap();
        let holder = row.holder.map(|holder| holder.host);
        assert_eq!((&row.home, holder), (&Home::Here, Some(one.host())), "{row:?}");
        // Where it was handed off already it is loaded anew, and this one can't be loaded anywhere.
        if !lets_go {
            assert_eq!(ask(one, "a", "add 1").await, "3", "it goes on");
        } else {
            assert!(
                other.inner().store.agent(&id("a")).await.unwrap().is_none(),
                "nothing of it is left there"
            );
        }
        for host in &world.hosts {
            host.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_called_off_ends_and_another_one_may_begin() {
    let network = SimNetwork::default();
    let [one, other, third] = three(&network).await;
    create(&one, "a").await;
    ask(&one, "a", "add 1").await;
    network.set_bulk_delay(Duration::from_millis(300));
    let begin = async |to: &Runtime| call(&one, "a", AgentCall::Migrate { to: to.name().to_owned() }).await;
    let Ok(AgentReply::Migrating(first)) = begin(&other).await else { panic!("it does not begin") };
    let again = begin(&other).await;
    assert!(matches!(again, Ok(AgentReply::Migrating(id)) if id == first), "{again:?}");
    let elsewhere = begin(&third).await;
    let open = CallError::AlreadyMigrating { agent: id("a"), migration: first, target: other.host() };
    assert_eq!(elsewhere.unwrap_err().to_string(), open.to_string());
    one.abort_migration(first).await.unwrap();
    let record = ended(&one, first).await;
    let by = Some(Failure::Aborted { by: "operator".into() });
    assert_eq!((record.phase, record.failure), (Phase::Aborted, by));
    // Its record ends a moment before it does.
    let is_over = async || matches!(one.abort_migration(first).await, Err(CallError::Conflict { .. }));
    until("what is over can't be called off", is_over).await;
    network.set_bulk_delay(Duration::ZERO);
    migrate(&one, "a", &third).await;
    assert_eq!(ask(&third, "a", "get").await, "1");
    for host in [&one, &other, &third] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_called_off_sends_no_more_rows() {
    let network = SimNetwork::default();
    let [one, other, third] = three(&network).await;
    create(&one, "a").await;
    for row in 0..16 {
        // It does not pack well.
        let value: String =
            (0..3_200).map(|part| Digest::of(format!("{row} {part}").as_bytes()).to_string()).collect();
        ask(&one, "a", &format!("write key-{row} {value}")).await;
    }
    network.set_bulk_delay(Duration::from_millis(400));
    let Ok(AgentReply::Migrating(id)) =
        call(&one, "a", AgentCall::Migrate { to: other.name().to_owned() }).await
    else {
        panic!("it does not begin")
    };
    until("the first bundle to be on its way", async || {
        one.migration(id).await.unwrap().phase == Phase::Transfer
    })
    .await;
    one.abort_migration(id).await.unwrap();
    let record = ended(&one, id).await;
    assert_eq!(record.phase, Phase::Aborted);
    // All of them are above one and a half megabytes.
    assert!(record.bytes < 1 << 20, "{} bytes were sent", record.bytes);
    for host in [&one, &other, &third] {
        host.stop().await;
    }
}

#[test]
fn it_is_called_off_or_goes_on_to_its_commit_point_and_never_both() {
    let called_off = Course::default();
    assert!(called_off.call_off() && called_off.call_off() && called_off.is_called_off());
    assert!(!called_off.decide());
    let decided = Course::default();
    assert!(decided.decide() && !decided.is_called_off());
    assert!(!decided.call_off());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_starts_is_waited_for_longer_than_a_silent_one() {
    let network = SimNetwork::default();
    let one = host(&network, 1, separate_store()).await;
    create(&one, "a").await;
    ask(&one, "a", "add 1").await;
    // Its door is in its place, and not open.
    let (config, parts, door) = set_up(&network, 2, separate_store(), godwit_core::limits::INPUTS_KEPT);
    let asked = call(&one, "a", AgentCall::Migrate { to: config.host.to_string() }).await;
    let Ok(AgentReply::Migrating(id)) = asked else { panic!("{asked:?}") };
    // Longer than one that can't be reached is tried again.
    sleep(Duration::from_millis(3_500)).await;
    assert!(!one.migration(id).await.unwrap().phase.is_terminal(), "it gave up");
    let other = Runtime::start(config, parts, &door).await.unwrap();
    let record = ended(&one, id).await;
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_before_its_host_died_is_forgotten_at_the_next_start() {
    let network = SimNetwork::default();
    let store = separate_store();
    let [first, other] = [host(&network, 1, store.clone()).await, host(&network, 2, separate_store()).await];
    create(&first, "a").await;
    ask(&first, "a", "write key value").await;
    // Up to the end of the migration, and no further: as if it had died there.
    let owner = first.own(&id("a")).await.unwrap().owner();
    first.inner().directory.handle(&id("a")).unwrap().park().await;
    let row = store.agent(&id("a")).await.unwrap().unwrap();
    let migration = MigrationId([3; 16]);
    let record = MigrationRecord { phase: Phase::Complete, ..bound_record(Role::Source, &first, &other) };
    store.begin_handoff(&owner, row.revision, migration, other.host()).await.unwrap();
    store.finish_handoff(&id("a"), migration).await.unwrap();
    store.put_migration(record).await.unwrap();
    first.stop().await;
    let left = async || store.agent(&id("a")).await.unwrap().unwrap();
    assert_ne!(left().await.spec_revision, SpecRevision(0), "there is something to be forgotten");
    let again = host(&network, 1, store.clone()).await;
    until("what was left behind to be gone", async || left().await.spec_revision == SpecRevision(0)).await;
    let left = left().await;
    assert!(matches!(left.home, Home::Moved(tombstone) if tombstone.target == other.host()), "{left:?}");
    for host in [&again, &other] {
        host.stop().await;
    }
}

/// Only a source knows the pause. Whoever shares its store writes the end of its move when it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_within_a_store_is_ended_by_its_target_when_the_source_is_gone() {
    let World { hosts, .. } = two_hosts_on_one_store().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 1").await;
    let owned = hosts[0].own(&id("a")).await.unwrap();
    hosts[0].inner().directory.handle(&id("a")).unwrap().park().await;
    let (store, migration) = (&hosts[1].inner().store, MigrationId([3; 16]));
    let base = store.agent(&id("a")).await.unwrap().unwrap().revision;
    store.transfer(&owned.owner(), base, migration, hosts[1].host()).await.unwrap();
    // As if it were the move of a third host, which has died behind the commit point and is not known to be dead.
    let (source, address) = (HostId([9; 32]), "127.0.0.1:1".parse().unwrap());
    let request = SessionRequest {
        host: source,
        name: "h9".into(),
        api: address,
        mesh: address,
        ttl: Duration::from_secs(4),
        now_ms: hosts[1].now_ms(),
    };
    store.join(request).await.unwrap();
    let open = MigrationRecord { source, ..bound_record(Role::Source, &hosts[0], &hosts[1]) };
    store.put_migration(open).await.unwrap();
    assert_eq!(ended(&hosts[1], migration).await.phase, Phase::Complete);
    let sessions = store.sessions().await.unwrap();
    assert!(sessions.iter().all(|session| session.host != source), "it might have written that itself");
    for host in &hosts {
        host.stop().await;
    }
}
