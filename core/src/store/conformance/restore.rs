//! The mark of a store, and what a restore makes of a backup.

use std::time::Duration;

use crate::event::EventKind;
use crate::id::{FencingToken, Incarnation, StoreEpoch};
use crate::lifecycle::{Lifecycle, SuspendReason, Verb};
use crate::limits::PAGE_MAX;
use crate::migration::{Failure, Phase, Role};
use crate::receipt::BoundaryKind;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Site, TTL, Turn, World, host, id, is_conflict, is_fenced, migration, put_plugin,
};
use crate::store::conformance::migrations::record;
use crate::store::{
    Adoption, Home, LifecycleCommit, PrepareRequest, Relation, Restored, Sharing, StoreError, StoreMark,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(the_mark_rises_with_sessions_and_events),
        Case::of(a_restored_store_is_above_the_mark),
        Case::of(restored_agents_are_suspended_under_higher_tokens),
        Case::of(a_restored_agent_runs_again_once_it_is_resumed),
        Case::of(a_restore_ends_every_handoff_and_copy),
        Case::of(a_prepared_agent_stays_prepared_and_suspended),
        Case::of(a_store_in_use_is_not_restored),
        Case::of(two_restores_of_one_backup_never_give_a_token_twice),
    ]
}

/// Restores once the sessions of a store that is shared have ended.
async fn restore(world: &World, site: &Site, above: StoreMark) -> Result<Restored, StoreError> {
    world.clock.advance(TTL + Duration::from_secs(1));
    site.store.restore(above).await
}

async fn mark(site: &Site) -> StoreMark {
    site.store.mark().await.unwrap()
}

fn suspended() -> Lifecycle {
    Lifecycle::Suspended(SuspendReason::Restored)
}

async fn the_mark_rises_with_sessions_and_events(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let empty = store.mark().await.unwrap();
    let fresh = (store.id(), StoreEpoch(0), Incarnation(0), 0);
    assert_eq!((empty.store, empty.epoch, empty.incarnation, empty.event), fresh);
    let site = Site::join(store, host(1)).await;
    let joined = mark(&site).await;
    assert_eq!((joined.incarnation, joined.event), (site.incarnation, 1));
    site.create("x").await;
    let later = mark(&site).await;
    assert!(later.event > joined.event);
    let relations =
        [(later, joined), (joined, later), (joined, joined)].map(|(store, noted)| store.relation_to(&noted));
    assert_eq!(relations, [Relation::Current, Relation::Behind, Relation::Current]);
}

async fn a_restored_store_is_above_the_mark(world: World) {
    let site = world.site("a").await;
    site.create("x").await;
    let found = mark(&site).await;
    let above = StoreMark {
        epoch: StoreEpoch(4),
        incarnation: Incarnation(found.incarnation.0 + 7),
        event: found.event + 100,
        ..found
    };
    let restored = restore(&world, &site, above).await.unwrap();
    assert_eq!(restored, Restored { epoch: StoreEpoch(5), agents: 1 });
    let after = mark(&site).await;
    assert_eq!((after.relation_to(&above), after.epoch), (Relation::Current, StoreEpoch(5)));
    assert!(after.event > above.event);
    assert_eq!(site.store.sessions().await, Ok(Vec::new()));
    let kind = Some(EventKind::StoreRestored);
    let events = site.store.events(above.event, None, kind, PAGE_MAX).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [above.event + 1]);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let site = Site::join(store, host(1)).await;
    assert!(site.incarnation > above.incarnation, "no incarnation is given twice");
}

async fn restored_agents_are_suspended_under_higher_tokens(world: World) {
    let site = world.site("a").await;
    let desk = site.own("x").await;
    let waiting = desk.accept("waits").await;
    site.create("y").await;
    let before = desk.row().await;
    let above = mark(&site).await;
    assert_eq!(restore(&world, &site, above).await, Ok(Restored { epoch: StoreEpoch(1), agents: 2 }));
    for agent in ["x", "y"] {
        let row = site.store.agent(&id(agent)).await.unwrap().unwrap();
        assert_eq!((row.lifecycle, row.home, row.holder), (suspended(), Home::Here, None));
        assert_eq!(row.token.epoch(), 1);
        let events = site.store.events(above.event, Some(&id(agent)), None, PAGE_MAX).await.unwrap();
        assert!(events.iter().any(|event| event.event.kind == EventKind::AgentSuspended), "{events:?}");
    }
    let row = desk.row().await;
    assert_eq!(Some(row.token), before.token.raised(1));
    assert_eq!((row.revision, row.generation, row.open_inputs), (before.revision, before.generation, 1));
    let unit = desk.chain().await.turn(Turn::ends([&waiting])).unit();
    let outcome = desk.commit(unit).await;
    super::fixture::assert_failed(&outcome, 0, is_fenced);
    let site = Site::join(site.store, host(1)).await;
    assert_eq!(site.store.runnable(site.incarnation, 10).await, Ok(Vec::new()), "nothing runs");
}

