//! Broken agents that come back: as recorded where an older snapshot still leads to the head, and as something else only when
//! an operator says so. On real hosts, with real damage in their files.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use godwit_support::binaries;
use godwit_support::client::{Client, Method};
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::damage::flip;
use crate::room::{SOON, shared};

const AGENT: &str = "patient";
/// What the host may die at while it goes on from an older snapshot, and whether the agent runs then.
const MENDING: [(&str, bool); 3] =
    [("recover.before-commit", false), ("recover.after-mended", false), ("recover.after-commit", true)];
/// And while another state is accepted.
const ACCEPTING: [(&str, bool); 2] = [("recover.before-commit", false), ("recover.after-commit", true)];

async fn start(folder: &Folder, variables: &[(&str, &str)]) -> Result<Host> {
    start_under(folder, variables, "journal").await
}

async fn start_under(folder: &Folder, variables: &[(&str, &str)], policy: &str) -> Result<Host> {
    let mut host =
        HostOptions::new(&binaries::failpoints()?, &folder.path().join("host"), "host").prepare()?;
    host.start(variables).await?;
    host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    let spec = json!({"plugin": "hostile", "policy": policy});
    host.client().create_with(AGENT, spec).await?;
    Ok(host)
}

/// The host is killed, something happens to its file, and it starts again.
async fn meanwhile(host: &mut Host, damage: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
    host.kill().await?;
    damage(&Connection::open(host.ready().store_path())?)?;
    host.start(&[]).await
}

/// Loading is what finds it.
async fn is_broken(door: &Client, reason: &str) -> Result<()> {
    let fate = door.ask_within(AGENT, "turns", None, SOON).await;
    ensure!(fate.answer().is_none(), "it answers from damaged state: {fate:?}");
    let shown = door.agent(AGENT).await?;
    ensure!(shown.state == "broken" && shown.body["broken"]["reason"] == reason, "{}", shown.body);
    Ok(())
}

async fn is_whole(door: &Client, repairs: u64) -> Result<()> {
    let verified = door.verb(AGENT, "verify").await?;
    ensure!(verified["ok"] == true && verified["repairs"] == repairs, "{verified}");
    let replayed = door.verb(AGENT, "replay").await?;
    ensure!(replayed["ok"] == true, "{replayed}");
    Ok(())
}

async fn words(door: &Client) -> Result<BTreeSet<String>> {
    Ok(door.reply(AGENT, "words").await?.split(' ').map(str::to_owned).collect())
}

/// The snapshot of a checkpoint is damaged: turns lie before and behind it. Answers the words that the agent knows, and the
/// revision of the checkpoint.
async fn hurt(host: &mut Host) -> Result<(BTreeSet<String>, u64)> {
    let door = host.client();
    for number in 0..10 {
        door.reply(AGENT, &format!("word early-{number}")).await?;
    }
    // The map's order is an effect: what runs again must start from where it started when it ran first.
    door.reply(AGENT, "words").await?;
    let checkpoint = door.verb(AGENT, "checkpoint").await?["revision"].as_str().context("text")?.parse()?;
    for number in 0..10 {
        door.reply(AGENT, &format!("word late-{number}")).await?;
    }
    let known = words(&door).await?;
    meanwhile(host, |file| flip(file, "snapshot_beside", "state", AGENT, Some(checkpoint))).await?;
    is_broken(&host.client(), "corrupt").await?;
    Ok((known, checkpoint))
}

/// Its plan depends on the time, which is another one when it runs again.
async fn diverge(folder: &Folder) -> Result<Host> {
    let mut host = start(folder, &[("GODWIT_BREAK", "real-clock")]).await?;
    host.client().reply(AGENT, "note kept").await?;
    host.client().reply(AGENT, "clock").await?;
    meanwhile(&mut host, |_| Ok(())).await?;
    is_broken(&host.client(), "diverged").await?;
    Ok(host)
}

