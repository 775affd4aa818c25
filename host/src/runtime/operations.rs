//! Operations: does in the background what agents have asked for, and hands each end back as an input.
//!
//! ```text
//! Notice, scan --> look: what does the registry want? --> drive: begin (fenced) -> do it -> end (fenced) -> wake
//! ```
//! What the headers of a request name as secrets is filled in on the way out (`crate::secrets`), and is in nothing that is
//! stored. The store's registry is the truth, and `core::operation` has its rules; here is who works on what now. A host that
//! dies leaves rows that say wanted or begun; the next owner finds them by its scan. Work stops with the lease: nothing of
//! a lost agent is begun, and what was under way is dropped and ends with whoever owns the agent then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, OperationId};
use godwit_core::limits::{OPERATIONS_RUNNING_MAX, PAGE_MAX};
use godwit_core::operation::request::{TargetPattern, is_granted};
use godwit_core::operation::{NextStep, OperationEnd, OperationState, Outcome, Request, StoredOperation};
use godwit_core::retry::Backoff;
use godwit_core::store::{AcceptError, StoreError};
use godwit_core::time::{sleep, within};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Runtime;
use super::call::CallError;
use super::directory::Owned;
use super::routing::store_error;
use crate::secrets::filling::Filling;
use http::HttpClient;

pub mod http;

pub use http::OperationPolicy;

/// Pause between scans for operations that no notice announced: a restart, an agent of a dead host, a refused write.
const SCAN_PAUSE: Duration = Duration::from_secs(1);
/// How often work looks whether its agent's lease is still held.
const GUARD_PAUSE: Duration = Duration::from_millis(100);
/// How long a move waits for operations that are under way, and how often it looks.
const STILL_MAX: Duration = Duration::from_secs(2);
const STILL_PAUSE: Duration = Duration::from_millis(5);
/// First and longest pause between tries to write an end.
const END_FIRST: Duration = Duration::from_millis(50);
const END_MAX: Duration = Duration::from_secs(5);

/// What this host works on.
pub(crate) struct Operations {
    running: Mutex<BTreeMap<(AgentId, OperationId), CancellationToken>>,
    /// Agents that are about to move: nothing of them is begun.
    still: Mutex<BTreeSet<AgentId>>,
    slots: Arc<Semaphore>,
    http: HttpClient,
}

impl Operations {
    pub(crate) fn new(policy: OperationPolicy) -> Self {
        Self {
            running: Mutex::default(),
            still: Mutex::default(),
            slots: Arc::new(Semaphore::new(OPERATIONS_RUNNING_MAX)),
            http: HttpClient::new(policy),
        }
    }

    /// Whether this host does anything of what a plugin was granted: where exactly it may go is asked each time.
    ///
    /// # Errors
    /// The grant that is worth nothing here.
    pub(crate) fn check_grants(&self, grants: &[String]) -> Result<(), String> {
        let outside = grants.iter().find(|grant| TargetPattern::of_grant(grant).is_some());
        match outside {
            Some(grant) if !self.http.is_open() => Err(format!(
                "this host does not grant {grant}: its operator has listed nothing in operations.http"
            )),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(AgentId, OperationId), CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn still(&self) -> MutexGuard<'_, BTreeSet<AgentId>> {
        self.still.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_still(&self, agent: &AgentId) -> bool {
        self.still().contains(agent)
    }

    fn is_at_work(&self, agent: &AgentId) -> bool {
        self.lock().keys().any(|(of, _)| of == agent)
    }

    /// Claims the work on an operation. `None` when somebody is at it already, who is told if it is not wanted any more,
    /// and while its agent stands still.
    fn claim(&self, agent: &AgentId, stored: &StoredOperation) -> Option<CancellationToken> {
        let mut running = self.lock();
        match running.get(&(agent.clone(), stored.id())) {
            Some(cancelled) => {
                if stored.is_cancelled {
                    cancelled.cancel();
                }
                None
            }
            None if self.is_still(agent) => None,
            None => {
                let cancelled = CancellationToken::new();
                running.insert((agent.clone(), stored.id()), cancelled.clone());
                Some(cancelled)
            }
        }
    }

    fn unclaim(&self, agent: &AgentId, operation: OperationId) {
        self.lock().remove(&(agent.clone(), operation));
    }
}

/// Finds operations that no notice announced, until shutdown.
pub(crate) async fn scan(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    loop {
        if let Err(error) = scan_once(&runtime).await {
            tracing::warn!(%error, "operations can't be read");
        }
        if within(SCAN_PAUSE, shutdown.cancelled()).await.is_some() {
            return;
        }
    }
}

async fn scan_once(runtime: &Runtime) -> Result<(), StoreError> {
    let mut after: Option<AgentId> = None;
    loop {
        let incarnation = Some(runtime.session().incarnation);
        let agents = runtime.inner().store.operating(incarnation, after.as_ref(), PAGE_MAX).await?;
        for agent in &agents {
            look(runtime, agent).await;
        }
        let is_last = agents.len() < PAGE_MAX;
        after = agents.into_iter().last();
        if is_last {
            return Ok(());
        }
    }
}

/// Does what the registry wants of an agent's operations.
pub(crate) async fn look(runtime: &Runtime, agent: &AgentId) {
    let owned = match runtime.own(agent).await {
        Ok(owned) if owned.guard.is_held() => owned,
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(%agent, %error, "its operations are not ours to do");
            return;
        }
    };
    let stored = match runtime.inner().store.operations(agent).await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(%agent, %error, "operations can't be read");
            return;
        }
    };
    for operation in stored {
        if let Some(cancelled) = runtime.inner().operations.claim(agent, &operation) {
            let (worker, owned) = (runtime.clone(), owned.clone());
            runtime.inner().tasks.spawn(async move {
                let (agent, id) = (owned.lease.agent.clone(), operation.id());
                drive(&worker, &owned, operation, &cancelled).await;
                worker.inner().operations.unclaim(&agent, id);
            });
        }
    }
}

