//! Rows of a copy are committed without an fsync: wherever a power failure cuts the log, who is bound is whole.

use std::time::Duration;

use bytes::Bytes;
use godwit_core::id::MigrationId;
use godwit_core::store::{PrepareRequest, RowFrame, RuntimeStore};
use tokio::time::{sleep, timeout};

use super::fixture::{Desk, Place, done, host, message, noise};
use crate::sqlite::flush::{FLUSH_BYTES, Flusher};
use crate::sqlite::lock::beside;
use crate::sqlite::writer::LAZY_BYTES_MAX;
use crate::sqlite::{SqliteMode, SqliteStore};

const MIGRATION: MigrationId = MigrationId([9; 16]);
const ROW_BYTES: usize = 20_000;
const SOON: Duration = Duration::from_secs(60);
/// Cuts of the log that are tried.
const CUTS: usize = 60;

/// An agent with so many rows of `state`, and its rows.
pub(super) async fn source(place: &Place, rows: usize) -> (Desk, Vec<RowFrame>) {
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let mut unit = desk.ask(message(&desk.owner.agent, b"fill"), b"state");
    if let godwit_core::store::Step::Boundary(boundary) = &mut unit.steps[1] {
        let value = |row: usize| Bytes::from(noise(ROW_BYTES, row as u64));
        boundary.state = (0..rows).map(|row| (format!("row {row}"), Some(value(row)))).collect();
    }
    assert_eq!(store.commit_turns(unit).await, done(2));
    let (mut frames, mut after) = (Vec::new(), 0);
    loop {
        let next = store.export_rows(&desk.owner.agent, after, 1 << 20).await.unwrap();
        let Some(last) = next.last() else { break };
        after = last.change;
        frames.extend(next);
    }
    (desk, frames)
}

fn request(desk: &Desk, frames: Vec<RowFrame>) -> PrepareRequest {
    PrepareRequest {
        migration: MIGRATION,
        agent: desk.owner.agent.clone(),
        source: host(1),
        token: desk.owner.token.next(),
        generation: desk.owner.generation,
        revision: desk.revision,
        frames,
    }
}

fn is_lazy(store: &SqliteStore) -> bool {
    store.shared.writer.lock().unwrap().as_ref().unwrap().is_lazy
}

#[tokio::test]
async fn whoever_is_bound_has_all_rows_wherever_the_log_ends() {
    const ROWS: usize = 12;
    let (from, to) = (Place::new(), Place::new());
    let (desk, frames) = source(&from, ROWS).await;
    let store = to.open(SqliteMode::Exclusive);
    let (info, component) = super::fixture::plugin();
    store.put_plugin(info, component).await.unwrap();
    let log = beside(&to.path(), "-wal");
    let before = std::fs::metadata(&log).unwrap().len() as usize;
    let (last, first) = frames.split_last().unwrap();
    for frames in first.chunks(3) {
        store.receive_rows(MIGRATION, &desk.owner.agent, frames.to_vec()).await.unwrap();
        assert!(is_lazy(&store), "nobody needs its fsync");
    }
    store.prepare(request(&desk, vec![last.clone()])).await.unwrap();
    assert!(!is_lazy(&store), "what binds is synced, and all before it");
    let (file, log) = (std::fs::read(to.path()).unwrap(), std::fs::read(log).unwrap());
    assert!(log.len() > before + ROWS * ROW_BYTES);
    let (mut bound, mut unbound) = (0, 0);
    for cut in 0..=CUTS {
        let place = Place::new();
        std::fs::write(place.path(), &file).unwrap();
        let length = before + cut * (log.len() - before) / CUTS;
        std::fs::write(beside(&place.path(), "-wal"), &log[..length]).unwrap();
        let store = place.open(SqliteMode::Exclusive);
        let row = store.agent(&desk.owner.agent).await.unwrap();
        let rows: i64 =
            place.intruder().query_row("SELECT count(*) FROM state", [], |row| row.get(0)).unwrap();
        assert_eq!(store.check_file().await.unwrap(), Vec::<String>::new());
        match row {
            Some(row) => {
                assert_eq!((rows as usize, row.state_keys), (ROWS, ROWS as u64), "cut at {length}");
                bound += 1;
            }
            None => unbound += 1,
        }
    }
    assert!(bound > 0 && unbound > CUTS / 2, "{bound} bound, {unbound} not");
}

