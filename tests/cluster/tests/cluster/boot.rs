//! A thousand identities come up together, one of them damaged and one that hangs: the others run, and each says what
//! became of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::Value;

use crate::damage::flip;
use crate::room::alone;

const HEALTHY: usize = 998;
/// Of them, those that have a history before they come up together.
const BEGUN: usize = 100;
const DAMAGED: &str = "damaged";
const HANGS: &str = "hangs";
/// Requests at the same time.
const AT_ONCE: usize = 32;

fn healthy() -> impl Iterator<Item = String> {
    (0..HEALTHY).map(|number| format!("healthy-{number}"))
}

fn roster() -> Result<String> {
    let mut roster = String::new();
    for agent in healthy().chain([DAMAGED.to_owned()]) {
        writeln!(roster, "[[agents]]\nid = \"{agent}\"\nplugin = \"hostile\"")?;
    }
    // It never comes back from `init`.
    writeln!(roster, "[[agents]]\nid = \"{HANGS}\"\nplugin = \"hostile\"\nconfig = {{ behave = \"loop\" }}")?;
    Ok(roster)
}

/// A host, ended, whose roster names a thousand agents.
async fn peopled(folder: &Folder) -> Result<(Host, String)> {
    let file = folder.path().join("roster.toml");
    std::fs::write(&file, roster()?)?;
    let file = file.to_str().context("a path that is text")?.to_owned();
    let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host");
    let mut host = options.variable("GODWIT_LIMITS_RESIDENT_MAX", "1500").start().await?;
    host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    host.terminate().await?;
    host.start(&[("GODWIT_ROSTER_FILE", &file)]).await?;
    let (door, begun) = (host.client(), healthy().take(BEGUN).chain([DAMAGED.to_owned()]));
    each(&door, begun, async |door, agent| door.reply(agent, "note mine").await).await?;
    host.terminate().await?;
    let store = Connection::open(host.ready().store_path())?;
    flip(&store, "snapshot", "state", DAMAGED, None)?;
    Ok((host, file))
}

/// Asks about each of these, some at a time.
async fn each<T>(
    door: &Client,
    agents: impl Iterator<Item = String>,
    ask: impl AsyncFn(&Client, &str) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let asking = stream::iter(agents).map(|agent| {
        let ask = &ask;
        async move { anyhow::Ok((agent.clone(), ask(door, &agent).await?)) }
    });
    asking.buffer_unordered(AT_ONCE).try_collect().await
}

async fn materialize(door: &Client, agent: &str) -> Result<Value> {
    let path = format!("/v1/agents/{agent}/materialize");
    let reply = door.call(Method::POST, &path, None).await?;
    ensure!(reply.status == 200, "{agent}: {} {}", reply.status, reply.body);
    Ok(reply.body)
}

#[tokio::test]
async fn a_thousand_come_up_beside_one_that_is_damaged_and_one_that_hangs() -> Result<()> {
    let _room = alone().await;
    let folder = Folder::new()?;
    let (mut host, roster) = peopled(&folder).await?;
    let began = Instant::now();
    host.start(&[("GODWIT_ROSTER_FILE", &roster), ("GODWIT_ROSTER_BOOT", "eager")]).await?;
    let elapsed = began.elapsed();
    let log = host.log_text();
    let report = log.lines().rfind(|line| line.contains("agents brought up")).context("a report")?;
    for count in ["created=898", "resumed=100", "broken=2", "unfinished=0"] {
        ensure!(report.contains(count), "no {count} in {report}");
    }
    println!("ready after {} ms: {report}", elapsed.as_millis());

    let door = host.client();
    let outcomes = each(&door, healthy().chain([DAMAGED.to_owned()]), materialize).await?;
    for (agent, outcome) in &outcomes {
        let expected = if agent == DAMAGED { "broken" } else { "resumed" };
        ensure!(outcome["outcome"] == expected, "{outcome}");
    }
    ensure!(outcomes[DAMAGED]["reason"] == "corrupt", "{}", outcomes[DAMAGED]);
    let noted =
        each(&door, healthy().take(BEGUN), async |door, agent| door.reply(agent, "noted").await).await?;
    ensure!(noted.values().all(|note| note == "mine"), "{noted:?}");
    let hanging = materialize(&door, HANGS).await?;
    // Its `init` was ended each time, and it has had all its tries.
    ensure!(hanging["outcome"] == "broken" && hanging["reason"] == "init", "{hanging}");
    host.terminate().await
}
