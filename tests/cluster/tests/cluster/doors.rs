//! What a client may rely on: keys, refusals, dead letters, a guest without the SDK.

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Folder;
use godwit_support::fate::{End, Fate};
use godwit_support::host::{Host, HostOptions};

use crate::room::{SOON, shared};

async fn host(folder: &Folder) -> Result<Host> {
    let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host");
    let host = options.start().await?;
    let door = host.client();
    door.load_plugin(&binaries::plugin("counter")?).await?;
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    Ok(host)
}

fn code(fate: &Fate) -> &str {
    fate.problem().map_or("", |problem| &problem.code)
}

#[tokio::test]
async fn one_key_means_one_answer_and_one_receipt_also_after_a_crash() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    let door = host.client();
    door.create("c", "counter").await?;
    let first = door.ask("c", "add 5", Some("k")).await;
    ensure!(first.reply() == Some("5"), "{first:?}");
    door.reply("c", "add 1").await?;
    let receipts = door.receipts("c").await?.len();
    for is_restarted in [false, true] {
        if is_restarted {
            host.kill().await?;
            host.start(&[]).await?;
        }
        let again = door.ask("c", "add 5", Some("k")).await;
        ensure!(again.reply() == Some("5"), "the same key has another answer: {again:?}");
        let (id, same) = (first.answer().context("accepted")?, again.answer().context("accepted")?);
        ensure!(id.input_id == same.input_id, "the same key is another input");
        let sent = door.send("c", "add 5", Some("k")).await;
        let end = &sent.answer().with_context(|| format!("{sent:?}"))?.end;
        ensure!(matches!(end, End::Queued { deduplicated: true, .. }), "{end:?}");
        for other in [door.ask("c", "add 6", Some("k")).await, door.send("c", "add 6", Some("k")).await] {
            ensure!(code(&other) == "idempotency_key_reused", "{other:?}");
            ensure!(other.problem().is_some_and(|problem| problem.status == 422), "{other:?}");
        }
        ensure!(door.receipts("c").await?.len() == receipts, "a repeated key left a receipt");
    }
    ensure!(door.reply("c", "get").await? == "6", "a repeated key ran");
    Ok(())
}

#[tokio::test]
async fn a_refusing_turn_commits() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = host(&folder).await?;
    let door = host.client();
    door.create("h", "hostile").await?;
    door.reply("h", "echo hello").await?;
    let before = door.agent("h").await?.revision;
    let refused = door.ask("h", "refuse tired", None).await;
    ensure!(code(&refused) == "agent_refused", "{refused:?}");
    ensure!(refused.answer().is_some(), "a refusal is an answer of a committed turn: {refused:?}");
    let after = door.agent("h").await?.revision;
    ensure!(after == before + 1, "revision {before} became {after}");
    // Both inputs above and the refused one were seen by the state.
    ensure!(door.reply("h", "turns").await? == "3", "the refusing turn left the state as it was");
    Ok(())
}

#[tokio::test]
async fn a_fatal_error_is_dead_lettered_and_the_agent_goes_on() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = host(&folder).await?;
    let door = host.client();
    door.create("h", "hostile").await?;
    door.reply("h", "note kept").await?;
    let fatal = door.ask("h", "fatal no way", None).await;
    ensure!(code(&fatal) == "agent_error", "{fatal:?}");
    ensure!(fatal.problem().is_some_and(|problem| problem.detail().contains("no way")), "{fatal:?}");
    let id = &fatal.answer().context("a dead letter is accepted")?.input_id;
    let letters = door.list("/v1/agents/h/dead-letters").await?;
    ensure!(letters.len() == 1 && letters[0]["id"] == id.as_str(), "{letters:?}");
    ensure!(door.reply("h", "noted").await? == "kept", "the agent lost its state");
    let receipts = door.receipts("h").await?;
    ensure!(
        receipts.iter().any(|receipt| receipt.kind == "dead-letter" && receipt.inputs.contains(id)),
        "no receipt"
    );
    Ok(())
}

#[tokio::test]
async fn a_retryable_error_is_tried_again_and_counted() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = host(&folder).await?;
    let door = host.client();
    door.create("h", "hostile").await?;
    ensure!(door.reply("h", "retry 2").await? == "3", "the third attempt answers");
    let exhausted = door.ask_within("h", "retry 9", None, SOON).await;
    ensure!(code(&exhausted) == "agent_error", "{exhausted:?}");
    Ok(())
}

#[tokio::test]
async fn a_guest_written_straight_from_the_contract_runs() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    let door = host.client();
    door.load_plugin(&binaries::test_guest("bare")?).await?;
    door.create("b", "bare").await?;
    ensure!(door.reply("b", "20").await? == "20", "it adds up");
    ensure!(door.reply("b", "hello").await? == "hello", "it echoes");
    host.kill().await?;
    host.start(&[]).await?;
    ensure!(door.reply("b", "22").await? == "42", "it forgot across a crash");
    Ok(())
}
