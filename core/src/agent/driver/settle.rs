//! After a commit or a failed turn: who is answered, what is tried again, when the driver must stop.

use tokio::sync::oneshot;

use super::{Driver, Flow, Waiters, new_backoff};
use crate::agent::chain::{Chain, Origin, Pending};
use crate::agent::turn::{self, Verdict};
use crate::agent::{Answer, AskRequest, End, NotAccepted, Notice};
use crate::event::{EventKind, NewEvent};
use crate::failpoint;
use crate::guest::GuestError;
use crate::id::{InputId, Seq};
use crate::input::{Fault, FaultKind, InputState, Outcome};
use crate::lease::LeaseState;
use crate::store::{AcceptError, BrokenReason, InputEnd, StoreError, StoredInput, UnitFailure, UnitOutcome};

/// What a client is told when the door refused its input.
pub(super) fn refusal(input: InputId, error: AcceptError) -> Answer {
    match error {
        AcceptError::Store(StoreError::Unknown { .. }) => Answer::Unknown { input },
        AcceptError::Store(StoreError::NotHome { .. } | StoreError::NoAgent | StoreError::Fenced { .. }) => {
            Answer::Elsewhere
        }
        refused @ AcceptError::Store(StoreError::Lifecycle { .. } | StoreError::Full) => {
            Answer::NotAccepted(NotAccepted::Refused(refused))
        }
        AcceptError::Store(error) => {
            Answer::NotAccepted(NotAccepted::Unavailable { reason: error.to_string() })
        }
        refused => Answer::NotAccepted(NotAccepted::Refused(refused)),
    }
}

impl Driver {
    /// Releases what has committed of a chain. After anything but full success `self.loaded` is `None`: the agent is loaded
    /// again, because the guest is ahead of the store.
    pub(super) async fn settle(&mut self, mut chain: Chain, outcome: UnitOutcome) -> Flow {
        let rest = self.release_durable(std::mem::take(&mut chain.pending), outcome.committed);
        match outcome.failure {
            None => {
                chain.rows.committed(chain.head.revision);
                self.backoff = new_backoff();
                Ok(())
            }
            Some(failure) => {
                self.loaded = None;
                if let UnitFailure::Quota { what } = &failure {
                    self.note_overfull(rest.first(), what).await?;
                }
                let rest = self.wait_for_accepted(rest, outcome.committed);
                self.on_refused(rest, failure).await
            }
        }
    }

    /// Releases what is durable with the first `committed` steps of a chain, and gives the rest back.
    pub(super) fn release_durable(&mut self, mut pending: Vec<Pending>, committed: usize) -> Vec<Pending> {
        let durable = pending.iter().take_while(|pending| pending.steps_end <= committed).count();
        let rest = pending.split_off(durable);
        for pending in pending {
            self.release(pending);
        }
        rest
    }

    /// A direct ask whose acceptance committed without what should have followed it is durable: it waits in the queue.
    pub(super) fn wait_for_accepted(&mut self, rest: Vec<Pending>, committed: usize) -> Vec<Pending> {
        let mut unaccepted = Vec::with_capacity(rest.len());
        for pending in rest {
            match pending {
                Pending { origin: Origin::Direct(request), seq, steps_end, .. }
                    if steps_end == committed + 1 =>
                {
                    self.add_waiter(seq, request.input.input.id, request.answer);
                }
                other => unaccepted.push(other),
            }
        }
        unaccepted
    }

    /// Tells whoever waits for a durable step.
    fn release(&mut self, pending: Pending) {
        let Pending { origin, seq, mut ends, has_outputs, has_timers, has_operations, .. } = pending;
        self.env.watched.committed(&self.agent);
        if has_outputs {
            (self.env.notify)(Notice::Outputs(self.agent.clone()));
        }
        if has_timers {
            (self.env.notify)(Notice::Timers);
        }
        if has_operations {
            (self.env.notify)(Notice::Operations(self.agent.clone()));
        }
        match (origin, ends.pop()) {
            (Origin::Direct(request), Some(InputEnd { outcome, .. })) => {
                let input = request.input.input.id;
                self.known = self.known.max(seq);
                self.answer(request.answer, Answer::Ended { input, seq, outcome, is_duplicate: false });
            }
            // Accepted with a failed attempt behind it: it waits in the queue now.
            (Origin::Direct(request), None) => self.add_waiter(seq, request.input.input.id, request.answer),
            (Origin::Init | Origin::Queued(_) | Origin::Batch(_), last) => {
                for InputEnd { seq, outcome } in ends.into_iter().chain(last) {
                    self.inbox.ended(seq);
                    self.answer_waiters(seq, &outcome);
                }
            }
        }
    }

    pub(super) fn answer_waiters(&mut self, seq: Seq, outcome: &Outcome) {
        let Some(Waiters { input, answers }) = self.waiters.remove(&seq) else {
            return;
        };
        for answer in answers {
            let ended = Answer::Ended { input, seq, outcome: outcome.clone(), is_duplicate: false };
            self.answer(answer, ended);
        }
    }

