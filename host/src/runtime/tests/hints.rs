//! What a host believes of where agents are, when that is wrong or nobody can be reached: calls go where the agent is, and
//! what was not sent is not in doubt.

use super::shutdown::{bounds, is_stopping};
use super::verbs::{act, is_running};
use super::*;
use crate::runtime::verbs::VerbCall;

/// Three hosts: the first knows agent `a` on the second, and it has moved on to the third.
async fn left() -> World {
    let network = SimNetwork::default();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(host(&network, number, separate_store()).await);
    }
    create(&hosts[1], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    migrate(&hosts[1], "a", &hosts[2]).await;
    assert_eq!(hosts[0].inner().hints.get(&id("a")), Some(hosts[1].host()), "it has not heard of it");
    World { network, hosts }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_is_refused_and_not_in_doubt() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[1], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    create(&hosts[0], "b").await;
    migrate(&hosts[0], "b", &hosts[1]).await;
    network.set_cut(hosts[1].host(), true);
    let sent = call(&hosts[0], "a", AgentCall::Send { submission: submission(&hosts[0], "add 1") }).await;
    assert!(matches!(sent, Err(CallError::PeersSilent { .. })), "{sent:?}");
    // Where this one is it knows for sure, so that it tries until the time is over.
    let asked = AgentCall::Ask { submission: submission(&hosts[0], "add 1"), timeout_ms: 300 };
    let asked = call(&hosts[0], "b", asked).await;
    assert!(matches!(asked, Err(CallError::Unavailable { .. })), "{asked:?}");
    network.set_cut(hosts[1].host(), false);
    assert_eq!(ask(&hosts[0], "a", "get").await, "1");
    network.lose_answer(hosts[1].host());
    let asked = AgentCall::Ask { submission: submission(&hosts[0], "nap 400"), timeout_ms: 300 };
    let asked = call(&hosts[0], "a", asked).await;
    assert!(matches!(asked, Err(CallError::Unknown { .. })), "{asked:?}");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verb_goes_where_the_agent_is_when_the_host_of_before_is_gone() {
    let World { network, hosts } = left().await;
    network.set_cut(hosts[1].host(), true);
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    network.set_cut(hosts[1].host(), false);
    network.lose_answer(hosts[2].host());
    let resumed = call(&hosts[0], "a", AgentCall::Verb(VerbCall::Resume)).await;
    assert!(matches!(resumed, Err(CallError::Unknown { .. })), "{resumed:?}");
    assert_eq!(hosts[0].inner().hints.get(&id("a")), None, "it may be gone for good");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_refuses_nobody_who_has_left_it() {
    let World { hosts, .. } = left().await;
    create(&hosts[0], "sender").await;
    create(&hosts[1], "busy").await;
    // What runs then is that turn, and not the end of the first one.
    ask(&hosts[1], "busy", "get").await;
    let handle = hosts[1].inner().directory.handle(&id("busy")).unwrap();
    until("it to rest", async || !handle.is_running()).await;
    send(&hosts[1], "busy", "hang").await;
    is_running(&hosts[1], "busy").await;
    let stopping = {
        let stopping = hosts[1].clone();
        tokio::spawn(async move { stopping.stop_within(bounds(5_000, 50)).await })
    };
    is_stopping(&hosts[1]).await;
    for (what, sum) in [("an output", "2"), ("a call", "3")] {
        hosts[0].inner().hints.learn(&id("a"), hosts[1].host());
        if what == "a call" {
            assert_eq!(ask(&hosts[0], "a", "add 1").await, sum);
        } else {
            ask(&hosts[0], "sender", "send a add 1").await;
            until_asked(&hosts[2], "a", sum).await;
        }
        assert_eq!(hosts[0].inner().hints.get(&id("a")), Some(hosts[2].host()), "{what}");
    }
    assert!(!stopping.is_finished());
    stopping.await.unwrap();
    for host in [&hosts[0], &hosts[2]] {
        host.stop().await;
    }
}
