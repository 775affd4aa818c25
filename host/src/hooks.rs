//! Hooks: what an embedder is told of, beside the event log.
//!
//! ```text
//! runtime --(never waits)--> HookQueue --bounded, in order--> one thread --> Hooks, one call at a time, each with a limit
//! ```
//! A hook is a hint: what must not be missed is read from the event log, which is durable. So a hook that is slow, hangs or
//! panics delays nobody: calls that find the queue full are dropped, counted and logged. A kind of call is a method of
//! `Hooks`, one of `HookQueue` that puts it into the queue, and a variant of `Call`.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use godwit_core::id::{AgentId, Incarnation};
use godwit_core::store::BrokenReason;
use godwit_core::time::within;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::runtime::reconcile::ReconcileReport;

/// Calls that wait; more are dropped. An embedder that is behind by so many reads the event log.
pub const HOOK_CALLS_MAX: usize = 1_024;
/// How long one call may take before it is given up.
pub const HOOK_CALL_TIME_MAX: Duration = Duration::from_secs(5);

/// What an embedder is told. Calls come one at a time, in the order in which things happened, on a thread of their own within
/// the host's tokio runtime; one that takes longer than `HOOK_CALL_TIME_MAX` is dropped where it awaits. One that blocks its
/// thread holds up the calls behind it, and nothing else.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// Agents were created here.
    async fn post_spawn(&self, agents: &[AgentId]) {
        let _ = agents;
    }

    /// A reconcile has made agents and edges those of the roster, as far as it could.
    async fn post_reconcile(&self, report: &ReconcileReport) {
        let _ = report;
    }

    /// Something went wrong that somebody may want to act on.
    async fn error(&self, event: &ErrorEvent) {
        let _ = event;
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorEvent {
    /// An agent can't run until somebody acts.
    #[error("agent {agent} is broken: {}: {}", reason.name(), reason.message())]
    AgentBroken {
        /// Which.
        agent: AgentId,
        /// Why.
        reason: BrokenReason,
    },
    /// An agent has work and makes no progress.
    #[error("agent {agent} makes no progress: {reason}")]
    AgentStuck {
        /// Which.
        agent: AgentId,
        /// Why, as far as it shows.
        reason: String,
        /// For how long.
        still: Duration,
    },
    /// The store has ended this host's session: everything under it stopped. The host joins again by itself, if no newer
    /// process uses its key.
    #[error("session {incarnation} is lost: everything under it has stopped")]
    SessionLost {
        /// Which session.
        incarnation: Incarnation,
    },
    /// The host can't go on: stop it.
    #[error("host can't go on: {reason}")]
    HostFailed {
        /// Why.
        reason: String,
    },
}

/// How calls have gone so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookCounts {
    /// Calls that came back in time.
    pub done: u64,
    /// Calls that were given up at the limit.
    pub timed_out: u64,
    /// Calls that panicked.
    pub panicked: u64,
    /// Calls that were never made: the queue was full, or closed.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Counters {
    done: AtomicU64,
    timed_out: AtomicU64,
    panicked: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Call {
    PostSpawn(Vec<AgentId>),
    PostReconcile(Box<ReconcileReport>),
    Error(ErrorEvent),
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Self::PostSpawn(_) => "post_spawn",
            Self::PostReconcile(_) => "post_reconcile",
            Self::Error(_) => "error",
        }
    }

    async fn make(&self, hooks: &dyn Hooks) {
        match self {
            Self::PostSpawn(agents) => hooks.post_spawn(agents).await,
            Self::PostReconcile(report) => hooks.post_reconcile(report).await,
            Self::Error(event) => hooks.error(event).await,
        }
    }
}

/// Tells hooks, without ever waiting for them. Cheap to clone. The default one tells nobody.
#[derive(Debug, Clone, Default)]
pub struct HookQueue(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    /// Taken out when the queue is closed: what waits is still called.
    calls: Mutex<Option<mpsc::Sender<Call>>>,
    counters: Arc<Counters>,
    /// Closed by the thread when it ends.
    ended: watch::Receiver<()>,
}

