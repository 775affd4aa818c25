//! The bounded set of threads that guests run on.
//!
//! Guest calls are synchronous and may use their whole deadline, so they get plain threads instead of async workers. One
//! plugin may hold at most half of the threads; the others' jobs pass it by, in turn. A thread that comes back from a job with
//! a lower priority than it had (the engine lowers that of a long call) is replaced by a fresh one.
//!
//! When no turn runs or waits, a job that should be short may stay on the runtime's thread that it comes from (`run_here`),
//! and starts at once there; the runtime's tasks go on elsewhere meanwhile.
//!
//! Queries have threads of their own, by the same rules: an agent is to answer them while turns take all the others.
//!
//! `alone` holds all other jobs back, for an input that is suspected of killing the process.
//!
//! A pool that is `inline` has no threads: jobs run one after the other in the tasks that bring them, for simulations.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use crate::digest::Digest;
use crate::limits::QUERIES_RUNNING_MAX;

/// Pause before another try to start a thread.
const STAFF_RETRY: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// How long a job of a pool without threads takes: awaited once before each job and once behind it.
pub type Pace = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

thread_local! {
    static IS_REPLACEABLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the runtime can go on with other tasks while one blocks its thread.
fn has_other_threads() -> bool {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    flavor.ok() == Some(RuntimeFlavor::MultiThread)
}

/// Does what blocks for a moment; the runtime's other tasks go on elsewhere meanwhile, if there is an elsewhere.
pub(crate) fn aside<T>(job: impl FnOnce() -> T) -> T {
    if has_other_threads() { tokio::task::block_in_place(job) } else { job() }
}

/// Whether the calling thread may give up its priority for good: it is one of a pool, which replaces it.
pub fn is_replaceable() -> bool {
    IS_REPLACEABLE.get()
}

/// Threads for guest calls.
pub struct GuestPool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Wakes the foreman.
    shortage: Condvar,
    /// Tells who holds others back that the last of their jobs has ended.
    drained: Notify,
    /// One at a time may hold others back.
    lone: Arc<tokio::sync::Mutex<()>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Without threads: the pace of the jobs.
    pace: Option<Pace>,
}

#[derive(Default)]
struct Queue {
    turns: Share,
    queries: Share,
    running: usize,
    /// Threads that sleep.
    idle: usize,
    /// Whether one of them has been called and is on its way. It calls the next one, if there is more to do.
    is_calling: bool,
    /// Set while somebody holds others back: only these jobs run.
    lone: Option<VecDeque<Job>>,
    /// Threads to be started.
    missing: usize,
    is_closed: bool,
}

/// What a guest is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A turn, and what belongs to turns.
    Turn,
    /// A query.
    Query,
}

/// The jobs of one kind, and the share of the threads that they may take.
#[derive(Default)]
struct Share {
    /// Plugins with waiting jobs, in the order in which they are served.
    turn: VecDeque<Digest>,
    lanes: BTreeMap<Digest, Lane>,
    running: usize,
    running_max: usize,
    per_plugin_max: usize,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    running: usize,
}

/// Why a job gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The pool is closed; the job did not and will not run.
    #[error("guest threads have stopped")]
    Closed,
    /// It panicked: the host is at fault, and what the job held is gone.
    #[error("a guest job panicked")]
    Panicked,
}

impl GuestPool {
    /// Starts `threads` threads (at least 2), and `QUERIES_RUNNING_MAX` for queries.
    pub fn start(threads: usize) -> Arc<Self> {
        let threads = threads.max(2);
        let queue = Queue {
            turns: Share::of(threads),
            queries: Share::of(QUERIES_RUNNING_MAX),
            missing: threads + QUERIES_RUNNING_MAX,
            ..Queue::default()
        };
        let shared = Arc::new(Shared::of(queue, None));
        let foreman = shared.clone();
        let started = shared.add_thread("guests", move || foreman.keep_staffed());
        started.expect("the process may start a thread at start-up");
        Arc::new(Self { shared })
    }

    /// A pool without threads. Its jobs block the tasks that bring them, and end with them.
    pub fn inline(pace: Pace) -> Arc<Self> {
        Arc::new(Self { shared: Arc::new(Shared::of(Queue::default(), Some(pace))) })
    }

    /// Whether it has no threads.
    pub fn is_inline(&self) -> bool {
        self.shared.pace.is_some()
    }

