//! The outbox: committed outputs travel to their destinations, in commit order per destination, at least once.
//!
//! One publisher per agent at a time, under the agent's lease. It sends the output's number and the **current** token; the
//! receiver's accept decides (see `RuntimeStore::accept`). An output leaves the outbox only when the receiver has it
//! durably, or visibly as undeliverable.
//!
//! What is for destinations on one host goes in few requests at once, and is ended when those are answered. Meanwhile the others
//! get what is for them: no host waits for another one, and no destination is in two requests at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use godwit_core::channel::ChannelMessage;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, HostId};
use godwit_core::identity::SignedStatement;
use godwit_core::input::NewInput;
use godwit_core::lease::Lease;
use godwit_core::limits::PAGE_MAX;
use godwit_core::output::{Sender, StoredOutput, UndeliverableReason};
use godwit_core::store::{Home, OutputEnd, OutputKey, Page, StoreError};
use godwit_core::time::{sleep, within};
use tokio::sync::Notify;

use super::Runtime;
use super::call::CallError;
use super::directory::Owned;
use super::wire::{Delivered, PeerAnswer, PeerRequest};
use destinations::{Destinations, RETRY_FIRST, Way};
pub(crate) use run::BATCH_INPUTS_MAX;
use run::{Run, by_request, by_run, key_of};
pub(crate) use sender::Credentials;

mod accept;
mod destinations;
mod run;
mod sender;

/// Outputs that are enough for one round: its reads, transactions and requests cost little beside them.
const ROUND_ENOUGH: usize = PAGE_MAX;
/// An outbox with fewer pending outputs is short: one look reads all of it.
const SHORT: usize = ROUND_ENOUGH / 4;
/// Outputs to one destination in one look at a long outbox. Many for few destinations cost both stores less than few for many; but
/// while somebody takes nothing, few: he must not stand before the others.
const LANE_MAX: usize = 128;
const LANE_IN_DOUBT: usize = 8;
/// Pause before a look for new outputs while others are on their way: most answers come sooner, and are followed by a look.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// How long the deliveries of one request may take.
const DELIVER_MAX: Duration = Duration::from_secs(5);
/// Longest pause when the host stops: whoever comes back in these moments gets what is his. So long a full round has to itself.
const RETRY_HURRIED: Duration = Duration::from_millis(100);

/// Outputs by destination.
type Lanes = BTreeMap<AgentId, Vec<StoredOutput>>;

/// Who publishes.
struct Publisher {
    owned: Owned,
    credentials: Credentials,
}

/// How a round over one destination went.
enum Round {
    /// Everything that was read has ended.
    Done,
    /// Something waits for a better moment, and why.
    Later(String),
    /// The lease is another's: publish nothing more.
    Stale,
}

/// What comes of a run.
enum Next {
    /// Answers to its outputs in order, as far as they were sent.
    Answered(Vec<Delivered>),
    Goes(Way),
}

/// What comes of runs that went one way together.
type Landed = (Way, Vec<(Run, Next)>);

/// Runs that are on their way. Each destination is in at most one of them.
type Sending<'a> = FuturesUnordered<BoxFuture<'a, Landed>>;

