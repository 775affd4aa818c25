//! The outbox: committed outputs travel to their destinations, in commit order per destination, at least once.
//!
//! One publisher per agent at a time, under the agent's lease. It sends the output's number and the **current** token; the
//! receiver's accept decides (see `RuntimeStore::accept`). An output leaves the outbox only when the receiver has it
//! durably, or visibly as undeliverable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use godwit_core::channel::ChannelMessage;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, HostId};
use godwit_core::identity::{EntityPublicKey, OriginHash};
use godwit_core::input::NewInput;
use godwit_core::lease::Lease;
use godwit_core::output::{Sender, StoredOutput, UndeliverableReason};
use godwit_core::store::{Home, OutputEnd, OutputKey, Page, StoreError};
use godwit_core::time::{sleep, within};

use super::Runtime;
use super::call::CallError;
use super::directory::Owned;
use super::wire::{Delivered, PeerAnswer, PeerRequest};
use resting::{RETRY_FIRST, Resting};
pub(crate) use run::BATCH_INPUTS_MAX;
use run::{Run, batch_of, by_run, is_expired, key_of};

mod accept;
mod resting;
mod run;

/// Outputs read at once.
const PUBLISH_PAGE: usize = 256;
/// Pages that one look at the outbox reads in commit order: as many outputs as are enough for one round.
const PUBLISH_PAGES_MAX: usize = ROUND_ENOUGH / PUBLISH_PAGE;
/// Outputs to one destination in one round.
const LANE_MAX: usize = 128;
/// Outputs that are enough for one round: its reads, transactions and requests cost little beside them.
const ROUND_ENOUGH: usize = 1_024;
/// How long the deliveries of one request may take.
const DELIVER_MAX: Duration = Duration::from_secs(5);
/// Longest pause when the host stops: whoever comes back in these moments gets what is his.
const RETRY_HURRIED: Duration = Duration::from_millis(100);

/// Outputs by destination.
type Lanes = BTreeMap<AgentId, Vec<StoredOutput>>;

/// Who publishes.
struct Publisher {
    owned: Owned,
    /// Which agent of its name it is.
    origin_hash: Option<OriginHash>,
}

/// How a round over one destination went.
enum Round {
    /// Everything that was read has ended.
    Done,
    /// Something waits for a better moment.
    Later,
    /// The lease is another's: publish nothing more.
    Stale,
}

impl Runtime {
    /// Starts publishing an agent's outputs, unless somebody already does or the lease is not held.
    pub(crate) fn publish(&self, agent: &AgentId) {
        let Some(owned) = self.inner().directory.owned(agent) else {
            return;
        };
        if self.inner().directory.begin_publishing(agent) {
            let (runtime, agent) = (self.clone(), agent.clone());
            self.inner().publishers.spawn(async move {
                let guard = owned.guard.clone();
                runtime.publish_all(owned).await;
                runtime.inner().directory.end_publishing(&agent);
                if !guard.is_held() {
                    return;
                }
                // Outputs that committed after the last look and before the end would otherwise wait for the scan.
                let page = Page { after: 0, limit: 1 };
                let waiting = runtime.inner().store.pending_outputs(&agent, page).await;
                if waiting.is_ok_and(|waiting| !waiting.is_empty()) {
                    runtime.inner().rescan.notify_one();
                }
            });
        }
    }

    async fn publish_all(&self, owned: Owned) {
        let origin_hash = match self.inner().store.agent(&owned.lease.agent).await {
            Ok(row) => row.and_then(|row| row.public_key).map(EntityPublicKey::origin_hash),
            Err(error) => {
                tracing::warn!(agent = %owned.lease.agent, %error, "outbox can't be read");
                return;
            }
        };
        let publisher = Publisher { owned, origin_hash };
        let shutdown = self.inner().publishers.shutdown();
        let mut resting = Resting::default();
        let hurry = &self.inner().hurry;
        while publisher.owned.guard.is_held() && !shutdown.is_cancelled() {
            let now = self.inner().clock.boot();
            if hurry.is_cancelled() {
                resting.cut(now + RETRY_HURRIED);
            }
            resting.wake(now);
            let lanes = match self.read_lanes(&publisher.owned.lease.agent, &resting).await {
                Ok(lanes) => lanes,
                Err(error) => {
                    tracing::warn!(agent = %publisher.owned.lease.agent, %error, "outbox can't be read");
                    return;
                }
            };
            if lanes.is_empty() {
                let Some(pause) = resting.pause(self.inner().clock.boot()) else {
                    return;
                };
                // The pause ends early when there is no time left.
                let called = async {
                    if hurry.is_cancelled() { shutdown.cancelled().await } else { hurry.cancelled().await }
                };
                let _ = within(pause, called).await;
            } else if let Round::Stale = self.publish_round(&publisher, lanes, &mut resting).await {
                return;
            }
        }
    }

