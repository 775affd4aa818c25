//! Queries: questions about an agent as it was committed last, answered beside its driver.
//!
//! ```text
//! image of the store --> a guest of its own, rebuilt --> query --> row unchanged? --> answer
//! ```
//! Nothing is written and nobody waits for it: the driver does not know. The guest goes with the answer. Rows are read while
//! turns go on committing, so a query that has read some is believed only if the agent is still at the revision that its
//! guest was rebuilt at; otherwise it runs again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::agent::loading::{
    Unloadable, ensure_loaded, guest_request, is_held, outside_context, state_reader,
};
use crate::agent::rebuild::{RebuildError, Start, rebuild};
use crate::agent::{AgentEnv, Grant};
use crate::channel::{ChannelName, ChannelView, Subscription};
use crate::guest::{GuestError, Interrupt, StateRead, StateReadError};
use crate::id::{AgentId, FencingToken, OperationId, Revision};
use crate::identity::EntityKey;
use crate::input::{Fault, FaultKind, Reply};
use crate::lease::{Lease, LeaseGuard};
use crate::limits::{QUERIES_MAX, QUERIES_PER_AGENT_MAX, QUERY_TRIES_MAX};
use crate::store::{AgentImage, StoreError};

/// What a query was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queried {
    /// The agent's words.
    pub reply: Reply,
    /// The committed revision that it is about.
    pub revision: Revision,
    /// The token under which that was committed.
    pub token: FencingToken,
}

/// Why a query has no answer. The agent is as before in any case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The lease is another's, or the agent was changed meanwhile: look again who owns it.
    #[error("agent moved or changed owner meanwhile")]
    Lost,
    /// Nothing of the agent is committed yet.
    #[error("agent has not been initialized")]
    NotInitialized,
    /// The plugin answers no queries.
    #[error("the agent's plugin answers no queries")]
    NoQuery,
    /// Too many queries wait, or turns commit faster than the query can read.
    #[error("{depth} queries run or wait")]
    Busy {
        /// How many.
        depth: usize,
    },
    /// The agent gave an error instead of a reply.
    #[error("agent failed: {message}")]
    Agent {
        /// The agent's words.
        message: String,
        /// Whether the agent says that asking again may help.
        is_retryable: bool,
    },
    /// The guest misbehaved.
    #[error("guest fault {}: {}", .0.kind.name(), .0.message)]
    Fault(Fault),
    /// The agent can't be brought to its last revision: its next load will find that, too.
    #[error("agent can't be rebuilt: {what}")]
    Unbuilt {
        /// What is wrong.
        what: String,
    },
    /// The host has no room for a guest, is stopping, or its store does not answer.
    #[error("{reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The store's answer; `Lifecycle` when the agent's state allows no queries.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counts the queries of a host.
#[derive(Debug, Default)]
pub struct Queries(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_agent: HashMap<AgentId, usize>,
}

/// A query's place among those of its host.
#[derive(Debug)]
struct Admitted {
    queries: Arc<Queries>,
    agent: AgentId,
}

