//! Several processes on one file, played by several stores: sessions expire by the store's clock, and only then.

use std::time::Duration;

use godwit_core::store::{RuntimeStore, StoreError, UnitFailure};

use super::fixture::{Desk, Place, TTL, create, join, message};
use crate::sqlite::{OpenError, SqliteMode, SqliteStore};

#[tokio::test]
async fn a_second_store_takes_over_after_expiry_and_the_first_is_fenced() {
    let place = Place::new();
    let first = place.open(SqliteMode::Shared);
    let second = place.open(SqliteMode::Shared);
    assert_eq!(first.id(), second.id());
    let stale = join(&first, 1).await;
    let taker = join(&second, 2).await;
    let agent = create(&first, "a").await;
    let mut desk = Desk::take(&first, stale, &agent).await;
    desk.asked(&first, b"one", b"state").await;

    place.clock.advance(TTL - Duration::from_millis(1));
    second.heartbeat(taker).await.unwrap();
    assert_eq!(second.bury_expired().await, Ok(vec![]));
    let refused = second.acquire(taker, std::slice::from_ref(&agent)).await.unwrap().remove(0);
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");

    place.clock.advance(Duration::from_millis(1));
    assert_eq!(second.bury_expired().await, Ok(vec![stale]));
    let mut successor = Desk::take(&second, taker, &agent).await;
    assert!(successor.owner.token > desk.owner.token);

    let late = desk.ask(message(&agent, b"late"), b"state");
    let outcome = first.commit_turns(late).await;
    assert!(matches!(outcome.failure, Some(UnitFailure::Store(StoreError::Fenced { .. }))), "{outcome:?}");
    assert_eq!(first.heartbeat(stale).await, Err(StoreError::SessionDead { incarnation: stale }));
    successor.asked(&second, b"two", b"state").await;
}

#[tokio::test]
async fn a_session_of_another_boot_has_expired() {
    let place = Place::new();
    let open = |boot: &str| {
        let mut env = place.env(SqliteMode::Shared);
        env.boot = boot.to_owned();
        SqliteStore::open_in(&place.path(), env).unwrap()
    };
    let before = open("before");
    let incarnation = join(&before, 1).await;
    let after = open("after");
    let remaining = after.sessions().await.unwrap()[0].remaining;
    assert_eq!(remaining, Some(Duration::ZERO));
    assert_eq!(after.bury_expired().await, Ok(vec![incarnation]));
}

#[tokio::test]
async fn an_exclusive_session_does_not_outlive_its_lock() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let exclusive = join(&store, 1).await;
    store.close().await;
    let shared = place.open(SqliteMode::Shared);
    join(&shared, 2).await;
    assert_eq!(shared.heartbeat(exclusive).await, Err(StoreError::SessionDead { incarnation: exclusive }));
}

#[tokio::test]
async fn shared_and_exclusive_keep_each_other_out() {
    let place = Place::new();
    let shared = place.open(SqliteMode::Shared);
    let refused = SqliteStore::open(&place.path(), SqliteMode::Exclusive, place.clock.clone());
    assert!(matches!(refused, Err(OpenError::Locked { .. })), "{refused:?}");
    // Readers beside sharers are welcome.
    let reader = SqliteStore::open_read_only(&place.path()).unwrap();
    assert_eq!(reader.id(), shared.id());
    drop(reader);
    drop(shared);
    place.open(SqliteMode::Exclusive);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_interleave() {
    let place = Place::new();
    let stores = [place.open(SqliteMode::Shared), place.open(SqliteMode::Shared)];
    let agent = create(&stores[0], "a").await;
    let accept = |store: std::sync::Arc<SqliteStore>| {
        let agent = agent.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                store.accept(message(&agent, b"x"), godwit_core::id::Incarnation(0)).await.unwrap();
            }
        })
    };
    let tasks = stores.each_ref().map(|store| accept(store.clone()));
    for task in tasks {
        task.await.unwrap();
    }
    let row = stores[1].agent(&agent).await.unwrap().unwrap();
    assert_eq!((row.next_seq.0, row.open_inputs), (201, 200));
}

#[tokio::test]
async fn a_probe_names_the_stopped_process_that_may_hold_the_write_lock() {
    let place = Place::new();
    let store = place.open(SqliteMode::Shared);
    let holder = rusqlite::Connection::open(place.path()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let lock = place.path().with_file_name("store.db.lock");
    let mut signers = std::fs::OpenOptions::new().append(true).open(lock).unwrap();
    std::io::Write::write_all(&mut signers, format!("{}\n", child.id()).as_bytes()).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let refused = store.probe().await;
    child.kill().unwrap();
    child.wait().unwrap();
    holder.execute_batch("ROLLBACK").unwrap();
    let Err(StoreError::Closed { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains(&format!("[{}]", pid.as_raw_nonzero())), "{reason}");
    assert_eq!(store.probe().await, Ok(()));
}
