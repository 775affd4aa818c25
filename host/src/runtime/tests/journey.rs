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
