//! Negative controls: hosts that are broken on purpose (`GODWIT_BREAK`, in the failpoints build only). A checker that does
//! not find what is planted here proves nothing elsewhere.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::check;
use godwit_support::cluster::Folder;
use godwit_support::fate::Fate;
use godwit_support::host::{Host, HostOptions};
use godwit_support::journal::Operation;
use godwit_support::verdict;
use rusqlite::Connection;

use crate::room::{SOON, shared};
use crate::stale::held_commit;

const AGENT: &str = "counted";

fn operation(index: u64, key: &str, fates: Vec<Fate>) -> Operation {
    let payload = "add 1".to_owned();
    Operation { client: 0, index, agent: AGENT.into(), key: key.into(), payload, fates, took: Duration::ZERO }
}

async fn host(folder: &Folder, variables: &[(&str, &str)]) -> Result<Host> {
    let options = HostOptions::new(&binaries::failpoints()?, &folder.path().join("host"), "host");
    let options = options.shared_store(&folder.path().join("shared.db"));
    let with = |options: HostOptions, (name, value): &(&str, &str)| options.variable(name, value);
    let host = variables.iter().fold(options, with).start().await?;
    host.client().load_plugin(&binaries::plugin("counter")?).await?;
    host.client().create(AGENT, "counter").await?;
    Ok(host)
}

#[tokio::test]
async fn without_the_token_check_the_checker_fails() -> Result<()> {
    let _room = shared().await;
    let held = held_commit(&[("GODWIT_BREAK", "no-token-check")]).await?;
    ensure!(!held.violations.is_empty(), "a stale owner committed and no checker saw it");
    println!("found: {}", held.violations.join("; "));
    Ok(())
}

/// Uses one key twice, as a client does whose first answer got lost.
async fn repeat_a_key(variables: &[(&str, &str)]) -> Result<Vec<String>> {
    let folder = Folder::new()?;
    let host = host(&folder, variables).await?;
    let door = host.client();
    let mut operations = Vec::new();
    for index in 0..4 {
        let key = format!("key-{index}");
        let mut fates = Vec::new();
        for _ in 0..2 {
            fates.push(door.ask(AGENT, "add 1", Some(&key)).await);
            fates.push(door.send(AGENT, "add 1", Some(&key)).await);
        }
        operations.push(operation(index, &key, fates));
    }
    verdict::counters(&door, &[AGENT.into()], &operations).await
}

#[tokio::test]
async fn without_dedup_the_checker_fails() -> Result<()> {
    let _room = shared().await;
    check::none("the sound host", &repeat_a_key(&[]).await?)?;
    let found = repeat_a_key(&[("GODWIT_BREAK", "no-dedup")]).await?;
    ensure!(!found.is_empty(), "a key ran twice and no checker saw it");
    println!("found: {}", found.join("; "));
    Ok(())
}

/// Asks while nobody can commit, because the file's write lock is taken; then the host dies.
async fn ask_without_commit(variables: &[(&str, &str)]) -> Result<(Fate, Vec<String>)> {
    let folder = Folder::new()?;
    let mut host = host(&folder, variables).await?;
    let door = host.client();
    let first = door.ask(AGENT, "add 1", Some("first")).await;
    let lock = Connection::open(host.ready().store_path())?;
    lock.busy_timeout(SOON)?;
    lock.execute_batch("BEGIN IMMEDIATE").context("cannot take the write lock")?;
    let second = door.ask_within(AGENT, "add 1", Some("second"), Duration::from_secs(1)).await;
    host.kill().await?;
    lock.execute_batch("ROLLBACK")?;
    drop(lock);
    host.start(&[]).await?;
    let operations = [operation(0, "first", vec![first]), operation(1, "second", vec![second.clone()])];
    Ok((second, verdict::counters(&door, &[AGENT.into()], &operations).await?))
}

#[tokio::test]
async fn with_an_acknowledgement_before_the_commit_the_checker_fails() -> Result<()> {
    let _room = shared().await;
    let (fate, found) = ask_without_commit(&[]).await?;
    ensure!(fate.answer().is_none(), "acknowledged while nothing could be committed: {fate:?}");
    check::none("the sound host", &found)?;
    let (_, found) = ask_without_commit(&[("GODWIT_BREAK", "ack-before-commit")]).await?;
    ensure!(!found.is_empty(), "an acknowledged input was lost and no checker saw it");
    println!("found: {}", found.join("; "));
    Ok(())
}
