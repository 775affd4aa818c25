//! What an agent costs that doesn't run: it must be a row in the store and nearly nothing in memory.
//!
//! The host is warmed up first, by agents that run, are parked, and run again: pools, page caches and what the allocator
//! keeps have bounds of their own, and are not counted as the agents'.

use std::time::Duration;

use anyhow::{Context, Result};
use godwit_support::client::Client;
use godwit_support::host::Host;
use godwit_support::wait::until;

use crate::bench::{Bench, guest_file, populate};
use crate::report::{Findings, Measure, Target};

const AGENTS: u64 = 10_000;
/// As many as fill the page cache of the connection that writes (16 MiB, about 1.5 KiB per agent).
const WARM_UP: u64 = 12_000;
const BYTES_MAX: f64 = 1_024.0;
/// A host parks agents that have had nothing to do for half a minute.
const PARKED_MAX: Duration = Duration::from_secs(90);

/// Measures it: agents that were created, then the same when each has run once.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut host = bench.host(scratch.path(), "host").await?;
    let api = host.client();
    api.load_plugin(&guest_file("counter")?).await?;
    let names = |prefix: &str, count: u64| (0..count).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    for _ in 0..2 {
        populate(&api, "counter", &names("warm", bench.scaled(WARM_UP)), Some("get")).await?;
        all_parked(&api).await?;
    }

    let agents = names("parked", bench.scaled(AGENTS));
    let before = Memory::of(&mut host)?;
    populate(&api, "counter", &agents, None).await?;
    let created = Memory::of(&mut host)?;
    populate(&api, "counter", &agents, Some("get")).await?;
    all_parked(&api).await?;
    let parked = Memory::of(&mut host)?;
    host.terminate().await?;

    let mut findings = Findings::default();
    findings.note(format!(
        "before: {before}; {} created: {created}; each asked once and parked: {parked}",
        agents.len()
    ));
    let each = |memory: &Memory| Measure::Bytes((memory.resident - before.resident) / agents.len() as f64);
    let target = Some(Target::Max(BYTES_MAX));
    findings.row("memory of a created agent", None, each(&created), target);
    findings.row("memory of an agent that ran and is parked", None, each(&parked), target);
    Ok(findings)
}

/// Waits until no agent is resident.
async fn all_parked(api: &Client) -> Result<()> {
    let look = || async { Ok(api.list("/v1/agents?state=active").await?.is_empty().then_some(())) };
    until("all agents to be parked", PARKED_MAX, look).await
}

/// Memory of a process in bytes.
pub(super) struct Memory {
    pub(super) resident: f64,
    anonymous: f64,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// When the host does not run.
    pub(super) fn of(host: &mut Host) -> Result<Self> {
        let path = format!("/proc/{}/status", host.process()?.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let bytes = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            Ok(kib.with_context(|| format!("{path} has no {name}"))? * 1024.0)
        };
        Ok(Self { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        write!(f, "{:.1} MiB ({:.1} anonymous)", mib(self.resident), mib(self.anonymous))
    }
}
