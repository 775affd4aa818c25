//! Moving the write-ahead log back into the database: on a connection and thread of its own, so that commits don't wait
//! for it.
//!
//! A checkpoint starts when the log has `LOG_PAGES`. Its passive part never blocks the writer, and is done again until nothing
//! is left that came meanwhile; the last part starts the log over, which waits a little for readers and holds the writer up for what
//! came after that. Where commits come faster than the disk moves them back, the writer waits at `HOLD_PAGES`. So the log is
//! bounded, and with it what a start has to rewrite, unless somebody reads one state for long.
//!
//! Agents at work write the same pages again and again; each checkpoint writes those once. So the fewer, the better.
//!
//! A commit that waits for the disk while much is moved back waits for all of that. Where somebody has asked for quiet, and while
//! an agent's rows come in or go, a checkpoint starts later, unless the log has `LOUD_PAGES`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_core::failpoint;
use godwit_core::time::{Clock, within};
use rusqlite::Connection;
use tokio::sync::watch;

use super::connection::{connect, engine};
use super::error::{OpenError, is_io};
use super::lock::io;
use super::writer::{Shared, nanos};

/// 32 MiB of pages.
const LOG_PAGES: i64 = 8_192;
/// Commits between two looks at the log's size.
const COMMITS_PER_LOOK: u32 = 8;
/// 128 MiB of pages: no more is committed before the log has been started over, if readers allow that.
const HOLD_PAGES: i64 = 32_768;
/// What the log can grow to while nobody reads one state for long: between two looks, groups of the largest size come on top, and
/// again where the disk needs longer than `HOLD_MAX` to move it back.
#[cfg(test)]
pub(super) const LOG_BYTES_MAX: u64 = (HOLD_PAGES as u64 * 4096) + 2 * (COMMITS_PER_LOOK as u64 * (8 << 20));
/// 96 MiB of pages: from here on nobody's wish for quiet counts.
const LOUD_PAGES: i64 = 3 * LOG_PAGES;
/// Quiet after a lazy group: the next one comes soon, or its agent is about to stand still.
pub(super) const LAZY_QUIET: Duration = Duration::from_millis(50);
/// How often a checkpoint that was put off looks whether it may start.
const QUIET_PAUSE: Duration = Duration::from_millis(5);
/// How long that is waited for before the next commits: whoever must write in time, as sessions do, has seconds for it.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// 256 MiB of pages: something holds a read open.
const WARN_PAGES: i64 = 65_536;

/// How long starting the log over waits for readers, in milliseconds: it holds the writer up meanwhile.
const READER_WAITS_MAX: i32 = 5;
/// Pause after it has waited in vain.
const READER_PAUSE: Duration = Duration::from_millis(100);

/// How often all of the log is tried to be moved back, and be on the disk, without holding the writer up: each time there is
/// less of it that came meanwhile, unless somebody reads an older state.
const PASSES_MAX: u32 = 8;

/// The parts of a checkpoint.
const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";
/// Only tells how far the log and the last checkpoint are.
const LOOK: &str = "PRAGMA wal_checkpoint(NOOP)";

/// A wish that no checkpoint starts for a while.
pub(super) struct Quiet {
    clock: Arc<dyn Clock>,
    /// Boot time in nanoseconds.
    until: AtomicU64,
    /// Set when the store closes.
    is_over: AtomicBool,
    /// Whether a checkpoint is under way, or about to look whether it may be.
    is_moving: watch::Sender<bool>,
}

