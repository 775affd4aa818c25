//! How many statements a turn is: what a commit does beside its fsync. Each has a reason, or it is not there.

use std::sync::{Mutex, PoisonError};

use godwit_core::limits::Quotas;
use godwit_core::store::{RuntimeStore, Step, UnitFailure};
use rusqlite::trace::TraceEvent;

use super::fixture::{Desk, Place, done, message};
use crate::sqlite::{SqliteMode, SqliteStore, WriteEnv};

/// SQLite's hook carries no pointer; only the tests here set it, one at a time.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(_, sql) = event {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(sql);
    }
}

#[tokio::test]
async fn an_ask_is_five_statements_beside_its_transaction() {
    let _alone = ONE_AT_A_TIME.lock().await;
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
        // Accepted and ended at once.
        "INSERT INTO input ",
        "INSERT INTO snapshot ",
        "INSERT INTO receipt ",
        // All counters, once per unit.
        "UPDATE agent ",
        "COMMIT",
    ];
    assert_eq!(seen.len(), expected.len(), "{seen:#?}");
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(seen.starts_with(expected), "{seen} instead of {expected}");
    }
}

/// Commits an ask and answers how often each of these statements ran.
async fn counted(store: &SqliteStore, desk: &mut Desk) -> [usize; 2] {
    store.trace_writes(Some(note));
    desk.asked(store, b"ask", b"state").await;
    store.trace_writes(None);
    count()
}

/// Savepoints and rollbacks seen.
fn count() -> [usize; 2] {
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    ["SAVEPOINT", "ROLLBACK"].map(|begin| seen.iter().filter(|sql| sql.starts_with(begin)).count())
}

#[tokio::test]
async fn savepoints_are_made_where_a_step_has_failed_that_had_written() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let place = Place::new();
    let quotas = Quotas { state_keys_max: 1, ..Quotas::default() };
    let store =
        SqliteStore::open_in(&place.path(), WriteEnv { quotas, ..place.env(SqliteMode::Exclusive) }).unwrap();
    let mut desk = Desk::new(&store, "a").await;
    assert_eq!(counted(&store, &mut desk).await, [0, 0]);

    // Accepted, a turn that writes one key too many, and so on one that does not follow.
    let before = (desk.revision, desk.head);
    let input = message(&desk.owner.agent, b"too much");
    let id = input.input.id;
    let mut unit = desk.ask(input, b"state");
    let Some(Step::Boundary(boundary)) = unit.steps.last_mut() else { panic!("an ask ends with a boundary") };
    boundary.state = ["k", "l"].map(|key| (key.to_owned(), Some(b"v".as_slice().into()))).into();
    store.trace_writes(Some(note));
    let outcome = store.commit_turns(unit).await;
    store.trace_writes(None);
    assert!(matches!(outcome.failure, Some(UnitFailure::Quota { .. })), "{outcome:?}");
    assert_eq!(outcome.committed, 1);
    // All of it once without and, rolled back, once with a savepoint, which was rolled back to.
    assert_eq!(count(), [1, 2]);
    let stored = store.input(&desk.owner.agent, id).await.unwrap().unwrap();
    assert!(stored.state.is_open());
    assert_eq!(store.state_keys(&desk.owner.agent, "", None, 10).await, Ok(Vec::new()));

    (desk.revision, desk.head) = before;
    let mut careful = 0;
    while counted(&store, &mut desk).await == [1, 0] {
        careful += 1;
    }
    assert_eq!(careful, crate::sqlite::writer::CAREFUL_GROUPS);
    assert_eq!(counted(&store, &mut desk).await, [0, 0]);
}
