//! Who may open a file, and what becomes of files that are not ours.

use std::os::unix::fs::PermissionsExt;

use godwit_core::limits::Quotas;
use godwit_core::store::{RuntimeStore, StoreDocuments, StoreError};

use super::fixture::{Desk, Place};
use crate::sqlite::lock::beside;
use crate::sqlite::{OpenError, SealKey, SqliteMode, SqliteStore, UrlError, parse_url};

fn open_error(place: &Place, mode: SqliteMode) -> OpenError {
    SqliteStore::open(&place.path(), mode, place.clock.clone()).unwrap_err()
}

#[test]
fn urls_name_a_path_and_a_mode() {
    let refused = |url: &str| Err(UrlError { url: url.to_owned() });
    for (url, expected) in [
        ("sqlite:a/b.db", Ok(("a/b.db".into(), SqliteMode::Exclusive))),
        ("sqlite:/a.db?shared", Ok(("/a.db".into(), SqliteMode::Shared))),
        ("sqlite:", refused("sqlite:")),
        ("sqlite:?shared", refused("sqlite:?shared")),
        ("sqlite:a.db?cache=shared", refused("sqlite:a.db?cache=shared")),
        ("postgres://a", refused("postgres://a")),
    ] {
        assert_eq!(parse_url(url), expected);
    }
}

#[tokio::test]
async fn an_exclusive_store_is_opened_once_and_the_refusal_names_the_process() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let error = open_error(&place, SqliteMode::Exclusive);
    let own = std::process::id();
    assert!(matches!(&error, OpenError::Locked { pids, .. } if *pids == [own]), "{error}");
    assert!(error.to_string().contains(&format!("process {own}")), "{error}");
    let error = SqliteStore::open_read_only(&place.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    store.close().await;
    place.open(SqliteMode::Exclusive);
}

#[tokio::test]
async fn a_closed_store_answers_closed_and_keeps_its_id() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let id = store.id();
    store.close().await;
    assert!(matches!(store.probe().await, Err(StoreError::Closed { .. })));
    assert!(matches!(store.plugins().await, Err(StoreError::Closed { .. })));
    assert!(!beside(&place.path(), "-wal").exists(), "the last one to close leaves no log");
    assert_eq!(place.open(SqliteMode::Exclusive).id(), id);
}

