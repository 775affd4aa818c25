//! Scene: an agent moves while clients talk to it through both hosts.

use anyhow::{Result, ensure};
use godwit_support::check::{self, History, Sight};
use godwit_support::cluster::{Cluster, Side};
use godwit_support::journal::Summary;
use godwit_support::load::{Load, Plan};
use godwit_support::verdict;

use crate::SOON;
use crate::screen::{say, section};

const AGENT: &str = "traveller";
/// Acknowledged operations between two moves.
const BETWEEN: usize = 150;

/// Plays the scene.
pub(crate) async fn run(pair: &Cluster) -> Result<()> {
    section("An agent moves a -> b -> a -> b while clients keep sending through both hosts");
    pair.a.client().create(AGENT, "counter").await?;
    let plan = Plan {
        doors: pair.doors(),
        agents: vec![AGENT.into()],
        clients: 6,
        prefix: "journey".into(),
        repeats: true,
    };
    let load = Load::start(&plan);
    let mut sights = Vec::new();
    let mut side = Side::A;
    for _ in 0..3 {
        load.progress(BETWEEN, SOON).await?;
        let (source, target) = (pair.host(side), pair.host(side.other()));
        let before = Sight::of(&source.client(), AGENT).await?;
        let migration = source.client().move_to(AGENT, target.name(), SOON).await?;
        let after = Sight::of(&target.client(), AGENT).await?;
        ensure!(after.token > before.token, "token {} does not rise above {}", after.token, before.token);
        say(format!(
            "{} -> {}: pause {:.1} ms, {} rounds, {} bytes; token {} -> {}",
            source.name(),
            target.name(),
            migration.pause_ms.unwrap_or(f64::NAN),
            migration.rounds,
            migration.bytes,
            before.token,
            after.token
        ));
        sights.extend([before, after]);
        side = side.other();
    }
    load.progress(BETWEEN, SOON).await?;
    let operations = load.finish().await?;
    let door = pair.host(side).client();
    let mut violations = verdict::counters(&door, &plan.agents, &operations).await?;
    violations.extend(check::tokens(&History::of(&door, AGENT).await?, &sights));
    check::none(AGENT, &violations)?;
    let count = door.reply(AGENT, "get").await?;
    say(format!("clients: {}", Summary::of(&operations)));
    say(format!("count {count}: nothing lost, nothing doubled, every client's order kept, tokens rise"));
    Ok(())
}
