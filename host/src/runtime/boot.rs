//! Bringing agents up: one when somebody asks for it, or all that are at home here when the host starts.
//!
//! Nothing gets a guest without a grant, and what can't prove its continuity is broken, never started anew.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use godwit_core::agent::{CommandError, Started};
use godwit_core::id::{AgentId, HostId, Revision};
use godwit_core::store::{AgentRow, BrokenReason, Home, Lifecycle, StoreError};
use godwit_core::time::{sleep, within};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::{AgentReply, CallError};
use super::routing::{Try, store_error};
use super::verbs::LOADING_PAUSE;

/// Agents read, and leases taken, at once.
const AGENTS_AT_ONCE: usize = 256;
/// How long one agent's start is waited for; it goes on by itself.
const START_MAX: Duration = Duration::from_secs(10);

/// What is done with the agents at home when the host starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BootMode {
    /// Each is started when it is needed.
    #[default]
    Lazy,
    /// As lazy, and they are started one after the other beside it.
    Warm,
    /// They are started before the host is ready.
    Eager,
}

impl BootMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Lazy, Self::Warm, Self::Eager];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::Warm => "warm",
            Self::Eager => "eager",
        }
    }
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BootMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| "is not lazy, warm or eager".to_owned())
    }
}

/// What became of an agent that was to be brought up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Materialized {
    /// It is new, and has begun.
    Created,
    /// It goes on where it was.
    Resumed {
        /// At this revision.
        revision: Revision,
    },
    /// It is at rest: it starts when it is needed and may run.
    Dormant {
        /// Its state.
        state: String,
    },
    /// Another host owns it.
    HeldElsewhere {
        /// Which.
        holder: HostId,
        /// How long its session lasts without a heartbeat, in milliseconds; `None` when that is not known.
        until_ms: Option<u64>,
    },
    /// It can't run until somebody acts.
    Broken {
        /// Why.
        reason: String,
        /// In words.
        message: String,
    },
    /// It has not started in time, or could not be asked; it may start yet.
    Unfinished {
        /// What is known.
        reason: String,
    },
}

/// What became of all agents at home when the host started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootReport {
    /// New ones that have begun.
    pub created: usize,
    /// Those that go on.
    pub resumed: usize,
    /// Those at rest.
    pub dormant: usize,
    /// Those of other hosts.
    pub held_elsewhere: usize,
    /// Those that can't run.
    pub broken: usize,
    /// Those that have not started in time.
    pub unfinished: usize,
    /// How long it took in milliseconds.
    pub elapsed_ms: u64,
    /// What is not as it should be, by agent: broken and unfinished.
    pub failures: Vec<(AgentId, Materialized)>,
}

/// Failures that a report names; the counts say how many there were.
const FAILURES_MAX: usize = 1_000;

impl BootReport {
    fn count(&mut self, agent: AgentId, outcome: Materialized) {
        let count = match &outcome {
            Materialized::Created => &mut self.created,
            Materialized::Resumed { .. } => &mut self.resumed,
            Materialized::Dormant { .. } => &mut self.dormant,
            Materialized::HeldElsewhere { .. } => &mut self.held_elsewhere,
            Materialized::Broken { .. } => &mut self.broken,
            Materialized::Unfinished { .. } => &mut self.unfinished,
        };
        *count += 1;
        let is_failure = matches!(outcome, Materialized::Broken { .. } | Materialized::Unfinished { .. });
        if is_failure && self.failures.len() < FAILURES_MAX {
            self.failures.push((agent, outcome));
        }
    }
}

impl Runtime {
    /// Brings up an agent that is at home here, for a call; the host that owns it does that.
    pub(crate) async fn materialize_here(&self, agent: &AgentId, row: &AgentRow) -> Result<Try, CallError> {
        match self.bring_up(row).await {
            // Its owner was asked, and it is this host no more.
            Materialized::HeldElsewhere { .. } => {
                sleep(LOADING_PAUSE).await;
                Ok(Try::Again { may_be_durable: false })
            }
            outcome => {
                tracing::debug!(%agent, ?outcome, "materialized");
                Ok(Try::Done(AgentReply::Materialized(outcome)))
            }
        }
    }

