//! Calls done here: submitting inputs to agents of this store, and reading their rows.

use std::time::Duration;

use godwit_core::agent::{Answer, NotAccepted};
use godwit_core::channel::ChannelName;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, InputId, Revision, Seq};
use godwit_core::input::policy::{Activity, Signal, check_submittable};
use godwit_core::input::{AbandonReason, Input, NewInput, Policy, Reach};
use godwit_core::store::{
    AcceptError, Accepted, AgentRow, BrokenReason, Lifecycle, Page, StoreError, StoredInput,
};
use godwit_core::time::sleep;

use super::Runtime;
use super::call::{AgentCall, AgentReply, Asked, CallError, Rows, Sent, Submission};
use super::routing::{Forward, Try, store_error, unless_durable};

/// Pause between looks at an input that another host on this store runs.
const OUTCOME_POLL: Duration = Duration::from_millis(5);
/// Looks at such an input before the owner is asked for again.
const OUTCOME_POLLS: u32 = 20;

/// First and longest pause between looks at an input whose end somebody waits for.
const END_POLL: Duration = Duration::from_millis(5);
const END_POLL_MAX: Duration = Duration::from_millis(100);

/// Pause between looks at an input of an agent that does not run.
const PAUSED_POLL: Duration = Duration::from_millis(50);

impl Runtime {
    /// Does a call on an agent whose row is at home in this store.
    pub(crate) async fn call_here(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        call: &AgentCall,
    ) -> Result<Try, CallError> {
        let store = &self.inner().store;
        let reply = match call {
            AgentCall::Ask { submission, .. } => return self.ask_here(agent, row, submission).await,
            AgentCall::Send { submission } => return self.send_here(agent, submission).await,
            AgentCall::Checkpoint => return self.checkpoint_here(agent, row).await,
            AgentCall::Verb(verb) => return self.verb_here(agent, verb).await,
            AgentCall::Update(update) => return self.update_here(agent, row, update).await,
            AgentCall::Upgrade { plugin } => return self.upgrade_here(agent, row, plugin).await,
            AgentCall::Migrate { to } => AgentReply::Migrating(self.migrate_from_here(agent, to).await?),
            AgentCall::Show => AgentReply::Agent(Box::new(self.view(row).await?)),
            AgentCall::Inputs { state, after, limit } => {
                let read = store.inputs(agent, *state, one_more(*after, *limit)).await;
                AgentReply::Inputs(Rows::page(read.map_err(store_error)?, *limit))
            }
            AgentCall::Input { input } => {
                let stored = store.input(agent, *input).await.map_err(store_error)?;
                AgentReply::Input(stored.map(Box::new))
            }
            AgentCall::Redrive { input } => self.redrive_here(agent, *input).await?,
            AgentCall::Cancel { input, from } => {
                self.check_known(agent, *input).await?;
                let cancelled = AbandonReason::Cancelled;
                store.abandon(agent, *input, *from, cancelled).await.map_err(store_error)?;
                // Those who wait for it are told.
                self.reload(agent).await;
                AgentReply::Done
            }
            AgentCall::Receipts { after, limit } => self.receipts_here(row, *after, *limit).await?,
            AgentCall::Outputs { after, limit } => {
                let read = store.outputs(agent, one_more(*after, *limit)).await;
                AgentReply::Outputs(Rows::page(read.map_err(store_error)?, *limit))
            }
            AgentCall::Timers => AgentReply::Timers(store.timers(agent).await.map_err(store_error)?),
            AgentCall::Operations => {
                AgentReply::Operations(store.operations(agent).await.map_err(store_error)?)
            }
            AgentCall::Channels => self.channels_here(agent).await?,
            AgentCall::Subscribers { channel, after, limit } => {
                self.subscribers_here(agent, channel, after.as_ref(), *limit).await?
            }
            AgentCall::Subscriptions => {
                AgentReply::Subscriptions(store.subscriptions(agent).await.map_err(store_error)?)
            }
            AgentCall::Events { after, limit } => {
                AgentReply::Events(self.agent_events_here(row, *after, *limit).await?)
            }
            AgentCall::WaitOutput(wait) => return self.wait_output_here(agent, wait).await,
            AgentCall::Inspect { events } => {
                AgentReply::Inspected(Box::new(self.inspect_here(row, *events).await?))
            }
            AgentCall::Verify => {
                let report = super::audit::audit(store.as_ref(), agent).await.map_err(store_error)?;
                AgentReply::Verified(report)
            }
            AgentCall::Standby(call) => self.standby_here(row, call).await?,
            AgentCall::Materialize => return self.materialize_here(agent, row).await,
            AgentCall::PutEdge { edge } => self.put_edge_here(agent, edge).await?,
            AgentCall::RemoveEdge { peer } => self.remove_edge_here(agent, peer).await?,
            AgentCall::Edges => self.edges_here(agent).await?,
            AgentCall::Query { payload } => return self.query_here(agent, row, payload).await,
            AgentCall::Replay { to } => AgentReply::Replayed(self.replay_here(agent, *to).await?),
        };
        Ok(Try::Done(reply))
    }

