//! Scene: a host dies in the middle of everything; what it acknowledged is applied once.

use std::time::Instant;

use anyhow::Result;
use godwit_support::check;
use godwit_support::cluster::Cluster;
use godwit_support::journal::Summary;
use godwit_support::load::{Load, Plan};
use godwit_support::verdict;

use crate::SOON;
use crate::screen::{say, section};

/// Acknowledged operations before and after the kill.
const BEFORE: usize = 300;
const AFTER: usize = 300;

/// Plays the scene.
pub(crate) async fn run(pair: &mut Cluster) -> Result<()> {
    section("kill -9 in the middle of a stream of sends and asks");
    let agents: Vec<String> = (0..4).map(|number| format!("survivor-{number}")).collect();
    for agent in &agents {
        pair.a.client().create(agent, "counter").await?;
    }
    let plan = Plan {
        doors: pair.doors(),
        agents: agents.clone(),
        clients: 8,
        prefix: "crash".into(),
        repeats: true,
    };
    let load = Load::start(&plan);
    load.progress(BEFORE, SOON).await?;
    pair.a.kill().await?;
    say(format!("host a killed after {} acknowledged operations", load.acknowledged()));
    let began = Instant::now();
    pair.a.start(&[]).await?;
    say(format!("host a is back in {} ms, at the same addresses", began.elapsed().as_millis()));
    load.progress(AFTER, SOON).await?;
    let operations = load.finish().await?;
    check::none("survivors", &verdict::counters(&pair.a.client(), &agents, &operations).await?)?;
    say(format!("clients: {}", Summary::of(&operations)));
    say("every acknowledged key is applied exactly once, in each client's order");
    Ok(())
}
