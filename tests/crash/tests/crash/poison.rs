//! What ends the process whenever it runs, across restarts: an input is given up after its attempts, and the next one runs; an
//! agent whose start does it (instance, restore, replay, `init`) is broken after its attempts, and the others run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_support::cluster::Folder;
use godwit_support::host::Host;
use godwit_support::load::{How, Order};
use reqwest::Method;
use serde_json::json;

use crate::jobs::{self, Job};
use crate::runs::{begin, conclude};
use crate::scene::{SOON, Scene, Template};

const AGENT: &str = "hostile-0";
const POISON: &str = "echo poison";
/// More deaths than the rule allows: the first run, the attempts, the run alone.
const DEATHS_MAX: usize = 6;

/// Starts the host as often as it dies. Answers how often it did before the poison was given up.
async fn outlive(host: &mut Host) -> Result<usize> {
    let began = Instant::now();
    let mut deaths = 0;
    loop {
        ensure!(deaths <= DEATHS_MAX, "the poison killed the host {deaths} times");
        if begin(host, &[]).await? {
            loop {
                ensure!(began.elapsed() < SOON, "the poison is neither handled nor given up");
                // While the host dies there is no answer.
                let inputs = host.client().inputs(AGENT).await.unwrap_or_default();
                let poison = inputs.iter().find(|input| input.payload == POISON);
                if let Some(poison) = poison.filter(|poison| poison.state == "dead-lettered") {
                    let reason = &poison.body["outcome"]["reason"];
                    ensure!(reason == "killed_host", "it was given up for {reason}");
                    return Ok(deaths);
                }
                if !host.is_running() {
                    break;
                }
            }
        }
        deaths += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_input_is_given_up_and_the_next_one_runs() -> Result<()> {
    let (template, folder) = (Template::make().await?, Folder::new()?);
    let mut host = template.host(folder.path(), "a", &[("GODWIT_POISON", POISON)])?;
    ensure!(begin(&mut host, &[]).await?, "the host died before there was any poison");
    let scene = Arc::new(Scene::new(vec![host.client()], 0));
    let order = |index: u64, payload: &str| Order {
        client: 100,
        index,
        agent: AGENT.to_owned(),
        key: format!("poison-{index}"),
        payload: payload.to_owned(),
        how: How::Send,
    };
    let neighbours = jobs::start(&scene, &[Job::Count, Job::Crowd, Job::Pay]);
    let doors = scene.doors.clone();
    let journal = scene.journal.clone();
    let sending = tokio::spawn(async move {
        for (index, payload) in [(1, "note before"), (2, POISON), (3, "note after")] {
            journal.record(order(index, payload).carry_out(&doors, true).await);
        }
    });
    host.died(SOON).await.context("the poison harms nobody")?;
    let deaths = 1 + outlive(&mut host).await?;
    sending.await?;
    scene.progress(10).await?;
    jobs::finish(&scene, neighbours).await?;
    ensure!(host.client().reply(AGENT, "noted").await? == "after", "the next input did not run");
    let plugins = host.client().list("/v1/plugins").await?;
    for plugin in &plugins {
        let is_suspected = plugin["killed_hosts"].as_u64() > Some(0);
        ensure!(is_suspected == (plugin["name"] == "hostile"), "{plugin}");
    }
    let outcome = conclude(&scene, vec![], &[&host]).await?;
    println!("the poison killed the host {deaths} times; {} acknowledged", outcome.acknowledged);
    ensure!(deaths > 1, "one death says nothing about the input");
    ensure!(outcome.violations.is_empty(), "{}", outcome.violations.join("\n"));
    Ok(())
}

/// The agent whose start is the poison.
const DOOMED: &str = "counter-9";

fn doomed(index: u64, payload: &str, how: How) -> Order {
    let (key, payload) = (format!("doomed-{index}"), payload.to_owned());
    Order { client: 100, index, agent: DOOMED.to_owned(), key, payload, how }
}

/// Waits until the host says that the agent is broken, and of what; `None` when it dies first.
async fn given_up(host: &mut Host) -> Result<Option<String>> {
    let began = Instant::now();
    while host.is_running() {
        ensure!(began.elapsed() < SOON, "{DOOMED} neither begins nor is given up");
        // While the host dies there is no answer.
        let view = host.client().get(&format!("/v1/agents/{DOOMED}")).await.unwrap_or_default();
        if view["state"] == "broken" {
            return Ok(Some(view["broken"].to_string()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(None)
}

/// Starts the host as often as it dies, until it says that the agent is broken. Answers how often it died, and of what the
/// agent is broken.
async fn outlive_doomed(host: &mut Host, doom: &[(&str, &str)]) -> Result<(usize, String)> {
    let mut deaths = 0;
    loop {
        ensure!(deaths <= DEATHS_MAX, "a start of {DOOMED} killed the host {deaths} times");
        if begin(host, doom).await?
            && let Some(why) = given_up(host).await?
        {
            return Ok((deaths, why));
        }
        deaths += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_init_that_kills_the_host_is_given_up_and_the_others_run() -> Result<()> {
    let (template, folder) = (Template::make().await?, Folder::new()?);
    let mut host = template.host(folder.path(), "a", &[])?;
    let doom = [("GODWIT_POISON", "init counter-9")];
    ensure!(begin(&mut host, &doom).await?, "the host died before there was any poison");
    let scene = Arc::new(Scene::new(vec![host.client()], 0));
    let neighbours = jobs::start(&scene, &[Job::Count, Job::Crowd, Job::Pay]);
    scene.progress(10).await?;
    // The answers may die with the host.
    let door = host.client();
    let sending = tokio::spawn({
        let (scene, doors) = (scene.clone(), scene.doors.clone());
        async move {
            door.create(DOOMED, "counter").await?;
            scene.journal.record(doomed(1, "add 7", How::Send).carry_out(&doors, true).await);
            anyhow::Ok(())
        }
    });
    host.died(SOON).await.context("the poison harms nobody")?;
    let (deaths, why) = outlive_doomed(&mut host, &doom).await?;
    ensure!(why.contains("init") && why.contains("3 attempts are used up"), "{why}");
    let deaths = 1 + deaths;
    sending.await??;
    scene.progress(10).await?;
    ensure!(host.is_running(), "the host has died once more");
    // The same host, with what killed it gone: an operator's word lets the agent begin.
    host.terminate().await?;
    ensure!(begin(&mut host, &[]).await?, "it dies without the poison");
    host.client().verb(DOOMED, "recover").await?;
    scene.progress(10).await?;
    jobs::finish(&scene, neighbours).await?;
    ensure!(host.client().reply(DOOMED, "get").await? == "7", "what waited for the agent was lost");
    let outcome = conclude(&scene, vec![], &[&host]).await?;
    println!("an init killed the host {deaths} times; {} acknowledged", outcome.acknowledged);
    ensure!(deaths == 3, "the rule is three attempts, it were {deaths}");
    ensure!(outcome.violations.is_empty(), "{}", outcome.violations.join("\n"));
    Ok(())
}

/// An agent that has run for a while can't be started any more: each try ends the process.
async fn a_start_is_given_up(step: &str, policy: &str) -> Result<()> {
    let (template, folder) = (Template::make().await?, Folder::new()?);
    let mut host = template.host(folder.path(), "a", &[])?;
    ensure!(begin(&mut host, &[]).await?, "the host died before there was any poison");
    let scene = Arc::new(Scene::new(vec![host.client()], 0));
    host.client().create_with(DOOMED, json!({ "plugin": "counter", "policy": policy })).await?;
    for index in [1, 2] {
        scene.journal.record(doomed(index, "add 5", How::Ask).carry_out(&scene.doors, true).await);
    }
    // Not in order, so that the journal's turns have no snapshot behind them.
    host.kill().await?;
    let poison = format!("{step} {DOOMED}");
    let doom = [("GODWIT_POISON", poison.as_str())];
    ensure!(begin(&mut host, &doom).await?, "the host died, and nobody needs {DOOMED}");
    let neighbours = jobs::start(&scene, &[Job::Count, Job::Crowd, Job::Pay]);
    scene.progress(10).await?;
    let sending = tokio::spawn({
        let scene = scene.clone();
        async move {
            scene.journal.record(doomed(3, "add 7", How::Send).carry_out(&scene.doors, true).await);
        }
    });
    host.died(SOON).await.context("the poison harms nobody")?;
    let (deaths, why) = outlive_doomed(&mut host, &doom).await?;
    ensure!(why.contains("restore") && why.contains("died 3 times while it loaded"), "{why}");
    let deaths = 1 + deaths;
    sending.await?;
    scene.progress(10).await?;
    // A restart that nothing has killed finds it given up as well.
    host.terminate().await?;
    ensure!(begin(&mut host, &doom).await?, "the next start dies of {DOOMED}");
    scene.progress(10).await?;
    ensure!(host.is_running(), "the host has died once more");
    // What killed it is gone: an operator's word lets the agent run, and take another plugin.
    host.terminate().await?;
    ensure!(begin(&mut host, &[]).await?, "it dies without the poison");
    host.client().verb(DOOMED, "recover").await?;
    let upgrade = Some(json!({ "plugin": "other" }));
    let upgraded = host.client().call(Method::POST, &format!("/v1/agents/{DOOMED}/upgrade"), upgrade).await?;
    ensure!(upgraded.status == 200, "{}", upgraded.body);
    scene.progress(10).await?;
    jobs::finish(&scene, neighbours).await?;
    ensure!(host.client().reply(DOOMED, "get").await? == "17", "what waited for the agent was lost");
    let outcome = conclude(&scene, vec![], &[&host]).await?;
    println!("a {step} killed the host {deaths} times; {} acknowledged", outcome.acknowledged);
    ensure!(deaths == 3, "the rule is three attempts, it were {deaths}");
    ensure!(outcome.violations.is_empty(), "{}", outcome.violations.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_kills_the_host_is_given_up_and_the_others_run() -> Result<()> {
    a_start_is_given_up("restore", "snapshot").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_kills_the_host_is_given_up_and_the_others_run() -> Result<()> {
    a_start_is_given_up("replay", "journal").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_kills_the_host_is_given_up_and_the_others_run() -> Result<()> {
    a_start_is_given_up("instantiate", "auto").await
}

/// On one file each host takes the agent over from the one that has died of it: the deaths of both count, though each host
/// knows of its own only, and does not own the agent when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_kills_one_host_after_the_other_is_given_up() -> Result<()> {
    let (template, folder) = (Template::make().await?, Folder::new()?);
    let (mut a, mut b) = template.sharers(folder.path(), &[("GODWIT_LEASE_PROFILE", "fast")])?;
    ensure!(begin(&mut a, &[]).await?, "the host died before there was any poison");
    let scene = Arc::new(Scene::new(vec![a.client()], 0));
    a.client().create(DOOMED, "counter").await?;
    scene.journal.record(doomed(1, "add 5", How::Ask).carry_out(&scene.doors, true).await);
    a.terminate().await?;
    let doom = [("GODWIT_POISON", "restore counter-9")];
    for host in [&mut a, &mut b] {
        ensure!(begin(host, &doom).await?, "the host died, and nobody needs {DOOMED}");
    }
    let sending = tokio::spawn({
        let scene = scene.clone();
        async move {
            scene.journal.record(doomed(2, "add 7", How::Send).carry_out(&scene.doors, true).await);
        }
    });
    // Either may find the input first.
    let began = Instant::now();
    while a.is_running() && b.is_running() {
        ensure!(began.elapsed() < SOON, "the poison harms nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut mortal, mut other) = if b.is_running() { (&mut a, &mut b) } else { (&mut b, &mut a) };
    // One comes back when the other has died, and waits until that one's lease has run out.
    let mut deaths = 0;
    loop {
        if let Some(why) = given_up(mortal).await? {
            ensure!(why.contains("died 3 times while it loaded"), "{why}");
            break;
        }
        deaths += 1;
        ensure!(deaths <= DEATHS_MAX, "a start of {DOOMED} killed the hosts {deaths} times");
        if !other.is_running() {
            begin(other, &doom).await?;
        }
        std::mem::swap(&mut mortal, &mut other);
    }
    // The first acceptance may have died with its host.
    for host in [&mut a, &mut b] {
        drop(host.terminate().await);
        ensure!(begin(host, &[]).await?, "it dies without the poison");
    }
    sending.await?;
    a.client().verb(DOOMED, "recover").await?;
    ensure!(a.client().reply(DOOMED, "get").await? == "12", "what waited for the agent was lost");
    println!("a restore killed two hosts {deaths} times");
    // The first death of each is known to nobody else.
    ensure!(
        deaths == 4,
        "they should die twice each, it were {deaths} deaths:\n{}\n{}",
        a.log_text(),
        b.log_text()
    );
    Ok(())
}
