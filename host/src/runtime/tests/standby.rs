//! Warm copies over hosts with stores of their own: fed while their agents work, promoted when nobody has them, and never two that run.

use godwit_core::standby::LABEL;
use godwit_core::store::BrokenReason;

use super::respec::{put_plugin, upgrade};
use super::verbs::{act, show};
use super::*;
use crate::runtime::placement::HostCall;
use crate::runtime::respec::SpecUpdate;
use crate::runtime::standby::{Promoted, StandbyCall, StandbyView};
use crate::runtime::verbs::VerbCall;
use crate::runtime::wire::{self, PeerAnswer, PeerRequest, StandbyAnswer, StandbyMessage, StandbyStart};

async fn standby(runtime: &Runtime, agent: &str, what: StandbyCall) -> Result<StandbyView, CallError> {
    match call(runtime, agent, AgentCall::Standby(what)).await? {
        AgentReply::Standby(view) => Ok(*view),
        other => panic!("{other:?}"),
    }
}

async fn guard(runtime: &Runtime, agent: &str, host: &str) {
    let guarded = standby(runtime, agent, StandbyCall::On { host: host.to_owned() }).await.unwrap();
    assert!(guarded.standby.is_some());
}

/// Waits until the standby has all that there is.
async fn is_fed(runtime: &Runtime, agent: &str) {
    until("the copy to be up to date", async || {
        let view = standby(runtime, agent, StandbyCall::Show).await.unwrap();
        view.lag_changes == Some(0) && view.trouble.is_none()
    })
    .await;
}

async fn promote(runtime: &Runtime, agent: &str, is_forced: bool) -> Result<Promoted, CallError> {
    runtime.promote(&id(agent), is_forced).await
}

async fn is_forked(runtime: &Runtime, agent: &str) {
    until("the agent to be broken", async || {
        let row = runtime.inner().store.agent(&id(agent)).await.unwrap().unwrap();
        row.lifecycle == godwit_core::lifecycle::Lifecycle::Broken(BrokenReason::Forked)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_follows_its_agent_and_is_not_taken_up_while_that_lives() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 1").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    for _ in 0..5 {
        ask(&hosts[1], "a", "add 1").await;
    }
    is_fed(&hosts[0], "a").await;
    let copies = hosts[1].standby_copies(None, 9).await.unwrap();
    let row = hosts[0].inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!(copies.len(), 1);
    assert_eq!((copies[0].standing.revision, copies[0].standing.change), (row.revision, row.change));
    assert_eq!(hosts[1].inner().store.agent(&id("a")).await.unwrap(), None, "a copy is no agent");
    // Whoever asks for it gets the agent itself.
    let promoted = promote(&hosts[1], "a", true).await.unwrap();
    let Promoted::Moves { from, migration } = promoted else { panic!("{promoted:?}") };
    assert_eq!((from, ended(&hosts[0], migration).await.phase), (hosts[0].host(), Phase::Complete));
    assert_eq!(ask(&hosts[0], "a", "get").await, "6");
    until("the copy to be gone", async || hosts[1].standby_copies(None, 9).await.unwrap().is_empty()).await;
    assert_eq!(
        standby(&hosts[0], "a", StandbyCall::Show).await.unwrap().standby,
        None,
        "it is at home there"
    );
    // At home elsewhere again it is copied again.
    migrate(&hosts[1], "a", &hosts[0]).await;
    is_fed(&hosts[0], "a").await;
    standby(&hosts[0], "a", StandbyCall::Off { is_forced: false }).await.unwrap();
    until("the copy to be gone", async || hosts[1].standby_copies(None, 9).await.unwrap().is_empty()).await;
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_was_cut_off_finds_out_and_runs_nothing() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 4").await;
    let signed = show(&hosts[0], "a").await.public_key;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    network.set_cut(hosts[0].host(), true);
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "5", "it goes on, and that will be lost");
    let refused = promote(&hosts[1], "a", false).await;
    let silent = vec![hosts[0].host()];
    assert!(
        matches!(&refused, Err(CallError::PromotionInDoubt { silent: who, .. }) if *who == silent),
        "{refused:?}"
    );
    let Ok(Promoted::TakenUp { agent, copy }) = promote(&hosts[1], "a", true).await else { panic!() };
    assert!(agent.token > copy.standing.token && agent.public_key == signed, "{agent:?}");
    assert!(!agent.labels.contains_key(LABEL), "it stands by here no more");
    assert_eq!(ask(&hosts[1], "a", "get").await, "4");
    assert_eq!(ask(&hosts[1], "a", "add 10").await, "14");
    network.set_cut(hosts[0].host(), false);
    is_forked(&hosts[0], "a").await;
    let broken = ask(&hosts[0], "a", "get").await;
    assert!(broken.contains("Forked"), "{broken}");
    // What is left of it there is given up, and the way to it is open.
    let kept = hosts[0].adopt(&id("a"), false).await;
    assert!(matches!(kept, Err(CallError::Conflict { .. })), "{kept:?}");
    hosts[0].adopt(&id("a"), true).await.unwrap();
    assert_eq!(ask(&hosts[0], "a", "get").await, "14");
    let Ok(AgentReply::Verified(report)) = call(&hosts[1], "a", AgentCall::Verify).await else { panic!() };
    assert_eq!(report.breaks, Vec::<String>::new());
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_hears_of_the_promotion_also_from_a_host_that_takes_no_copies_now() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 4").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    network.set_cut(hosts[0].host(), true);
    let promoted = promote(&hosts[1], "a", true).await;
    assert!(matches!(promoted, Ok(Promoted::TakenUp { .. })), "{promoted:?}");
    // What the copy was is gone, so its next round builds on nothing; and no copy may begin.
    hosts[1].call_host("self", HostCall::Cordon(true)).await.unwrap();
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "5", "it goes on, and that will be lost");
    network.set_cut(hosts[0].host(), false);
    is_forked(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[1], "a", "get").await, "4");
    for host in hosts {
        host.stop().await;
    }
}

