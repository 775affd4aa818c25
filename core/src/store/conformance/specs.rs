//! Specs that change: configurations, upgrades as boundaries of their own, labels.

use std::collections::BTreeMap;

use crate::event::EventKind;
use crate::id::{Revision, SpecRevision};
use crate::lifecycle::Verb;
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::spec::{Spec, SpecChange};
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Desk, Site, Turn, World, assert_failed, done, id, is_conflict, is_fenced, new_agent, picture, plugin,
    put_plugin,
};
use crate::store::{Boundary, BrokenReason, Lifecycle, Sharing, Step, StoreError, Unit, Upgrade};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_configuration_is_a_new_spec_revision),
        Case::of(a_configuration_that_does_not_follow_changes_nothing),
        Case::of(another_plugin_is_configured_only_before_the_first_boundary),
        Case::of(an_upgrade_is_one_boundary_with_its_spec),
        Case::of(an_upgrade_that_does_not_fit_changes_nothing),
        Case::of(labels_change_in_place),
    ]
}

fn spec(plugin_name: &str, value: &str) -> Spec {
    let mut spec = new_agent("agent", plugin_name).spec;
    spec.config.insert("key".to_owned(), value.to_owned());
    spec
}

fn change(revision: u64, spec: Spec) -> SpecChange {
    SpecChange { revision: SpecRevision(revision), spec }
}

async fn configure(desk: &Desk, change: SpecChange) -> Unit {
    desk.chain().await.step(Step::Configure(change)).unit()
}

async fn stored(desk: &Desk) -> (SpecRevision, Spec) {
    let image = desk.store().image(desk.agent(), None).await.unwrap().unwrap();
    (image.row.spec_revision, image.spec)
}

async fn events_of(desk: &Desk, kind: EventKind) -> usize {
    desk.store().events(0, Some(desk.agent()), Some(kind), PAGE_MAX).await.unwrap().len()
}

async fn a_configuration_is_a_new_spec_revision(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let before = desk.row().await;
    let unit = configure(&desk, change(2, spec("plain", "two"))).await;
    for _ in 0..2 {
        assert_eq!(desk.commit(unit.clone()).await, done(1));
        assert_eq!(stored(&desk).await, (SpecRevision(2), spec("plain", "two")));
        assert_eq!(events_of(&desk, EventKind::SpecChanged).await, 1, "a repetition is no event");
    }
    let row = desk.row().await;
    assert_eq!((row.revision, row.head, row.token), (before.revision, before.head, before.token));
    let receipt = desk.turn(Turn::ends([])).await;
    assert_eq!(receipt.spec_revision, SpecRevision(2));
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let image = store.image(&id("agent"), None).await.unwrap().unwrap();
    assert_eq!((image.row.spec_revision, image.spec), (SpecRevision(2), spec("plain", "two")));
}