/// Takes the same rows again and again, each time of another copy. After each part `look` is told how many bytes wait.
async fn take_copies(store: &SqliteStore, desk: &Desk, frames: &[RowFrame], mut look: impl FnMut(u64)) {
    for copy in 0..5 {
        for frames in frames.chunks(40) {
            let id = MigrationId([copy; 16]);
            store.receive_rows(id, &desk.owner.agent, frames.to_vec()).await.unwrap();
            look(waiting(store));
        }
    }
}

fn waiting(store: &SqliteStore) -> u64 {
    store.shared.writer.lock().unwrap().as_ref().unwrap().flusher.waiting()
}

async fn until_synced(store: &SqliteStore) {
    let synced = async {
        while waiting(store) >= FLUSH_BYTES {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, synced).await.expect("what was written lazily is synced");
}

#[tokio::test]
async fn what_waits_for_an_fsync_is_bounded() {
    let (from, to) = (Place::new(), Place::new());
    let (desk, frames) = source(&from, 150).await;
    let store = to.open(SqliteMode::Exclusive);
    store.shared.writer.lock().unwrap().as_mut().unwrap().flusher.stop();
    let (mut most, mut synced) = (0, 0);
    take_copies(&store, &desk, &frames, |bytes| {
        assert!(bytes < LAZY_BYTES_MAX + 40 * (ROW_BYTES as u64 + 100), "{bytes} bytes wait");
        (most, synced) = (most.max(bytes), synced + u32::from(!is_lazy(&store)));
    })
    .await;
    assert!(most >= LAZY_BYTES_MAX / 2 && synced > 0, "{most} bytes, {synced} times synced");
}

#[tokio::test]
async fn what_nobody_waits_for_goes_to_the_disk_all_the_same() {
    let (from, to) = (Place::new(), Place::new());
    let (desk, frames) = source(&from, 150).await;
    let store = to.open(SqliteMode::Exclusive);
    take_copies(&store, &desk, &frames, |_| ()).await;
    until_synced(&store).await;
}

#[tokio::test]
async fn a_sync_that_fails_ends_the_store_and_a_log_that_cannot_be_opened_does_not() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let beside_it = |name: &str| place.path().with_file_name(name);

    let mut flusher = Flusher::start(&beside_it("missing"), store.shared.clone()).unwrap();
    flusher.committed_lazily(2 << 20);
    flusher.stop();
    assert_eq!((store.shared.failure(), flusher.waiting()), (None, 2 << 20));

    // What can be opened and not synced.
    std::os::unix::fs::symlink("/dev/null", beside_it("null-wal")).unwrap();
    let mut flusher = Flusher::start(&beside_it("null"), store.shared.clone()).unwrap();
    flusher.committed_lazily(2 << 20);
    flusher.stop();
    let failure = store.shared.failure().expect("nothing that is written counts any more");
    assert!(failure.contains("write-ahead log"), "{failure}");
    assert_eq!(flusher.waiting(), 2 << 20);
}

#[tokio::test]
async fn only_a_commit_that_writes_syncs_what_was_before_it() {
    let (from, to) = (Place::new(), Place::new());
    let (desk, frames) = source(&from, 10).await;
    let store = to.open(SqliteMode::Exclusive);
    store.shared.writer.lock().unwrap().as_mut().unwrap().flusher.stop();
    store.receive_rows(MIGRATION, &desk.owner.agent, frames).await.unwrap();
    let bytes = waiting(&store);
    assert!(bytes >= 10 * ROW_BYTES as u64);
    // No agent is at home here: there is nothing to forget.
    store.forget_moved(&desk.owner.agent, MIGRATION).await.unwrap();
    assert!(!is_lazy(&store));
    assert_eq!(waiting(&store), bytes, "nothing was written, and so nothing was synced");
    store.probe().await.unwrap();
    assert_eq!(waiting(&store), 0);
}

/// A store may be opened through a link; its log lies beside what that points to.
#[tokio::test]
async fn the_log_of_a_store_behind_a_link_is_synced_too() {
    let (from, to, elsewhere) = (Place::new(), Place::new(), Place::new());
    let (desk, frames) = source(&from, 150).await;
    drop(elsewhere.open(SqliteMode::Exclusive));
    std::os::unix::fs::symlink(elsewhere.path(), to.path()).unwrap();
    let store = to.open(SqliteMode::Exclusive);
    take_copies(&store, &desk, &frames, |_| ()).await;
    until_synced(&store).await;
}
