//! What a host lets in by its operator's policy, and what of it is seen before anything moves.

use godwit_core::migration::Refusal;

use super::drain::plan;
use super::verbs::show;
use super::*;
use crate::runtime::counts::HostCounts;
use crate::runtime::placement::{Exodus, HostCall, HostReply};
use crate::runtime::respec::SpecUpdate;

/// Two hosts with stores of their own, the second of which is configured so.
async fn two(configure: impl FnOnce(&mut RuntimeConfig)) -> [Runtime; 2] {
    let network = SimNetwork::default();
    let one = host(&network, 1, separate_store()).await;
    let (mut config, parts, door) = set_up(&network, 2, separate_store(), godwit_core::limits::INPUTS_KEPT);
    configure(&mut config);
    [one, Runtime::start(config, parts, &door).await.unwrap()]
}

async fn stop(hosts: &[Runtime]) {
    for host in hosts {
        host.stop().await;
    }
}

/// Tries to move an agent, which is refused by policy before anything happens.
async fn refused(from: &Runtime, agent: &str, to: &Runtime) -> String {
    let record = try_to_migrate(from, agent, to).await;
    let failure = record.failure.as_ref().unwrap();
    assert_eq!((failure.refusal(), failure.is_retryable()), (Some(Refusal::Policy), false), "{record:?}");
    assert_eq!(record.bytes, 0, "nothing was sent");
    assert_eq!(to.inner().store.agent(&id(agent)).await.unwrap(), None);
    assert_eq!(ask(from, agent, "get").await, "1");
    failure.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_comes_only_where_a_rule_lets_it_in() {
    let digest = script_plugin().0.digest;
    let source = host(&SimNetwork::default(), 1, separate_store()).await;
    let (from, stranger) = (source.host(), HostId([9; 32]));
    source.stop().await;
    let rules = [
        ("stored".to_owned(), false),
        (format!("any@{stranger}"), false),
        (format!("{digest}@{stranger}"), false),
        ("0".repeat(64), false),
        (format!("any@{from}"), true),
        (digest.to_string(), true),
    ];
    for (rule, is_let_in) in rules {
        let hosts = two(|config| config.arrival_rules = vec![rule.parse().unwrap()]).await;
        create(&hosts[0], "a").await;
        ask(&hosts[0], "a", "add 1").await;
        if is_let_in {
            migrate(&hosts[0], "a", &hosts[1]).await;
        } else {
            let said = refused(&hosts[0], "a", &hosts[1]).await;
            assert!(said.contains("mesh.accept_plugins"), "{rule}: {said}");
            assert!(hosts[1].inner().store.plugins().await.unwrap().is_empty(), "no component was taken");
        }
        stop(&hosts).await;
    }
    let hosts = two(|config| config.arrival_rules = vec!["stored".parse().unwrap()]).await;
    let (plugin, component) = script_plugin();
    hosts[1].inner().store.put_plugin(plugin, component).await.unwrap();
    create(&hosts[0], "a").await;
    migrate(&hosts[0], "a", &hosts[1]).await;
    stop(&hosts).await;
}

fn kept_in(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("godwit.residency".to_owned(), value.to_owned())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_stays_where_it_must_be_kept() {
    let in_eu = |config: &mut RuntimeConfig| {
        config.capabilities.insert("residency".to_owned(), "eu".to_owned());
    };
    let [us, eu] = two(in_eu).await;
    let (plugin, component) = script_plugin();
    eu.inner().store.put_plugin(plugin, component).await.unwrap();
    let kept = CreateAgent { labels: kept_in("eu"), ..CreateAgent::new(id("a"), "script") };
    let made = us.create_agent(kept.clone()).await;
    assert!(matches!(made, Err(CallError::Conflict { .. })), "{made:?}");
    eu.create_agent(kept).await.unwrap();
    assert_eq!(ask(&eu, "a", "add 1").await, "1");
    let said = refused(&eu, "a", &us).await;
    assert!(said.contains("residency=eu"), "{said}");
    let planned = plan(&eu, "self", Exodus::Drain).await;
    assert_eq!(planned.moves.len(), 1);
    assert!(planned.moves[0].reason.as_ref().is_some_and(|why| why.contains("residency=eu")), "{planned:?}");
    // The label of one that is here says where it is, or it is not taken.
    let relabel = async |labels| {
        let base = show(&eu, "a").await.spec_revision;
        let update =
            SpecUpdate { base, plugin: "script".to_owned(), labels: Some(labels), patch: Default::default() };
        call(&eu, "a", AgentCall::Update(update)).await
    };
    let moved = relabel(kept_in("us")).await;
    assert!(matches!(moved, Err(CallError::Conflict { .. })), "{moved:?}");
    relabel(BTreeMap::new()).await.unwrap();
    migrate(&eu, "a", &us).await;
    stop(&[us, eu]).await;
}

async fn counts(asked: &Runtime, host: &str) -> HostCounts {
    match asked.call_host(host, HostCall::Counts).await.unwrap() {
        HostReply::Counts(counts) => counts,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_counts_what_it_has_and_is_asked_by_others() {
    let World { network, hosts } = two_hosts().await;
    for agent in ["a", "b", "c"] {
        create(&hosts[0], agent).await;
    }
    create(&hosts[1], "d").await;
    ask(&hosts[0], "a", "add 1").await;
    super::verbs::act(&hosts[0], "b", crate::runtime::verbs::VerbCall::Pause, "paused").await;
    send(&hosts[0], "b", "add 1").await;
    send(&hosts[0], "b", "add 1").await;
    let seen = counts(&hosts[1], "h1").await;
    let states =
        [("active", 1), ("dormant", 1), ("paused", 1)].map(|(state, count)| (state.to_owned(), count));
    assert_eq!(seen.agents, BTreeMap::from(states), "{seen:?}");
    assert_eq!((seen.open_inputs, seen.open_migrations, seen.plugins), (2, 0, 1), "{seen:?}");
    // The paused one may be, too.
    assert!((1..=2).contains(&seen.resident) && seen.waiting_outputs == 0, "{seen:?}");
    network.set_cut(hosts[1].host(), true);
    ask(&hosts[0], "a", "send d add 1").await;
    ask(&hosts[0], "a", "send d add 1").await;
    hosts[0].migrate_to(&id("a"), hosts[1].host()).await.unwrap();
    let seen = hosts[0].counts().await.unwrap();
    assert_eq!((seen.waiting_outputs, seen.open_migrations), (2, 1), "{seen:?}");
    stop(&hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_one_store_count_what_is_their_own() {
    let World { hosts, .. } = two_hosts_on_one_store().await;
    for (agent, host) in [("a", 0), ("b", 1), ("c", 1)] {
        create(&hosts[host], agent).await;
        ask(&hosts[host], agent, "add 1").await;
    }
    for (host, expected) in hosts.iter().zip([1, 2]) {
        let seen = host.counts().await.unwrap();
        assert_eq!(seen.agents.values().sum::<u64>(), expected, "{seen:?}");
    }
    stop(&hosts).await;
}
