//! The commit point between hosts that share the store.

use std::time::Duration;

use crate::event::EventKind;
use crate::id::Revision;
use crate::lease::GrantCause;
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::store::StoreError;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    TTL, Turn, World, assert_failed, host, is_fenced, migration, picture,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_transfer_gives_the_agent_to_the_target),
        Case::of(a_repeated_transfer_answers_the_same_lease),
        Case::of(a_transfer_needs_a_live_target),
        Case::of(a_transfer_goes_to_the_newest_session_of_the_target),
        Case::of(a_transferred_agent_may_come_back),
    ]
}

async fn a_transfer_gives_the_agent_to_the_target(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let row = desk.row().await;
    let late = desk.chain().await.turn(Turn::ends([])).unit();
    let lease = site.store.transfer(&desk.owner, row.revision, migration(1), other.host).await.unwrap();
    assert_eq!((lease.token, lease.incarnation), (desk.owner.token.next(), other.incarnation));
    let cause = GrantCause::Transferred { migration: migration(1), revision: row.revision };
    assert_eq!(lease.cause, cause);
    assert_eq!(site.store.lease(desk.agent()).await, Ok(Some(lease.clone())));
    assert_failed(&desk.commit(late).await, 0, is_fenced);
    let taken = other.desk(lease);
    assert_eq!(taken.row().await.revision, row.revision);
    taken.turn(Turn::ends([])).await;
    let kind = Some(EventKind::LeaseAcquired);
    let grants = site.store.events(0, Some(desk.agent()), kind, PAGE_MAX).await.unwrap();
    assert_eq!(grants.len(), 2);
}

async fn a_repeated_transfer_answers_the_same_lease(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    let transfer = async |owner: &crate::store::Owner, number, target| {
        site.store.transfer(owner, Revision(0), migration(number), target).await
    };
    let lease = transfer(&desk.owner, 1, other.host).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(transfer(&desk.owner, 1, other.host).await, Ok(lease.clone()));
    let other_migration = transfer(&desk.owner, 2, other.host).await;
    assert!(matches!(other_migration, Err(StoreError::Fenced { .. })), "{other_migration:?}");
    let other_target = transfer(&desk.owner, 1, site.host).await;
    assert!(matches!(other_target, Err(StoreError::Fenced { .. })), "{other_target:?}");
    assert_eq!(picture(desk.store(), desk.agent()).await, before);

    site.store.release(&other.desk(lease).owner).await.unwrap();
    site.take(desk.agent()).await;
    let late = transfer(&desk.owner, 1, other.host).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "the grant is over: {late:?}");
}

async fn a_transfer_needs_a_live_target(world: World) {
    let site = world.shared_site("a").await;
    let (left, expired) = (site.beside(2).await, site.beside(3).await);
    let desk = site.own("agent").await;
    left.store.leave(left.incarnation).await.unwrap();
    world.clock.advance(TTL + Duration::from_secs(1));
    site.store.heartbeat(site.incarnation).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    for target in [left.host, expired.host, host(77)] {
        let refused = site.store.transfer(&desk.owner, Revision(0), migration(1), target).await;
        assert_eq!(refused, Err(StoreError::NoSession));
    }
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    desk.turn(Turn::of(BoundaryKind::Init)).await;
}

async fn a_transfer_goes_to_the_newest_session_of_the_target(world: World) {
    let site = world.shared_site("a").await;
    site.beside(2).await;
    let newer = site.beside(2).await;
    let desk = site.own("agent").await;
    let lease = site.store.transfer(&desk.owner, Revision(0), migration(1), newer.host).await;
    assert_eq!(lease.unwrap().incarnation, newer.incarnation);
}

async fn a_transferred_agent_may_come_back(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let mut desk = site.own("agent").await;
    for number in 1..=4 {
        let base = desk.turn(Turn::ends([])).await.revision;
        let target = if number % 2 == 1 { &other } else { &site };
        let lease = desk.store().transfer(&desk.owner, base, migration(number), target.host).await.unwrap();
        assert_eq!(lease.token, desk.owner.token.next());
        desk = target.desk(lease);
    }
    assert_eq!(desk.row().await.revision, Revision(4));
    assert_eq!(site.store.image(desk.agent(), None).await.unwrap().unwrap().check(), Ok(()));
}
