//! The writer: all writes of the process, in groups of one transaction and one fsync each.
//!
//! ```text
//! callers --Queue--> take what waits --> BEGIN IMMEDIATE, job after job, COMMIT --> answers
//! ```
//! A group is whatever has queued while the last one committed; there is no artificial delay. Nobody is answered before
//! COMMIT has returned. When an error has rolled back the whole transaction, nothing of the group is durable, and it is
//! redone job by job. An I/O error in COMMIT is the one case that leaves the truth open: see `Verdict::Unknown`.
//!
//! Savepoints keep what fails from what does not, and cost a copy of each page that changes under them. Nearly nothing
//! fails once it has begun to write. So a group runs without them first; when a step fails that has written, all is rolled
//! back and run again with them, and so are the next groups. In the same way, inputs that
//! should be new are first written without a look for them.
//!
//! Inputs, units and ends of outputs, which are nearly all there is to write, need the row of their agent; it is read once and kept from job
//! to job and group to group (`heads.rs`), until another kind of job comes.
//!
//! A group that holds nothing but rows of copies that nobody has bound commits without an fsync: see `Writer::begin`.
//!
//! The writer thread takes groups from the queue. A caller that may block, finds the queue empty and nobody writing, may
//! write one job itself (`Shared::idle_writer`): the same code under the same lock, without two hand-overs.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_core::failpoint;
use godwit_core::id::AgentId;
use godwit_core::limits::Quotas;
use godwit_core::store::StoreError;
use godwit_core::time::Clock;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};

use super::SqliteMode;
use super::agents::Head;
use super::auth::Vault;
use super::checkpoint::{Checkpointer, Quiet};
use super::error::{Fail, Fallible, OpenError, is_io, of_engine, spares_transaction};
use super::faults::Faults;
use super::flush::Flusher;
use super::heads::Heads;
use super::leases::at_home;
use super::lock::io;
use super::queue::Queue;
use super::sql::execute;

/// Where Linux tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Writes that wait; callers of more wait for room.
pub(super) const WRITES_QUEUED_MAX: usize = 4_096;
/// Jobs of one transaction: past this, answers come later and the transaction is no cheaper.
const GROUP_JOBS_MAX: usize = 256;
/// Bytes of one transaction: past this, those who wait for its fsync wait for the bytes as well.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Groups that run with the same care as one that had to be run again: refusals and repetitions come together.
pub(super) const CAREFUL_GROUPS: u32 = 16;

/// Bytes that groups without an fsync may leave to the next one with, where the disk is slower than those who write: whoever
/// waits for that one waits for all of them.
pub(super) const LAZY_BYTES_MAX: u64 = 8 << 20;
/// Bytes of such groups after which the page cache is given back: rows that nobody reads soon have taken the place of those
/// that agents at work write.
const CACHED_BYTES_MAX: usize = 8 << 20;

/// What every write may look at.
pub(super) struct WriteEnv {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) mode: SqliteMode,
    /// Names this boot of the machine: boot time of another one can't be compared.
    pub(super) boot: String,
    pub(super) faults: Faults,
    pub(super) quotas: Quotas,
    /// Without one there are no auth flows and no entity keys.
    pub(super) vault: Option<Arc<Vault>>,
}

impl WriteEnv {
    /// As this machine is now.
    pub(super) fn of_this_machine(
        clock: Arc<dyn Clock>,
        mode: SqliteMode,
        quotas: Quotas,
    ) -> Result<Self, OpenError> {
        let boot = std::fs::read_to_string(BOOT_ID).map_err(io("read", Path::new(BOOT_ID)))?;
        let (boot, faults) = (boot.trim().to_owned(), Faults::from_environment());
        Ok(Self { clock, mode, boot, faults, quotas, vault: None })
    }
}

/// How a group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// What nearly always goes well is found out by trying.
    Blind,
    /// It looks whether an input is there before it writes it.
    Looking,
    /// Each step has a savepoint as well.
    Savepoints,
}

