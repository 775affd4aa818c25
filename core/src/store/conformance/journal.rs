//! The journal and the two kept snapshots: what an image holds of them, what is pruned, what travels.

use std::collections::BTreeMap;

use super::Case;
use super::fixture::{Turn, World, done, entry};
use super::journey::Journey;
use crate::digest::Digest;
use crate::id::Revision;
use crate::journal::JournaledTurn;
use crate::receipt::BoundaryKind;
use crate::store::{AgentImage, Step, StoreError, UnitFailure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_journaled_turn_is_in_the_image_with_its_inputs),
        Case::of(two_snapshots_are_kept_with_the_journal_behind_the_older),
        Case::of(a_snapshot_that_nothing_builds_on_takes_the_first_slot),
        Case::of(a_checkpoint_goes_beside_the_newest_snapshot),
        Case::of(a_receipt_names_its_journal_entry),
        Case::of(the_journal_and_both_snapshots_move),
    ]
}

fn revisions(image: &AgentImage) -> Vec<u64> {
    image.journal.keys().map(|revision| revision.0).collect()
}

async fn a_journaled_turn_is_in_the_image_with_its_inputs(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    let (first, second) = (desk.accept("first").await, desk.accept("second").await);
    desk.turn(Turn::ends([&second, &first])).await;
    let third = desk.accept("third").await;
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&third])).await;
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!(image.check(), Ok(()));
    assert_eq!(revisions(&image), [2], "a dead letter has no turn");
    let turn = &image.journal[&Revision(2)];
    assert_eq!(turn.entry, entry(Revision(2)));
    assert_eq!(turn.inputs, [second.input, first.input], "in the order of the receipt");
}

async fn two_snapshots_are_kept_with_the_journal_behind_the_older(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    let kept = async || -> Vec<u64> {
        let kept = site.store.kept_snapshots(desk.agent()).await.unwrap();
        kept.iter().map(|kept| kept.revision.0).collect()
    };
    let at = async |revision: u64| site.store.image(desk.agent(), Some(Revision(revision))).await.unwrap();
    desk.turn(Turn::ends([])).await;
    desk.turn(Turn::ends([]).snapshot("three").journaled()).await;
    assert_eq!(kept().await, [1, 3]);
    let older = at(1).await.unwrap();
    assert_eq!((older.check(), revisions(&older)), (Ok(()), vec![2, 3]));
    assert_eq!(older.snapshot.unwrap().state.as_ref(), b"one");
    let newest = at(3).await.unwrap();
    assert_eq!((newest.check(), revisions(&newest)), (Ok(()), vec![]));
    assert_eq!(site.store.image(desk.agent(), None).await.unwrap(), Some(newest));
    assert_eq!(at(2).await, None, "no snapshot of that revision");

    desk.turn(Turn::ends([])).await;
    desk.turn(Turn::ends([]).snapshot("five").journaled()).await;
    desk.turn(Turn::ends([])).await;
    assert_eq!(kept().await, [3, 5]);
    assert_eq!(at(1).await, None);
    let older = at(3).await.unwrap();
    assert_eq!((older.check(), revisions(&older)), (Ok(()), vec![4, 5, 6]));
    let newest = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((newest.check(), revisions(&newest)), (Ok(()), vec![6]));
}

async fn a_snapshot_that_nothing_builds_on_takes_the_first_slot(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    for state in ["one", "two", "three"] {
        desk.turn(Turn::ends([]).snapshot(state)).await;
    }
    let kept = site.store.kept_snapshots(desk.agent()).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].revision, kept[0].bytes), (Revision(3), 5));
    desk.turn(Turn::ends([]).snapshot("four").journaled()).await;
    desk.turn(Turn::ends([]).snapshot("five")).await;
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.check(), image.snapshot.unwrap().revision), (Ok(()), Revision(5)), "the newest wins");
}

async fn a_checkpoint_goes_beside_the_newest_snapshot(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    desk.turn(Turn::ends([])).await;
    let chain = desk.chain().await;
    let checkpoint = Step::Checkpoint(chain.snapshot(Revision(2), "two"));
    assert_eq!(desk.commit(chain.step(checkpoint).unit()).await, done(1));
    let older = site.store.image(desk.agent(), Some(Revision(1))).await.unwrap().unwrap();
    assert_eq!((older.check(), revisions(&older)), (Ok(()), vec![2]));
    let newest = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((newest.check(), newest.snapshot.unwrap().revision), (Ok(()), Revision(2)));
}

async fn a_receipt_names_its_journal_entry(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let chain = desk.chain().await;
    let mut other = chain.boundary(Turn::ends([]));
    other.journal = Some(entry(Revision(9)));
    let mut missing = chain.boundary(Turn::ends([]));
    missing.journal = None;
    let mut unnamed = chain.boundary(Turn::ends([]));
    unnamed.receipt.journal = None;
    let mut extra = chain.boundary(Turn::ends([]));
    extra.receipt.journal = Some(Digest::ZERO);
    for boundary in [other, missing, unnamed, extra] {
        let unit = desk.chain().await.step(Step::Boundary(Box::new(boundary))).unit();
        let outcome = desk.commit(unit).await;
        let is_conflict = matches!(outcome.failure, Some(UnitFailure::Store(StoreError::Conflict { .. })));
        assert!(is_conflict && outcome.committed == 0, "{outcome:?}");
    }
    assert_eq!(desk.row().await.revision, Revision(0));
}

async fn the_journal_and_both_snapshots_move(world: World) {
    let journey = Journey::furnished(&world).await;
    let input = journey.from.accept("in the tail").await;
    journey.from.turn(Turn::ends([&input])).await;
    journey.from.turn(Turn::ends([]).snapshot("four").journaled()).await;
    journey.from.turn(Turn::ends([])).await;
    let places = [None, Some(Revision(2)), Some(Revision(4))];
    let mut before = Vec::new();
    for at in places {
        before.push(journey.from.store().image(journey.agent(), at).await.unwrap().unwrap());
    }
    let desk = journey.complete().await;
    for (at, before) in places.into_iter().zip(before) {
        let after = desk.store().image(desk.agent(), at).await.unwrap().unwrap();
        assert_eq!(after.check(), Ok(()));
        assert_eq!((after.snapshot, after.receipts), (before.snapshot, before.receipts));
        let inputs = |journal: &BTreeMap<Revision, JournaledTurn>| -> Vec<_> {
            journal.values().map(|turn| (turn.entry.clone(), turn.inputs.clone())).collect()
        };
        assert_eq!(inputs(&after.journal), inputs(&before.journal));
    }
}