async fn a_configuration_that_does_not_follow_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    put_plugin(&site.store, "other").await;
    let before = picture(desk.store(), desk.agent()).await;
    for wrong in [
        change(1, spec("plain", "other content")),
        change(3, spec("plain", "three")),
        change(2, spec("other", "another plugin")),
    ] {
        assert_failed(&desk.commit(configure(&desk, wrong).await).await, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
    let unknown = change(2, spec("nowhere", "two"));
    let plugin = unknown.spec.plugin;
    let is_unknown = |error: &StoreError| *error == StoreError::NoPlugin { plugin };
    assert_failed(&desk.commit(configure(&desk, unknown).await).await, 0, is_unknown);
    let stale = configure(&desk, change(2, spec("plain", "two"))).await;
    desk.verb(&Verb::Respawn).await.unwrap();
    assert_failed(&desk.commit(stale).await, 0, is_fenced);
}

async fn another_plugin_is_configured_only_before_the_first_boundary(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    put_plugin(&site.store, "other").await;
    desk.verb(&Verb::Break(BrokenReason::Init { message: "no".to_owned() })).await.unwrap();
    let unit = configure(&desk, change(2, spec("other", "fixed"))).await;
    assert_eq!(desk.commit(unit).await, done(1), "a broken agent can be given what it lacks");
    assert_eq!(desk.row().await.plugin, plugin("other").0.digest);
    desk.verb(&Verb::Recover).await.unwrap();
    desk.turn(Turn::of(BoundaryKind::Init)).await;
    let unit = configure(&desk, change(3, spec("plain", "back"))).await;
    assert_failed(&desk.commit(unit).await, 0, is_conflict);
}

/// An upgrade to `other` as it should be.
async fn upgrade(desk: &Desk) -> (Boundary, SpecChange) {
    let chain = desk.chain().await;
    let mut boundary = chain.boundary(Turn::of(BoundaryKind::Upgrade).snapshot("taken over"));
    let change = change(boundary.receipt.spec_revision.0 + 1, spec("other", "new"));
    boundary.receipt.from = Some(boundary.receipt.plugin);
    boundary.receipt.plugin = change.spec.plugin;
    boundary.receipt.spec_revision = change.revision;
    (boundary, change)
}

async fn unit(desk: &Desk, boundary: Boundary, change: SpecChange) -> Unit {
    desk.chain().await.step(Step::Upgrade(Box::new(Upgrade { boundary, change }))).unit()
}

async fn upgradable(site: &Site) -> Desk {
    put_plugin(&site.store, "other").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    desk
}

async fn an_upgrade_is_one_boundary_with_its_spec(world: World) {
    for (number, verb) in
        [None, Some(Verb::Pause), Some(Verb::Break(BrokenReason::Corrupt { what: "a row".into() }))]
            .iter()
            .enumerate()
    {
        let site = world.site(&format!("a{number}")).await;
        let desk = upgradable(&site).await;
        if let Some(verb) = verb {
            desk.verb(verb).await.unwrap();
        }
        let before = desk.row().await;
        let (boundary, change) = upgrade(&desk).await;
        let receipt = boundary.receipt.clone();
        let committed = unit(&desk, boundary, change.clone()).await;
        for _ in 0..2 {
            assert_eq!(desk.commit(committed.clone()).await, done(1));
        }
        let row = desk.row().await;
        assert_eq!((row.revision, row.head), (before.revision.next(), receipt.digest()));
        assert_eq!((row.plugin, row.lifecycle), (change.spec.plugin, before.lifecycle));
        assert_eq!(stored(&desk).await, (change.revision, change.spec));
        let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
        assert_eq!(image.check(), Ok(()));
        assert_eq!(image.snapshot.map(|snapshot| snapshot.revision), Some(row.revision));
    }
}

async fn an_upgrade_that_does_not_fit_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = upgradable(&site).await;
    let before = picture(desk.store(), desk.agent()).await;
    let (boundary, change) = upgrade(&desk).await;
    let wrong: [fn(&mut Boundary); 4] = [
        |boundary| boundary.receipt.from = None,
        |boundary| boundary.receipt.kind = BoundaryKind::Turn,
        |boundary| boundary.receipt.spec_revision = SpecRevision(1),
        |boundary| boundary.receipt.plugin = plugin("plain").0.digest,
    ];
    for alter in wrong {
        let mut altered = boundary.clone();
        alter(&mut altered);
        let unit = unit(&desk, altered, change.clone()).await;
        assert_failed(&desk.commit(unit).await, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
    let alone = desk.chain().await.step(Step::Boundary(Box::new(boundary.clone()))).unit();
    assert_failed(&desk.commit(alone).await, 0, is_conflict);
    let late = SpecChange { revision: SpecRevision(9), ..change.clone() };
    let unit_of_late = unit(&desk, boundary.clone(), late).await;
    assert_failed(&desk.commit(unit_of_late).await, 0, is_conflict);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    for verb in [Verb::Retire, Verb::Delete] {
        let input = desk.store().open_inputs(desk.agent(), super::fixture::ALL).await.unwrap();
        for open in input {
            desk.turn(Turn::ends([&open])).await;
        }
        desk.verb(&verb).await.unwrap();
        if verb == Verb::Retire {
            desk.verb(&Verb::Drained).await.unwrap();
            let (boundary, change) = upgrade(&desk).await;
            let outcome = desk.commit(unit(&desk, boundary, change).await).await;
            let is_retired =
                |error: &StoreError| *error == StoreError::Lifecycle { state: Lifecycle::Retired };
            assert_failed(&outcome, 0, is_retired);
        }
    }
    assert!(desk.row().await.revision > Revision(0));
}

async fn labels_change_in_place(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let before = desk.row().await;
    let labels = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
    for _ in 0..2 {
        assert_eq!(site.store.set_labels(desk.agent(), labels.clone()).await, Ok(()));
        let row = desk.row().await;
        assert_eq!((&row.labels, row.spec_revision), (&labels, before.spec_revision));
        assert_eq!(events_of(&desk, EventKind::LabelsChanged).await, 1);
    }
    assert_eq!(site.store.set_labels(&id("nobody"), labels.clone()).await, Err(StoreError::NoAgent));
    desk.verb(&Verb::Delete).await.unwrap();
    let gone = Err(StoreError::Lifecycle { state: Lifecycle::Deleted });
    assert_eq!(site.store.set_labels(desk.agent(), labels).await, gone);
}
