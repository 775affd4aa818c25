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