async fn a_restored_agent_runs_again_once_it_is_resumed(world: World) {
    let site = world.site("a").await;
    let desk = site.own("x").await;
    let waiting = desk.accept("waits").await;
    restore(&world, &site, mark(&site).await).await.unwrap();
    let site = Site::join(site.store, host(1)).await;
    let desk = site.take(desk.agent()).await;
    let commit = LifecycleCommit::plan(desk.agent(), &suspended(), &Verb::Resume, 1).unwrap();
    site.store.commit_lifecycle(&desk.owner, commit).await.unwrap();
    desk.turn(Turn::ends([&waiting]).snapshot("s")).await;
    assert_eq!(desk.row().await.token.epoch(), 1);
}

async fn a_restore_ends_every_handoff_and_copy(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let desk = source.own("x").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("s")).await;
    source.store.put_migration(record(1, "x", Role::Source, Phase::Cutover)).await.unwrap();
    let base = desk.row().await.revision;
    let handoff = source.store.begin_handoff(&desk.owner, base, migration(1), target.host).await.unwrap();
    let frames = source.store.export_rows(desk.agent(), 0, usize::MAX).await.unwrap();
    target.store.receive_rows(migration(1), desk.agent(), frames).await.unwrap();
    for site in [&source, &target] {
        restore(&world, site, mark(site).await).await.unwrap();
    }
    let row = desk.row().await;
    assert_eq!((row.home, row.lifecycle), (Home::Here, suspended()));
    assert_eq!(Some(row.token), handoff.granted.raised(1), "above the one that was granted");
    let closed = source.store.migration(migration(1)).await.unwrap().unwrap();
    assert_eq!((closed.phase, closed.failure), (Phase::Aborted, Some(Failure::Fenced)));
    let moved = source.store.finish_handoff(desk.agent(), migration(1)).await;
    assert!(matches!(&moved, Err(error) if is_conflict(error)), "{moved:?}");
    let nothing = PrepareRequest {
        migration: migration(1),
        agent: desk.agent().clone(),
        source: source.host,
        token: handoff.granted,
        generation: desk.owner.generation,
        revision: base,
        frames: Vec::new(),
    };
    let refused = target.store.prepare(nothing).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "the copy is gone: {refused:?}");
}

async fn a_prepared_agent_stays_prepared_and_suspended(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    put_plugin(&target.store, "plain").await;
    let desk = source.own("x").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("s")).await;
    let row = desk.row().await;
    let request = PrepareRequest {
        migration: migration(1),
        agent: desk.agent().clone(),
        source: source.host,
        token: desk.owner.token.next(),
        generation: row.generation,
        revision: row.revision,
        frames: source.store.export_rows(desk.agent(), 0, usize::MAX).await.unwrap(),
    };
    target.store.put_migration(record(1, "x", Role::Target, Phase::Cutover)).await.unwrap();
    target.store.prepare(request.clone()).await.unwrap();
    restore(&world, &target, mark(&target).await).await.unwrap();
    let target = Site::join(target.store, target.host).await;
    let lease =
        target.store.adopt(desk.agent(), migration(1), target.incarnation, Adoption::Granted).await.unwrap();
    assert_eq!(Some(lease.token), request.token.raised(1));
    let copy = target.store.agent(desk.agent()).await.unwrap().unwrap();
    assert_eq!(copy.lifecycle, suspended());
    let open = target.store.migration(migration(1)).await.unwrap().unwrap();
    assert_eq!(open.phase, Phase::Cutover, "its source is still to be asked");
}

async fn a_store_in_use_is_not_restored(world: World) {
    let site = world.shared_site("a").await;
    let desk = site.own("x").await;
    let before = desk.row().await;
    let refused = site.store.restore(mark(&site).await).await;
    assert!(matches!(&refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(desk.row().await, before);
    restore(&world, &site, mark(&site).await).await.unwrap();
    assert_eq!(desk.row().await.token.epoch(), 1);
}

async fn two_restores_of_one_backup_never_give_a_token_twice(world: World) {
    // Two stores with one history stand for one backup that is put back twice.
    let mut tokens: Vec<FencingToken> = Vec::new();
    let mut noted: Option<StoreMark> = None;
    for letter in ["a", "b"] {
        let site = world.site(letter).await;
        site.own("x").await;
        let found = mark(&site).await;
        let above = StoreMark { epoch: noted.map_or(found.epoch, |noted| noted.epoch), ..found };
        restore(&world, &site, above).await.unwrap();
        let site = Site::join(site.store, host(1)).await;
        tokens.push(site.take(&id("x")).await.owner.token);
        noted = Some(mark(&site).await);
    }
    assert!(tokens[0] < tokens[1] && tokens[1].epoch() == 2, "{tokens:?}");
}