/// An open transaction as a job sees it.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) env: &'a WriteEnv,
    care: Care,
    /// Set when a step has failed that can't be undone alone: how the group is to run again.
    redo: Cell<Option<Care>>,
    heads: RefCell<Heads>,
    /// The seq of the event that it has appended last; 0 before the first.
    pub(super) newest_event: Cell<u64>,
    /// Bytes of rows of copies that it has taken, and of values that it has deleted with all others of their agent.
    moved: Cell<usize>,
}

impl Tx<'_> {
    /// Runs `work` on the row of an agent that is at home here, as the jobs before have left it. What it changes is stored
    /// with what other jobs of the group change, or at once where a savepoint may have to undo it; nothing when it fails.
    ///
    /// # Errors
    /// Those of `work`, and as `leases::at_home`.
    pub(super) fn with_head<T>(
        &self,
        agent: &AgentId,
        work: impl FnOnce(&mut Head) -> Fallible<T>,
    ) -> Fallible<T> {
        let known = self.heads.borrow().get(self.conn, agent)?;
        let mut head = known.map_or_else(|| at_home(self.conn, agent), Ok)?;
        let result = work(&mut head)?;
        if self.has_savepoints() && head.is_changed() {
            head.save(self)?;
        }
        self.heads.borrow_mut().put(head);
        Ok(result)
    }

    /// Stores the rows of agents that the jobs so far have changed.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn store_heads(&self) -> Result<(), rusqlite::Error> {
        self.heads.borrow_mut().store(self)
    }

    /// As `store_heads`; what comes next writes agents' rows by itself.
    pub(super) fn drop_heads(&self) -> Result<(), rusqlite::Error> {
        self.store_heads()?;
        *self.heads.borrow_mut() = Heads::default();
        Ok(())
    }

    /// Counts bytes of rows that come or go with all of an agent's.
    pub(super) fn count_moved(&self, bytes: usize) {
        self.moved.update(|moved| moved + bytes);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.env.clock.wall_ms()
    }

    /// Boot time in nanoseconds.
    pub(super) fn boot_ns(&self) -> u64 {
        nanos(self.env.clock.boot())
    }

    /// Whether what nearly always goes well is found out by trying.
    pub(super) fn is_blind(&self) -> bool {
        self.care == Care::Blind
    }

    /// Whether each step has a savepoint, and is undone alone when it fails.
    pub(super) fn has_savepoints(&self) -> bool {
        self.care == Care::Savepoints
    }

    /// Passes on what writing a row gave that nobody looked for. If it was there, the group runs again and looks.
    pub(super) fn unique<T>(&self, written: Fallible<T>) -> Fallible<T> {
        if let Err(Fail::Engine(error)) = &written
            && error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
            && self.is_blind()
            && self.redo.get().is_none()
        {
            self.redo.set(Some(Care::Looking));
        }
        written
    }

    /// Runs `work`, a step, so that its failure undoes what it wrote and nothing else. After an engine error that may
    /// have hurt the transaction nothing is undone: the writer finds out what is left of it.
    pub(super) fn nested<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<Result<T, E>, Fail>
    where
        E: NestedError,
    {
        if !self.has_savepoints() {
            let changes = self.conn.total_changes();
            let result = work();
            let has_failed = result.as_ref().is_err_and(NestedError::spares_transaction);
            if has_failed && self.conn.total_changes() != changes && self.redo.get().is_none() {
                self.redo.set(Some(Care::Savepoints));
            }
            return Ok(result);
        }
        execute(self.conn, "SAVEPOINT step", [])?;
        let result = work();
        match &result {
            Ok(_) => {}
            Err(error) if !error.spares_transaction() => return Ok(result),
            Err(_) => {
                execute(self.conn, "ROLLBACK TO step", [])?;
            }
        }
        execute(self.conn, "RELEASE step", [])?;
        Ok(result)
    }
}

/// Errors that know whether the transaction is whole after them.
pub(super) trait NestedError {
    fn spares_transaction(&self) -> bool;
}

