//! Groups over hosts with stores of their own: who takes a call, and who is left out.

use godwit_core::group::{GroupName, LABEL};

use super::drain::three_hosts;
use super::verbs::act;
use super::*;
use crate::runtime::groups::GroupCalled;
use crate::runtime::verbs::VerbCall;

fn group() -> GroupName {
    "workers".parse().unwrap()
}

fn member(agent: &str) -> CreateAgent {
    let labels = BTreeMap::from([(LABEL.to_owned(), "workers".to_owned())]);
    CreateAgent { labels, ..CreateAgent::new(id(agent), "script") }
}

/// Three hosts with a member each: `w-0`, `w-1`, `w-2`.
async fn three_members() -> Vec<Runtime> {
    let hosts = three_hosts().await;
    for (number, host) in hosts.iter().enumerate() {
        host.create_agent(member(&format!("w-{number}"))).await.unwrap();
    }
    hosts
}

async fn send_to(host: &Runtime, text: &str, key: Option<&str>) -> Result<GroupCalled, CallError> {
    let submission = Submission { idempotency_key: key.map(str::to_owned), ..submission(host, text) };
    host.call_group(&group(), AgentCall::Send { submission }).await
}

async fn ask_of(host: &Runtime, text: &str) -> Result<GroupCalled, CallError> {
    let ask = AgentCall::Ask { submission: submission(host, text), timeout_ms: 10_000 };
    host.call_group(&group(), ask).await
}

/// Gives an agent inputs that wait for company.
async fn busy(host: &Runtime, agent: &str, inputs: u32) {
    for _ in 0..inputs {
        let submission = Submission { is_silent: true, ..submission(host, "add 1") };
        call(host, agent, AgentCall::Send { submission }).await.unwrap();
    }
}

