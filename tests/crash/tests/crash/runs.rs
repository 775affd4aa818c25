//! One run: a host with one failpoint armed dies, comes back, and is judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, is_abort};
use godwit_support::random::Random;
use godwit_support::store_file::damage_newest_snapshot;
use reqwest::Method;

use crate::jobs::{self, Job};
use crate::journeys::{Journey, Way};
use crate::pairs;
use crate::scene::{PLUGINS, SOON, Scene, Template, create_agents, newcomer, question};
use crate::sign_in;

/// Operations after the death before a run may end.
pub(crate) const AFTERWARDS: usize = 8;
/// Clients of runs whose failpoint is not on their way.
pub(crate) const BUSY: &[Job] = &[Job::Count, Job::Crowd, Job::Pay, Job::Relay];

/// One failpoint and one seed.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) failpoint: String,
    pub(crate) seed: u64,
    pub(crate) journey: Journey,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// From the start of a process after a death to its ready line.
    pub(crate) recoveries: Vec<Duration>,
    /// Operations that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Operations that had to be repeated: their clients did not know.
    pub(crate) repeated: usize,
    pub(crate) violations: Vec<String>,
}

impl Cell {
    /// As `GODWIT_FAILPOINTS` takes it; the hit follows from the seed.
    pub(crate) fn armed(&self) -> String {
        let hit = 1 + Random::from_seed(self.seed).below(self.journey.hits);
        format!("{}=abort:{hit}", self.failpoint)
    }

    /// Runs it. `broken` are environment variables of the armed life, `always` of every one.
    pub(crate) async fn run(
        &self,
        template: &Template,
        broken: &[(&str, &str)],
        always: &[(&str, &str)],
    ) -> Result<Outcome> {
        let folder = Folder::new()?;
        let failpoint = self.armed();
        let mut armed = vec![("GODWIT_FAILPOINTS", failpoint.as_str())];
        armed.extend(broken);
        match self.journey.way {
            Way::Work(jobs) => {
                self.at_work(template.host(folder.path(), "a", always)?, jobs, &armed, false).await
            }
            Way::End => self.at_work(template.host(folder.path(), "a", always)?, BUSY, &armed, true).await,
            Way::Restart => self.restart(template.host(folder.path(), "a", always)?, &armed).await,
            Way::Reload => self.reload(template.host(folder.path(), "a", always)?, &armed).await,
            Way::Recover => self.recover(template.host(folder.path(), "a", always)?, &armed).await,
            Way::FirstStart => self.first_start(newcomer(folder.path())?, &armed).await,
            Way::TakeOver => pairs::take_over(self, template, &folder, &armed).await,
            Way::Outlive => pairs::outlive(self, template, &folder, &armed).await,
            Way::Import => pairs::import(self, template, &folder, &armed).await,
            Way::StandBy => pairs::stand_by(self, template, &folder, &armed).await,
            Way::SignIn => sign_in::run(self, template, &folder, &armed).await,
            Way::Move(stores) => pairs::migrate(self, stores, template, &folder, &armed).await,
        }
    }

    /// Clients work until the host dies, and go on afterwards.
    async fn at_work(
        &self,
        mut host: Host,
        jobs: &[Job],
        armed: &[(&str, &str)],
        is_ended: bool,
    ) -> Result<Outcome> {
        let is_started = begin(&mut host, armed).await?;
        let mut recoveries = Vec::new();
        if !is_started {
            // The start itself writes, so the hit may come before anybody is served.
            recoveries.push(start(&mut host, &[]).await?);
        }
        let scene = Arc::new(Scene::new(vec![host.client()], self.seed));
        let clients = jobs::start(&scene, jobs);
        if is_started {
            if is_ended {
                scene.progress(AFTERWARDS).await?;
                // It dies on the way, so there is no good exit code.
                drop(host.process()?.terminate().await);
            }
            host.died(SOON).await.with_context(|| format!("{} was not reached", self.failpoint))?;
            recoveries.push(start(&mut host, &[]).await?);
        }
        scene.progress(AFTERWARDS).await?;
        jobs::finish(&scene, clients).await?;
        conclude(&scene, recoveries, &[&host]).await
    }

    /// The host is killed at work, and dies in the start after it.
    async fn restart(&self, mut host: Host, armed: &[(&str, &str)]) -> Result<Outcome> {
        start(&mut host, &[]).await?;
        let scene = Arc::new(Scene::new(vec![host.client()], self.seed));
        let clients = jobs::start(&scene, BUSY);
        scene.progress(AFTERWARDS * 3).await?;
        host.kill().await?;
        host.dies_at_start(armed).await.with_context(|| format!("{} was not reached", self.failpoint))?;
        let recovery = start(&mut host, &[]).await?;
        scene.progress(AFTERWARDS).await?;
        jobs::finish(&scene, clients).await?;
        conclude(&scene, vec![recovery], &[&host]).await
    }

