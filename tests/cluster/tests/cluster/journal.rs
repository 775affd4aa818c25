//! Journaled agents on real hosts: killed, replayed, moved, and caught when a replay does something else.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::Cluster;
use godwit_support::{large, row_bytes};
use serde_json::{Value, json};

use crate::room::{SOON, shared};

fn journaled(plugin: &str) -> Value {
    json!({"plugin": plugin, "policy": "journal"})
}

/// How many of an agent's receipts name a journal entry, and how many a snapshot.
async fn written(client: &Client, agent: &str) -> Result<(usize, usize)> {
    let receipts = client.list(&format!("/v1/agents/{agent}/receipts")).await?;
    let named = |member: &str| receipts.iter().filter(|receipt| receipt[member].is_string()).count();
    Ok((named("journal"), named("state")))
}

#[tokio::test]
async fn a_std_map_in_its_own_order_survives_kill_and_replay() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.a.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    pair.a.client().create_with("maps", journaled("hostile")).await?;
    let mut expected = BTreeSet::new();
    let mut orders = BTreeSet::new();
    for round in 0..4 {
        for number in 0..40 {
            let word = format!("word-{round}-{number}");
            pair.a.client().reply("maps", &format!("word {word}")).await?;
            expected.insert(word);
        }
        // The order is an effect: the receipt names it.
        let before = pair.a.client().reply("maps", "words").await?;
        pair.a.kill().await?;
        pair.a.start(&[]).await?;
        let after = pair.a.client().reply("maps", "words").await?;
        ensure!(after == before, "another order after the kill: the instance is another");
        let words: BTreeSet<String> = after.split(' ').map(str::to_owned).collect();
        ensure!(words == expected, "words are missing");
        pair.a.client().verb("maps", "checkpoint").await?;
        let based = pair.a.client().reply("maps", "words").await?;
        orders.extend([after, based]);
    }
    ensure!(orders.len() > 4, "a new base never changed the order: this test shows nothing");
    let report = pair.a.client().verb("maps", "replay").await?;
    ensure!(report["ok"] == true && report["turns"].as_u64() > Some(0), "{report}");
    let (journaled, snapshots) = written(&pair.a.client(), "maps").await?;
    ensure!(journaled >= 160 && snapshots < 10, "{journaled} entries, {snapshots} snapshots");
    pair.a.client().move_to("maps", pair.b.name(), SOON).await?;
    let words = pair.b.client().reply("maps", "words").await?;
    ensure!(words.split(' ').count() == expected.len(), "{words}");
    ensure!(pair.b.client().verb("maps", "replay").await?["ok"] == true, "the history moved with it");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_replay_that_does_something_else_breaks_the_agent_loudly() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::failpoints()?, &[]).await?;
    pair.a.terminate().await?;
    pair.a.start(&[("GODWIT_BREAK", "real-clock")]).await?;
    pair.a.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    pair.a.client().create_with("clocks", journaled("hostile")).await?;
    pair.a.client().reply("clocks", "note before").await?;
    pair.a.client().reply("clocks", "clock").await?;
    pair.a.kill().await?;
    pair.a.start(&[]).await?;
    let refused = pair.a.client().reply("clocks", "noted").await;
    let refused = format!("{:#}", refused.err().context("an agent whose replay differs must not answer")?);
    ensure!(refused.contains("diverged"), "{refused}");
    let agent = pair.a.client().get("/v1/agents/clocks").await?;
    ensure!(agent["state"] == "broken" && agent["broken"]["reason"] == "diverged", "{agent}");
    let report = pair.a.client().verb("clocks", "replay").await?;
    ensure!(report["ok"] == false, "{report}");
    Ok(())
}

/// Rows of one turn, without the input's payload.
const TURN_BYTES_MAX: u64 = 4_096;

#[tokio::test]
async fn a_turn_of_a_large_agent_hands_the_store_little_more_than_its_input() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    let door = pair.a.client();
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    door.create("large", "hostile").await?;
    large::grow(&door, "large").await?;
    let file = pair.a.ready().store_path();
    ensure!(large::state_bytes(&file, "large")? > 15 << 20, "the state is not that large");
    for payload in ["turns".to_owned(), format!("echo {}", "y".repeat(100_000))] {
        let mark = row_bytes::mark(&file, "large")?;
        for _ in 0..10 {
            door.reply("large", &payload).await?;
        }
        let mut written = row_bytes::since(&file, "large", mark)?;
        // Each turn wrote the agent's row; the file shows it once.
        written.entry("agent".into()).and_modify(|bytes| *bytes *= 10);
        // An echo is in the outcome too.
        let echoed = if payload.starts_with("echo") { payload.len() as u64 } else { 0 };
        let own = written.values().sum::<u64>() / 10 - payload.len() as u64 - echoed;
        ensure!(own <= TURN_BYTES_MAX, "{own} bytes beside the input: {written:?}");
        ensure!(
            written["journal"] > 0 && written["snapshot"] + written["snapshot_beside"] == 0,
            "{written:?}"
        );
    }
    // The count counts: a snapshot is seen.
    let mark = row_bytes::mark(&file, "large")?;
    door.reply("large", "turns").await?;
    door.verb("large", "checkpoint").await?;
    let written = row_bytes::since(&file, "large", mark)?;
    ensure!(written["snapshot"] + written["snapshot_beside"] > 100, "{written:?}");
    pair.end_and_verify().await?;
    Ok(())
}
