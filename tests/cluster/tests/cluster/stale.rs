//! A stale owner behind the guard's check: its commit is refused by the store, its message by whoever has heard the new
//! owner. The hosts stop themselves at pause points (failpoints with the action `stop`).

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use godwit_support::binaries;
use godwit_support::check::{self, History, Sight};
use godwit_support::cluster::{Cluster, Side};
use godwit_support::events;
use godwit_support::host::HostOptions;
use godwit_support::journal::Operation;
use godwit_support::verdict;
use godwit_support::wait::until;
use serde_json::json;

use crate::room::{SOON, shared};

const AGENT: &str = "owned";
/// Takes the writes that show whether the file can be written.
const PROBE: &str = "probe";
/// The pause may hit the moment of a heartbeat's write: then nobody can write, and the test begins anew.
const TRIES: usize = 4;

/// What became of a commit that was held up until another host had taken over.
pub(crate) struct Held {
    pub(crate) cluster: Cluster,
    pub(crate) violations: Vec<String>,
}

/// Holds up host a's commit of one `add 1` until host b owns the agent, then lets it go on.
pub(crate) async fn held_commit(variables: &[(&str, &str)]) -> Result<Held> {
    for _ in 0..TRIES {
        if let Some(held) = try_held_commit(variables).await? {
            return Ok(held);
        }
    }
    bail!("host a held the file's write lock at each of {TRIES} pauses")
}

async fn try_held_commit(variables: &[(&str, &str)]) -> Result<Option<Held>> {
    let mut cluster = Cluster::shared(&binaries::failpoints()?, variables).await?;
    cluster.load(&["counter"]).await?;
    let (a, b) = (cluster.a.client(), cluster.b.client());
    a.create(AGENT, "counter").await?;
    a.create(PROBE, "counter").await?;
    a.reply(AGENT, "get").await?;
    cluster.a.terminate().await?;
    cluster.a.start(&[("GODWIT_FAILPOINTS", "turn.before-commit-queued=stop")]).await?;
    let asker = a.clone();
    let asked = tokio::spawn(async move { asker.ask_within(AGENT, "add 1", Some("held"), SOON).await });
    cluster.a.process()?.stopped(SOON).await?;
    if !cluster.can_write(Side::B, PROBE).await {
        return Ok(None);
    }
    // A checkpoint takes the lease and commits no turn, so the held commit still builds on the newest revision.
    let checkpoint = || async { b.verb(AGENT, "checkpoint").await.map(Some) };
    until("host b to take over", SOON, checkpoint).await?;
    let sight = Sight::of(&b, AGENT).await?;
    cluster.a.process()?.resume()?;
    let operation = Operation {
        client: 0,
        index: 0,
        agent: AGENT.into(),
        key: "held".into(),
        payload: "add 1".into(),
        fates: vec![asked.await?],
        took: Duration::ZERO,
    };
    let mut violations = verdict::counters(&b, &[AGENT.into()], &[operation]).await?;
    violations.extend(check::tokens(&History::of(&b, AGENT).await?, &[sight]));
    Ok(Some(Held { cluster, violations }))
}

#[tokio::test]
async fn a_stale_owners_commit_is_refused_by_the_store() -> Result<()> {
    let _room = shared().await;
    let mut held = held_commit(&[]).await?;
    check::none("after the held commit", &held.violations)?;
    events::fenced(&held.cluster.b.client(), AGENT, "commit", SOON).await?;
    held.cluster.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_stale_publishers_message_is_refused_by_the_receiver() -> Result<()> {
    let _room = shared().await;
    for _ in 0..TRIES {
        if held_message().await? {
            return Ok(());
        }
    }
    bail!("host a held the file's write lock at each of {TRIES} pauses")
}

/// Answers whether host a was stopped at a good moment.
async fn held_message() -> Result<bool> {
    let program = binaries::failpoints()?;
    let mut cluster = Cluster::shared(&program, &[]).await?;
    let mut receiver = HostOptions::new(&program, &cluster.folder().join("c"), "c").start().await?;
    for host in [&mut cluster.a, &mut cluster.b] {
        host.add_peer(receiver.peer()).await?;
        receiver.add_peer(host.peer()).await?;
    }
    cluster.load(&["relay", "counter"]).await?;
    let (a, b, c) = (cluster.a.client(), cluster.b.client(), receiver.client());
    c.load_plugin(&binaries::plugin("counter")?).await?;
    c.create("sink", "counter").await?;
    a.create(AGENT, "relay").await?;
    a.create(PROBE, "counter").await?;
    let message = json!({ "to": "sink", "payload": "add 1" }).to_string();
    let counts = |number: &'static str| {
        let c = c.clone();
        move || {
            let c = c.clone();
            async move { Ok((c.reply("sink", "get").await? == number).then_some(())) }
        }
    };
    a.reply(AGENT, &message).await?;
    until("the first message", SOON, counts("1")).await?;

    cluster.a.terminate().await?;
    cluster.a.start(&[("GODWIT_FAILPOINTS", "outbox.before-send=stop")]).await?;
    let asker = a.clone();
    let asked = tokio::spawn(async move { asker.ask_within(AGENT, message, Some("held"), SOON).await });
    cluster.a.process()?.stopped(SOON).await?;
    if !cluster.can_write(Side::B, PROBE).await {
        return Ok(false);
    }
    until("host b to deliver the message", SOON, counts("2")).await?;
    cluster.a.process()?.resume()?;
    events::fenced(&b, AGENT, "receiver", SOON).await?;
    asked.await?;
    c.settled("sink", SOON).await?;
    ensure!(c.reply("sink", "get").await? == "2", "the stale publisher's message was taken");
    check::none("the receiver", &check::chain(&History::of(&c, "sink").await?))?;
    cluster.end_and_verify().await?;
    Ok(true)
}
