//! Damaged bytes are refused and named, never served.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::Revision;
use godwit_core::input::{Outcome, ReplyOutcome};
use godwit_core::journal::JournalEntry;
use godwit_core::lifecycle::Verb;
use godwit_core::receipt::BoundaryKind;
use godwit_core::snapshot::Snapshot;
use godwit_core::store::{
    BrokenReason, Lifecycle, LifecycleCommit, Page, Repair, RuntimeStore, Step, StoreError, Unit,
};

use super::fixture::{Desk, Place, done, message, plugin};
use crate::sqlite::{SqliteMode, SqliteStore};

/// Flips a bit in a blob column of the only row that a condition leaves.
pub(super) fn flip(place: &Place, table: &str, column: &str, condition: &str, offset: usize) {
    let conn = place.intruder();
    let select = format!("SELECT {column} FROM {table} WHERE {condition}");
    let mut bytes: Vec<u8> = conn.query_row(&select, [], |row| row.get(0)).unwrap();
    let offset = offset % bytes.len();
    bytes[offset] ^= 1;
    let update = format!("UPDATE {table} SET {column} = ?1 WHERE {condition}");
    assert_eq!(conn.execute(&update, [bytes]).unwrap(), 1);
}

pub(super) fn is_corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>, named: &str) -> bool {
    matches!(&result, Err(StoreError::Corrupt { what }) if what.contains(named))
}

const ALL: Page = Page { after: 0, limit: 100 };

#[tokio::test]
async fn any_flipped_bit_of_a_receipt_is_found() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    for _ in 0..3 {
        desk.asked(&store, b"ask", b"state").await;
    }
    let owner = desk.owner;
    for (column, offset) in [("body", 0), ("body", 77), ("body", 150), ("digest", 5)] {
        flip(&place, "receipt", column, "revision = 3", offset);
        assert!(is_corrupt(store.image(&owner.agent, None).await, "receipt 3 of agent a"));
        flip(&place, "receipt", column, "revision = 3", offset);
        flip(&place, "receipt", column, "revision = 1", offset);
        // The image needs only what follows the snapshot; the chain is checked as a whole elsewhere.
        assert!(store.image(&owner.agent, None).await.is_ok());
        let receipts = store.receipts(&owner.agent, owner.generation, godwit_core::id::Revision(0), 10);
        assert!(is_corrupt(receipts.await, "receipt 1 of agent a"));
        flip(&place, "receipt", column, "revision = 1", offset);
    }
    assert!(store.image(&owner.agent, None).await.is_ok());
}

#[tokio::test]
async fn any_flipped_bit_of_a_snapshot_is_found() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    for state in [b"short".to_vec(), b"long ".repeat(1_000)] {
        desk.asked(&store, b"ask", &state).await;
        let image = store.image(&desk.owner.agent, None).await.unwrap().unwrap();
        assert_eq!(image.snapshot.unwrap().state, state);
        for (column, offset) in [("state", 0), ("state", 3), ("state", 1_001), ("digest", 9)] {
            flip(&place, "snapshot", column, "true", offset);
            assert!(is_corrupt(store.image(&desk.owner.agent, None).await, "snapshot of agent a"));
            flip(&place, "snapshot", column, "true", offset);
        }
        let conn = place.intruder();
        conn.execute("UPDATE snapshot SET plugin_version = '2'", []).unwrap();
        assert!(is_corrupt(store.image(&desk.owner.agent, None).await, "snapshot of agent a"));
        conn.execute("UPDATE snapshot SET plugin_version = '1'", []).unwrap();
        assert!(store.image(&desk.owner.agent, None).await.is_ok());
    }
}

#[tokio::test]
async fn large_states_are_packed() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let state = b"repetition ".repeat(10_000);
    desk.asked(&store, b"ask", &state).await;
    let stored: u32 =
        place.intruder().query_row("SELECT length(state) FROM snapshot", [], |row| row.get(0)).unwrap();
    assert!((stored as usize) < state.len() / 10, "{stored}");
}

#[tokio::test]
async fn a_snapshot_at_hand_is_not_read_and_another_one_is() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"one", b"first").await;
    let agent = desk.owner.agent.clone();
    let first = store.image(&agent, None).await.unwrap().unwrap().snapshot.unwrap();
    let with = async |snapshot: &Snapshot| {
        let image = store.image_with(&agent, snapshot.clone(), snapshot.state_digest()).await;
        image.map(|image| image.unwrap().snapshot.unwrap())
    };
    desk.asked(&store, b"two", b"second").await;
    let newest = store.image(&agent, None).await.unwrap().unwrap().snapshot.unwrap();
    assert_eq!(with(&first).await, Ok(newest.clone()), "an older one is of no use");
    let other = Snapshot { state: Bytes::from_static(b"other"), ..newest.clone() };
    assert_eq!(with(&other).await, Ok(newest.clone()), "nor is another state");

    flip(&place, "snapshot", "state", "true", 3);
    assert_eq!(with(&newest).await, Ok(newest.clone()));
    assert!(is_corrupt(with(&first).await, "revision 2"));
}

