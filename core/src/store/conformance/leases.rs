//! Leases: who may take an agent, and tokens that only rise (rule 3).

use std::time::Duration;

use crate::event::EventKind;
use crate::id::{FencingToken, Incarnation};
use crate::lease::{GrantCause, Holder};
use crate::limits::PAGE_MAX;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Desk, Site, TTL, Turn, World, assert_failed, id, is_fenced, picture,
};
use crate::store::{Owner, Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_free_agent_is_taken_under_the_next_token),
        Case::of(an_agent_that_is_mine_is_answered_as_it_stands),
        Case::of(a_live_holder_fences_others),
        Case::of(an_expired_session_holds_until_it_is_buried),
        Case::of(each_agent_is_answered_in_order),
        Case::of(a_dead_session_takes_nothing),
        Case::of(a_dead_sessions_writes_are_fenced),
        Case::of(release_frees_and_keeps_the_token),
        Case::of(a_stale_owner_releases_nothing),
        Case::of(tokens_rise_across_releases_expiry_and_restarts),
    ]
}

async fn a_free_agent_is_taken_under_the_next_token(world: World) {
    let site = world.site("a").await;
    let agent = site.create("agent").await;
    assert_eq!(site.store.lease(&agent).await, Ok(None));
    let lease = site.try_take(&agent).await.unwrap();
    assert_eq!(lease.token, FencingToken(1));
    assert_eq!((lease.incarnation, &lease.cause), (site.incarnation, &GrantCause::Acquired));
    assert_eq!(site.store.lease(&agent).await, Ok(Some(lease)));
    let row = site.store.agent(&agent).await.unwrap().unwrap();
    let holder = Holder { host: site.host, incarnation: site.incarnation };
    assert_eq!((row.token, row.holder), (FencingToken(1), Some(holder)));
    assert_eq!(grants(&site).await, 1);
}

async fn an_agent_that_is_mine_is_answered_as_it_stands(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(site.take(desk.agent()).await.owner, desk.owner);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn a_live_holder_fences_others(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    let before = picture(desk.store(), desk.agent()).await;
    let holder = Holder { host: site.host, incarnation: site.incarnation };
    let refused = Err(StoreError::Fenced { current: desk.owner.token, holder: Some(holder) });
    assert_eq!(other.try_take(desk.agent()).await, refused);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn an_expired_session_holds_until_it_is_buried(world: World) {
    let site = world.shared_site("a").await;
    let desk = site.own("agent").await;
    world.clock.advance(TTL + Duration::from_secs(1));
    let other = site.beside(2).await;
    assert!(matches!(other.try_take(desk.agent()).await, Err(StoreError::Fenced { .. })));
    other.store.bury_expired().await.unwrap();
    assert_eq!(other.take(desk.agent()).await.owner.token, desk.owner.token.next());
}

async fn each_agent_is_answered_in_order(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let (free, held) = (site.create("free").await, site.own("held").await);
    let agents = [id("unknown"), held.agent().clone(), free.clone()];
    let answers = other.store.acquire(other.incarnation, &agents).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0], Err(StoreError::NoAgent));
    assert!(matches!(answers[1], Err(StoreError::Fenced { .. })), "{:?}", answers[1]);
    assert_eq!(answers[2].as_ref().map(|lease| lease.agent.clone()), Ok(free));
}

async fn a_dead_session_takes_nothing(world: World) {
    let site = world.shared_site("a").await;
    let agent = site.create("agent").await;
    site.store.leave(site.incarnation).await.unwrap();
    for incarnation in [site.incarnation, Incarnation(99)] {
        let refused = site.store.acquire(incarnation, std::slice::from_ref(&agent)).await;
        assert_eq!(refused, Err(StoreError::SessionDead { incarnation }));
    }
    let row = site.store.agent(&agent).await.unwrap().unwrap();
    assert_eq!((row.token, row.holder), (FencingToken(0), None));
}

async fn a_dead_sessions_writes_are_fenced(world: World) {
    let site = world.shared_site("a").await;
    let desk = site.own("agent").await;
    let unit = desk.chain().await.turn(Turn::ends([])).unit();
    site.store.leave(site.incarnation).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    assert_failed(&desk.commit(unit).await, 0, is_fenced);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn release_frees_and_keeps_the_token(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    for _ in 0..2 {
        assert_eq!(site.store.release(&desk.owner).await, Ok(()));
        let row = desk.row().await;
        assert_eq!((row.holder, row.token), (None, desk.owner.token));
    }
    let unit = desk.chain().await.turn(Turn::ends([])).unit();
    assert_failed(&desk.commit(unit).await, 0, is_fenced);
    let taken = other.take(desk.agent()).await;
    assert_eq!(taken.owner.token, desk.owner.token.next());
    let late = site.store.release(&desk.owner).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
}

async fn a_stale_owner_releases_nothing(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    let wrong_token = Owner { token: FencingToken(0), ..desk.owner.clone() };
    let wrong_session = Owner { incarnation: other.incarnation, ..desk.owner.clone() };
    for owner in [wrong_token, wrong_session] {
        let refused = site.store.release(&owner).await;
        assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
        assert_eq!(desk.row().await.holder.map(|holder| holder.incarnation), Some(site.incarnation));
    }
    let owner = Owner { agent: id("unknown"), ..desk.owner.clone() };
    assert_eq!(site.store.release(&owner).await, Err(StoreError::NoAgent));
}

async fn tokens_rise_across_releases_expiry_and_restarts(world: World) {
    let site = world.shared_site("a").await;
    let desk = site.own("agent").await;
    let agent = desk.agent().clone();
    let mut tokens = vec![desk.owner.token];
    site.store.release(&desk.owner).await.unwrap();
    tokens.push(site.take(&agent).await.owner.token);
    world.clock.advance(TTL * 2);
    site.store.bury_expired().await.unwrap();
    let site = site.beside(1).await;
    tokens.push(site.take(&agent).await.owner.token);
    let store = last_handle([desk], site);
    let store = world.reopen("a", Sharing::Shared, store).await;
    let site = Site::join(store, super::fixture::host(1)).await;
    tokens.push(site.take(&agent).await.owner.token);
    let expected: Vec<FencingToken> = (1..=4).map(FencingToken).collect();
    assert_eq!(tokens, expected, "one each time");
}

/// Drops all other handles of a store before it is closed.
fn last_handle(desks: impl IntoIterator<Item = Desk>, site: Site) -> super::fixture::Store {
    desks.into_iter().for_each(drop);
    site.store
}

async fn grants(site: &Site) -> usize {
    let kind = Some(EventKind::LeaseAcquired);
    site.store.events(0, None, kind, PAGE_MAX).await.unwrap().len()
}