impl Queries {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, agent: &AgentId) -> Result<Admitted, QueryError> {
        let mut counts = self.lock();
        let own = counts.by_agent.get(agent).copied().unwrap_or(0);
        if counts.all >= QUERIES_MAX || own >= QUERIES_PER_AGENT_MAX {
            let depth = if own >= QUERIES_PER_AGENT_MAX { own } else { counts.all };
            return Err(QueryError::Busy { depth });
        }
        counts.all += 1;
        *counts.by_agent.entry(agent.clone()).or_default() += 1;
        Ok(Admitted { queries: self.clone(), agent: agent.clone() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.queries.lock();
        counts.all -= 1;
        if let Some(own) = counts.by_agent.get_mut(&self.agent) {
            *own -= 1;
            if *own == 0 {
                counts.by_agent.remove(&self.agent);
            }
        }
    }
}

/// Answers a query of an agent that this host owns.
///
/// # Errors
/// `QueryError`.
///
/// # Cancel safety
/// Dropping the future ends the query within 100 ms.
pub async fn query(env: &AgentEnv, grant: Grant, payload: Bytes) -> Result<Queried, QueryError> {
    let Grant { lease, guard, warm: _ } = grant;
    let _admitted = env.queries.admit(&lease.agent)?;
    for _ in 0..QUERY_TRIES_MAX {
        let image = env.store.image(&lease.agent, None).await?.ok_or(QueryError::Lost)?;
        check(env, &lease, &image).await?;
        let row = (image.row.generation, image.row.revision);
        let (answer, has_read_rows) = ask(env, guard.clone(), image, payload.clone()).await?;
        if !has_read_rows {
            return answer;
        }
        // A failure may come from rows of two revisions as well.
        let now = env.store.agent(&lease.agent).await?.ok_or(QueryError::Lost)?;
        if (now.generation, now.revision) == row {
            return answer;
        }
    }
    Err(QueryError::Busy { depth: 1 })
}

/// Whether the agent can be asked at all.
async fn check(env: &AgentEnv, lease: &Lease, image: &AgentImage) -> Result<(), QueryError> {
    let row = &image.row;
    if !row.lifecycle.answers_queries() {
        return Err(StoreError::Lifecycle { state: row.lifecycle.clone() }.into());
    }
    if !is_held(row, lease) {
        return Err(QueryError::Lost);
    }
    image.check().map_err(|what| StoreError::Corrupt { what })?;
    if row.revision == Revision(0) {
        return Err(QueryError::NotInitialized);
    }
    ensure_loaded(env, image.spec.plugin).await.map_err(|error| match error {
        Unloadable::Store(error) => QueryError::Store(error),
        Unloadable::Missing(what) => QueryError::Unbuilt { what },
    })?;
    if env.loader.answers_queries(image.spec.plugin) { Ok(()) } else { Err(QueryError::NoQuery) }
}

/// Rebuilds a guest and asks it. Also answers whether it has read rows.
async fn ask(
    env: &AgentEnv,
    guard: LeaseGuard,
    image: AgentImage,
    payload: Bytes,
) -> Result<(Result<Queried, QueryError>, bool), QueryError> {
    let row = &image.row;
    let token = image.receipts.last().map_or(row.token, |receipt| receipt.token);
    let context = outside_context(&row.agent, row.generation, token, row.revision, row.time_ms);
    let revision = row.revision;
    let rows = Arc::new(Noting {
        rows: state_reader(env.store.clone(), row.agent.clone()),
        has_read: AtomicBool::new(false),
    });
    let caller = Caller(Interrupt::default());
    let request = guest_request(&image, guard, rows.clone(), caller.0.clone());
    let (loader, clock, plugin) = (env.loader.clone(), env.clock.clone(), image.spec.plugin);
    let job = move || {
        let with = (loader.as_ref(), clock.as_ref());
        let mut guest = rebuild(with, Start::Cold(request), &image, revision).map_err(unbuilt)?.guest;
        guest.query(&context, &payload).map_err(unanswered)
    };
    let answer = env.pool.run_query(plugin, job).await.map_err(|closed| unavailable(closed.to_string()))?;
    let queried = answer.map(|reply| Queried { reply, revision, token });
    Ok((queried, rows.has_read.load(Ordering::Acquire)))
}

/// Who waits for the answer: when it goes, the guest's call ends.
struct Caller(Interrupt);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// Notes whether rows were read.
struct Noting {
    rows: Arc<dyn StateRead>,
    has_read: AtomicBool,
}

impl StateRead for Noting {
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.get(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.list(prefix, after, limit)
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.timers()
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.operations()
    }

    fn channels(&self, only: Option<&ChannelName>) -> Result<Vec<ChannelView>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.channels(only)
    }

    fn subscribers(&self, channel: &ChannelName) -> Result<Vec<AgentId>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.subscribers(channel)
    }

    fn subscriptions(&self) -> Result<Vec<Subscription>, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.subscriptions()
    }

    fn waiting(&self, receiver: &AgentId) -> Result<u64, StateReadError> {
        self.has_read.store(true, Ordering::Release);
        self.rows.waiting(receiver)
    }

    /// No turn changes it.
    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError> {
        self.rows.entity_key()
    }
}

fn unavailable(reason: String) -> QueryError {
    QueryError::Unavailable { reason }
}

fn unbuilt(error: RebuildError) -> QueryError {
    match error {
        RebuildError::Stopped(_) | RebuildError::Restore(GuestError::Fenced | GuestError::Interrupted) => {
            QueryError::Lost
        }
        error if error.is_for_want_of_room() => unavailable(format!("no room for another guest: {error}")),
        error => QueryError::Unbuilt { what: error.to_string() },
    }
}

fn unanswered(error: GuestError) -> QueryError {
    match error {
        GuestError::Fenced | GuestError::Interrupted => QueryError::Lost,
        GuestError::Retryable { message } => QueryError::Agent { message, is_retryable: true },
        GuestError::Fatal { message } => QueryError::Agent { message, is_retryable: false },
        GuestError::Fault(fault) if fault.kind == FaultKind::Start => unavailable(fault.message),
        GuestError::Fault(fault) => QueryError::Fault(fault),
        GuestError::StateRead(error) => unavailable(error.to_string()),
        GuestError::Diverged { message } => QueryError::Unbuilt { what: message },
    }
}
