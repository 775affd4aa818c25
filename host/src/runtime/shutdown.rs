//! Ordered shutdown, phase by phase, each measured. What one phase ends is what the next one must not find at work any more:
//!
//! ```text
//! admission    new calls are refused; what works by itself begins nothing
//! turns        those that run end, or are interrupted when the time is over: their inputs wait where they were
//! checkpoints  drivers end; an agent with a long tail is snapshotted first; calls that were in have their answers
//! outbox       what the last turns have sent is delivered, as far as time allows
//! leases       nobody acts under them any more: the session is left
//! flush        hooks hear what happened, the store answers that all is durable
//! close        mesh, guest threads
//! ```
//! Nothing here is needed for safety: a host that dies in any of the phases is found by the next start as after any crash.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use godwit_core::agent::{Handle, Interrupted};
use godwit_core::failpoint;
use godwit_core::id::AgentId;
use godwit_core::limits::PAGE_MAX;
use godwit_core::store::{Page, StoreError};
use godwit_core::task::TaskGroup;
use godwit_core::time::{sleep, within};
use tokio::sync::watch;

use super::Runtime;

/// How long turns may go on before they are interrupted: most are over long before, and a guest call has a deadline of its own.
const TURNS_MAX: Duration = Duration::from_secs(10);
/// How long outputs are tried: receivers that answer do so in milliseconds.
const OUTBOX_MAX: Duration = Duration::from_secs(2);
/// How long the outputs of an agent are counted at most.
const COUNT_MAX: Duration = Duration::from_secs(1);
/// How long an interrupted turn is waited for: ten times what it may take.
const INTERRUPT_MAX: Duration = Duration::from_secs(1);
/// How long drivers may take to write their snapshots and end.
const CHECKPOINTS_MAX: Duration = Duration::from_secs(5);
/// How long calls that were in may take to end when the drivers have.
const CALLS_MAX: Duration = Duration::from_secs(2);
/// How long deliveries that were begun may take to end when the time for the outbox is over.
const PUBLISHERS_MAX: Duration = Duration::from_millis(500);
/// How long what works by itself may take to notice.
const TASKS_MAX: Duration = Duration::from_secs(5);
/// How long the keeper of the session may take, and the store to end it.
const LEASES_MAX: Duration = Duration::from_secs(5);
/// How long hooks are waited for, and the store's answer that all is durable.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How long mesh and guest threads may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Pause between looks at drivers.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Pages of agents with work that are looked through for outputs, at most.
const PAGES_MAX: usize = 256;

/// How long shutdown waits for what needs others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownBounds {
    /// For turns, before they are interrupted.
    pub turns: Duration,
    /// For outputs, before they are left for the next owner.
    pub outbox: Duration,
}

impl Default for ShutdownBounds {
    fn default() -> Self {
        Self { turns: TURNS_MAX, outbox: OUTBOX_MAX }
    }
}

/// A phase of shutdown, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing new is taken.
    Admission,
    /// Turns end or are interrupted.
    Turns,
    /// Drivers end, with a last snapshot where it pays.
    Checkpoints,
    /// Outputs are delivered.
    Outbox,
    /// The session is left, its leases are free.
    Leases,
    /// Hooks and store have everything.
    Flush,
    /// Sockets and threads are gone.
    Close,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 7] = [
        Self::Admission,
        Self::Turns,
        Self::Checkpoints,
        Self::Outbox,
        Self::Leases,
        Self::Flush,
        Self::Close,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Turns => "turns",
            Self::Checkpoints => "checkpoints",
            Self::Outbox => "outbox",
            Self::Leases => "leases",
            Self::Flush => "flush",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How one phase went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// How long it took.
    pub elapsed: Duration,
    /// What did not go as it should; empty when all is well. The phases behind it were gone through all the same.
    pub troubles: Vec<String>,
}

/// What a shutdown has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// The phases that were gone through, in order: all, if the process lived.
    pub phases: Vec<PhaseReport>,
    /// Calls that were in when it began.
    pub calls: u64,
    /// Turns that ran when it began and ended by themselves.
    pub turns_finished: u64,
    /// Turns that were ended when the time was over; their inputs wait where they were.
    pub turns_interrupted: u64,
    /// Snapshots that drivers took before they ended.
    pub checkpoints: u64,
    /// Outputs that their receivers have taken.
    pub outputs_sent: u64,
    /// Outputs that wait for the next owner.
    pub outputs_left: u64,
    /// Leases that are free for others.
    pub leases_released: u64,
    /// Hook calls that were never made, since the start.
    pub hooks_dropped: u64,
    /// Tasks and threads that had not ended.
    pub tasks_left: u64,
}

