//! Failed starts: counted in the agent's row under the fence, kept wherever the agent goes, and what begins anew with 0.

use crate::id::{FencingToken, Revision, SpecRevision};
use crate::lifecycle::{SuspendReason, Verb};
use crate::receipt::BoundaryKind;
use crate::spec::SpecChange;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Desk, Turn, World, assert_failed, done, id, is_fenced, is_stale, new_agent, picture, put_plugin,
};
use crate::store::conformance::journey::Journey;
use crate::store::{BrokenReason, Lifecycle, Sharing, Step};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(failed_starts_are_counted_under_the_fence),
        Case::of(failed_starts_are_set_whatever_the_lifecycle),
        Case::of(a_boundary_ends_the_count),
        Case::of(what_begins_anew_has_no_failed_starts),
        Case::of(failed_starts_move_with_their_agent),
    ]
}

async fn count(desk: &Desk, failed: u32) {
    let unit = desk.chain().await.step(Step::FailedStarts(failed)).unit();
    assert_eq!(desk.commit(unit).await, done(1));
    assert_eq!(desk.row().await.failed_starts, failed);
}

fn broken() -> Verb {
    Verb::Break(BrokenReason::Init { message: "no".to_owned() })
}

async fn failed_starts_are_counted_under_the_fence(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    assert_eq!(desk.row().await.failed_starts, 0);
    let head = |row: crate::store::AgentRow| (row.revision, row.head, row.next_seq, row.lifecycle);
    let before = head(desk.row().await);
    for failed in [1, 2, 2, 1] {
        count(&desk, failed).await;
    }
    assert_eq!(head(desk.row().await), before, "it is no boundary");
    let mut stale = desk.clone();
    stale.owner.token = FencingToken(stale.owner.token.0 + 1);
    let before = picture(desk.store(), desk.agent()).await;
    let outcome = stale.commit(stale.chain().await.step(Step::FailedStarts(3)).unit()).await;
    assert_failed(&outcome, 0, is_fenced);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    drop((desk, stale));
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.agent(&id("agent")).await.unwrap().unwrap().failed_starts, 1);
}

async fn failed_starts_are_set_whatever_the_lifecycle(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    count(&desk, 1).await;
    desk.verb(&Verb::Pause).await.unwrap();
    assert_eq!(desk.row().await.failed_starts, 1, "a pause leaves it");
    count(&desk, 0).await;
    desk.verb(&Verb::Resume).await.unwrap();
    count(&desk, 2).await;
    desk.verb(&broken()).await.unwrap();
    assert_eq!(desk.row().await.failed_starts, 2, "so does what breaks it");
}

async fn a_boundary_ends_the_count(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    for kind in [BoundaryKind::Init, BoundaryKind::Turn] {
        count(&desk, 2).await;
        desk.turn(Turn::of(kind)).await;
        assert_eq!(desk.row().await.failed_starts, 0, "{kind:?}");
    }
    let before = picture(desk.store(), desk.agent()).await;
    let mut unit = desk.chain().await.step(Step::FailedStarts(1)).unit();
    unit.base = Revision(1);
    assert_failed(&desk.commit(unit).await, 0, is_stale);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn what_begins_anew_has_no_failed_starts(world: World) {
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
                assert_eq!(desk.row().await.failed_starts, 0);
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
            (row.revision, row.failed_starts, row.lifecycle),
            (Revision(0), 0, Lifecycle::Active),
            "{way}"
        );
        desk = site.take(desk.agent()).await;
    }
}

async fn failed_starts_move_with_their_agent(world: World) {
    let journey = Journey::bare(&world).await;
    count(&journey.from, 2).await;
    let begun = journey.begin().await;
    journey.prepare(begun.granted).await;
    journey.finish().await;
    let target = journey.to.desk(journey.adopt().await);
    assert_eq!(target.row().await.failed_starts, 2);
    target.verb(&Verb::Suspend(SuspendReason::Imported)).await.unwrap();
    assert_eq!(target.row().await.failed_starts, 2);
}
