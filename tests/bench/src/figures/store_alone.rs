//! What the store makes of its disk: units of 64 agents that arrive at the same time, against the same statements run by
//! plain SQLite in one group.
//!
//! The product's side hashes, packs and checks on the way, and forms its groups by itself: whatever waits when a commit is
//! done. What of an ask is a statement is counted by SQLite's own trace hook, on both sides, and must be the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use godwit_core::id::AgentId;
use godwit_core::store::RuntimeStore;
use godwit_core::time::SystemClock;
use godwit_store::{SqliteMode, SqliteStore};

use crate::bench::{Bench, component};
use crate::desk::{self, Desk};
use crate::floor::PlainStore;
use crate::product::Product;
use crate::report::{Findings, Side, Target};
use crate::statements;

/// Agents with a unit each on the way, and asks of one group of the floor.
const AGENTS: usize = 64;
const ROUNDS: u64 = 20;
/// Of each side in each round.
const ROUND_MS: u64 = 500;
const RATIO_MIN: f64 = 0.8;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let (component, scratch) = (component("hostile")?, bench.scratch()?);
    let product = Product::compile(&component, scratch.path())?;
    let file = scratch.path().join("store.db");
    let store = SqliteStore::open(&file, SqliteMode::Exclusive, std::sync::Arc::new(SystemClock))?;
    let names = (0..AGENTS).map(|number| AgentId::parse(&format!("alone-{number}")));
    let agents = names.collect::<Result<Vec<_>, _>>()?;
    let mut desks = desk::open(store.as_ref(), &product, &agents, &desk::state(&product)?).await?;
    for desk in &mut desks {
        desk.begin(store.as_ref()).await?;
    }
    let mut floor = PlainStore::copy_of(&file, &scratch.path().join("floor.db"))?;
    let told = compare_statements(&store, &mut desks[0], &mut floor).await?;

    let (mut floor_side, mut side) = (Side::default(), Side::default());
    let commits = store.commits();
    for _ in 0..bench.scaled(ROUNDS) {
        floor_side.repeat(Duration::from_millis(ROUND_MS), AGENTS, || floor.commit(AGENTS))?;
        let started = Instant::now();
        let done = commit_for(&store, std::mem::take(&mut desks)).await?;
        let elapsed = started.elapsed();
        let (nanos, back): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        side.add(elapsed, nanos.concat());
        desks = back;
    }
    let commits = store.commits() - commits;
    store.close().await;

    let mut findings = Findings::default();
    findings.note(told);
    findings.note(format!("units per commit: {:.1}", side.operations as f64 / commits as f64));
    let name = format!("store alone, {AGENTS} agents (floor: groups of {AGENTS}, same statements)");
    findings.row(name, Some(floor_side.rate()), side.rate(), Some(Target::RatioMin(RATIO_MIN)));
    Ok(findings)
}

/// Each agent commits one ask after the other for a round. Answers the time of each ask.
async fn commit_for(store: &std::sync::Arc<SqliteStore>, desks: Vec<Desk>) -> Result<Vec<(Vec<u64>, Desk)>> {
    let started = Instant::now();
    let work = desks.into_iter().map(|mut desk| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut nanos = Vec::new();
            while started.elapsed() < Duration::from_millis(ROUND_MS) {
                let begun = Instant::now();
                let outcome = store.commit_turns(desk.ask("turns")).await;
                ensure!(outcome.failure.is_none(), "{:?}", outcome.failure);
                nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            Ok((nanos, desk))
        })
    });
    try_join_all(work).await?.into_iter().collect()
}

/// One ask on each side, statement by statement; says what there was.
async fn compare_statements(store: &SqliteStore, desk: &mut Desk, floor: &mut PlainStore) -> Result<String> {
    statements::take();
    store.trace_writes(Some(statements::note));
    let outcome = store.commit_turns(desk.ask("turns")).await;
    store.trace_writes(None);
    ensure!(outcome.failure.is_none(), "{:?}", outcome.failure);
    let product = statements::take();
    floor.trace(Some(statements::note));
    floor.commit(1)?;
    floor.trace(None);
    let plain = statements::take();
    ensure!(counted(&product) == counted(&plain), "the product runs {product:?}, the floor {plain:?}");
    let own = product.len().checked_sub(2).context("BEGIN and COMMIT")?;
    Ok(format!("statements of an ask: {own}, beside BEGIN and COMMIT of its group: {}", product.join(", ")))
}

fn counted(statements: &[String]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for statement in statements {
        *counted.entry(statement.as_str()).or_default() += 1;
    }
    counted
}
