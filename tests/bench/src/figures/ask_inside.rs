//! As `ask-many`, without HTTP and without a process of its own: 64 tasks ask 1,000 agents of a runtime in this process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use godwit::runtime::Runtime;
use godwit_core::id::AgentId;

use crate::bench::{Bench, component, note};
use crate::floor::PlainStore;
use crate::inside::{Inside, ask, populate};
use crate::report::{Findings, Side, Target};

const CLIENTS: usize = 64;
const AGENTS: usize = 1_000;
/// Asks that plain SQLite commits in one transaction.
const GROUP: usize = 64;
const ROUNDS: u64 = 10;
/// Of each side in each round.
const ROUND: Duration = Duration::from_millis(1_500);
const RATIO_MIN: f64 = 0.7;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let file = scratch.path().join("store.db");
    let inside = Inside::start(scratch.path(), &file).await?;
    let names = (0..AGENTS).map(|number| AgentId::parse(&format!("inside-{number}")));
    let agents = names.collect::<Result<Vec<_>, _>>()?;
    populate(&inside.runtime, "hostile", component("hostile")?.into(), &agents, &note()).await?;
    let mut lanes: Vec<Lane> = (0..CLIENTS)
        .map(|client| Lane::new(agents.iter().skip(client).step_by(CLIENTS).cloned().collect()))
        .collect();
    lanes = ask_for(&inside.runtime, lanes).await?.into_iter().map(|(_, lane)| lane).collect();
    let mut floor = PlainStore::copy_of(&file, &scratch.path().join("floor.db"))?;

    let (mut floor_side, mut side) = (Side::default(), Side::default());
    for _ in 0..bench.scaled(ROUNDS) {
        floor_side.repeat(ROUND, GROUP, || floor.commit(GROUP))?;
        let started = Instant::now();
        let done = ask_for(&inside.runtime, lanes).await?;
        let elapsed = started.elapsed();
        let (nanos, back): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        side.add(elapsed, nanos.concat());
        lanes = back;
    }
    inside.stop().await;
    let mut findings = Findings::default();
    let name = format!("asks in process, {CLIENTS} tasks, {AGENTS} agents (floor: groups of {GROUP})");
    findings.row(name, Some(floor_side.rate()), side.rate(), Some(Target::RatioMin(RATIO_MIN)));
    Ok(findings)
}

/// The agents that one task asks in turn.
struct Lane {
    agents: Vec<AgentId>,
    /// The last number of each.
    numbers: HashMap<AgentId, u64>,
    next: usize,
}

impl Lane {
    fn new(agents: Vec<AgentId>) -> Self {
        Self { agents, numbers: HashMap::new(), next: 0 }
    }

    /// Asks the next agent for how many inputs it has seen: no ask may be lost, doubled or mixed up.
    async fn ask(&mut self, runtime: &Runtime) -> Result<()> {
        let agent = &self.agents[self.next];
        self.next = (self.next + 1) % self.agents.len();
        let number = ask(runtime, agent, "turns").await?.parse()?;
        let last = self.numbers.insert(agent.clone(), number);
        ensure!(last.is_none_or(|last| number == last + 1), "{agent}: {number} after {last:?}");
        Ok(())
    }
}

/// Each lane asks for a round. Answers the time of each ask.
async fn ask_for(runtime: &Runtime, lanes: Vec<Lane>) -> Result<Vec<(Vec<u64>, Lane)>> {
    let started = Instant::now();
    let work = lanes.into_iter().map(|mut lane| {
        let runtime = runtime.clone();
        tokio::spawn(async move {
            let mut nanos = Vec::new();
            while started.elapsed() < ROUND {
                let asked = Instant::now();
                lane.ask(&runtime).await?;
                nanos.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            Ok((nanos, lane))
        })
    });
    try_join_all(work).await?.into_iter().collect()
}
