//! How inputs wait, as a client sees it: lanes, silence, supersession, batches, dead letters that are dropped, and the order
//! of all that after kill -9.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::api::Input;
use godwit_support::binaries;
use godwit_support::check::{self, History};
use godwit_support::client::{Client, Method};
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::json::text;

use crate::room::{SOON, shared};

/// Longer than a host takes to find work that no hint announced.
const SCANNED: Duration = Duration::from_millis(2_500);
const STEER: (&str, &str) = ("Godwit-Mode", "steer");
const KEY: (&str, &str) = ("Godwit-Supersedes", "k");

async fn host(folder: &Folder) -> Result<Host> {
    let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host");
    let host = options.start().await?;
    let door = host.client();
    door.load_plugin(&binaries::plugin("counter")?).await?;
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    Ok(host)
}

/// Submits what must be accepted, and answers its id.
async fn submit(door: &Client, verb: &str, payload: &str, headers: &[(&str, &str)]) -> Result<String> {
    let reply = door.submit("c", verb, payload, headers).await?;
    ensure!(reply.status == 202, "{verb}: {} {}", reply.status, reply.body);
    Ok(text(&reply.body, "input_id")?.to_owned())
}

async fn find(door: &Client, id: &str) -> Result<Input> {
    let inputs = door.inputs("c").await?;
    inputs.into_iter().find(|input| input.id == id).with_context(|| format!("input {id} is gone"))
}

async fn verify(door: &Client) -> Result<()> {
    let report = door.verb("c", "verify").await?;
    ensure!(report["ok"] != false && report["breaks"].as_array().is_none_or(Vec::is_empty), "{report}");
    check::none("the chain", &check::chain(&History::of(door, "c").await?))
}

#[tokio::test]
async fn whoever_waits_for_an_input_learns_its_end_and_changes_nothing() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    let door = host.client();
    door.create("c", "counter").await?;
    let silent = submit(&door, "enqueue", "add 1", &[]).await?;
    let shown = door.get(&format!("/v1/agents/c/inputs/{silent}?wait_ms=200")).await?;
    ensure!(shown["state"] == "queued" && shown["outcome"].is_null(), "waiting woke it: {shown}");
    host.cli(&["inputs", "c", &silent, "--wait", "100"]).await?.expect_code(6)?;
    let waiting = {
        let (door, path) = (door.clone(), format!("/v1/agents/c/inputs/{silent}?wait_ms=20000"));
        tokio::spawn(async move { door.get(&path).await })
    };
    submit(&door, "send", "add 2", &[]).await?;
    let ended = waiting.await??;
    ensure!(ended["outcome"]["outcome"] == "committed" && ended["reply"]["body"] == "1", "{ended}");
    host.cli(&["inputs", "c", &silent, "--wait"]).await?.ok()?;
    let refused =
        door.call(Method::GET, &format!("/v1/agents/c/inputs/{silent}?wait_ms=600001"), None).await?;
    ensure!(refused.status == 400, "{} {}", refused.status, refused.body);
    host.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn what_is_enqueued_waits_in_silence_and_runs_with_the_next_turn_in_its_lane() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    let door = host.client();
    door.create("c", "counter").await?;
    door.reply("c", "get").await?;
    let before = door.agent("c").await?.revision;
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let first = submit(&door, "enqueue", "add 1", &[trace]).await?;
    let second = submit(&door, "enqueue", "add 2", &[]).await?;
    let steered = submit(&door, "enqueue", "add 10", &[STEER]).await?;
    // Nothing may happen in this time, so there is nothing to wait for.
    tokio::time::sleep(SCANNED).await;
    host.kill().await?;
    host.start(&[]).await?;
    let door = host.client();
    tokio::time::sleep(SCANNED).await;
    let agent = door.agent("c").await?;
    ensure!((agent.revision, agent.queue_depth) == (before, 3), "something woke it: {agent:?}");
    let shown = find(&door, &first).await?;
    ensure!(shown.body["traceparent"] == trace.1 && shown.body["wakes"] == false, "{shown:?}");
    ensure!(shown.body["lane"] == "queue" && find(&door, &steered).await?.body["lane"] == "steer");
    let reply = door.reply("c", "add 100").await?;
    ensure!(reply == "113", "the ask takes along what waits: {reply}");
    for (id, count) in [(&steered, "10"), (&first, "11"), (&second, "13")] {
        let input = find(&door, id).await?;
        ensure!(input.reply.as_deref() == Some(count), "steer runs first, each lane in order: {input:?}");
    }
    verify(&door).await
}

#[tokio::test]
async fn a_newer_input_takes_the_place_of_a_queued_one_and_both_clients_learn_it() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    let door = host.client();
    door.create("c", "counter").await?;
    let keyed = [KEY, ("Idempotency-Key", "first")];
    let older = submit(&door, "enqueue", "add 1", &keyed).await?;
    let other = submit(&door, "enqueue", "add 2", &[("Godwit-Supersedes", "l")]).await?;
    let newer = submit(&door, "enqueue", "add 10", &[KEY]).await?;
    host.kill().await?;
    host.start(&[]).await?;
    let door = host.client();
    let replaced = find(&door, &older).await?;
    ensure!(replaced.state == "replaced" && replaced.body["outcome"]["by"] == newer.as_str(), "{replaced:?}");
    for verb in ["send", "enqueue", "ask"] {
        let again = door.submit("c", verb, "add 1", &keyed).await?;
        ensure!(again.status == 409 && again.body["code"] == "input_replaced", "{verb}: {}", again.body);
        ensure!(
            again.body["by"] == newer.as_str() && again.body["input_id"] == older.as_str(),
            "{}",
            again.body
        );
    }
    let asked = door.submit("c", "ask", "add 100", &[KEY]).await?;
    ensure!((asked.status, asked.body.to_string().as_str()) == (200, "102"), "{asked:?}");
    ensure!(find(&door, &newer).await?.state == "replaced", "the ask took its place");
    ensure!(find(&door, &other).await?.reply.as_deref() == Some("2"), "another key is another scope");
    verify(&door).await
}

