//! What clients do: each job is one client that works until the run is over, and remembers what it was told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::fate::{End, Fate};
use godwit_support::journal::Operation;
use godwit_support::judge::plain;
use godwit_support::load::{How, Order};
use godwit_support::random::Random;
use godwit_support::wait::until;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::scene::{LEDGERS, SOON, Scene, question};

mod errands;

/// A client's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Adds to counters: asks and sends.
    Count,
    /// As `Count`, all to one agent, so that asks meet a queue.
    Crowd,
    /// Moves money between ledgers.
    Pay,
    /// Has a relay send numbers to the sink.
    Relay,
    /// Turns that fail once, or for good; dead letters get another chance.
    Fail,
    /// Sets timers.
    Tick,
    /// Creates agents and uses them.
    Create,
    /// Creates agents that break.
    Break,
    /// Creates agents that fail to begin, twice.
    Stumble,
    /// Checkpoints a counter.
    Checkpoint,
    /// Uses the lifecycle verbs between additions.
    Verbs,
    /// Interrupts turns that would not end.
    Interrupt,
    /// Loads components and removes every other one.
    Upload,
    /// Gives a peer one address after the other.
    Peers,
    /// Writes much, so that the log is moved back into the database.
    Bulk,
    /// Checkpoints an agent whose state is too large for one transaction.
    Large,
    /// Has an agent ask another, and wait for its reply.
    Request,
    /// Has an agent ask a web server that counts.
    Fetch,
    /// Gives an agent other plugins.
    Change,
    /// Makes backups, and looks into them.
    BackUp,
    /// Applies one roster after the other.
    Apply,
    /// Adds to counters, each time to another one.
    Spread,
}

/// The name of a counter of `Job::Spread`.
pub(crate) fn spread(number: u64) -> String {
    format!("counter-spread-{number}")
}

/// Starts one client for each job.
pub(crate) fn start(scene: &Arc<Scene>, jobs: &[Job]) -> JoinSet<Result<()>> {
    let mut clients = JoinSet::new();
    for (number, job) in jobs.iter().enumerate() {
        let worker = Worker::new(scene.clone(), number);
        clients.spawn(worker.work(*job));
    }
    clients
}

