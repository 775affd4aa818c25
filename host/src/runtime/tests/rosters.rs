//! Several rosters, and rosters where something is in the way: nobody's agents go for another's sake, and nothing that was
//! asked for is forgotten.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use godwit_core::edge::Pair;
use godwit_core::limits::INPUTS_KEPT;
use tokio::sync::watch;

use super::roster::{Given, done, edges, roster, state};
use super::*;
use crate::agent_doc::AgentDoc;
use crate::roster::{AgentCustomizer, Roster, RosterError, RosterProvider, TopologyProvider};
use crate::runtime::boot::BootMode;
use crate::runtime::reconcile::RosterSources;

async fn is_there(host: &Runtime, agent: &str) -> bool {
    host.inner().store.agent(&id(agent)).await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_moved_here_is_left_to_the_roster_that_has_it() {
    let World { hosts, .. } = two_hosts().await;
    hosts[1].apply(&roster(&["guest", "far"], &[("guest", "far")]), false).await.unwrap();
    ask(&hosts[1], "guest", "add 1").await;
    migrate(&hosts[1], "guest", &hosts[0]).await;
    // The roster of this host names neither; an edge of its own is nobody else's matter.
    let own = hosts[0].apply(&roster(&["own"], &[]), false).await.unwrap();
    assert_eq!(done(&own), ["own create"]);
    assert_eq!(state(&hosts[0], "guest").await, "active");
    assert_eq!(edges(&hosts[0]).await, ["far -- guest managed"]);
    // Whoever names it where it lives manages it from then on.
    hosts[0].apply(&roster(&["own", "guest"], &[]), false).await.unwrap();
    let dropped = hosts[0].apply(&roster(&["own"], &[]), false).await.unwrap();
    assert_eq!(done(&dropped), ["guest retire"]);
    for host in &hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hosts_entry_is_no_matter_of_this_one() {
    let network = SimNetwork::default();
    let (host, other) =
        (host(&network, 1, separate_store()).await, host(&network, 2, separate_store()).await);
    network.set_cut(other.host(), true);
    host.add_peer(other.host(), "127.0.0.1:1".parse().unwrap()).unwrap();
    let text = |own: &str| {
        let theirs: String = (0..50)
            .map(|number| format!("[[agents]]\nid='far-{number}'\nplugin='nowhere'\nhost='h2'\n"))
            .collect();
        Roster::from_toml(&format!("{theirs}{own}")).unwrap()
    };
    let mut create = CreateAgent::new(id("old"), "script");
    create.is_forced = true;
    host.create_agent(create).await.unwrap();
    let named = format!("[[agents]]\nid='old'\nplugin='script'\nhost='{}'\n", &host.host().to_string()[..8]);
    assert!(host.apply(&text(&named), false).await.unwrap().is_complete(), "nobody is asked");
    let dropped = host.apply(&text(""), false).await.unwrap();
    assert_eq!(done(&dropped).last().unwrap(), "old retire");
    for host in [&host, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_only_shown_is_done_all_the_same() {
    let (sender, receiver) = watch::channel(Ok(roster(&["a"], &[])));
    let sources =
        RosterSources { roster: Some(Arc::new(Silent(Mutex::new(receiver)))), ..RosterSources::default() };
    let host = host_with(&SimNetwork::default(), 1, separate_store(), INPUTS_KEPT, sources).await;
    host.bring_up_all(BootMode::Lazy, 4).await.unwrap();
    drop(sender.send_replace(Ok(roster(&["a", "b"], &[]))));
    assert_eq!(done(&host.reconcile(true).await.unwrap()), ["b create"]);
    until("a change seen by a dry run", async || is_there(&host, "b").await).await;
    drop(sender.send_replace(Ok(roster(&["a", "b", "c"], &[]))));
    host.roster().await.unwrap();
    until("a change seen by whoever looks", async || is_there(&host, "c").await).await;
    host.stop().await;
}

/// A roster that says of no change by itself.
struct Silent(Mutex<watch::Receiver<Result<Roster, RosterError>>>);

#[async_trait]
impl RosterProvider for Silent {
    async fn roster(&self) -> Result<Roster, RosterError> {
        self.0.lock().unwrap().borrow().clone()
    }
}

/// Does not answer when it is asked first.
#[derive(Default)]
struct Slow(AtomicBool);

#[async_trait]
impl TopologyProvider for Slow {
    async fn edges(&self, _agents: &BTreeSet<AgentId>) -> Result<BTreeSet<Pair>, RosterError> {
        if !self.0.swap(true, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(BTreeSet::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_is_done_though_its_caller_goes_away() {
    let sources = RosterSources { topology: Some(Arc::new(Slow::default())), ..RosterSources::default() };
    let host = host_with(&SimNetwork::default(), 1, separate_store(), INPUTS_KEPT, sources).await;
    host.bring_up_all(BootMode::Lazy, 4).await.unwrap();
    let wanted = roster(&["a"], &[]);
    let cut_short = within(Duration::from_millis(100), host.apply(&wanted, false)).await;
    assert!(cut_short.is_none() && !is_there(&host, "a").await, "nothing is done yet: {cut_short:?}");
    until("a stored roster", async || is_there(&host, "a").await).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_stay_until_the_new_can_run() {
    let host = lone_host().await;
    host.apply(&roster(&["old"], &[]), false).await.unwrap();
    let text = "[[agents]]\nid='new'\nplugin='script'\nconfig={init='fatal'}\n";
    let report = host.apply(&Roster::from_toml(text).unwrap(), false).await.unwrap();
    assert_eq!(done(&report), ["new create failed", "old retire failed"]);
    assert_eq!(state(&host, "old").await, "active");
    host.stop().await;
}

/// Panics whenever it is asked.
struct Mad;

#[async_trait]
impl RosterProvider for Mad {
    async fn roster(&self) -> Result<Roster, RosterError> {
        panic!("asked for a roster")
    }

    async fn changed(&self) {
        panic!("asked for a change")
    }
}

impl AgentCustomizer for Mad {
    fn customize(&self, agent: &AgentId, _doc: &mut AgentDoc) -> Result<(), String> {
        panic!("asked about {agent}")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedder_that_panics_is_an_error_and_no_more() {
    let sources = RosterSources { roster: Some(Arc::new(Mad)), ..RosterSources::default() };
    let first = host_with(&SimNetwork::default(), 1, separate_store(), INPUTS_KEPT, sources).await;
    let (report, _) = first.bring_up_all(BootMode::Lazy, 4).await.unwrap();
    assert!(report.is_none());
    assert!(matches!(first.reconcile(false).await, Err(CallError::Unavailable { .. })));
    first.stop().await;
    let (_sender, receiver) = watch::channel(Ok(roster(&["a"], &[])));
    let sources = RosterSources {
        roster: Some(Arc::new(Given { roster: Mutex::new(receiver) })),
        customizer: Some(Arc::new(Mad)),
        ..RosterSources::default()
    };
    let second = host_with(&SimNetwork::default(), 2, separate_store(), INPUTS_KEPT, sources).await;
    assert_eq!(done(&second.reconcile(false).await.unwrap()), ["a create failed"]);
    second.stop().await;
}