impl Runtime {
    /// Starts publishing an agent's outputs, unless somebody already does or the lease is not held.
    pub(crate) fn publish(&self, agent: &AgentId) {
        let Some(owned) = self.inner().directory.owned(agent) else {
            return;
        };
        if let Some(more) = self.inner().directory.begin_publishing(agent) {
            let (runtime, agent) = (self.clone(), agent.clone());
            self.inner().publishers.spawn(async move {
                let guard = owned.guard.clone();
                runtime.publish_all(owned, &more).await;
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

    /// As `publish`, of an agent with new outputs: whoever publishes them already looks again.
    pub(crate) fn publish_more(&self, agent: &AgentId) {
        if !self.inner().directory.tell_publisher(agent) {
            self.publish(agent);
        }
    }

    async fn publish_all(&self, owned: Owned, more: &Notify) {
        let credentials = match owned.credentials.get_or_try_init(|| self.credentials_of(&owned.lease)).await
        {
            Ok(credentials) => credentials.clone(),
            Err(error) => {
                tracing::warn!(agent = %owned.lease.agent, %error, "outbox can't be read");
                return;
            }
        };
        let publisher = Publisher { owned, credentials };
        let shutdown = self.inner().publishers.shutdown();
        let mut known = Destinations::default();
        let mut sending = Sending::new();
        // Boot time of the last answer, or since when there is one to come.
        let mut heard = Duration::ZERO;
        loop {
            let is_held = publisher.owned.guard.is_held();
            // What is on its way under a lost lease is heard of: a receiver that refuses it says so.
            if !is_held && sending.is_empty() {
                return;
            }
            let now = self.inner().clock.boot();
            if self.inner().hurry.is_cancelled() {
                known.cut(now + RETRY_HURRIED);
            }
            known.wake(now);
            if sending.is_empty() {
                heard = now;
            } else if now.saturating_sub(heard) >= RETRY_HURRIED {
                known.doubt();
            }
            let mut pause = None;
            if is_held && !shutdown.is_cancelled() {
                let lanes = match self.read_lanes(&publisher.owned.lease.agent, &mut known).await {
                    Ok(lanes) => lanes,
                    Err(error) => {
                        tracing::warn!(agent = %publisher.owned.lease.agent, %error, "outbox can't be read");
                        return;
                    }
                };
                // Behind as many as one look takes there may be more, for others.
                let is_full = lanes.values().map(Vec::len).sum::<usize>() >= ROUND_ENOUGH;
                let looks_again = is_full.then_some(RETRY_HURRIED);
                self.begin(&publisher, lanes, &mut known, &mut sending).await;
                pause = known.pause(now).into_iter().chain(looks_again).min();
            }
            if sending.is_empty() && pause.is_none() {
                return;
            }
            if let Some(came) = self.next_of(&mut sending, more, pause).await {
                failpoint::hit("outbox.after-send");
                heard = self.inner().clock.boot();
                if let Round::Stale = self.settle(&publisher, came, &mut known, &mut sending).await {
                    return;
                }
            }
        }
    }

    /// Waits for an answer, for new outputs, for who rests, or for the host to stop: after that only for what is on its way.
    async fn next_of(
        &self,
        sending: &mut Sending<'_>,
        more: &Notify,
        pause: Option<Duration>,
    ) -> Option<Vec<Landed>> {
        let (hurry, shutdown) = (&self.inner().hurry, self.inner().publishers.shutdown());
        let is_over = shutdown.is_cancelled();
        let is_sending = !sending.is_empty();
        let told = async {
            more.notified().await;
            if is_sending {
                sleep(LOOK_PAUSE).await;
            }
        };
        let called =
            async { if hurry.is_cancelled() { shutdown.cancelled().await } else { hurry.cancelled().await } };
        // Cancel safe: an answer that is not taken now is there at the next look.
        let mut came = tokio::select! {
            biased;
            () = called, if !is_over => return None,
            Some(came) = sending.next() => vec![came],
            () = told, if !is_over => return None,
            () = sleep(pause.unwrap_or_default()), if !is_over && pause.is_some() => return None,
            else => return None,
        };
        // What has come with it is ended with it.
        while let Some(Some(also)) = sending.next().now_or_never() {
            came.push(also);
        }
        Some(came)
    }

    /// Pending outputs by destination, in order: all of a short outbox, and of a long one those of the destinations that wait
    /// longest. What is for destinations that take nothing now is passed by, and hides no others.
    async fn read_lanes(&self, agent: &AgentId, known: &mut Destinations) -> Result<Lanes, StoreError> {
        let store = &self.inner().store;
        let mut outputs = store.pending_outputs(agent, Page { after: 0, limit: SHORT }).await?;
        if outputs.len() < SHORT {
            outputs.retain(|stored| known.takes(&stored.output.destination));
        } else {
            let not_now = known.not_now();
            outputs = store.first_outputs(agent, &not_now, (LANE_MAX, ROUND_ENOUGH)).await?;
            // Some of these may only stand before the others.
            if outputs.len() >= ROUND_ENOUGH && known.take_doubt() {
                outputs = store.first_outputs(agent, &not_now, (LANE_IN_DOUBT, ROUND_ENOUGH)).await?;
            }
        }
        let mut lanes = Lanes::new();
        for output in outputs {
            lanes.entry(output.output.destination.clone()).or_default().push(output);
        }
        Ok(lanes)
    }

    /// Sends as much of each lane as goes at once: destinations side by side, each in order.
    async fn begin<'a>(
        &'a self,
        publisher: &Publisher,
        lanes: Lanes,
        known: &mut Destinations,
        sending: &mut Sending<'a>,
    ) {
        let now_ms = self.now_ms();
        let (sender, unread) = self.sender_of(publisher, &lanes).await;
        let sender = Arc::new(sender);
        if lanes.is_empty() || !publisher.owned.guard.is_held() {
            return;
        }
        let mut ways: BTreeMap<Way, Vec<Run>> = BTreeMap::new();
        let mut answered = Vec::new();
        for (destination, lane) in lanes {
            known.went(&destination);
            let run = Run::new(destination, lane, sender.clone(), now_ms);
            let answer = match &unread {
                _ if run.is_expired() => Delivered::Never(UndeliverableReason::Expired),
                // Its owner would refuse it, and end a subscription that is there.
                Some(error) if run.outputs.iter().any(must_prove) => Delivered::Later {
                    reason: format!("the key that proves a request can't be read: {error}"),
                },
                _ => {
                    let way = match self.inner().hints.get(&run.destination) {
                        Some(host) if host != self.inner().host => Way::To(host),
                        _ => Way::Here,
                    };
                    ways.entry(way).or_default().push(run);
                    continue;
                }
            };
            answered.push((run, Next::Answered(vec![answer])));
        }
        failpoint::hit("outbox.before-send");
        // A publisher that was suspended here sends under a token that may be stale: the receiver refuses it.
        if !answered.is_empty() && known.departs(Way::Unknown) {
            sending.push(ready((Way::Unknown, answered)).boxed());
        }
        self.send(publisher, ways, known, sending);
    }

    /// Sends runs their ways. Those for which a way has no room are read again when it has.
    fn send<'a>(
        &'a self,
        publisher: &Publisher,
        ways: BTreeMap<Way, Vec<Run>>,
        known: &mut Destinations,
        sending: &Sending<'a>,
    ) {
        for (way, mut runs) in ways {
            // Who waits longest goes first, not whose name comes first.
            runs.sort_by_key(|run| run.outputs.first().map(|first| first.position));
            for runs in by_request(runs) {
                if !known.departs(way) {
                    known.hold(way, runs.into_iter().map(|run| run.destination).collect());
                    continue;
                }
                let statement = || publisher.credentials.statement.clone();
                let goes = match way {
                    Way::Here => self.deliver_runs_here(runs).boxed(),
                    Way::To(host) => self.send_runs(host, runs, statement()).boxed(),
                    Way::Unknown => self.look_for(runs).boxed(),
                };
                sending.push(goes.map(move |came| (way, came)).boxed());
            }
        }
    }

    /// Ends what has arrived, lets those rest that did not take what was for them, and sends on what goes elsewhere.
    async fn settle<'a>(
        &'a self,
        publisher: &Publisher,
        came: Vec<Landed>,
        known: &mut Destinations,
        sending: &mut Sending<'a>,
    ) -> Round {
        let mut ends = Vec::new();
        let mut ways: BTreeMap<Way, Vec<Run>> = BTreeMap::new();
        let mut is_stale = false;
        let mut silent = Vec::new();
        came.iter().for_each(|(way, _)| known.landed(*way));
        for (run, next) in came.into_iter().flat_map(|(_, runs)| runs) {
            let answers = match next {
                Next::Answered(answers) => answers,
                Next::Goes(way) => {
                    ways.entry(way).or_default().push(run);
                    continue;
                }
            };
            let (ended, round) = self.after_run(publisher, &run, answers).await;
            let has_taken = !ended.is_empty();
            ends.extend(ended);
            match round {
                Round::Done => known.took(&run.destination),
                Round::Stale => is_stale = true,
                Round::Later(reason) => {
                    let [random] = self.inner().clock.random();
                    let (agent, destination) = (&publisher.owned.lease.agent, run.destination);
                    tracing::debug!(%agent, %destination, reason, "later");
                    if known.rest(destination.clone(), has_taken, self.inner().clock.boot(), random) {
                        silent.push((destination, reason));
                    }
                }
            }
        }
        if let Some((destination, reason)) = silent.first() {
            let (agent, destinations) = (&publisher.owned.lease.agent, silent.len());
            let what = "outputs wait for destinations that take nothing; they are tried again";
            tracing::warn!(%agent, destinations, %destination, reason, "{what}");
        }
        self.send(publisher, ways, known, sending);
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

    /// What the outputs of a publisher are sent with. The key is read when something has to be proven; why it can't be read now
    /// comes beside it.
    async fn sender_of(&self, publisher: &Publisher, lanes: &Lanes) -> (Sender, Option<StoreError>) {
        let lease = &publisher.owned.lease;
        let read = if lanes.values().flatten().any(must_prove) {
            self.inner().store.entity_key(&lease.agent).await
        } else {
            Ok(None)
        };
        let (key, unread) = match read {
            Ok(key) => (key, None),
            // It does not open here, and never will.
            Err(error @ (StoreError::Conflict { .. } | StoreError::Corrupt { .. })) => {
                tracing::warn!(agent = %lease.agent, %error, "a request to a channel goes without proof");
                (None, None)
            }
            Err(error) => (None, Some(error)),
        };
        let sender = Sender {
            generation: lease.generation,
            token: lease.token,
            host: self.inner().host,
            origin_hash: publisher.credentials.origin_hash,
            key,
        };
        (sender, unread)
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
                // The ends must be durable before a later number tells the receiver to skip them.
                Delivered::Never(reason) => {
                    let count = if reason.is_of_destination() { run.outputs.len() } else { 1 };
                    let ended = run.outputs.iter().skip(ends.len()).take(count);
                    ends.extend(ended.map(|stored| (key_of(stored), OutputEnd::Undeliverable(reason))));
                    return (ends, Round::Done);
                }
                Delivered::StalePublisher { highest } => {
                    let token = publisher.owned.lease.token;
                    tracing::warn!(agent = %publisher.owned.lease.agent, %token, %highest, place = "receiver", "fenced");
                    self.report_stale_publisher(publisher, &key, highest).await;
                    return (ends, self.after_stale(publisher).await);
                }
                Delivered::Later { reason } => return (ends, Round::Later(reason)),
                Delivered::NotHere => return (ends, Round::Later("it is not there any more".into())),
            }
        }
        (ends, Round::Done)
    }

