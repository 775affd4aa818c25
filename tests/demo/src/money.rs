//! Scene: twenty ledgers on two hosts pay each other; what there is in all stays the same.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use godwit_support::client::Client;
use godwit_support::cluster::Cluster;
use godwit_support::fate::{End, Fate};
use godwit_support::random::Random;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::SOON;
use crate::screen::{say, section};

const LEDGERS: u64 = 20;
const DEPOSIT: u64 = 1_000;
const TRANSFERS: u64 = 2_000;
/// Transfers under way at a time.
const CLIENTS: u64 = 16;

/// Plays the scene.
pub(crate) async fn run(pair: &Cluster) -> Result<()> {
    section(
        "Twenty ledgers on both hosts pay each other: money is conserved only if no message is lost or doubled",
    );
    let doors = pair.doors();
    for number in 0..LEDGERS {
        let home = &doors[number as usize % doors.len()];
        home.create(&ledger(number), "ledger").await?;
        home.reply(&ledger(number), &json!({ "deposit": DEPOSIT }).to_string())
            .await?;
    }
    let began = Instant::now();
    let seed = Random::printed("transfers").draw();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(pay(doors.clone(), client, seed));
    }
    let (mut moved, mut refused) = (0, 0);
    while let Some(paid) = clients.join_next().await {
        let (more_moved, more_refused) = paid.context("a client panicked")??;
        moved += more_moved;
        refused += more_refused;
    }
    ensure!(
        moved + refused == TRANSFERS,
        "{moved} and {refused} transfers are not {TRANSFERS}"
    );
    let seconds = began.elapsed().as_secs_f64();
    say(format!(
        "{TRANSFERS} transfers in {seconds:.1} s ({:.0}/s): {moved} paid, {refused} refused for lack of money",
        TRANSFERS as f64 / seconds
    ));
    let balances = balances(&doors).await?;
    let total: u64 = balances.values().sum();
    ensure!(
        total == LEDGERS * DEPOSIT,
        "{total} in all, but {} was deposited",
        LEDGERS * DEPOSIT
    );
    say(format!(
        "all messages delivered; the total is {total}, as deposited; balances from {} to {}",
        balances.values().min().unwrap_or(&0),
        balances.values().max().unwrap_or(&0)
    ));
    Ok(())
}

fn ledger(number: u64) -> String {
    format!("ledger-{number:02}")
}

/// One client's share of the transfers. Answers how many were paid and how many refused.
async fn pay(doors: Vec<Client>, client: u64, seed: u64) -> Result<(u64, u64)> {
    let mut random = Random::from_seed(seed ^ client);
    let (mut paid, mut refused) = (0, 0);
    for turn in (client..TRANSFERS).step_by(CLIENTS as usize) {
        let from = random.below(LEDGERS);
        let to = (from + 1 + random.below(LEDGERS - 1)) % LEDGERS;
        let transfer = json!({ "transfer": { "to": ledger(to), "amount": 1 + random.below(200) } });
        let door = &doors[random.below(doors.len() as u64) as usize];
        let key = format!("transfer-{turn}");
        match door.ask(&ledger(from), transfer.to_string(), Some(&key)).await {
            Fate::Accepted(answer) => match answer.end {
                End::Reply(_) => paid += 1,
                End::AgentRefused(_) => refused += 1,
                other => bail!("{} answered {other:?}", ledger(from)),
            },
            other => bail!("transfer {turn} from {}: {other:?}", ledger(from)),
        }
    }
    Ok((paid, refused))
}

/// Every balance, when nothing is on its way any more.
async fn balances(doors: &[Client]) -> Result<BTreeMap<String, u64>> {
    // What is sent arrives as an input: outboxes first, then inboxes.
    for number in 0..LEDGERS {
        doors[0].delivered(&ledger(number), SOON).await?;
    }
    let mut balances = BTreeMap::new();
    for number in 0..LEDGERS {
        doors[0].settled(&ledger(number), SOON).await?;
        let reply = doors[0].reply(&ledger(number), r#"{"balance": null}"#).await?;
        let reply: Value = serde_json::from_str(&reply)?;
        let balance = reply["balance"]
            .as_u64()
            .with_context(|| format!("no balance in {reply}"))?;
        balances.insert(ledger(number), balance);
    }
    Ok(balances)
}
