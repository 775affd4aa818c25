//! Host sessions: incarnations, expiry by the store's clock, burial (rule 6).

use std::time::Duration;

use crate::event::EventKind;
use crate::limits::PAGE_MAX;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{Site, Store, TTL, World, host, session_request};
use crate::store::{Sharing, StoreError};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(every_join_is_a_new_incarnation),
        Case::of(an_exclusive_session_never_expires),
        Case::of(joining_an_exclusive_store_ends_all_other_sessions),
        Case::of(a_heartbeat_extends_a_session_by_its_ttl),
        Case::of(a_heartbeat_revives_an_expired_session),
        Case::of(a_buried_session_is_dead_for_ever),
        Case::of(the_newer_session_of_a_host_wins),
        Case::of(leaving_frees_agents_and_keeps_tokens),
        Case::of(sessions_are_listed_with_their_time_left),
        Case::of(joining_and_going_are_events),
        Case::of(two_handles_of_a_shared_store_are_one_store),
    ]
}

async fn every_join_is_a_new_incarnation(world: World) {
    let store = world.open("a", Sharing::Shared).await;
    let first = Site::join(store.clone(), host(1)).await.incarnation;
    let second = Site::join(store.clone(), host(2)).await.incarnation;
    store.leave(second).await.unwrap();
    let store = world.reopen("a", Sharing::Shared, store).await;
    let third = Site::join(store, host(2)).await.incarnation;
    assert!(first.0 >= 1 && first < second && second < third, "{first} {second} {third}");
}

async fn an_exclusive_session_never_expires(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let session = store.join(session_request(host(1))).await.unwrap();
    assert_eq!(session.ttl, None);
    world.clock.advance(TTL * 100);
    assert_eq!(store.bury_expired().await, Ok(vec![]));
    assert_eq!(store.heartbeat(session.incarnation).await, Ok(()));
    let rows = store.sessions().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].remaining, None);
}

async fn joining_an_exclusive_store_ends_all_other_sessions(world: World) {
    let first = world.site("a").await;
    let desk = first.own("agent").await;
    let second = first.beside(2).await;
    assert_dead(&first).await;
    assert_eq!(desk.row().await.holder, None);
    let taken = second.take(desk.agent()).await;
    assert_eq!(taken.owner.token, desk.owner.token.next());
}

async fn a_heartbeat_extends_a_session_by_its_ttl(world: World) {
    let site = world.shared_site("a").await;
    for _ in 0..3 {
        world.clock.advance(TTL - SECOND);
        assert_eq!(site.store.bury_expired().await, Ok(vec![]));
        assert_eq!(site.store.heartbeat(site.incarnation).await, Ok(()));
    }
    world.clock.advance(TTL + SECOND);
    assert_eq!(site.store.bury_expired().await, Ok(vec![site.incarnation]));
}

async fn a_heartbeat_revives_an_expired_session(world: World) {
    let site = world.shared_site("a").await;
    let desk = site.own("agent").await;
    world.clock.advance(TTL + SECOND);
    assert_eq!(site.store.heartbeat(site.incarnation).await, Ok(()));
    assert_eq!(site.store.bury_expired().await, Ok(vec![]));
    assert_eq!(site.take(desk.agent()).await.owner, desk.owner, "the same grant goes on");
}

async fn a_buried_session_is_dead_for_ever(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    world.clock.advance(TTL - SECOND);
    other.store.heartbeat(other.incarnation).await.unwrap();
    world.clock.advance(SECOND * 2);
    assert_eq!(other.store.bury_expired().await, Ok(vec![site.incarnation]));
    assert_eq!(other.store.bury_expired().await, Ok(vec![]), "each is buried once");
    assert_dead(&site).await;
    assert_eq!(desk.row().await.holder, None);
    assert_eq!(desk.row().await.token, desk.owner.token);
    assert_eq!(site.store.lease(desk.agent()).await, Ok(None));
    let store = site.store.clone();
    drop((desk, other));
    let Site { store: last, .. } = site;
    drop(last);
    let store = world.reopen("a", Sharing::Shared, store).await;
    let dead = crate::id::Incarnation(1);
    let refused = Err(StoreError::SessionDead { incarnation: dead });
    assert_eq!(store.heartbeat(dead).await, refused, "also after a restart");
}

