//! A host dies in each gap between two durable steps: of a turn, of a delivery, and of a migration, there on either side and
//! with both commit points. Afterwards exactly one host runs the agent, nothing is lost, and every caller was answered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_support::bank::Bank;
use godwit_support::binaries;
use godwit_support::check;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::json::text;
use godwit_support::load::{Load, Plan};
use godwit_support::verdict;

use crate::room::{SOON, shared};

/// Gaps of a migration between hosts with stores of their own.
const SEPARATE: &[&str] = &[
    "migration.source.after-reserve",
    "migration.source.after-transfer",
    "migration.source.after-restore",
    "migration.source.after-replay",
    "migration.source.after-handing-off",
    "migration.source.after-prepared",
    "migration.source.after-moved",
    "migration.target.after-reserve",
    "migration.target.after-transfer",
    "migration.target.after-restore",
    "migration.target.after-prepared",
    "migration.target.after-adopted",
    "migration.target.before-activated",
];
/// Gaps of a migration between hosts on one file: nothing travels but the lease.
const SHARED: &[&str] = &[
    "migration.source.after-reserve",
    "migration.source.after-transfer",
    "migration.source.after-restore",
    "migration.source.after-replay",
    "migration.source.after-transferred",
    "migration.target.after-reserve",
    "migration.target.after-restore",
    "migration.target.after-adopted",
    "migration.target.before-activated",
];

/// The agent moves from a to b; the host that the failpoint stands on dies there, and comes back.
async fn die_at(pair: &mut Cluster, failpoint: &str, agent: &str) -> Result<()> {
    let mortal = if failpoint.starts_with("migration.source.") { Side::A } else { Side::B };
    pair.host_mut(mortal).terminate().await?;
    let variables = [("GODWIT_FAILPOINTS", failpoint)];
    pair.host_mut(mortal).start(&variables).await?;
    let door = pair.a.client();
    door.create(agent, "counter").await?;
    door.reply(agent, "get").await?;
    let plan = Plan {
        doors: pair.doors(),
        agents: vec![agent.to_owned()],
        clients: 4,
        prefix: agent.to_owned(),
        repeats: true,
    };
    let load = Load::start(&plan);
    load.progress(10, SOON).await?;
    move_until_death(pair, mortal, agent).await?;
    pair.host_mut(mortal).start(&[]).await?;
    load.progress(20, SOON).await?;
    let runner = pair.runner(agent, SOON).await?;
    let operations = load.finish().await?;
    let door = pair.host(runner).client();
    check::none("afterwards", &verdict::counters(&door, &plan.agents, &operations).await?)?;
    // Settled means settled: it stays where both hosts said that it is.
    ensure!(pair.runner(agent, SOON).await? == runner, "it moved once more");
    pair.verify(runner, &plan.agents).await
}

/// Starts the move, and starts it again when it fails before its failpoint: the source may find out late that the target's
/// process is a new one.
async fn move_until_death(pair: &mut Cluster, mortal: Side, agent: &str) -> Result<()> {
    let door = pair.a.client();
    let began = Instant::now();
    let mut migration = None;
    while pair.host_mut(mortal).is_running() {
        ensure!(began.elapsed() < SOON, "host {mortal:?} does not die");
        migration = match migration {
            // The answer may die with the host.
            None => door.migrate(agent, "b").await.ok(),
            Some(id) => match door.migration(&id).await {
                Ok(over) if matches!(over.phase.as_str(), "failed" | "aborted") => None,
                Ok(over) if over.phase == "complete" => bail!("it moved, and host {mortal:?} lives"),
                Ok(_) | Err(_) => Some(id),
            },
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn all(mut pair: Cluster, failpoints: &[&str]) -> Result<()> {
    pair.load(&["counter"]).await?;
    for (number, failpoint) in failpoints.iter().enumerate() {
        println!("{failpoint}");
        die_at(&mut pair, failpoint, &format!("mover-{number}"))
            .await
            .with_context(|| format!("{failpoint}\n{}", logs(&mut pair)))?;
    }
    pair.end_and_verify().await?;
    Ok(())
}

fn logs(pair: &mut Cluster) -> String {
    let mut text = String::new();
    for side in [Side::A, Side::B] {
        if let Ok(process) = pair.host_mut(side).process() {
            text += &format!("--- {side:?}\n{}\n", process.log_end(30));
        }
    }
    text
}

#[tokio::test]
async fn a_death_in_any_gap_between_separate_stores_leaves_one_agent() -> Result<()> {
    let _room = shared().await;
    all(Cluster::separate(&binaries::failpoints()?, &[]).await?, SEPARATE).await
}

#[tokio::test]
async fn a_death_in_any_gap_on_one_file_leaves_one_agent() -> Result<()> {
    let _room = shared().await;
    all(Cluster::shared(&binaries::failpoints()?, &[]).await?, SHARED).await
}

/// Gaps of a turn and of a delivery. Host a dies at each, in the middle of transfers between both hosts.
const TURNS: &[&str] =
    &["turn.before-commit-queued", "turn.after-commit", "outbox.before-send", "outbox.after-send"];
/// The hit at which it dies: not the first, so that there is something to lose.
const HIT: u32 = 25;

#[tokio::test]
async fn a_death_in_any_gap_of_a_turn_or_a_delivery_conserves_money() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::failpoints()?, &[]).await?;
    pair.load(&["ledger"]).await?;
    let bank = Bank::open(pair.doors(), 6, 1_000).await?;
    for (round, failpoint) in TURNS.iter().enumerate() {
        println!("{failpoint}");
        pair.a.terminate().await?;
        let armed = format!("{failpoint}=abort:{HIT}");
        pair.a.start(&[("GODWIT_FAILPOINTS", &armed)]).await?;
        let paying = bank.clone();
        let payments = tokio::spawn(async move { paying.pay(150, 8, round as u64).await });
        pair.a.died(SOON).await.with_context(|| (*failpoint).to_owned())?;
        pair.a.start(&[]).await?;
        payments.await?.with_context(|| (*failpoint).to_owned())?;
        bank.check(SOON).await.with_context(|| (*failpoint).to_owned())?;
    }
    pair.verify(Side::B, &bank.agents()).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn every_failpoint_is_tried() -> Result<()> {
    let _room = shared().await;
    let pair = Cluster::separate(&binaries::failpoints()?, &[]).await?;
    let version = pair.a.client().get("/version").await?;
    ensure!(text(&version, "name")? == "godwit", "another program: {version}");
    let names = version["failpoints"].as_array().context("this build names its failpoints")?;
    let known: BTreeSet<_> = names.iter().filter_map(|name| name.as_str()).collect();
    let tried =
        SEPARATE.iter().chain(SHARED).chain(TURNS).chain(crate::timers::GAPS).chain(crate::operations::GAPS);
    let tried: BTreeSet<_> = tried.copied().collect();
    ensure!(known == tried, "failpoints without a test, or the reverse: {known:?} and {tried:?}");
    Ok(())
}
