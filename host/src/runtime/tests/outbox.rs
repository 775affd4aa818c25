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
