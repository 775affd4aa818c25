//! Tests of whole runtimes over memory stores, scripted guests and a mesh inside the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_core::id::AgentId;
use godwit_core::input::{Kind, Outcome, ReplyOutcome, Source};
use godwit_core::migration::Phase;
use godwit_core::store::memory::MemoryStore;
use godwit_core::testing::{ScriptedLoader, SimNetwork, script_plugin};
use godwit_core::time::{SystemClock, sleep};

use super::agents::CreateAgent;
use super::call::{AgentCall, AgentReply, CallError, Submission};
use super::routing::Forward;
use super::*;

struct World {
    network: SimNetwork,
    hosts: Vec<Runtime>,
}

fn id(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

async fn host(network: &SimNetwork, number: u8, store: Arc<dyn RuntimeStore>) -> Runtime {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let door = PeerDoor::default();
    let host = HostId([number; 32]);
    let mesh = network.host(host, Arc::new(door.clone()));
    let config = RuntimeConfig {
        host,
        name: format!("h{number}"),
        api: "127.0.0.1:1".parse().unwrap(),
        lease_profile: LeaseProfile::FAST,
        resident_max: 100,
        guest_threads: 2,
        park_after: Duration::from_secs(60),
    };
    let parts = Parts { store, loader: Arc::new(ScriptedLoader::default()), mesh, clock, peer_book: None };
    let runtime = Runtime::start(config, parts, &door).await.unwrap();
    let (plugin, component) = script_plugin();
    drop(runtime.inner().store.put_plugin(plugin, component).await);
    runtime
}

fn separate_store() -> Arc<dyn RuntimeStore> {
    Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)))
}

async fn two_hosts() -> World {
    let network = SimNetwork::default();
    let hosts = vec![host(&network, 1, separate_store()).await, host(&network, 2, separate_store()).await];
    World { network, hosts }
}

async fn two_hosts_on_one_store() -> World {
    let network = SimNetwork::default();
    let store: Arc<dyn RuntimeStore> = Arc::new(MemoryStore::shared(Arc::new(SystemClock)));
    let hosts = vec![host(&network, 1, store.clone()).await, host(&network, 2, store).await];
    World { network, hosts }
}

