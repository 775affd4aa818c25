//! How many statements a turn is: what a commit does beside its fsync. Each has a reason, or it is not there.

use std::sync::{Mutex, PoisonError};

use godwit_core::store::RuntimeStore;
use rusqlite::trace::TraceEvent;

use super::fixture::{Desk, Place, done, message};
use crate::sqlite::SqliteMode;

/// SQLite's hook carries no pointer; only the one test here sets it.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(_, sql) = event {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(sql);
    }
}

#[tokio::test]
async fn an_ask_is_eight_statements_beside_its_transaction() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"first", b"state").await;
    let mut input = message(&desk.owner.agent, b"second");
    input.idempotency_key = None;
    let unit = desk.ask(input, b"state");
    store.trace_writes(Some(note));
    assert_eq!(store.commit_turns(unit).await, done(2));
    store.trace_writes(None);
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    let expected = [
        "BEGIN IMMEDIATE",
        // The fence: who owns the agent, where its history ends, and its counters.
        "SELECT a.key, a.home,",
        // Whether the input is here already.
        "SELECT i.seq",
        // What a failure of the boundary would undo, without the acceptance or the units of other agents.
        "SAVEPOINT step",
        // Accepted and ended at once.
        "INSERT INTO input ",
        "INSERT INTO snapshot ",
        "INSERT INTO receipt ",
        "RELEASE step",
        // All counters, once per unit.
        "UPDATE agent ",
        "COMMIT",
    ];
    assert_eq!(seen.len(), expected.len(), "{seen:#?}");
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(seen.starts_with(expected), "{seen} instead of {expected}");
    }
}
