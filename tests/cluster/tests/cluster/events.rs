//! The event log as clients read it: over restarts, from host to host, and after a host has lost its session. Nothing comes
//! twice, and what is missing is said.

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::{Client, Method};
use godwit_support::cluster::{Cluster, Side};
use godwit_support::events::{Message, Stream};
use godwit_support::host::Host;
use serde_json::Value;

use crate::room::{SOON, alone, shared};

const AGENT: &str = "watched";

async fn follow(door: &Client, after: &str) -> Result<Stream> {
    Stream::open(door, &format!("/v1/agents/{AGENT}/events?after={after}"), SOON).await
}

async fn until(stream: &mut Stream, kind: &str) -> Result<Vec<Message>> {
    stream.until(kind, |message| message.kind() == kind).await
}

/// Numbers of events in the agent's own count; a gap or anything else fails.
fn numbers(messages: &[Message]) -> Result<Vec<u64>> {
    let number = |message: &Message| {
        ensure!(message.name == "message", "{message:?}");
        let place = message.data["place"].as_str().context("no place")?;
        ensure!(place == message.id, "{message:?}");
        Ok(place.split_once('.').context("no number")?.1.parse()?)
    };
    messages.iter().map(number).collect()
}

fn in_order(messages: &[Message]) -> Result<()> {
    let numbers = numbers(messages)?;
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    ensure!(numbers == expected, "{numbers:?}");
    Ok(())
}

async fn label(host: &Host, label: &str) -> Result<()> {
    host.cli(&["agent", "configure", AGENT, "--label", label]).await?.ok().map(drop)
}

#[tokio::test]
async fn streams_go_on_over_a_restart_and_a_move() -> Result<()> {
    let _room = shared().await;
    let mut cluster = Cluster::separate(&binaries::product()?, &[]).await?;
    cluster.load(&["counter"]).await?;
    let door = cluster.a.client();
    door.create(AGENT, "counter").await?;
    door.reply(AGENT, "add 1").await?;
    let mut stream = follow(&door, "0.0").await?;
    let mut seen = until(&mut stream, "lease-acquired").await?;
    let mut all = Stream::open(&door, "/v1/events", SOON).await?;
    let known = until(&mut all, "lease-acquired").await?;
    let cursor = known.last().context("nothing")?.id.clone();

    cluster.a.kill().await?;
    cluster.a.start(&[]).await?;
    let door = cluster.a.client();
    ensure!(door.reply(AGENT, "add 1").await? == "2", "its state is gone");
    let mut stream = follow(&door, &seen.last().context("nothing")?.id).await?;
    seen.extend(until(&mut stream, "lease-acquired").await?);
    let mut all = Stream::open(&door, &format!("/v1/events?after={cursor}"), SOON).await?;
    let rest = until(&mut all, "lease-acquired").await?;
    ensure!(rest.iter().all(|message| message.name == "message"), "{rest:?}");
    ensure!(rest.iter().all(|message| !known.contains(message)), "told twice: {rest:?}");
    ensure!(rest[0].kind() == "host-joined", "{rest:?}");

    // A cursor of another store means nothing here.
    let other = cluster.b.client();
    let mut foreign = Stream::open(&other, &format!("/v1/events?after={cursor}"), SOON).await?;
    let first = foreign.next().await?.context("no message")?;
    ensure!(first.name == "gap" && first.data["reason"] == "other-store", "{first:?}");

    label(&cluster.a, "team=red").await?;
    door.move_to(AGENT, "b", SOON).await?;
    seen.extend(stream.until("the move", |message| message.name == "moved").await?);
    let moved = seen.pop().context("nothing")?;
    ensure!(moved.data["host"] == cluster.b.key(), "{moved:?}");
    let api = moved.data["api"].as_str().context("no address")?;
    ensure!(api == other.base(), "{moved:?}");
    ensure!(stream.next().await?.is_none(), "that was the last");
    let refused = door.call(Method::GET, &format!("/v1/agents/{AGENT}/events?follow=1"), None).await?;
    ensure!(refused.status == 421, "{} {}", refused.status, refused.body);

    let mut stream = follow(&other, &seen.last().context("nothing")?.id).await?;
    label(&cluster.b, "team=blue").await?;
    other.verb(AGENT, "pause").await?;
    seen.extend(until(&mut stream, "agent-paused").await?);
    in_order(&seen)?;
    // What was stamped when it happened stays.
    let teams: Vec<&Value> = seen.iter().map(|message| &message.data["labels"]["team"]).collect();
    let red = teams.iter().position(|team| **team == "red").context("no red")?;
    let blue = teams.iter().position(|team| **team == "blue").context("no blue")?;
    ensure!(teams[..red].iter().all(|team| team.is_null()), "{teams:?}");
    ensure!(teams[red..blue].iter().all(|team| **team == "red"), "{teams:?}");
    ensure!(teams[blue..].iter().all(|team| **team == "blue"), "{teams:?}");
    let labelled = other.list("/v1/events?follow=0&label=team=red").await?;
    ensure!(labelled.iter().all(|event| event["labels"]["team"] == "red"), "{labelled:?}");
    ensure!(!labelled.is_empty(), "the move itself was red");
    commands(&cluster).await?;
    cluster.end_and_verify().await.map(drop)
}

