//! The outbox: committed outputs travel to their destinations, in commit order per destination, at least once.
//!
//! One publisher per agent at a time, under the agent's lease. It sends the output's number and the **current** token; the
//! receiver's accept decides (see `RuntimeStore::accept`). An output leaves the outbox only when the receiver has it
//! durably, or visibly as undeliverable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use godwit_core::failpoint;
use godwit_core::id::{AgentId, HostId, InputId};
use godwit_core::identity::{EntityPublicKey, OriginHash};
use godwit_core::input::{DeliveryStamp, Input, Kind, Mode, NewInput, Reach, Source};
use godwit_core::lease::Lease;
use godwit_core::limits::OUTPUT_LIFETIME;
use godwit_core::output::{ReplyRole, StoredOutput, UndeliverableReason};
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
/// Destinations that are enough for one round.
const LANES_ENOUGH: usize = 32;
/// How long one delivery may take.
const DELIVER_MAX: Duration = Duration::from_secs(5);
/// First and longest pause of a destination that did not take its output.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest pause when the host stops: whoever comes back in these moments gets what is his.
const RETRY_HURRIED: Duration = Duration::from_millis(100);

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
        let mut after = 0;
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
                    }
                }
            }
            if is_last || lanes.len() >= LANES_ENOUGH {
                break;
            }
        }
        Ok(lanes)
    }

    /// Sends what was read: destinations side by side, each in order.
    async fn publish_round(&self, publisher: &Publisher, lanes: Lanes, resting: &mut Resting) -> Round {
        let rounds = lanes.into_iter().map(|(destination, lane)| async move {
            let (ends, round) = self.publish_lane(publisher, lane).await;
            (destination, ends, round)
        });
        let mut ends = Vec::new();
        let mut is_stale = false;
        for (destination, ended, round) in futures::future::join_all(rounds).await {
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

    async fn publish_lane(
        &self,
        publisher: &Publisher,
        lane: Vec<StoredOutput>,
    ) -> (Vec<(OutputKey, OutputEnd)>, Round) {
        let mut ends = Vec::new();
        for stored in lane {
            if !publisher.owned.guard.is_held() {
                return (ends, Round::Stale);
            }
            failpoint::hit("outbox.before-send");
            // A publisher that was suspended here sends under a token that may be stale: the receiver refuses it.
            let delivered = self.deliver_output(publisher, &stored).await;
            failpoint::hit("outbox.after-send");
            let key = OutputKey {
                destination: stored.output.destination.clone(),
                generation: stored.generation,
                number: stored.number,
            };
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

    async fn deliver_output(&self, publisher: &Publisher, stored: &StoredOutput) -> Delivered {
        let age_ms = self.now_ms().saturating_sub(stored.committed_at_ms);
        if u128::from(age_ms) > OUTPUT_LIFETIME.as_millis() {
            return Delivered::Never(UndeliverableReason::Expired);
        }
        let input = delivery_of(stored, publisher, self.inner().host, self.now_ms());
        match within(DELIVER_MAX, self.deliver(input)).await {
            Some(delivered) => delivered,
            None => Delivered::Later { reason: "no answer in time".into() },
        }
    }

    /// Hands a delivery to the destination's home.
    pub(crate) async fn deliver(&self, input: NewInput) -> Delivered {
        match self.deliver_here(&input).await {
            Delivered::NotHere => {}
            ended => return ended,
        }
        let agent = input.agent.clone();
        let host = match self.inner().hints.get(&agent) {
            Some(host) => host,
            None => match self.who_is_home(&agent).await {
                Ok(host) => host,
                Err(CallError::NotFound { .. }) => return Delivered::Never(UndeliverableReason::NotFound),
                Err(error) => {
                    return Delivered::Later { reason: error.to_string() };
                }
            },
        };
        let request = PeerRequest::Deliver { input: Box::new(input) };
        match self.ask_peer(host, &request, DELIVER_MAX).await {
            Ok(PeerAnswer::Delivered(Delivered::NotHere)) => {
                self.inner().hints.forget(&agent);
                Delivered::Later { reason: "not there any more".into() }
            }
            Ok(PeerAnswer::Delivered(delivered)) => delivered,
            Ok(PeerAnswer::Malformed { reason } | PeerAnswer::NotNow { reason, .. }) => {
                Delivered::Later { reason }
            }
            Ok(_) => Delivered::Later { reason: "a peer gave another kind of answer".into() },
            Err(error) => {
                self.inner().hints.forget(&agent);
                Delivered::Later { reason: error.to_string() }
            }
        }
    }

    /// Whether an accepted delivery wakes its agent. Whether a request's intent is silent the store has decided.
    async fn may_wake(&self, input: &NewInput) -> bool {
        if !input.placing(&BTreeSet::new()).wakes {
            return false;
        }
        if !matches!(input.input.kind, Kind::PeerRequest { .. }) {
            return true;
        }
        let row = self.inner().store.agent(&input.agent).await;
        // Not known is taken for yes: an agent that is started for nothing parks again.
        row.map_or(true, |row| row.is_none_or(|row| row.waking_inputs > 0))
    }

    /// Accepts a delivery into this store.
    pub(crate) async fn deliver_here(&self, input: &NewInput) -> Delivered {
        let agent = &input.agent;
        if input.check_limits().is_err() {
            return Delivered::Never(UndeliverableReason::Rejected);
        }
        let reach = if self.inner().needs_edges { Reach::Neighbours } else { Reach::Any };
        let input = &NewInput { reach, ..input.clone() };
        match self.inner().store.accept(input.clone(), self.session().incarnation).await {
            Ok(Accepted::New { .. }) => {
                failpoint::hit("outbox.after-accept");
                self.look_at(agent, self.may_wake(input).await).await;
                Delivered::Acknowledged
            }
            Ok(Accepted::Duplicate(_) | Accepted::AlreadyEnded) => Delivered::Acknowledged,
            Err(AcceptError::StalePublisher { highest }) => Delivered::StalePublisher { highest },
            Err(AcceptError::NoEdge { .. }) => Delivered::Never(UndeliverableReason::Forbidden),
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
}

/// The input that an output becomes. Every lower number to the same destination has ended, because outputs are read and
/// sent in order: so its own number is the lowest open one.
fn delivery_of(stored: &StoredOutput, publisher: &Publisher, host: HostId, now_ms: u64) -> NewInput {
    let StoredOutput { agent, generation, number, output, .. } = stored;
    let lease = &publisher.owned.lease;
    let expects_reply = output.reply == ReplyRole::Expected;
    let id = match (&output.reply, &output.correlation) {
        // The end of a request has an id of its own, whichever way it comes.
        (ReplyRole::Given, Some(request)) => InputId::of_reply(&output.destination, request),
        _ => InputId::of_delivery(agent, *generation, &output.destination, *number),
    };
    NewInput {
        agent: output.destination.clone(),
        input: Input {
            id,
            kind: output.kind.clone(),
            source: Source::Peer { agent: agent.clone(), expects_reply },
            content_type: output.content_type.clone(),
            payload: output.payload.clone(),
            headers: output.headers.clone(),
            correlation: output.correlation.clone(),
            accepted_at_ms: now_ms,
        },
        idempotency_key: None,
        mode: Mode::Default,
        is_silent: false,
        supersedes: None,
        traceparent: None,
        delivery: Some(DeliveryStamp {
            origin: agent.clone(),
            generation: *generation,
            number: *number,
            lowest_open: *number,
            token: lease.token,
            host,
            origin_hash: publisher.origin_hash.filter(|_| *generation == lease.generation),
        }),
        // The receiving host knows what it asks for.
        reach: Reach::Any,
    }
}