impl Quiet {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            until: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_moving: watch::Sender::new(false),
        }
    }

    /// A lazy group has moved rows.
    pub(super) fn committed_lazily(&self) {
        self.ask(LAZY_QUIET);
    }

    /// From now until `time` has passed no checkpoint starts.
    fn ask(&self, time: Duration) {
        self.until.fetch_max(nanos(self.clock.boot() + time), Ordering::SeqCst);
    }

    /// As `ask`, and waits for one that is under way. One that does not end by then goes on.
    pub(super) async fn keep(&self, time: Duration) {
        // Whoever begins says so before it looks.
        self.ask(time);
        let mut is_moving = self.is_moving.subscribe();
        // The sender lives as long as this.
        let _ = within(time, is_moving.wait_for(|is_moving| !is_moving)).await;
    }

    /// Waits until a checkpoint may start, which is at once when the log is too long. Until `end` it is under way.
    pub(super) fn begin(&self, is_loud: impl Fn() -> bool) {
        loop {
            self.is_moving.send_replace(true);
            let is_kept = nanos(self.clock.boot()) < self.until.load(Ordering::SeqCst);
            if !is_kept || self.is_over.load(Ordering::SeqCst) || is_loud() {
                return;
            }
            self.end();
            std::thread::sleep(QUIET_PAUSE);
        }
    }

    pub(super) fn end(&self) {
        self.is_moving.send_replace(false);
    }

    /// There is no quiet any more, for good.
    fn close(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// To move the log back. What it carries is dropped when that is done.
type Order = Option<SyncSender<()>>;

/// The writer's end: watches the log and gives orders.
pub(super) struct Checkpointer {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    commits: u32,
    /// The last try was in vain: whoever waits for the next one may wait as long as a reader reads.
    is_held: Arc<AtomicBool>,
}

impl Checkpointer {
    /// Starts the thread with its own connection.
    pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let conn = connect(path)?;
        conn.busy_handler(Some(wait_for_reader)).map_err(engine("configure", path))?;
        let (orders, incoming) = sync_channel(1);
        let is_held = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("godwit-checkpoint".to_owned())
            .spawn({
                let is_held = Arc::clone(&is_held);
                move || work(conn, &incoming, &shared, &is_held)
            })
            .map_err(io("start a thread for", path))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), commits: 0, is_held })
    }

    /// Called after each commit, with the connection that committed. Returns late when the log is too long.
    pub(super) fn committed(&mut self, conn: &Connection) {
        self.commits += 1;
        if self.commits < COMMITS_PER_LOOK {
            return;
        }
        self.commits = 0;
        let Some(orders) = &self.orders else { return };
        let pages = log_pages(conn);
        if pages >= HOLD_PAGES && !self.is_held.load(Ordering::Relaxed) {
            let (done, until_done) = sync_channel(0);
            // Both end by the order's end, also when the thread has gone.
            let _ = orders.send(Some(done));
            let _ = until_done.recv_timeout(HOLD_MAX);
        } else if pages >= LOG_PAGES {
            // When there is no room, one is under way.
            let _ = orders.try_send(None);
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self, quiet: &Quiet) {
        quiet.close();
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn work(conn: Connection, orders: &Receiver<Order>, shared: &Shared, is_held: &AtomicBool) {
    while let Ok(order) = orders.recv() {
        shared.quiet.begin(|| log_pages(&conn) >= LOUD_PAGES);
        // The last one may have been ordered twice.
        let is_in_vain = log_pages(&conn) >= LOG_PAGES && !start_over(&conn, shared);
        shared.quiet.end();
        is_held.store(is_in_vain, Ordering::Relaxed);
        drop(order);
        if is_in_vain {
            // Somebody reads an older state; the next order comes soon.
            std::thread::sleep(READER_PAUSE);
        }
    }
    if shared.failure().is_some() {
        // Closing could write the log back: not after a failed fsync.
        std::mem::forget(conn);
    }
}

/// Moves all of the log back. Whether that was done.
fn start_over(conn: &Connection, shared: &Shared) -> bool {
    for _ in 0..PASSES_MAX {
        move_back(conn, PASSIVE, shared);
        // SQLite syncs the database only when nobody has committed meanwhile: what is not synced here, the writer waits for.
        if pages_left(conn) == 0 {
            break;
        }
    }
    move_back(conn, RESTART, shared)
}

/// One part of a checkpoint. Whether it has done all that it is for.
fn move_back(conn: &Connection, part: &str, shared: &Shared) -> bool {
    if shared.failure().is_some() {
        return false;
    }
    failpoint::hit("store.before-checkpoint");
    let done = checkpoint(conn, part);
    failpoint::hit("store.after-checkpoint");
    match done {
        Ok((_, pages, _)) if pages > WARN_PAGES => {
            tracing::warn!(pages, "write-ahead log does not shrink: a reader or a stopped process holds it")
        }
        Ok(_) => {}
        Err(ref error) if is_io(error) => shared.fail(&format!("checkpoint: {error}")),
        Err(ref error) => tracing::warn!(%error, "checkpoint failed; it will be tried again"),
    }
    matches!(done, Ok((0, ..)))
}

fn wait_for_reader(waits: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    waits < READER_WAITS_MAX
}

/// How long the log is; 0 where that can't be told.
fn log_pages(conn: &Connection) -> i64 {
    checkpoint(conn, LOOK).map_or(0, |(_, pages, _)| pages)
}

/// How much of the log was not moved back yet; 0 where that can't be told.
fn pages_left(conn: &Connection) -> i64 {
    checkpoint(conn, LOOK).map_or(0, |(_, pages, moved)| pages - moved)
}

/// Runs a checkpoint: (busy, pages in the log, pages moved back).
fn checkpoint(conn: &Connection, statement: &str) -> rusqlite::Result<(i64, i64, i64)> {
    conn.prepare_cached(statement)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}
