//! Whether an agent's past makes it slower: one with a million committed turns is restarted beside one with a thousand.
//!
//! The turns are real: a driver in this process runs them in its guest and commits them to the file that the host opens
//! afterwards. Measured is the whole way of a process that was killed: from its start to its answer.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt;
use godwit_core::time::SystemClock;
use godwit_store::{SqliteMode, SqliteStore};
use godwit_support::binaries;
use godwit_support::host::{Host, HostOptions};

use crate::bench::{Bench, component, note};
use crate::product::{self, Product};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

const LONG: u64 = 1_000_000;
const SHORT: u64 = 1_000;
/// Asks under way at a time: what the driver's mailbox takes.
const UNDER_WAY: usize = 512;
const RESTARTS: u64 = 20;
const RATIO_MAX: f64 = 1.2;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let product = Product::compile(&component("hostile")?, scratch.path())?;
    let mut short = Aged::new(&product, scratch.path(), "short", SHORT).await?;
    let mut long = Aged::new(&product, scratch.path(), "long", bench.scaled(LONG)).await?;
    let told = format!(
        "{} turns were committed in {:.0} s; the file has {} MiB",
        long.turns,
        long.took.as_secs_f64(),
        long.file_bytes >> 20
    );
    // The first start compiles the plugin.
    for aged in [&mut short, &mut long] {
        aged.restart().await?;
    }
    let [mut short_starts, mut long_starts, mut short_asks, mut long_asks] = [const { Samples::new() }; 4];
    for _ in 0..bench.scaled(RESTARTS) {
        for (aged, starts, asks) in
            [(&mut short, &mut short_starts, &mut short_asks), (&mut long, &mut long_starts, &mut long_asks)]
        {
            let (whole, ask) = aged.restart().await?;
            starts.push(whole);
            asks.push(ask);
        }
    }
    let mut findings = Findings::default();
    findings.note(told);
    let target = Some(Target::RatioMax(RATIO_MAX));
    let mut row = |name: &str, floor, product| {
        findings.row(name, Some(Measure::Time(floor)), Measure::Time(product), target);
    };
    row("restart and answer, 1,000,000 turns (floor: 1,000)", short_starts, long_starts);
    row("first answer of a started host, 1,000,000 turns (floor: 1,000)", short_asks, long_asks);
    Ok(findings)
}

/// A host with one agent that has a past.
struct Aged {
    host: Host,
    turns: u64,
    took: Duration,
    file_bytes: u64,
}

impl Aged {
    async fn new(product: &Product, directory: &Path, name: &str, turns: u64) -> Result<Self> {
        let data = directory.join(name);
        let host = HostOptions::new(&binaries::product()?, &data, name).prepare()?;
        let file = data.join("godwit.db");
        let started = Instant::now();
        let store = SqliteStore::open(&file, SqliteMode::Exclusive, std::sync::Arc::new(SystemClock))?;
        let settled = product.settle(store.clone()).await?;
        let handle = settled.wake();
        settled.ask(&handle, &note()).await?;
        let asks = (1..turns).map(|_| settled.ask(&handle, "turns"));
        let mut asks = futures::stream::iter(asks).buffered(UNDER_WAY);
        let mut seen = 1;
        while let Some(reply) = asks.next().await {
            seen += 1;
            ensure!(reply? == seen.to_string(), "a turn was lost, or run twice");
        }
        drop(asks);
        handle.park().await;
        settled.close().await;
        store.close().await;
        let file_bytes = std::fs::metadata(&file)?.len();
        Ok(Self { host, turns, took: started.elapsed(), file_bytes })
    }

    /// Starts the host, asks the agent, and kills the host. Answers the time from start to answer, and that of the ask.
    async fn restart(&mut self) -> Result<(Duration, Duration)> {
        let started = Instant::now();
        self.host.start(&[]).await?;
        let api = self.host.client();
        let asked = Instant::now();
        let turns = api.reply(product::AGENT, "turns").await?;
        let (whole, ask) = (started.elapsed(), asked.elapsed());
        self.turns += 1;
        ensure!(turns == self.turns.to_string(), "{turns} turns instead of {}", self.turns);
        self.host.kill().await?;
        Ok((whole, ask))
    }
}
