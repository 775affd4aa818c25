//! Rosters on whole runtimes: what is named is there, what is named no more rests, and others are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use godwit_core::edge::Pair;
use godwit_core::event::EventKind;
use godwit_core::limits::{INPUTS_KEPT, PAGE_MAX};
use godwit_core::reconcile::MANAGED_BY;
use godwit_core::spec::{Addressability, SpecPatch};
use tokio::sync::watch;

use super::*;
use crate::agent_doc::AgentDoc;
use crate::roster::{AgentCustomizer, Roster, RosterError, RosterProvider, TopologyProvider};
use crate::runtime::boot::{BootMode, Materialized};
use crate::runtime::reconcile::{ReconcileReport, RosterSources};
use crate::runtime::verbs::VerbCall;

pub(super) fn roster(agents: &[&str], edges: &[(&str, &str)]) -> Roster {
    let agent = |text: &&str| format!("[[agents]]\nid='{text}'\nplugin='script'\n");
    let edge = |(one, other): &(&str, &str)| format!("[[edges]]\nbetween=['{one}','{other}']\n");
    let text: String = agents.iter().map(agent).chain(edges.iter().map(edge)).collect();
    Roster::from_toml(&text).unwrap()
}

/// What was done, by agent, then by edge; without what stays.
pub(super) fn done(report: &ReconcileReport) -> Vec<String> {
    let failed = |error: &Option<String>| error.as_ref().map_or("", |_| " failed");
    let agents = report.agents.iter().filter(|item| item.action != "keep");
    let edges = report.edges.iter().filter(|item| item.action != "keep");
    agents
        .map(|item| format!("{} {}{}", item.agent, item.action, failed(&item.error)))
        .chain(edges.map(|item| {
            let [one, other] = &item.between;
            format!("{one}--{other} {}{}", item.action, failed(&item.error))
        }))
        .collect()
}

pub(super) async fn state(host: &Runtime, agent: &str) -> String {
    let row = host.inner().store.agent(&id(agent)).await.unwrap().unwrap();
    row.lifecycle.name().to_owned()
}