    /// Runs `job` on one of the threads, after earlier jobs of the same plugin.
    ///
    /// # Errors
    /// `PoolError`.
    ///
    /// # Cancel safety
    /// Dropping the future lets the job run to its end; its value is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        plugin: Digest,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        self.run_kind(Kind::Turn, plugin, job).await
    }

    /// Runs `job`, a query, on one of the threads, after earlier queries of the same plugin.
    ///
    /// # Errors
    /// As `run`.
    ///
    /// # Cancel safety
    /// As `run`.
    pub async fn run_query<T: Send + 'static>(
        &self,
        plugin: Digest,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        self.run_kind(Kind::Query, plugin, job).await
    }

    /// Runs `job`, which should be short, on the calling thread of the runtime, if no turn runs or waits and the runtime can
    /// spare it; otherwise gives it back. Blocks; another thread takes over the runtime's other tasks.
    pub(crate) fn run_here<T, F: FnOnce() -> T>(
        &self,
        plugin: Digest,
        job: F,
    ) -> Result<Result<T, PoolError>, F> {
        if !has_other_threads() || !self.shared.lock().enter(plugin) {
            return Err(job);
        }
        let ran = tokio::task::block_in_place(|| catch_unwind(AssertUnwindSafe(job)));
        let mut queue = self.shared.leave(Some((Kind::Turn, plugin)));
        self.shared.call_thread(&mut queue);
        drop(queue);
        Ok(ran.map_err(|_| {
            tracing::error!(%plugin, "a guest job panicked");
            PoolError::Panicked
        }))
    }

    async fn run_kind<T: Send + 'static>(
        &self,
        kind: Kind,
        plugin: Digest,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        if let Some(pace) = &self.shared.pace {
            pace().await;
            // Nobody else's job runs while one runs alone.
            let turn = self.shared.lone.lock().await;
            let ran = self.shared.run_inline(job);
            drop(turn);
            pace().await;
            return ran;
        }
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || drop(done.send(job())));
        {
            let mut queue = self.shared.lock();
            if queue.is_closed {
                return Err(PoolError::Closed);
            }
            queue.share(kind).push(plugin, job);
            self.shared.call_thread(&mut queue);
        }
        result.await.map_err(|_| self.shared.reason())
    }

    /// Holds all other jobs back, once those that run have ended, until the answer is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future lets the others go on.
    pub(crate) async fn alone(&self) -> Alone {
        let turn = self.shared.lone.clone().lock_owned().await;
        if self.shared.pace.is_some() {
            return Alone { shared: self.shared.clone(), _turn: turn };
        }
        self.shared.lock().lone = Some(VecDeque::new());
        let alone = Alone { shared: self.shared.clone(), _turn: turn };
        loop {
            let drained = self.shared.drained.notified();
            if self.shared.lock().running == 0 {
                return alone;
            }
            drained.await;
        }
    }

    /// Whether a job, but no query, waits for a thread.
    pub fn has_waiting(&self) -> bool {
        !self.shared.lock().turns.turn.is_empty()
    }

    /// Refuses new jobs, drops the waiting ones and joins the threads. Blocks until running jobs have ended.
    pub fn close(&self) {
        {
            let mut queue = self.shared.lock();
            queue.is_closed = true;
            queue.turns.clear();
            queue.queries.clear();
            queue.lone = None;
        }
        self.shared.wake.notify_all();
        self.shared.shortage.notify_all();
        loop {
            let threads = std::mem::take(&mut *self.shared.threads());
            if threads.is_empty() {
                break;
            }
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a guest thread panicked");
                }
            }
        }
        // What runs elsewhere.
        let mut queue = self.shared.lock();
        while queue.running > 0 {
            queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The right to be the only one whose jobs run. Others go on when it is dropped.
pub(crate) struct Alone {
    shared: Arc<Shared>,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Alone {
    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// As `GuestPool::run`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        if let Some(pace) = &self.shared.pace {
            pace().await;
            return self.shared.run_inline(job);
        }
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || drop(done.send(job())));
        {
            let mut queue = self.shared.lock();
            let is_closed = queue.is_closed;
            let lone = queue.lone.as_mut().filter(|_| !is_closed).ok_or(PoolError::Closed)?;
            lone.push_back(job);
        }
        // Whichever thread wakes takes it: no other job may start.
        self.shared.wake.notify_all();
        result.await.map_err(|_| self.shared.reason())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.shared.lock().lone = None;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn of(queue: Queue, pace: Option<Pace>) -> Self {
        Self {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            shortage: Condvar::new(),
            drained: Notify::new(),
            lone: Arc::default(),
            threads: Mutex::default(),
            pace,
        }
    }

    /// Runs a job of a pool without threads.
    fn run_inline<T>(&self, job: impl FnOnce() -> T) -> Result<T, PoolError> {
        if self.lock().is_closed {
            return Err(PoolError::Closed);
        }
        catch_unwind(AssertUnwindSafe(job)).map_err(|_| PoolError::Panicked)
    }

    /// Why a job was dropped without an answer.
    fn reason(&self) -> PoolError {
        if self.lock().is_closed { PoolError::Closed } else { PoolError::Panicked }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work)?;
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// The foreman: starts threads at its own priority, which they inherit.
    fn keep_staffed(self: &Arc<Self>) {
        let mut queue = self.lock();
        while !queue.is_closed {
            if queue.missing == 0 {
                queue = self.shortage.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(queue);
            let shared = self.clone();
            let started = self.add_thread("guest", move || shared.work());
            queue = self.lock();
            match started {
                Ok(()) => queue.missing -= 1,
                Err(error) => {
                    tracing::error!(%error, "a guest thread can't be started now");
                    let waited = self.shortage.wait_timeout(queue, STAFF_RETRY);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Wakes a thread if a job may run and none is on its way to it: a wake of a thread for nothing costs as much as a job.
    fn call_thread(&self, queue: &mut Queue) {
        if queue.idle > 0 && !queue.is_calling && queue.has_runnable() {
            queue.is_calling = true;
            self.wake.notify_one();
        }
    }

    /// A job has ended.
    fn leave(&self, lane: Option<(Kind, Digest)>) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        queue.finished(lane);
        if queue.running == 0 {
            self.drained.notify_waiters();
            if queue.is_closed {
                self.wake.notify_all();
            }
        }
        queue
    }

    fn work(self: &Arc<Self>) {
        let priority = own_priority();
        IS_REPLACEABLE.set(true);
        let mut queue = self.lock();
        while !queue.is_closed {
            let Some((lane, job)) = queue.pop() else {
                queue.idle += 1;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                queue.is_calling = false;
                continue;
            };
            self.call_thread(&mut queue);
            drop(queue);
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                let plugin = lane.map(|(_, plugin)| tracing::field::display(plugin));
                tracing::error!(plugin, "a guest job panicked");
            }
            // Before the lock: others wait for it, and this thread may be slow.
            let is_demoted = own_priority() > priority;
            queue = self.leave(lane);
            if is_demoted && !queue.is_closed {
                self.call_thread(&mut queue);
                queue.missing += 1;
                self.shortage.notify_one();
                return;
            }
        }
    }
}

/// The nice value of this thread; higher is less.
fn own_priority() -> i32 {
    rustix::process::getpriority_process(None).unwrap_or(0)
}

impl Queue {
    fn share(&mut self, kind: Kind) -> &mut Share {
        match kind {
            Kind::Turn => &mut self.turns,
            Kind::Query => &mut self.queries,
        }
    }

    /// The next job that may run, and whose it is; a lone one is nobody's.
    fn pop(&mut self) -> Option<(Option<(Kind, Digest)>, Job)> {
        if let Some(lone) = &mut self.lone {
            let job = lone.pop_front()?;
            self.running += 1;
            return Some((None, job));
        }
        let kinds = [Kind::Turn, Kind::Query].into_iter();
        let (kind, (plugin, job)) = kinds.filter_map(|kind| Some((kind, self.share(kind).pop()?))).next()?;
        self.running += 1;
        Some((Some((kind, plugin)), job))
    }

    /// Whether `pop` would give a job.
    fn has_runnable(&self) -> bool {
        match &self.lone {
            Some(lone) => !lone.is_empty(),
            None => self.turns.has_runnable() || self.queries.has_runnable(),
        }
    }

    /// Counts a turn that runs without having waited, if no other one runs or waits.
    fn enter(&mut self, plugin: Digest) -> bool {
        let is_idle = self.turns.running == 0 && self.turns.turn.is_empty();
        if self.is_closed || self.lone.is_some() || !is_idle {
            return false;
        }
        self.running += 1;
        self.turns.enter(plugin);
        true
    }

    fn finished(&mut self, lane: Option<(Kind, Digest)>) {
        self.running = self.running.saturating_sub(1);
        if let Some((kind, plugin)) = lane {
            self.share(kind).finished(plugin);
        }
    }
}

impl Share {
    fn of(threads: usize) -> Self {
        Self { running_max: threads, per_plugin_max: threads / 2, ..Self::default() }
    }

    fn clear(&mut self) {
        self.lanes.clear();
        self.turn.clear();
    }

    fn push(&mut self, plugin: Digest, job: Job) {
        let lane = self.lanes.entry(plugin).or_default();
        if lane.waiting.is_empty() {
            self.turn.push_back(plugin);
        }
        lane.waiting.push_back(job);
    }

    fn enter(&mut self, plugin: Digest) {
        self.running += 1;
        self.lanes.entry(plugin).or_default().running += 1;
    }

    /// The place in `turn` of the first plugin that has a thread left.
    fn next(&self) -> Option<usize> {
        let has_thread =
            |plugin| self.lanes.get(plugin).is_some_and(|lane| lane.running < self.per_plugin_max);
        if self.running == self.running_max { None } else { self.turn.iter().position(has_thread) }
    }

    fn has_runnable(&self) -> bool {
        self.next().is_some()
    }

    /// The next job of the first plugin in turn that has a thread left.
    fn pop(&mut self) -> Option<(Digest, Job)> {
        let index = self.next()?;
        let plugin = self.turn.remove(index)?;
        let lane = self.lanes.get_mut(&plugin)?;
        let job = lane.waiting.pop_front()?;
        lane.running += 1;
        self.running += 1;
        if !lane.waiting.is_empty() {
            self.turn.push_back(plugin);
        }
        Some((plugin, job))
    }

    /// A job of the plugin has ended.
    fn finished(&mut self, plugin: Digest) {
        self.running = self.running.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(&plugin) {
            lane.running = lane.running.saturating_sub(1);
            if lane.running == 0 && lane.waiting.is_empty() {
                self.lanes.remove(&plugin);
            }
        }
    }
}

#[cfg(test)]
mod tests;
