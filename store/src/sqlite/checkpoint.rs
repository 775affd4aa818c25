//! Moving the write-ahead log back into the database: on a connection and thread of its own, so that commits don't wait
//! for it.
//!
//! A passive checkpoint starts when the log has grown by `PASSIVE_PAGES`; it never blocks the writer. A log that still
//! grows past `RESTART_PAGES`, because commits go on all the time, is restarted: that waits for readers and holds the
//! writer up for the few pages that are left. So the log is bounded, and with it what a start has to rewrite.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use godwit_core::failpoint;
use rusqlite::Connection;

use super::connection::connect;
use super::error::{OpenError, is_io};
use super::lock::io;
use super::writer::Shared;

/// 32 MiB of pages.
const PASSIVE_PAGES: i64 = 8_192;
/// 64 MiB of pages.
const RESTART_PAGES: i64 = 16_384;
/// Commits between two looks at the log's size.
const COMMITS_PER_LOOK: u32 = 8;
/// 256 MiB of pages: something holds a read open.
const WARN_PAGES: i64 = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Passive,
    Restart,
}

/// The writer's end: watches the log and gives orders.
pub(super) struct Checkpointer {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    commits: u32,
    /// Size of the log at the last order.
    ordered_at: i64,
}

impl Checkpointer {
    /// Starts the thread with its own connection.
    pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let conn = connect(path)?;
        let (orders, incoming) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("godwit-checkpoint".to_owned())
            .spawn(move || work(conn, &incoming, &shared))
            .map_err(io("start a thread for", path))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), commits: 0, ordered_at: 0 })
    }

    /// Called after each commit, with the connection that committed.
    pub(super) fn committed(&mut self, conn: &Connection) {
        self.commits += 1;
        if self.commits < COMMITS_PER_LOOK {
            return;
        }
        self.commits = 0;
        let Ok((_, pages, _)) = checkpoint(conn, "PRAGMA wal_checkpoint(NOOP)") else {
            return;
        };
        // A log that became shorter has started over.
        self.ordered_at = self.ordered_at.min(pages);
        let order = if pages >= RESTART_PAGES {
            Order::Restart
        } else if pages - self.ordered_at >= PASSIVE_PAGES {
            Order::Passive
        } else {
            return;
        };
        let sent = self.orders.as_ref().map(|orders| orders.try_send(order));
        if !matches!(sent, Some(Err(TrySendError::Full(_)))) {
            self.ordered_at = pages;
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

fn work(conn: Connection, orders: &Receiver<Order>, shared: &Shared) {
    while let Ok(order) = orders.recv() {
        if shared.failure().is_some() {
            break;
        }
        let statement = match order {
            Order::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Order::Restart => "PRAGMA wal_checkpoint(RESTART)",
        };
        failpoint::hit("store.before-checkpoint");
        let done = checkpoint(&conn, statement);
        failpoint::hit("store.after-checkpoint");
        match done {
            Ok((_, pages, _)) if pages > WARN_PAGES => {
                tracing::warn!(
                    pages,
                    "write-ahead log does not shrink: a reader or a stopped process holds it"
                );
            }
            Ok(_) => {}
            Err(error) if is_io(&error) => shared.fail(&format!("checkpoint: {error}")),
            Err(error) => tracing::warn!(%error, "checkpoint failed; it will be tried again"),
        }
    }
    if shared.failure().is_some() {
        // Closing could write the log back: not after a failed fsync.
        std::mem::forget(conn);
    }
}

/// Runs a checkpoint: (busy, pages in the log, pages moved back).
fn checkpoint(conn: &Connection, statement: &str) -> rusqlite::Result<(i64, i64, i64)> {
    conn.prepare_cached(statement)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}
