//! Plugins: bytes under their digest, one component per name and version, pinned while an agent needs them.

use bytes::Bytes;

use crate::digest::Digest;
use crate::event::EventKind;
use crate::id::Revision;
use crate::input::{DeadLetterReason, Outcome};
use crate::lifecycle::Verb;
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::spec::SpecChange;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{Turn, World, done, id, is_conflict, new_agent, plugin, put_plugin};
use crate::store::conformance::journey::Journey;
use crate::store::{Pin, Sharing, Step, StoreError, Upgrade};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_plugin_is_stored_with_its_bytes),
        Case::of(the_same_digest_again_is_success),
        Case::of(another_component_of_a_name_and_version_is_a_conflict),
        Case::of(bytes_of_another_digest_are_refused),
        Case::of(a_plugin_stays_while_an_agent_runs_it),
        Case::of(a_plugin_stays_while_something_of_it_is_kept),
        Case::of(a_turn_to_be_run_again_keeps_its_plugin),
        Case::of(an_input_that_killed_its_host_is_counted_for_the_plugin),
        Case::of(a_copy_whose_plugin_was_removed_is_not_bound),
        Case::of(a_removed_plugin_is_gone),
    ]
}

async fn a_plugin_is_stored_with_its_bytes(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let mut infos = Vec::new();
    for name in ["zeta", "alpha"] {
        let (info, component) = plugin(name);
        assert_eq!(store.put_plugin(info.clone(), component).await, Ok(true));
        infos.insert(0, info);
    }
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    assert_eq!(store.plugins().await, Ok(infos.clone()), "by name");
    let component = store.component(infos[0].digest).await;
    assert_eq!(component, Ok(Some(plugin("alpha").1)));
    let kind = Some(EventKind::PluginLoaded);
    assert_eq!(store.events(0, None, kind, PAGE_MAX).await.unwrap().len(), 2);
}

async fn the_same_digest_again_is_success(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put_plugin(&store, "plain").await;
    let before = (store.plugins().await, store.event_range().await);
    let (mut info, component) = plugin("plain");
    info.loaded_at_ms += 1_000;
    assert_eq!(store.put_plugin(info, component).await, Ok(false));
    assert_eq!((store.plugins().await, store.event_range().await), before);
}

async fn another_component_of_a_name_and_version_is_a_conflict(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put_plugin(&store, "plain").await;
    let (mut info, component) = plugin("other");
    let digest = info.digest;
    info.name = "plain".to_owned();
    let refused = store.put_plugin(info.clone(), component.clone()).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(store.component(digest).await, Ok(None));
    info.version = "2".to_owned();
    assert_eq!(store.put_plugin(info, component).await, Ok(true));
    let versions: Vec<String> = store.plugins().await.unwrap().into_iter().map(|info| info.version).collect();
    assert_eq!(versions, ["1", "2"]);
}

async fn bytes_of_another_digest_are_refused(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let (info, _) = plugin("plain");
    let refused = store.put_plugin(info, Bytes::from_static(b"something else")).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert_eq!(store.plugins().await, Ok(vec![]));
}

async fn a_plugin_stays_while_an_agent_runs_it(world: World) {
    let site = world.site("a").await;
    let digest = put_plugin(&site.store, "plain").await;
    let desk = site.own("agent").await;
    let refused = site.store.remove_plugin(digest).await;
    assert_eq!(refused, Err(StoreError::Pinned { agent: id("agent"), pin: Pin::Spec }));
    assert!(site.store.component(digest).await.unwrap().is_some());
    desk.verb(&Verb::Retire).await.unwrap();
    desk.verb(&Verb::Drained).await.unwrap();
    assert_eq!(site.store.remove_plugin(digest).await, refused, "it may be resumed");
    desk.verb(&Verb::Delete).await.unwrap();
    assert_eq!(site.store.remove_plugin(digest).await, Ok(true), "a deleted agent needs none");
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.plugin, image.spec.plugin), (None, digest));
}

async fn a_plugin_stays_while_something_of_it_is_kept(world: World) {
    let site = world.site("a").await;
    let (plain, other) = (put_plugin(&site.store, "plain").await, put_plugin(&site.store, "other").await);
    let desk = site.own("agent").await;
    let pinned = |pin| Err(StoreError::Pinned { agent: id("agent"), pin });
    let checkpoint = async |revision| {
        let chain = desk.chain().await;
        let snapshot = chain.snapshot(revision, "beside");
        assert_eq!(desk.commit(chain.step(Step::Checkpoint(snapshot)).unit()).await, done(1));
    };
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    desk.turn(Turn::ends([])).await;
    checkpoint(Revision(2)).await;
    desk.turn(Turn::ends([])).await;

    // The upgrade takes the first slot; the other one, and a turn, are of the plugin before.
    let chain = desk.chain().await;
    let mut boundary = chain.boundary(Turn::of(BoundaryKind::Upgrade).snapshot("taken over"));
    let spec = new_agent("agent", "other").spec;
    let change = SpecChange { revision: boundary.receipt.spec_revision.next(), spec };
    boundary.receipt.from = Some(plain);
    (boundary.receipt.plugin, boundary.receipt.spec_revision) = (other, change.revision);
    let step = Step::Upgrade(Box::new(Upgrade { boundary, change }));
    assert_eq!(desk.commit(chain.step(step).unit()).await, done(1));
    assert_eq!(site.store.remove_plugin(plain).await, pinned(Pin::Snapshot { revision: Revision(2) }));
    assert_eq!(site.store.remove_plugin(other).await, pinned(Pin::Spec));
    desk.turn(Turn::ends([])).await;
    checkpoint(Revision(5)).await;
    assert_eq!(site.store.remove_plugin(plain).await, Ok(true), "all that is kept is of the other one");
    assert!(site.store.component(other).await.unwrap().is_some());
}

