//! The fence inside each fenced write (rule 2): whoever is not the current owner, or builds on another revision, changes
//! nothing at all.

use crate::id::{FencingToken, Generation, Incarnation, Revision};
use crate::lease::Holder;
use crate::lifecycle::Verb;
use crate::output::UndeliverableReason;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Desk, Turn, World, assert_failed, host, id, is_fenced, is_stale, migration, picture,
};
use crate::store::{BrokenReason, OutputEnd, OutputKey, Owner, StoreError, UnitFailure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_stale_token_changes_nothing),
        Case::of(another_incarnation_changes_nothing),
        Case::of(another_generation_changes_nothing),
        Case::of(a_stale_revision_changes_nothing),
        Case::of(a_refused_owner_learns_who_holds_the_agent),
        Case::of(a_taken_agent_refuses_the_former_owner),
    ]
}

/// Every fenced write of `owner`, each of which must be refused as `Fenced`, with nothing changed.
async fn assert_all_fenced(desk: &Desk, owner: &Owner) {
    let store = desk.store();
    let base = desk.row().await.revision;
    let before = picture(store, desk.agent()).await;

    let mut chain = desk.chain().await;
    chain.owner = owner.clone();
    let unit = chain.turn(Turn::ends([]).state("b", Some("stale")).snapshot("stale")).unit();
    assert_failed(&store.commit_turns(unit).await, 0, is_fenced);
    // Also when the receipt tells the truth and only the owner lies.
    let mut unit = desk.chain().await.turn(Turn::ends([])).unit();
    unit.owner = owner.clone();
    assert_failed(&store.commit_turns(unit).await, 0, is_fenced);

    for verb in [Verb::Pause, Verb::Reset, Verb::Delete, Verb::Break(BrokenReason::Forked)] {
        assert_fenced(store.commit_lifecycle(owner, desk.plan(&verb).await).await);
    }
    let key = OutputKey { destination: id("somebody"), generation: Generation(1), number: 1 };
    let undeliverable = OutputEnd::Undeliverable(UndeliverableReason::NotFound);
    for end in [OutputEnd::Acknowledged, undeliverable] {
        assert_fenced(store.end_outputs(owner, &[(key.clone(), end)]).await);
    }
    assert_fenced(store.release(owner).await);
    let target = desk.site.host;
    assert_fenced(store.transfer(owner, base, migration(1), target).await);
    assert_fenced(store.begin_handoff(owner, base, migration(1), target).await);
    assert_eq!(picture(store, desk.agent()).await, before, "as {owner:?}");
}

fn assert_fenced<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "{answer:?}");
}

async fn furnished(world: &World) -> Desk {
    let site = world.shared_site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    desk
}

async fn a_stale_token_changes_nothing(world: World) {
    let desk = furnished(&world).await;
    let site = desk.site.clone();
    site.store.release(&desk.owner).await.unwrap();
    let desk = site.take(desk.agent()).await;
    for token in [FencingToken(0), FencingToken(desk.owner.token.0 - 1), desk.owner.token.next()] {
        let owner = Owner { token, ..desk.owner.clone() };
        assert_all_fenced(&desk, &owner).await;
    }
}

async fn another_incarnation_changes_nothing(world: World) {
    let desk = furnished(&world).await;
    let other = desk.site.beside(2).await;
    for incarnation in [other.incarnation, Incarnation(0), Incarnation(99)] {
        let owner = Owner { incarnation, ..desk.owner.clone() };
        assert_all_fenced(&desk, &owner).await;
    }
}

async fn another_generation_changes_nothing(world: World) {
    let desk = furnished(&world).await;
    for generation in [Generation(0), Generation(2)] {
        let owner = Owner { generation, ..desk.owner.clone() };
        assert_all_fenced(&desk, &owner).await;
    }
}

async fn a_stale_revision_changes_nothing(world: World) {
    let desk = furnished(&world).await;
    let (store, row) = (desk.store(), desk.row().await);
    let before = picture(store, desk.agent()).await;
    let stale = StoreError::Stale { generation: row.generation, revision: row.revision };
    for base in [Revision(0), Revision(row.revision.0 - 1), row.revision.next()] {
        let mut chain = desk.chain().await;
        (chain.base, chain.revision) = (base, base);
        let outcome = store.commit_turns(chain.turn(Turn::ends([]).state("b", None)).unit()).await;
        assert_eq!(outcome.failure, Some(UnitFailure::Store(stale.clone())), "base {base}");
        assert_eq!(outcome.committed, 0);
        let target = host(1);
        let transferred = store.transfer(&desk.owner, base, migration(1), target).await;
        assert_eq!(transferred, Err(stale.clone()));
        let begun = store.begin_handoff(&desk.owner, base, migration(1), target).await;
        assert_eq!(begun, Err(stale.clone()));
    }
    // The right base, and a receipt that claims another revision.
    let mut chain = desk.chain().await;
    chain.revision = row.revision.next();
    let unit = chain.turn(Turn::ends([])).unit();
    assert_failed(&store.commit_turns(unit).await, 0, is_stale);
    assert_eq!(picture(store, desk.agent()).await, before);
}

async fn a_refused_owner_learns_who_holds_the_agent(world: World) {
    let desk = furnished(&world).await;
    let site = desk.site.clone();
    site.store.release(&desk.owner).await.unwrap();
    let event = |holder| StoreError::Fenced { current: desk.owner.token, holder };
    let unit = desk.chain().await.turn(Turn::ends([])).unit();
    let outcome = desk.commit(unit.clone()).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Store(event(None))), "nobody");
    let other = site.beside(2).await;
    let taken = other.take(desk.agent()).await;
    let refused = StoreError::Fenced {
        current: taken.owner.token,
        holder: Some(Holder { host: other.host, incarnation: other.incarnation }),
    };
    let outcome = desk.commit(unit).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Store(refused)));
}

async fn a_taken_agent_refuses_the_former_owner(world: World) {
    let desk = furnished(&world).await;
    let other = desk.site.beside(2).await;
    let prepared = desk.chain().await.turn(Turn::ends([]).state("b", Some("late"))).unit();
    desk.store().leave(desk.owner.incarnation).await.unwrap();
    let taken = other.take(desk.agent()).await;
    let before = picture(taken.store(), taken.agent()).await;
    assert_failed(&desk.commit(prepared).await, 0, is_fenced);
    assert_eq!(picture(taken.store(), taken.agent()).await, before);
    assert_all_fenced(&taken, &desk.owner).await;
    taken.turn(Turn::ends([])).await;
}
