//! Readers: threads with read-only connections. Each read is one transaction, so it sees one committed state; it starts
//! after the call, so it sees every write that has been answered.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use godwit_core::store::StoreError;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::connection::connect_read_only;
use super::error::{Fallible, OpenError};
use super::lock::io;
use super::queue::Queue;

const READERS: usize = 3;
/// Reads that wait; callers of more wait for room.
const READS_QUEUED_MAX: usize = 4_096;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The pool.
pub(super) struct Readers {
    queue: Arc<Queue<Read>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    pub(super) fn start(path: &Path, flags: OpenFlags) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue::new(READS_QUEUED_MAX));
        let mut threads = Vec::new();
        for number in 0..READERS {
            let conn = connect_read_only(path, flags)?;
            let work_queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new()
                .name(format!("godwit-read-{number}"))
                .spawn(move || work(&conn, &work_queue))
                .map_err(io("start a thread for", path))?;
            threads.push(thread);
        }
        Ok(Self { queue, threads: Mutex::new(threads) })
    }

    /// Runs a read in a transaction of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        body: impl FnOnce(&Connection) -> Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (caller, answer) = oneshot::channel();
        let read: Read = Box::new(move |conn| {
            // The caller may have gone away.
            drop(caller.send(in_transaction(conn, body).map_err(StoreError::from)));
        });
        self.queue.push(read).await?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed { reason: "the read was dropped".to_owned() }))
    }

    /// Finishes what waits and ends the threads.
    pub(super) fn stop(&self) {
        self.queue.close("the store is closed");
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic of that thread has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(conn: &Connection, queue: &Queue<Read>) {
    while queue.wait() {
        // Another reader may have been faster.
        for read in queue.take(1, |_| true) {
            read(conn);
        }
    }
}

fn in_transaction<T>(conn: &Connection, body: impl FnOnce(&Connection) -> Fallible<T>) -> Fallible<T> {
    super::sql::execute(conn, "BEGIN", [])?;
    let result = body(conn);
    if !conn.is_autocommit() {
        super::sql::execute(conn, "COMMIT", [])?;
    }
    result
}
