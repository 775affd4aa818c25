//! Migrations under load, between hosts that share nothing and between hosts on one file.

use anyhow::{Result, ensure};
use godwit_support::binaries;
use godwit_support::check::{self, History, Sight};
use godwit_support::cluster::{Cluster, Side};
use godwit_support::journal::Summary;
use godwit_support::load::{Load, Plan};
use godwit_support::verdict;

use crate::room::{SOON, shared};

const AGENT: &str = "traveller";
const MOVES: usize = 6;

async fn travel(mut pair: Cluster) -> Result<()> {
    pair.load(&["counter"]).await?;
    pair.a.client().create(AGENT, "counter").await?;
    let plan = Plan {
        doors: pair.doors(),
        agents: vec![AGENT.into()],
        clients: 6,
        prefix: "journey".into(),
        repeats: true,
    };
    // Whoever is asked first owns it on a shared file.
    pair.a.client().reply(AGENT, "get").await?;
    let load = Load::start(&plan);
    let (mut side, mut sights) = (Side::A, Vec::new());
    for _ in 0..MOVES {
        load.progress(40, SOON).await?;
        let (source, target) = (pair.host(side), pair.host(side.other()));
        let before = Sight::of(&source.client(), AGENT).await?;
        let migration = source.client().move_to(AGENT, target.name(), SOON).await?;
        let after = Sight::of(&target.client(), AGENT).await?;
        ensure!(after.token > before.token, "token {after:?} does not rise above {before:?}");
        ensure!(migration.pause_ms.is_some(), "no pause in {}", migration.body);
        println!("pause {:?} ms", migration.pause_ms);
        sights.extend([before, after]);
        side = side.other();
        ensure!(pair.runner(AGENT, SOON).await? == side, "{AGENT} is not where it was moved to");
    }
    load.progress(40, SOON).await?;
    let operations = load.finish().await?;
    println!("{MOVES} moves: {}", Summary::of(&operations));
    let door = pair.host(side).client();
    let mut violations = verdict::counters(&door, &plan.agents, &operations).await?;
    violations.extend(check::tokens(&History::of(&door, AGENT).await?, &sights));
    check::none("after the moves", &violations)?;
    pair.verify(side.other(), &plan.agents).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_moves_between_stores_under_load() -> Result<()> {
    let _room = shared().await;
    travel(Cluster::separate(&binaries::product()?, &[]).await?).await
}

#[tokio::test]
async fn an_agent_moves_between_hosts_of_one_file_under_load() -> Result<()> {
    let _room = shared().await;
    travel(Cluster::shared(&binaries::product()?, &[]).await?).await
}

#[tokio::test]
async fn a_plugin_that_the_target_lacks_travels_along() -> Result<()> {
    let _room = shared().await;
    let pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.a.client().load_plugin(&binaries::plugin("counter")?).await?;
    pair.a.client().create(AGENT, "counter").await?;
    pair.a.client().reply(AGENT, "add 7").await?;
    pair.a.client().move_to(AGENT, "b", SOON).await?;
    ensure!(pair.b.client().reply(AGENT, "get").await? == "7", "the state did not travel");
    Ok(())
}

#[tokio::test]
async fn only_the_home_answers_who_asks_not_to_forward() -> Result<()> {
    let _room = shared().await;
    let pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["counter"]).await?;
    pair.a.client().create(AGENT, "counter").await?;
    pair.a.client().move_to(AGENT, "b", SOON).await?;
    let there = pair.b.client().ask_here(AGENT, "get").await;
    ensure!(there.reply() == Some("0"), "the home does not answer: {there:?}");
    let elsewhere = pair.a.client().ask_here(AGENT, "get").await;
    let status = elsewhere.problem().map(|problem| problem.status);
    ensure!(status == Some(421), "not the home, and yet {elsewhere:?}");
    Ok(())
}