#[tokio::test]
async fn flipped_bits_of_a_component_an_input_and_a_spec_are_found() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let small = desk.asked(&store, b"ask", b"state").await;
    let large = desk.asked(&store, &[1; 2_000], b"state").await;
    let agent = desk.owner.agent.clone();

    flip(&place, "component", "bytes", "true", 3);
    let digest = plugin().0.digest;
    assert!(is_corrupt(store.component(digest).await, &digest.to_string()));

    flip(&place, "input", "body", "seq = 1", 30);
    assert!(is_corrupt(store.input(&agent, small).await, "input 1 of agent a"));
    assert!(is_corrupt(store.inputs(&agent, None, ALL).await, "input 1 of agent a"));
    flip(&place, "input_part", "bytes", "seq = 2", 999);
    assert!(is_corrupt(store.input(&agent, large).await, "input 2 of agent a"));
    flip(&place, "input_part", "bytes", "seq = 2", 999);
    flip(&place, "input", "outcome_sealed", "seq = 2", 12);
    assert!(is_corrupt(store.input(&agent, large).await, "input 2 of agent a"));

    let input = message(&agent, b"ask");
    let replied = input.input.id;
    let mut unit = desk.ask(input, b"state");
    let long = ReplyOutcome::Ok(Bytes::from_static(&[2; 2_000]));
    for step in &mut unit.steps {
        let Step::Boundary(boundary) = step else { continue };
        let Outcome::Committed { reply, .. } = &mut boundary.ends[0].outcome else {
            unreachable!("it replies")
        };
        reply.outcome = long.clone();
    }
    assert_eq!(store.commit_turns(unit).await, done(2));
    let stored = store.input(&agent, replied).await.unwrap().unwrap();
    assert!(matches!(stored.outcome, Some(Outcome::Committed { reply, .. }) if reply.outcome == long));
    flip(&place, "input_part", "bytes", "seq = 3 AND part = 1", 999);
    assert!(is_corrupt(store.input(&agent, replied).await, "input 3 of agent a"));
    place.intruder().execute("DELETE FROM input_part WHERE seq = 3 AND part = 1", []).unwrap();
    assert!(is_corrupt(store.input(&agent, replied).await, "input 3 of agent a"));

    flip(&place, "spec", "sealed", "true", 20);
    assert!(is_corrupt(store.image(&agent, None).await, "spec of agent a"));
}