#[test]
fn files_are_their_owners_alone() {
    let place = Place::new();
    let _store = place.open(SqliteMode::Exclusive);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = beside(&place.path(), suffix);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn files_of_others_are_refused_and_left_as_they_are() {
    let place = Place::new();
    let text = vec![b'x'; 8_192];
    std::fs::write(place.path(), &text).unwrap();
    assert!(matches!(open_error(&place, SqliteMode::Exclusive), OpenError::NotAStore { .. }));
    assert_eq!(std::fs::read(place.path()).unwrap(), text);

    let place = Place::new();
    place.intruder().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = std::fs::read(place.path()).unwrap();
    assert!(matches!(open_error(&place, SqliteMode::Exclusive), OpenError::NotAStore { .. }));
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::new();
    drop(place.open(SqliteMode::Exclusive));
    place.intruder().pragma_update(None, "user_version", 7).unwrap();
    for mode in [SqliteMode::Exclusive, SqliteMode::Shared] {
        let error = open_error(&place, mode);
        assert!(matches!(error, OpenError::NewerSchema { found: 7, known: 1, .. }), "{error}");
    }
    let error = SqliteStore::open_read_only(&place.path()).unwrap_err();
    assert!(matches!(error, OpenError::NewerSchema { .. }), "{error}");
}

/// All files of a store with their contents.
fn files(place: &Place) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(place.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn reading_offline_changes_no_byte() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let input = desk.asked(&store, b"ask", b"state").await;

    // As a killed process leaves it: file, log, and nobody.
    let killed = Place::new();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        std::fs::copy(beside(&place.path(), suffix), beside(&killed.path(), suffix)).unwrap();
    }
    store.close().await;
    for place in [place, killed] {
        let before = files(&place);
        let reader = SqliteStore::open_read_only(&place.path()).unwrap();
        assert!(reader.input(&desk.owner.agent, input).await.unwrap().is_some());
        let image = reader.image(&desk.owner.agent, None).await.unwrap().unwrap();
        assert_eq!(image.check(), Ok(()));
        assert!(matches!(reader.probe().await, Err(StoreError::Unsupported { .. })));
        drop(reader);
        assert_eq!(files(&place), before);
        // And it can be opened afterwards.
        let store = place.open(SqliteMode::Exclusive);
        assert!(store.input(&desk.owner.agent, input).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_backup_beside_the_log_of_another_file_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let kept = desk.asked(&store, b"ask", b"state").await;
    let saved = place.directory.path().join("saved.db");
    store.backup(&saved).await.unwrap();
    let lost = desk.asked(&store, b"ask", b"state").await;

    // The host is killed, and of its files only the database is replaced.
    let (backup, own_log) = (Place::new(), Place::new());
    std::fs::copy(&saved, backup.path()).unwrap();
    for suffix in ["-wal", "-shm"] {
        std::fs::copy(beside(&place.path(), suffix), beside(&backup.path(), suffix)).unwrap();
    }
    store.close().await;
    let (log, shm) = (beside(&backup.path(), "-wal"), beside(&backup.path(), "-shm"));
    let before = (std::fs::read(backup.path()).unwrap(), std::fs::read(&log).unwrap());
    let reading = SqliteStore::open_read_only(&backup.path()).unwrap_err();
    for error in
        [reading, open_error(&backup, SqliteMode::Exclusive), open_error(&backup, SqliteMode::Shared)]
    {
        assert!(matches!(&error, OpenError::ForeignLog { log: named, .. } if *named == log), "{error}");
    }
    assert_eq!((std::fs::read(backup.path()).unwrap(), std::fs::read(&log).unwrap()), before);

    std::fs::remove_file(&log).unwrap();
    std::fs::remove_file(&shm).unwrap();
    let reader = SqliteStore::open_read_only(&backup.path()).unwrap();
    assert!(reader.input(&desk.owner.agent, kept).await.unwrap().is_some());
    drop(reader);
    let store = backup.open(SqliteMode::Exclusive);
    assert!(store.input(&desk.owner.agent, kept).await.unwrap().is_some());
    assert_eq!(store.input(&desk.owner.agent, lost).await, Ok(None));
    assert!(store.is_backup().await.unwrap(), "it still has to be restored");

    // From now on its log is its own.
    store.restore(store.mark().await.unwrap()).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::copy(beside(&backup.path(), suffix), beside(&own_log.path(), suffix)).unwrap();
    }
    store.close().await;
    let store = own_log.open(SqliteMode::Exclusive);
    assert!(!store.is_backup().await.unwrap(), "its log was read");
}

#[tokio::test]
async fn secrets_are_sealed_and_open_under_their_own_key_only() {
    let place = Place::new();
    let open = |number: u8| {
        let (clock, key) = (place.clock.clone(), SealKey::new([number; 32]));
        SqliteStore::open_sealing(&place.path(), SqliteMode::Exclusive, clock, key, Quotas::default())
            .unwrap()
    };
    let store = open(1);
    store.persist_auth_flow("a secret that must not be read".into()).await.unwrap();
    store.close().await;
    let bytes = std::fs::read(place.path()).unwrap();
    assert!(!bytes.windows(8).any(|window| window == b"a secret"));
    let store = open(2);
    let refused = store.load_auth_flow().await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    store.close().await;
    let store = SqliteStore::open(&place.path(), SqliteMode::Exclusive, place.clock.clone()).unwrap();
    let refused = store.load_auth_flow().await;
    assert!(matches!(refused, Err(StoreError::Unsupported { .. })), "{refused:?}");
    assert_eq!(store.auth_authority_key(), None);
}
