//! Leases that the store has moved on from behind a host's back: whatever acts by itself finds out, lets go of them, and goes
//! on under the one that counts.

use godwit_core::lifecycle::{LifecycleCommit, Verb};
use godwit_core::store::{Lifecycle, Page};

use super::verbs::act;
use super::*;
use crate::runtime::verbs::VerbCall;

/// Raises an agent's token, and tells its host nothing.
async fn raise_token(host: &Runtime, agent: &str) {
    let owned = host.own(&id(agent)).await.unwrap();
    let commit =
        LifecycleCommit::plan(&id(agent), &Lifecycle::Active, &Verb::Respawn, host.now_ms()).unwrap();
    host.inner().store.commit_lifecycle(&owned.owner(), commit).await.unwrap();
    assert!(host.own(&id(agent)).await.unwrap().lease.token == owned.lease.token, "it has not heard of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_fires_all_the_same() {
    let host = lone_host().await;
    create(&host, "silent").await;
    act(&host, "silent", VerbCall::Pause, "paused").await;
    create(&host, "a").await;
    ask(&host, "a", "request 200 silent get").await;
    raise_token(&host, "a").await;
    let row = async || host.inner().store.agent(&id("a")).await.unwrap().unwrap();
    let before = row().await.revision;
    // Nobody but the timer has anything to do with it: the waiting is over, and that is a turn.
    until("the turn of a timer", async || row().await.revision > before).await;
    assert_eq!(ask(&host, "a", "get").await, "1000");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_are_sent_and_ended_all_the_same() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[0], "a").await;
    create(&hosts[1], "b").await;
    network.set_cut(hosts[1].host(), true);
    ask(&hosts[0], "a", "send b add 3").await;
    raise_token(&hosts[0], "a").await;
    network.set_cut(hosts[1].host(), false);
    let page = Page { after: 0, limit: 10 };
    let is_empty = async || hosts[0].inner().store.pending_outputs(&id("a"), page).await.unwrap().is_empty();
    until("the end of an output", is_empty).await;
    assert_eq!(ask(&hosts[1], "b", "get").await, "3");
    for host in &hosts {
        host.stop().await;
    }
}
