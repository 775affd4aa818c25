//! Broken agents: the boundary at which another state is accepted, and kept snapshots that are written once more.

use crate::digest::Digest;
use crate::event::EventKind;
use crate::id::Revision;
use crate::lifecycle::{LifecycleCommit, Verb};
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Chain, Desk, Turn, World, assert_failed, done, is_conflict, is_fenced, is_stale, picture,
};
use crate::store::{BrokenReason, Lifecycle, Repair, Sharing, Step, StoreError, Unit};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_repair_is_one_boundary_with_its_recovery),
        Case::of(a_repair_that_does_not_fit_changes_nothing),
        Case::of(only_a_broken_agent_is_repaired),
        Case::of(a_repair_is_a_new_base),
        Case::of(a_kept_snapshot_is_stored_once_more),
    ]
}

fn broken() -> Verb {
    Verb::Break(BrokenReason::Diverged { message: "turn 2".to_owned() })
}

/// A repair as it should be, on top of a chain.
async fn repair(desk: &Desk, chain: &Chain) -> Repair {
    let mut boundary = chain.boundary(Turn::of(BoundaryKind::Repair).snapshot("accepted"));
    boundary.receipt.from = Some(Digest::of(b"expected"));
    Repair { boundary, commit: desk.plan(&Verb::Recover).await }
}

async fn unit(desk: &Desk, repair: Repair) -> Unit {
    desk.chain().await.step(Step::Repair(Box::new(repair))).unit()
}

async fn events_of(desk: &Desk, kind: EventKind) -> usize {
    desk.store().events(0, Some(desk.agent()), Some(kind), PAGE_MAX).await.unwrap().len()
}

async fn a_repair_is_one_boundary_with_its_recovery(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let waiting = desk.accept("waiting").await;
    desk.verb(&broken()).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let repair = repair(&desk, &desk.chain().await).await;
    let receipt = repair.boundary.receipt.clone();
    let committed = unit(&desk, repair).await;
    for _ in 0..2 {
        assert_eq!(desk.commit(committed.clone()).await, done(1));
        assert_eq!(events_of(&desk, EventKind::AgentRecovered).await, 1, "a repetition is no event");
    }
    let after = picture(desk.store(), desk.agent()).await;
    let (row, image) = (after.row.unwrap(), after.image.unwrap());
    assert_eq!((row.revision, row.head), (before.row.unwrap().revision.next(), receipt.digest()));
    assert_eq!(row.lifecycle, Lifecycle::Active);
    assert_eq!(after.receipts.last(), Some(&receipt));
    assert_eq!((image.check(), image.snapshot.unwrap().state.as_ref()), (Ok(()), &b"accepted"[..]));
    assert_eq!((after.inputs, after.outputs), (before.inputs, before.outputs));
    assert_eq!(
        (after.state, after.timers, after.operations),
        (before.state, before.timers, before.operations)
    );
    desk.turn(Turn::ends([&waiting])).await;
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.image(&receipt.agent, None).await.unwrap().unwrap().check(), Ok(()));
}

