//! The outbox: committed outputs travel to their destinations, in commit order per destination, at least once.
//!
//! One publisher per agent at a time, under the agent's lease. It sends the output's number and the **current** token; the
//! receiver's accept decides (see `RuntimeStore::accept`). An output leaves the outbox only when the receiver has it
//! durably, or visibly as undeliverable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use godwit_core::channel::{ChannelDelivery, ChannelMessage};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, HostId};
use godwit_core::identity::{EntityPublicKey, OriginHash};
use godwit_core::input::{Kind, NewInput, Reach};
use godwit_core::lease::Lease;
use godwit_core::limits::{FRAME_BYTES_MAX, OUTPUT_LIFETIME};
use godwit_core::output::{Sender, StoredOutput, UndeliverableReason};
use godwit_core::retry::Backoff;
use godwit_core::store::{AcceptError, Accepted, Home, Lifecycle, OutputEnd, OutputKey, Page, StoreError};
use godwit_core::time::{sleep, within};

use super::Runtime;
use super::call::CallError;
use super::directory::Owned;
use super::wire::{Delivered, PeerAnswer, PeerRequest};

/// Outputs read at once.
const PUBLISH_PAGE: usize = 256;
/// Pages that one look at the outbox reads at most.
const PUBLISH_PAGES_MAX: usize = 64;
/// Outputs to one destination in one round.
const LANE_MAX: usize = 128;
/// Outputs that are enough for one round: its reads, transactions and requests cost little beside them.
const ROUND_ENOUGH: usize = 1_024;
/// Inputs of one request, which are accepted in one transaction.
pub(crate) const BATCH_INPUTS_MAX: usize = 512;
/// Payloads and envelopes of one request in bytes: with the rest of it they fit a frame, and one input always does.
const BATCH_BYTES_MAX: usize = 768 * 1024;
/// What an input takes beside its payload and headers: names of 128 bytes, a correlation, a proof.
const ENVELOPE_BYTES: usize = 1_024;
/// How long the deliveries of one request may take.
const DELIVER_MAX: Duration = Duration::from_secs(5);
/// First and longest pause of a destination that did not take its output.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest pause when the host stops: whoever comes back in these moments gets what is his.
const RETRY_HURRIED: Duration = Duration::from_millis(100);

const _: () = assert!(BATCH_BYTES_MAX < FRAME_BYTES_MAX);

/// Outputs by destination.
type Lanes = BTreeMap<AgentId, Vec<StoredOutput>>;

/// Destinations that did not take their outputs, each with its own back-off.
#[derive(Default)]
struct Resting(BTreeMap<AgentId, Rest>);

struct Rest {
    backoff: Backoff,
    /// Boot time of the next try; `None` while it is being tried.
    until: Option<Duration>,
}

impl Resting {
    fn holds(&self, destination: &AgentId) -> bool {
        self.0.get(destination).is_some_and(|rest| rest.until.is_some())
    }

    fn wake(&mut self, now: Duration) {
        for rest in self.0.values_mut() {
            rest.until = rest.until.filter(|until| *until > now);
        }
    }

