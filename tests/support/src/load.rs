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

/// One operation: the same key until a host has acknowledged it, or definitely refused it for good.
async fn operate(plan: &Plan, client: usize, index: u64) -> Operation {
    let began = Instant::now();
    let key = format!("{}-{client}-{index}", plan.prefix);
    let agent = &plan.agents[client % plan.agents.len()];
    let mut fates = Vec::new();
    for turn in 0.. {
        let door = &plan.doors[(client + index as usize + turn) % plan.doors.len()];
        let fate = if index.is_multiple_of(2) {
            door.ask_within(agent, PAYLOAD, Some(&key), ASK_MAX).await
        } else {
            door.send(agent, PAYLOAD, Some(&key)).await
        };
        let is_unknown = matches!(fate, Fate::Unknown(_));
        let is_over = !fate.is_worth_repeating() || (is_unknown && !plan.repeats);
        fates.push(fate);
        if is_over || began.elapsed() > REPEAT_MAX {
            break;
        }
        tokio::time::sleep(REPEAT_AFTER).await;
    }
    Operation { client, index, agent: agent.clone(), key, fates, took: began.elapsed() }
}