impl ShutdownReport {
    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        self.phases.iter().map(|phase| phase.elapsed).sum()
    }

    /// Everything that did not go as it should, each with its phase.
    pub fn troubles(&self) -> impl Iterator<Item = (Phase, &str)> {
        let of = |report: &'_ PhaseReport| report.phase;
        self.phases
            .iter()
            .flat_map(move |report| report.troubles.iter().map(move |trouble| (of(report), trouble.as_str())))
    }

    /// What is counted in a phase.
    pub fn counts(&self, phase: Phase) -> Vec<(&'static str, u64)> {
        match phase {
            Phase::Admission => vec![("calls", self.calls)],
            Phase::Turns => {
                vec![("finished", self.turns_finished), ("interrupted", self.turns_interrupted)]
            }
            Phase::Checkpoints => vec![("written", self.checkpoints)],
            Phase::Outbox => vec![("sent", self.outputs_sent), ("left", self.outputs_left)],
            Phase::Leases => vec![("released", self.leases_released)],
            Phase::Flush => vec![("hooks_dropped", self.hooks_dropped)],
            Phase::Close => vec![("tasks_left", self.tasks_left)],
        }
    }

    /// What a host closes beside its runtime belongs to the last phase.
    pub(crate) fn longer_at_close(&mut self, elapsed: Duration) {
        if let Some(close) = self.phases.last_mut() {
            close.elapsed += elapsed;
        }
    }

    /// Something of a host that its runtime does not know did not close.
    pub(crate) fn trouble_at_close(&mut self, trouble: &str) {
        tracing::warn!(phase = %Phase::Close, trouble, "shutdown goes on without it");
        if let Some(close) = self.phases.last_mut() {
            close.troubles.push(trouble.to_owned());
        }
    }

    fn counts_text(&self, phase: Phase) -> String {
        let counts = self.counts(phase).into_iter().map(|(name, count)| format!("{name}={count}"));
        counts.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PhaseReport { phase, elapsed, troubles } in &self.phases {
            let (name, counts) = (phase.name(), self.counts_text(*phase));
            let milliseconds = elapsed.as_secs_f64() * 1_000.0;
            writeln!(f, "{name:<12} {milliseconds:>8.1} ms  {counts}")?;
            for trouble in troubles {
                writeln!(f, "{:<12} {trouble}", "")?;
            }
        }
        Ok(())
    }
}

/// A shutdown that is done once, however many ask for it, and to its end, whoever goes away meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Stopping(Mutex<Option<watch::Receiver<Option<ShutdownReport>>>>);

impl Stopping {
    /// Whether anybody has asked for it.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Does the work, or waits for whoever does.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the work going on.
    pub(crate) async fn once<F>(&self, tasks: &TaskGroup, work: impl FnOnce() -> F) -> ShutdownReport
    where
        F: Future<Output = ShutdownReport> + Send + 'static,
    {
        let mut report = {
            let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*begun {
                Some(report) => report.clone(),
                None => {
                    let (done, report) = watch::channel(None);
                    let work = work();
                    // Of a group of its own: it waits for the others.
                    tasks.sibling().spawn(async move {
                        done.send_replace(Some(work.await));
                    });
                    begun.insert(report).clone()
                }
            }
        };
        let ended = report.wait_for(Option::is_some).await;
        // Without an answer the process is ending, and tasks with it.
        ended.ok().and_then(|report| report.clone()).unwrap_or_default()
    }
}

impl Runtime {
    /// Takes the host down in order. Asked again, it answers the same report.
    ///
    /// # Cancel safety
    /// Once begun it goes on, whether anybody waits or not.
    pub async fn stop(&self) -> ShutdownReport {
        self.stop_within(ShutdownBounds::default()).await
    }

    /// As `stop`, with other bounds; those of the first who asks count.
    ///
    /// # Cancel safety
    /// As `stop`.
    pub async fn stop_within(&self, bounds: ShutdownBounds) -> ShutdownReport {
        let runtime = self.clone();
        self.inner.stopping.once(&self.inner.tasks, || Shutdown::new(runtime, bounds).run()).await
    }
}

struct Shutdown {
    runtime: Runtime,
    bounds: ShutdownBounds,
    report: ShutdownReport,
    /// What had been counted before it began.
    checkpoints_before: u64,
    sent_before: u64,
}

impl Shutdown {
    fn new(runtime: Runtime, bounds: ShutdownBounds) -> Self {
        let inner = &runtime.inner;
        let checkpoints_before = inner.checkpoints.load(Ordering::Relaxed);
        let sent_before = inner.outputs_sent.load(Ordering::Relaxed);
        Self { bounds, report: ShutdownReport::default(), checkpoints_before, sent_before, runtime }
    }

