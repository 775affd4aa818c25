//! Tests of whole runtimes over memory stores, scripted guests and a mesh inside the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use godwit_core::agent::MemoryNotes;
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, MigrationId};
use godwit_core::input::{InputState, Kind, Outcome, ReplyOutcome, Source};
use godwit_core::mesh::Bulk;
use godwit_core::migration::{Phase, Role};
use godwit_core::store::memory::{CommitPoint, Doubt, MemoryStore};
use godwit_core::store::{AgentRow, Home, MigrationRecord};
use godwit_core::testing::{ScriptedLoader, SimNetwork, script_plugin};
use godwit_core::time::{SystemClock, sleep};

use super::agents::CreateAgent;
use super::call::{AgentCall, AgentReply, CallError, Submission};
use super::routing::Forward;
use super::*;

mod bulk;
mod claims;
mod drain;
mod failing;
mod false_peer;
mod groups;
mod hints;
mod hooks;
mod idle;
mod journey;
mod moved_on;
mod names;
mod outbox;
mod policy;
mod replay;
mod respec;
mod roster;
mod rosters;
mod shutdown;
mod standby;
mod transit;
mod verbs;
mod watchdog;
mod watching;

struct World {
    network: SimNetwork,
    hosts: Vec<Runtime>,
}

pub(crate) fn id(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

/// Waits for what happens by itself.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    within(Duration::from_secs(20), waiting).await.unwrap_or_else(|| panic!("not in time: {what}"));
}

/// A host over a store, in a network of its own.
pub(crate) async fn lone_host() -> Runtime {
    host(&SimNetwork::default(), 1, separate_store()).await
}

pub(crate) async fn host(network: &SimNetwork, number: u8, store: Arc<dyn RuntimeStore>) -> Runtime {
    host_that_keeps(network, number, store, godwit_core::limits::INPUTS_KEPT).await
}

async fn host_that_keeps(
    network: &SimNetwork,
    number: u8,
    store: Arc<dyn RuntimeStore>,
    inputs_kept: Duration,
) -> Runtime {
    host_with(network, number, store, inputs_kept, RosterSources::default()).await
}

async fn host_with(
    network: &SimNetwork,
    number: u8,
    store: Arc<dyn RuntimeStore>,
    inputs_kept: Duration,
    roster: RosterSources,
) -> Runtime {
    let (config, parts, door) = set_up(network, number, store, inputs_kept);
    let runtime = Runtime::start(config, Parts { roster, ..parts }, &door).await.unwrap();
    let (plugin, component) = script_plugin();
    drop(runtime.inner().store.put_plugin(plugin, component).await);
    runtime
}

fn set_up(
    network: &SimNetwork,
    number: u8,
    store: Arc<dyn RuntimeStore>,
    inputs_kept: Duration,
) -> (RuntimeConfig, Parts, PeerDoor) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let door = PeerDoor::default();
    let key = SigningKey::from_bytes(&[number; 32]);
    let host = HostId(key.verifying_key().to_bytes());
    let opener = key.clone();
    let unsealer: Unsealer = Arc::new(move |context, sealed| crate::envelope::open(&opener, context, sealed));
    let signer: Signer = Arc::new(move |bytes| key.sign(bytes).to_bytes());
    let mesh = network.host(host, Arc::new(door.clone()));
    let config = RuntimeConfig {
        host,
        name: format!("h{number}"),
        api: "127.0.0.1:1".parse().unwrap(),
        carries_identity: true,
        takes_only_expected: false,
        arrival_rules: Vec::new(),
        delta_bytes_max: godwit_core::limits::DELTA_BYTES_MAX,
        capabilities: Default::default(),
        lease_profile: LeaseProfile::FAST,
        resident_max: 100,
        guest_threads: 2,
        park_after: Duration::from_secs(60),
        operations: OperationPolicy::default(),
        secrets: Default::default(),
        inputs_kept,
        receipts_kept: Some(5),
        scratch: None,
        needs_edges: false,
    };
    let parts = Parts {
        store,
        loader: Arc::new(ScriptedLoader::default()),
        mesh,
        clock,
        peer_book: None,
        signer: Some(signer),
        unsealer: Some(unsealer),
        load_notes: Arc::new(MemoryNotes::default()),
        head: None,
        roster: RosterSources::default(),
        hooks: Default::default(),
    };
    (config, parts, door)
}

fn separate_store() -> Arc<dyn RuntimeStore> {
    Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)))
}