async fn recover(door: &Client, query: &str) -> Result<(u16, Value)> {
    let path = format!("/v1/agents/{AGENT}/recover{query}");
    let reply = door.call(Method::POST, &path, None).await?;
    Ok((reply.status, reply.body))
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_from_an_older_one() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder, &[]).await?;
    let (known, checkpoint) = hurt(&mut host).await?;
    let checkpoint = checkpoint.to_string();
    let before = host.client().agent(AGENT).await?;

    for query in ["", "?accept_state=true"] {
        let (status, refused) = recover(&host.client(), query).await?;
        ensure!(status == 409 && refused["code"] == "not_recovered", "{status} {refused}");
        ensure!(refused["ways"] == json!([{"from": "1", "accept_state": false}]), "{refused}");
        ensure!(refused["from_snapshot"].as_str() == Some(checkpoint.as_str()), "{refused}");
    }
    let refused = host.cli(&["agent", "recover", AGENT]).await?.expect_code(4)?;
    ensure!(refused.stderr.contains("`recover --from 1`"), "{refused:?}");
    let again = host.client().agent(AGENT).await?;
    ensure!(again.state == "broken" && again.revision == before.revision, "{}", again.body);
    host.cli(&["verify", AGENT]).await?.expect_code(1)?;

    let done = host.cli(&["agent", "recover", AGENT, "--from", "1"]).await?.ok()?;
    ensure!(done.stdout.contains("mended from snapshot 1, 22 turns ran again"), "{done:?}");
    let after = host.client().agent(AGENT).await?;
    ensure!(
        (after.revision, &after.last_receipt) == (before.revision, &before.last_receipt),
        "{}",
        after.body
    );
    is_whole(&host.client(), 0).await?;
    ensure!(words(&host.client()).await? == known, "its state is another");
    meanwhile(&mut host, |_| Ok(())).await?;
    ensure!(words(&host.client()).await? == known, "its state is another after the next load");
    is_whole(&host.client(), 0).await?;
    let (status, repeated) = recover(&host.client(), "?from=1").await?;
    ensure!(status == 200 && repeated["recovery"].is_null(), "a repetition: {status} {repeated}");
    host.terminate().await
}

#[tokio::test]
async fn a_state_that_the_turns_do_not_give_is_taken_on_the_record_only() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = diverge(&folder).await?;
    let waiting = host.client().send(AGENT, "word waiting", None).await;
    ensure!(waiting.answer().is_some(), "it accepts while it is broken: {waiting:?}");
    let refused = host.cli(&["agent", "recover", AGENT]).await?.expect_code(4)?;
    ensure!(
        refused.stderr.contains("turn 3") && refused.stderr.contains("`recover --accept-state`"),
        "{refused:?}"
    );
    let done = host.cli(&["agent", "recover", AGENT, "--accept-state", "-o", "json"]).await?.ok()?.json()?;
    let repair = &done["recovery"]["repair"];
    ensure!(done["recovery"]["outcome"] == "repaired" && repair["misfit_revision"] == "3", "{done}");
    let receipts = host.client().list(&format!("/v1/agents/{AGENT}/receipts")).await?;
    let (turn, taken) = (&receipts[2], &receipts[3]);
    ensure!(taken["kind"] == "repair" && taken["parent"] == turn["digest"], "{taken}");
    ensure!(taken["from"] == turn["effects"] && taken["from"] == repair["expected"], "{taken}");
    ensure!(taken["state"] == repair["accepted"] && taken["inputs"] == json!([]), "{taken}");
    let events = host.client().list(&format!("/v1/events?follow=0&agent={AGENT}")).await?;
    let kinds: Vec<_> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    for kind in ["agent-broken", "agent-repaired", "agent-recovered"] {
        ensure!(kinds.iter().filter(|known| **known == kind).count() == 1, "{kind}: {kinds:?}");
    }
    ensure!(host.client().reply(AGENT, "noted").await? == "kept");
    ensure!(words(&host.client()).await? == BTreeSet::from(["waiting".to_owned()]), "what waited has run");
    is_whole(&host.client(), 1).await?;
    meanwhile(&mut host, |_| Ok(())).await?;
    ensure!(host.client().reply(AGENT, "noted").await? == "kept", "the next load builds on it");
    host.terminate().await?;
    host.cli(&["verify", "--store", &host.ready().store.clone()]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_turn_and_those_behind_it_can_be_left_out() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder, &[]).await?;
    for word in ["one", "two", "three"] {
        host.client().reply(AGENT, &format!("word {word}")).await?;
    }
    meanwhile(&mut host, |file| flip(file, "journal", "sealed", AGENT, Some(3))).await?;
    is_broken(&host.client(), "corrupt").await?;
    let (status, refused) = recover(&host.client(), "").await?;
    ensure!(status == 409 && refused["ways"] == json!([{"from": null, "accept_state": true}]), "{refused}");
    ensure!(refused["detail"].to_string().contains("journal entry 3"), "{refused}");
    let (status, done) = recover(&host.client(), "?accept_state=true").await?;
    ensure!(status == 200 && done["recovery"]["repair"]["turns_left_out"] == 2, "{status} {done}");
    ensure!(words(&host.client()).await? == BTreeSet::from(["one".to_owned()]));
    is_whole(&host.client(), 1).await?;
    host.terminate().await
}

/// Commits a state that no guest takes back: a large one is proved once a second, so the one shortly behind it is not.
/// Answers its revision.
async fn commit_unproved(door: &Client) -> Result<u64> {
    let large = format!("note {}", "x".repeat(100_000));
    for _ in 0..10 {
        door.reply(AGENT, &large).await?;
        // On a slow machine it is proved after all, and given up.
        if door.ask_within(AGENT, "mode fail-in-restore", None, SOON).await.reply().is_some() {
            return Ok(door.agent(AGENT).await?.revision);
        }
    }
    bail!("each snapshot was proved")
}

