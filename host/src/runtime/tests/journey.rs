//! Agents that have moved more than once.

use super::drain::three_hosts;
use super::*;
use crate::runtime::migrator::source::activate;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_finds_who_has_moved_on_from_where_it_went() {
    let hosts = three_hosts().await;
    for agent in ["sender", "receiver"] {
        create(&hosts[0], agent).await;
    }
    migrate(&hosts[0], "receiver", &hosts[1]).await;
    migrate(&hosts[1], "receiver", &hosts[2]).await;
    // The sender's host knows only where the receiver went from there.
    ask(&hosts[0], "sender", "send receiver add 5").await;
    until("the output to arrive", async || ask(&hosts[2], "receiver", "get").await == "5").await;
    // And back, onto the tombstone.
    migrate(&hosts[2], "receiver", &hosts[0]).await;
    ask(&hosts[0], "sender", "send receiver add 5").await;
    until("the output to arrive", async || ask(&hosts[0], "receiver", "get").await == "10").await;
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_waits_for_who_is_on_its_way_here() {
    let hosts = three_hosts().await;
    for agent in ["sender", "receiver"] {
        create(&hosts[0], agent).await;
    }
    migrate(&hosts[0], "receiver", &hosts[1]).await;
    // Here it is a tombstone; and there it is bound and not let go, as far as its source knows.
    let (receiver, source) = (id("receiver"), hosts[1].host());
    let owned = hosts[1].own(&receiver).await.unwrap();
    let row = hosts[1].inner().store.agent(&receiver).await.unwrap().unwrap();
    let migration = godwit_core::id::MigrationId([9; 16]);
    let store = hosts[1].inner().store.clone();
    store.begin_handoff(&owned.owner(), row.revision, migration, hosts[0].host()).await.unwrap();
    store.finish_handoff(&receiver, migration).await.unwrap();
    hosts[0].inner().hints.forget(&receiver);
    // Both say that it went to the other: nobody has it, and it is not lost.
    let found = hosts[0].who_is_home(&receiver).await;
    assert!(!matches!(found, Err(CallError::NotFound { .. })), "{found:?}");
    assert_ne!(found.ok(), Some(hosts[0].host()));
    assert_ne!(source, hosts[0].host());
    let found = hosts[2].who_is_home(&receiver).await;
    assert_eq!(found.unwrap(), hosts[0].host(), "the later tombstone knows better");
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_agent_is_back_does_not_wait_for_the_target_of_before() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[0], "a").await;
    let there = try_to_migrate(&hosts[0], "a", &hosts[1]).await;
    let row = async || hosts[0].inner().store.agent(&id("a")).await.unwrap().unwrap();
    let Home::Moved(tombstone) = row().await.home else { panic!("it has not moved") };
    network.set_cut(hosts[1].host(), true);
    let telling = activate(&hosts[0], &there, tombstone.token);
    assert!(within(Duration::from_millis(300), telling).await.is_none(), "nobody has heard it");
    network.set_cut(hosts[1].host(), false);
    migrate(&hosts[1], "a", &hosts[0]).await;
    network.set_cut(hosts[1].host(), true);
    let telling = activate(&hosts[0], &there, tombstone.token);
    within(Duration::from_secs(15), telling).await.expect("the row says that the target has had it");
    for host in &hosts {
        host.stop().await;
    }
}