    /// Pending outputs by destination, in order. Destinations that rest are passed by: what waits for them hides no others.
    async fn read_lanes(&self, agent: &AgentId, resting: &Resting) -> Result<Lanes, StoreError> {
        let store = &self.inner().store;
        let mut lanes = Lanes::new();
        let (mut after, mut kept) = (0, 0);
        for _ in 0..PUBLISH_PAGES_MAX {
            let page = Page { after, limit: PUBLISH_PAGE };
            let outputs = store.pending_outputs(agent, page).await?;
            let is_last = outputs.len() < PUBLISH_PAGE;
            after = outputs.last().map_or(after, |last| last.position);
            for output in outputs {
                let destination = &output.output.destination;
                if resting.holds(destination) {
                    continue;
                }
                let lane = lanes.entry(destination.clone()).or_default();
                if lane.len() < LANE_MAX {
                    lane.push(output);
                    kept += 1;
                }
            }
            if is_last || kept >= ROUND_ENOUGH {
                return Ok(lanes);
            }
        }
        // Most of that was for few destinations: the others are looked for by name.
        lanes.clear();
        for output in store.first_outputs(agent, &resting.held(), (LANE_MAX, ROUND_ENOUGH)).await? {
            lanes.entry(output.output.destination.clone()).or_default().push(output);
        }
        Ok(lanes)
    }

    /// Sends what was read: destinations side by side, each in order.
    async fn publish_round(&self, publisher: &Publisher, lanes: Lanes, resting: &mut Resting) -> Round {
        let mut ends = Vec::new();
        let mut is_stale = false;
        for (destination, ended, round) in self.send_lanes(publisher, lanes).await {
            ends.extend(ended);
            match round {
                Round::Done => resting.forget(&destination),
                Round::Stale => is_stale = true,
                Round::Later => {
                    let [random] = self.inner().clock.random();
                    resting.rest(destination, self.inner().clock.boot(), random);
                }
            }
        }
        if !ends.is_empty() {
            failpoint::hit("outbox.before-end");
            let ended = self.inner().store.end_outputs(&publisher.owned.owner(), &ends).await;
            failpoint::hit("outbox.after-end");
            match ended {
                Ok(()) => {
                    let sent = ends.iter().filter(|(_, end)| matches!(end, OutputEnd::Acknowledged)).count();
                    self.inner().outputs_sent.fetch_add(sent as u64, Ordering::Relaxed);
                }
                Err(StoreError::Fenced { .. }) => {
                    self.fenced(&publisher.owned, "outbox").await;
                    is_stale = true;
                }
                Err(error) => {
                    tracing::warn!(agent = %publisher.owned.lease.agent, %error, "outputs can't be ended");
                    // Sent again in the next round; the receivers know them.
                    sleep(RETRY_FIRST).await;
                }
            }
        }
        if is_stale { Round::Stale } else { Round::Done }
    }