    /// Brings up an agent that is at home here, if nobody else owns it. Callers that come together share one start.
    async fn bring_up(&self, row: &AgentRow) -> Materialized {
        let agent = &row.agent;
        let Some(at_rest) = at_rest(row) else {
            return match within(START_MAX, self.start_agent(row)).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(error)) => self.not_started(error).await,
                None => Materialized::Unfinished {
                    reason: format!("agent {agent} has not started within {} s", START_MAX.as_secs()),
                },
            };
        };
        at_rest
    }

    async fn start_agent(&self, row: &AgentRow) -> Result<Materialized, StoreError> {
        loop {
            match self.resident(&row.agent).await?.started().await {
                Ok(Started::Loaded { .. }) if row.revision == Revision(0) => {
                    return Ok(Materialized::Created);
                }
                Ok(Started::Loaded { revision }) => return Ok(Materialized::Resumed { revision }),
                Ok(Started::Broken(reason)) => return Ok(broken(&reason)),
                // It was parked, stopped or moved meanwhile: the store knows.
                Err(CommandError::Gone | CommandError::Loading) => {
                    let now = self.inner().store.agent(&row.agent).await?.ok_or(StoreError::NoAgent)?;
                    if let Some(at_rest) = at_rest(&now) {
                        return Ok(at_rest);
                    }
                    sleep(LOADING_PAUSE).await;
                }
                Err(error @ (CommandError::Unknown { .. } | CommandError::Failed { .. })) => {
                    return Ok(Materialized::Unfinished { reason: error.to_string() });
                }
            }
        }
    }

    async fn not_started(&self, error: StoreError) -> Materialized {
        match error {
            StoreError::Fenced { holder: Some(holder), .. } => {
                let sessions = self.inner().store.sessions().await.unwrap_or_default();
                let session = sessions.into_iter().find(|row| row.incarnation == holder.incarnation);
                let left = session.and_then(|session| session.remaining);
                let until_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                Materialized::HeldElsewhere { holder: holder.host, until_ms }
            }
            error => Materialized::Unfinished { reason: error.to_string() },
        }
    }

    /// Brings up the agents at home here, as many as the host keeps guests, `concurrency` at a time. With `Lazy` none is
    /// started, and those that wait to be needed are counted.
    ///
    /// # Errors
    /// When the store can't be read; each agent's own end is in the report.
    pub async fn boot(&self, mode: BootMode, concurrency: usize) -> Result<BootReport, CallError> {
        let began = self.inner().clock.boot();
        let shutdown = self.inner().tasks.shutdown();
        let mut report = BootReport::default();
        let mut room = if mode == BootMode::Lazy { 0 } else { self.inner().resident_max };
        let mut after: Option<AgentId> = None;
        while !shutdown.is_cancelled() {
            let rows =
                self.inner().store.agents(after.as_ref(), AGENTS_AT_ONCE).await.map_err(store_error)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.agent.clone());
            let mut starting = Vec::new();
            for row in rows.into_iter().filter(|row| row.home == Home::Here) {
                match at_rest(&row) {
                    Some(outcome) => report.count(row.agent, outcome),
                    None if room == 0 => report.count(row.agent, dormant("dormant")),
                    None => {
                        room -= 1;
                        starting.push(row);
                    }
                }
            }
            self.own_all(&starting).await.map_err(store_error)?;
            let started = stream::iter(starting)
                .map(|row| async move { (row.agent.clone(), self.bring_up(&row).await) }.boxed())
                .buffer_unordered(concurrency.max(1));
            let outcomes: Vec<_> = started.collect().await;
            outcomes.into_iter().for_each(|(agent, outcome)| report.count(agent, outcome));
        }
        let elapsed = self.inner().clock.boot().saturating_sub(began);
        report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            %mode,
            created = report.created,
            resumed = report.resumed,
            dormant = report.dormant,
            held_elsewhere = report.held_elsewhere,
            broken = report.broken,
            unfinished = report.unfinished,
            elapsed_ms = report.elapsed_ms,
            "agents brought up"
        );
        Ok(report)
    }
}

/// What is not to be started, or can't be.
fn at_rest(row: &AgentRow) -> Option<Materialized> {
    match &row.lifecycle {
        Lifecycle::Broken(reason) => Some(broken(reason)),
        lifecycle if lifecycle.runs() => None,
        lifecycle => Some(dormant(lifecycle.name())),
    }
}

fn dormant(state: &str) -> Materialized {
    Materialized::Dormant { state: state.to_owned() }
}

fn broken(reason: &BrokenReason) -> Materialized {
    Materialized::Broken { reason: reason.name().to_owned(), message: reason.message().to_owned() }
}
