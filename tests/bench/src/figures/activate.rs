//! The start of a host with 10,000 agents that its roster names: lazy, when each starts as it is needed, and eager, when
//! all have started before the host is ready.
//!
//! All is counted from the start of the process to its ready line, the roster's reconcile included.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use godwit_support::binaries;
use godwit_support::host::{Host, HostOptions};

use crate::bench::{Bench, guest_file, note};
use crate::figures::parked::Memory;
use crate::report::{Findings, Measure, Side, Target};
use crate::samples::Samples;

const AGENTS: u64 = 10_000;
const STARTS: u64 = 10;
const LAZY_NANOS_MAX: f64 = 1e9;
const EAGER_PER_SECOND_MIN: f64 = 2_000.0;
/// Agents that are asked after each start.
const ASKED: usize = 20;
/// Connections that ask all of them.
const LANES: usize = 32;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let names: Vec<_> = (0..bench.scaled(AGENTS)).map(|number| format!("rostered-{number}")).collect();
    let roster = scratch.path().join("roster.toml");
    std::fs::write(&roster, roster_of(&names)?)?;
    let options = HostOptions::new(&binaries::product()?, &scratch.path().join("host"), "host");
    let mut host = options.variable("GODWIT_LIMITS_RESIDENT_MAX", &AGENTS.to_string()).prepare()?;
    let created = create(&mut host, &roster, &names).await?;

    let (mut lazy, mut eager, mut resident) = (Samples::new(), Side::default(), None);
    for _ in 0..bench.scaled(STARTS) {
        lazy.push(start(&mut host, &roster, "lazy").await?);
        check(&host, &names).await?;
        host.terminate().await?;
        let elapsed = start(&mut host, &roster, "eager").await?;
        let each = u64::try_from(elapsed.as_nanos())? / u64::try_from(names.len())?;
        eager.add(elapsed, vec![each; names.len()]);
        resident = Some(Memory::of(&mut host)?);
        check(&host, &names).await?;
        host.terminate().await?;
    }
    let mut findings = Findings::default();
    findings.note(format!(
        "{} agents were created by their roster in {:.1} s; with all of them resident the host has {}",
        names.len(),
        created.as_secs_f64(),
        resident.map_or_else(String::new, |memory| memory.to_string())
    ));
    let name = "start to ready, lazy, roster of 10,000";
    findings.row(name, None, Measure::Time(lazy), Some(Target::Max(LAZY_NANOS_MAX)));
    let name = "agents active at ready, eager, roster of 10,000";
    findings.row(name, None, eager.rate(), Some(Target::RateMin(EAGER_PER_SECOND_MIN)));
    Ok(findings)
}

fn roster_of(names: &[String]) -> Result<String> {
    let mut roster = String::new();
    for name in names {
        writeln!(roster, "[[agents]]\nid = \"{name}\"\nplugin = \"hostile\"")?;
    }
    Ok(roster)
}

/// Lets the roster make the agents, and gives each a state of its own. Answers how long the making took.
async fn create(host: &mut Host, roster: &Path, names: &[String]) -> Result<Duration> {
    // Nothing can be made before the plugin is there.
    host.start(&[]).await?;
    host.client().load_plugin(&guest_file("hostile")?).await?;
    host.terminate().await?;
    let elapsed = start(host, roster, "lazy").await?;
    let (api, first) = (&host.client(), &note());
    let lanes = names.chunks(names.len().div_ceil(LANES).max(1));
    try_join_all(lanes.map(|lane| async move {
        for agent in lane {
            api.reply(agent, first).await?;
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    host.terminate().await?;
    Ok(elapsed)
}

/// Answers the time from the start of the process to its ready line.
async fn start(host: &mut Host, roster: &Path, boot: &str) -> Result<Duration> {
    let roster = roster.to_str().context("the directory's name is text")?;
    let started = Instant::now();
    host.start(&[("GODWIT_ROSTER_FILE", roster), ("GODWIT_ROSTER_BOOT", boot)]).await?;
    Ok(started.elapsed())
}

/// Some of the agents still have what they were given.
async fn check(host: &Host, names: &[String]) -> Result<()> {
    let (api, note) = (host.client(), note());
    let note = note.strip_prefix("note ").context("a command")?;
    for agent in names.iter().step_by((names.len() / ASKED).max(1)) {
        ensure!(api.reply(agent, "noted").await? == note, "{agent} has forgotten its note");
    }
    Ok(())
}