    fn rest(&mut self, destination: AgentId, now: Duration, random: u8) {
        let new = || Rest { backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), until: None };
        let rest = self.0.entry(destination).or_insert_with(new);
        rest.until = Some(now + rest.backoff.delay(random));
    }

    /// Lets none rest beyond `limit`.
    fn cut(&mut self, limit: Duration) {
        for rest in self.0.values_mut() {
            rest.until = rest.until.map(|until| until.min(limit));
        }
    }

    fn forget(&mut self, destination: &AgentId) {
        self.0.remove(destination);
    }

    /// Time until the first of them is tried again.
    fn pause(&self, now: Duration) -> Option<Duration> {
        let first = self.0.values().filter_map(|rest| rest.until).min()?;
        Some(first.saturating_sub(now).max(Duration::from_millis(1)))
    }
}

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

    /// Pending outputs by destination, in order. Destinations that rest are passed by, so that one that does not answer
    /// hides no other.
    async fn read_lanes(&self, agent: &AgentId, resting: &Resting) -> Result<Lanes, StoreError> {
        let mut lanes = Lanes::new();
        let (mut after, mut kept) = (0, 0);
        for _ in 0..PUBLISH_PAGES_MAX {
            let page = Page { after, limit: PUBLISH_PAGE };
            let outputs = self.inner().store.pending_outputs(agent, page).await?;
            let Some(last) = outputs.last() else { break };
            after = last.position;
            let is_last = outputs.len() < PUBLISH_PAGE;
            for output in outputs {
                let destination = output.output.destination.clone();
                if !resting.holds(&destination) {
                    let lane = lanes.entry(destination).or_default();
                    if lane.len() < LANE_MAX {
                        lane.push(output);
                        kept += 1;
                    }
                }
            }
            if is_last || kept >= ROUND_ENOUGH {
                break;
            }
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

    /// Whether an accepted delivery wakes its agent.
    async fn may_wake(&self, agent: &AgentId, waking: Waking) -> bool {
        match waking {
            Waking::Never => false,
            Waking::Always => true,
            Waking::AsStored => {
                let row = self.inner().store.agent(agent).await;
                // Not known is taken for yes: an agent that is started for nothing parks again.
                row.map_or(true, |row| row.is_none_or(|row| row.waking_inputs > 0))
            }
        }
    }

    /// Accepts deliveries into this store, in order; an answer for each.
    pub(crate) async fn deliver_here(&self, mut inputs: Vec<NewInput>) -> Vec<Delivered> {
        let reach = if self.inner().needs_edges { Reach::Neighbours } else { Reach::Any };
        let mut delivered: Vec<Option<Delivered>> = Vec::with_capacity(inputs.len());
        let mut taken = Vec::with_capacity(inputs.len());
        inputs.retain_mut(|input| {
            input.reach = reach;
            let refused = match self.check_not_held(&input.agent) {
                _ if input.check_limits().is_err() => Some(Delivered::Never(UndeliverableReason::Rejected)),
                held => held.err().map(|held| Delivered::Later { reason: held.to_string() }),
            };
            let is_taken = refused.is_none();
            if is_taken {
                taken.push((input.agent.clone(), Waking::of(input)));
            }
            delivered.push(refused);
            is_taken
        });
        let accepted = self.inner().store.accept_deliveries(inputs, self.session().incarnation).await;
        failpoint::hit("outbox.after-accept");
        let mut waking: BTreeMap<&AgentId, bool> = BTreeMap::new();
        let mut answering: BTreeSet<&AgentId> = BTreeSet::new();
        let places = delivered.iter_mut().filter(|place| place.is_none());
        for ((place, (agent, may_wake)), accepted) in places.zip(&taken).zip(accepted) {
            match &accepted {
                Ok(Accepted::New { .. }) => {
                    let wakes = waking.entry(agent).or_default();
                    *wakes = *wakes || self.may_wake(agent, *may_wake).await;
                }
                Ok(Accepted::Answered) => {
                    answering.insert(agent);
                }
                _ => {}
            }
            *place = Some(delivered_as(agent, accepted));
        }
        for (agent, wakes) in waking {
            self.look_at(agent, wakes).await;
        }
        for agent in answering {
            self.publish(agent);
            if self.inner().directory.owned(agent).is_none() {
                self.inner().rescan.notify_one();
            }
        }
        let nothing = || Delivered::Later { reason: "it was not looked at".into() };
        delivered.into_iter().map(|delivered| delivered.unwrap_or_else(nothing)).collect()
    }
}

/// Whether an agent is woken for a delivery, when it is accepted.
#[derive(Clone, Copy)]
enum Waking {
    Never,
    Always,
    /// Whether a request's intent is silent the store has decided.
    AsStored,
}

impl Waking {
    fn of(input: &NewInput) -> Self {
        match input.input.kind {
            _ if !input.placing(&BTreeSet::new()).wakes => Self::Never,
            Kind::PeerRequest { .. } => Self::AsStored,
            _ => Self::Always,
        }
    }
}

/// What acceptance means to whoever delivers.
fn delivered_as(agent: &AgentId, accepted: Result<Accepted, AcceptError>) -> Delivered {
    match accepted {
        Ok(Accepted::New { .. } | Accepted::Duplicate(_) | Accepted::AlreadyEnded | Accepted::Answered) => {
            Delivered::Acknowledged
        }
        Err(AcceptError::StalePublisher { highest }) => Delivered::StalePublisher { highest },
        Err(AcceptError::NoEdge { .. }) => Delivered::Never(UndeliverableReason::Forbidden),
        Err(AcceptError::NotSubscribed { .. }) => Delivered::Never(UndeliverableReason::NotSubscribed),
        Err(error @ AcceptError::Namesake { .. }) => {
            tracing::warn!(%agent, %error, "delivery refused");
            Delivered::Never(UndeliverableReason::Namesake)
        }
        Err(AcceptError::Store(StoreError::NoAgent)) => Delivered::NotHere,
        Err(AcceptError::Store(StoreError::Lifecycle { state: Lifecycle::Deleted })) => {
            Delivered::Never(UndeliverableReason::Deleted)
        }
        Err(AcceptError::Store(StoreError::Lifecycle {
            state: Lifecycle::Retiring | Lifecycle::Retired,
        })) => Delivered::Never(UndeliverableReason::Retired),
        // Where it went from here may be where it has left long since: a hint or the peers know better than the tombstone.
        Err(AcceptError::Store(StoreError::NotHome { home: Home::Moved(_) })) => Delivered::NotHere,
        Err(AcceptError::Store(StoreError::NotHome { .. })) => {
            Delivered::Later { reason: "the agent is moving".into() }
        }
        Err(error) => Delivered::Later { reason: error.to_string() },
    }
}

/// Outputs of one generation to one destination, and the inputs that they become, in order.
struct Run {
    destination: AgentId,
    outputs: Vec<StoredOutput>,
    inputs: Vec<NewInput>,
}

impl Run {
    /// The first outputs of a lane that may travel together: nothing of a generation goes before all of the one before has
    /// ended, and what is too old is looked at by itself. Every lower number has ended, because outputs are read in order.
    fn new(destination: AgentId, mut lane: Vec<StoredOutput>, sender: &Sender, now_ms: u64) -> Self {
        let first = lane.first().map_or((0, sender.generation), |first| (first.number, first.generation));
        let (lowest, generation) = first;
        let fits = |stored: &StoredOutput| stored.generation == generation && !is_expired(stored, now_ms);
        let length = lane.iter().take_while(|stored| fits(stored)).count();
        lane.truncate(length);
        let inputs = lane.iter().map(|stored| stored.delivery(sender, lowest, now_ms)).collect();
        Self { destination, outputs: lane, inputs }
    }
}

fn is_expired(stored: &StoredOutput, now_ms: u64) -> bool {
    let age_ms = now_ms.saturating_sub(stored.committed_at_ms);
    u128::from(age_ms) > OUTPUT_LIFETIME.as_millis()
}

fn key_of(stored: &StoredOutput) -> OutputKey {
    OutputKey {
        destination: stored.output.destination.clone(),
        generation: stored.generation,
        number: stored.number,
    }
}

/// What of some runs goes at once: the first of each, then the second of each, until it is enough. Each with its run.
fn batch_of(runs: &[Run], which: &[usize]) -> Vec<(usize, NewInput)> {
    let longest = which.iter().map(|index| runs[*index].inputs.len()).max().unwrap_or(0);
    let mut batch = Vec::new();
    let mut bytes = 0;
    for depth in 0..longest {
        for index in which {
            let Some(input) = runs[*index].inputs.get(depth) else { continue };
            bytes += weight(input);
            if !batch.is_empty() && (bytes > BATCH_BYTES_MAX || batch.len() >= BATCH_INPUTS_MAX) {
                return by_destination(batch);
            }
            batch.push((*index, input));
        }
    }
    by_destination(batch)
}

/// Those of each run together: a store looks at an agent once then.
fn by_destination(mut batch: Vec<(usize, &NewInput)>) -> Vec<(usize, NewInput)> {
    batch.sort_by_key(|(index, _)| *index);
    batch.into_iter().map(|(index, input)| (index, input.clone())).collect()
}

/// About how many bytes of a frame an input takes.
fn weight(input: &NewInput) -> usize {
    let token = |delivery: &ChannelDelivery| match &delivery.message {
        ChannelMessage::Request(request) => request.token.as_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    let channel = input.delivery.as_ref().and_then(|stamp| stamp.channel.as_deref()).map_or(0, token);
    let bytes = usize::try_from(input.input.bytes()).unwrap_or(usize::MAX);
    bytes.saturating_add(channel + ENVELOPE_BYTES)
}

/// Answers to a batch, by run. Runs of which nothing was in it have none: they go in the next round.
fn by_run(which: &[usize], places: Vec<usize>, delivered: Vec<Delivered>) -> Vec<(usize, Vec<Delivered>)> {
    let mut answers: BTreeMap<usize, Vec<Delivered>> =
        which.iter().map(|index| (*index, Vec::new())).collect();
    for (index, delivered) in places.into_iter().zip(delivered) {
        answers.entry(index).or_default().push(delivered);
    }
    answers.into_iter().collect()
}