    async fn run(mut self) -> ShutdownReport {
        let clock = self.runtime.inner.clock.clone();
        for phase in Phase::ALL {
            let began = clock.boot();
            let troubles = match phase {
                Phase::Admission => self.end_admission(),
                Phase::Turns => self.end_turns().await,
                Phase::Checkpoints => self.end_drivers().await,
                Phase::Outbox => self.empty_outbox().await,
                Phase::Leases => self.free_leases().await,
                Phase::Flush => self.flush().await,
                Phase::Close => self.close().await,
            };
            let elapsed = clock.boot().saturating_sub(began);
            for trouble in &troubles {
                tracing::warn!(%phase, trouble, "shutdown goes on without it");
            }
            let counts = self.report.counts_text(phase);
            tracing::info!(%phase, elapsed_ms = elapsed.as_millis(), counts, "shutdown phase is over");
            self.report.phases.push(PhaseReport { phase, elapsed, troubles });
            match phase {
                Phase::Admission => failpoint::hit("shutdown.after-admission"),
                Phase::Turns => failpoint::hit("shutdown.after-turns"),
                Phase::Checkpoints => failpoint::hit("shutdown.after-checkpoints"),
                Phase::Outbox => failpoint::hit("shutdown.after-outbox"),
                Phase::Leases => failpoint::hit("session.after-leave"),
                Phase::Flush => failpoint::hit("shutdown.after-flush"),
                Phase::Close => {}
            }
        }
        self.report
    }

    /// From here on `Runtime::check_admission` refuses.
    fn end_admission(&mut self) -> Vec<String> {
        self.runtime.inner.tasks.shutdown().cancel();
        self.report.calls = self.runtime.inner.calls.running() as u64;
        Vec::new()
    }

    async fn end_turns(&mut self) -> Vec<String> {
        let inner = &self.runtime.inner;
        let handles = inner.directory.handles();
        let running = handles.iter().filter(|handle| handle.is_running()).count();
        inner.drivers.shutdown().cancel();
        let mut troubles = Vec::new();
        let (mut interrupted, mut hung) = (0, 0);
        if within(self.bounds.turns, all_rest(&handles)).await.is_none() {
            let late: Vec<_> = handles.into_iter().filter(|handle| !handle.is_resting()).collect();
            interrupted = interrupt(&late).await;
            if within(INTERRUPT_MAX, all_rest(&late)).await.is_none() {
                hung = late.iter().filter(|handle| !handle.is_resting()).count() as u64;
                troubles.push(format!("{hung} agents did not come to rest"));
            }
        }
        if within(TASKS_MAX, inner.tasks.ended()).await.is_none() {
            troubles.push(format!("{} background tasks did not end", inner.tasks.running()));
        }
        self.report.turns_interrupted = interrupted;
        self.report.turns_finished = (running as u64).saturating_sub(interrupted).saturating_sub(hung);
        troubles
    }

    async fn end_drivers(&mut self) -> Vec<String> {
        let inner = &self.runtime.inner;
        let ended = within(CHECKPOINTS_MAX, inner.drivers.ended()).await;
        self.report.checkpoints =
            inner.checkpoints.load(Ordering::Relaxed).saturating_sub(self.checkpoints_before);
        let mut troubles = Vec::new();
        if ended.is_none() {
            troubles.push(format!("{} drivers did not end", inner.drivers.running()));
        }
        if within(CALLS_MAX, inner.calls.ended()).await.is_none() {
            troubles.push(format!("{} calls did not end", inner.calls.running()));
        }
        troubles
    }

    async fn empty_outbox(&mut self) -> Vec<String> {
        let runtime = self.runtime.clone();
        let inner = &runtime.inner;
        let mut troubles = Vec::new();
        let senders = match within(self.bounds.outbox, self.senders()).await {
            Some(Ok(senders)) => senders,
            Some(Err(error)) => {
                troubles.push(format!("agents with outputs can't be read: {error}"));
                Vec::new()
            }
            None => {
                troubles.push("agents with outputs can't be read: the store does not answer".to_owned());
                Vec::new()
            }
        };
        inner.hurry.cancel();
        for agent in &senders {
            runtime.publish(agent);
        }
        if within(self.bounds.outbox, inner.publishers.ended()).await.is_none() {
            inner.publishers.shutdown().cancel();
            // What was begun may still be acknowledged.
            let _ = within(PUBLISHERS_MAX, inner.publishers.ended()).await;
        }
        self.report.outputs_sent =
            inner.outputs_sent.load(Ordering::Relaxed).saturating_sub(self.sent_before);
        for agent in &senders {
            match within(COUNT_MAX, self.waiting_outputs(agent)).await {
                Some(Ok(waiting)) => self.report.outputs_left += waiting,
                Some(Err(error)) => troubles.push(format!("outputs of {agent} can't be counted: {error}")),
                None => {
                    troubles
                        .push("outputs that are left can't be counted: the store does not answer".to_owned());
                    break;
                }
            }
        }
        troubles
    }

