//! Two agents of one name: whoever comes must be the one that is meant, by its key, and nothing has happened when it is not.

use std::fs::File;

use godwit_core::id::ClaimId;
use godwit_core::migration::{Failure, Refusal};

use super::verbs::{act, show};
use super::*;
use crate::runtime::archive::{ExpectedIdentity, ImportOptions};
use crate::runtime::placement::HostCall;
use crate::runtime::verbs::VerbCall;

/// A host that can write files, with nothing in its store.
async fn writing_host(network: &SimNetwork, number: u8, folder: &tempfile::TempDir) -> Runtime {
    let (config, parts, door) = set_up(network, number, separate_store(), godwit_core::limits::INPUTS_KEPT);
    let config = RuntimeConfig { scratch: Some(folder.path().to_owned()), ..config };
    Runtime::start(config, parts, &door).await.unwrap()
}

async fn has_script(runtime: &Runtime) {
    let (plugin, component) = script_plugin();
    runtime.inner().store.put_plugin(plugin, component).await.unwrap();
}

/// What a store says of itself: its agents, plugins and the number of its events.
async fn picture(runtime: &Runtime) -> (Vec<AgentRow>, usize, (u64, u64)) {
    let store = &runtime.inner().store;
    let agents = store.agents(None, 100).await.unwrap();
    (agents, store.plugins().await.unwrap().len(), store.event_range().await.unwrap())
}

/// An agent in a file, with its plugin.
async fn exported(runtime: &Runtime, agent: &str) -> File {
    runtime.export_agent(&id(agent), true).await.unwrap().file
}