async fn create(runtime: &Runtime, agent: &str) {
    let request = CreateAgent {
        agent: id(agent),
        plugin: "script".into(),
        config: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    runtime.create_agent(request).await.unwrap();
}

fn submission(runtime: &Runtime, text: &str) -> Submission {
    Submission {
        id: runtime.new_input_id(),
        kind: Kind::Message,
        source: Source::Operator,
        content_type: "text/plain".into(),
        payload: Bytes::from(text.to_owned()),
        headers: Vec::new(),
        idempotency_key: None,
    }
}

async fn call(runtime: &Runtime, agent: &str, call: AgentCall) -> Result<AgentReply, CallError> {
    runtime.call(&id(agent), call, Forward::Yes).await.map(|called| called.reply)
}

async fn ask(runtime: &Runtime, agent: &str, text: &str) -> String {
    let ask = AgentCall::Ask { submission: submission(runtime, text), timeout_ms: 10_000 };
    match call(runtime, agent, ask).await {
        Ok(AgentReply::Asked(asked)) => match asked.outcome {
            Outcome::Committed { reply, .. } => match reply.outcome {
                ReplyOutcome::Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                other => format!("{other:?}"),
            },
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

async fn send(runtime: &Runtime, agent: &str, text: &str) {
    let sent = call(runtime, agent, AgentCall::Send { submission: submission(runtime, text) }).await;
    assert!(matches!(sent, Ok(AgentReply::Sent(_))), "{sent:?}");
}

async fn migrate(from: &Runtime, agent: &str, to: &Runtime) {
    let asked = call(from, agent, AgentCall::Migrate { to: to.name().to_owned() }).await;
    let Ok(AgentReply::Migrating(id)) = asked else { panic!("{asked:?}") };
    let done = async {
        loop {
            let record = from.migration(id).await.unwrap();
            if record.phase.is_terminal() {
                return record;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    let record = within(Duration::from_secs(10), done).await.expect("the migration ends");
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
    assert!(record.pause_us.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_another_host_s_agent_is_forwarded() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[1], "a", "add 4").await, "4");
    send(&hosts[1], "a", "add 1").await;
    assert_eq!(ask(&hosts[0], "a", "get").await, "5");
    let refused = hosts[1].call(&id("a"), AgentCall::Show, Forward::No).await;
    assert!(matches!(refused, Err(CallError::Misdirected { .. })), "{refused:?}");
    let unknown = call(&hosts[1], "nobody", AgentCall::Show).await;
    assert!(matches!(unknown, Err(CallError::NotFound { .. })), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_moves_there_and_back_and_there_under_load() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    let load: Vec<_> = (0..4usize)
        .map(|client| {
            let hosts = hosts.clone();
            tokio::spawn(async move {
                for step in 0..50usize {
                    let answer = ask(&hosts[(client + step) % 2], "a", "add 1").await;
                    assert!(answer.parse::<u32>().is_ok(), "{answer}");
                }
            })
        })
        .collect();
    migrate(&hosts[0], "a", &hosts[1]).await;
    migrate(&hosts[1], "a", &hosts[0]).await;
    migrate(&hosts[0], "a", &hosts[1]).await;
    for client in load {
        client.await.unwrap();
    }
    assert_eq!(ask(&hosts[0], "a", "get").await, "200");
    let Ok(AgentReply::Verified(report)) = call(&hosts[0], "a", AgentCall::Verify).await else { panic!() };
    assert_eq!(report.breaks, Vec::<String>::new());
    assert_eq!(report.receipts, 202, "init, 200 turns, get");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_moves_within_a_shared_store() {
    let World { hosts, .. } = two_hosts_on_one_store().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    migrate(&hosts[0], "a", &hosts[1]).await;
    assert_eq!(ask(&hosts[1], "a", "add 1").await, "2");
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "3");
    migrate(&hosts[1], "a", &hosts[0]).await;
    assert_eq!(ask(&hosts[1], "a", "get").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_between_agents_arrive_once_and_in_order_across_hosts() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    create(&hosts[1], "b").await;
    for _ in 0..20 {
        assert_eq!(ask(&hosts[0], "a", "send b add 1").await, "0");
    }
    let arrived = async {
        while ask(&hosts[0], "b", "get").await != "20" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(Duration::from_secs(10), arrived).await.expect("all messages arrive");
    let emptied = async {
        while !matches!(call(&hosts[0], "a", AgentCall::Outputs { after: 0, limit: 100 }).await, Ok(AgentReply::Outputs(rest)) if rest.items.is_empty())
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(Duration::from_secs(10), emptied).await.expect("acknowledged outputs leave the outbox");
    assert_eq!(ask(&hosts[0], "a", "send nobody hello").await, "0");
    let ended = async {
        loop {
            if let Ok(AgentReply::Outputs(rest)) =
                call(&hosts[0], "a", AgentCall::Outputs { after: 0, limit: 9 }).await
                && rest.items.iter().any(|output| {
                    matches!(output.state, godwit_core::output::OutputState::Undeliverable { .. })
                })
            {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(Duration::from_secs(10), ended).await.expect("an output to nobody ends visibly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_to_an_unreachable_host_leaves_the_agent_running() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    let host = hosts[1].host().to_string();
    network.set_cut(hosts[1].host(), true);
    let Ok(AgentReply::Migrating(id)) = call(&hosts[0], "a", AgentCall::Migrate { to: host }).await else {
        panic!()
    };
    let failed = async {
        while !hosts[0].migration(id).await.unwrap().phase.is_terminal() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    within(Duration::from_secs(10), failed).await.expect("the migration ends");
    assert_eq!(hosts[0].migration(id).await.unwrap().phase, Phase::Failed);
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "2");
    let silent = call(&hosts[0], "b", AgentCall::Show).await;
    assert!(matches!(silent, Err(CallError::PeersSilent { silent: 1, .. })), "{silent:?}");
}
