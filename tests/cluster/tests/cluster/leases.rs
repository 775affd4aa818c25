//! Sessions: guests that spin on every processor cost no host the agents that it owns, and one key has one host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::{Cluster, Folder, Side};
use godwit_support::host::HostOptions;
use godwit_support::wait::until;
use tokio::task::JoinSet;

use crate::room::{SOON, alone, shared};

/// More than any of the machines that this runs on has processors.
const SPINNERS: usize = 16;
/// Several lives of a session. `GODWIT_SPIN_SECONDS` names another time.
const SPIN_SECONDS: u64 = 12;
/// Owned, and asked for nothing.
const QUIET: &str = "quiet";
/// A stop may hit the moment of a write: then nobody can write, and it is tried again.
const TRIES: usize = 4;

fn spin_time() -> Result<Duration> {
    match std::env::var("GODWIT_SPIN_SECONDS") {
        Ok(text) => Ok(Duration::from_secs(text.parse().context("GODWIT_SPIN_SECONDS")?)),
        Err(_) => Ok(Duration::from_secs(SPIN_SECONDS)),
    }
}

async fn spin(door: Client, agent: String, until: Instant) {
    while Instant::now() < until {
        // It ends in a fault of its own; what counts is that it ran until then.
        drop(door.ask_within(&agent, "loop", None, SOON).await);
    }
}

/// Stops host a where it does not hold the file's write lock.
async fn stop_a(cluster: &mut Cluster) -> Result<()> {
    for _ in 0..TRIES {
        cluster.a.process()?.stop().await?;
        if cluster.can_write(Side::B, QUIET).await {
            return Ok(());
        }
        cluster.a.process()?.resume()?;
    }
    bail!("host a held the file's write lock at each of {TRIES} stops")
}

#[tokio::test]
async fn spinning_guests_cost_no_host_its_leases() -> Result<()> {
    let _room = alone().await;
    let mut cluster = Cluster::shared(&binaries::product()?, &[]).await?;
    cluster.load(&["counter"]).await?;
    let door = cluster.a.client();
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    door.create(QUIET, "counter").await?;
    door.reply(QUIET, "add 1").await?;
    let spinners: Vec<_> = (0..SPINNERS).map(|number| format!("spinner-{number}")).collect();
    for spinner in &spinners {
        door.create(spinner, "hostile").await?;
        door.reply(spinner, "echo ready").await?;
    }
    let owned: Vec<_> = spinners.iter().cloned().chain([QUIET.to_owned()]).collect();
    let mut before = Vec::new();
    for agent in &owned {
        // Whoever loses a session and takes its agents again raises their tokens.
        before.push(door.agent(agent).await?.token);
    }

    let end = Instant::now() + spin_time()?;
    let mut spinning = JoinSet::new();
    for spinner in spinners {
        spinning.spawn(spin(door.clone(), spinner, end));
    }
    spinning.join_all().await;
    for (agent, before) in owned.iter().zip(&before) {
        let after = door.agent(agent).await?.token;
        ensure!(after == *before, "{agent} was lost meanwhile: token {before}, then {after}");
    }

    // A host that is kept from its heartbeat does lose them, and that is seen.
    stop_a(&mut cluster).await?;
    let other = cluster.b.client();
    let taken = || async { Ok((other.reply(QUIET, "get").await.is_ok()).then_some(())) };
    let was_taken = until("the other host to take over", SOON, taken).await;
    cluster.a.process()?.resume()?;
    was_taken?;
    ensure!(other.agent(QUIET).await?.token != before[SPINNERS], "a stopped host has lost nothing");
    Ok(())
}

#[tokio::test]
async fn of_two_processes_with_one_key_the_newer_stays() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let file = folder.path().join("shared.db");
    let product = binaries::product()?;
    let host = |name: &str| HostOptions::new(&product, &folder.path().join(name), name).shared_store(&file);
    let mut older = host("older").start().await?;
    let door = older.client();
    door.load_plugin(&binaries::plugin("counter")?).await?;
    door.create(QUIET, "counter").await?;
    door.reply(QUIET, "add 1").await?;
    let mut newer = host("newer").prepare()?;
    std::fs::copy(older.data().join("host.key"), newer.data().join("host.key"))?;
    newer.start(&[]).await?;
    ensure!(newer.key() == older.key(), "it is the same host");
    let ended = older.process()?.exit().await?;
    ensure!(ended.code() == Some(1), "the older one ended with {ended}");
    let log = older.log_text();
    ensure!(log.contains("a newer process uses this host's key"), "it says why:\n{log}");
    ensure!(newer.client().reply(QUIET, "add 1").await? == "2", "the newer one has the agent");
    newer.terminate().await
}
