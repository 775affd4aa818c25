//! The outbox of an agent some of whose destinations do not take what is for them: the others get theirs.

use super::*;

/// More outputs than one look at the outbox reads.
const MANY: usize = 1_100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_dead_host_hides_nothing() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[0], "a").await;
    create(&hosts[0], "near").await;
    create(&hosts[1], "far").await;
    network.set_cut(hosts[1].host(), true);
    for _ in 0..MANY {
        ask(&hosts[0], "a", "send far add 1").await;
    }
    ask(&hosts[0], "a", "send near add 3").await;
    until_asked(&hosts[0], "near", "3").await;
    network.set_cut(hosts[1].host(), false);
    until_asked(&hosts[1], "far", &MANY.to_string()).await;
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_holds_up_nobody_else() {
    let network = SimNetwork::default();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(host(&network, number, separate_store()).await);
    }
    for (host, agent) in hosts.iter().zip(["a", "mute", "far"]) {
        create(host, agent).await;
    }
    for (host, agent) in [(&hosts[1], "mute"), (&hosts[2], "far")] {
        ask(&hosts[0], "a", &format!("send {agent} add 1")).await;
        until_asked(host, agent, "1").await;
    }
    network.silence(hosts[1].host());
    let began = hosts[0].inner().clock.boot();
    // One that is at home on it, and one of which nobody knows where it is.
    for (waiting, sums) in [("mute", 2..5), ("nobody", 5..8)] {
        ask(&hosts[0], "a", &format!("send {waiting} add 1")).await;
        for sum in sums {
            ask(&hosts[0], "a", "send far add 1").await;
            until_asked(&hosts[2], "far", &sum.to_string()).await;
        }
    }
    // What has arrived is ended.
    until("the others' ends", async || {
        let page = godwit_core::store::Page { after: 0, limit: 9 };
        let pending = hosts[0].inner().store.pending_outputs(&id("a"), page).await.unwrap();
        pending.iter().all(|stored| stored.output.destination != id("far"))
    })
    .await;
    let took = hosts[0].inner().clock.boot() - began;
    // Who waits for the silent one waits for 5 s.
    assert!(took < Duration::from_millis(4_500), "{took:?}");
    for host in &hosts {
        host.stop().await;
    }
}