/// Takes one operation to its end, as far as the lease allows.
async fn drive(runtime: &Runtime, owned: &Owned, operation: StoredOperation, cancelled: &CancellationToken) {
    let agent = &owned.lease.agent;
    let id = operation.id();
    // Nothing outlives the lease, or the host.
    let stopped = async {
        while owned.guard.is_held() {
            sleep(GUARD_PAUSE).await;
        }
    };
    let shutdown = runtime.inner().tasks.shutdown();
    // Cancel safe: what is dropped here is begun and not ended, which is what the registry says.
    let end = tokio::select! {
        biased;
        () = shutdown.cancelled() => return,
        () = stopped => return,
        end = outcome(runtime, owned, operation, cancelled) => end,
    };
    let Some(end) = end else { return };
    tracing::debug!(%agent, operation = %id, outcome = end.outcome.name(), "operation is over");
    failpoint::hit("operation.before-end");
    if write_end(runtime, owned, id, end).await {
        failpoint::hit("operation.after-end");
        runtime.look_at(agent, true).await;
    }
}

/// How an operation ends; `None` when that is not for this owner to say.
async fn outcome(
    runtime: &Runtime,
    owned: &Owned,
    operation: StoredOperation,
    cancelled: &CancellationToken,
) -> Option<OperationEnd> {
    let has_begun = operation.state != OperationState::Wanted;
    let end = attempt(runtime, owned, operation, cancelled).await?;
    // An owner before this one may have done it, whatever stands in this one's way.
    let is_sure = end.outcome != Outcome::Failed || end.status.is_some() || !has_begun;
    Some(if is_sure { end } else { OperationEnd { outcome: Outcome::Unknown, ..end } })
}

async fn attempt(
    runtime: &Runtime,
    owned: &Owned,
    operation: StoredOperation,
    cancelled: &CancellationToken,
) -> Option<OperationEnd> {
    if let NextStep::End(outcome) = operation.next_step() {
        let reason = match outcome {
            Outcome::Cancelled => "the agent has cancelled it",
            _ => "it had begun when its host was lost, and may be done once at most",
        };
        return Some(OperationEnd::without_answer(outcome, reason));
    }
    let gone = || OperationEnd::without_answer(Outcome::Cancelled, "the agent has cancelled it");
    // The slot is held until the work is over.
    let _slot = tokio::select! {
        biased;
        () = cancelled.cancelled() => return Some(gone()),
        slot = runtime.inner().operations.slots.acquire() => slot.ok()?,
    };
    let filling = match check(runtime, owned, &operation).await? {
        Ok(filling) => filling,
        Err(refusal) => return Some(refusal),
    };
    if runtime.inner().operations.is_still(&owned.lease.agent) {
        return None;
    }
    failpoint::hit("operation.before-begin");
    let begun = runtime.inner().store.begin_operation(&owned.owner(), operation.id()).await;
    let operation = match begun {
        Ok(Some(begun)) if begun.is_cancelled => return Some(gone()),
        Ok(Some(begun)) => begun,
        Ok(None) => return None,
        Err(error) => {
            // Whether it was written is unknown at worst: the next look reads it.
            tracing::warn!(agent = %owned.lease.agent, operation = %operation.id(), %error, "can't be begun");
            return None;
        }
    };
    failpoint::hit("operation.after-begin");
    let id = operation.id();
    let Request::Http(request) = operation.operation.request;
    // Cancel safe: a connection that is dropped is closed, and the outcome says that it may have been done.
    Some(tokio::select! {
        biased;
        () = cancelled.cancelled() => gone(),
        end = runtime.inner().operations.http.run(request, id, &filling) => end,
    })
}

