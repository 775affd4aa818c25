//! The runtime store on SQLite.
//!
//! ```text
//! port.rs (RuntimeStore) --writes--> writer.rs: one at a time, one transaction and one fsync per group of jobs
//!                                    heads.rs: rows of agents that the writer keeps from one to the next
//!                        --reads---> readers.rs: read-only connections, one transaction per read
//! beside them flush.rs syncs what lazy groups have written, and checkpoint.rs moves the log back
//! lock.rs and connection.rs decide who may open the file, and how
//! ```
//! One file per group of tables: `sessions leases agents edges entity_keys inputs boundary snapshots bodies state outbox timers operations
//! retention plugins events handoff export migrations`. Each of their functions that takes a `Tx` runs inside the transaction of one port method.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use godwit_core::id::{Incarnation, StoreId};
use godwit_core::limits::Quotas;
use godwit_core::store::StoreError;
use godwit_core::time::Clock;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use tokio::sync::{oneshot, watch};

use auth::Vault;
use checkpoint::{Checkpointer, Quiet};
use connection::PrivateCopy;
use faults::Faults;
use flush::Flusher;
use heads::Heads;
use lock::{StoreLock, beside};
use queue::Queue;
use readers::Readers;
use writer::{Job, Shared, Tx, WRITES_QUEUED_MAX, Work, WriteEnv, Writer, Written};

pub use error::OpenError;
pub use sealing::SealKey;

mod agents;
mod auth;
mod backup;
mod bodies;
mod boundary;
mod channel_port;
mod channels;
mod checkpoint;
mod codec;
mod connection;
mod documents;
mod edges;
mod encoding;
mod entity_keys;
mod error;
mod events;
mod export;
mod faults;
mod flush;
mod handoff;
mod heads;
mod import;
mod inputs;
mod journal;
mod leases;
mod lifecycle;
mod lock;
mod migrations;
mod operations;
mod outbox;
mod plugins;
mod port;
mod queue;
mod readers;
mod restore;
mod retention;
mod sealing;
mod sessions;
mod snapshots;
mod specs;
mod sql;
mod standby;
mod state;
mod timers;
mod writer;

/// How many processes may have the file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqliteMode {
    /// One: holding the lock file is its session, which never expires.
    Exclusive,
    /// Several on one machine: sessions expire without heartbeats.
    Shared,
}

/// Why a store URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store {url:?} is not sqlite:PATH or sqlite:PATH?shared")]
pub struct UrlError {
    /// What was given.
    pub url: String,
}

/// Reads `sqlite:PATH` or `sqlite:PATH?shared`.
///
/// # Errors
/// `UrlError` for anything else.
pub fn parse_url(url: &str) -> Result<(PathBuf, SqliteMode), UrlError> {
    let refused = || UrlError { url: url.to_owned() };
    let rest = url.strip_prefix("sqlite:").ok_or_else(refused)?;
    let (path, mode) = match rest.split_once('?') {
        None => (rest, SqliteMode::Exclusive),
        Some((path, "shared")) => (path, SqliteMode::Shared),
        Some(_) => return Err(refused()),
    };
    if path.is_empty() { Err(refused()) } else { Ok((PathBuf::from(path), mode)) }
}

/// A runtime store in one SQLite file. Dropping it closes it.
pub struct SqliteStore {
    id: StoreId,
    path: PathBuf,
    env: Arc<WriteEnv>,
    shared: Arc<Shared>,
    /// Where `runnable` goes on, per session: the key of the agent it named last.
    cursors: Mutex<HashMap<Incarnation, i64>>,
    is_read_only: bool,
    /// The seq of the event that this process has appended last.
    newest_event: watch::Sender<u64>,
    readers: Mutex<Option<Arc<Readers>>>,
    /// What closing takes down, in this order.
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    writer: Option<JoinHandle<()>>,
    lock: Option<StoreLock>,
    copy: Option<PrivateCopy>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or creates a store.
    ///
    /// # Errors
    /// `OpenError`; the file is as it was, but for what recovery does to it.
    pub fn open(path: &Path, mode: SqliteMode, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        Self::open_in(path, WriteEnv::of_this_machine(clock, mode, Quotas::default())?)
    }