    /// Agents of this host with outputs that wait.
    async fn senders(&self) -> Result<Vec<AgentId>, StoreError> {
        let inner = &self.runtime.inner;
        let mut senders = Vec::new();
        // Without a session nothing can be owned.
        let Some(session) = self.runtime.session_if_joined() else { return Ok(senders) };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..PAGES_MAX {
            let page = inner.store.runnable(session.incarnation, PAGE_MAX).await?;
            let new: Vec<_> = page.into_iter().filter(|agent| seen.insert(agent.clone())).collect();
            // The store goes round: it has begun anew.
            if new.is_empty() {
                break;
            }
            for agent in new.into_iter().filter(|agent| inner.directory.owned(agent).is_some()) {
                if !inner.store.pending_outputs(&agent, Page { after: 0, limit: 1 }).await?.is_empty() {
                    senders.push(agent);
                }
            }
        }
        Ok(senders)
    }

    async fn waiting_outputs(&self, agent: &AgentId) -> Result<u64, StoreError> {
        let (mut after, mut waiting) = (0, 0);
        loop {
            let page = Page { after, limit: PAGE_MAX };
            let outputs = self.runtime.inner.store.pending_outputs(agent, page).await?;
            waiting += outputs.len() as u64;
            match outputs.last() {
                Some(last) if outputs.len() == PAGE_MAX => after = last.position,
                _ => return Ok(waiting),
            }
        }
    }

    async fn free_leases(&mut self) -> Vec<String> {
        let inner = &self.runtime.inner;
        let mut troubles = Vec::new();
        if within(LEASES_MAX, inner.keeping.close()).await.is_none() {
            troubles.push("the keeper of the session did not end".to_owned());
        }
        let Some(session) = self.runtime.session_if_joined() else { return troubles };
        // Whoever has not ended stops here: nobody acts under a lease that is given up.
        let held = inner.directory.lose_all() as u64;
        session.lease.lose();
        failpoint::hit("session.before-leave");
        match within(LEASES_MAX, inner.store.leave(session.incarnation)).await {
            Some(Ok(())) => self.report.leases_released = held,
            Some(Err(error)) => troubles.push(format!(
                "session {} can't be left: {error}; its leases are free when it expires, or at this host's next start",
                session.incarnation
            )),
            None => troubles.push(format!(
                "session {} may not have been left: the store does not answer",
                session.incarnation
            )),
        }
        troubles
    }

    async fn flush(&mut self) -> Vec<String> {
        let inner = &self.runtime.inner;
        let mut troubles = Vec::new();
        if !inner.hooks.close(FLUSH_MAX).await {
            troubles.push("a hook did not come back".to_owned());
            self.report.tasks_left += 1;
        }
        self.report.hooks_dropped = inner.hooks.counts().dropped;
        if self.runtime.session_if_joined().is_none() {
            return troubles;
        }
        // It writes behind everything that waits, so when it answers, all of that is durable.
        match within(FLUSH_MAX, inner.store.probe()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => troubles.push(format!("the store can't write: {error}")),
            None => troubles.push("the store did not answer".to_owned()),
        }
        troubles
    }

    async fn close(&mut self) -> Vec<String> {
        let inner = &self.runtime.inner;
        let mut troubles = Vec::new();
        if within(CLOSE_MAX, inner.mesh.close()).await.is_none() {
            troubles.push("the mesh did not close".to_owned());
        }
        inner.door.close();
        let pool = inner.env.pool.clone();
        let closing = async {
            if pool.is_inline() {
                pool.close();
                return Ok(());
            }
            tokio::task::spawn_blocking(move || pool.close()).await
        };
        match within(CLOSE_MAX, closing).await {
            Some(Ok(())) => {}
            Some(Err(_)) => troubles.push("guest threads panicked".to_owned()),
            None => troubles.push("guest threads did not end".to_owned()),
        }
        let groups = [&inner.tasks, &inner.calls, &inner.drivers, &inner.publishers, &inner.keeping];
        let running: usize = groups.into_iter().map(|group| group.running()).sum();
        self.report.tasks_left += running as u64;
        troubles
    }
}

async fn all_rest(handles: &[Handle]) {
    while !handles.iter().all(Handle::is_resting) {
        sleep(LOOK_PAUSE).await;
    }
}

/// Ends turns that run. Answers how many had to end.
async fn interrupt(handles: &[Handle]) -> u64 {
    let stopping = handles.iter().map(|handle| async move {
        let stopped = within(INTERRUPT_MAX, handle.stop()).await;
        u64::from(matches!(stopped, Some(Interrupted::PutBack | Interrupted::NotAccepted(_))))
    });
    join_all(stopping).await.into_iter().sum()
}
