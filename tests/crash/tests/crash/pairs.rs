//! Runs of two hosts: a migration in which one of them dies, and a takeover.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_support::cluster::Folder;
use godwit_support::events;
use godwit_support::host::Host;
use godwit_support::random::Random;
use godwit_support::wait::until;

use crate::jobs::{self, Job};
use crate::journeys::Stores;
use crate::runs::{Cell, Outcome, begin, conclude, start};
use crate::scene::{SOON, Scene, Template};

const BUSY: &[Job] = &[Job::Count, Job::Count, Job::Pay, Job::Pay, Job::Relay];
/// Agents of which one moves.
const MOVERS: &[&str] = &["counter-0", "ledger-0", "relay-0", "sink"];
const BEFORE: usize = 10;
const AFTERWARDS: usize = 12;
/// A stop may hit the moment of a write: then nobody can write, and it is tried again.
const STOPS_MAX: usize = 10;

/// Host a is killed; host b, on the same file, dies when it has buried it.
pub(crate) async fn take_over(
    cell: &Cell,
    template: &Template,
    folder: &Folder,
    armed: &[(&str, &str)],
) -> Result<Outcome> {
    let (mut a, mut b) = template.sharers(folder.path(), &[])?;
    start(&mut a, &[]).await?;
    start(&mut b, armed).await?;
    let scene = Arc::new(Scene::new(vec![a.client(), b.client()], cell.seed));
    let clients = jobs::start(&scene, BUSY);
    scene.progress(BEFORE).await?;
    a.kill().await?;
    b.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
    let recoveries = vec![start(&mut b, &[]).await?, start(&mut a, &[]).await?];
    scene.progress(AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    conclude(&scene, recoveries, &[&a]).await
}

/// Host a is stopped until host b, on the same file, has buried it. Then it goes on, and dies when it has joined again.
pub(crate) async fn outlive(
    cell: &Cell,
    template: &Template,
    folder: &Folder,
    armed: &[(&str, &str)],
) -> Result<Outcome> {
    let (mut a, mut b) = template.sharers(folder.path(), &[])?;
    start(&mut a, armed).await?;
    // On a shared file whoever is asked first owns the agent: there is one to lose.
    a.client().verb("counter-0", "checkpoint").await?;
    start(&mut b, &[]).await?;
    let scene = Arc::new(Scene::new(vec![a.client(), b.client()], cell.seed));
    let clients = jobs::start(&scene, BUSY);
    scene.progress(BEFORE).await?;
    // Earlier lives of host a have ended as well.
    let before = newest_event(&b).await?;
    stop_beside(&mut a, &b).await?;
    let key = a.key().to_owned();
    let is_end = |event: &events::Event| event.kind() == "host-gone" && event.detail("host") == key;
    let is_later = |event: &events::Event| event.seq() > before;
    events::find(&b.client(), "host a's end", SOON, |event| is_end(event) && is_later(event)).await?;
    a.process()?.resume()?;
    a.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
    let recovery = start(&mut a, &[]).await?;
    scene.progress(AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    conclude(&scene, vec![recovery], &[&b]).await
}

/// The seq of the newest event that a host knows of.
pub(crate) async fn newest_event(host: &Host) -> Result<u64> {
    let page = host.client().get("/v1/events?follow=0&limit=1").await?;
    let newest = page["newest"].as_str().and_then(|id| id.rsplit_once(':')).context("no newest event")?;
    Ok(newest.1.parse()?)
}

/// Stops host a where it does not hold the file's write lock: host b can still write then.
pub(crate) async fn stop_beside(a: &mut Host, b: &Host) -> Result<()> {
    for _ in 0..STOPS_MAX {
        a.process()?.stop().await?;
        if b.client().get("/readyz").await.is_ok() {
            return Ok(());
        }
        a.process()?.resume()?;
    }
    bail!("host a held the file's write lock at each of {STOPS_MAX} stops")
}

/// An agent moves from a to b; the host that the failpoint stands on dies, and comes back.
pub(crate) async fn migrate(
    cell: &Cell,
    stores: Stores,
    template: &Template,
    folder: &Folder,
    armed: &[(&str, &str)],
) -> Result<Outcome> {
    let is_shared = match stores {
        Stores::Separate => false,
        Stores::Shared => true,
        Stores::Either => cell.seed.is_multiple_of(2),
    };
    let (mut a, mut b) = if is_shared {
        template.sharers(folder.path(), &[])?
    } else {
        (template.host(folder.path(), "a", &[])?, template.host(folder.path(), "b", &[])?)
    };
    let dies_at_source = cell.failpoint.starts_with("migration.source.");
    start(&mut a, if dies_at_source { armed } else { &[] }).await?;
    start(&mut b, if dies_at_source { &[] } else { armed }).await?;
    if !is_shared {
        let (of_a, of_b) = (a.peer(), b.peer());
        a.know(of_b).await?;
        b.know(of_a).await?;
    }
    let mover = MOVERS[Random::from_seed(cell.seed).below(MOVERS.len() as u64) as usize];
    // On a shared file whoever is asked first owns the agent.
    a.client().verb(mover, "checkpoint").await?;
    let scene = Arc::new(Scene::new(vec![a.client(), b.client()], cell.seed));
    let clients = jobs::start(&scene, BUSY);
    scene.progress(BEFORE).await?;
    move_until_death(&mut a, &mut b, dies_at_source, mover).await.with_context(|| cell.failpoint.clone())?;
    let mortal = if dies_at_source { &mut a } else { &mut b };
    let recovery = start(mortal, &[]).await?;
    scene.progress(AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    let hosts: &[&Host] = if is_shared { &[&a] } else { &[&a, &b] };
    conclude(&scene, vec![recovery], hosts).await
}

/// Agents leave host a in files. Host b dies while it takes them in, and does it when it is back; a is gone.
pub(crate) async fn import(
    cell: &Cell,
    template: &Template,
    folder: &Folder,
    armed: &[(&str, &str)],
) -> Result<Outcome> {
    const LEAVERS: &[&str] = &["counter-0", "counter-1"];
    let mut a = template.host(folder.path(), "a", &[])?;
    start(&mut a, &[]).await?;
    let scene = Arc::new(Scene::new(vec![a.client()], cell.seed));
    let clients = jobs::start(&scene, &[Job::Count, Job::Count, Job::Crowd]);
    scene.progress(BEFORE + AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    let archive = |agent: &str| folder.path().join(format!("{agent}.godwit")).display().to_string();
    for agent in LEAVERS {
        a.client().settled(agent, SOON).await?;
        a.cli(&["export", agent, &archive(agent)]).await?.ok()?;
    }
    a.terminate().await?;
    let mut b = template.host(folder.path(), "b", &[])?;
    start(&mut b, armed).await?;
    let dying = LEAVERS[(cell.seed % 2) as usize];
    b.cli(&["import", &archive(dying)]).await?.expect_code(6)?;
    b.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
    let recovery = start(&mut b, &[]).await?;
    for agent in LEAVERS {
        b.cli(&["import", &archive(agent)]).await?.ok()?;
        b.cli(&["agent", "resume", agent]).await?.ok()?;
    }
    conclude(&scene.at(vec![b.client()]), vec![recovery], &[&b]).await
}

/// Starts the move, and starts it again when it fails before its failpoint.
async fn move_until_death(a: &mut Host, b: &mut Host, dies_at_source: bool, mover: &str) -> Result<()> {
    let (door, began) = (a.client(), Instant::now());
    let mut migration = None;
    while if dies_at_source { a.is_running() } else { b.is_running() } {
        ensure!(began.elapsed() < SOON, "nobody dies");
        migration = match migration {
            // The answer may die with the host.
            None => door.migrate(mover, "b").await.ok(),
            Some(id) => match door.migration(&id).await {
                Ok(over) if matches!(over.phase.as_str(), "failed" | "aborted") => None,
                // What the source does last comes behind that.
                Ok(over) if over.phase == "complete" => {
                    let mortal = if dies_at_source { a } else { b };
                    return mortal.died(SOON).await.with_context(|| format!("{mover} moved"));
                }
                Ok(_) | Err(_) => Some(id),
            },
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Host b keeps a copy of an agent of host a while clients work. Then a is killed, b takes the copy up, and a comes back and
/// finds that out. Whoever the failpoint stands on dies at it, and comes back.
pub(crate) async fn stand_by(
    cell: &Cell,
    template: &Template,
    folder: &Folder,
    armed: &[(&str, &str)],
) -> Result<Outcome> {
    let arms = |names: &[&str]| if names.contains(&cell.failpoint.as_str()) { armed } else { &[] };
    let mut a = template.host(folder.path(), "a", &[])?;
    let mut b = template.host(folder.path(), "b", &[])?;
    start(&mut a, arms(&["standby.source.after-round"])).await?;
    start(&mut b, arms(&["standby.after-part", "standby.after-round"])).await?;
    let (of_a, of_b) = (a.peer(), b.peer());
    a.know(of_b).await?;
    b.know(of_a).await?;
    let scene = Arc::new(Scene::new(vec![a.client()], cell.seed));
    let clients = jobs::start(&scene, BUSY);
    scene.progress(BEFORE).await?;
    if cell.failpoint == "standby.after-part" {
        fill(&a, GUARDED).await?;
    }
    a.cli(&["agent", "standby", GUARDED, "--on", "b"]).await?.ok()?;
    let mut recoveries = Vec::new();
    let mortal = match cell.failpoint.as_str() {
        "standby.source.after-round" => Some(&mut a),
        "standby.after-part" | "standby.after-round" => Some(&mut b),
        _ => None,
    };
    if let Some(mortal) = mortal {
        mortal.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
        recoveries.push(start(mortal, &[]).await?);
    }
    scene.progress(AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    let outcome = conclude(&scene, recoveries, &[&a]).await?;
    let value = a.client().reply(GUARDED, "get").await?;
    let is_fed = || async {
        let view = a.client().get(&format!("/v1/agents/{GUARDED}/standby")).await?;
        Ok((view["lag_changes"] == 0).then_some(()))
    };
    until("the copy to be up to date", SOON, is_fed).await?;
    a.kill().await?;
    take_up(cell, &mut b, armed).await?;
    ensure!(b.client().reply(GUARDED, "get").await? == value, "the copy is another agent");
    come_back(cell, &mut a, armed).await?;
    ensure!(a.client().reply(GUARDED, "get").await? == value, "a does not know the way");
    b.cli(&["verify", GUARDED]).await?.ok()?;
    Ok(outcome)
}

/// The agent that has a standby.
const GUARDED: &str = "counter-0";
/// Inputs that make an agent too large for one bundle, and their size.
const FILLING: usize = 48;
const FILLING_BYTES: usize = 64 * 1024;

/// Gives an agent much that waits for nothing.
async fn fill(host: &Host, agent: &str) -> Result<()> {
    let door = host.client();
    // Without keys: no client of the journal has sent them.
    for _ in 0..FILLING {
        let text = format!("add 0{}", " ".repeat(FILLING_BYTES));
        ensure!(door.enqueue(agent, text, None).await.answer().is_some(), "it takes no more");
    }
    Ok(())
}

async fn take_up(cell: &Cell, b: &mut Host, armed: &[(&str, &str)]) -> Result<()> {
    let refused = b.cli(&["agent", "promote", GUARDED]).await?;
    ensure!(refused.code == 4 && refused.stderr.contains("--force"), "{refused:?}");
    if cell.failpoint != "standby.after-promote" {
        b.cli(&["agent", "promote", GUARDED, "--force"]).await?.ok()?;
        return Ok(());
    }
    b.terminate().await?;
    start(b, armed).await?;
    // The answer dies with the host.
    b.cli(&["agent", "promote", GUARDED, "--force"]).await?.expect_code(6)?;
    b.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
    start(b, &[]).await?;
    Ok(())
}

/// Host a comes back, runs nothing, and gives up what it has.
async fn come_back(cell: &Cell, a: &mut Host, armed: &[(&str, &str)]) -> Result<()> {
    let dies = |name: &str| cell.failpoint == name;
    if dies("standby.source.after-broken") {
        if begin(a, armed).await? {
            a.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
        }
        start(a, &[]).await?;
    } else {
        start(a, if dies("standby.source.after-given-up") { armed } else { &[] }).await?;
    }
    let door = a.client();
    let is_broken = || async {
        let shown = door.agent(GUARDED).await?;
        Ok((shown.state == "broken" && shown.body["broken"]["reason"] == "forked").then_some(()))
    };
    until("what is left at a to be broken", SOON, is_broken).await?;
    if dies("standby.source.after-given-up") {
        a.cli(&["agent", "adopt", GUARDED, "--force"]).await?.expect_code(6)?;
        a.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))?;
        start(a, &[]).await?;
    }
    a.cli(&["agent", "adopt", GUARDED, "--force"]).await?.ok()?;
    Ok(())
}