impl NestedError for Fail {
    fn spares_transaction(&self) -> bool {
        match self {
            Self::Store(_) => true,
            Self::Engine(error) => spares_transaction(error),
        }
    }
}

/// Boot time in nanoseconds, which reach for 292 years.
pub(super) fn nanos(boot: Duration) -> u64 {
    u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX)
}

/// How a job's transaction ended.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It is durable: the job's own answer holds.
    Durable,
    /// Nothing of it was written.
    Refused(StoreError),
    /// The engine can't say.
    Unknown(String),
}

/// A write that waits for its transaction. It may run more than once; only the last run counts.
pub(super) trait Job: Send {
    /// Runs inside a transaction.
    ///
    /// # Errors
    /// An engine error: the transaction, or what is left of it, is rolled back.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), rusqlite::Error>;
    /// Tells the caller.
    fn answer(self: Box<Self>, verdict: Verdict);
    /// About how much it writes, where that is much.
    fn bytes(&self) -> usize;
    /// Whether what it writes counts only once a later write names it: see `Writer::begin`.
    fn is_lazy(&self) -> bool;
}

/// A job made of a closure.
pub(super) struct Work<F, T> {
    body: F,
    /// Whether the body keeps its own steps apart.
    has_steps: bool,
    /// Whether the body takes agents' rows from `Tx::with_head`; all others find them stored.
    pub(super) shares_heads: bool,
    /// About how much it writes, where that is much.
    pub(super) bytes: usize,
    /// As `Job::is_lazy`.
    pub(super) is_lazy: bool,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Work<F, T>
where
    F: FnMut(&Tx<'_>) -> Fallible<T> + Send + 'static,
    T: Send + 'static,
{
    /// A job and where its answer comes.
    pub(super) fn boxed(body: F, has_steps: bool) -> (Box<Self>, oneshot::Receiver<Result<T, StoreError>>) {
        let (caller, answer) = oneshot::channel();
        let work =
            Self { body, has_steps, shares_heads: false, bytes: 0, is_lazy: false, result: None, caller };
        (Box::new(work), answer)
    }
}

impl<F, T> Job for Work<F, T>
where
    F: FnMut(&Tx<'_>) -> Fallible<T> + Send,
    T: Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), rusqlite::Error> {
        if !self.shares_heads {
            tx.drop_heads()?;
        }
        let body = &mut self.body;
        let result = if self.has_steps { body(tx) } else { tx.nested(|| body(tx)).and_then(|result| result) };
        self.result = match result {
            Ok(value) => Some(Ok(value)),
            Err(Fail::Store(error)) => Some(Err(error)),
            // What escapes a body with steps has left some of them behind.
            Err(Fail::Engine(error)) if !self.has_steps && spares_transaction(&error) => {
                Some(Err(of_engine(&error)))
            }
            Err(Fail::Engine(error)) => return Err(error),
        };
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_lazy(&self) -> bool {
        self.is_lazy
    }

    fn answer(self: Box<Self>, verdict: Verdict) {
        let result = match verdict {
            Verdict::Durable => self.result.expect("a job has run before its transaction commits"),
            Verdict::Refused(error) => Err(error),
            Verdict::Unknown(reason) => Err(StoreError::Unknown { reason }),
        };
        // The caller may have gone away; what is durable stays.
        drop(self.caller.send(result));
    }
}

/// What the threads of a store share.
pub(super) struct Shared {
    pub(super) writes: Queue<Box<dyn Job>>,
    /// Set for good when the engine can't be trusted any more: why.
    pub(super) fatal: watch::Sender<Option<String>>,
    /// Transactions committed.
    pub(super) commits: AtomicU64,
    /// Whoever holds it writes.
    pub(super) writer: Mutex<Option<Writer>>,
    pub(super) quiet: Quiet,
}

impl Shared {
    /// Ends the store: nothing it would say from here could be relied on.
    pub(super) fn fail(&self, reason: &str) {
        let is_first = self.fatal.send_if_modified(|fatal| {
            let is_first = fatal.is_none();
            fatal.get_or_insert_with(|| reason.to_owned());
            is_first
        });
        if is_first {
            tracing::error!(error = reason, "store is lost to this process; restart it");
        }
        self.writes.close(reason);
    }

    /// Why the store ended, when it has.
    pub(super) fn failure(&self) -> Option<String> {
        self.fatal.borrow().clone()
    }

    /// What a panic in the middle of a write has left can't be known.
    fn poisoned<T>(&self, error: PoisonError<T>) -> T {
        self.fail("a write panicked");
        error.into_inner()
    }

    /// The writer thread: works until the queue is closed and drained, then closes the connection.
    pub(super) fn run(&self, mode: SqliteMode) {
        while self.writes.wait() {
            // Whoever writes by itself looks at the queue under this lock: first the lock, then the jobs.
            let mut writer = self.writer.lock().unwrap_or_else(|error| self.poisoned(error));
            let jobs = self.take_group();
            if let Some(writer) = writer.as_mut() {
                writer.commit(self, jobs);
            }
            drop(writer);
            if mode == SqliteMode::Shared {
                // Others wait for the write lock in 1 ms steps: let them see it free.
                std::thread::yield_now();
            }
        }
        let writer = self.writer.lock().unwrap_or_else(|error| self.poisoned(error)).take();
        let Some(mut writer) = writer else { return };
        writer.checkpointer.stop(&self.quiet);
        writer.flusher.stop();
        if self.failure().is_some() {
            // Closing the last connection writes the log back into the database: not after a failed fsync.
            std::mem::forget(writer.conn);
        }
    }

    /// The next group: at least one job, if any waits.
    fn take_group(&self) -> Vec<Box<dyn Job>> {
        let mut bytes = 0;
        self.writes.take(GROUP_JOBS_MAX, |job| {
            let fits = bytes < GROUP_BYTES_MAX;
            bytes += job.bytes();
            fits
        })
    }

    /// The writer, for the calling thread, if nobody writes and nothing waits.
    pub(super) fn idle_writer(&self) -> Option<IdleWriter<'_>> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(error)) => self.poisoned(error),
            Err(TryLockError::WouldBlock) => return None,
        };
        (writer.is_some() && self.writes.is_idle()).then_some(IdleWriter { shared: self, writer })
    }
}