async fn a_repair_that_does_not_fit_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    desk.verb(&broken()).await.unwrap();
    let waiting = desk.accept("waiting").await;
    let before = picture(desk.store(), desk.agent()).await;
    let chain = desk.chain().await;
    let wrong: [fn(&mut Repair); 6] = [
        |repair| repair.boundary.receipt.from = None,
        |repair| repair.boundary.receipt.kind = BoundaryKind::Upgrade,
        |repair| repair.boundary.receipt.parent = Digest::ZERO,
        |repair| (repair.boundary.snapshot, repair.boundary.receipt.state) = (None, None),
        |repair| repair.boundary.receipt.state = Some(Digest::of(b"another")),
        |repair| repair.boundary.state.push(("a".to_owned(), None)),
    ];
    let mut repairs = Vec::new();
    for alter in wrong {
        let mut altered = repair(&desk, &chain).await;
        alter(&mut altered);
        repairs.push(altered);
    }
    let mut ending = repair(&desk, &chain).await;
    ending.boundary = chain.boundary(Turn::of(BoundaryKind::Repair).snapshot("x").and_ends([&waiting]));
    ending.boundary.receipt.from = Some(Digest::ZERO);
    repairs.push(ending);
    for verb in [Verb::Upgrade, Verb::Retire, Verb::Reset, Verb::Delete] {
        let commit = desk.plan(&verb).await;
        repairs.push(Repair { commit, ..repair(&desk, &chain).await });
    }
    let boundary = repair(&desk, &chain).await.boundary;
    for (number, repair) in repairs.into_iter().enumerate() {
        let outcome = desk.commit(unit(&desk, repair).await).await;
        assert_failed(&outcome, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before, "{number}");
    }
    let alone = desk.chain().await.step(Step::Boundary(Box::new(boundary))).unit();
    assert_failed(&desk.commit(alone).await, 0, is_conflict);
    let mut foreign = unit(&desk, repair(&desk, &chain).await).await;
    foreign.owner.token = foreign.owner.token.next();
    assert_failed(&desk.commit(foreign).await, 0, is_fenced);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn only_a_broken_agent_is_repaired(world: World) {
    for (number, verb) in [None, Some(Verb::Pause), Some(Verb::Retire)].into_iter().enumerate() {
        let site = world.site(&format!("a{number}")).await;
        let desk = site.own("agent").await;
        desk.furnish().await;
        let broken = LifecycleCommit::plan(
            desk.agent(),
            &Lifecycle::Broken(BrokenReason::Corrupt { what: "a row".into() }),
            &Verb::Recover,
            super::START_MS,
        );
        if let Some(verb) = verb {
            desk.verb(&verb).await.unwrap();
        }
        let before = picture(desk.store(), desk.agent()).await;
        let chain = desk.chain().await;
        let mut boundary = chain.boundary(Turn::of(BoundaryKind::Repair).snapshot("accepted"));
        boundary.receipt.from = Some(Digest::ZERO);
        let outcome = desk.commit(unit(&desk, Repair { boundary, commit: broken.unwrap() }).await).await;
        assert_failed(&outcome, 0, |error| matches!(error, StoreError::Lifecycle { .. }));
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
    // Nor one that is broken for another reason by now.
    let site = world.site("again").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    desk.verb(&broken()).await.unwrap();
    let repair = repair(&desk, &desk.chain().await).await;
    desk.verb(&Verb::Break(BrokenReason::Forked)).await.unwrap();
    let outcome = desk.commit(unit(&desk, repair).await).await;
    assert_failed(&outcome, 0, |error| matches!(error, StoreError::Lifecycle { .. }));
}

async fn a_repair_is_a_new_base(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    desk.turn(Turn::ends([])).await;
    desk.turn(Turn::ends([]).snapshot("three").journaled()).await;
    desk.turn(Turn::ends([])).await;
    desk.verb(&broken()).await.unwrap();
    let repair = repair(&desk, &desk.chain().await).await;
    assert_eq!(desk.commit(unit(&desk, repair).await).await, done(1));
    desk.turn(Turn::ends([])).await;
    let kept = site.store.kept_snapshots(desk.agent()).await.unwrap();
    assert_eq!(kept.iter().map(|kept| kept.revision.0).collect::<Vec<_>>(), [3, 5]);
    let newest = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((newest.check(), newest.base(), newest.journal.len()), (Ok(()), Revision(5), 1));
    let older = site.store.image(desk.agent(), Some(Revision(3))).await.unwrap().unwrap();
    assert!(!older.is_journaled_to(Revision(6)), "what follows was not made by what is before");
    assert!(older.check().unwrap_err().contains("repair 5"));
    assert_eq!(older.check_chain(), Ok(()));
}

async fn a_kept_snapshot_is_stored_once_more(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    desk.turn(Turn::ends([])).await;
    desk.turn(Turn::ends([]).snapshot("three").journaled()).await;
    desk.turn(Turn::ends([])).await;
    desk.verb(&broken()).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let checkpoint = async |revision: u64, state: &str| {
        let chain = desk.chain().await;
        let snapshot = chain.snapshot(Revision(revision), state);
        desk.commit(chain.step(Step::Checkpoint(snapshot)).unit()).await
    };
    for (revision, state) in [(1, "one"), (3, "three")] {
        assert_eq!(checkpoint(revision, state).await, done(1), "the same changes nothing");
        assert_failed(&checkpoint(revision, "another").await, 0, is_conflict);
    }
    for revision in [2, 5] {
        assert_failed(&checkpoint(revision, "not kept").await, 0, is_stale);
    }
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    assert_eq!(checkpoint(4, "four").await, done(1), "that of the head, though the agent is broken");
    let kept = site.store.kept_snapshots(desk.agent()).await.unwrap();
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    let newest = image.snapshot.clone().unwrap();
    assert_eq!(kept.iter().map(|kept| kept.revision.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(kept[1].digest, newest.digest(newest.state_digest()));
    assert_eq!(image.check(), Ok(()));
}
