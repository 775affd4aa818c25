//! How many statements a turn is: what a commit does beside its fsync. Each has a reason, or it is not there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use godwit_core::limits::Quotas;
use godwit_core::store::{Accepted, RuntimeStore, Step, UnitFailure};
use rusqlite::trace::TraceEvent;
use rusqlite::{StatementStatus, params};

use super::fixture::{Desk, Place, done, message};
use crate::sqlite::inputs::OPEN;
use crate::sqlite::sql::all;
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
async fn an_ask_is_four_statements_beside_its_transaction() {
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
        // Only in builds for tests: the row that is kept, and fences the unit, is compared with the stored one.
        "SELECT a.key, a.home,",
        // Accepted and ended at once.
        "INSERT INTO input ",
        "INSERT INTO receipt ",
        // Once per unit: that of its last turn.
        "INSERT INTO snapshot ",
        // All counters, once per unit.
        "UPDATE agent ",
        "COMMIT",
    ];
    assert_eq!(seen.len(), expected.len(), "{seen:#?}");
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(seen.starts_with(expected), "{seen} instead of {expected}");
    }
}

/// Runs `write` and answers how often each statement ran, by its first three words.
async fn counted_all(store: &SqliteStore, write: impl Future) -> BTreeMap<String, usize> {
    store.trace_writes(Some(note));
    write.await;
    store.trace_writes(None);
    let mut counts = BTreeMap::new();
    for sql in std::mem::take(&mut *SEEN.lock().unwrap()) {
        let words: Vec<_> = sql.split(' ').take(3).collect();
        *counts.entry(words.join(" ")).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn inputs_of_one_agent_that_share_a_commit_share_its_row() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"first", b"state").await;
    let (agent, by) = (desk.owner.agent.clone(), desk.owner.incarnation);
    let counts = counted_all(&store, async {
        let others_write = store.shared.idle_writer().expect("nobody writes");
        let mut waiting = join_all((0..10).map(|_| store.accept(message(&agent, b"sent"), by)));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(others_write);
        assert!(waiting.await.iter().all(Result::is_ok));
    })
    .await;
    let (inputs, rows, commits) = (counts["INSERT INTO input"], counts["UPDATE agent SET"], counts["COMMIT"]);
    assert!(inputs == 10 && rows == commits && commits <= 2, "{counts:?}");
    let row = store.agent(&agent).await.unwrap().unwrap();
    assert_eq!((row.open_inputs, row.waking_inputs), (10, 10));
}

#[tokio::test]
async fn of_the_snapshots_of_a_chain_the_last_one_is_written() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let mut unit = desk.ask(message(&desk.owner.agent, b"ask"), b"state 1");
    for state in [b"state 2", b"state 3"] {
        unit.steps.extend(desk.ask(message(&desk.owner.agent, b"ask"), state).steps);
    }
    let counts = counted_all(&store, async { assert_eq!(store.commit_turns(unit).await, done(6)) }).await;
    assert_eq!((counts["INSERT INTO snapshot"], counts["INSERT INTO receipt"]), (1, 3), "{counts:?}");
    let image = store.image(&desk.owner.agent, None).await.unwrap().unwrap();
    assert_eq!(image.snapshot.map(|snapshot| snapshot.state), Some(b"state 3".as_slice().into()));
}

#[tokio::test]
async fn no_lock_is_around_the_pages_and_allocations_of_all_connections() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let options =
        store.read(|conn| all(conn, "PRAGMA compile_options", [], |row| Ok(row.get::<_, String>(0)?)));
    let options = options.await.unwrap();
    assert!(
        options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"),
        "see .cargo/config.toml: {options:?}"
    );
    assert!(!options.iter().any(|option| option == "ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
}

#[tokio::test]
async fn a_repeated_input_makes_its_group_look_and_no_savepoints() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let desk = Desk::new(&store, "a").await;
    let (agent, by) = (desk.owner.agent.clone(), desk.owner.incarnation);
    let sent = message(&agent, b"sent");
    assert!(matches!(store.accept(sent.clone(), by).await, Ok(Accepted::New { .. })));
    store.trace_writes(Some(note));
    let repeated = store.accept(sent.clone(), by).await;
    store.trace_writes(None);
    assert!(matches!(repeated, Ok(Accepted::Duplicate(_))), "{repeated:?}");
    assert_eq!(count(), [0, 1]);
    // Repetitions come together: the next one is looked for at once.
    store.trace_writes(Some(note));
    let repeated = store.accept(sent, by).await;
    store.trace_writes(None);
    assert!(matches!(repeated, Ok(Accepted::Duplicate(_))), "{repeated:?}");
    assert_eq!(count(), [0, 0]);
}

#[tokio::test]
async fn another_limit_does_not_prepare_a_statement_again() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let prepared = store.read(|conn| {
        let mut statement = conn.prepare_cached(OPEN)?;
        for limit in 1..=5 {
            statement.query(params![1, 0, limit])?.next()?;
        }
        Ok(statement.get_status(StatementStatus::RePrepare))
    });
    assert_eq!(prepared.await, Ok(0));
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
