//! Attempts at `init`: counted in the agent's row under the fence, kept wherever the agent goes, and what begins anew with 0.

use crate::id::{FencingToken, Revision, SpecRevision};
use crate::lifecycle::{SuspendReason, Verb};
use crate::receipt::BoundaryKind;
use crate::spec::SpecChange;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Desk, Turn, World, assert_failed, done, id, is_conflict, is_fenced, new_agent, picture, put_plugin,
};
use crate::store::conformance::journey::Journey;
use crate::store::{BrokenReason, Lifecycle, Sharing, Step};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(attempts_are_counted_under_the_fence),
        Case::of(attempts_are_set_whatever_the_lifecycle),
        Case::of(the_first_boundary_ends_the_count),
        Case::of(what_begins_anew_has_all_attempts),
        Case::of(attempts_move_with_their_agent),
    ]
}

async fn count(desk: &Desk, attempts: u32) {
    let unit = desk.chain().await.step(Step::InitAttempts(attempts)).unit();
    assert_eq!(desk.commit(unit).await, done(1));
    assert_eq!(desk.row().await.init_attempts, attempts);
}

fn broken() -> Verb {
    Verb::Break(BrokenReason::Init { message: "no".to_owned() })
}

async fn attempts_are_counted_under_the_fence(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    assert_eq!(desk.row().await.init_attempts, 0);
    let head = |row: crate::store::AgentRow| (row.revision, row.head, row.next_seq, row.lifecycle);
    let before = head(desk.row().await);
    for attempts in [1, 2, 2, 1] {
        count(&desk, attempts).await;
    }
    assert_eq!(head(desk.row().await), before, "it is no boundary");
    let mut stale = desk.clone();
    stale.owner.token = FencingToken(stale.owner.token.0 + 1);
    let before = picture(desk.store(), desk.agent()).await;
    let outcome = stale.commit(stale.chain().await.step(Step::InitAttempts(3)).unit()).await;
    assert_failed(&outcome, 0, is_fenced);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    drop((desk, stale));
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.agent(&id("agent")).await.unwrap().unwrap().init_attempts, 1);
}

async fn attempts_are_set_whatever_the_lifecycle(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    count(&desk, 1).await;
    desk.verb(&Verb::Pause).await.unwrap();
    assert_eq!(desk.row().await.init_attempts, 1, "a pause leaves it");
    count(&desk, 0).await;
    desk.verb(&Verb::Resume).await.unwrap();
    count(&desk, 2).await;
    desk.verb(&broken()).await.unwrap();
    assert_eq!(desk.row().await.init_attempts, 2, "so does what breaks it");
}

async fn the_first_boundary_ends_the_count(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    count(&desk, 2).await;
    desk.turn(Turn::of(BoundaryKind::Init)).await;
    assert_eq!(desk.row().await.init_attempts, 0);
    let before = picture(desk.store(), desk.agent()).await;
    let outcome = desk.commit(desk.chain().await.step(Step::InitAttempts(1)).unit()).await;
    assert_failed(&outcome, 0, is_conflict);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn what_begins_anew_has_all_attempts(world: World) {
    let site = world.site("a").await;
    let mut desk = site.own("agent").await;
    for way in ["reset", "recover", "configure", "retire", "delete"] {
        count(&desk, 3).await;
        desk.verb(&broken()).await.unwrap();
        match way {
            "reset" => drop(desk.verb(&Verb::Reset).await.unwrap()),
            "recover" => drop(desk.verb(&Verb::Recover).await.unwrap()),
            "configure" => {
                let spec = new_agent("agent", "other").spec;
                let change = SpecChange { revision: SpecRevision(2), spec };
                put_plugin(&site.store, "other").await;
                let unit = desk.chain().await.step(Step::Configure(change)).unit();
                assert_eq!(desk.commit(unit).await, done(1));
                assert!(matches!(desk.row().await.lifecycle, Lifecycle::Broken(_)), "that takes a recovery");
                assert_eq!(desk.row().await.init_attempts, 0);
                desk.verb(&Verb::Recover).await.unwrap();
            }
            "retire" => {
                desk.verb(&Verb::Retire).await.unwrap();
                desk.verb(&Verb::Resume).await.unwrap();
            }
            _ => {
                desk.verb(&Verb::Delete).await.unwrap();
                let again = new_agent("agent", "plain");
                assert_eq!(site.store.recreate(again).await, Ok(true));
            }
        }
        let row = desk.row().await;
        assert_eq!(
            (row.revision, row.init_attempts, row.lifecycle),
            (Revision(0), 0, Lifecycle::Active),
            "{way}"
        );
        desk = site.take(desk.agent()).await;
    }
}

async fn attempts_move_with_their_agent(world: World) {
    let journey = Journey::bare(&world).await;
    count(&journey.from, 2).await;
    let begun = journey.begin().await;
    journey.prepare(begun.granted).await;
    journey.finish().await;
    let target = journey.to.desk(journey.adopt().await);
    assert_eq!(target.row().await.init_attempts, 2);
    target.verb(&Verb::Suspend(SuspendReason::Imported)).await.unwrap();
    assert_eq!(target.row().await.init_attempts, 2);
}
