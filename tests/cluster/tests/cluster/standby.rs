//! Warm copies on real hosts: the source is killed under load, its standby takes the copy up, and everything for which a round was
//! acknowledged is there, the signature included. The source comes back, and runs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::wait::until;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::entity_keys::signs;
use crate::room::{SOON, shared};

const COUNTER: &str = "guarded";
const SIGNER: &str = "notary";
const CLIENTS: usize = 4;

async fn standby(door: &Client, agent: &str) -> Result<Value> {
    door.get(&format!("/v1/agents/{agent}/standby")).await
}

/// Waits until the standby has all that there is of an agent that rests.
async fn is_fed(door: &Client, agent: &str) -> Result<()> {
    until("the copy to be up to date", SOON, || async {
        Ok((standby(door, agent).await?["lag_changes"] == 0).then_some(()))
    })
    .await
}

/// Adds one, all the time, until it is told to end or the host is gone.
fn load(door: &Client, ends: &Arc<AtomicBool>) -> JoinSet<u64> {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (door, ends) = (door.clone(), ends.clone());
        clients.spawn(async move {
            let mut answered = 0;
            while !ends.load(Ordering::Relaxed) {
                let fate = door.ask_within(COUNTER, "add 1", None, Duration::from_secs(2)).await;
                answered += u64::from(fate.reply().is_some());
            }
            answered
        });
    }
    clients
}

fn number(value: &Value, name: &str) -> Result<u64> {
    Ok(value[name].as_str().with_context(|| format!("no {name} in {value}"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_taken_up_when_its_source_was_killed_at_work() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["counter", "signer"]).await?;
    let (at_a, at_b) = (pair.a.client(), pair.b.client());
    at_a.create(COUNTER, "counter").await?;
    at_a.create(SIGNER, "signer").await?;
    let key = signs(&at_a, SIGNER).await?;
    for agent in [COUNTER, SIGNER] {
        pair.a.cli(&["agent", "standby", agent, "--on", "b"]).await?.ok()?;
    }
    is_fed(&at_a, SIGNER).await?;

    let ends = Arc::new(AtomicBool::new(false));
    let clients = load(&at_a, &ends);
    let mut acknowledged = 0;
    let some_rounds = || async {
        let view = standby(&at_a, COUNTER).await?;
        Ok(view["revision"].as_str().and_then(|text| text.parse().ok()).filter(|at: &u64| *at > 50))
    };
    acknowledged = acknowledged.max(until("rounds under load", SOON, some_rounds).await?);
    pair.a.kill().await?;
    ends.store(true, Ordering::Relaxed);
    let answered: u64 = clients.join_all().await.into_iter().sum();

    // Nobody is taken for dead because of silence alone.
    let refused = pair.b.cli(&["agent", "promote", COUNTER]).await?;
    ensure!(refused.code == 4 && refused.stderr.contains("promotion_in_doubt"), "{refused:?}");
    let promoted: Value =
        pair.b.cli(&["agent", "promote", COUNTER, "--force", "-o", "json"]).await?.ok()?.json()?;
    let revision = number(&promoted, "revision")?;
    ensure!(revision >= acknowledged, "{promoted} is behind the acknowledged revision {acknowledged}");
    // Its first boundary was `init`, and each other one added one.
    let value: u64 = at_b.reply(COUNTER, "get").await?.parse()?;
    println!("{answered} answered, {acknowledged} seen acknowledged, {value} promoted");
    ensure!(value == revision - 1, "revision {revision} has {value}");
    ensure!(at_b.reply(COUNTER, "add 1").await? == (value + 1).to_string());
    pair.b.cli(&["agent", "promote", SIGNER, "--force"]).await?.ok()?;
    ensure!(signs(&at_b, SIGNER).await? == key, "another key");
    ensure!(pair.b.cli(&["standbys", "-o", "name"]).await?.ok()?.stdout.trim().is_empty(), "a copy stays");

    // The source runs nothing, and gives up what it has.
    pair.a.start(&[]).await?;
    let before = pair.b.client().agent(COUNTER).await?;
    until("what is left to be broken", SOON, || async {
        let shown = pair.a.client().agent(COUNTER).await?;
        Ok((shown.state == "broken" && shown.body["broken"]["reason"] == "forked").then_some(()))
    })
    .await?;
    let asked = pair.a.client().ask(COUNTER, "add 1", None).await;
    ensure!(asked.problem().is_some_and(|problem| problem.code == "agent_broken"), "{asked:?}");
    ensure!(pair.a.client().agent(COUNTER).await?.token < before.token, "the source has a later token");
    for agent in [COUNTER, SIGNER] {
        pair.a.cli(&["agent", "adopt", agent, "--force"]).await?.ok()?;
    }
    ensure!(pair.a.client().reply(COUNTER, "get").await? == (value + 1).to_string(), "the way is not known");
    ensure!(signs(&pair.a.client(), SIGNER).await? == key);
    pair.verify(Side::B, &[COUNTER.to_owned(), SIGNER.to_owned()]).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_was_killed_and_not_replaced_goes_on_when_its_standby_says_so() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["counter"]).await?;
    pair.a.client().create(COUNTER, "counter").await?;
    pair.a.client().reply(COUNTER, "add 5").await?;
    pair.a.cli(&["agent", "standby", COUNTER, "--on", "b"]).await?.ok()?;
    is_fed(&pair.a.client(), COUNTER).await?;
    pair.a.kill().await?;
    pair.b.kill().await?;
    // Its standby is not there: it waits, in sight of everybody.
    pair.a.start(&[]).await?;
    let shown = pair.a.client().agent(COUNTER).await?;
    ensure!(shown.state == "held", "{shown:?}");
    let sent = pair.a.client().send(COUNTER, "add 1", None).await;
    ensure!(sent.answer().is_none(), "it was accepted: {sent:?}");
    pair.b.start(&[]).await?;
    until("the standby's word", SOON, || async {
        let fate = pair.a.client().ask(COUNTER, "get", None).await;
        Ok(fate.reply().map(ToOwned::to_owned))
    })
    .await
    .and_then(|value| {
        ensure!(value == "5", "{value}");
        Ok(())
    })?;
    // The copy of before is fed on with a new one, and moves nothing while the agent lives.
    is_fed(&pair.a.client(), COUNTER).await?;
    let moved: Value = pair.b.cli(&["agent", "promote", COUNTER, "-o", "json"]).await?.ok()?.json()?;
    let migration = moved["migration_id"].as_str().context("no migration")?.to_owned();
    let over = pair.a.client().migration_over(&migration, SOON).await?;
    ensure!(over.phase == "complete", "{}", over.body);
    ensure!(pair.runner(COUNTER, SOON).await? == Side::B, "it has not moved");
    pair.end_and_verify().await?;
    Ok(())
}
