//! An input that ends the process whenever it is handled: given up after its attempts, across restarts, and the next one runs.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use godwit_support::cluster::Folder;
use godwit_support::host::Host;
use godwit_support::load::{How, Order};

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