/// Two hosts with stores of their own, each configured so.
async fn hosts_apart(network: &SimNetwork, configure: impl Fn(u8, &mut RuntimeConfig)) -> [Runtime; 2] {
    let mut hosts = Vec::new();
    for number in [1, 2] {
        let (mut config, parts, door) =
            set_up(network, number, separate_store(), godwit_core::limits::INPUTS_KEPT);
        configure(number, &mut config);
        let runtime = Runtime::start(config, parts, &door).await.unwrap();
        let (plugin, component) = script_plugin();
        drop(runtime.inner().store.put_plugin(plugin, component).await);
        hosts.push(runtime);
    }
    hosts.try_into().unwrap_or_else(|_| unreachable!("two"))
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

/// One side's record of migration 3 of agent `a`, whose copy is bound.
fn bound_record(role: Role, from: &Runtime, to: &Runtime) -> MigrationRecord {
    MigrationRecord {
        id: MigrationId([3; 16]),
        agent: id("a"),
        role,
        source: from.host(),
        target: to.host(),
        phase: Phase::Cutover,
        failure: None,
        rounds: 1,
        bytes: 1,
        pause_us: None,
        started_at_ms: 1,
        deadline_ms: u64::MAX,
    }
}

/// A transfer as the mesh gives it out.
fn bulk(body: Bytes) -> Bulk {
    Bulk { header: Bytes::new(), digest: Digest::of(&body), body }
}

pub(crate) async fn create(runtime: &Runtime, agent: &str) {
    runtime.create_agent(CreateAgent::new(id(agent), "script")).await.unwrap();
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
        mode: Default::default(),
        is_silent: false,
        supersedes: None,
        traceparent: None,
        correlation: None,
        is_dispatched: false,
    }
}

async fn call(runtime: &Runtime, agent: &str, call: AgentCall) -> Result<AgentReply, CallError> {
    runtime.call(&id(agent), call, Forward::Yes).await.map(|called| called.reply)
}

pub(crate) async fn ask(runtime: &Runtime, agent: &str, text: &str) -> String {
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
    let record = try_to_migrate(from, agent, to).await;
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
    assert!(record.pause_us.is_some());
}

/// Moves an agent, or finds out that it stays.
async fn try_to_migrate(from: &Runtime, agent: &str, to: &Runtime) -> MigrationRecord {
    let asked = call(from, agent, AgentCall::Migrate { to: to.name().to_owned() }).await;
    let Ok(AgentReply::Migrating(id)) = asked else { panic!("{asked:?}") };
    ended(from, id).await
}

/// The record of a migration once it is over.
async fn ended(source: &Runtime, id: MigrationId) -> MigrationRecord {
    let done = async {
        loop {
            let record = source.migration(id).await.unwrap();
            if record.phase.is_terminal() {
                return record;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    within(Duration::from_secs(10), done).await.expect("the migration ends")
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
async fn a_verb_whose_answer_got_lost_may_have_been_done() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[1], "a", "add 4").await, "4");
    network.lose_answers(hosts[0].host());
    let reset = call(&hosts[1], "a", AgentCall::Verb(crate::runtime::verbs::VerbCall::Reset)).await;
    assert!(matches!(reset, Err(CallError::Unknown { .. })), "{reset:?}");
    assert_eq!(ask(&hosts[0], "a", "get").await, "0", "it has been done");
    let verified = call(&hosts[1], "a", AgentCall::Verify).await;
    assert!(matches!(verified, Err(CallError::PeersSilent { .. })), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_not_here_can_be_neither_retried_nor_dropped() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    let input = hosts[0].new_input_id();
    let retried = call(&hosts[0], "a", AgentCall::Redrive { input }).await;
    assert!(matches!(retried, Err(CallError::NoSuch { .. })), "{retried:?}");
    let from = InputState::DeadLettered;
    let dropped = call(&hosts[0], "a", AgentCall::Cancel { input, from }).await;
    assert!(matches!(dropped, Err(CallError::NoSuch { .. })), "{dropped:?}");
}

#[test]
fn a_refusal_says_nothing_about_an_earlier_try() {
    for refusal in [CallError::Full, CallError::Interrupted, CallError::Busy { depth: 1 }] {
        assert_eq!(routing::unless_durable(refusal.clone(), false), refusal);
        let after = routing::unless_durable(refusal, true);
        assert!(matches!(after, CallError::Unknown { .. }), "{after:?}");
    }
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
async fn a_migration_does_not_chase_an_agent_that_never_rests() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[0], "a").await;
    // Whenever a bundle has arrived, there is something new.
    network.set_bulk_delay(Duration::from_millis(20));
    let rests = CancellationToken::new();
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (host, rests) = (hosts[0].clone(), rests.clone());
            tokio::spawn(async move {
                while !rests.is_cancelled() {
                    ask(&host, "a", "add 1").await;
                }
            })
        })
        .collect();
    let record = try_to_migrate(&hosts[0], "a", &hosts[1]).await;
    rests.cancel();
    for client in load {
        client.await.unwrap();
    }
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
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
    // Whoever is asked: its owner moves it, also to the one that was asked.
    migrate(&hosts[1], "a", &hosts[1]).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_just_starting_is_reached_all_the_same() {
    let World { network, hosts } = two_hosts().await;
    create(&hosts[0], "a").await;
    let target = hosts[1].host();
    network.set_cut(target, true);
    // By its key: a name can't be asked for now.
    let asked = call(&hosts[0], "a", AgentCall::Migrate { to: target.to_string() }).await;
    let Ok(AgentReply::Migrating(id)) = asked else { panic!("{asked:?}") };
    sleep(Duration::from_millis(50)).await;
    assert!(!hosts[0].migration(id).await.unwrap().phase.is_terminal(), "it gave up at once");
    network.set_cut(target, false);
    let record = ended(&hosts[0], id).await;
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
}