    /// The host dies while it loads an agent that has state, which makes that one a suspect, and again in the life after that.
    async fn reload(&self, mut host: Host, armed: &[(&str, &str)]) -> Result<Outcome> {
        start(&mut host, &[]).await?;
        let scene = Arc::new(Scene::new(vec![host.client()], self.seed));
        let clients = jobs::start(&scene, BUSY);
        for agent in ["counter-0", "ledger-0", "ledger-1", "ledger-2", "relay-0", "sink"] {
            let asked = host.client().ask(agent, question(agent), None).await;
            ensure!(asked.answer().is_some(), "{agent} has no state: {asked:?}");
        }
        scene.progress(AFTERWARDS).await?;
        host.kill().await?;
        let loading = format!("load.after-noted=abort:{}", 1 + self.seed % 4);
        if begin(&mut host, &[("GODWIT_FAILPOINTS", &loading)]).await? {
            host.died(SOON).await.context("nobody was loaded")?;
        }
        if begin(&mut host, armed).await? {
            host.died(SOON).await.with_context(|| format!("{} was not reached", self.failpoint))?;
        }
        let recovery = start(&mut host, &[]).await?;
        scene.progress(AFTERWARDS).await?;
        jobs::finish(&scene, clients).await?;
        conclude(&scene, vec![recovery], &[&host]).await
    }

    /// What comes out of the older snapshot is judged as if nothing had been damaged.
    async fn recover(&self, mut host: Host, armed: &[(&str, &str)]) -> Result<Outcome> {
        const PATIENT: &str = "counter-0";
        start(&mut host, &[]).await?;
        let scene = Arc::new(Scene::new(vec![host.client()], self.seed));
        let clients = jobs::start(&scene, BUSY);
        scene.progress(AFTERWARDS).await?;
        // A turn at least, so that the checkpoint is another snapshot than the first boundary's.
        host.client().reply(PATIENT, question(PATIENT)).await?;
        host.client().verb(PATIENT, "checkpoint").await?;
        scene.progress(AFTERWARDS * 2).await?;
        jobs::finish(&scene, clients).await?;
        host.client().settled(PATIENT, SOON).await?;
        host.kill().await?;
        damage_newest_snapshot(&host.ready().store_path(), PATIENT)?;
        start(&mut host, armed).await?;
        let refused = host.client().ask(PATIENT, "get", None).await;
        ensure!(refused.answer().is_none(), "it answers from damaged state: {refused:?}");
        // The answer dies with the host.
        drop(recovered(&host, PATIENT).await);
        host.died(SOON).await.with_context(|| format!("{} was not reached", self.failpoint))?;
        let recovery = start(&mut host, &[]).await?;
        recovered(&host, PATIENT).await?;
        conclude(&scene.at(vec![host.client()]), vec![recovery], &[&host]).await
    }

    async fn first_start(&self, mut host: Host, armed: &[(&str, &str)]) -> Result<Outcome> {
        host.dies_at_start(armed).await.with_context(|| format!("{} was not reached", self.failpoint))?;
        let recovery = start(&mut host, &[]).await?;
        let door = host.client();
        for plugin in PLUGINS {
            door.load_plugin(&binaries::plugin(plugin)?).await?;
        }
        door.load_plugin(&binaries::test_guest("hostile")?).await?;
        create_agents(&door).await?;
        let scene = Arc::new(Scene::new(vec![door], self.seed));
        let clients = jobs::start(&scene, BUSY);
        scene.progress(AFTERWARDS).await?;
        jobs::finish(&scene, clients).await?;
        conclude(&scene, vec![recovery], &[&host]).await
    }
}

/// Recovers an agent in the first way that the host names; without accepting another state.
async fn recovered(host: &Host, agent: &str) -> Result<()> {
    let mut query = String::new();
    for _ in 0..2 {
        let path = format!("/v1/agents/{agent}/recover{query}");
        let reply = host.client().call(Method::POST, &path, None).await?;
        if reply.status == 200 {
            return Ok(());
        }
        let way = &reply.body["ways"][0];
        ensure!(way["accept_state"] == false, "nothing leads to the head: {}", reply.body);
        query = way["from"].as_str().map_or(String::new(), |from| format!("?from={from}"));
    }
    bail!("{agent} is not recovered as the host said")
}

/// Starts a host that may die at once. Answers whether it got ready.
pub(crate) async fn begin(host: &mut Host, armed: &[(&str, &str)]) -> Result<bool> {
    match start(host, armed).await {
        Ok(_) => Ok(true),
        Err(error) if is_abort(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a host and answers how long it took to get ready.
pub(crate) async fn start(host: &mut Host, variables: &[(&str, &str)]) -> Result<Duration> {
    start_with(host, &[], variables).await
}

/// As `start`, with more arguments.
pub(crate) async fn start_with(
    host: &mut Host,
    more: &[&str],
    variables: &[(&str, &str)],
) -> Result<Duration> {
    let began = Instant::now();
    host.start_with(more, variables).await?;
    Ok(began.elapsed())
}

/// Judges a run that is over; hosts on one file are given once.
pub(crate) async fn conclude(scene: &Scene, recoveries: Vec<Duration>, hosts: &[&Host]) -> Result<Outcome> {
    let files: Vec<_> = hosts.iter().map(|host| host.ready().store_path()).collect();
    let violations = scene.verdict(&files).await?;
    let operations = scene.journal.operations();
    let acknowledged = scene.journal.acknowledged();
    ensure!(acknowledged >= AFTERWARDS, "a run with {acknowledged} acknowledged operations shows nothing");
    let repeated = operations.iter().filter(|operation| operation.fates.len() > 1).count();
    Ok(Outcome { recoveries, acknowledged, repeated, violations })
}

/// A number that the caller of the suite may give.
pub(crate) fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is no number: {text}")),
        Err(_) => Ok(default),
    }
}
