//! One flipped byte on disk: refused loudly, never served, and nobody else is hurt.

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cli;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::json;
use rusqlite::Connection;
use serde_json::Value;

use crate::room::{SOON, shared};

const SNAPSHOT: &str = "hurt-snapshot";
const NEW_RECEIPT: &str = "hurt-new-receipt";
const OLD_RECEIPT: &str = "hurt-old-receipt";
const HEALTHY: &str = "healthy";
/// The old receipt that is damaged; later turns committed snapshots.
const OLD_REVISION: u64 = 2;

/// Flips one bit in the middle of a stored value.
pub(crate) fn flip(
    file: &Connection,
    table: &str,
    column: &str,
    agent: &str,
    revision: Option<u64>,
) -> Result<()> {
    let row = format!(
        "agent = (SELECT key FROM agent WHERE id = '{agent}'){}",
        revision.map_or(String::new(), |revision| format!(" AND revision = {revision}"))
    );
    let select = format!("SELECT {column} FROM {table} WHERE {row}");
    let mut bytes: Vec<u8> = file
        .query_row(&select, [], |found| found.get(0))
        .with_context(|| format!("no {column} of {agent} in {table}"))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let update = format!("UPDATE {table} SET {column} = ?1 WHERE {row}");
    ensure!(file.execute(&update, [bytes])? == 1, "one row is damaged");
    Ok(())
}

/// A host with four agents of a few turns each, ended in order, with one byte of three of them flipped.
async fn damaged(folder: &Folder) -> Result<Host> {
    let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host");
    let mut host = options.start().await?;
    let door = host.client();
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    for agent in [SNAPSHOT, NEW_RECEIPT, OLD_RECEIPT, HEALTHY] {
        door.create(agent, "hostile").await?;
        for note in ["one", "two", "three"] {
            door.reply(agent, &format!("note {note}")).await?;
        }
    }
    // A dead letter is a boundary without a snapshot: its receipt is newer than the last one.
    door.ask(NEW_RECEIPT, "fatal asked to", None).await;
    let newest = door.agent(NEW_RECEIPT).await?.revision;
    host.terminate().await?;
    let file = Connection::open(host.ready().store_path())?;
    flip(&file, "snapshot", "state", SNAPSHOT, None)?;
    flip(&file, "receipt", "body", NEW_RECEIPT, Some(newest))?;
    flip(&file, "receipt", "body", OLD_RECEIPT, Some(OLD_REVISION))?;
    Ok(host)
}

#[tokio::test]
async fn flipped_bytes_break_their_agent_and_no_other() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = damaged(&folder).await?;
    host.start(&[]).await?;
    let door = host.client();
    for agent in [SNAPSHOT, NEW_RECEIPT] {
        let fate = door.ask_within(agent, "noted", None, SOON).await;
        ensure!(fate.answer().is_none(), "{agent} answers from damaged state: {fate:?}");
        let shown = door.agent(agent).await?;
        ensure!(shown.state == "broken", "{agent} is {}", shown.state);
        ensure!(shown.body["broken"]["reason"] == "corrupt", "{agent}: {}", shown.body["broken"]);
        host.cli(&["verify", agent]).await?.expect_code(1)?;
    }
    for agent in [OLD_RECEIPT, HEALTHY] {
        let reply = door.reply(agent, "noted").await?;
        ensure!(reply == "three", "{agent} noted {reply:?}");
    }
    host.cli(&["verify", HEALTHY]).await?.ok()?;
    let found = host.cli(&["verify", OLD_RECEIPT]).await?.expect_code(1)?;
    ensure!(
        names_the_break(&format!("{}{}", found.stdout, found.stderr)),
        "the break is not named: {found:?}"
    );
    Ok(())
}

#[tokio::test]
async fn offline_verification_names_every_flipped_byte() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = damaged(&folder).await?;
    let store = host.ready().store.clone();
    let found =
        cli::run(host.program(), &["verify", "--store", &store, "-o", "json"]).await?.expect_code(1)?;
    println!("{}", found.stdout);
    let reports = found.json()?;
    for agent in [SNAPSHOT, NEW_RECEIPT, OLD_RECEIPT, HEALTHY] {
        let breaks = breaks(&reports, agent)?;
        ensure!(breaks.is_empty() == (agent == HEALTHY), "{agent}: {breaks:?}");
    }
    let of_old = breaks(&reports, OLD_RECEIPT)?;
    ensure!(names_the_break(&of_old.join("\n")), "the old receipt is not named in {of_old:?}");
    Ok(())
}

/// What a verification says about an agent; empty when all is well.
fn breaks(reports: &Value, agent: &str) -> Result<Vec<String>> {
    let mut reports = json::items(reports)?.iter();
    let report = reports.find(|report| report["agent"] == agent);
    let breaks = report.and_then(|report| report["breaks"].as_array());
    let breaks = breaks.with_context(|| format!("no report on {agent}"))?;
    Ok(breaks.iter().map(Value::to_string).collect())
}

fn names_the_break(text: &str) -> bool {
    text.contains(&format!("receipt {OLD_REVISION}"))
}
