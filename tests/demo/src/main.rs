//! `cargo xtask demo`: what Godwit promises, shown on real processes and checked from outside. Exit code 0 means that
//! everything shown was true.
//!
//! One module per scene; `screen` prints. Nothing here links the host: what is checked is what the API shows.
#![forbid(unsafe_code)]

mod crash;
mod journey;
mod money;
mod screen;
mod search;
mod stale;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use godwit_support::binaries;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::json::text;

use screen::{say, section};

/// Longest wait for anything that should happen soon.
const SOON: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    match tour().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe tour ends here: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tour() -> Result<()> {
    let began = Instant::now();
    let program = binaries::product()?;
    let mut pair = meet(&program).await?;
    search::run(&pair).await.context("the search")?;
    money::run(&pair).await.context("the transfers")?;
    crash::run(&mut pair).await.context("the kill -9")?;
    journey::run(&pair).await.context("the migrations")?;
    let mut shared = stale::run(&program).await.context("the stale owner")?;
    verify(&mut pair, &mut shared).await.context("the verification")?;
    next();
    say(format!("\nEverything shown was checked, in {:.0} s.", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Scene 1: two hosts, and plugins that are loaded while they run.
async fn meet(program: &Path) -> Result<Cluster> {
    section("Two hosts, each with its own data, and plugins loaded while they run");
    let pair = Cluster::separate(program, &[]).await?;
    for host in [&pair.a, &pair.b] {
        let ready = host.ready();
        say(format!(
            "host {} = {}..  api http://{}  mesh {}",
            ready.name,
            &ready.id[..8],
            ready.api,
            ready.mesh
        ));
        say(format!("         {}", ready.store));
    }
    for name in ["counter", "ledger", "index"] {
        let file = binaries::plugin(name)?;
        let began = Instant::now();
        let plugin = pair.a.client().load_plugin(&file).await?;
        pair.b.client().load_plugin(&file).await?;
        let (digest, version) = (text(&plugin, "digest")?, text(&plugin, "version")?);
        say(format!(
            "plugin {name} {version}, digest {}.., compiled by both in {} ms",
            &digest[..8],
            began.elapsed().as_millis()
        ));
    }
    Ok(pair)
}

/// The last scene: every history is recomputed, through the hosts and then from the files alone.
async fn verify(pair: &mut Cluster, shared: &mut Cluster) -> Result<()> {
    section("Verify: every receipt of every agent, recomputed");
    let mut agents = 0;
    for side in [Side::A, Side::B] {
        for cluster in [&*pair, &*shared] {
            let listed = cluster.host(side).client().list("/v1/agents").await?;
            let ids: Result<Vec<String>> =
                listed.iter().map(|agent| Ok(text(agent, "id")?.to_owned())).collect();
            let ids = ids?;
            agents += ids.len();
            cluster.verify(side, &ids).await?;
        }
    }
    say(format!("online, `godwit verify ID`: {agents} histories, no break"));
    for cluster in [pair, shared] {
        cluster.end_and_verify().await?;
    }
    say("hosts ended by SIGTERM, exit code 0");
    say("offline, `godwit verify --store URL`: three store files, no break");
    Ok(())
}

fn next() {
    section("What to look at next");
    say("cargo xtask build             the release host in target/release/godwit, plugins in target/guests/");
    say("README.md, \"Five minutes\"     the same with your own hands");
    say("plugins/counter/src/lib.rs    an agent that fits one screen; guest-sdk/ to write your own");
    say("ARCHITECTURE.md               where things are, and why a stale owner can't act");
    say(
        "cargo xtask test cluster      the hard version: crashes between any two durable steps, 20 x kill -9, damage",
    );
}
