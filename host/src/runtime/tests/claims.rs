//! One id, one agent per mesh: hosts with stores of their own that create it at the same moment.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_hosts_that_create_at_once_one_succeeds() {
    let World { hosts, .. } = two_hosts().await;
    let mut winners = [0, 0];
    for round in 0..60 {
        let agent = id(&format!("a{round}"));
        let mut creating: Vec<_> = hosts
            .iter()
            .map(|host| Box::pin(host.create_agent(CreateAgent::new(agent.clone(), "script"))))
            .collect();
        // The first one begins first.
        creating.rotate_left(round % 2);
        let created = futures::future::join_all(creating).await;
        let number = created.iter().filter(|one| one.is_ok()).count();
        assert!(number <= 1, "round {round}: {created:?}");
        for refused in created.iter().filter_map(|one| one.as_ref().err()) {
            let is_right = matches!(
                refused,
                CallError::Claimed { .. } | CallError::Conflict { .. } | CallError::Unavailable { .. }
            );
            assert!(is_right, "round {round}: {refused:?}");
        }
        // Whoever was refused for the other's sake hears in the end that it is there, or makes it.
        for host in &hosts {
            drop(host.create_agent(CreateAgent::new(agent.clone(), "script")).await);
        }
        let mut homes = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            if host.inner().store.agent(&agent).await.unwrap().is_some() {
                homes.push(number);
            }
        }
        assert_eq!(homes.len(), 1, "round {round}: one home");
        winners[homes[0]] += 1;
    }
    assert!(winners.iter().all(|count| *count > 0), "both have won: {winners:?}");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_passed_by_when_that_is_said() {
    let World { network, hosts } = two_hosts().await;
    network.set_cut(hosts[1].host(), true);
    let mut request = CreateAgent::new(id("a"), "script");
    let refused = hosts[0].create_agent(request.clone()).await;
    assert!(matches!(refused, Err(CallError::PeersSilent { .. })), "{refused:?}");
    request.is_forced = true;
    assert!(hosts[0].create_agent(request).await.unwrap().1);
    for host in &hosts {
        host.stop().await;
    }
}