pub(super) async fn edges(host: &Runtime) -> Vec<String> {
    let views = host.edges().await.unwrap();
    views
        .iter()
        .map(|view| format!("{} {}", view.pair, if view.is_managed { "managed" } else { "free" }))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roster_is_made_true_and_stays_so() {
    let host = lone_host().await;
    create(&host, "free").await;
    let first = roster(&["a", "b"], &[("a", "b")]);
    let planned = host.apply(&first, true).await.unwrap();
    assert_eq!(done(&planned), ["a create", "b create", "a--b wire"]);
    assert!(host.inner().store.agent(&id("a")).await.unwrap().is_none(), "it was only planned");
    let report = host.apply(&first, false).await.unwrap();
    assert_eq!(done(&report), ["a create", "b create", "a--b wire"]);
    assert!(report.is_complete());
    assert_eq!(ask(&host, "a", "add 2").await, "2");
    for again in [host.apply(&first, false).await.unwrap(), host.reconcile(false).await.unwrap()] {
        assert_eq!((done(&again), again.revision), (vec![], Some(1)), "it is true already");
    }
    let second = roster(&["b", "c"], &[("b", "c")]);
    let report = host.apply(&second, false).await.unwrap();
    assert_eq!(done(&report), ["a retire", "c create", "a--b unwire", "b--c wire"]);
    assert_eq!(edges(&host).await, ["b -- c managed"]);
    while state(&host, "a").await != "retired" {
        sleep(Duration::from_millis(5)).await;
    }
    let report = host.apply(&first, false).await.unwrap();
    assert_eq!(done(&report), ["a resume", "c retire", "a--b wire", "b--c unwire"]);
    assert_eq!(ask(&host, "a", "get").await, "2", "it was away, not gone");
    assert_eq!(state(&host, "free").await, "active", "what no roster made is left alone");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_changed_in_place() {
    let host = lone_host().await;
    let text = |more: &str| format!("[[agents]]\nid='a'\nplugin='script'\n{more}");
    let apply = async |more: &str| {
        let roster = Roster::from_toml(&text(more)).unwrap();
        done(&host.apply(&roster, false).await.unwrap())
    };
    assert_eq!(apply("").await, ["a create"]);
    ask(&host, "a", "add 3").await;
    assert_eq!(apply("addressability='internal'\nlabels={x='1'}").await, ["a update"]);
    let refused = call(&host, "a", AgentCall::Send { submission: submission(&host, "add 1") }).await;
    assert_eq!(refused, Err(CallError::NotAddressable));
    let dispatched = Submission { is_dispatched: true, ..submission(&host, "add 1") };
    call(&host, "a", AgentCall::Send { submission: dispatched }).await.unwrap();
    let row = host.inner().store.agent(&id("a")).await.unwrap().unwrap();
    let store = host.inner().store.mark().await.unwrap().store;
    let labels = BTreeMap::from([("x".into(), "1".into()), (MANAGED_BY.into(), store.to_string())]);
    assert_eq!(row.labels, labels);
    assert_eq!(apply("").await, ["a update"], "what is named no more is as if it never was");
    assert_eq!(ask(&host, "a", "get").await, "4");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_done_harms_no_other() {
    let host = lone_host().await;
    host.apply(&roster(&["old"], &[]), false).await.unwrap();
    create(&host, "gone").await;
    call(&host, "gone", AgentCall::Verb(VerbCall::Delete)).await.unwrap();
    let text = "[[agents]]\nid='a'\nplugin='script'\n[[agents]]\nid='b'\nplugin='nowhere'\n\
                [[agents]]\nid='gone'\nplugin='script'\n[[edges]]\nbetween=['a','b']\n";
    let wrong = Roster::from_toml(text).unwrap();
    let report = host.apply(&wrong, false).await.unwrap();
    assert_eq!(
        done(&report),
        ["a create", "b create failed", "gone deleted", "old retire failed", "a--b missing"],
        "nobody goes before all that are named are up"
    );
    assert!(!report.is_complete());
    assert_eq!((state(&host, "old").await, state(&host, "gone").await), ("active".into(), "deleted".into()));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_edges_are_healed_and_others_stay() {
    let host = lone_host().await;
    let wanted = roster(&["a", "b", "c"], &[("a", "b"), ("b", "c")]);
    host.apply(&wanted, false).await.unwrap();
    let pair = |one, other| Pair::new(id(one), id(other)).unwrap();
    assert!(host.wire(&pair("a", "c"), None).await.unwrap());
    assert!(host.unwire(&pair("a", "b")).await.unwrap());
    // Half of one is what a crash in between leaves.
    host.inner().store.remove_edge(&id("c"), &id("b")).await.unwrap();
    let report = host.reconcile(false).await.unwrap();
    assert_eq!(done(&report), ["a--b wire", "b--c heal"]);
    assert_eq!(edges(&host).await, ["a -- b managed", "a -- c free", "b -- c managed"]);
    let report = host.apply(&roster(&["a", "b", "c"], &[]), false).await.unwrap();
    assert_eq!(done(&report), ["a--b unwire", "b--c unwire"]);
    assert_eq!(edges(&host).await, ["a -- c free"], "an operator's edge stays");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicting_rosters_come_one_after_the_other() {
    let host = lone_host().await;
    let rosters = [roster(&["a", "b"], &[("a", "b")]), roster(&["b", "c"], &[("b", "c")])];
    let applying = (0..20).map(|round| {
        let (host, wanted) = (host.clone(), rosters[round % 2].clone());
        tokio::spawn(async move { host.apply(&wanted, false).await.unwrap() })
    });
    let reports: Vec<ReconcileReport> =
        futures::future::join_all(applying).await.into_iter().map(Result::unwrap).collect();
    assert!(reports.iter().all(ReconcileReport::is_complete), "{reports:#?}");
    let (last, revision) = host.roster().await.unwrap();
    assert_eq!(revision, reports.iter().filter_map(|report| report.revision).max());
    let expected = last.edges.iter().map(|pair| format!("{pair} managed")).collect::<Vec<_>>();
    assert_eq!(edges(&host).await, expected, "the last one wins, whole");
    for agent in ["a", "b", "c"] {
        let is_named = last.agents.contains_key(&id(agent));
        let state = state(&host, agent).await;
        assert_eq!(state == "active", is_named, "{agent} is {state}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_reach_over_stores_and_gate_what_is_sent() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[1], "far").await;
    let report = hosts[0].apply(&roster(&["near"], &[("near", "far")]), false).await.unwrap();
    assert_eq!(done(&report), ["near create", "far--near wire"]);
    assert_eq!(edges(&hosts[0]).await, ["far -- near managed"]);
    assert_eq!(edges(&hosts[1]).await, ["far -- near managed"], "each side lies with its agent");
    hosts[1].inner().store.remove_edge(&id("far"), &id("near")).await.unwrap();
    assert_eq!(done(&hosts[0].reconcile(false).await.unwrap()), ["far--near heal"]);
    for host in &hosts {
        host.stop().await;
    }
}

/// A roster that a test changes.
pub(super) struct Given {
    pub(super) roster: Mutex<watch::Receiver<Result<Roster, RosterError>>>,
}

#[async_trait]
impl RosterProvider for Given {
    async fn roster(&self) -> Result<Roster, RosterError> {
        self.roster.lock().unwrap().borrow_and_update().clone()
    }

    async fn changed(&self) {
        let mut roster = self.roster.lock().unwrap().clone();
        // The sender lives as long as the test.
        let _ = roster.changed().await;
    }
}

/// A roster that can't be had at first, and says nothing when it can.
struct Late {
    asked: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl RosterProvider for Late {
    async fn roster(&self) -> Result<Roster, RosterError> {
        match self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Err(RosterError::Unavailable { reason: "a test said so".into() }),
            _ => Ok(roster(&["a"], &[("a", "far")])),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_undone_is_tried_again() {
    let network = SimNetwork::default();
    let late = Late { asked: Default::default() };
    let sources = RosterSources { roster: Some(Arc::new(late)), ..RosterSources::default() };
    let other = host(&network, 2, separate_store()).await;
    let host = host_with(&network, 1, separate_store(), INPUTS_KEPT, sources).await;
    // A creation asks all peers, and this one is silent.
    network.set_cut(other.host(), true);
    host.add_peer(other.host(), "127.0.0.1:1".parse().unwrap()).unwrap();
    let (report, _) = host.bring_up_all(BootMode::Lazy, 4).await.unwrap();
    assert!(report.is_none(), "there is no roster yet");
    sleep(Duration::from_millis(1_500)).await;
    assert!(host.inner().store.agent(&id("a")).await.unwrap().is_none(), "a peer may have it");
    network.set_cut(other.host(), false);
    create(&other, "far").await;
    let is_done = async {
        while edges(&host).await != ["a -- far managed"] {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(Duration::from_secs(20), is_done).await.expect("nobody has to ask again");
    for host in [&host, &other] {
        host.stop().await;
    }
}

/// Everybody with everybody.
struct Full;

#[async_trait]
impl TopologyProvider for Full {
    async fn edges(&self, agents: &BTreeSet<AgentId>) -> Result<BTreeSet<Pair>, RosterError> {
        let pairs = agents.iter().flat_map(|one| agents.iter().map(move |other| (one, other)));
        Ok(pairs.filter_map(|(one, other)| Pair::new(one.clone(), other.clone()).ok()).collect())
    }
}

struct Christen;

impl AgentCustomizer for Christen {
    fn customize(&self, agent: &AgentId, doc: &mut AgentDoc) -> Result<(), String> {
        if agent.as_str() == "nameless" {
            return Err("it may not be called so".into());
        }
        doc.display_name = Some(agent.as_str().to_uppercase());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_followed_and_others_have_a_say() {
    let (sender, receiver) = watch::channel(Ok(roster(&["a", "b", "nameless"], &[])));
    let sources = RosterSources {
        roster: Some(Arc::new(Given { roster: Mutex::new(receiver) })),
        topology: Some(Arc::new(Full)),
        customizer: Some(Arc::new(Christen)),
    };
    let network = SimNetwork::default();
    let host = host_with(&network, 1, separate_store(), INPUTS_KEPT, sources).await;
    let (report, _) = host.bring_up_all(BootMode::Lazy, 4).await.unwrap();
    let report = report.unwrap();
    assert_eq!(done(&report)[..3], ["a create", "b create", "nameless create failed"]);
    assert_eq!(edges(&host).await, ["a -- b managed"]);
    let spec = host.inner().store.spec(&id("a")).await.unwrap().unwrap();
    assert_eq!(spec.display_name, "A");
    let refused = host.apply(&roster(&[], &[]), false).await;
    assert!(matches!(refused, Err(CallError::Conflict { .. })), "it comes from elsewhere: {refused:?}");
    drop(sender.send_replace(Err(RosterError::Unavailable { reason: "a test said so".into() })));
    assert!(matches!(host.reconcile(false).await, Err(CallError::Unavailable { .. })));
    assert_eq!(
        state(&host, "b").await,
        "active",
        "who does not answer has not said that nobody should be there"
    );
    drop(sender.send_replace(Ok(roster(&["a", "c"], &[]))));
    while edges(&host).await != ["a -- c managed"] {
        sleep(Duration::from_millis(5)).await;
    }
    host.stop().await;
}

// --- bringing agents up

async fn materialize(host: &Runtime, agent: &str) -> Materialized {
    match call(host, agent, AgentCall::Materialize).await.unwrap() {
        AgentReply::Materialized(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_agent_says_what_became_of_it() {
    let host = lone_host().await;
    for agent in ["new", "paused", "wrong"] {
        create(&host, agent).await;
    }
    let mut broken = CreateAgent::new(id("broken"), "script");
    let config = Some(BTreeMap::from([("init".to_owned(), "fatal".to_owned())]));
    broken.patch = SpecPatch { config, ..SpecPatch::default() };
    host.create_agent(broken).await.unwrap();
    assert_eq!(materialize(&host, "new").await, Materialized::Created);
    ask(&host, "new", "add 1").await;
    assert!(matches!(materialize(&host, "new").await, Materialized::Resumed { .. }));
    call(&host, "paused", AgentCall::Verb(VerbCall::Pause)).await.unwrap();
    assert_eq!(materialize(&host, "paused").await, Materialized::Dormant { state: "paused".into() });
    assert!(matches!(materialize(&host, "broken").await, Materialized::Broken { .. }));
    assert!(
        matches!(materialize(&host, "broken").await, Materialized::Broken { .. }),
        "it is not tried again"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_come_together_share_one_start() {
    let host = lone_host().await;
    create(&host, "a").await;
    let all = futures::future::join_all((0..50).map(|_| materialize(&host, "a"))).await;
    assert!(
        all.iter().all(|outcome| matches!(outcome, Materialized::Created | Materialized::Resumed { .. }))
    );
    let taken = host.inner().store.events(0, Some(&id("a")), Some(EventKind::LeaseAcquired), PAGE_MAX).await;
    assert_eq!(taken.unwrap().len(), 1, "one lease");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_brings_up_its_own_and_no_others() {
    let World { hosts, .. } = two_hosts_on_one_store().await;
    for agent in ["a", "b", "c", "d"] {
        create(&hosts[0], agent).await;
    }
    hosts[0].own(&id("a")).await.unwrap();
    call(&hosts[0], "d", AgentCall::Verb(VerbCall::Pause)).await.unwrap();
    let lazy = hosts[1].boot(BootMode::Lazy, 2).await.unwrap();
    assert_eq!((lazy.dormant, lazy.created), (4, 0));
    let eager = hosts[1].boot(BootMode::Eager, 2).await.unwrap();
    assert_eq!((eager.created, eager.held_elsewhere, eager.dormant), (2, 1, 1), "{eager:?}");
    let again = hosts[1].boot(BootMode::Eager, 2).await.unwrap();
    assert_eq!((again.resumed, again.held_elsewhere), (2, 1));
    let row = hosts[0].inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!(row.holder.unwrap().host, hosts[0].host(), "nobody was robbed");
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_agents_reach_each_other() {
    let host = lone_host().await;
    let mut internal = CreateAgent::new(id("b"), "script");
    internal.patch.addressability = Some(Addressability::Internal);
    host.create_agent(internal).await.unwrap();
    create(&host, "a").await;
    ask(&host, "a", "send b add 5").await;
    let dispatched = Submission { is_dispatched: true, ..submission(&host, "get") };
    let ask = || AgentCall::Ask {
        submission: Submission { id: host.new_input_id(), ..dispatched.clone() },
        timeout_ms: 5_000,
    };
    loop {
        let AgentReply::Asked(asked) = call(&host, "b", ask()).await.unwrap() else { panic!("no answer") };
        let Outcome::Committed { reply, .. } = asked.outcome else { panic!("not committed") };
        if reply.outcome == ReplyOutcome::Ok(Bytes::from_static(b"5")) {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    host.stop().await;
}
