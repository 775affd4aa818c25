//! Groups of one transaction, and what an error does to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use godwit_core::store::{AcceptError, RuntimeStore, StoreError, UnitFailure};

use super::fixture::{Desk, Place, create, done, join, message};
use crate::sqlite::checkpoint::LOG_BYTES_MAX;
use crate::sqlite::writer::Work;
use crate::sqlite::{SqliteMode, SqliteStore};

/// Limits the file to its size plus some pages, as a full disk would.
async fn limit_pages(store: &SqliteStore, spare: Option<i64>) {
    let limited = store.write(move |tx| {
        let pages: i64 = tx.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let limit = spare.map_or(i64::from(u32::MAX - 1), |spare| pages + spare);
        tx.conn.pragma_update_and_check(None, "max_page_count", limit, |row| row.get::<_, i64>(0))?;
        Ok(())
    });
    limited.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_share_transactions() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let mut units = Vec::new();
    for number in 0..200 {
        let agent = create(&store, &format!("a{number}")).await;
        let mut desk = Desk::take(&store, incarnation, &agent).await;
        units.push(desk.ask(message(&agent, b"ask"), b"state"));
    }
    rested(&store).await;
    let before = store.commits();
    let others_write = store.shared.idle_writer().expect("nobody writes");
    let mut waiting = join_all(units.into_iter().map(|unit| store.commit_turns(unit)));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(others_write);
    assert!(waiting.await.iter().all(|outcome| *outcome == done(2)));
    let commits = store.commits() - before;
    assert!(commits < 50, "200 units took {commits} transactions");
}

#[tokio::test]
async fn much_to_write_is_several_transactions() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let agent = create(&store, "a").await;
    for (bytes, groups) in [(400 << 10, 5..=7), (100, 1..=2)] {
        rested(&store).await;
        let before = store.commits();
        let others_write = store.shared.idle_writer().expect("nobody writes");
        let mut waiting =
            join_all((0..50).map(|_| store.accept(message(&agent, &vec![7; bytes]), incarnation)));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(others_write);
        assert!(waiting.await.iter().all(Result::is_ok));
        let commits = store.commits() - before;
        assert!(groups.contains(&commits), "50 inputs of {bytes} bytes took {commits} transactions");
    }
}

#[tokio::test]
async fn a_refused_write_does_not_disturb_its_group() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let agent = create(&store, "a").await;
    let good = message(&agent, b"one");
    let mut reused = message(&agent, b"two");
    reused.idempotency_key = good.idempotency_key.clone();
    let unknown = message(&godwit_core::id::AgentId::parse("b").unwrap(), b"three");
    let last = message(&agent, b"four");
    let answers = join_all([good, reused, unknown, last].map(|input| store.accept(input, incarnation))).await;
    let seqs: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(seqs, [true, false, false, true], "{answers:?}");
    assert_eq!(store.agent(&agent).await.unwrap().unwrap().open_inputs, 2);
}

#[tokio::test]
async fn a_full_disk_is_full_and_passes() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"before", b"state").await;
    limit_pages(&store, Some(2)).await;

    let large = vec![7_u8; 200_000];
    let (revision, head, seq) = (desk.revision, desk.head, desk.next_seq);
    let unit = desk.ask(message(&desk.owner.agent, &large), b"state");
    let outcome = store.commit_turns(unit).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Store(StoreError::Full)));
    assert_eq!(outcome.committed, 0);
    (desk.revision, desk.head, desk.next_seq) = (revision, head, seq);
    // A small write in the same group as a large one still fits.
    let agent = desk.owner.agent.clone();
    let incarnation = desk.owner.incarnation;
    let (large, small) = tokio::join!(
        store.accept(message(&agent, &large), incarnation),
        store.accept(message(&agent, b"small"), incarnation),
    );
    assert_eq!(large, Err(StoreError::Full.into()));
    assert!(small.is_ok(), "{small:?}");
    assert_eq!(store.fatal().borrow().clone(), None);

    limit_pages(&store, None).await;
    let row = store.agent(&agent).await.unwrap().unwrap();
    assert_eq!((row.revision, row.head, row.open_inputs), (revision, head, 1));
    desk.next_seq = row.next_seq;
    desk.asked(&store, b"after", b"state").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_write_is_seen_by_the_next_read() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let agent = create(&store, "a").await;
    let accepting = (0..100).map(|_| {
        let store = Arc::clone(&store);
        let agent = agent.clone();
        async move {
            let input = message(&agent, b"x");
            let id = input.input.id;
            store.accept(input, incarnation).await.unwrap();
            assert!(store.input(&agent, id).await.unwrap().is_some());
        }
    });
    join_all(accepting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_bounded_while_commits_go_on() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let agent = create(&store, "a").await;
    // An inbox has a bound of its own.
    let mut agents = vec![agent.clone()];
    for name in ["b", "c", "d", "e", "f", "g", "h"] {
        agents.push(create(&store, name).await);
    }
    let payload = vec![9_u8; 400_000];
    let mut highest = 0;
    // 480 MB in all, while a reader comes and goes.
    for _ in 0..150 {
        let answers =
            join_all(agents.iter().map(|agent| store.accept(message(agent, &payload), incarnation))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert!(store.agent(&agent).await.unwrap().is_some());
        let log = crate::sqlite::lock::beside(&place.path(), "-wal");
        highest = std::fs::metadata(log).unwrap().len().max(highest);
    }
    assert!(highest < LOG_BYTES_MAX, "the log grew to {highest} bytes");
}

/// Waits until the writer thread, which answers first, has put its last group behind it.
async fn rested(store: &SqliteStore) {
    let begun = Instant::now();
    while store.shared.idle_writer().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the writer does not rest");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lone_caller_commits_by_itself_and_nobody_else_does() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let lone = desk.ask(message(&desk.owner.agent, b"one"), b"state");
    rested(&store).await;
    assert_eq!(store.commit_turns_here(lone), Ok(done(2)));

    let unit = desk.ask(message(&desk.owner.agent, b"two"), b"state");
    let others_write = store.shared.idle_writer().expect("nobody writes");
    assert_eq!(store.commit_turns_here(unit.clone()), Err(unit.clone()));
    drop(others_write);
    assert_eq!(store.commit_turns_here(unit), Ok(done(2)));

    let late = desk.ask(message(&desk.owner.agent, b"three"), b"state");
    store.close().await;
    assert_eq!(store.commit_turns_here(late.clone()), Err(late));

    let place = Place::new();
    let store = place.open(SqliteMode::Shared);
    let mut desk = Desk::new(&store, "a").await;
    let unit = desk.ask(message(&desk.owner.agent, b"one"), b"state");
    assert_eq!(store.commit_turns_here(unit.clone()), Err(unit));
}

#[tokio::test]
async fn a_write_that_panics_on_its_caller_s_thread_ends_the_store() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let desk = Desk::new(&store, "a").await;
    let (job, answer) = Work::<_, ()>::boxed(|_| panic!("planned"), true);
    rested(&store).await;
    store.shared.idle_writer().expect("nobody writes").run(job);
    assert!(answer.await.is_err(), "the job was dropped");
    assert!(store.fatal().borrow().is_some());
    let refused = store.accept(message(&desk.owner.agent, b"late"), desk.owner.incarnation).await;
    assert!(matches!(refused, Err(AcceptError::Store(StoreError::Closed { .. }))), "{refused:?}");
}
