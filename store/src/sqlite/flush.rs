//! What lazy groups have written goes to the disk while the writer goes on: a thread of its own syncs the write-ahead log. So
//! whoever waits for the next fsync of a commit waits for little, and rows that come in for long stop for one only where the
//! disk is slower than they are.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::error::OpenError;
use super::lock::{beside, io};
use super::writer::Shared;

/// Less than this goes with the fsync of whoever commits next.
pub(super) const FLUSH_BYTES: u64 = 1 << 20;

/// Bytes that lazy groups have committed, ever, and how many of those are on the disk.
#[derive(Default)]
struct Progress {
    written: AtomicU64,
    flushed: AtomicU64,
}

impl Progress {
    /// Whatever was written before a sync began is on the disk when it ends.
    fn flushed_up_to(&self, written: u64) {
        self.flushed.fetch_max(written, Ordering::SeqCst);
    }
}

/// The writer's end: counts, and gives orders.
pub(super) struct Flusher {
    progress: Arc<Progress>,
    orders: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread for the log of a database.
    pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let progress = Arc::new(Progress::default());
        let (orders, incoming) = sync_channel(1);
        let log = beside(path, "-wal");
        let thread = std::thread::Builder::new()
            .name("godwit-flush".to_owned())
            .spawn({
                let progress = Arc::clone(&progress);
                move || work(&log, &incoming, &progress, &shared)
            })
            .map_err(io("start a thread for", path))?;
        Ok(Self { progress, orders: Some(orders), thread: Some(thread) })
    }

    /// Bytes of lazy groups that no sync has covered.
    pub(super) fn waiting(&self) -> u64 {
        let flushed = self.progress.flushed.load(Ordering::SeqCst);
        self.progress.written.load(Ordering::SeqCst).saturating_sub(flushed)
    }

    /// Called after the commit of a lazy group.
    pub(super) fn committed_lazily(&self, bytes: usize) {
        self.progress.written.fetch_add(bytes as u64, Ordering::SeqCst);
        if let Some(orders) = &self.orders
            && self.waiting() >= FLUSH_BYTES
        {
            // When there is no room, one is about to begin.
            let _ = orders.try_send(());
        }
    }

    /// Called after a commit with an fsync of its own: that was one for all before it.
    pub(super) fn committed(&self) {
        self.progress.flushed_up_to(self.progress.written.load(Ordering::SeqCst));
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

fn work(log: &Path, orders: &Receiver<()>, progress: &Progress, shared: &Shared) {
    if orders.recv().is_err() {
        return;
    }
    // It is there since the first commit, and stays the same file until the store closes.
    let log = match File::open(log) {
        Ok(log) => log,
        Err(error) => {
            // The writer waits now and then instead.
            tracing::warn!(%error, path = %log.display(), "write-ahead log can't be synced beside the writer");
            return;
        }
    };
    loop {
        if shared.failure().is_some() {
            return;
        }
        let written = progress.written.load(Ordering::SeqCst);
        if let Err(error) = log.sync_data() {
            return shared.fail(&format!("sync of the write-ahead log: {error}"));
        }
        progress.flushed_up_to(written);
        if orders.recv().is_err() {
            return;
        }
    }
}
