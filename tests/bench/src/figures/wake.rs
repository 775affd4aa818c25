//! From a parked agent to its reply.
//!
//! The steps themselves, without threads, tasks and commit: read the agent's image, check it, start a guest, restore,
//! handle. Then the same through the driver as a host does it: with its task, the guest threads, the look at the inbox,
//! the snapshot, the proof that it can be restored, and a commit to a store in memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use godwit_core::agent::{outside_context, state_reader};
use godwit_core::guest::{GuestRequest, Interrupt};
use godwit_core::store::RuntimeStore;
use godwit_core::store::memory::MemoryStore;
use godwit_core::time::{Clock, SystemClock};
use godwit_store::{SqliteMode, SqliteStore};

use crate::bare::{self, BarePlugin};
use crate::bench::{Bench, STATE_BYTES, component, note};
use crate::product::{self, Product, Settled};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

const ROUNDS: u64 = 2_000;
const WAKE_NANOS_MAX: f64 = 1e6;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let (component, scratch) = (component("hostile")?, bench.scratch()?);
    let floor = BarePlugin::compile(&component)?;
    let product = Product::compile(&component, scratch.path())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let memory: Arc<dyn RuntimeStore> = Arc::new(MemoryStore::exclusive(clock.clone()));
    let sqlite = SqliteStore::open(&scratch.path().join("wake.db"), SqliteMode::Exclusive, clock)?;
    let in_memory = prepared(&product, memory).await?;
    let on_disk = prepared(&product, sqlite.clone()).await?;
    let image = in_memory.env.store.image(&product::agent(), None).await?;
    let snapshot = image.and_then(|image| image.snapshot).context("the agent has a snapshot")?;

    let [mut bare, mut memory, mut sqlite_times, mut driver] = [const { Samples::new() }; 4];
    for round in 0..bench.scaled(ROUNDS) {
        let started = Instant::now();
        let mut guest = floor.start(product::AGENT, None)?;
        guest.restore(&snapshot.state, &snapshot.plugin_version)?;
        let replies = guest.handle(&[bare::input("noted")])?;
        bare.push(started.elapsed());
        ensure!(replies.len() == 1, "one input, one reply");
        drop(guest);
        memory.push(steps(&in_memory).await?);
        sqlite_times.push(steps(&on_disk).await?);
        // The agent's own count says that no wake has lost a turn: `note` was the first.
        let started = Instant::now();
        let handle = in_memory.wake();
        let turns = in_memory.ask(&handle, "turns").await?;
        driver.push(started.elapsed());
        ensure!(turns == (round + 2).to_string(), "{turns} turns after {round} wakes");
        handle.park().await;
    }
    in_memory.close().await;
    on_disk.close().await;
    sqlite.close().await;

    let mut findings = Findings::default();
    let target = Some(Target::Max(WAKE_NANOS_MAX));
    let floor = Some(Measure::Time(bare));
    findings.row("wake, from memory", floor.clone(), Measure::Time(memory), target);
    findings.row("wake, from SQLite", floor.clone(), Measure::Time(sqlite_times), target);
    findings.row("wake, whole driver, from memory", floor, Measure::Time(driver), target);
    Ok(findings)
}

/// An agent with a state, parked.
async fn prepared(product: &Product, store: Arc<dyn RuntimeStore>) -> Result<Settled> {
    let settled = product.settle(store).await?;
    let handle = settled.wake();
    settled.ask(&handle, &note()).await?;
    handle.park().await;
    Ok(settled)
}

/// The steps of a wake up to the reply.
async fn steps(settled: &Settled) -> Result<std::time::Duration> {
    let store = &settled.env.store;
    let lease = &settled.lease;
    let started = Instant::now();
    let image = store.image(&lease.agent, None).await?.context("the agent is here")?;
    image.check().map_err(anyhow::Error::msg)?;
    let row = &image.row;
    let context = outside_context(&row.agent, row.generation, lease.token, row.revision, row.time_ms);
    let request = GuestRequest {
        agent: row.agent.clone(),
        spec: Arc::new(image.spec.clone()),
        grants: Arc::new([]),
        guard: settled.guard.clone(),
        state: state_reader(store.clone(), row.agent.clone()),
        interrupt: Interrupt::default(),
    };
    let mut guest = settled.env.loader.start(request)?;
    let snapshot = image.snapshot.as_ref().context("the agent has a snapshot")?;
    guest.restore(&context, &snapshot.state, &snapshot.plugin_version)?;
    let effects = guest.handle(&context, &[product::input("noted")])?;
    let elapsed = started.elapsed();
    let reply = product::text(&effects.replies[0])?;
    ensure!(reply.len() == STATE_BYTES, "the agent has forgotten its note");
    Ok(elapsed)
}
