//! Agents that go round three hosts, A to B to C and back onto their own tombstones: after each hop what they have subscribed to
//! is heard, timers fire, outputs that waited have arrived, and signatures are of the same key.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;
use serde_json::{Value, json};

use crate::drain::{acquainted, three_hosts};
use crate::room::{SOON, shared};

/// Who travels; the sink stays where it is.
const TRAVELLERS: [&str; 5] = ["owner", "listener", "ticker", "signer", "relay"];
const SINK: &str = "sink";
/// Long enough that a timer is set while its agent moves, nearly always.
const TICK_MS: u64 = 40;

async fn settle(door: &Client) -> Result<()> {
    let plugins = ["publisher", "subscriber", "ticker", "signer", "relay"];
    for (agent, plugin) in TRAVELLERS.into_iter().zip(plugins) {
        door.create(agent, plugin).await?;
    }
    door.reply("owner", "open news").await?;
    door.reply("listener", "subscribe owner news").await?;
    until_reply(door, "listener", "notes", "news subscribed").await?;
    door.reply("ticker", &format!("every {TICK_MS}")).await?;
    Ok(())
}

async fn until_reply(door: &Client, agent: &str, question: &str, wanted: &str) -> Result<()> {
    let look = || async { Ok((door.ask(agent, question, None).await.reply() == Some(wanted)).then_some(())) };
    until(&format!("{agent} to answer {wanted:?} to {question:?}"), SOON, look).await
}

async fn ticks(door: &Client) -> Result<u64> {
    Ok(door.reply("ticker", "get").await?.parse()?)
}

async fn signature(door: &Client) -> Result<Value> {
    Ok(serde_json::from_str(&door.reply("signer", "sign where am I").await?)?)
}

async fn forward(door: &Client) -> Result<()> {
    door.reply("relay", &json!({ "to": SINK, "payload": "add 1" }).to_string()).await.map(drop)
}

/// All that they can do, at one door, wherever they are.
async fn are_whole(door: &Client, hop: u64, signed: &Value) -> Result<()> {
    door.reply("owner", &format!("publish news hop {hop}")).await?;
    // From the first on, each once, in order.
    until_reply(door, "listener", "heard owner news", &format!("1 {hop} {hop} 0")).await?;
    let before = ticks(door).await?;
    let look = || async { Ok((ticks(door).await? > before).then_some(())) };
    until("the ticker to tick", SOON, look).await?;
    ensure!(signature(door).await? == *signed, "signed otherwise on hop {hop}");
    let part = |name: &str| signed[name].as_str().context("a signature").map(str::to_owned);
    let proof = format!("verify signer {} {} where am I", part("public_key")?, part("signature")?);
    ensure!(door.reply("signer", &proof).await? == "valid", "its signature is not valid");
    forward(door).await?;
    // One more for the one that waited.
    until_reply(door, SINK, "get", &(2 * hop).to_string()).await
}

async fn hop(from: &Host, to: &Host) -> Result<()> {
    let door = from.client();
    let moves = TRAVELLERS.map(|agent| door.move_to(agent, to.key(), Duration::from_secs(30)));
    futures::future::try_join_all(moves).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_have_goes_round_three_hosts_with_them() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    go_round(three_hosts(&folder).await?).await
}

/// The second host speaks no newer version than the first, as one that has yet to be upgraded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_have_goes_round_hosts_of_two_versions() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let (product, failpoints) = (binaries::product()?, binaries::failpoints()?);
    let hosts = acquainted([
        HostOptions::new(&product, &folder.path().join("left"), "left"),
        HostOptions::new(&failpoints, &folder.path().join("old"), "old").variable("GODWIT_PROTOCOL", "1"),
        HostOptions::new(&product, &folder.path().join("right"), "right"),
    ])
    .await?;
    let seen = hosts[0].client().list("/v1/hosts").await?;
    let release =
        |name: &str| seen.iter().find(|host| host["name"] == name).map(|host| host["release"].is_string());
    // What the first version does not tell.
    ensure!((release("old"), release("right")) == (Some(false), Some(true)), "{seen:?}");
    go_round(hosts).await
}

/// What is planted here is found by the tests above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_leaves_subscriptions_behind_is_found_out() -> Result<()> {
    let _room = shared().await;
    let (folder, failpoints) = (Folder::new()?, binaries::failpoints()?);
    let options = |name: &str| {
        HostOptions::new(&failpoints, &folder.path().join(name), name)
            .variable("GODWIT_BREAK", "subscriptions-left-behind")
    };
    let hosts = acquainted(["left", "middle", "right"].map(options)).await?;
    let found = go_round(hosts).await.err().context("nobody has noticed")?;
    ensure!(format!("{found:#}").contains("\"heard owner news\""), "something else: {found:#}");
    Ok(())
}

async fn go_round(mut hosts: Vec<Host>) -> Result<()> {
    for host in &hosts {
        for plugin in ["publisher", "subscriber", "ticker", "signer", "relay"] {
            host.client().load_plugin(&binaries::plugin(plugin)?).await?;
        }
    }
    settle(&hosts[0].client()).await?;
    hosts[2].client().create(SINK, "counter").await?;
    let signed = signature(&hosts[0].client()).await?;
    for (number, (from, to)) in (1..).zip([(0, 1), (1, 2), (2, 0)]) {
        let is_third_up = ![from, to].contains(&2);
        if is_third_up {
            // Nobody takes this output before it has moved.
            hosts[2].kill().await?;
        }
        forward(&hosts[from].client()).await?;
        hop(&hosts[from], &hosts[to]).await.with_context(|| format!("hop {number}"))?;
        if is_third_up {
            hosts[2].start(&[]).await?;
        }
        are_whole(&hosts[to].client(), number, &signed)
            .await
            .with_context(|| format!("after hop {number}"))?;
    }
    for mut host in hosts {
        host.terminate().await?;
    }
    Ok(())
}
