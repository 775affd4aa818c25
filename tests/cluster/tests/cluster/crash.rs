//! Hosts that die at random moments: what they acknowledged is applied exactly once.

use std::time::Duration;

use anyhow::Result;
use godwit_support::bank::Bank;
use godwit_support::binaries;
use godwit_support::check;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::journal::Summary;
use godwit_support::load::{Load, Plan};
use godwit_support::random::Random;
use godwit_support::verdict;

use crate::room::{SOON, shared};

const KILLS: usize = 20;

/// Kills and moves in the middle of transfers between agents on both hosts.
const DISTURBANCES: usize = 8;

#[tokio::test]
async fn kills_and_moves_in_the_middle_of_transfers_conserve_money() -> Result<()> {
    let _room = shared().await;
    let mut random = Random::printed("kills and moves");
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["ledger"]).await?;
    let bank = Bank::open(pair.doors(), 8, 1_000).await?;
    let (paying, seed) = (bank.clone(), random.draw());
    let payments = tokio::spawn(async move { paying.pay(1_500, 12, seed).await });
    for _ in 0..DISTURBANCES {
        let agents = bank.agents();
        let agent = &agents[random.below(agents.len() as u64) as usize];
        let side = if random.below(2) == 0 { Side::A } else { Side::B };
        // It moves if it is not there already; the host may die before it has left or arrived.
        drop(pair.a.client().migrate(agent, pair.host(side).name()).await);
        // The moment is random; nothing is waited for here.
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        let side = if random.below(2) == 0 { Side::A } else { Side::B };
        pair.host_mut(side).kill().await?;
        pair.host_mut(side).start(&[]).await?;
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
    }
    println!("{DISTURBANCES} kills and moves: {:?}", payments.await??);
    bank.check(SOON).await?;
    pair.verify(Side::A, &bank.agents()).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn twenty_kills_at_random_moments_lose_and_double_nothing() -> Result<()> {
    let _room = shared().await;
    let mut random = Random::printed("twenty kills");
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["counter"]).await?;
    let agents: Vec<String> = (0..6).map(|number| format!("counter-{number}")).collect();
    for (number, agent) in agents.iter().enumerate() {
        let home = if number % 2 == 0 { &pair.a } else { &pair.b };
        home.client().create(agent, "counter").await?;
    }
    let plan = Plan {
        doors: pair.doors(),
        agents: agents.clone(),
        clients: 12,
        prefix: "kills".into(),
        repeats: true,
    };
    let load = Load::start(&plan);
    for _ in 0..KILLS {
        load.progress(20 + random.below(40) as usize, SOON).await?;
        // The moment is random; nothing is waited for here.
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        let side = if random.below(2) == 0 { Side::A } else { Side::B };
        pair.host_mut(side).kill().await?;
        pair.host_mut(side).start(&[]).await?;
    }
    load.progress(50, SOON).await?;
    let operations = load.finish().await?;
    println!("{KILLS} kills: {}", Summary::of(&operations));
    check::none("after the kills", &verdict::counters(&pair.a.client(), &agents, &operations).await?)?;
    pair.verify(Side::A, &agents).await?;
    pair.end_and_verify().await?;
    Ok(())
}
