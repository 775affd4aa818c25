//! What agents may fill, on real hosts: a refusal is typed, counts where it must, and all goes on when there is room again.

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::{Client, Method, Reply};
use godwit_support::cluster::{Cluster, Folder};
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;
use serde_json::json;

use crate::room::{SOON, shared};

async fn start(folder: &Folder, name: &str, value: &str) -> Result<Host> {
    let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host");
    let host = options.variable(name, value).start().await?;
    host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    Ok(host)
}

async fn send(door: &Client, agent: &str, payload: &str) -> Result<Reply> {
    door.submit(agent, "send", payload, &[]).await
}

#[tokio::test]
async fn a_turn_that_leaves_too_many_rows_is_a_fault_that_names_the_limit() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.a.terminate().await?;
    let bounds = [("GODWIT_LIMITS_STATE_KEYS_MAX", "5"), ("GODWIT_LIMITS_STATE_BYTES_MAX", "1000")];
    pair.a.start(&bounds).await?;
    let door = pair.a.client();
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    door.create_with("rows", json!({"plugin": "hostile", "policy": "journal"})).await?;
    ensure!(door.reply("rows", "flood-state 4 10").await? == "ok 4", "four rows fit");
    for (line, limit) in
        [("flood-state 6 10", "limits.state_keys_max"), ("set big ", "limits.state_bytes_max")]
    {
        let line = if line.starts_with("set") { format!("{line}{}", "x".repeat(1_000)) } else { line.into() };
        let fate = door.ask_within("rows", line, None, SOON).await;
        let problem = fate.problem().with_context(|| format!("no fault but {fate:?}"))?;
        let named = (problem.status, problem.code.as_str(), &problem.body["fault"]);
        ensure!(named == (500, "agent_fault", &json!("effects")), "{}", problem.body);
        let detail = problem.body["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("3 attempts") && detail.contains(limit), "{detail}");
    }
    pair.a.kill().await?;
    pair.a.start(&bounds).await?;
    let door = pair.a.client();
    ensure!(door.reply("rows", "keys").await?.lines().count() == 4, "rows of turns that did not commit");
    ensure!(door.list("/v1/agents/rows/dead-letters").await?.len() == 2, "the attempts were not durable");
    ensure!(door.reply("rows", "set fifth 5").await? == "ok", "a fifth row fits");
    ensure!(door.verb("rows", "replay").await?["ok"] == true, "its history can't be run again");
    // The next host may give more; what the agent has is counted there anew.
    door.move_to("rows", pair.b.name(), SOON).await?;
    ensure!(pair.b.client().reply("rows", "flood-state 9 10").await? == "ok 9", "the other host's limits");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_inbox_is_full_by_its_bytes_and_takes_more_when_it_is_drained() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder, "GODWIT_LIMITS_INBOX_BYTES_MAX", "1000").await?;
    let door = host.client();
    door.create("slow", "hostile").await?;
    door.reply("slow", "echo ready").await?;
    door.verb("slow", "pause").await?;
    let line = format!("echo {}", "x".repeat(700));
    for status in [202, 202, 429] {
        let sent = send(&door, "slow", &line).await?;
        ensure!(sent.status == status, "{sent:?}");
        if status == 429 {
            let detail = sent.body["detail"].as_str().unwrap_or_default();
            ensure!(sent.body["code"] == "busy" && detail.contains("2 inputs of 1410 bytes"), "{detail}");
        }
    }
    door.verb("slow", "resume").await?;
    let drained = || async { Ok((send(&door, "slow", &line).await?.status == 202).then_some(())) };
    until("the inbox to be drained", SOON, drained).await?;
    host.terminate().await
}

#[tokio::test]
async fn a_store_at_its_bound_takes_no_input_and_finishes_what_it_has() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder, "GODWIT_LIMITS_STORE_BYTES_MAX", "16777216").await?;
    let door = host.client();
    for agent in ["filled", "other"] {
        door.create(agent, "hostile").await?;
        door.reply(agent, "echo ready").await?;
    }
    door.verb("filled", "pause").await?;
    let line = format!("echo {}", "x".repeat(200_000));
    let mut accepted = 0;
    let refused = loop {
        let sent = send(&door, "filled", &line).await?;
        match sent.status {
            202 => accepted += 1,
            _ => break sent,
        }
        ensure!(accepted < 200, "the store has no bound");
    };
    ensure!((refused.status, &refused.body["code"]) == (503, &json!("store_full")), "{refused:?}");
    println!("{accepted} inputs of 200 kB");
    ensure!(accepted > 20, "only {accepted} inputs");
    let elsewhere = send(&door, "other", "echo x").await?;
    ensure!(elsewhere.status == 503, "the bound is the store's: {elsewhere:?}");
    let gone = door.call(Method::DELETE, "/v1/agents/filled", None).await?;
    ensure!(gone.status == 200, "a full store can't be cleared: {gone:?}");
    let size = std::fs::metadata(folder.path().join("host/godwit.db")).context("no store")?.len();
    ensure!(size <= 16 << 20, "the file has {size} bytes");
    host.terminate().await?;
    // With more room it goes on.
    host.start(&[("GODWIT_LIMITS_STORE_BYTES_MAX", "67108864")]).await?;
    ensure!(host.client().reply("other", "echo on").await? == "on", "it does not go on");
    host.terminate().await
}