/// Makes an agent with a label that gives it a standby.
async fn create_guarded(runtime: &Runtime, agent: &str, standby: HostId) {
    let labels = BTreeMap::from([(LABEL.to_owned(), standby.to_string())]);
    runtime.create_agent(CreateAgent { labels, ..CreateAgent::new(id(agent), "script") }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_hears_of_the_promotion_while_it_waits_to_send_a_whole_copy() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 4").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    // Two large ones take all places for as long as this test lasts.
    network.set_bulk_delay(Duration::from_secs(60));
    network.tap();
    for agent in ["b", "c"] {
        create_guarded(&hosts[0], agent, hosts[1].host()).await;
    }
    let is_begin = |body: &Bytes| match wire::decode::<PeerRequest>(body) {
        Ok(PeerRequest::Standby { message, .. }) => matches!(*message, StandbyMessage::Begin(_)),
        _ => false,
    };
    until("both to begin", async || network.tapped().iter().filter(|body| is_begin(body)).count() == 2).await;
    network.set_cut(hosts[0].host(), true);
    act(&hosts[0], "a", VerbCall::Reset, "active").await;
    let promoted = promote(&hosts[1], "a", true).await;
    assert!(matches!(promoted, Ok(Promoted::TakenUp { .. })), "{promoted:?}");
    network.set_cut(hosts[0].host(), false);
    is_forked(&hosts[0], "a").await;
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_one_too_many_to_copy_hears_of_its_promotion() {
    let network = SimNetwork::default();
    let store = separate_store();
    let first = host(&network, 1, store.clone()).await;
    let second = host(&network, 2, separate_store()).await;
    create(&first, "z").await;
    ask(&first, "z", "add 4").await;
    guard(&first, "z", "h2").await;
    is_fed(&first, "z").await;
    // As many as a host copies, all before it. That their standby is nowhere keeps them out of the way.
    for number in 0..256 {
        create_guarded(&first, &format!("a{number}"), HostId([9; 32])).await;
    }
    first.stop().await;
    let first = host(&network, 1, store).await;
    until("it to run", async || ask(&first, "z", "get").await == "4").await;
    until("it to be left out", async || {
        let view = standby(&first, "z", StandbyCall::Show).await.unwrap();
        view.trouble.is_some_and(|trouble| trouble.contains("256"))
    })
    .await;
    network.set_cut(first.host(), true);
    let promoted = promote(&second, "z", true).await;
    assert!(matches!(promoted, Ok(Promoted::TakenUp { .. })), "the copy of before: {promoted:?}");
    network.set_cut(first.host(), false);
    is_forked(&first, "z").await;
    for host in [first, second] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_starts_again_is_held_until_its_standby_has_said_so() {
    let network = SimNetwork::default();
    let stores = [separate_store(), separate_store()];
    let first = host(&network, 1, stores[0].clone()).await;
    let second = host(&network, 2, stores[1].clone()).await;
    for agent in ["a", "b"] {
        create(&first, agent).await;
        ask(&first, agent, "add 4").await;
        guard(&first, agent, "h2").await;
        is_fed(&first, agent).await;
    }
    first.stop().await;
    let (Ok(Promoted::TakenUp { .. }), key) = (promote(&second, "a", true).await, second.host()) else {
        panic!()
    };
    // Its standby does not answer: it waits, and shows it.
    network.set_cut(key, true);
    let first = host(&network, 1, stores[0].clone()).await;
    for agent in ["a", "b"] {
        let view = show(&first, agent).await;
        assert!(view.state == "held" && view.stuck.unwrap().contains("standby"));
        let asked = ask(&first, agent, "get").await;
        assert!(asked.contains("Unavailable") && asked.contains("--off --force"), "{asked}");
        let sent = call(&first, agent, AgentCall::Send { submission: submission(&first, "add 1") }).await;
        assert!(matches!(sent, Err(CallError::Unavailable { .. })), "{sent:?}");
        let off = standby(&first, agent, StandbyCall::Off { is_forced: false }).await;
        assert!(matches!(off, Err(CallError::Unavailable { .. })), "{off:?}");
        let row = stores[0].agent(&id(agent)).await.unwrap().unwrap();
        assert_eq!((row.holder, row.open_inputs), (None, 0), "nobody has it, and nothing was accepted");
    }
    network.set_cut(key, false);
    is_forked(&first, "a").await;
    until("the other one to run", async || ask(&first, "b", "get").await == "4").await;
    assert_eq!(ask(&second, "a", "get").await, "4");
    is_fed(&first, "b").await;
    for host in [first, second] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lets_an_agent_go_whose_standby_is_lost() {
    let network = SimNetwork::default();
    let store = separate_store();
    let first = host(&network, 1, store.clone()).await;
    let second = host(&network, 2, separate_store()).await;
    create(&first, "a").await;
    ask(&first, "a", "add 4").await;
    guard(&first, "a", "h2").await;
    is_fed(&first, "a").await;
    first.stop().await;
    network.set_cut(second.host(), true);
    let first = host(&network, 1, store).await;
    assert_eq!(show(&first, "a").await.state, "held");
    let view = standby(&first, "a", StandbyCall::Off { is_forced: true }).await.unwrap();
    assert!(!view.is_held && view.standby.is_none());
    assert_eq!(ask(&first, "a", "add 1").await, "5");
    for host in [first, second] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_agent_brings_its_component_to_its_standby() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 4").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    let digest = put_plugin(&hosts[0], "newer", b"newer script").await;
    upgrade(&hosts[0], "a", "newer").await.unwrap();
    is_fed(&hosts[0], "a").await;
    network.set_cut(hosts[0].host(), true);
    let promoted = promote(&hosts[1], "a", true).await;
    let Ok(Promoted::TakenUp { agent, .. }) = promoted else { panic!("{promoted:?}") };
    assert_eq!(agent.plugin, digest);
    assert_eq!(ask(&hosts[1], "a", "add 1").await, "5");
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_standby_keeps_no_copy() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 4").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    network.set_cut(hosts[1].host(), true);
    let off = standby(&hosts[0], "a", StandbyCall::Off { is_forced: false }).await;
    assert!(matches!(off, Err(CallError::Unavailable { .. })), "{off:?}");
    let view = standby(&hosts[0], "a", StandbyCall::Show).await.unwrap();
    assert_eq!(view.standby, Some(hosts[1].host()), "nothing was done");
    network.set_cut(hosts[1].host(), false);
    until("it to be let go", async || {
        standby(&hosts[0], "a", StandbyCall::Off { is_forced: false }).await.is_ok()
    })
    .await;
    until("no copy", async || hosts[1].standby_copies(None, 9).await.unwrap().is_empty()).await;
    let promoted = promote(&hosts[1], "a", true).await;
    assert!(matches!(promoted, Err(CallError::NoSuch { .. })), "{promoted:?}");
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_alone_does_not_replace_a_copy() {
    let World { hosts, network } = two_hosts().await;
    let other = host(&network, 3, separate_store()).await;
    // Nobody has owned it yet.
    create(&hosts[0], "a").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    let copies = hosts[1].standby_copies(None, 9).await.unwrap();
    let spec = hosts[0].inner().store.spec(&id("a")).await.unwrap().unwrap();
    let start = StandbyStart {
        session: MigrationId([9; 16]),
        token: godwit_core::id::FencingToken(copies[0].standing.token.0 + 1),
        plugin: script_plugin().0,
        spec,
        residency: None,
    };
    let begins = async || {
        let message = Box::new(StandbyMessage::Begin(Box::new(start.clone())));
        let request = PeerRequest::Standby { agent: id("a"), message };
        match other.ask_peer(hosts[1].host(), &request, Duration::from_secs(9)).await {
            Ok(PeerAnswer::Standby(answer)) => answer,
            answer => panic!("{answer:?}"),
        }
    };
    let answer = begins().await;
    assert!(matches!(answer, StandbyAnswer::Refused { .. }), "its source has the agent: {answer:?}");
    network.set_cut(hosts[0].host(), true);
    let answer = begins().await;
    assert!(matches!(answer, StandbyAnswer::NotReady { .. }), "its source may have the agent: {answer:?}");
    network.set_cut(hosts[0].host(), false);
    assert_eq!(hosts[1].standby_copies(None, 9).await.unwrap()[0].standing, copies[0].standing);
    // Where the agent has gone, by the word of each on the way, and nobody else.
    let third = host(&network, 4, separate_store()).await;
    migrate(&hosts[0], "a", &third).await;
    let answer = begins().await;
    assert!(matches!(answer, StandbyAnswer::Refused { .. }), "it went to another: {answer:?}");
    migrate(&third, "a", &other).await;
    until("the copy to be fed from there", async || {
        let copies = hosts[1].standby_copies(None, 9).await.unwrap();
        copies.iter().any(|copy| copy.standing.source == other.host())
    })
    .await;
    for host in hosts.into_iter().chain([other, third]) {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_where_its_agent_must_not_be_kept_any_more() {
    let network = SimNetwork::default();
    let hosts = hosts_apart(&network, |number, config| {
        if number == 1 {
            config.capabilities.insert("residency".to_owned(), "eu".to_owned());
        }
    })
    .await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 4").await;
    guard(&hosts[0], "a", "h2").await;
    is_fed(&hosts[0], "a").await;
    let mut labels = show(&hosts[0], "a").await.labels;
    labels.insert("godwit.residency".to_owned(), "eu".to_owned());
    let base = show(&hosts[0], "a").await.spec_revision;
    let update =
        SpecUpdate { base, plugin: "script".to_owned(), labels: Some(labels), patch: Default::default() };
    call(&hosts[0], "a", AgentCall::Update(update)).await.unwrap();
    until("the copy to be gone", async || hosts[1].standby_copies(None, 9).await.unwrap().is_empty()).await;
    until("it to be said", async || {
        let view = standby(&hosts[0], "a", StandbyCall::Show).await.unwrap();
        view.trouble.is_some_and(|trouble| trouble.contains("residency=eu"))
    })
    .await;
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_is_copied_in_parts_while_it_changes() {
    let World { hosts, network } = two_hosts().await;
    create(&hosts[0], "a").await;
    for number in 0..30 {
        let value = "x".repeat(200_000);
        let asked = ask(&hosts[0], "a", &format!("write k{number} {value}")).await;
        assert!(!asked.contains("Err"), "{asked}");
    }
    let rests = CancellationToken::new();
    let load = {
        let (host, rests) = (hosts[0].clone(), rests.clone());
        tokio::spawn(async move {
            while !rests.is_cancelled() {
                ask(&host, "a", "add 1").await;
                sleep(Duration::from_millis(2)).await;
            }
        })
    };
    guard(&hosts[0], "a", "h2").await;
    until("a whole copy", async || !hosts[1].standby_copies(None, 9).await.unwrap().is_empty()).await;
    rests.cancel();
    load.await.unwrap();
    is_fed(&hosts[0], "a").await;
    let counted = ask(&hosts[0], "a", "get").await;
    is_fed(&hosts[0], "a").await;
    let before = hosts[0].inner().store.agent(&id("a")).await.unwrap().unwrap();
    network.set_cut(hosts[0].host(), true);
    promote(&hosts[1], "a", true).await.unwrap();
    let after = hosts[1].inner().store.agent(&id("a")).await.unwrap().unwrap();
    assert_eq!((after.state_keys, after.state_bytes), (before.state_keys, before.state_bytes));
    assert!(after.state_bytes > 4 << 20);
    assert_eq!(ask(&hosts[1], "a", "get").await, counted);
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_another_host_with_a_store_of_its_own() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    let own = standby(&hosts[0], "a", StandbyCall::On { host: "h1".to_owned() }).await;
    assert!(matches!(own, Err(CallError::Conflict { .. })), "{own:?}");
    let unknown = standby(&hosts[0], "a", StandbyCall::On { host: "h9".to_owned() }).await;
    assert!(matches!(unknown, Err(CallError::NoSuch { .. })), "{unknown:?}");
    let nothing = promote(&hosts[1], "a", true).await;
    assert!(matches!(nothing, Err(CallError::NoSuch { .. })), "no copy: {nothing:?}");
    let here = promote(&hosts[0], "a", true).await;
    assert!(matches!(here, Err(CallError::Conflict { .. })), "{here:?}");
    let wrong = CreateAgent {
        labels: BTreeMap::from([(LABEL.to_owned(), "h2".to_owned())]),
        ..CreateAgent::new(id("b"), "script")
    };
    let refused = hosts[0].create_agent(wrong).await;
    assert!(matches!(refused, Err(CallError::Invalid { .. })), "{refused:?}");
    for host in hosts {
        host.stop().await;
    }
    let World { hosts, .. } = two_hosts_on_one_store().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 1").await;
    let shared = standby(&hosts[0], "a", StandbyCall::On { host: "h2".to_owned() }).await;
    assert!(matches!(shared, Err(CallError::Conflict { .. })), "{shared:?}");
    let moved = promote(&hosts[1], "a", false).await;
    assert!(matches!(moved, Ok(Promoted::Moves { .. })), "{moved:?}");
    for host in hosts {
        host.stop().await;
    }
}