/// The writer while nobody else uses it. Writes that are queued meanwhile wait for its drop.
pub(super) struct IdleWriter<'a> {
    shared: &'a Shared,
    writer: MutexGuard<'a, Option<Writer>>,
}

impl IdleWriter<'_> {
    /// Commits one job and answers it. A write that panics ends the store; its job is dropped.
    pub(super) fn run(mut self, job: Box<dyn Job>) {
        let shared = self.shared;
        let write = || {
            if let Some(writer) = self.writer.as_mut() {
                writer.commit(shared, vec![job]);
            }
        };
        if std::panic::catch_unwind(AssertUnwindSafe(write)).is_err() {
            shared.fail("a write panicked");
        }
    }
}

/// The one connection that writes, and what goes with it.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) env: Arc<WriteEnv>,
    pub(super) checkpointer: Checkpointer,
    /// How many of the next groups run with savepoints, or look before they write, from the start.
    pub(super) savepoint_groups: u32,
    pub(super) looking_groups: u32,
    /// Whether the connection commits without an fsync now.
    pub(super) is_lazy: bool,
    pub(super) flusher: Flusher,
    /// Bytes of rows that were moved so since the page cache was given back.
    pub(super) cached_bytes: usize,
    /// By the group that was committed last.
    pub(super) last: Written,
    /// Rows of agents as the last group has left them: nobody else writes them, but for processes that share the file.
    pub(super) heads: Heads,
    /// The seq of the event that it has appended last, for those who wait.
    pub(super) newest_event: watch::Sender<u64>,
}