/// Waits until the clients have ended what they do.
pub(crate) async fn finish(scene: &Scene, mut clients: JoinSet<Result<()>>) -> Result<()> {
    scene.end();
    let all = async {
        while let Some(client) = clients.join_next().await {
            client.context("a client panicked")??;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(SOON * 3, all).await {
        Ok(ended) => ended,
        Err(_) => bail!("a client waits for ever"),
    }
}

/// Words that make a state of three pieces: digits are packed into half their size.
const LARGE_WORDS: u64 = 11;

struct Worker {
    scene: Arc<Scene>,
    number: usize,
    index: u64,
    random: Random,
    /// Agents in whose inboxes something may wait for company.
    roused_last: BTreeSet<String>,
}

impl Worker {
    fn new(scene: Arc<Scene>, number: usize) -> Self {
        let random = Random::from_seed(scene.seed.wrapping_mul(31).wrapping_add(number as u64));
        Self { scene, number, index: 0, random, roused_last: BTreeSet::new() }
    }

    async fn work(mut self, job: Job) -> Result<()> {
        match job {
            Job::Request => return self.request().await,
            Job::Fetch => return self.fetch().await,
            Job::Change => return self.change().await,
            Job::BackUp => return self.back_up().await,
            Job::Apply => return self.apply().await,
            _ => {}
        }
        while !self.scene.is_over() {
            self.index += 1;
            match job {
                Job::Count => self.count(self.number % 2).await,
                Job::Crowd => self.count(0).await,
                Job::Spread => self.spread().await,
                Job::Pay => self.pay().await,
                Job::Relay => self.relay().await,
                Job::Fail => self.fail().await?,
                Job::Tick => self.tick().await,
                Job::Create => self.create().await?,
                Job::Break => self.make_broken().await?,
                Job::Stumble => self.stumble().await?,
                Job::Checkpoint => self.checkpoint("counter-0").await?,
                Job::Verbs => self.verbs().await?,
                Job::Interrupt => self.interrupt().await?,
                Job::Upload => self.upload().await?,
                Job::Peers => self.peers().await?,
                Job::Bulk => self.bulk().await,
                Job::Large => self.large().await?,
                Job::Request | Job::Fetch | Job::Change | Job::BackUp | Job::Apply => {}
            }
        }
        // What was enqueued runs with what comes last.
        for agent in std::mem::take(&mut self.roused_last) {
            self.index += 1;
            self.submit(&agent, question(&agent).into(), How::Ask).await;
        }
        self.index += 1;
        match job {
            // Nothing fires when all should be quiet.
            Job::Tick => drop(self.submit("ticker-0", "stop".into(), How::Ask).await),
            // What was accepted while it rested must still run.
            Job::Verbs => self.verb("verbs-0", "resume").await?,
            _ => {}
        }
        Ok(())
    }

    fn door(&self) -> &Client {
        &self.scene.doors[self.number % self.scene.doors.len()]
    }

    /// One of the doors.
    fn any(&mut self, agent: &str) -> How {
        match self.random.below(5) {
            0 | 1 => How::Ask,
            2 | 3 => How::Send,
            _ => {
                self.roused_last.insert(agent.to_owned());
                How::Enqueue
            }
        }
    }

    /// Submits until the fate is known, and writes it down.
    async fn submit(&self, agent: &str, payload: String, how: How) -> Operation {
        let key = format!("{}-{}", self.number, self.index);
        let (client, index, agent) = (self.number, self.index, agent.to_owned());
        let order = Order { client, index, agent, key, payload, how };
        let operation = order.carry_out(&self.scene.doors, true).await;
        self.scene.journal.record(operation.clone());
        operation
    }

    async fn count(&mut self, counter: usize) {
        let agent = format!("counter-{counter}");
        let (how, step) = (self.any(&agent), 1 + self.random.below(9));
        self.submit(&agent, format!("add {step}"), how).await;
    }

    async fn spread(&mut self) {
        let agent = spread(self.random.below(self.scene.spread.max(1)));
        let (how, step) = (self.any(&agent), 1 + self.random.below(9));
        self.submit(&agent, format!("add {step}"), how).await;
    }

    async fn pay(&mut self) {
        let from = self.random.below(LEDGERS);
        let to = (from + 1 + self.random.below(LEDGERS - 1)) % LEDGERS;
        let amount = 1 + self.random.below(200);
        let transfer = json!({ "transfer": { "to": format!("ledger-{to}"), "amount": amount } });
        let agent = format!("ledger-{from}");
        let how = self.any(&agent);
        self.submit(&agent, transfer.to_string(), how).await;
    }

    async fn relay(&mut self) {
        let forward = json!({ "to": "sink", "payload": format!("add {}", self.index) });
        let how = self.any("relay-0");
        self.submit("relay-0", forward.to_string(), how).await;
    }

    async fn fail(&mut self) -> Result<()> {
        let agent = "hostile-0";
        match self.index % 4 {
            0 => drop(self.submit(agent, format!("note {}", self.index), How::Send).await),
            1 => drop(self.submit(agent, "retry 1".into(), How::Ask).await),
            2 => {
                let failed = self.submit(agent, "fatal no".into(), How::Ask).await;
                if let Some(Fate::Accepted(answer)) = failed.fates.last()
                    && matches!(answer.end, End::AgentError(_) | End::AgentFault(_))
                {
                    self.scene.facts().redriven.insert(plain(&answer.input_id));
                    let path = format!("/v1/agents/{agent}/dead-letters/{}/retry", answer.input_id);
                    // Refused when it has ended again meanwhile: this call, repeated, may have been heard before.
                    self.call(Method::POST, &path, None, &[409]).await?;
                }
            }
            _ => drop(self.submit(agent, "turns".into(), How::Ask).await),
        }
        Ok(())
    }

    async fn tick(&mut self) {
        let delay_ms = self.random.below(8);
        self.submit("ticker-0", format!("once {delay_ms}"), How::Ask).await;
        // So that most fire before they are replaced.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    async fn create(&mut self) -> Result<()> {
        let agent = format!("made-{}-{}", self.number, self.index);
        self.door().create(&agent, "counter").await?;
        self.scene.facts().created.insert(agent.clone());
        self.submit(&agent, "add 1".into(), How::Ask).await;
        Ok(())
    }

    async fn make_broken(&mut self) -> Result<()> {
        let agent = format!("broken-{}-{}", self.number, self.index);
        self.scene.facts().breakable.insert(agent.clone());
        let spec = json!({ "plugin": "hostile", "config": { "behave": "fatal no" } });
        self.call(Method::PUT, &format!("/v1/agents/{agent}"), Some(spec), &[]).await?;
        self.scene.facts().created.insert(agent.clone());
        self.submit(&agent, "echo x".into(), How::Send).await;
        Ok(())
    }

    async fn stumble(&mut self) -> Result<()> {
        let agent = format!("hostile-made-{}-{}", self.number, self.index);
        let spec = json!({ "plugin": "hostile", "config": { "behave": "retry 2" } });
        self.call(Method::PUT, &format!("/v1/agents/{agent}"), Some(spec), &[]).await?;
        self.scene.facts().created.insert(agent.clone());
        self.submit(&agent, "echo x".into(), How::Ask).await;
        Ok(())
    }

    async fn checkpoint(&self, agent: &str) -> Result<()> {
        let path = format!("/v1/agents/{agent}/checkpoint");
        let body = self.call(Method::POST, &path, None, &[]).await?;
        let revision = body["revision"].as_str().and_then(|text| text.parse().ok());
        let revision: u64 = revision.with_context(|| format!("a checkpoint of no revision: {body}"))?;
        let mut facts = self.scene.facts();
        let highest = facts.checkpoints.entry(agent.into()).or_default();
        *highest = revision.max(*highest);
        Ok(())
    }

    /// Each verb in turn, and an addition after each. Nobody else uses the agent, so it is known which ones are refused: a
    /// retired agent takes no input, a paused one runs none.
    async fn verbs(&mut self) -> Result<()> {
        const VERBS: &[&str] = &["pause", "resume", "recycle", "respawn", "retire", "resume", "reset"];
        let verb = VERBS[self.index as usize % VERBS.len()];
        self.verb("verbs-0", verb).await?;
        if verb == "reset" {
            self.scene.facts().resets.insert("verbs-0".into());
        }
        if verb != "retire" {
            self.submit("verbs-0", "add 1".into(), How::Send).await;
        }
        Ok(())
    }

    /// Repeats a verb until it is done. One that was done by a call whose answer got lost may be illegal now.
    async fn verb(&self, agent: &str, verb: &str) -> Result<()> {
        self.call(Method::POST, &format!("/v1/agents/{agent}/{verb}"), None, &[409]).await.map(drop)
    }

    async fn interrupt(&mut self) -> Result<()> {
        let agent = "hostile-1";
        self.submit(agent, "loop".into(), How::Send).await;
        // A moment for the turn to begin; one that has not is interrupted as well, or not at all.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.verb(agent, "interrupt").await
    }

    async fn upload(&mut self) -> Result<()> {
        let name = format!("variant-{}-{}", self.number, self.index);
        let component = variant(&name)?;
        let upload = || async { self.door().upload(component.clone(), Some(&name)).await.map(Some) };
        let loaded = until("an upload", SOON, upload).await?;
        let plugin = loaded.map_err(|problem| anyhow::anyhow!("upload: {}", problem.body))?;
        let digest = plugin["digest"].as_str().context("a plugin has a digest")?.to_owned();
        self.scene.facts().plugins.insert(digest.clone(), true);
        if self.index.is_multiple_of(2) {
            return Ok(());
        }
        self.scene.facts().plugins.remove(&digest);
        self.call(Method::DELETE, &format!("/v1/plugins/{digest}"), None, &[404]).await?;
        self.scene.facts().plugins.insert(digest, false);
        Ok(())
    }

    async fn peers(&mut self) -> Result<()> {
        // Any valid key will do: nobody is there.
        const NOBODY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let address = format!("127.0.0.1:{}", 1 + self.index % 1_000);
        self.scene.facts().peers.entry(NOBODY.into()).or_default().push(address.clone());
        let peer = json!({ "peer": format!("{NOBODY}@{address}") });
        self.call(Method::POST, "/v1/peers", Some(peer), &[]).await?;
        self.scene.facts().peers.insert(NOBODY.into(), vec![address]);
        Ok(())
    }

    async fn bulk(&mut self) {
        let text = self.hex_digits("note ", 400_000);
        self.submit("hostile-0", text, How::Ask).await;
    }

    /// Words that no packing makes small, and then a checkpoint after each note.
    async fn large(&mut self) -> Result<()> {
        let agent = "hostile-0";
        let is_word = self.index <= LARGE_WORDS;
        let text =
            self.hex_digits(if is_word { "word " } else { "note " }, if is_word { 400_000 } else { 100 });
        self.submit(agent, text, How::Ask).await;
        if is_word { Ok(()) } else { self.checkpoint(agent).await }
    }

    /// Random digits behind a word, so many bytes in all.
    fn hex_digits(&mut self, word: &str, bytes: usize) -> String {
        let mut text = word.to_owned();
        while text.len() < bytes {
            text += &format!("{:016x}", self.random.draw());
        }
        text
    }

    /// Calls until there is an answer that is a success, or one of the statuses that are as good.
    async fn call(&self, method: Method, path: &str, body: Option<Value>, as_good: &[u16]) -> Result<Value> {
        let look = || async {
            let reply = self.door().call(method.clone(), path, body.clone()).await?;
            let is_good = (200..300).contains(&reply.status) || as_good.contains(&reply.status);
            if !is_good {
                // A pause, so that a host that is not ready is not asked too often.
                tokio::time::sleep(Duration::from_millis(5)).await;
                bail!("{} {}", reply.status, reply.body);
            }
            Ok(Some(reply.body))
        };
        until(&format!("{method} {path}"), SOON, look).await
    }
}

/// The counter with a section of its own, so that it has another digest.
pub(crate) fn variant(name: &str) -> Result<Vec<u8>> {
    let mut component = std::fs::read(binaries::plugin("counter")?)?;
    let short = |length: usize| u8::try_from(length).context("a short name");
    // A custom section: id 0, size, then its name, counted; all sizes are below 128 and so one byte each.
    component.extend([0, short(name.len() + 1)?, short(name.len())?]);
    component.extend(name.bytes());
    Ok(component)
}