fn another(refused: &Result<crate::runtime::call::AgentView, CallError>) -> bool {
    matches!(refused, Err(CallError::AnotherAgent { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_takes_the_agent_that_is_expected_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let home = writing_host(&SimNetwork::default(), 1, &folder).await;
    has_script(&home).await;
    create(&home, "a").await;
    ask(&home, "a", "add 3").await;
    let file = exported(&home, "a").await;
    let key = show(&home, "a").await.public_key.unwrap();
    // Another mesh: nobody there has an agent of this name.
    let other = writing_host(&SimNetwork::default(), 2, &folder).await;
    let before = picture(&other).await;
    let mut wrong = key;
    wrong.0[0] ^= 1;
    for expected in [ExpectedIdentity::Key(wrong), ExpectedIdentity::Origin(wrong.origin_hash())] {
        for is_forced in [false, true] {
            let options = ImportOptions { is_active: true, is_forced, expected: Some(expected) };
            let refused = other.import_agent(file.try_clone().unwrap(), options).await;
            assert!(another(&refused), "{refused:?}");
            assert_eq!(picture(&other).await, before, "no row, no plugin, no event");
        }
    }
    let expected: ExpectedIdentity = key.origin_hash().to_string().parse().unwrap();
    let options = ImportOptions { is_active: true, is_forced: false, expected: Some(expected) };
    other.import_agent(file, options).await.unwrap();
    assert_eq!(ask(&other, "a", "get").await, "3");
    for host in [&home, &other] {
        host.stop().await;
    }
}

#[test]
fn an_identity_is_a_key_or_an_origin_hash() {
    let key = "5".repeat(64).parse().unwrap();
    assert_eq!("5".repeat(64).parse(), Ok(ExpectedIdentity::Key(key)));
    let hash = godwit_core::identity::OriginHash(0x12);
    assert_eq!("0000000000000012".parse(), Ok(ExpectedIdentity::Origin(hash)));
    for wrong in ["", "12", "+000000000000012", &"g".repeat(64), &"5".repeat(65)] {
        wrong.parse::<ExpectedIdentity>().unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_import_does_not_take_a_namesake_for_the_one_that_left() {
    let (folder, network) = (tempfile::tempdir().unwrap(), SimNetwork::default());
    let left = writing_host(&network, 1, &folder).await;
    let lost = writing_host(&network, 2, &folder).await;
    let stranger = writing_host(&SimNetwork::default(), 3, &folder).await;
    for host in [&left, &lost, &stranger] {
        has_script(host).await;
    }
    for host in [&left, &stranger] {
        create(host, "a").await;
        ask(host, "a", "add 1").await;
    }
    migrate(&left, "a", &lost).await;
    ask(&lost, "a", "add 1").await;
    let key = show(&lost, "a").await.public_key;
    until("a bare tombstone", async || {
        let row = left.inner().store.agent(&id("a")).await.unwrap().unwrap();
        row.revision.0 == 0 && row.public_key == key
    })
    .await;
    let (namesake, real) = (exported(&stranger, "a").await, exported(&lost, "a").await);
    lost.stop().await;
    let options = ImportOptions { is_active: true, is_forced: true, expected: None };
    let before = picture(&left).await;
    let refused = left.import_agent(namesake, options).await;
    assert!(another(&refused), "{refused:?}");
    assert_eq!(picture(&left).await, before);
    left.import_agent(real.try_clone().unwrap(), options).await.unwrap();
    assert_eq!(ask(&left, "a", "get").await, "2");
    // It is here now: nobody takes its place, also by force, and nothing is stored.
    let before = picture(&left).await;
    let refused = left.import_agent(real, options).await;
    assert!(matches!(refused, Err(CallError::Conflict { .. })), "{refused:?}");
    assert_eq!(picture(&left).await, before);
    for host in [&left, &stranger] {
        host.stop().await;
    }
}

/// Though a peer does not answer.
async fn create_by_force(host: &Runtime, agent: &str) {
    let forced = CreateAgent { is_forced: true, ..CreateAgent::new(id(agent), "script") };
    host.create_agent(forced).await.unwrap();
}

/// Two hosts that know an agent `a`, one of them from its deliveries alone, and a third host with another one of its name.
async fn namesakes() -> (SimNetwork, [Runtime; 3]) {
    let network = SimNetwork::default();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(host(&network, number, separate_store()).await);
    }
    network.set_cut(hosts[2].host(), true);
    for home in [&hosts[0], &hosts[2]] {
        create_by_force(home, "a").await;
        ask(home, "a", "add 1").await;
    }
    // Its token is above all that the other has had.
    for _ in 0..8 {
        act(&hosts[2], "a", VerbCall::Respawn, "active").await;
    }
    let [one, two, three] = hosts.try_into().unwrap_or_else(|_| unreachable!("three"));
    (network, [one, two, three])
}

async fn refused_as_namesake(from: &Runtime, to: &Runtime) {
    let record = from.migrate_to(&id("a"), to.host()).await.unwrap();
    let record = ended(from, record).await;
    let refused = record.failure.as_ref().and_then(Failure::refusal);
    assert_eq!(refused, Some(Refusal::Exists), "{record:?}");
    let said = record.failure.map(|failure| failure.to_string()).unwrap_or_default();
    assert!(said.contains("another agent of the name a"), "{said}");
    assert_eq!(record.bytes, 0, "nothing was sent");
    let own = from.inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!(own.home, Home::Here, "it was not stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namesake_does_not_move_to_where_the_other_one_was() {
    let (network, [one, two, three]) = namesakes().await;
    migrate(&one, "a", &two).await;
    network.set_cut(three.host(), false);
    refused_as_namesake(&three, &one).await;
    migrate(&two, "a", &one).await;
    assert_eq!(ask(&one, "a", "get").await, "1", "the one that was there comes back");
    for host in [&one, &two, &three] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namesake_does_not_move_to_where_the_other_one_is_known_from_its_deliveries() {
    let (network, [one, two, three]) = namesakes().await;
    create_by_force(&two, "b").await;
    ask(&one, "a", "send b add 5").await;
    until("a delivery", async || ask(&two, "b", "get").await == "5").await;
    network.set_cut(three.host(), false);
    refused_as_namesake(&three, &two).await;
    migrate(&one, "a", &two).await;
    for host in [&one, &two, &three] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_comes_only_where_the_agent_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, parts, door) =
        set_up(&SimNetwork::default(), 1, separate_store(), godwit_core::limits::INPUTS_KEPT);
    config.scratch = Some(folder.path().to_owned());
    config.capabilities.insert("residency".to_owned(), "eu".to_owned());
    let home = Runtime::start(config, parts, &door).await.unwrap();
    has_script(&home).await;
    let labels = BTreeMap::from([("godwit.residency".to_owned(), "eu".to_owned())]);
    home.create_agent(CreateAgent { labels, ..CreateAgent::new(id("kept"), "script") }).await.unwrap();
    create(&home, "free").await;
    let other = writing_host(&SimNetwork::default(), 2, &folder).await;
    let before = picture(&other).await;
    let forced = ImportOptions { is_forced: true, ..ImportOptions::default() };
    for options in [ImportOptions::default(), forced] {
        let refused = other.import_agent(exported(&home, "kept").await, options).await;
        assert!(
            matches!(&refused, Err(CallError::Conflict { what }) if what.contains("residency=eu")),
            "{refused:?}"
        );
    }
    other.call_host("self", HostCall::Cordon(true)).await.unwrap();
    let refused = other.import_agent(exported(&home, "free").await, Default::default()).await;
    assert!(
        matches!(&refused, Err(CallError::Conflict { what }) if what.contains("cordoned")),
        "{refused:?}"
    );
    assert_eq!(picture(&other).await, before, "no row, no plugin, no event");
    other.call_host("self", HostCall::Cordon(false)).await.unwrap();
    other.import_agent(exported(&home, "free").await, Default::default()).await.unwrap();
    for host in [&home, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_claims_its_name_as_a_creation_does() {
    let folder = tempfile::tempdir().unwrap();
    let home = writing_host(&SimNetwork::default(), 1, &folder).await;
    has_script(&home).await;
    create(&home, "a").await;
    ask(&home, "a", "add 3").await;
    let file = exported(&home, "a").await;
    let network = SimNetwork::default();
    let mut hosts = [writing_host(&network, 1, &folder).await, writing_host(&network, 2, &folder).await];
    hosts.sort_by_key(Runtime::host);
    let [low, high] = &hosts;
    // Another host is about to make one of this name.
    low.inner().store.claim(&id("a"), low.host(), ClaimId([1; 16])).await.unwrap();
    let refused = high.import_agent(file.try_clone().unwrap(), Default::default()).await;
    assert!(matches!(&refused, Err(CallError::Claimed { host, .. }) if *host == low.host()), "{refused:?}");
    assert_eq!(high.inner().store.agent(&id("a")).await, Ok(None));
    // An import comes first as a creation would.
    high.inner().store.claim(&id("a"), high.host(), ClaimId([3; 16])).await.unwrap();
    low.import_agent(file.try_clone().unwrap(), Default::default()).await.unwrap();
    let left = high.inner().store.yield_claims(&id("a"), HostId([0xff; 32])).await;
    assert_eq!(left, Ok(None), "the claim there has yielded");
    for host in hosts.iter().chain([&home]) {
        host.stop().await;
    }
}

/// Three hosts: agent `a` of the first was heard by `b` of the second, and the third is out of reach.
async fn heard_before_the_third_is_cut_off() -> World {
    let network = SimNetwork::default();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(host(&network, number, separate_store()).await);
    }
    create(&hosts[0], "a").await;
    create(&hosts[1], "b").await;
    ask(&hosts[0], "a", "send b add 5").await;
    until("the first to be heard", async || ask(&hosts[1], "b", "get").await == "5").await;
    network.set_cut(hosts[2].host(), true);
    World { network, hosts }
}

/// The key of before vouches for no other: all hosts are asked whether somebody has that one still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_made_anew_is_heard_once_all_hosts_have_said_that_nobody_else_has_it() {
    let World { network, hosts } = heard_before_the_third_is_cut_off().await;
    let [home, receiver, third] = [&hosts[0], &hosts[1], &hosts[2]];
    act(home, "a", VerbCall::Delete, "deleted").await;
    let anew = CreateAgent { recreates: true, is_forced: true, ..CreateAgent::new(id("a"), "script") };
    home.create_agent(anew).await.unwrap();
    ask(home, "a", "send b add 1").await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(ask(receiver, "b", "get").await, "5", "the third host may have another one");
    let waits = home.inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!(waits.pending_outputs, 1, "nothing is lost");
    network.set_cut(third.host(), false);
    until("the second to be heard", async || ask(receiver, "b", "get").await == "6").await;
    for host in &hosts {
        host.stop().await;
    }
}

/// A reset leaves the key: nobody has to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_reset_is_heard_at_once() {
    let World { hosts, .. } = heard_before_the_third_is_cut_off().await;
    let [home, receiver] = [&hosts[0], &hosts[1]];
    act(home, "a", VerbCall::Reset, "active").await;
    ask(home, "a", "send b add 1").await;
    until("the second to be heard", async || ask(receiver, "b", "get").await == "6").await;
    for host in &hosts {
        host.stop().await;
    }
}
