//! A host with 1,000 small agents is emptied: from the request to the end of the last migration, at a peer with a store of
//! its own. Each agent must be there afterwards, with what it had.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use godwit_support::client::Client;
use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::bench::{Bench, note, populate};
use crate::figures::pause::pair;
use crate::report::{Findings, Measure, Target, nanos};
use crate::samples::Samples;

const AGENTS: u64 = 1_000;
const DRAIN_NANOS_MAX: f64 = 20e9;
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Connections that ask all of them afterwards.
const LANES: usize = 16;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let (mut a, mut b) = pair(bench, scratch.path()).await?;
    let agents: Vec<_> = (0..bench.scaled(AGENTS)).map(|number| format!("leaving-{number}")).collect();
    populate(&a.client(), "hostile", &agents, Some(&note())).await?;
    let started = Instant::now();
    let drained = drain(&a.client()).await?;
    let mut times = Samples::new();
    times.push(started.elapsed());
    ensure!(drained["left"].as_array().is_some_and(Vec::is_empty), "{drained}");
    ensure!(drained["moved"].as_u64() == Some(agents.len() as u64), "{drained}");
    let note = note();
    let note = note.strip_prefix("note ").context("a command")?;
    let api = &b.client();
    try_join_all(agents.chunks(agents.len().div_ceil(LANES)).map(|lane| async move {
        for agent in lane {
            ensure!(api.reply(agent, "noted").await? == note, "{agent} has forgotten its note");
        }
        Ok(())
    }))
    .await?;
    a.terminate().await?;
    b.terminate().await?;

    let mut findings = Findings::default();
    let pause = |name: &str| nanos(drained[name].as_f64().unwrap_or_default() * 1e6);
    findings.note(format!(
        "pause {} at the median, {} at most",
        pause("pause_median_ms"),
        pause("pause_max_ms")
    ));
    findings.row(
        "drain of 1,000 small agents",
        None,
        Measure::Time(times),
        Some(Target::Max(DRAIN_NANOS_MAX)),
    );
    Ok(findings)
}

async fn drain(api: &Client) -> Result<Value> {
    let begun = api.call(Method::POST, "/v1/hosts/self/drain", None).await?;
    ensure!(begun.status == 202, "{} {}", begun.status, begun.body);
    loop {
        let progress = api.get("/v1/hosts/self/drain").await?;
        if progress["over"] == true {
            return Ok(progress);
        }
        sleep(LOOK_PAUSE).await;
    }
}