/// Where an agent is at home, by the stores' own words.
async fn homes(hosts: &[Runtime], agent: &str) -> Vec<usize> {
    let mut homes = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let row = host.inner().store.agent(&id(agent)).await.unwrap();
        if matches!(row, Some(AgentRow { home: Home::Here, .. })) {
            homes.push(number);
        }
    }
    homes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_answer_at_the_commit_point_is_settled_by_the_row() {
    use CommitPoint::{Abort, Begin, Finish};
    use Doubt::{NotWritten, Written};
    let cases: [(&[(CommitPoint, Doubt)], bool); 7] = [
        (&[(Begin, Written)], false),
        (&[(Begin, NotWritten)], false),
        (&[(Finish, Written)], true),
        (&[(Finish, NotWritten)], false),
        (&[(Finish, NotWritten), (Abort, Written)], false),
        (&[(Finish, NotWritten), (Abort, NotWritten)], false),
        (&[(Begin, Written), (Abort, NotWritten), (Abort, Written)], false),
    ];
    for (doubts, moves) in cases {
        let network = SimNetwork::default();
        let source = MemoryStore::exclusive(Arc::new(SystemClock));
        let hosts =
            [host(&network, 1, Arc::new(source.clone())).await, host(&network, 2, separate_store()).await];
        create(&hosts[0], "a").await;
        assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
        doubts.iter().for_each(|(point, doubt)| source.doubt(*point, *doubt));
        let record = try_to_migrate(&hosts[0], "a", &hosts[1]).await;
        let phase = if moves { Phase::Complete } else { Phase::Failed };
        assert_eq!(record.phase, phase, "{doubts:?}: {record:?}");
        assert_eq!(homes(&hosts, "a").await, [usize::from(moves)], "{doubts:?}");
        assert_eq!(ask(&hosts[1], "a", "add 1").await, "2", "{doubts:?}");
        // Nothing is left behind that would be in the way of the next move.
        if !moves {
            migrate(&hosts[0], "a", &hosts[1]).await;
        }
        assert_eq!(ask(&hosts[0], "a", "add 1").await, "3", "{doubts:?}");
        assert_eq!(homes(&hosts, "a").await, [1], "{doubts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_transfer_within_a_store_is_settled_by_the_lease() {
    for (doubt, phase) in [(Doubt::Written, Phase::Complete), (Doubt::NotWritten, Phase::Failed)] {
        let network = SimNetwork::default();
        let store = MemoryStore::shared(Arc::new(SystemClock));
        let hosts = [
            host(&network, 1, Arc::new(store.clone())).await,
            host(&network, 2, Arc::new(store.clone())).await,
        ];
        create(&hosts[0], "a").await;
        assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
        store.doubt(CommitPoint::Transfer, doubt);
        let record = try_to_migrate(&hosts[0], "a", &hosts[1]).await;
        assert_eq!(record.phase, phase, "{doubt:?}: {record:?}");
        for (number, host) in hosts.iter().enumerate() {
            assert_eq!(ask(host, "a", "add 1").await, (2 + number).to_string(), "{doubt:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_whose_record_is_in_doubt_is_run_and_comes_to_its_end() {
    for point in [CommitPoint::Record, CommitPoint::RecordEnd] {
        for doubt in [Doubt::Written, Doubt::NotWritten] {
            let network = SimNetwork::default();
            let store = MemoryStore::shared(Arc::new(SystemClock));
            let hosts = [
                host(&network, 1, Arc::new(store.clone())).await,
                host(&network, 2, Arc::new(store.clone())).await,
            ];
            create(&hosts[0], "a").await;
            assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
            store.doubt(point, doubt);
            migrate(&hosts[0], "a", &hosts[1]).await;
            migrate(&hosts[1], "a", &hosts[0]).await;
            assert_eq!(ask(&hosts[1], "a", "add 1").await, "2", "{point:?} {doubt:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_inputs_go_after_a_while_and_the_history_still_verifies() {
    let kept = Duration::from_secs(2);
    let host = host_that_keeps(&SimNetwork::default(), 1, separate_store(), kept).await;
    create(&host, "a").await;
    let keyed = || Submission { idempotency_key: Some("key".into()), ..submission(&host, "add 1") };
    let add = || async {
        let ask = AgentCall::Ask { submission: keyed(), timeout_ms: 10_000 };
        call(&host, "a", ask).await.unwrap();
        ask_number(&host).await
    };
    assert_eq!((add().await, add().await), (1, 1), "one key runs once");
    let is_new_again = async {
        while add().await == 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(Duration::from_secs(30), is_new_again).await.expect("the key is new again");
    let Ok(AgentReply::Verified(report)) = call(&host, "a", AgentCall::Verify).await else { panic!() };
    assert_eq!(report.breaks, Vec::<String>::new());
    let row = host.inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert!(row.inputs_pruned > 0);
    let has_checkpoint = async {
        loop {
            ask(&host, "a", "add 1").await;
            let Ok(AgentReply::Verified(report)) = call(&host, "a", AgentCall::Verify).await else {
                panic!()
            };
            assert_eq!(report.breaks, Vec::<String>::new());
            if report.checkpointed > 10 {
                return report;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let report = within(Duration::from_secs(10), has_checkpoint).await.expect("old receipts go");
    assert_eq!(report.checkpointed + report.receipts, report.revision.0);
    assert_eq!(report.signers, [host.host()]);
}

async fn ask_number(host: &Runtime) -> u32 {
    ask(host, "a", "get").await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_with_the_reply_or_with_unknown_and_never_twice() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "asker").await;
    create(&hosts[1], "answerer").await;
    assert_eq!(ask(&hosts[1], "answerer", "add 4").await, "4");
    // The answerer's reply is its sum; the asker adds it.
    assert_eq!(ask(&hosts[0], "asker", "request 60000 answerer add 3").await, "0");
    until_asked(&hosts[0], "asker", "7").await;
    assert_eq!(hosts[0].inner().store.timers(&id("asker")).await, Ok(vec![]), "nobody waits any more");
    // Nobody answers: a thousand.
    assert_eq!(ask(&hosts[0], "asker", "request 30 nobody hello").await, "7");
    until_asked(&hosts[0], "asker", "1007").await;
    let page = godwit_core::store::Page { after: 0, limit: 100 };
    let inputs = hosts[0].inner().store.inputs(&id("asker"), None, page).await.unwrap();
    let ends = inputs.iter().filter(|input| input.input.kind == Kind::PeerResponseTerminal).count();
    assert_eq!(ends, 2, "each request ended once");
}

/// Waits until an agent answers so.
async fn until_asked(runtime: &Runtime, agent: &str, expected: &str) {
    let asking = async {
        while ask(runtime, agent, "get").await != expected {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(Duration::from_secs(10), asking).await.unwrap_or_else(|| panic!("{agent} never says {expected}"));
}

#[test]
fn a_host_whose_tasks_are_dropped_keeps_no_session() {
    let tokio =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store: Arc<dyn RuntimeStore> = Arc::new(MemoryStore::shared(Arc::new(SystemClock)));
    let LeaseProfile { ttl, heartbeat, .. } = LeaseProfile::FAST;
    let remaining = || tokio().block_on(store.sessions()).unwrap()[0].remaining.unwrap();

    let of_host = tokio();
    let network = SimNetwork::default();
    let _host = of_host.block_on(host(&network, 1, store.clone()));
    std::thread::sleep(heartbeat * 2);
    assert!(remaining() > ttl - heartbeat * 2, "it is kept");
    drop(of_host);
    std::thread::sleep(heartbeat * 2);
    assert!(remaining() < ttl - heartbeat * 3 / 2, "nobody keeps it");
}
