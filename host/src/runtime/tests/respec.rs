//! Other specs on whole runtimes: upgrades, configurations, labels.

use godwit_core::digest::Digest;
use godwit_core::id::{Revision, SpecRevision};
use godwit_core::receipt::BoundaryKind;
use godwit_core::spec::{Durability, PluginInfo, SpecPatch};
use godwit_core::testing::PICKY;

use super::verbs::{act, becomes, show};
use super::*;
use crate::runtime::respec::{SpecUpdate, UpgradeReport};
use crate::runtime::verbs::VerbCall;

/// Stores another plugin that runs the same script.
pub(super) async fn put_plugin(runtime: &Runtime, name: &str, component: &'static [u8]) -> Digest {
    let (script, _) = script_plugin();
    let component = Bytes::from_static(component);
    let digest = Digest::of(&component);
    let info = PluginInfo { digest, name: name.into(), version: "2.0.0".into(), ..script };
    runtime.inner().store.put_plugin(info, component).await.unwrap();
    digest
}

pub(super) async fn upgrade(
    runtime: &Runtime,
    agent: &str,
    plugin: &str,
) -> Result<UpgradeReport, CallError> {
    match call(runtime, agent, AgentCall::Upgrade { plugin: plugin.into() }).await? {
        AgentReply::Upgraded(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

async fn assert_verified(runtime: &Runtime, agent: &str) {
    match call(runtime, agent, AgentCall::Verify).await {
        Ok(AgentReply::Verified(report)) => assert_eq!(report.breaks, Vec::<String>::new()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_keeps_the_state_and_is_one_boundary() {
    let World { hosts, .. } = two_hosts().await;
    let digest = put_plugin(&hosts[0], "newer", b"newer script").await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    let before = show(&hosts[0], "a").await;
    let report = upgrade(&hosts[1], "a", "newer").await.unwrap();
    assert_eq!((report.plugin_before, report.plugin), (before.plugin, digest));
    assert_eq!((report.spec_revision, report.revision), (SpecRevision(2), before.revision.next()));
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "6");
    let after = show(&hosts[0], "a").await;
    assert_eq!((after.plugin, after.plugin_name.as_str(), after.token), (digest, "newer", before.token));
    let receipts = call(&hosts[0], "a", AgentCall::Receipts { after: 0, limit: 10 }).await;
    let Ok(AgentReply::Receipts(receipts)) = receipts else { panic!("{receipts:?}") };
    let upgrades: Vec<_> = receipts.items.iter().filter(|(r, _)| r.kind == BoundaryKind::Upgrade).collect();
    let [(receipt, _)] = upgrades.as_slice() else { panic!("{upgrades:?}") };
    assert_eq!((receipt.from, receipt.plugin), (Some(before.plugin), digest));
    assert_verified(&hosts[0], "a").await;
    let again = upgrade(&hosts[0], "a", "newer").await.unwrap();
    assert_eq!(again.spec_revision, SpecRevision(2), "a repetition changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_fails_leaves_the_old_plugin_running() {
    let World { hosts, .. } = two_hosts().await;
    put_plugin(&hosts[0], "picky", PICKY).await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    let before = show(&hosts[0], "a").await;
    let refused = upgrade(&hosts[0], "a", "picky").await;
    let Err(CallError::Conflict { what }) = refused else { panic!("{refused:?}") };
    assert!(what.contains("can't take the state over"), "{what}");
    let unknown = upgrade(&hosts[0], "a", "nowhere").await;
    assert!(matches!(unknown, Err(CallError::NoSuch { .. })), "{unknown:?}");
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "6");
    let after = show(&hosts[0], "a").await;
    assert_eq!((after.plugin, after.spec_revision), (before.plugin, before.spec_revision));
    act(&hosts[0], "a", VerbCall::Retire, "retiring").await;
    becomes(&hosts[0], "a", "retired").await;
    let illegal = upgrade(&hosts[0], "a", "picky").await;
    assert!(matches!(illegal, Err(CallError::Illegal(_))), "{illegal:?}");
}

fn update(base: u64, plugin: &str, config: &str, label: &str) -> AgentCall {
    AgentCall::Update(SpecUpdate {
        base: SpecRevision(base),
        plugin: plugin.into(),
        labels: Some(BTreeMap::from([("tier".into(), label.into())])),
        patch: SpecPatch {
            config: Some(BTreeMap::from([("key".into(), config.into())])),
            ..SpecPatch::default()
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_changes_only_for_who_has_seen_it() {
    let World { hosts, .. } = two_hosts().await;
    put_plugin(&hosts[0], "newer", b"newer script").await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    let before = show(&hosts[0], "a").await;
    let Ok(AgentReply::Agent(view)) = call(&hosts[1], "a", update(1, "script", "one", "gold")).await else {
        panic!("not updated")
    };
    assert_eq!((view.spec_revision, view.revision), (SpecRevision(2), before.revision));
    assert_eq!(view.labels["tier"], "gold");
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "6");
    let late = call(&hosts[0], "a", update(1, "script", "two", "gold")).await;
    assert_eq!(late, Err(CallError::SpecMismatch { current: SpecRevision(2) }));
    let other = call(&hosts[0], "a", update(2, "newer", "two", "gold")).await;
    assert!(matches!(&other, Err(CallError::Conflict { what }) if what.contains("upgrade")), "{other:?}");
    let Ok(AgentReply::Agent(view)) = call(&hosts[0], "a", update(2, "script", "one", "silver")).await else {
        panic!("not updated")
    };
    assert_eq!((view.spec_revision, view.labels["tier"].as_str()), (SpecRevision(2), "silver"));
    assert_verified(&hosts[0], "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_update_leaves_out_stays() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    call(&hosts[0], "a", update(1, "script", "one", "gold")).await.unwrap();
    let policy = SpecUpdate {
        base: SpecRevision(2),
        plugin: "script".into(),
        labels: None,
        patch: SpecPatch { durability: Some(Durability::Journal), ..SpecPatch::default() },
    };
    let Ok(AgentReply::Agent(view)) = call(&hosts[1], "a", AgentCall::Update(policy)).await else {
        panic!("not updated")
    };
    assert_eq!((view.spec_revision, view.labels["tier"].as_str()), (SpecRevision(3), "gold"));
    let spec = hosts[0].inner().store.image(&id("a"), None).await.unwrap().unwrap().spec;
    assert_eq!((spec.config["key"].as_str(), spec.durability), ("one", Durability::Journal));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_never_ran_takes_another_plugin_without_a_boundary() {
    let World { hosts, .. } = two_hosts().await;
    let digest = put_plugin(&hosts[0], "newer", b"newer script").await;
    create(&hosts[0], "a").await;
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    let report = upgrade(&hosts[0], "a", "newer").await.unwrap();
    assert_eq!((report.revision, report.spec_revision), (Revision(0), SpecRevision(2)));
    act(&hosts[0], "a", VerbCall::Resume, "active").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    assert_eq!(show(&hosts[0], "a").await.plugin, digest);
    assert_verified(&hosts[0], "a").await;
}