#[tokio::test]
async fn events_share_a_turn_and_a_receipt_and_each_has_its_reply() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = host(&folder).await?;
    let door = host.client();
    door.create("c", "counter").await?;
    door.reply("c", "get").await?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(submit(&door, "enqueue", "add 1", &[("Godwit-Kind", "event")]).await?);
    }
    ensure!(door.reply("c", "get").await? == "5");
    let receipts = door.receipts("c").await?;
    ensure!(receipts.iter().any(|receipt| receipt.inputs == ids), "no receipt names all: {receipts:?}");
    for (id, count) in ids.iter().zip(["1", "2", "3", "4", "5"]) {
        let input = find(&door, id).await?;
        ensure!(input.reply.as_deref() == Some(count) && input.body["kind"] == "event", "{input:?}");
    }
    for kind in ["timer", "operation", "continuation", "peer-message", "peer-request"] {
        let refused = door.submit("c", "send", "add 1", &[("Godwit-Kind", kind)]).await?;
        ensure!(refused.status == 422 && refused.body["code"] == "kind_refused", "{kind}: {}", refused.body);
    }
    let unknown = door.submit("c", "send", "add 1", &[("Godwit-Kind", "telegram")]).await?;
    ensure!(unknown.status == 400, "{unknown:?}");
    verify(&door).await
}

#[tokio::test]
async fn dead_letters_are_listed_driven_again_and_dropped() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = host(&folder).await?;
    let door = host.client();
    door.create("c", "hostile").await?;
    let fatal = door.ask("c", "fatal no way", Some("key")).await;
    let id = fatal.answer().with_context(|| format!("{fatal:?}"))?.input_id.clone();
    host.cli(&["dead-letters", "retry", "c", &id]).await?.ok()?;
    door.settled("c", SOON).await?;
    let named = door.receipts("c").await?.iter().filter(|receipt| receipt.inputs.contains(&id)).count();
    ensure!(named == 2, "given up twice: {named}");
    verify(&door).await?;
    host.cli(&["dead-letters", "drop", "c", &id]).await?.ok()?;
    host.cli(&["dead-letters", "drop", "c", &id]).await?.ok()?;
    ensure!(door.list("/v1/agents/c/dead-letters").await?.is_empty(), "it is still listed");
    ensure!(find(&door, &id).await?.state == "abandoned");
    host.cli(&["dead-letters", "retry", "c", &id]).await?.expect_code(4)?;
    let again = door.submit("c", "send", "fatal no way", &[("Idempotency-Key", "key")]).await?;
    ensure!(again.status == 409 && again.body["code"] == "input_abandoned", "{again:?}");
    ensure!(again.body["reason"] == "cancelled", "{again:?}");
    // A queued one is no dead letter, and the other way round.
    let queued = host.cli(&["enqueue", "c", "echo", "--mode", "steer", "-o", "name"]).await?.ok()?.stdout;
    let queued = queued.trim();
    host.cli(&["dead-letters", "drop", "c", queued]).await?.expect_code(4)?;
    host.cli(&["inputs", "c", queued, "--cancel"]).await?.ok()?;
    ensure!(find(&door, queued).await?.state == "abandoned");
    ensure!(door.agent("c").await?.queue_depth == 0);
    verify(&door).await
}

#[tokio::test]
async fn order_in_each_lane_is_admission_order_also_when_the_host_dies_on_the_way() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    let door = host.client();
    door.create("c", "counter").await?;
    for round in 0..4 {
        for number in 0..40 {
            let mode = if number % 3 == 0 { "steer" } else { "queue" };
            let kind = if number % 5 == 0 { "event" } else { "message" };
            let verb = if number % 4 == 0 { "enqueue" } else { "send" };
            submit(&door, verb, "add 1", &[("Godwit-Mode", mode), ("Godwit-Kind", kind)]).await?;
        }
        // The moment is random; nothing is waited for here.
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        host.kill().await?;
        host.start(&[]).await?;
    }
    let door = host.client();
    ensure!(door.reply("c", "get").await? == "160");
    let inputs = door.inputs("c").await?;
    let added: Vec<&Input> = inputs.iter().filter(|input| input.payload == "add 1").collect();
    ensure!(added.len() == 160 && added.iter().all(|input| input.state == "consumed"), "some did not run");
    for lane in ["steer", "queue"] {
        let replies: Vec<u64> = added
            .iter()
            .filter(|input| input.body["lane"] == lane)
            .filter_map(|input| input.reply.as_ref()?.parse().ok())
            .collect();
        ensure!(!replies.is_empty() && replies.is_sorted(), "{lane}: {replies:?}");
    }
    verify(&door).await
}
