//! Queries on real hosts: what they see while everything else goes on, and that they leave no trace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::{Client, Method, Reply};
use godwit_support::cluster::{Cluster, Folder};
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::room::{SOON, shared};

/// More than may run and wait for one agent.
const CROWD: usize = 40;

async fn query(door: &Client, agent: &str, payload: &str) -> Result<Reply> {
    door.submit(agent, "query", payload, &[]).await
}

/// A query that must be answered, with text.
async fn says(door: &Client, agent: &str, payload: &str) -> Result<String> {
    let reply = query(door, agent, payload).await?;
    ensure!(reply.status == 200, "{payload}: {} {}", reply.status, reply.body);
    Ok(match reply.body {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// All that the host shows of an agent's life.
async fn trace(door: &Client, agent: &str) -> Result<Value> {
    let path = format!("/v1/agents/{agent}");
    let mut seen = json!({ "agent": door.get(&path).await? });
    for list in ["inputs", "receipts", "outputs", "dead-letters"] {
        seen[list] = door.list(&format!("{path}/{list}")).await?.into();
    }
    Ok(seen)
}

async fn start(folder: &Folder) -> Result<Host> {
    let host = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host").start().await?;
    host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    host.client().load_plugin(&binaries::plugin("counter")?).await?;
    Ok(host)
}

#[tokio::test]
async fn a_query_passes_a_turn_that_runs_and_sees_what_is_committed() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    let (a, b) = (pair.a.client(), pair.b.client());
    a.load_plugin(&binaries::test_guest("hostile")?).await?;
    a.create("busy", "hostile").await?;
    a.reply("busy", "note first").await?;
    let asker = a.clone();
    let asked = tokio::spawn(async move { asker.ask_within("busy", "loop", None, SOON).await });
    let mut slowest = Duration::ZERO;
    for door in [&a, &b].iter().cycle().take(20) {
        let began = Instant::now();
        ensure!(says(door, "busy", "noted").await? == "first", "it sees another state");
        slowest = slowest.max(began.elapsed());
    }
    // Had no turn run, there would be nothing to interrupt.
    let stop = || async {
        let report = a.verb("busy", "interrupt").await?;
        let end = report["turn"]["end"].as_str().unwrap_or_default().to_owned();
        Ok(matches!(end.as_str(), "not_accepted" | "abandoned").then_some(()))
    };
    until("the turn to be interrupted", SOON, stop).await?;
    ensure!(asked.await?.problem().is_some(), "the loop ended by itself");
    println!("slowest query beside a turn that loops: {slowest:?}");
    a.reply("busy", "note second").await?;
    ensure!(says(&b, "busy", "noted").await? == "second", "an answered ask is not seen");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_at_rest_is_asked_after_kill_and_pause_and_move() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.a.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    pair.a.client().load_plugin(&binaries::plugin("index")?).await?;
    for (agent, policy) in [("snap", "snapshot"), ("jour", "journal")] {
        let spec = json!({"plugin": "hostile", "policy": policy});
        pair.a.client().create_with(agent, spec).await?;
        for line in ["note kept", "set row 7", "word w"] {
            pair.a.client().reply(agent, line).await?;
        }
    }
    pair.a.client().create("books", "index").await?;
    pair.a.client().reply("books", r#"{"put": {"doc": "d", "text": "one two"}}"#).await?;
    pair.a.kill().await?;
    pair.a.start(&[]).await?;
    let door = pair.a.client();
    for agent in ["snap", "jour"] {
        // Nobody has woken it since.
        ensure!(says(&door, agent, "noted").await? == "kept", "{agent}");
        ensure!(says(&door, agent, "get row").await? == "7", "{agent}");
        let random = says(&door, agent, "random").await?;
        ensure!(says(&door, agent, "random").await? == random, "{agent}: numbers of one revision differ");
        door.verb(agent, "pause").await?;
        ensure!(says(&door, agent, "noted").await? == "kept", "{agent} is paused");
        door.verb(agent, "resume").await?;
    }
    ensure!(says(&door, "books", r#"{"query": "two"}"#).await? == r#"{"docs":["d"]}"#, "the index");
    let refused = query(&door, "books", r#"{"put": {"doc": "e", "text": ""}}"#).await?;
    ensure!(refused.status == 422 && refused.body["code"] == "agent_refused", "{}", refused.body);
    // Asked all the time while it moves.
    let (is_over, watch) = tokio::sync::watch::channel(false);
    let asker = pair.a.client();
    let asking = tokio::spawn(async move {
        let mut answers = 0;
        while !*watch.borrow() {
            ensure!(says(&asker, "jour", "noted").await? == "kept", "it was another on the way");
            answers += 1;
        }
        Ok(answers)
    });
    pair.a.client().move_to("jour", pair.b.name(), SOON).await?;
    ensure!(says(&pair.b.client(), "jour", "noted").await? == "kept", "at its new home");
    is_over.send_replace(true);
    let answers: usize = asking.await??;
    println!("{answers} answers during the move");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn whoever_can_not_be_asked_says_why() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder).await?;
    let door = host.client();
    door.create("mute", "counter").await?;
    door.reply("mute", "add 1").await?;
    for agent in ["new", "rests", "gone"] {
        door.create(agent, "hostile").await?;
    }
    door.reply("rests", "note x").await?;
    door.verb("rests", "retire").await?;
    let rests = || async { Ok((door.agent("rests").await?.state == "retired").then_some(())) };
    until("the agent to rest", SOON, rests).await?;
    ensure!(door.call(Method::DELETE, "/v1/agents/gone", None).await?.status == 200, "it can't be deleted");
    let cases = [
        ("mute", 422, "no_query"),
        ("new", 409, "conflict"),
        ("rests", 423, "agent_retired"),
        ("gone", 410, "agent_deleted"),
        ("nobody", 404, "agent_not_found"),
    ];
    for (agent, status, code) in cases {
        let refused = query(&door, agent, "noted").await?;
        ensure!((refused.status, &refused.body["code"]) == (status, &json!(code)), "{agent}: {refused:?}");
    }
    let large = "x".repeat((512 << 10) + 1);
    ensure!(query(&door, "mute", &large).await?.status == 413, "a query has no bound");
    host.terminate().await
}

#[tokio::test]
async fn a_hostile_query_leaves_no_trace() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder).await?;
    let door = host.client();
    door.create("prey", "hostile").await?;
    for line in ["note safe", "set row 1"] {
        door.reply("prey", line).await?;
    }
    let before = trace(&door, "prey").await?;
    for line in ["set row 2", "delete row", "send prey hello", "flood-state 9 9", "flood-outputs 9 9"] {
        let reply = query(&door, "prey", line).await?;
        let said = reply.body.to_string();
        ensure!(said.contains("there is no turn"), "{line}: {} {said}", reply.status);
    }
    for (line, fault) in [
        ("trap", "trap"),
        ("panic", "trap"),
        ("loop", "deadline"),
        ("sleep 10", "blocked"),
        ("allocate 0", "memory"),
        ("exit 3", "exited"),
        ("reply-bytes 600000", "effects"),
    ] {
        let reply = query(&door, "prey", line).await?;
        let named = (reply.status, &reply.body["code"], &reply.body["fault"]);
        ensure!(named == (500, &json!("agent_fault"), &json!(fault)), "{line}: {reply:?}");
    }
    let failed = query(&door, "prey", "fatal never").await?;
    ensure!((failed.status, &failed.body["code"]) == (422, &json!("agent_error")), "{failed:?}");
    // What a query notes is gone with it.
    ensure!(says(&door, "prey", "note stolen").await? == "ok", "it can't be told");
    ensure!(says(&door, "prey", "noted").await? == "safe", "a query has changed the agent");
    let after = trace(&door, "prey").await?;
    ensure!(after == before, "before {before}\nafter {after}");
    ensure!(door.reply("prey", "get row").await? == "1", "a row has changed");
    ensure!(door.verb("prey", "verify").await?["ok"] == true, "its history is broken");
    host.terminate().await
}

#[tokio::test]
async fn too_many_queries_of_one_agent_are_busy_and_hold_nobody_up() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder).await?;
    let door = host.client();
    door.load_plugin(&binaries::plugin("index")?).await?;
    for (agent, plugin) in [("crowded", "hostile"), ("other", "index")] {
        door.create(agent, plugin).await?;
    }
    door.reply("crowded", "note x").await?;
    door.reply("other", r#"{"put": {"doc": "d", "text": "w"}}"#).await?;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let door = door.clone();
        crowd.spawn(async move { query(&door, "crowded", "loop").await });
    }
    let refused = crowd.join_next().await.context("a crowd")???;
    ensure!((refused.status, &refused.body["code"]) == (429, &json!("busy")), "{refused:?}");
    // Another plugin's queries pass those that wait, and turns pass all of them.
    let began = Instant::now();
    ensure!(says(&door, "other", r#"{"query": "w"}"#).await? == r#"{"docs":["d"]}"#, "the index");
    ensure!(door.reply("crowded", "noted").await? == "x", "its turns wait");
    println!("beside {CROWD} looping queries: {:?}", began.elapsed());
    // Their callers go, and they with them.
    crowd.shutdown().await;
    let free = || async { Ok((query(&door, "crowded", "noted").await?.status == 200).then_some(())) };
    until("the queries to end with their callers", Duration::from_secs(10), free).await?;
    host.terminate().await
}
