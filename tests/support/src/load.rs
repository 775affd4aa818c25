//! Clients that keep agents busy: each sends and asks `add 1` to a counter, one after the other, through every host in
//! turn, each under a key of its own, and repeats what was not acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::fate::Fate;
use crate::journal::{Journal, Operation};
use crate::wait::until;

/// What every client submits.
pub const PAYLOAD: &str = "add 1";
/// How long a host may think about an ask.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Pause before a try is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(15);
/// Longest that one operation is repeated. Hosts come back sooner.
const REPEAT_MAX: Duration = Duration::from_secs(60);

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The hosts' doors; each operation goes to the next.
    pub doors: Vec<Client>,
    /// Counters; client N works on agent N modulo their number.
    pub agents: Vec<String>,
    /// How many clients.
    pub clients: usize,
    /// Begins every key, so that two loads never share one.
    pub prefix: String,
    /// Whether a try whose fate is unknown is repeated under its key.
    pub repeats: bool,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    journal: Journal,
    is_over: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts the clients.
    pub fn start(plan: &Plan) -> Self {
        let (journal, is_over) = (Journal::default(), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for client in 0..plan.clients {
            let (plan, journal, is_over) = (plan.clone(), journal.clone(), is_over.clone());
            clients.spawn(async move {
                for index in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    journal.record(operate(&plan, client, index).await);
                }
            });
        }
        Self { journal, is_over, clients }
    }

    /// How many operations have been acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.journal.acknowledged()
    }

    /// Waits until `more` operations have been acknowledged from now on.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn progress(&self, more: usize, limit: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        let look = || async { Ok((self.acknowledged() >= goal).then_some(())) };
        until(&format!("{more} more acknowledged operations"), limit, look).await
    }

    /// Lets each client end what it does, and answers everything that was done.
    ///
    /// # Errors
    /// When a client does not end: every call has a bound, so one that never returns is a fault.
    pub async fn finish(mut self) -> Result<Vec<Operation>> {
        self.is_over.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(client) = self.clients.join_next().await {
                client.context("a client panicked")?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(REPEAT_MAX * 2, all).await {
            Ok(ended) => ended?,
            Err(_) => bail!("a client waits for ever"),
        }
        Ok(self.journal.operations())
    }
}

async fn operate(plan: &Plan, client: usize, index: u64) -> Operation {
    let how = if index.is_multiple_of(2) { How::Ask } else { How::Send };
    let order = Order {
        client,
        index,
        agent: plan.agents[client % plan.agents.len()].clone(),
        key: format!("{}-{client}-{index}", plan.prefix),
        payload: PAYLOAD.to_owned(),
        how,
    };
    order.carry_out(&plan.doors, plan.repeats).await
}

/// How something is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The client waits for the end.
    Ask,
    /// The client waits for durable acceptance.
    Send,
    /// As `Send`, and the input waits for another that runs.
    Enqueue,
}

/// One thing that a client wants done.
#[derive(Debug, Clone)]
pub struct Order {
    /// Who.
    pub client: usize,
    /// The client's count.
    pub index: u64,
    /// Of which agent.
    pub agent: String,
    /// Under which key.
    pub key: String,
    /// What is submitted.
    pub payload: String,
    /// By which door.
    pub how: How,
}

impl Order {
    /// Submits it under the same key until a host has acknowledged it, or definitely refused it for good.
    pub async fn carry_out(self, doors: &[Client], repeats: bool) -> Operation {
        let began = Instant::now();
        let Self { client, index, agent, key, payload, how } = self;
        let mut fates = Vec::new();
        for turn in 0.. {
            let door = &doors[(client + index as usize + turn) % doors.len()];
            let fate = match how {
                How::Ask => door.ask_within(&agent, payload.clone(), Some(&key), ASK_MAX).await,
                How::Send => door.send(&agent, payload.clone(), Some(&key)).await,
                How::Enqueue => door.enqueue(&agent, payload.clone(), Some(&key)).await,
            };
            let is_unknown = matches!(fate, Fate::Unknown(_));
            let is_over = !fate.is_worth_repeating() || (is_unknown && !repeats);
            fates.push(fate);
            if is_over || began.elapsed() > REPEAT_MAX {
                break;
            }
            tokio::time::sleep(REPEAT_AFTER).await;
        }
        Operation { client, index, agent, key, payload, fates, took: began.elapsed() }
    }
}
