//! Opening while others open: what happens between two locks.

use super::*;

/// Long enough for another opener to come in between.
pub(super) const WHILE_NOBODY_LOCKS: Duration = Duration::from_millis(5);

#[test]
fn a_log_that_another_opener_replaces_is_not_written_to() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("store.db");
    let (opened, is_open) = std::sync::mpsc::sync_channel::<()>(1);
    let other = std::thread::spawn({
        let path = path.clone();
        move || {
            // The first opener is alone from before it makes the log.
            while !beside(&path, "-wal").exists() {}
            let lock = StoreLock::open(&path, true).unwrap().unwrap();
            while !lock.try_exclusive().unwrap() {}
            rewrite_log(&path).unwrap();
            let conn = connect(&path).unwrap();
            lock.release().unwrap();
            is_open.recv().unwrap();
            conn.query_row("SELECT probes FROM meta", [], |row| row.get::<_, u32>(0)).unwrap()
        }
    });
    let first = open(&path, SqliteMode::Shared, [1; 16], None).unwrap();
    first.writer.execute("UPDATE meta SET probes = 7", []).unwrap();
    opened.send(()).unwrap();
    assert_eq!(other.join().unwrap(), 7, "both have one log");
}

/// Opens as one of several while somebody has the file alone, and goes without preparing anything.
fn open_behind_one_that_only_looks(path: &Path) -> Result<Opened, OpenError> {
    let looking = StoreLock::open(path, true)?.unwrap();
    looking.exclusive()?;
    let opener = std::thread::spawn({
        let path = path.to_owned();
        move || open(&path, SqliteMode::Shared, [1; 16], None)
    });
    std::thread::sleep(10 * WHILE_NOBODY_LOCKS);
    drop(looking);
    opener.join().unwrap()
}

#[test]
fn whoever_waited_for_one_that_only_looked_prepares_the_file_itself() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let first = open_behind_one_that_only_looks(&at("store.db")).unwrap();
    assert_eq!(first.store, [1; 16]);

    backup::write(&at("store.db"), &at("backup.db")).unwrap();
    let used = open_behind_one_that_only_looks(&at("backup.db")).unwrap();
    assert!(!backup::check_log(&at("backup.db")).unwrap(), "it is in use, with a log of its own");
    drop(used);

    backup::write(&at("store.db"), &at("beside.db")).unwrap();
    first.writer.execute("UPDATE meta SET probes = 7", []).unwrap();
    std::fs::copy(at("store.db-wal"), at("beside.db-wal")).unwrap();
    let refused = open_behind_one_that_only_looks(&at("beside.db")).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::ForeignLog { .. }), "{refused}");
}
