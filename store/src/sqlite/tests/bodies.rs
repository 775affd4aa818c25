//! Snapshots in pieces: put before their unit, named by one snapshot, and gone when nothing names them.

use godwit_core::id::Seq;
use godwit_core::id::{AgentId, FencingToken, MigrationId};
use godwit_core::input::InputState;
use godwit_core::lifecycle::{Lifecycle, LifecycleCommit, Verb};
use godwit_core::store::{
    Retention, RowFrame, RuntimeStore, Step, StoreError, Unit, UnitFailure, UnitOutcome,
};

use super::damage::{flip, is_corrupt};
use super::fixture::{Desk, Place, done, noise};
use crate::sqlite::bodies::PIECE_BYTES;
use crate::sqlite::boundary::{self, Prepared};
use crate::sqlite::{SqliteMode, SqliteStore};

/// A state of three pieces.
fn large(seed: u64) -> Vec<u8> {
    noise(2 * PIECE_BYTES + 5, seed)
}

fn count(place: &Place, what: &str) -> i64 {
    place.intruder().query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

async fn state(store: &SqliteStore, agent: &AgentId) -> Vec<u8> {
    store.image(agent, None).await.unwrap().unwrap().snapshot.unwrap().state.to_vec()
}

async fn prune(store: &SqliteStore, agent: &AgentId) {
    store.prune(agent, &Retention::default(), Seq(0)).await.unwrap();
}

/// A unit of one turn that takes no input.
fn turn(desk: &mut Desk, state: &[u8]) -> Unit {
    let base = desk.revision;
    let boundary = desk.boundary(&[], state);
    Unit { owner: desk.owner.clone(), base, steps: vec![Step::Boundary(Box::new(boundary))] }
}

#[tokio::test]
async fn a_large_state_is_committed_piece_by_piece_and_read_as_one() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let before = store.commits();
    desk.asked(&store, b"ask", &large(1)).await;
    // Each piece is a transaction, so that others get in between.
    assert_eq!(store.commits() - before, 3 + 1);
    assert_eq!(count(&place, "snapshot WHERE length(state) = 0 AND body IS NOT NULL"), 1);
    assert_eq!(state(&store, &desk.owner.agent).await, large(1));
    store.close().await;
    let store = place.open(SqliteMode::Exclusive);
    assert_eq!(state(&store, &desk.owner.agent).await, large(1));
    // One that can be packed into a piece has none.
    let incarnation = super::fixture::join(&store, 1).await;
    let mut desk = Desk::take(&store, incarnation, &desk.owner.agent).await;
    desk.asked(&store, b"ask", &b"repetition ".repeat(PIECE_BYTES / 4)).await;
    assert_eq!(count(&place, "snapshot WHERE body IS NULL"), 1);
}

#[tokio::test]
async fn replaced_states_leave() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    for number in 0..10 {
        desk.asked(&store, b"ask", &large(number)).await;
        let pieces = count(&place, "snapshot_piece");
        assert!(pieces <= 6, "{pieces} pieces after {number} states");
    }
    assert_eq!(state(&store, &desk.owner.agent).await, large(9));
    desk.asked(&store, b"ask", b"small").await;
    prune(&store, &desk.owner.agent).await;
    assert_eq!((count(&place, "snapshot_piece"), count(&place, "snapshot_body")), (0, 0));
    // With nothing to do, nothing is written.
    let commits = store.commits();
    prune(&store, &desk.owner.agent).await;
    assert_eq!(store.commits(), commits);
}

#[tokio::test]
async fn agents_that_are_reset_or_moved_away_leave_no_pieces() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"ask", &large(1)).await;
    let agent = desk.owner.agent.clone();
    let reset = LifecycleCommit::plan(&agent, &Lifecycle::Active, &Verb::Reset, 1).unwrap();
    store.commit_lifecycle(&desk.owner, reset).await.unwrap();
    prune(&store, &agent).await;
    assert_eq!((count(&place, "snapshot_piece"), count(&place, "snapshot_body")), (0, 0));

    let mut desk = Desk::take(&store, desk.owner.incarnation, &agent).await;
    let outcome = store.commit_turns(turn(&mut desk, &large(2))).await;
    assert_eq!(outcome, done(1));
    assert_eq!(count(&place, "snapshot_piece"), 3);
    // Deleting the row of the agent deletes what hangs on it.
    place.intruder().execute_batch("PRAGMA foreign_keys = ON; DELETE FROM agent").unwrap();
    assert_eq!(count(&place, "snapshot_body WHERE state = 2"), 1);
}