    /// Sends as much of each lane as goes at once. Answers what has ended of each, and how it went.
    async fn send_lanes(
        &self,
        publisher: &Publisher,
        lanes: Lanes,
    ) -> Vec<(AgentId, Vec<(OutputKey, OutputEnd)>, Round)> {
        let now_ms = self.now_ms();
        let sender = self.sender_of(publisher, &lanes).await;
        let mut rounds = Vec::new();
        let mut runs = Vec::new();
        for (destination, lane) in lanes {
            match lane.first() {
                Some(first) if is_expired(first, now_ms) => {
                    let end = OutputEnd::Undeliverable(UndeliverableReason::Expired);
                    rounds.push((destination, vec![(key_of(first), end)], Round::Done));
                }
                _ => runs.push(Run::new(destination, lane, &sender, now_ms)),
            }
        }
        if !publisher.owned.guard.is_held() {
            rounds.extend(runs.into_iter().map(|run| (run.destination, Vec::new(), Round::Stale)));
            return rounds;
        }
        failpoint::hit("outbox.before-send");
        // A publisher that was suspended here sends under a token that may be stale: the receiver refuses it.
        let answers = self.deliver_runs(&runs).await;
        failpoint::hit("outbox.after-send");
        for (run, answers) in runs.into_iter().zip(answers) {
            let (ends, round) = self.after_run(publisher, &run, answers).await;
            rounds.push((run.destination, ends, round));
        }
        rounds
    }

    /// What the outputs of a publisher are sent with. The key is read when something has to be proven.
    async fn sender_of(&self, publisher: &Publisher, lanes: &Lanes) -> Sender {
        let lease = &publisher.owned.lease;
        let must_prove = |stored: &StoredOutput| match stored.output.channel.as_deref() {
            Some(ChannelMessage::Request(request)) => request.token.is_some(),
            _ => false,
        };
        let key = if lanes.values().flatten().any(must_prove) {
            self.inner().store.entity_key(&lease.agent).await.unwrap_or_else(|error| {
                tracing::warn!(agent = %lease.agent, %error, "a request to a channel goes without proof");
                None
            })
        } else {
            None
        };
        Sender {
            generation: lease.generation,
            token: lease.token,
            host: self.inner().host,
            origin_hash: publisher.origin_hash,
            key,
        }
    }

    /// What has ended of a run, by the answers to its outputs in order.
    async fn after_run(
        &self,
        publisher: &Publisher,
        run: &Run,
        answers: Vec<Delivered>,
    ) -> (Vec<(OutputKey, OutputEnd)>, Round) {
        let mut ends = Vec::new();
        for (stored, delivered) in run.outputs.iter().zip(answers) {
            let key = key_of(stored);
            match delivered {
                Delivered::Acknowledged => ends.push((key, OutputEnd::Acknowledged)),
                Delivered::Never(reason) => {
                    // Its end must be durable before a later number tells the receiver to skip it.
                    ends.push((key, OutputEnd::Undeliverable(reason)));
                    return (ends, Round::Done);
                }
                Delivered::StalePublisher { highest } => {
                    let token = publisher.owned.lease.token;
                    tracing::warn!(agent = %publisher.owned.lease.agent, %token, %highest, place = "receiver", "fenced");
                    self.report_stale_publisher(publisher, &key, highest).await;
                    return (ends, self.after_stale(publisher).await);
                }
                Delivered::Later { reason } => {
                    tracing::debug!(agent = %publisher.owned.lease.agent, destination = %key.destination, reason, "later");
                    return (ends, Round::Later);
                }
                Delivered::NotHere => return (ends, Round::Later),
            }
        }
        (ends, Round::Done)
    }

    /// What a publisher does whose token a receiver refuses: it stops if the store says that the lease is another's. If it does
    /// not, the receiver has heard of a token that this store never gave: that is tried again later, and seldom.
    async fn after_stale(&self, publisher: &Publisher) -> Round {
        let Lease { agent, token, .. } = &publisher.owned.lease;
        match self.inner().store.agent(agent).await {
            Ok(Some(row)) if row.home == Home::Here && row.token == *token => Round::Later,
            Ok(_) => {
                self.fenced(&publisher.owned, "outbox").await;
                Round::Stale
            }
            Err(_) => Round::Later,
        }
    }

    async fn report_stale_publisher(
        &self,
        publisher: &Publisher,
        key: &OutputKey,
        highest: godwit_core::id::FencingToken,
    ) {
        let kind = godwit_core::event::EventKind::Fenced;
        let event = godwit_core::event::NewEvent::of_agent(&publisher.owned.lease.agent, kind, self.now_ms())
            .with("place", "receiver")
            .with("token", publisher.owned.lease.token)
            .with("highest", highest)
            .with("destination", &key.destination)
            .with("host", self.inner().host);
        if let Err(error) = self.inner().store.append_events(vec![event]).await {
            tracing::warn!(%error, "fenced event can't be written");
        }
    }

