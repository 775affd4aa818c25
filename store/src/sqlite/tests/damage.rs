//! Damaged bytes are refused and named, never served.

use godwit_core::store::{Page, RuntimeStore, StoreError};

use super::fixture::{Desk, Place, done, message, plugin};
use crate::sqlite::{SqliteMode, SqliteStore};

/// Flips a bit in a blob column of the only row that a condition leaves.
fn flip(place: &Place, table: &str, column: &str, condition: &str, offset: usize) {
    let conn = place.intruder();
    let select = format!("SELECT {column} FROM {table} WHERE {condition}");
    let mut bytes: Vec<u8> = conn.query_row(&select, [], |row| row.get(0)).unwrap();
    let offset = offset % bytes.len();
    bytes[offset] ^= 1;
    let update = format!("UPDATE {table} SET {column} = ?1 WHERE {condition}");
    assert_eq!(conn.execute(&update, [bytes]).unwrap(), 1);
}

fn is_corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>, named: &str) -> bool {
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
async fn flipped_bits_of_a_component_an_input_and_a_spec_are_found() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let small = desk.asked(&store, b"ask", b"state").await;
    let large = desk.asked(&store, &[1; 2_000], b"state").await;
    let agent = desk.owner.agent;

    flip(&place, "component", "bytes", "true", 3);
    let digest = plugin().0.digest;
    assert!(is_corrupt(store.component(digest).await, &digest.to_string()));

    flip(&place, "input", "body", "seq = 1", 30);
    assert!(is_corrupt(store.input(&agent, small).await, "input 1 of agent a"));
    assert!(is_corrupt(store.inputs(&agent, None, ALL).await, "input 1 of agent a"));
    flip(&place, "input_body", "body", "seq = 2", 999);
    assert!(is_corrupt(store.input(&agent, large).await, "input 2 of agent a"));
    flip(&place, "input_body", "body", "seq = 2", 999);
    flip(&place, "input", "outcome_sealed", "seq = 2", 12);
    assert!(is_corrupt(store.input(&agent, large).await, "input 2 of agent a"));

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