    /// Opens or creates a store that keeps secrets, sealed under a key, and in which agents may fill so much.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_sealing(
        path: &Path,
        mode: SqliteMode,
        clock: Arc<dyn Clock>,
        key: SealKey,
        quotas: Quotas,
    ) -> Result<Arc<Self>, OpenError> {
        let env = WriteEnv::of_this_machine(clock, mode, quotas)?;
        Self::open_with(path, env, Some(key))
    }

    /// Opens a store in an environment.
    fn open_in(path: &Path, env: WriteEnv) -> Result<Arc<Self>, OpenError> {
        Self::open_with(path, env, None)
    }

    fn open_with(path: &Path, env: WriteEnv, key: Option<SealKey>) -> Result<Arc<Self>, OpenError> {
        let clock = &env.clock;
        let new_id = StoreId::generate(clock.wall_ms(), clock.random());
        let opened = connection::open(path, env.mode, new_id.0, env.quotas.store_bytes_max)?;
        let vault = key.map(|key| Arc::new(Vault { store: StoreId(opened.store), key }));
        let env = Arc::new(WriteEnv { vault, ..env });
        let shared = Arc::new(Shared {
            writes: Queue::new(WRITES_QUEUED_MAX),
            fatal: watch::Sender::new(None),
            commits: AtomicU64::new(0),
            writer: Mutex::default(),
            quiet: Quiet::new(Arc::clone(&env.clock)),
        });
        let newest_event = watch::Sender::new(0);
        // As SQLite has resolved it: the log lies beside what a link points to.
        let log_of = opened.writer.path().map_or_else(|| path.to_owned(), PathBuf::from);
        let writer = Writer {
            conn: opened.writer,
            env: Arc::clone(&env),
            checkpointer: Checkpointer::start(path, Arc::clone(&shared))?,
            savepoint_groups: 0,
            looking_groups: 0,
            is_lazy: false,
            flusher: Flusher::start(&log_of, Arc::clone(&shared))?,
            cached_bytes: 0,
            last: Written::default(),
            heads: Heads::default(),
            newest_event: newest_event.clone(),
        };
        let readers = Readers::start(path, rusqlite::OpenFlags::empty())?;
        let thread = writer::start(writer, &shared).map_err(lock::io("start a thread for", path))?;
        Ok(Arc::new(Self {
            id: StoreId(opened.store),
            path: path.to_owned(),
            env,
            shared,
            cursors: Mutex::default(),
            is_read_only: false,
            newest_event,
            readers: Mutex::new(Some(Arc::new(readers))),
            parts: Mutex::new(Parts { writer: Some(thread), lock: Some(opened.lock), copy: None }),
        }))
    }

    /// Opens a store for reading and leaves its files as they are: for offline checks. Where an interrupted process has
    /// left a log that must be recovered, a private copy in the temporary directory is read instead.
    ///
    /// # Errors
    /// `OpenError`; `Locked` while a process has it open exclusively.
    pub fn open_read_only(path: &Path) -> Result<Arc<Self>, OpenError> {
        let opened = connection::open_read_only(path)?;
        let readers = Readers::start(&opened.path, opened.flags)?;
        let clock: Arc<dyn Clock> = Arc::new(godwit_core::time::SystemClock);
        let shared = Arc::new(Shared {
            writes: Queue::new(1),
            fatal: watch::Sender::new(None),
            commits: AtomicU64::new(0),
            writer: Mutex::default(),
            quiet: Quiet::new(Arc::clone(&clock)),
        });
        Ok(Arc::new(Self {
            id: StoreId(opened.store),
            path: path.to_owned(),
            env: Arc::new(WriteEnv {
                clock,
                mode: SqliteMode::Exclusive,
                boot: String::new(),
                faults: Faults::default(),
                quotas: Quotas::default(),
                vault: None,
            }),
            shared,
            cursors: Mutex::default(),
            is_read_only: true,
            newest_event: watch::Sender::new(0),
            readers: Mutex::new(Some(Arc::new(readers))),
            parts: Mutex::new(Parts { writer: None, lock: opened.lock, copy: opened.copy }),
        }))
    }

    /// Becomes the reason when the store is lost to this process: an I/O error left open what is on the disk. Every call is
    /// answered `Closed` from then on; the process must end (exit code 75), and the next start recovers.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.shared.fatal.subscribe()
    }

    /// Transactions committed since it was opened.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Shows each statement that writes run from here on to `observer`, before it runs: for tests and figures that count
    /// them. It is called on the thread that writes, inside the transaction.
    pub fn trace_writes(&self, observer: Option<fn(TraceEvent<'_>)>) {
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.as_ref() {
            writer.conn.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, observer);
        }
    }

    /// Processes that share the file and are stopped: one of them may hold the write lock and so hold up everybody.
    fn stopped_sharers(&self) -> Vec<u32> {
        lock::stopped_signers(&beside(&self.path, ".lock"))
    }

    /// Reads the whole file and answers what SQLite finds wrong with its structure; empty when all is well.
    ///
    /// # Errors
    /// As for reads.
    pub async fn check_file(&self) -> Result<Vec<String>, StoreError> {
        let found = self
            .read(|conn| sql::all(conn, "PRAGMA quick_check(20)", [], |row| Ok(row.get::<_, String>(0)?)))
            .await;
        match found {
            Ok(lines) => Ok(lines.into_iter().filter(|line| line != "ok").collect()),
            // Too damaged to be checked.
            Err(StoreError::Corrupt { what }) => Ok(vec![what]),
            Err(error) => Err(error),
        }
    }

    /// Whether the file is a backup, which no host can join before it was restored.
    ///
    /// # Errors
    /// As for reads.
    pub async fn is_backup(&self) -> Result<bool, StoreError> {
        self.read(sessions::is_backup).await
    }

    /// Finishes what has been queued, closes the file and releases the lock. Calls after it are answered `Closed`.
    pub async fn close(self: &Arc<Self>) {
        let store = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || store.shut_down()).await;
        if let Err(error) = closed {
            tracing::error!(%error, "closing the store failed");
        }
    }

    fn shut_down(&self) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        // Readers first: the last connection to close moves the log back, and theirs can't.
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(readers) = readers {
            readers.stop();
        }
        self.shared.writes.close("the store is closed");
        if let Some(writer) = parts.writer.take() {
            // A panic of that thread has been reported by the panic hook.
            drop(writer.join());
        }
        parts.copy = None;
        parts.lock = None;
    }

    // --- how the port's methods run

    fn closed(&self) -> StoreError {
        let reason = self.shared.failure().unwrap_or_else(|| "the store is closed".to_owned());
        StoreError::Closed { reason }
    }

    fn vault(&self) -> Result<Arc<Vault>, StoreError> {
        self.env
            .vault
            .clone()
            .ok_or(StoreError::Unsupported { what: "auth flows without a key to seal them" })
    }

    async fn queue(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        if self.is_read_only {
            let what = "writing: it was opened for reading";
            return Err(StoreError::Unsupported { what });
        }
        self.shared.writes.push(job).await
    }

    /// Runs a write in a transaction that others may share, and answers once it is durable.
    async fn write<T: Send + 'static>(
        &self,
        body: impl FnMut(&Tx<'_>) -> error::Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = Work::boxed(body, false);
        self.written(job, answer).await
    }

    /// Queues a job and waits for what became of it.
    async fn written<F, T>(
        &self,
        job: Box<Work<F, T>>,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError>
    where
        Work<F, T>: writer::Job + 'static,
    {
        self.queue(job).await?;
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// As `write`, for a job that writes about so many bytes.
    async fn write_large<T: Send + 'static>(
        &self,
        bytes: usize,
        body: impl FnMut(&Tx<'_>) -> error::Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (mut job, answer) = Work::boxed(body, false);
        job.bytes = bytes;
        self.written(job, answer).await
    }

    /// As `write_large`, for a job that takes agents' rows from `Tx::with_head`.
    async fn write_by_head<T: Send + 'static>(
        &self,
        bytes: usize,
        body: impl FnMut(&Tx<'_>) -> error::Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (mut job, answer) = Work::boxed(body, false);
        (job.bytes, job.shares_heads) = (bytes, true);
        self.written(job, answer).await
    }

    /// As `write_large`, for what counts only once a later write names it: it is durable with that one at the latest.
    async fn write_lazily<T: Send + 'static>(
        &self,
        bytes: usize,
        body: impl FnMut(&Tx<'_>) -> error::Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (mut job, answer) = Work::boxed(body, false);
        (job.bytes, job.is_lazy) = (bytes, true);
        self.written(job, answer).await
    }

    /// As `write`, before everything that waits.
    async fn write_first<T: Send + 'static>(
        &self,
        body: impl FnMut(&Tx<'_>) -> error::Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.is_read_only {
            return self.write(body).await;
        }
        let (job, answer) = Work::boxed(body, false);
        self.shared.writes.push_first(job)?;
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// Runs a read on one committed state.
    async fn read<T: Send + 'static>(
        &self,
        body: impl FnOnce(&rusqlite::Connection) -> error::Fallible<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let readers = readers.ok_or_else(|| self.closed())?;
        let result = readers.read(body).await;
        // After a failed fsync, reading back proves nothing.
        if self.shared.failure().is_some() { Err(self.closed()) } else { result }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shut_down();
    }
}

#[cfg(test)]
mod tests;