    /// What a publisher does whose token a receiver refuses: it stops if the store says that the lease is another's. If it does
    /// not, the receiver has heard of a token that this store never gave: that is tried again later, and seldom.
    async fn after_stale(&self, publisher: &Publisher) -> Round {
        let Lease { agent, token, .. } = &publisher.owned.lease;
        match self.inner().store.agent(agent).await {
            Ok(Some(row)) if row.home == Home::Here && row.token == *token => {
                Round::Later("it has heard of a higher token than this store gave".into())
            }
            Ok(_) => {
                self.fenced(&publisher.owned, "outbox").await;
                Round::Stale
            }
            Err(error) => Round::Later(error.to_string()),
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

    /// Tries runs in this store.
    async fn deliver_runs_here(&self, runs: Vec<Run>) -> Vec<(Run, Next)> {
        let inputs: Vec<NewInput> = runs.iter().flat_map(Run::inputs).collect();
        let count = inputs.len();
        let delivered = match within(DELIVER_MAX, self.deliver_here(inputs)).await {
            Some(delivered) => delivered,
            None => vec![Delivered::Later { reason: "no answer in time".into() }; count],
        };
        let next = |answers: Vec<Delivered>| match answers.first() {
            Some(Delivered::NotHere) => Next::Goes(Way::Unknown),
            _ => Next::Answered(answers),
        };
        by_run(runs, delivered).map(|(run, answers)| (run, next(answers))).collect()
    }

    /// Sends runs to a host, in one request.
    async fn send_runs(
        &self,
        host: HostId,
        runs: Vec<Run>,
        statement: Option<Box<SignedStatement>>,
    ) -> Vec<(Run, Next)> {
        let inputs = runs.iter().flat_map(Run::inputs).collect();
        let delivered = self.send_batch(host, inputs, statement).await;
        let answered = by_run(runs, delivered).map(|(run, answers)| {
            if answers.contains(&Delivered::NotHere) {
                self.inner().hints.forget(&run.destination);
            }
            (run, Next::Answered(answers))
        });
        answered.collect()
    }

    /// Finds out which hosts the destinations of some runs are at home on.
    async fn look_for(&self, runs: Vec<Run>) -> Vec<(Run, Next)> {
        let homes = runs.into_iter().map(|run| async move {
            let next = match self.who_is_home(&run.destination).await {
                Ok(host) => Next::Goes(Way::To(host)),
                Err(CallError::NotFound { .. }) => {
                    Next::Answered(vec![Delivered::Never(UndeliverableReason::NotFound)])
                }
                Err(error) => Next::Answered(vec![Delivered::Later { reason: error.to_string() }]),
            };
            (run, next)
        });
        join_all(homes).await
    }

    async fn send_batch(
        &self,
        host: HostId,
        inputs: Vec<NewInput>,
        statement: Option<Box<SignedStatement>>,
    ) -> Vec<Delivered> {
        let count = inputs.len();
        let agents: BTreeSet<AgentId> = inputs.iter().map(|input| input.agent.clone()).collect();
        let request = PeerRequest::Deliver { inputs, statement };
        let (reason, is_hint_good) = match self.ask_peer(host, &request, DELIVER_MAX).await {
            Ok(PeerAnswer::Delivered(delivered)) if delivered.len() == count => return delivered,
            Ok(PeerAnswer::Malformed { reason }) => (reason, true),
            // A host that stops says so also about agents that have left it.
            Ok(PeerAnswer::NotNow { reason, .. }) => (reason, false),
            Ok(_) => ("a peer gave another kind of answer".to_owned(), true),
            Err(error) => (error.to_string(), false),
        };
        if !is_hint_good {
            agents.iter().for_each(|agent| self.inner().hints.forget(agent));
        }
        vec![Delivered::Later { reason }; count]
    }
}

/// Whether an output is a request whose sender must prove that a token is its own.
fn must_prove(stored: &StoredOutput) -> bool {
    match stored.output.channel.as_deref() {
        Some(ChannelMessage::Request(request)) => request.token.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