/// Whether plugin and host allow an operation, before anything of it is done; and what its headers are filled with. `None`
/// when nobody can say now.
async fn check(
    runtime: &Runtime,
    owned: &Owned,
    operation: &StoredOperation,
) -> Option<Result<Filling, OperationEnd>> {
    let Request::Http(request) = &operation.operation.request;
    let refused = |reason: String| Some(Err(OperationEnd::without_answer(Outcome::Failed, reason)));
    let target = match request.check() {
        Ok(target) => target,
        Err(error) => return refused(error.to_string()),
    };
    // The plugin may be another one by now than that which asked.
    let row = runtime.inner().store.agent(&owned.lease.agent).await.ok()??;
    let grants = runtime.grants_of(row.plugin).await.ok()?;
    if !is_granted(&grants, &target) {
        return refused(format!("the plugin has no grant operations.http:{target}"));
    }
    if let Err(reason) = runtime.inner().operations.http.check(&target) {
        return refused(reason);
    }
    match runtime.inner().secrets.fill(&request.secrets(), &grants, &target).await {
        Ok(filling) => Some(Ok(filling)),
        Err(error) => refused(error.to_string()),
    }
}

/// Writes an end until it is durable or the agent is another's. Answers whether it is durable.
async fn write_end(runtime: &Runtime, owned: &Owned, id: OperationId, end: OperationEnd) -> bool {
    let agent = &owned.lease.agent;
    let shutdown = runtime.inner().tasks.shutdown();
    let mut backoff = Backoff::new(END_FIRST, END_MAX);
    loop {
        match runtime.inner().store.end_operation(&owned.owner(), id, end.clone()).await {
            Ok(_) => return true,
            Err(AcceptError::Store(
                error @ (StoreError::Fenced { .. }
                | StoreError::NotHome { .. }
                | StoreError::NoAgent
                | StoreError::Lifecycle { .. }
                | StoreError::Conflict { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Closed { .. }),
            )) => {
                tracing::warn!(%agent, operation = %id, %error, place = "operation", "its end is not ours to write");
                if matches!(error, StoreError::Fenced { .. }) {
                    runtime.fenced(owned, "operation").await;
                }
                return false;
            }
            Err(error) => tracing::warn!(%agent, operation = %id, %error, "its end can't be written now"),
        }
        let [random] = runtime.inner().clock.random();
        if within(backoff.delay(random), shutdown.cancelled()).await.is_some() || !owned.guard.is_held() {
            return false;
        }
    }
}

/// An agent of which no operation is begun. Ends when it is dropped; the scan finds what has waited.
pub(crate) struct Still {
    runtime: Runtime,
    agent: AgentId,
}

impl Drop for Still {
    fn drop(&mut self) {
        self.runtime.inner().operations.still().remove(&self.agent);
    }
}

impl Runtime {
    /// Operations that have not ended, of agents at home here with ids after `after`, by agent and in the order of their
    /// starts: about `limit`, those of an agent all together. Answers also the last agent, if there are more.
    ///
    /// # Errors
    /// As the store's.
    pub async fn open_operations(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<(Vec<(AgentId, StoredOperation)>, Option<AgentId>), CallError> {
        let store = &self.inner().store;
        let agents = store.operating(None, after, limit.min(PAGE_MAX)).await.map_err(store_error)?;
        let is_whole = agents.len() < limit.min(PAGE_MAX);
        let last = agents.last().cloned();
        let mut found = Vec::new();
        for agent in agents {
            let stored = store.operations(&agent).await.map_err(store_error)?;
            found.extend(stored.into_iter().map(|operation| (agent.clone(), operation)));
            if found.len() >= limit && Some(&agent) != last.as_ref() {
                return Ok((found, Some(agent)));
            }
        }
        Ok((found, last.filter(|_| !is_whole)))
    }

    /// Begins no operation of an agent from here on, and waits a while for those that are under way: what may be done
    /// once at most should not be broken off by a move.
    pub(crate) async fn still_operations(&self, agent: &AgentId) -> Still {
        let operations = &self.inner().operations;
        operations.still().insert(agent.clone());
        let still = Still { runtime: self.clone(), agent: agent.clone() };
        let over = async {
            while operations.is_at_work(agent) {
                sleep(STILL_PAUSE).await;
            }
        };
        if within(STILL_MAX, over).await.is_none() {
            tracing::info!(%agent, "operations are broken off by a move");
        }
        still
    }

    /// What a plugin was granted beyond what stays in the store; nothing when it is not stored.
    pub(crate) async fn grants_of(&self, plugin: Digest) -> Result<Arc<[String]>, CallError> {
        let info = self.plugin_info(plugin).await?;
        Ok(info.map_or_else(|| Arc::from([]), |info| info.grants.into()))
    }
}
