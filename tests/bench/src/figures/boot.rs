//! A host with 100,000 agents in its store, each with a history: how long it takes to get ready, and what they cost in
//! memory while nobody asks for them.
//!
//! The histories are written through the product's store in this process (`desk.rs`); the states in them are a real
//! guest's, so that every agent can be asked.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use godwit_core::id::AgentId;
use godwit_core::time::SystemClock;
use godwit_store::{SqliteMode, SqliteStore};
use godwit_support::binaries;
use godwit_support::host::HostOptions;

use crate::bench::{Bench, component};
use crate::desk;
use crate::product::Product;
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

use super::parked::Memory;

const AGENTS: u64 = 100_000;
const STARTS: u64 = 20;
/// Agents that are asked after the last start.
const ASKED: usize = 20;
const LANES: usize = 64;
const READY_NANOS_MAX: f64 = 2e9;
const BYTES_MAX: f64 = 1_024.0;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let (component, scratch) = (component("hostile")?, bench.scratch()?);
    let product = Product::compile(&component, scratch.path())?;
    let data = scratch.path().join("host");
    let mut host = HostOptions::new(&binaries::product()?, &data, "host").prepare()?;
    let names = (0..bench.scaled(AGENTS)).map(|number| AgentId::parse(&format!("asleep-{number}")));
    let agents = names.collect::<Result<Vec<_>, _>>()?;
    let store = SqliteStore::open(&data.join("godwit.db"), SqliteMode::Exclusive, Arc::new(SystemClock))?;
    fill(&store, &product, &agents, &desk::state(&product)?).await?;
    store.close().await;

    let mut empty = bench.host(scratch.path(), "empty").await?;
    let before = Memory::of(&mut empty)?;
    empty.terminate().await?;
    let mut times = Samples::new();
    let mut after = None;
    for _ in 0..bench.scaled(STARTS) {
        let started = Instant::now();
        host.start(&[]).await?;
        times.push(started.elapsed());
        after = Some(Memory::of(&mut host)?);
        host.kill().await?;
    }
    host.start(&[]).await?;
    let api = host.client();
    for agent in agents.iter().step_by((agents.len() / ASKED).max(1)) {
        let turns = api.reply(agent.as_str(), "turns").await?;
        // The state was taken after one input, and holds it still.
        ensure!(turns == "2", "{agent} has seen {turns} inputs");
    }
    host.terminate().await?;

    let mut findings = Findings::default();
    let resident = after.as_ref().map_or(0.0, |after| after.resident - before.resident).max(0.0);
    findings.note(format!(
        "{} agents; an empty host has {before}, this one {}",
        agents.len(),
        after.map_or_else(String::new, |after| after.to_string())
    ));
    findings.row(
        "start to ready, 100,000 agents",
        None,
        Measure::Time(times),
        Some(Target::Max(READY_NANOS_MAX)),
    );
    findings.row(
        "memory of an agent of 100,000",
        None,
        Measure::Bytes(resident / agents.len() as f64),
        Some(Target::Max(BYTES_MAX)),
    );
    Ok(findings)
}

/// Makes the agents, each with its first boundary and one ask.
async fn fill(store: &Arc<SqliteStore>, product: &Product, agents: &[AgentId], state: &Bytes) -> Result<()> {
    let desks = desk::open(store.as_ref(), product, agents, state).await?;
    let mut lanes: Vec<Vec<desk::Desk>> = (0..LANES).map(|_| Vec::new()).collect();
    for (number, desk) in desks.into_iter().enumerate() {
        lanes[number % LANES].push(desk);
    }
    let work = lanes.into_iter().map(|lane| {
        let store = store.clone();
        tokio::spawn(async move {
            for mut desk in lane {
                desk.begin(store.as_ref()).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    try_join_all(work).await?.into_iter().collect()
}