/// Starts the writer thread. A write that panics ends the store, and the thread goes on to say so to all who wait.
pub(super) fn start(writer: Writer, shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let mode = writer.env.mode;
    *shared.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("godwit-write".to_owned()).spawn(move || {
        while std::panic::catch_unwind(AssertUnwindSafe(|| shared.run(mode))).is_err() {
            shared.fail("a write panicked");
        }
    })
}

/// What a group has written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    has_changed: bool,
    /// See `Tx::count_moved`.
    moved_bytes: usize,
}

enum Group {
    Durable,
    /// Rolled back because of this error.
    RolledBack(rusqlite::Error),
    /// COMMIT said that the disk is full, and the transaction is rolled back.
    Full,
    Unknown(String),
}

impl Writer {
    fn commit(&mut self, shared: &Shared, mut jobs: Vec<Box<dyn Job>>) {
        self.env.faults.delay_commit();
        if let Some(reason) = shared.failure() {
            return answer_all(jobs, &Verdict::Refused(StoreError::Closed { reason }));
        }
        match self.try_commit(&mut jobs) {
            Group::Durable => {
                shared.commits.fetch_add(1, Ordering::Relaxed);
                self.note_written(shared);
                answer_all(jobs, &Verdict::Durable);
                self.checkpointer.committed(&self.conn);
            }
            Group::RolledBack(_) if jobs.len() > 1 => {
                for job in jobs {
                    self.commit(shared, vec![job]);
                }
            }
            Group::RolledBack(error) if is_io(&error) => {
                let reason = error.to_string();
                shared.fail(&reason);
                answer_all(jobs, &Verdict::Refused(StoreError::Closed { reason }));
            }
            Group::RolledBack(error) => answer_all(jobs, &Verdict::Refused(of_engine(&error))),
            Group::Full => answer_all(jobs, &Verdict::Refused(StoreError::Full)),
            Group::Unknown(reason) => {
                shared.fail(&reason);
                answer_all(jobs, &Verdict::Unknown(reason));
            }
        }
    }

    /// What the last group has written counts as waiting for an fsync, or had one with all before it.
    fn note_written(&mut self, shared: &Shared) {
        let Written { has_changed, moved_bytes } = self.last;
        self.cached_bytes += moved_bytes;
        if self.is_lazy && moved_bytes > 0 {
            self.flusher.committed_lazily(moved_bytes);
            shared.quiet.committed_lazily();
        }
        // One that changes nothing writes nothing, and has none.
        if !self.is_lazy && has_changed {
            self.flusher.committed();
        }
    }

    fn try_commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Group {
        let mut care = match (self.savepoint_groups, self.looking_groups) {
            (0, 0) => Care::Blind,
            (0, _) => Care::Looking,
            _ => Care::Savepoints,
        };
        self.savepoint_groups = self.savepoint_groups.saturating_sub(1);
        self.looking_groups = self.looking_groups.saturating_sub(1);
        loop {
            care = match self.try_commit_so(jobs, care) {
                Ok(group) => return group,
                Err(care) => care,
            };
            match care {
                Care::Blind => {}
                Care::Looking => self.looking_groups = CAREFUL_GROUPS,
                Care::Savepoints => self.savepoint_groups = CAREFUL_GROUPS,
            }
        }
    }