async fn a_turn_to_be_run_again_keeps_its_plugin(world: World) {
    let site = world.site("a").await;
    let (plain, other) = (put_plugin(&site.store, "plain").await, put_plugin(&site.store, "other").await);
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    desk.turn(Turn::ends([])).await;
    let chain = desk.chain().await;
    let mut boundary = chain.boundary(Turn::of(BoundaryKind::Upgrade).snapshot("taken over"));
    let spec = new_agent("agent", "other").spec;
    let change = SpecChange { revision: boundary.receipt.spec_revision.next(), spec };
    boundary.receipt.from = Some(plain);
    (boundary.receipt.plugin, boundary.receipt.spec_revision) = (other, change.revision);
    let step = Step::Upgrade(Box::new(Upgrade { boundary, change }));
    assert_eq!(desk.commit(chain.step(step).unit()).await, done(1));
    let refused = Err(StoreError::Pinned { agent: id("agent"), pin: Pin::Turn { revision: Revision(2) } });
    assert_eq!(site.store.remove_plugin(plain).await, refused);
    desk.verb(&Verb::Reset).await.unwrap();
    assert_eq!(site.store.remove_plugin(plain).await, Ok(true), "nothing is kept of the generation before");
}

async fn an_input_that_killed_its_host_is_counted_for_the_plugin(world: World) {
    let site = world.site("a").await;
    put_plugin(&site.store, "other").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    let (poison, plain) = (desk.accept("poison").await, desk.accept("plain").await);
    let chain = desk.chain().await;
    let mut boundary = chain.boundary(Turn::of(BoundaryKind::DeadLetter).and_ends([&poison]));
    let revision = boundary.receipt.revision;
    boundary.ends[0].outcome =
        Outcome::DeadLettered { revision, reason: DeadLetterReason::KilledHost { attempts: 3 } };
    let unit = chain.step(Step::Boundary(Box::new(boundary))).unit();
    for _ in 0..2 {
        assert_eq!(desk.commit(unit.clone()).await, done(1), "a repetition counts nothing");
    }
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&plain])).await;
    let flags =
        site.store.events(0, Some(desk.agent()), Some(EventKind::PluginFlagged), PAGE_MAX).await.unwrap();
    let data: Vec<_> = flags.iter().map(|flag| flag.event.data.clone()).collect();
    let digest = plugin("plain").0.digest;
    let expected = [("plugin", digest.to_string()), ("input", poison.input.id.to_string())];
    assert_eq!(data, [expected.map(|(name, value)| (name.to_owned(), value)).to_vec()]);
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let counted = async || -> Vec<(String, u64)> {
        let plugins = store.plugins().await.unwrap();
        plugins.into_iter().map(|info| (info.name, info.killed_hosts)).collect()
    };
    assert_eq!(counted().await, [("other".to_owned(), 0), ("plain".to_owned(), 1)]);
    put_plugin(&store, "plain").await;
    assert_eq!(counted().await[1].1, 1, "loading it again forgets nothing");
    let image = store.image(&id("agent"), None).await.unwrap().unwrap();
    assert_eq!(image.plugin.map(|info| info.killed_hosts), Some(1));
}

async fn a_copy_whose_plugin_was_removed_is_not_bound(world: World) {
    let journey = Journey::furnished(&world).await;
    let begun = journey.begin().await;
    let request = journey.request(begun.granted, 0).await;
    let (store, plugin) = (&journey.to.store, plugin("plain").0.digest);
    assert_eq!(store.remove_plugin(plugin).await, Ok(true), "nothing here needs it yet");
    assert_eq!(store.prepare(request.clone()).await, Err(StoreError::NoPlugin { plugin }));
    assert_eq!(store.agent(journey.agent()).await, Ok(None));
    put_plugin(store, "plain").await;
    assert_eq!(store.prepare(request).await, Ok(()));
    let pinned = Err(StoreError::Pinned { agent: journey.agent().clone(), pin: Pin::Spec });
    assert_eq!(store.remove_plugin(plugin).await, pinned);
}

async fn a_removed_plugin_is_gone(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let digest = put_plugin(&store, "plain").await;
    assert_eq!(store.remove_plugin(digest).await, Ok(true));
    assert_eq!(store.remove_plugin(digest).await, Ok(false));
    assert_eq!(store.remove_plugin(Digest::of(b"unknown")).await, Ok(false));
    assert_eq!((store.plugins().await, store.component(digest).await), (Ok(vec![]), Ok(None)));
    let kind = Some(EventKind::PluginRemoved);
    assert_eq!(store.events(0, None, kind, PAGE_MAX).await.unwrap().len(), 1);
    assert_eq!(put_plugin(&store, "plain").await, digest, "and may come back");
}