    /// Gives a dead letter another chance.
    async fn redrive_here(&self, agent: &AgentId, input: InputId) -> Result<AgentReply, CallError> {
        self.check_known(agent, input).await?;
        self.inner().store.redrive(agent, input).await.map_err(store_error)?;
        failpoint::hit("input.after-redrive");
        self.look_at(agent, true).await;
        self.reload(agent).await;
        Ok(AgentReply::Done)
    }

    async fn channels_here(&self, agent: &AgentId) -> Result<AgentReply, CallError> {
        let channels = self.inner().store.channels(agent, None).await;
        Ok(AgentReply::Channels(channels.map_err(store_error)?))
    }

    /// Who subscribes to a channel, behind an agent.
    async fn subscribers_here(
        &self,
        agent: &AgentId,
        channel: &ChannelName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<AgentReply, CallError> {
        let store = &self.inner().store;
        let rows = store.subscribers(agent, channel, after, limit + 1).await.map_err(store_error)?;
        if rows.is_empty() && store.channels(agent, Some(channel)).await.map_err(store_error)?.is_empty() {
            return Err(CallError::NoSuch { what: format!("channel {channel}") });
        }
        Ok(AgentReply::Subscribers(Rows::page(rows, limit)))
    }

    /// Receipts of the current generation, each with its digest.
    async fn receipts_here(&self, row: &AgentRow, after: u64, limit: usize) -> Result<AgentReply, CallError> {
        let page = one_more(after, limit);
        let store = &self.inner().store;
        let read = store.receipts(&row.agent, row.generation, Revision(page.after), page.limit).await;
        let with_digest = read.map_err(store_error)?.into_iter().map(|receipt| {
            let digest = receipt.digest();
            (receipt, digest)
        });
        Ok(AgentReply::Receipts(Rows::page(with_digest.collect(), limit)))
    }

    /// Reads an input, and waits for its end, at most for `limit`: what comes back may still be open then. Waiting changes
    /// nothing: an enqueued input goes on waiting for company. `None` when there is no such input by then; one that an ask
    /// has submitted is there only when its turn has ended.
    ///
    /// # Errors
    /// `CallError`; ask again, the input is as it was.
    pub async fn end_of_input(
        &self,
        agent: &AgentId,
        input: InputId,
        limit: Duration,
        forward: Forward,
    ) -> Result<Option<Box<StoredInput>>, CallError> {
        let until = self.inner().clock.boot().saturating_add(limit);
        let mut pause = END_POLL;
        loop {
            let stored = match self.call(agent, AgentCall::Input { input }, forward).await?.reply {
                AgentReply::Input(stored) => stored,
                other => return Err(CallError::Internal { reason: format!("{other:?} is no input") }),
            };
            let left = until.saturating_sub(self.inner().clock.boot());
            // One that is not here may be an ask whose turn runs: nothing of it is stored before its end.
            let has_ended = stored.as_ref().is_some_and(|stored| !stored.state.is_open());
            if has_ended || left.is_zero() || self.inner().tasks.is_ending() {
                return Ok(stored);
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(END_POLL_MAX);
        }
    }

    /// An input that is not here is no conflict.
    async fn check_known(&self, agent: &AgentId, input: InputId) -> Result<(), CallError> {
        match self.inner().store.input(agent, input).await.map_err(store_error)? {
            Some(_) => Ok(()),
            None => Err(CallError::NoSuch { what: format!("input {input}") }),
        }
    }

    fn new_input(&self, agent: &AgentId, submission: &Submission) -> Result<NewInput, CallError> {
        check_submittable(&submission.kind).map_err(|refused| CallError::KindRefused {
            kind: submission.kind.name().to_owned(),
            reason: refused.to_string(),
        })?;
        let Submission { id, kind, source, content_type, payload, headers, correlation, .. } =
            submission.clone();
        let accepted_at_ms = self.now_ms();
        let input = Input { id, kind, source, content_type, payload, headers, correlation, accepted_at_ms };
        let new = NewInput {
            agent: agent.clone(),
            input,
            idempotency_key: submission.idempotency_key.clone(),
            mode: submission.mode,
            is_silent: submission.is_silent,
            supersedes: submission.supersedes.clone(),
            traceparent: submission.traceparent.clone(),
            delivery: None,
            reach: if submission.is_dispatched { Reach::Any } else { Reach::Addressable },
        };
        new.check_limits().map_err(|error| CallError::Invalid { reason: error.to_string() })?;
        Ok(new)
    }

    async fn ask_here(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        submission: &Submission,
    ) -> Result<Try, CallError> {
        match &row.lifecycle {
            Lifecycle::Broken(reason) => return self.ask_broken(agent, reason, submission).await,
            // It is taken, unless it must not be, and waits until the agent runs again: at most as long as its caller.
            Lifecycle::Paused | Lifecycle::Retired | Lifecycle::Suspended(_) | Lifecycle::Deleted => {
                return self.ask_at_rest(agent, submission).await;
            }
            Lifecycle::Active | Lifecycle::Retiring => {}
        }
        let mut input = self.new_input(agent, submission)?;
        loop {
            let handle = match self.resident(agent).await {
                Ok(handle) => handle,
                // Another live host on this store owns it: it finds the row.
                Err(StoreError::Fenced { .. }) => return self.ask_through_store(agent, submission).await,
                Err(StoreError::NotHome { .. } | StoreError::NoAgent) => {
                    return Ok(Try::Again { may_be_durable: false });
                }
                Err(StoreError::SessionDead { .. }) => {
                    sleep(OUTCOME_POLL).await;
                    return Ok(Try::Again { may_be_durable: false });
                }
                Err(error) => return Err(store_error(error)),
            };
            match handle.ask(input).await {
                Ok(answer) => return self.answered(agent, answer, submission).await,
                Err(returned) => input = *returned,
            }
        }
    }

    /// Asks the driver that is there, without looking at the row first: the commonest case, and the driver knows best.
    pub(crate) async fn ask_resident(
        &self,
        agent: &AgentId,
        submission: &Submission,
    ) -> Option<Result<Try, CallError>> {
        let handle = self.inner().directory.handle_for_use(agent, self.inner().clock.boot())?;
        let input = match self.new_input(agent, submission) {
            Ok(input) => input,
            Err(error) => return Some(Err(error)),
        };
        let answer = handle.ask(input).await.ok()?;
        Some(self.answered(agent, answer, submission).await)
    }

    /// Sends to an agent that has a driver here, without looking at the row first: acceptance does.
    pub(crate) async fn send_resident(
        &self,
        agent: &AgentId,
        submission: &Submission,
    ) -> Option<Result<Try, CallError>> {
        self.inner().directory.handle_for_use(agent, self.inner().clock.boot())?;
        Some(self.send_here(agent, submission).await)
    }

    /// Accepts durably and waits for the owner, another process on this store, to end the input.
    async fn ask_through_store(&self, agent: &AgentId, submission: &Submission) -> Result<Try, CallError> {
        let Some(sent) = self.accept_here(agent, submission).await? else {
            return Ok(Try::Again { may_be_durable: false });
        };
        for _ in 0..OUTCOME_POLLS {
            let stored = self.inner().store.input(agent, sent.input).await.map_err(unread)?;
            if let Some(StoredInput { outcome: Some(outcome), seq, input, .. }) = stored {
                let is_duplicate = sent.is_duplicate && input.id != submission.id;
                let asked = Asked { input: input.id, seq, outcome, is_duplicate };
                return Ok(Try::Done(AgentReply::Asked(asked)));
            }
            sleep(OUTCOME_POLL).await;
        }
        // Look again: the owner may have died, and then this host takes over.
        Ok(Try::Again { may_be_durable: true })
    }

    /// Accepts durably, and waits while the agent does not run. One that is known already is answered with its end, whatever
    /// has become of the agent.
    async fn ask_at_rest(&self, agent: &AgentId, submission: &Submission) -> Result<Try, CallError> {
        let Some(sent) = self.accept_here(agent, submission).await? else {
            return Ok(Try::Again { may_be_durable: false });
        };
        loop {
            let stored = self.inner().store.input(agent, sent.input).await.map_err(unread)?;
            if let Some(StoredInput { outcome: Some(outcome), seq, input, .. }) = stored {
                let is_duplicate = sent.is_duplicate && input.id != submission.id;
                let asked = Asked { input: input.id, seq, outcome, is_duplicate };
                return Ok(Try::Done(AgentReply::Asked(asked)));
            }
            let row = self.inner().store.agent(agent).await.map_err(unread)?;
            let has_moved_on = row.is_none_or(|row| row.lifecycle != Lifecycle::Paused);
            if has_moved_on || self.inner().tasks.is_ending() {
                return Ok(Try::Again { may_be_durable: true });
            }
            sleep(PAUSED_POLL).await;
        }
    }

    async fn answered(
        &self,
        agent: &AgentId,
        answer: Answer,
        submission: &Submission,
    ) -> Result<Try, CallError> {
        match answer {
            Answer::Ended { input, seq, outcome, .. } => {
                // A host that forwards may have asked before under the same id: that is no repeated key of the client's.
                let is_duplicate = input != submission.id;
                Ok(Try::Done(AgentReply::Asked(Asked { input, seq, outcome, is_duplicate })))
            }
            Answer::Elsewhere => Ok(Try::Again { may_be_durable: false }),
            // Asking again joins it by its id, wherever the agent is now.
            Answer::Follow { .. } => Ok(Try::Again { may_be_durable: true }),
            Answer::Unknown { .. } => Err(CallError::Unknown { reason: "the store did not say".into() }),
            Answer::NotAccepted(NotAccepted::Refused(error)) => Err(refused(error)),
            Answer::NotAccepted(NotAccepted::Broken(reason)) => {
                self.ask_broken(agent, &reason, submission).await
            }
            Answer::NotAccepted(NotAccepted::Busy) => {
                Err(CallError::Busy { depth: godwit_core::agent::MAILBOX_MAX as u64 })
            }
            Answer::NotAccepted(NotAccepted::Interrupted) => Err(CallError::Interrupted),
            Answer::NotAccepted(NotAccepted::Unavailable { reason }) => {
                Err(CallError::Unavailable { reason })
            }
        }
    }

    /// Takes nothing, but answers for what was accepted before under the same key or id: with its end, or by waiting for it.
    async fn ask_broken(
        &self,
        agent: &AgentId,
        reason: &BrokenReason,
        submission: &Submission,
    ) -> Result<Try, CallError> {
        let new = self.new_input(agent, submission)?;
        let store = &self.inner().store;
        let known = match &new.idempotency_key {
            Some(key) => store.input_by_key(agent, key).await,
            None => store.input(agent, new.input.id).await,
        };
        match known.map_err(store_error)? {
            None => Err(CallError::Broken { reason: reason.clone() }),
            Some(known) if known.body_digest != new.body_digest() => Err(CallError::KeyReused),
            Some(StoredInput { outcome: Some(outcome), seq, input, .. }) => {
                let is_duplicate = input.id != submission.id;
                Ok(Try::Done(AgentReply::Asked(Asked { input: input.id, seq, outcome, is_duplicate })))
            }
            Some(_) => {
                sleep(PAUSED_POLL).await;
                Ok(Try::Again { may_be_durable: true })
            }
        }
    }

    async fn send_here(&self, agent: &AgentId, submission: &Submission) -> Result<Try, CallError> {
        let Some(sent) = self.accept_here(agent, submission).await? else {
            return Ok(Try::Again { may_be_durable: false });
        };
        if sent.outcome.is_none() {
            self.look_at(agent, !submission.is_silent).await;
        }
        Ok(Try::Done(AgentReply::Sent(sent)))
    }

    /// Accepts an input durably; `None` when the agent left meanwhile.
    async fn accept_here(&self, agent: &AgentId, submission: &Submission) -> Result<Option<Sent>, CallError> {
        let input = self.new_input(agent, submission)?;
        let id = input.input.id;
        let (is_duplicate, outcome) = (false, None);
        match self.inner().store.accept(input, self.session().incarnation).await {
            Ok(Accepted::New { seq }) => {
                failpoint::hit("input.after-accept");
                if submission.supersedes.is_some() {
                    self.reload(agent).await;
                }
                Ok(Some(Sent { input: id, seq, is_duplicate, outcome }))
            }
            Ok(Accepted::Duplicate(stored)) => {
                if stored.state.is_open() {
                    // It may wake from now on.
                    self.reload(agent).await;
                }
                let is_duplicate = stored.input.id != id;
                let StoredInput { input, seq, outcome, .. } = *stored;
                Ok(Some(Sent { input: input.id, seq, is_duplicate, outcome }))
            }
            Ok(Accepted::AlreadyEnded | Accepted::Answered) => {
                Ok(Some(Sent { input: id, seq: Seq(0), is_duplicate: true, outcome }))
            }
            Err(AcceptError::Store(StoreError::NotHome { .. } | StoreError::NoAgent)) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    /// An agent's inbox has grown, by an input that wakes or not: tells its driver, or activates it, when this host owns it
    /// or may.
    pub(crate) async fn look_at(&self, agent: &AgentId, wakes: bool) {
        let handle = self.inner().directory.handle(agent);
        let activity = if handle.is_some() { Activity::Running } else { Activity::Idle };
        match (Policy::signal(wakes, activity), handle) {
            (Signal::Tell, Some(handle)) => handle.wake(),
            (Signal::Activate, _) => self.activate(agent).await,
            (Signal::Tell | Signal::Nothing, _) => {}
        }
    }

    /// The store names an input of an agent that must run: it may have been opened, or roused, by another host.
    pub(crate) async fn remind(&self, agent: &AgentId) {
        match self.inner().directory.handle(agent) {
            Some(handle) => handle.remind(),
            None => self.activate(agent).await,
        }
    }

    /// Rows that the driver knows have changed, or ended: it reads its inbox from the start.
    pub(crate) async fn reload(&self, agent: &AgentId) {
        if let Some(handle) = self.inner().directory.handle(agent) {
            handle.reload().await;
        }
    }

    async fn activate(&self, agent: &AgentId) {
        // The next owner finds what waits.
        if self.check_admission().is_err() {
            return;
        }
        match self.resident(agent).await {
            Ok(handle) => handle.wake(),
            // Somebody else's, or not now: its owner, or the next scan, finds it.
            Err(error) => tracing::debug!(%agent, %error, "not activated"),
        }
    }
}

/// One row more than is shown, so that the reader learns whether the list goes on.
fn one_more(after: u64, limit: usize) -> Page {
    Page { after, limit: limit.saturating_add(1) }
}

/// What a caller learns when an input is accepted and its end can't be read now.
fn unread(error: StoreError) -> CallError {
    unless_durable(store_error(error), true)
}

/// What a caller learns of a refusal at the door.
fn refused(error: AcceptError) -> CallError {
    match error {
        AcceptError::KeyReused => CallError::KeyReused,
        AcceptError::Busy { depth, bytes } => CallError::InboxFull { depth, bytes },
        AcceptError::Store(error) => store_error(error),
        AcceptError::NotAddressable => CallError::NotAddressable,
        other @ (AcceptError::StalePublisher { .. }
        | AcceptError::Namesake { .. }
        | AcceptError::AnotherKey { .. }
        | AcceptError::Unproven { .. }
        | AcceptError::Gap { .. }
        | AcceptError::NotSubscribed { .. }
        | AcceptError::NoEdge { .. }) => CallError::Conflict { what: other.to_string() },
    }
}