    /// `Err` when all was rolled back because a step has failed, and how to run it again: with more care each time.
    fn try_commit_so(&mut self, jobs: &mut [Box<dyn Job>], care: Care) -> Result<Group, Care> {
        // They are kept only if all goes well. With savepoints a step that fails would leave them ahead of the rows.
        let heads = std::mem::take(&mut self.heads);
        let heads = RefCell::new(if care == Care::Savepoints { Heads::default() } else { heads });
        if let Err(error) = self.begin(jobs) {
            return Ok(Group::RolledBack(error));
        }
        let (redo, newest_event) = (Cell::new(None), Cell::new(0));
        let (changes, moved) = (self.conn.total_changes(), Cell::new(0));
        let tx = Tx { conn: &self.conn, env: &self.env, care, redo, heads, newest_event, moved };
        for job in jobs {
            match (job.run(&tx), tx.redo.get()) {
                (Ok(()), None) => {}
                // What it met beside that may have hurt the transaction.
                (Err(error), Some(_)) if !spares_transaction(&error) => return Ok(self.roll_back(error)),
                (_, Some(care)) => return self.undo().ok_or(care),
                (Err(error), None) => return Ok(self.roll_back(error)),
            }
        }
        if let Err(error) = tx.store_heads() {
            return Ok(self.roll_back(error));
        }
        let (heads, newest_event) = (tx.heads.into_inner(), tx.newest_event.get());
        self.last =
            Written { has_changed: self.conn.total_changes() != changes, moved_bytes: tx.moved.get() };
        let group = self.end_transaction();
        if matches!(group, Group::Durable) && newest_event > 0 {
            self.newest_event.send_replace(newest_event);
        }
        if matches!(group, Group::Durable) && self.env.mode == SqliteMode::Exclusive {
            self.heads = heads.kept();
        }
        Ok(group)
    }

    /// Begins a transaction. When everything in it is lazy it commits without an fsync.
    ///
    /// What is lazy is put for a later write that names it (rows of a copy, for the one that binds it), and nobody is told before
    /// that one. The log is one file that is written from front to back, so the fsync of that one's commit is also theirs; after a
    /// power failure, recovery takes frames in order up to the first that is not whole, so whoever is there has all before it
    /// beside it. The flusher only does earlier what that fsync would have to do. A checkpoint syncs the log before it moves
    /// anything out of it, and only then the log starts over. A process that dies loses nothing: what it has written is the
    /// system's.
    fn begin(&mut self, jobs: &[Box<dyn Job>]) -> rusqlite::Result<()> {
        let is_lazy = self.flusher.waiting() < LAZY_BYTES_MAX && jobs.iter().all(|job| job.is_lazy());
        if is_lazy != self.is_lazy {
            let level = if is_lazy { "NORMAL" } else { "FULL" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.is_lazy = is_lazy;
        }
        if self.cached_bytes >= CACHED_BYTES_MAX {
            self.conn.execute_batch("PRAGMA shrink_memory")?;
            self.cached_bytes = 0;
        }
        run_cached(&self.conn, "BEGIN IMMEDIATE")
    }

    /// Rolls back what was well until now.
    fn undo(&self) -> Option<Group> {
        let undone = run_cached(&self.conn, "ROLLBACK");
        undone.err().map(|error| Group::Unknown(format!("rolling back failed: {error}")))
    }

    fn end_transaction(&self) -> Group {
        failpoint::hit("store.before-commit");
        match run_cached(&self.conn, "COMMIT") {
            Ok(()) => {
                failpoint::hit("store.after-commit");
                Group::Durable
            }
            Err(error) => self.after_failed_commit(&error),
        }
    }

    /// FULL, IOERR, NOMEM and INTERRUPT may have rolled back by themselves; then there is nothing left to roll back.
    fn roll_back(&self, error: rusqlite::Error) -> Group {
        if self.conn.is_autocommit() {
            return Group::RolledBack(error);
        }
        match run_cached(&self.conn, "ROLLBACK") {
            Ok(()) => Group::RolledBack(error),
            Err(second) => Group::Unknown(format!("{error}; then rolling back failed: {second}")),
        }
    }

    fn after_failed_commit(&self, error: &rusqlite::Error) -> Group {
        let is_rolled_back = self.conn.is_autocommit() || run_cached(&self.conn, "ROLLBACK").is_ok();
        match error.sqlite_error_code() {
            // No page of the transaction carries the commit mark: it was the write that failed, not the sync.
            Some(ErrorCode::DiskFull) if is_rolled_back => Group::Full,
            _ => Group::Unknown(error.to_string()),
        }
    }
}

fn run_cached(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

fn answer_all(jobs: Vec<Box<dyn Job>>, verdict: &Verdict) {
    for job in jobs {
        job.answer(verdict.clone());
    }
}
