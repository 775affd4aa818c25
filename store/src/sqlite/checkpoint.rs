//! Moving the write-ahead log back into the database: on a connection and thread of its own, so that commits don't wait
//! for it.
//!
//! A checkpoint starts when the log has `LOG_PAGES`. Its passive part, which moves nearly all, never blocks the writer; the
//! second part starts the log over, which waits a little for readers and holds the writer up for the few pages that came
//! meanwhile. So the log is bounded, and with it what a start has to rewrite, unless somebody reads one state for long.
//!
//! Agents at work write the same pages again and again; each checkpoint writes those once. So the fewer, the better.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_core::failpoint;
use rusqlite::Connection;

use super::connection::{connect, engine};
use super::error::{OpenError, is_io};
use super::lock::io;
use super::writer::Shared;

/// 32 MiB of pages.
const LOG_PAGES: i64 = 8_192;
/// Commits between two looks at the log's size.
const COMMITS_PER_LOOK: u32 = 8;
/// 256 MiB of pages: something holds a read open.
const WARN_PAGES: i64 = 65_536;

/// How long starting the log over waits for readers, in milliseconds: it holds the writer up meanwhile.
const READER_WAITS_MAX: i32 = 5;
/// Pause after it has waited in vain.
const READER_PAUSE: Duration = Duration::from_millis(100);

/// The parts of a checkpoint.
const PARTS: [&str; 2] = ["PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(RESTART)"];
/// Only tells how far the log and the last checkpoint are.
const LOOK: &str = "PRAGMA wal_checkpoint(NOOP)";

/// The writer's end: watches the log and gives orders.
pub(super) struct Checkpointer {
    orders: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    commits: u32,
}

impl Checkpointer {
    /// Starts the thread with its own connection.
    pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let conn = connect(path)?;
        conn.busy_handler(Some(wait_for_reader)).map_err(engine("configure", path))?;
        let (orders, incoming) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("godwit-checkpoint".to_owned())
            .spawn(move || work(conn, &incoming, &shared))
            .map_err(io("start a thread for", path))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), commits: 0 })
    }

    /// Called after each commit, with the connection that committed.
    pub(super) fn committed(&mut self, conn: &Connection) {
        self.commits += 1;
        if self.commits < COMMITS_PER_LOOK {
            return;
        }
        self.commits = 0;
        if is_due(conn)
            && let Some(orders) = &self.orders
        {
            // When there is no room, one is under way.
            let _ = orders.try_send(());
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn work(conn: Connection, orders: &Receiver<()>, shared: &Shared) {
    while let Ok(()) = orders.recv() {
        // The last one may have been ordered twice.
        if !is_due(&conn) {
            continue;
        }
        for part in PARTS {
            if shared.failure().is_some() {
                break;
            }
            failpoint::hit("store.before-checkpoint");
            let done = checkpoint(&conn, part);
            failpoint::hit("store.after-checkpoint");
            match done {
                Ok((_, pages, _)) if pages > WARN_PAGES => {
                    tracing::warn!(
                        pages,
                        "write-ahead log does not shrink: a reader or a stopped process holds it"
                    );
                }
                // Somebody reads an older state; the next order comes soon.
                Ok((is_busy, ..)) if is_busy != 0 => std::thread::sleep(READER_PAUSE),
                Ok(_) => {}
                Err(error) if is_io(&error) => shared.fail(&format!("checkpoint: {error}")),
                Err(error) => tracing::warn!(%error, "checkpoint failed; it will be tried again"),
            }
        }
    }
    if shared.failure().is_some() {
        // Closing could write the log back: not after a failed fsync.
        std::mem::forget(conn);
    }
}

fn wait_for_reader(waits: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    waits < READER_WAITS_MAX
}

/// Whether the log is to start over.
fn is_due(conn: &Connection) -> bool {
    checkpoint(conn, LOOK).is_ok_and(|(_, pages, _)| pages >= LOG_PAGES)
}

/// Runs a checkpoint: (busy, pages in the log, pages moved back).
fn checkpoint(conn: &Connection, statement: &str) -> rusqlite::Result<(i64, i64, i64)> {
    conn.prepare_cached(statement)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}