    /// Deals with the steps that the store did not take. Durable inputs among them are read again from the store.
    async fn on_refused(&mut self, rest: Vec<Pending>, failure: UnitFailure) -> Flow {
        let mut directs = rest.into_iter().filter_map(|pending| pending.origin.into_direct());
        match failure {
            UnitFailure::Duplicate(stored) => {
                if let Some(request) = directs.next() {
                    self.answer_duplicate(*stored, request.answer);
                }
            }
            UnitFailure::Refused(error) => {
                if let Some(request) = directs.next() {
                    let refused = refusal(request.input.input.id, error);
                    self.answer(request.answer, refused);
                }
            }
            // An input was accepted meanwhile: take it into account and try again.
            UnitFailure::Store(StoreError::Stale { .. }) => {}
            // The turn is noted, and judged when the agent is loaded again. Those behind it run then.
            UnitFailure::Quota { .. } => {}
            // A verb came in between: loading it again tells which state it is in.
            UnitFailure::Store(StoreError::Lifecycle { .. }) => {}
            UnitFailure::Store(error) => {
                let is_lost = is_loss(&error);
                if !is_lost {
                    let reason = error.to_string();
                    for request in directs.by_ref() {
                        let input = request.input.input.id;
                        let answer = match &error {
                            StoreError::Unknown { .. } => Answer::Unknown { input },
                            StoreError::Full => refusal(input, error.clone().into()),
                            _ => Answer::NotAccepted(NotAccepted::Unavailable { reason: reason.clone() }),
                        };
                        self.answer(request.answer, answer);
                    }
                }
                self.put_back_directs(directs);
                return self.on_store_error("commit", error).await;
            }
        }
        self.put_back_directs(directs);
        Ok(())
    }

    /// The store refused what a turn would leave: that is a fault of the guest, and counted when the agent is loaded again.
    async fn note_overfull(&mut self, failing: Option<&Pending>, what: &str) -> Flow {
        let Some(Pending { origin, seq, .. }) = failing else { return Ok(()) };
        match origin {
            // It would do the same again.
            Origin::Init => self.break_down(BrokenReason::Init { message: what.to_owned() }).await,
            Origin::Batch(inputs) => {
                self.inbox.split(inputs);
                Ok(())
            }
            Origin::Direct(_) | Origin::Queued(_) => {
                self.overfull = Some((*seq, what.to_owned()));
                Ok(())
            }
        }
    }

    /// Counts the turn that left too much, as one whose guest broke.
    pub(super) async fn on_overfull(&mut self, seq: Seq, what: String) -> Flow {
        let Some(stored) = self.inbox.get(seq).cloned() else { return Ok(()) };
        let attempt = match stored.state {
            InputState::Staged => stored.attempts,
            _ => stored.attempts + 1,
        };
        let fault = Fault { kind: FaultKind::Effects, message: what };
        self.on_failed_turn(Origin::queued(vec![stored]), attempt, GuestError::Fault(fault)).await
    }

    fn put_back_directs(&mut self, directs: impl DoubleEndedIterator<Item = Box<AskRequest>>) {
        for request in directs.rev() {
            self.direct.push_front(request);
        }
    }

    pub(super) fn put_back_all(&mut self, pending: Vec<Pending>) {
        for pending in pending.into_iter().rev() {
            self.put_back(pending.origin);
        }
    }

    /// A turn that did not count: its input waits at its old place.
    pub(super) fn put_back(&mut self, origin: Origin) {
        match origin {
            Origin::Direct(request) => self.direct.push_front(request),
            Origin::Queued(_) | Origin::Batch(_) => self.forget_queue(),
            Origin::Init => {}
        }
    }

    /// What a turn that gave nothing means for its input; see `turn.rs`.
    pub(super) async fn on_failed_turn(&mut self, origin: Origin, attempt: u32, error: GuestError) -> Flow {
        let verdict = turn::after_failure(&error, attempt);
        tracing::info!(agent = %self.agent, attempt, %error, "turn failed");
        let (was_staged, attempts_before, deaths) = match &origin {
            Origin::Queued(stored) => {
                (stored.state == InputState::Staged, attempt.saturating_sub(1), stored.deaths)
            }
            Origin::Batch(inputs) => {
                let is_staged = |stored: &StoredInput| stored.state == InputState::Staged;
                (inputs.iter().any(is_staged), 0, 0)
            }
            Origin::Direct(_) | Origin::Init => (false, 0, 0),
        };
        let Some(loaded) = &self.loaded else {
            self.put_back(origin);
            return Ok(());
        };
        let mut chain = loaded.chain();
        match verdict {
            Verdict::Uncounted => {
                if was_staged && !matches!(error, GuestError::Fenced) {
                    chain.push_attempts(origin, InputState::Queued, attempts_before, deaths);
                    self.commit(chain).await?;
                } else {
                    self.put_back(origin);
                }
                self.on_uncounted(&error).await
            }
            // Nobody knows which of them it was: each runs by itself.
            _ if matches!(origin, Origin::Batch(_)) => {
                if let Origin::Batch(inputs) = &origin {
                    self.inbox.split(inputs);
                }
                if was_staged {
                    chain.push_attempts(origin, InputState::Queued, attempts_before, deaths);
                    self.commit(chain).await?;
                } else {
                    self.put_back(origin);
                }
                self.loaded = None;
                Ok(())
            }
            Verdict::Again { attempts } => {
                chain.push_attempts(origin, InputState::Queued, attempts, deaths);
                self.commit(chain).await?;
                failpoint::hit("input.after-attempt");
                self.loaded = None;
                self.pause_longer();
                Ok(())
            }
            Verdict::DeadLetter(reason) => {
                chain.push_dead_letter(origin, reason);
                self.commit(chain).await?;
                self.loaded = None;
                Ok(())
            }
        }
    }