/// The same from the command line, at the host where the agent is not.
async fn commands(cluster: &Cluster) -> Result<()> {
    let listed = cluster.a.cli(&["agent", "events", AGENT, "-o", "name"]).await?.ok()?.stdout;
    ensure!(listed.lines().count() > 2, "{listed}");
    let seen = cluster.a.cli(&["agent", "inspect", AGENT, "-o", "json"]).await?.ok()?.stdout;
    let seen: Value = serde_json::from_str(&seen)?;
    ensure!(seen["agent"]["state"] == "paused" && seen["spec"]["policy"] == "auto", "{seen}");
    ensure!(seen["lease"]["holder"]["host"] == cluster.b.key(), "{seen}");
    let late = ["agent", "wait-output", AGENT, "--after", "0", "--containing", "2"];
    let said = cluster.a.cli(&late).await?.ok()?.stdout;
    ensure!(said.trim() == "2", "{said}");
    let never = ["agent", "wait-output", AGENT, "--timeout-ms", "50"];
    cluster.a.cli(&never).await?.expect_code(6)?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_lost_its_session_says_so_once_for_each_agent() -> Result<()> {
    let _room = alone().await;
    let mut cluster = Cluster::shared(&binaries::product()?, &[]).await?;
    cluster.load(&["counter"]).await?;
    let door = cluster.a.client();
    let agents = [AGENT, "other", "third"];
    for agent in agents {
        door.create(agent, "counter").await?;
        door.reply(agent, "add 1").await?;
    }
    ensure!(cluster.runner(AGENT, SOON).await? == Side::A, "host a owns it");
    let other = cluster.b.client();
    let mut stream = follow(&other, "0.0").await?;
    cluster.a.process()?.stop().await?;
    ensure!(other.reply(AGENT, "add 1").await? == "2", "host b has taken over");
    cluster.a.process()?.resume()?;
    let seen = until(&mut stream, "lease-lost").await?;
    in_order(&seen)?;
    let lost = &seen.last().context("nothing")?.data["data"];
    ensure!(lost["host"] == cluster.a.key() && lost["token"] == "1", "{lost}");
    ensure!(lost["under"] != lost["incarnation"], "{lost}");
    for agent in agents {
        let path = format!("/v1/events?follow=0&agent={agent}&kind=lease-lost");
        godwit_support::wait::until("each agent's lost lease", SOON, async || {
            Ok((other.list(&path).await?.len() == 1).then_some(()))
        })
        .await?;
    }
    // They are told of together: one more would have come with them.
    ensure!(other.list("/v1/events?follow=0&kind=lease-lost").await?.len() == agents.len(), "told twice");
    cluster.end_and_verify().await.map(drop)
}