#[tokio::test]
async fn a_row_that_contradicts_itself_is_not_served() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let input = desk.asked(&store, b"ask", b"state").await;
    let conn = place.intruder();
    conn.execute("UPDATE input SET revision = 7", []).unwrap();
    assert!(is_corrupt(store.input(&desk.owner.agent, input).await, "input 1 of agent a"));
    conn.execute("UPDATE agent SET home = 1", []).unwrap();
    assert!(is_corrupt(store.agent(&desk.owner.agent).await, "home of agent a"));
    conn.execute("UPDATE agent SET home = 0, revision = 1 << 62", []).unwrap();
    conn.execute("UPDATE agent SET time_ms = -5", []).unwrap();
    assert!(matches!(store.agent(&desk.owner.agent).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_damaged_page_is_found_in_the_file() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    for _ in 0..50 {
        let unit = desk.ask(message(&desk.owner.agent, &[7; 400]), b"state");
        assert_eq!(store.commit_turns(unit).await, done(2));
    }
    assert_eq!(store.check_file().await, Ok(Vec::new()));
    store.close().await;
    let mut bytes = std::fs::read(place.path()).unwrap();
    let page = bytes.len() - 4096;
    bytes[page..page + 16].fill(0xEE);
    std::fs::write(place.path(), bytes).unwrap();
    let store = SqliteStore::open_read_only(&place.path()).unwrap();
    let found = store.check_file().await.unwrap();
    assert!(!found.is_empty(), "the page is found");
}

/// An agent with snapshots of revisions 1 and 3, the newer one beside, and a tail of one journaled turn behind it.
async fn journaled(store: &SqliteStore) -> Desk {
    let mut desk = Desk::new(store, "a").await;
    desk.asked(store, b"first", b"one").await;
    for state in [None, Some(&b"three"[..]), None] {
        let (input, base) = (message(&desk.owner.agent, b"ask"), desk.revision);
        let (seq, id) = (desk.next_seq, input.input.id);
        desk.next_seq = seq.next();
        let head = desk.head;
        let mut boundary = desk.boundary(&[(seq, id)], state.unwrap_or_default());
        let entry = JournalEntry { attempt: 1, seed: [1; 32], answers: Vec::new() };
        boundary.receipt.journal = Some(entry.digest());
        boundary.journal = Some(entry);
        if state.is_none() {
            (boundary.snapshot, boundary.receipt.state) = (None, None);
        }
        boundary.receipt.parent = head;
        desk.head = boundary.receipt.digest();
        let steps = vec![Step::Accept { input: Box::new(input), seq }, Step::Boundary(Box::new(boundary))];
        let unit = Unit { owner: desk.owner.clone(), base, steps };
        assert_eq!(store.commit_turns(unit).await, done(2));
    }
    desk
}

async fn kept(store: &SqliteStore, desk: &Desk) -> Vec<u64> {
    let kept = store.kept_snapshots(&desk.owner.agent).await.unwrap();
    kept.iter().map(|kept| kept.revision.0).collect()
}

#[tokio::test]
async fn a_damaged_snapshot_is_written_once_more_in_its_place() {
    for column in ["state", "digest"] {
        let place = Place::new();
        let store = place.open(SqliteMode::Exclusive);
        let desk = journaled(&store).await;
        let agent = &desk.owner.agent;
        let newest = store.image(agent, None).await.unwrap().unwrap().snapshot.unwrap();
        assert_eq!((newest.revision, kept(&store, &desk).await), (Revision(3), vec![1, 3]));
        flip(&place, "snapshot_beside", column, "true", 2);
        assert!(is_corrupt(store.image(agent, None).await, "snapshot of agent a"));
        let older = store.image(agent, Some(Revision(1))).await.unwrap().unwrap();
        assert_eq!((older.check(), older.journal.len()), (Ok(()), 3), "the older one leads to the head");
        let steps = vec![Step::Checkpoint(newest.clone())];
        let unit = Unit { owner: desk.owner.clone(), base: desk.revision, steps };
        for _ in 0..2 {
            assert_eq!(store.commit_turns(unit.clone()).await, done(1));
            assert_eq!(kept(&store, &desk).await, [1, 3]);
            let image = store.image(agent, None).await.unwrap().unwrap();
            assert_eq!((image.check(), image.snapshot.as_ref()), (Ok(()), Some(&newest)));
        }
    }
}

#[tokio::test]
async fn a_repair_takes_the_place_of_a_damaged_snapshot_and_leaves_the_sound_one() {
    for is_damaged in [false, true] {
        let place = Place::new();
        let store = place.open(SqliteMode::Exclusive);
        let mut desk = journaled(&store).await;
        if is_damaged {
            flip(&place, "snapshot_beside", "state", "true", 2);
        }
        let broken = Lifecycle::Broken(BrokenReason::Corrupt { what: "a row".into() });
        let plan = |from, verb| LifecycleCommit::plan(&desk.owner.agent, from, verb, 1).unwrap();
        let (down, up) = (
            plan(&Lifecycle::Active, &Verb::Break(BrokenReason::Corrupt { what: "a row".into() })),
            plan(&broken, &Verb::Recover),
        );
        store.commit_lifecycle(&desk.owner, down).await.unwrap();
        let base = desk.revision;
        let mut boundary = desk.boundary(&[], b"accepted");
        boundary.receipt.kind = BoundaryKind::Repair;
        boundary.receipt.from = Some(Digest::ZERO);
        let steps = vec![Step::Repair(Box::new(Repair { boundary, commit: up }))];
        let unit = Unit { owner: desk.owner.clone(), base, steps };
        assert_eq!(store.commit_turns(unit).await, done(1));
        let sound = if is_damaged { 1 } else { 3 };
        assert_eq!(kept(&store, &desk).await, [sound, 5]);
        for at in [sound, 5] {
            let image = store.image(&desk.owner.agent, Some(Revision(at))).await.unwrap().unwrap();
            assert_eq!((image.base(), image.check_chain()), (Revision(at), Ok(())));
        }
    }
}

#[tokio::test]
async fn a_damaged_turn_of_the_journal_is_named_and_the_others_are_read() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let desk = journaled(&store).await;
    let image = async |at| store.image(&desk.owner.agent, Some(Revision(at))).await.unwrap().unwrap();
    for (table, column, row, named) in
        [("journal", "sealed", "revision = 2", "journal entry 2"), ("input", "body", "seq = 2", "input 2")]
    {
        flip(&place, table, column, row, 20);
        let older = image(1).await;
        assert_eq!(older.journal.keys().map(|at| at.0).collect::<Vec<_>>(), [3, 4]);
        assert!(older.check().unwrap_err().contains(named), "{:?}", older.check());
        assert_eq!(older.first_obstacle().unwrap().0.revision, Revision(2));
        assert_eq!((older.check_chain(), image(3).await.check()), (Ok(()), Ok(())));
        flip(&place, table, column, row, 20);
        assert_eq!(image(1).await.check(), Ok(()));
    }
}