    /// The guest is dead and nothing was counted: say so, and go on when the lease allows.
    pub(super) async fn on_uncounted(&mut self, error: &GuestError) -> Flow {
        self.loaded = None;
        if !matches!(error, GuestError::Fenced) {
            self.pause_longer();
            return Ok(());
        }
        self.report_fenced("guest call").await;
        if self.guard.state() == LeaseState::Lost { Err(End::Lost) } else { Ok(()) }
    }

    /// Ends the driver when the store says that the agent is another's; otherwise waits and tries again.
    pub(super) async fn on_store_error(&mut self, place: &'static str, error: StoreError) -> Flow {
        self.loaded = None;
        if is_loss(&error) {
            return self.lose(place).await;
        }
        tracing::warn!(agent = %self.agent, place, %error, "store refused");
        self.pause_longer();
        Ok(())
    }

    /// The agent is another's: everything of it stops here.
    pub(super) async fn lose(&mut self, place: &'static str) -> Flow {
        self.guard.lose();
        self.loaded = None;
        self.report_fenced(place).await;
        Err(End::Lost)
    }

    /// Fenced acts are in the log and in the events, whoever owns the agent now.
    async fn report_fenced(&mut self, place: &'static str) {
        let token = self.lease.token;
        tracing::warn!(agent = %self.agent, %token, place, "fenced");
        let now_ms = self.env.clock.wall_ms();
        let event = NewEvent::of_agent(&self.agent, EventKind::Fenced, now_ms)
            .with("place", place)
            .with("token", token)
            .with("host", self.env.host)
            .with("incarnation", self.lease.incarnation);
        if let Err(error) = self.env.store.append_events(vec![event]).await {
            tracing::warn!(agent = %self.agent, %error, "fenced event can't be written");
        }
    }

    // --- waiters

    pub(super) fn add_waiter(&mut self, seq: Seq, input: InputId, answer: oneshot::Sender<Answer>) {
        self.waiters.entry(seq).or_insert_with(|| Waiters::of(input)).add(answer);
        self.inbox.rouse(seq);
    }

    /// A caller that repeats a key gets the stored answer, or joins those who wait for it.
    pub(super) fn answer_duplicate(&mut self, stored: StoredInput, answer: oneshot::Sender<Answer>) {
        let StoredInput { seq, input, outcome, .. } = stored;
        match outcome {
            Some(outcome) => {
                self.answer(answer, Answer::Ended { input: input.id, seq, outcome, is_duplicate: true });
            }
            None => {
                self.add_waiter(seq, input.id, answer);
                self.is_inbox_stale = true;
            }
        }
    }

    pub(super) async fn join(&mut self, input: InputId, seq: Seq, answer: oneshot::Sender<Answer>) {
        self.add_waiter(seq, input, answer);
        self.is_inbox_stale = true;
    }

    /// Inputs that somebody waits for and that are neither waiting here nor on their way to their end.
    fn ended_waiters(&self) -> Vec<(Seq, InputId)> {
        let is_open = |seq: Seq| self.inbox.contains(seq) || self.flights.hold(seq);
        let ended = self.waiters.iter().filter(|(seq, _)| !is_open(**seq));
        ended.map(|(seq, waiters)| (*seq, waiters.input)).collect()
    }

    /// Answers those who wait for inputs that are not open any more: they ended before somebody joined, or in a commit
    /// whose outcome was not heard.
    pub(super) async fn answer_ended_waiters(&mut self) {
        if self.is_inbox_stale {
            return;
        }
        for (seq, input) in self.ended_waiters() {
            let stored = self.env.store.input(&self.agent, input).await;
            match stored.map(|stored| stored.map(|stored| stored.outcome)) {
                Ok(Some(Some(outcome))) => self.answer_waiters(seq, &outcome),
                // Open again, at its old place: a dead letter that was given another chance.
                Ok(Some(None)) => self.forget_queue(),
                // Its row is gone: who waits is told that nobody knows.
                Ok(None) => drop(self.waiters.remove(&seq)),
                Err(error) => tracing::warn!(agent = %self.agent, %error, "ended input can't be read"),
            }
        }
    }
}

/// Whether a store error means that the agent is not ours.
fn is_loss(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Fenced { .. }
            | StoreError::NotHome { .. }
            | StoreError::NoAgent
            | StoreError::SessionDead { .. }
    )
}