impl HookQueue {
    /// Starts the thread that calls `hooks`. It ends when the queue is closed, or its last clone dropped.
    ///
    /// # Errors
    /// When there is no thread to have.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(hooks: Arc<dyn Hooks>) -> std::io::Result<Self> {
        Self::start_with(hooks, HOOK_CALLS_MAX, HOOK_CALL_TIME_MAX)
    }

    fn start_with(hooks: Arc<dyn Hooks>, waiting_max: usize, limit: Duration) -> std::io::Result<Self> {
        let (calls, queue) = mpsc::channel(waiting_max);
        let (working, ended) = watch::channel(());
        let (counters, runtime) = (Arc::<Counters>::default(), Handle::current());
        let counted = counters.clone();
        std::thread::Builder::new().name("godwit-hooks".to_owned()).spawn(move || {
            runtime.block_on(call_in_order(queue, hooks.as_ref(), limit, &counted));
            drop(hooks);
            drop(working);
        })?;
        Ok(Self(Some(Arc::new(Shared { calls: Mutex::new(Some(calls)), counters, ended }))))
    }

    /// Tells that agents were created here.
    pub fn post_spawn(&self, agents: Vec<AgentId>) {
        self.put(|| Call::PostSpawn(agents));
    }

    /// Tells what a reconcile did.
    pub fn post_reconcile(&self, report: &ReconcileReport) {
        self.put(|| Call::PostReconcile(Box::new(report.clone())));
    }

    /// Tells that something went wrong.
    pub fn error(&self, event: ErrorEvent) {
        self.put(|| Call::Error(event));
    }

    fn put(&self, call: impl FnOnce() -> Call) {
        let Some(shared) = &self.0 else { return };
        let call = call();
        let kind = call.name();
        let calls = shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = calls.as_ref().is_some_and(|calls| calls.try_send(call).is_ok());
        drop(calls);
        if !is_taken {
            let dropped = shared.counters.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // Each power of two: a queue that stays full must not fill the log.
            if dropped.is_power_of_two() {
                tracing::warn!(kind, dropped, "hooks are behind: calls are dropped");
            }
        }
    }

    /// How calls have gone so far.
    pub fn counts(&self) -> HookCounts {
        let Some(shared) = &self.0 else { return HookCounts::default() };
        let Counters { done, timed_out, panicked, dropped } = shared.counters.as_ref();
        HookCounts {
            done: done.load(Ordering::Relaxed),
            timed_out: timed_out.load(Ordering::Relaxed),
            panicked: panicked.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
        }
    }

    /// Takes no more calls, and waits until those that wait have been made and the thread has ended, at most for `limit`.
    /// Answers whether it has.
    pub async fn close(&self, limit: Duration) -> bool {
        let Some(shared) = &self.0 else { return true };
        drop(shared.calls.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut ended = shared.ended.clone();
        within(limit, async { while ended.changed().await.is_ok() {} }).await.is_some()
    }
}

async fn call_in_order(
    mut queue: mpsc::Receiver<Call>,
    hooks: &dyn Hooks,
    limit: Duration,
    counters: &Counters,
) {
    while let Some(call) = queue.recv().await {
        let kind = call.name();
        // A hook that panics is the embedder's own: what it holds is not ours to judge, and the next call is made.
        let made = AssertUnwindSafe(call.make(hooks)).catch_unwind();
        let counter = match within(limit, made).await {
            Some(Ok(())) => &counters.done,
            Some(Err(_)) => {
                tracing::error!(kind, "a hook panicked");
                &counters.panicked
            }
            None => {
                tracing::warn!(kind, limit_ms = limit.as_millis(), "a hook took too long and was given up");
                &counters.timed_out
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