async fn the_newer_session_of_a_host_wins(world: World) {
    let older = world.shared_site("a").await;
    let bystander = older.beside(2).await;
    let desk = older.own("agent").await;
    let newer = older.beside(1).await;
    assert_dead(&older).await;
    assert_eq!(newer.store.heartbeat(newer.incarnation).await, Ok(()));
    assert_eq!(bystander.store.heartbeat(bystander.incarnation).await, Ok(()));
    let taken = newer.take(desk.agent()).await;
    assert_eq!(taken.owner.token, desk.owner.token.next());
}

async fn leaving_frees_agents_and_keeps_tokens(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    for _ in 0..2 {
        assert_eq!(site.store.leave(site.incarnation).await, Ok(()));
    }
    assert_dead(&site).await;
    let row = desk.row().await;
    assert_eq!((row.holder, row.token), (None, desk.owner.token));
    let gone = site.store.events(0, None, Some(EventKind::HostGone), PAGE_MAX).await.unwrap();
    assert_eq!(gone.len(), 1, "the second call finds a dead session");
    assert_eq!(other.take(desk.agent()).await.owner.token, desk.owner.token.next());
}

async fn sessions_are_listed_with_their_time_left(world: World) {
    let first = world.shared_site("a").await;
    world.clock.advance(SECOND * 5);
    let second = first.beside(2).await;
    let rows = first.store.sessions().await.unwrap();
    let listed: Vec<_> = rows.iter().map(|row| (row.host, row.incarnation, row.remaining)).collect();
    let expected = [
        (first.host, first.incarnation, Some(TTL - SECOND * 5)),
        (second.host, second.incarnation, Some(TTL)),
    ];
    assert_eq!(listed, expected);
    let request = session_request(first.host);
    assert_eq!((&rows[0].name, rows[0].api, rows[0].mesh), (&request.name, request.api, request.mesh));
    world.clock.advance(TTL * 2);
    let remaining = first.store.sessions().await.unwrap()[0].remaining;
    assert_eq!(remaining, Some(Duration::ZERO), "expired, and not dead before it is buried");
}

async fn joining_and_going_are_events(world: World) {
    let first = world.shared_site("a").await;
    let second = first.beside(2).await;
    second.store.leave(second.incarnation).await.unwrap();
    world.clock.advance(TTL * 2);
    first.store.bury_expired().await.unwrap();
    let joined = kinds(&first.store, EventKind::HostJoined).await;
    let gone = kinds(&first.store, EventKind::HostGone).await;
    assert_eq!((joined, gone), (2, 2));
}

async fn two_handles_of_a_shared_store_are_one_store(world: World) {
    let one = world.shared_site("a").await;
    let handle = world.open("a", Sharing::Shared).await;
    assert_eq!(handle.id(), one.store.id());
    let two = Site::join(handle, host(2)).await;
    let desk = one.own("agent").await;
    let refused = two.try_take(desk.agent()).await;
    assert!(
        matches!(&refused, Err(StoreError::Fenced { holder: Some(holder), .. })
        if holder.host == one.host && holder.incarnation == one.incarnation),
        "{refused:?}"
    );
    one.store.leave(one.incarnation).await.unwrap();
    let taken = two.take(desk.agent()).await;
    assert_eq!(taken.owner.token, desk.owner.token.next());
    assert_eq!(desk.row().await.holder.map(|holder| holder.host), Some(two.host));
}

async fn assert_dead(site: &Site) {
    let incarnation = site.incarnation;
    let refused = site.store.heartbeat(incarnation).await;
    assert_eq!(refused, Err(StoreError::SessionDead { incarnation }));
}

async fn kinds(store: &Store, kind: EventKind) -> usize {
    store.events(0, None, Some(kind), PAGE_MAX).await.unwrap().len()
}