async fn stop(hosts: Vec<Runtime>) {
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_shared_out_among_members_on_all_hosts() {
    let hosts = three_members().await;
    let send = AgentCall::Send { submission: submission(&hosts[0], "get") };
    let nobody = hosts[0].call_group(&"nobody".parse().unwrap(), send).await;
    assert!(matches!(nobody, Err(CallError::NoGroup { silent: 0, .. })), "{nobody:?}");
    let mut counts: BTreeMap<AgentId, u32> = BTreeMap::new();
    for _ in 0..60 {
        *counts.entry(ask_of(&hosts[0], "add 1").await.unwrap().agent).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<u32>(), 60);
    assert!(counts.len() == 3 && counts.values().all(|count| *count >= 10), "{counts:?}");
    for (agent, count) in &counts {
        assert_eq!(ask(&hosts[1], agent.as_str(), "get").await, count.to_string());
    }
    let seen = hosts[2].group(&group()).await.unwrap();
    let homes: Vec<_> = seen.members.iter().map(|member| member.host).collect();
    assert_eq!(homes, hosts.iter().map(Runtime::host).collect::<Vec<_>>());
    stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_work_waiting_is_spared() {
    let hosts = three_members().await;
    // Paused it takes what is sent to it by name, and runs nothing.
    act(&hosts[1], "w-1", VerbCall::Pause, "paused").await;
    for _ in 0..5 {
        send(&hosts[1], "w-1", "add 1").await;
    }
    for _ in 0..10 {
        assert_ne!(send_to(&hosts[0], "add 1", None).await.unwrap().agent, id("w-1"), "it is paused");
    }
    busy(&hosts[0], "w-0", 50).await;
    until("what is done meanwhile to be over", async || {
        let seen = hosts[2].group(&group()).await.unwrap();
        seen.members[0].load >= 50 && seen.members[2].load == 0
    })
    .await;
    for _ in 0..10 {
        assert_eq!(send_to(&hosts[2], "add 1", None).await.unwrap().agent, id("w-2"), "it has least to do");
    }
    act(&hosts[0], "w-0", VerbCall::Pause, "paused").await;
    act(&hosts[2], "w-2", VerbCall::Pause, "paused").await;
    until("nobody to be left", async || {
        matches!(send_to(&hosts[0], "add 1", None).await, Err(CallError::NoMember { members: 3, .. }))
    })
    .await;
    stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_finds_its_member_again_through_every_host_and_after_moves() {
    let hosts = three_members().await;
    let mut taken = BTreeMap::new();
    for number in 0..20 {
        let key = format!("k-{number}");
        let sent = send_to(&hosts[number % 3], "add 1", Some(&key)).await.unwrap();
        assert!(matches!(sent.called.reply, AgentReply::Sent(sent) if !sent.is_duplicate));
        taken.insert(key, sent.agent);
    }
    migrate(&hosts[0], "w-0", &hosts[1]).await;
    act(&hosts[2], "w-2", VerbCall::Pause, "paused").await;
    for (number, (key, agent)) in taken.iter().enumerate() {
        let again = send_to(&hosts[(number + 1) % 3], "add 1", Some(key)).await.unwrap();
        assert_eq!(again.agent, *agent);
        assert!(matches!(again.called.reply, AgentReply::Sent(sent) if sent.is_duplicate), "{key}");
    }
    assert!(taken.values().any(|agent| *agent == id("w-0")), "{taken:?}");
    let seen = hosts[2].group(&group()).await.unwrap();
    assert_eq!(seen.members[0].host, hosts[1].host(), "the member has moved");
    stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_or_is_deleted_is_no_member_any_more() {
    let hosts = three_members().await;
    for _ in 0..5 {
        send_to(&hosts[0], "add 1", None).await.unwrap();
    }
    act(&hosts[1], "w-1", VerbCall::Delete, "deleted").await;
    hosts[2].inner().store.set_labels(&id("w-2"), BTreeMap::new()).await.unwrap();
    until("the members to be gone", async || {
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(ask_of(&hosts[2], "add 1").await.unwrap().agent);
        }
        seen.iter().all(|agent| *agent == id("w-0"))
    })
    .await;
    let wrong = CreateAgent {
        labels: BTreeMap::from([(LABEL.to_owned(), "No Group".to_owned())]),
        ..CreateAgent::new(id("w-3"), "script")
    };
    let refused = hosts[0].create_agent(wrong).await;
    assert!(matches!(refused, Err(CallError::Invalid { .. })), "{refused:?}");
    stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_is_tried_only_after_a_definite_refusal() {
    let hosts = three_members().await;
    hosts[0].group(&group()).await.unwrap();
    // What is known of it is fresh, and wrong: two members refuse by now.
    for (host, agent) in [(1, "w-1"), (2, "w-2")] {
        act(&hosts[host], agent, VerbCall::Delete, "deleted").await;
    }
    for _ in 0..10 {
        assert_eq!(ask_of(&hosts[0], "add 1").await.unwrap().agent, id("w-0"));
    }
    assert_eq!(ask(&hosts[0], "w-0", "get").await, "10");
    stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_gets_lost_is_not_asked_of_another_member() {
    let network = SimNetwork::default();
    let hosts = [host(&network, 1, separate_store()).await, host(&network, 2, separate_store()).await];
    for (number, host) in hosts.iter().enumerate() {
        host.create_agent(member(&format!("w-{number}"))).await.unwrap();
    }
    // It would have time, too.
    busy(&hosts[0], "w-0", 5).await;
    let seen = hosts[0].group(&group()).await.unwrap();
    assert_eq!(seen.members.iter().map(|member| member.load).collect::<Vec<_>>(), [5, 0]);
    network.lose_answers(hosts[1].host());
    let ask_once = AgentCall::Ask { submission: submission(&hosts[0], "add 1"), timeout_ms: 500 };
    let lost = hosts[0].call_group(&group(), ask_once).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(ask(&hosts[1], "w-1", "get").await, "1");
    assert_eq!(ask(&hosts[0], "w-0", "get").await, "5");
    stop(hosts.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_created_on_the_host_that_is_named() {
    let hosts = three_hosts().await;
    let (view, is_new) = hosts[0].create_agent_on("h3", member("w-7")).await.unwrap();
    assert!(is_new && view.home == hosts[2].host());
    let (_, is_new) = hosts[1].create_agent_on("h3", member("w-7")).await.unwrap();
    assert!(!is_new, "the same again is no error");
    let elsewhere = hosts[0].create_agent_on("h2", member("w-7")).await;
    assert!(matches!(elsewhere, Err(CallError::Conflict { .. })), "{elsewhere:?}");
    let unknown = hosts[0].create_agent_on("h9", member("w-8")).await;
    assert!(matches!(unknown, Err(CallError::NoSuch { .. })), "{unknown:?}");
    stop(hosts).await;
}