#[tokio::test]
async fn a_state_that_no_guest_takes_back_is_left_for_the_one_before_it() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start_under(&folder, &[], "snapshot").await?;
    let door = host.client();
    door.reply(AGENT, "note kept").await?;
    // A boundary without a snapshot, so that the checkpoint's is stored beside the one of the turn.
    drop(door.ask_within(AGENT, "fatal asked to", None, SOON).await);
    let checkpoint = door.verb(AGENT, "checkpoint").await?["revision"].as_str().context("text")?.to_owned();
    let newest = commit_unproved(&door).await?;
    meanwhile(&mut host, |_| Ok(())).await?;
    let door = host.client();
    is_broken(&door, "restore").await?;
    let waiting = door.send(AGENT, "word waiting", None).await;
    ensure!(waiting.answer().is_some(), "it accepts while it is broken: {waiting:?}");
    let before = door.agent(AGENT).await?;

    let ways = json!([{"from": checkpoint, "accept_state": true}]);
    for query in ["", "?accept_state=true", &format!("?from={newest}&accept_state=true")] {
        let (status, refused) = recover(&door, query).await?;
        ensure!(status == 409 && refused["ways"] == ways, "{query}: {status} {refused}");
        ensure!(refused["detail"].to_string().contains("asked to fail in restore"), "{refused}");
    }
    let (status, refused) = recover(&door, &format!("?from={checkpoint}")).await?;
    ensure!(status == 409 && refused["ways"] == ways, "what was never journaled is lost: {status} {refused}");
    let way = format!("`recover --from {checkpoint} --accept-state`");
    let told = host.cli(&["agent", "recover", AGENT]).await?.expect_code(4)?;
    ensure!(told.stderr.contains(&way), "{told:?}");
    let still = door.agent(AGENT).await?;
    ensure!(still.state == "broken" && still.revision == before.revision, "{}", still.body);

    let arguments = ["agent", "recover", AGENT, "--from", &checkpoint, "--accept-state", "-o", "json"];
    let done = host.cli(&arguments).await?.ok()?.json()?;
    ensure!(done["recovery"]["outcome"] == "repaired", "{done}");
    ensure!(done["recovery"]["from_snapshot"].as_str() == Some(&checkpoint), "{done}");
    ensure!(done["recovery"]["repair"]["turns_left_out"].as_u64() >= Some(2), "{done}");
    ensure!(door.reply(AGENT, "noted").await? == "kept", "the state of the checkpoint");
    ensure!(words(&door).await? == BTreeSet::from(["waiting".to_owned()]), "what waited has run");
    is_whole(&door, 1).await?;
    meanwhile(&mut host, |_| Ok(())).await?;
    ensure!(host.client().reply(AGENT, "noted").await? == "kept", "the next load builds on it");
    is_whole(&host.client(), 1).await?;
    host.terminate().await
}

#[tokio::test]
async fn a_death_in_any_gap_of_a_recovery_leaves_it_done_or_not() -> Result<()> {
    let _room = shared().await;
    for (failpoint, runs) in MENDING {
        println!("mending: {failpoint}");
        let folder = Folder::new()?;
        let mut host = start(&folder, &[]).await?;
        let (known, _) = hurt(&mut host).await?;
        die(&mut host, failpoint, "?from=1").await?;
        let state = host.client().agent(AGENT).await?.state;
        ensure!((state != "broken") == runs, "{failpoint}: {state}");
        // What is mended needs nothing older any more.
        let query = if failpoint == "recover.after-mended" { "" } else { "?from=1" };
        let (status, done) = recover(&host.client(), query).await?;
        ensure!(status == 200, "{failpoint}: {status} {done}");
        ensure!(words(&host.client()).await? == known, "{failpoint}: its state is another");
        is_whole(&host.client(), 0).await?;
        host.terminate().await?;
    }
    for (failpoint, runs) in ACCEPTING {
        println!("accepting: {failpoint}");
        let folder = Folder::new()?;
        let mut host = diverge(&folder).await?;
        die(&mut host, failpoint, "?accept_state=true").await?;
        let state = host.client().agent(AGENT).await?.state;
        ensure!((state != "broken") == runs, "{failpoint}: {state}");
        let (status, done) = recover(&host.client(), "?accept_state=true").await?;
        ensure!(status == 200, "{failpoint}: {status} {done}");
        ensure!(host.client().reply(AGENT, "noted").await? == "kept", "{failpoint}");
        is_whole(&host.client(), 1).await?;
        host.terminate().await?;
    }
    Ok(())
}

async fn die(host: &mut Host, failpoint: &str, query: &str) -> Result<()> {
    host.terminate().await?;
    host.start(&[("GODWIT_FAILPOINTS", failpoint)]).await?;
    // The answer dies with the host.
    drop(recover(&host.client(), query).await);
    host.died(SOON).await.with_context(|| failpoint.to_owned())?;
    host.start(&[]).await
}
