//! Opening while others open: what happens between two locks.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Long enough for another opener to come in between.
pub(super) const WHILE_NOBODY_LOCKS: Duration = Duration::from_millis(5);

/// How often the other opener may come too late, on a machine that has no time for it.
const TRIES: usize = 100;

/// What another opener, which replaced the log between the two locks of the first, reads of what that one wrote then. `None`
/// when it came too late.
fn read_by_one_that_came_in_between() -> Option<u32> {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("store.db");
    let (opened, is_open) = std::sync::mpsc::sync_channel::<()>(1);
    let is_first_done = AtomicBool::new(false);
    let (path, is_first_done) = (&path, &is_first_done);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            // The first opener is alone from before it makes the log.
            let is_late = || is_first_done.load(Ordering::SeqCst);
            while !beside(path, "-wal").exists() && !is_late() {}
            let lock = StoreLock::open(path, true).unwrap().unwrap();
            while !lock.try_exclusive().unwrap() {
                if is_late() {
                    return None;
                }
            }
            rewrite_log(path).unwrap();
            let conn = connect(path).unwrap();
            lock.release().unwrap();
            is_open.recv().unwrap();
            Some(conn.query_row("SELECT probes FROM meta", [], |row| row.get(0)).unwrap())
        });
        let first = open(path, SqliteMode::Shared, [1; 16], None).unwrap();
        is_first_done.store(true, Ordering::SeqCst);
        first.writer.execute("UPDATE meta SET probes = 7", []).unwrap();
        opened.send(()).unwrap();
        other.join().unwrap()
    })
}

#[test]
fn a_log_that_another_opener_replaces_is_not_written_to() {
    let read = (0..TRIES).find_map(|_| read_by_one_that_came_in_between());
    assert_eq!(read, Some(7), "both have one log");
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