#[tokio::test]
async fn a_refused_unit_leaves_no_pieces() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let mut unit = turn(&mut desk, &large(1));
    unit.owner.token = FencingToken(unit.owner.token.0 + 7);
    let refused = store.commit_turns(unit).await;
    assert!(matches!(refused.failure, Some(UnitFailure::Store(StoreError::Fenced { .. }))), "{refused:?}");
    assert_eq!(count(&place, "snapshot_body WHERE state = 2"), 1);
    prune(&store, &desk.owner.agent).await;
    assert_eq!(count(&place, "snapshot_piece"), 0);
}

#[tokio::test]
async fn pieces_whose_unit_never_came_leave_after_the_next_start_or_an_hour() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let agent = desk.owner.agent.clone();
    let mut left = Prepared::new(turn(&mut desk, &large(1))).unwrap();
    store.put_bodies(left.snapshots_mut()).await.unwrap();
    prune(&store, &agent).await;
    assert_eq!(count(&place, "snapshot_piece"), 3, "its unit may be on the way");
    store.close().await;
    let store = place.open(SqliteMode::Exclusive);
    prune(&store, &agent).await;
    assert_eq!(count(&place, "snapshot_piece"), 0);

    store.put_bodies(left.snapshots_mut()).await.unwrap();
    place.clock.advance(std::time::Duration::from_secs(3_601));
    prune(&store, &agent).await;
    assert_eq!(count(&place, "snapshot_piece"), 0);
}

#[tokio::test]
async fn a_body_that_was_dropped_is_put_again_and_never_named() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let unit = turn(&mut desk, &large(1));
    let mut prepared = Prepared::new(unit.clone()).unwrap();
    let bodies = store.put_bodies(prepared.snapshots_mut()).await.unwrap();
    store.drop_bodies(bodies).await;
    let outcome = store.write(move |tx| boundary::commit(tx, &prepared)).await.unwrap();
    let busy = UnitOutcome { committed: 0, failure: Some(UnitFailure::Store(StoreError::Busy)) };
    assert_eq!(outcome, busy);
    assert_eq!(store.agent(&desk.owner.agent).await.unwrap().unwrap().revision.0, 0);
    assert_eq!(store.commit_turns(unit.clone()).await, done(1));
    assert_eq!(state(&store, &desk.owner.agent).await, large(1));
    // The same once more: known, and its pieces are not kept twice.
    assert_eq!(store.commit_turns(unit).await, done(1));
    assert_eq!(state(&store, &desk.owner.agent).await, large(1));
}

#[tokio::test]
async fn damaged_and_missing_pieces_are_refused_and_a_checkpoint_mends_them() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let unit = turn(&mut desk, &large(1));
    let Some(Step::Boundary(boundary)) = unit.steps.first() else { panic!("a turn is a boundary") };
    let snapshot = boundary.snapshot.clone().unwrap();
    assert_eq!(store.commit_turns(unit).await, done(1));
    let agent = desk.owner.agent.clone();
    let checkpoint =
        Unit { owner: desk.owner.clone(), base: desk.revision, steps: vec![Step::Checkpoint(snapshot)] };

    flip(&place, "snapshot_piece", "bytes", "position = 1", 77);
    assert!(is_corrupt(store.image(&agent, None).await, "snapshot of agent a"));
    assert_eq!(store.commit_turns(checkpoint.clone()).await, done(1));
    assert_eq!(state(&store, &agent).await, large(1));

    place.intruder().execute("DELETE FROM snapshot_piece WHERE position = 1", []).unwrap();
    assert!(is_corrupt(store.image(&agent, None).await, "piece 1"));
    assert_eq!(store.commit_turns(checkpoint).await, done(1));
    assert_eq!(state(&store, &agent).await, large(1));
}

#[tokio::test]
async fn a_copy_takes_large_states_in_pieces_too() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"ask", &large(1)).await;
    let agent = desk.owner.agent.clone();
    let frames: Vec<RowFrame> = store.export_rows(&agent, 0, usize::MAX).await.unwrap();

    let other = Place::new();
    let target = other.open(SqliteMode::Exclusive);
    let migration = MigrationId([9; 16]);
    for _ in 0..3 {
        target.receive_rows(migration, &agent, frames.clone()).await.unwrap();
    }
    assert_eq!(count(&other, "snapshot_body WHERE state = 1"), 1, "what came again is not needed");
    target.discard_copy(migration).await.unwrap();
    assert_eq!(count(&other, "snapshot_body WHERE state <> 2"), 0);
    let inputs =
        store.inputs(&agent, Some(InputState::Consumed), godwit_core::store::Page { after: 0, limit: 9 });
    assert_eq!(inputs.await.unwrap().len(), 1);
}