    /// Hands runs to the homes of their destinations, each host's together. Answers for each what came of its outputs, as far
    /// as they were sent.
    async fn deliver_runs(&self, runs: &[Run]) -> Vec<Vec<Delivered>> {
        let mut answers: Vec<Vec<Delivered>> = runs.iter().map(|_| Vec::new()).collect();
        let mut elsewhere: BTreeMap<HostId, Vec<usize>> = BTreeMap::new();
        let mut here = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            match self.inner().hints.get(&run.destination) {
                Some(host) if host != self.inner().host => elsewhere.entry(host).or_default().push(index),
                _ => here.push(index),
            }
        }
        let (tried, mut sent) =
            futures::join!(self.deliver_runs_here(runs, &here), self.send_batches(runs, elsewhere));
        let mut homeless = Vec::new();
        for (index, delivered) in tried {
            match delivered.first() {
                Some(Delivered::NotHere) => homeless.push(index),
                _ => answers[index] = delivered,
            }
        }
        let homes = homeless
            .into_iter()
            .map(|index| async move { (index, self.who_is_home(&runs[index].destination).await) });
        let mut found: BTreeMap<HostId, Vec<usize>> = BTreeMap::new();
        for (index, home) in futures::future::join_all(homes).await {
            match home {
                Ok(host) => found.entry(host).or_default().push(index),
                Err(CallError::NotFound { .. }) => {
                    answers[index] = vec![Delivered::Never(UndeliverableReason::NotFound)];
                }
                Err(error) => answers[index] = vec![Delivered::Later { reason: error.to_string() }],
            }
        }
        sent.extend(self.send_batches(runs, found).await);
        for (index, delivered) in sent {
            answers[index] = delivered;
        }
        answers
    }

    /// Tries runs in this store.
    async fn deliver_runs_here(&self, runs: &[Run], which: &[usize]) -> Vec<(usize, Vec<Delivered>)> {
        if which.is_empty() {
            return Vec::new();
        }
        let (places, inputs): (Vec<usize>, Vec<NewInput>) = batch_of(runs, which).into_iter().unzip();
        let delivered = match within(DELIVER_MAX, self.deliver_here(inputs)).await {
            Some(delivered) => delivered,
            None => places.iter().map(|_| Delivered::Later { reason: "no answer in time".into() }).collect(),
        };
        by_run(which, places, delivered)
    }

    /// Sends runs to hosts, a request to each.
    async fn send_batches(
        &self,
        runs: &[Run],
        batches: BTreeMap<HostId, Vec<usize>>,
    ) -> Vec<(usize, Vec<Delivered>)> {
        let sending = batches.into_iter().map(|(host, which)| async move {
            let (places, inputs): (Vec<usize>, Vec<NewInput>) = batch_of(runs, &which).into_iter().unzip();
            let delivered = self.send_batch(host, inputs).await;
            let answers = by_run(&which, places, delivered);
            for (index, answers) in &answers {
                if answers.contains(&Delivered::NotHere) {
                    self.inner().hints.forget(&runs[*index].destination);
                }
            }
            answers
        });
        futures::future::join_all(sending).await.into_iter().flatten().collect()
    }

    async fn send_batch(&self, host: HostId, inputs: Vec<NewInput>) -> Vec<Delivered> {
        let count = inputs.len();
        let agents: BTreeSet<AgentId> = inputs.iter().map(|input| input.agent.clone()).collect();
        let request = PeerRequest::Deliver { inputs };
        let reason = match self.ask_peer(host, &request, DELIVER_MAX).await {
            Ok(PeerAnswer::Delivered(delivered)) if delivered.len() == count => return delivered,
            Ok(PeerAnswer::Malformed { reason } | PeerAnswer::NotNow { reason, .. }) => reason,
            Ok(_) => "a peer gave another kind of answer".to_owned(),
            Err(error) => {
                for agent in &agents {
                    self.inner().hints.forget(agent);
                }
                error.to_string()
            }
        };
        vec![Delivered::Later { reason }; count]
    }
}
