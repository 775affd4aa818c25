//! Agents that have moved more than once.

use super::drain::three_hosts;
use super::*;

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
