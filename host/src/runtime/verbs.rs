//! The lifecycle verbs, done by the host that owns the agent, each with a typed report.
//!
//! ```text
//! own the agent --> hold it at a boundary --> commit_lifecycle (the moment it is true) --> drop or start the driver
//! ```
//! What comes before the commit is courtesy to a turn that runs, what comes after it is tidying up: a crash before leaves
//! the agent as it was, a crash after it leaves the next owner to load what is stored. The verbs that destroy raise the
//! token in that same commit, and don't wait for anybody.

use std::time::Duration;

use godwit_core::agent::recover::{Misfit, RecoverError, RecoverOutcome, Recovered, Recovery, recover};
use godwit_core::agent::{Checkpointed, CommandError, Frozen, Handle, Interrupted};
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, InputId, Revision};
use godwit_core::lease::{Lease, LeaseGuard};
use godwit_core::lifecycle::{LifecycleCommit, Verb};
use godwit_core::store::{AgentRow, BrokenReason, Home, Lifecycle, Standing, StoreError};
use godwit_core::time::{sleep, within};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::{AgentCall, AgentReply, CallError};
use super::directory::Owned;
use super::routing::{Try, store_error};

/// How long a verb waits for a running turn to end; longer than any turn's deadline. Then it commits all the same, and the
/// store refuses what the turn has done.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// How long a driver that lost its lease is waited for.
const LET_GO_MAX: Duration = Duration::from_secs(1);
/// Pause before asking a driver again that is loading.
pub(super) const LOADING_PAUSE: Duration = Duration::from_millis(5);
/// Tries of a checkpoint after a respawn before it is left to the next turn.
const CHECKPOINT_TRIES_MAX: u32 = 200;

/// A verb as a client gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerbCall {
    /// Go on accepting, run nothing.
    Pause,
    /// Run again.
    Resume,
    /// Accept nothing more, run what is there, then rest.
    Retire,
    /// Rebuild the instance from the store.
    Recycle,
    /// Rebuild it under a new token.
    Respawn,
    /// Start anew in the next generation.
    Reset,
    /// End for good.
    Delete,
    /// End the running turn; its inputs are given up.
    Interrupt,
    /// End the running turn and pause.
    Stop {
        /// Whether the open inputs are given up.
        is_abandoning: bool,
    },
    /// Run a broken agent's history again, and let it run on if it fits.
    Recover(Recovery),
}

impl VerbCall {
    /// All verbs, without their arguments, for parsing and help.
    pub const ALL: [Self; 10] = [
        Self::Pause,
        Self::Resume,
        Self::Retire,
        Self::Recycle,
        Self::Respawn,
        Self::Reset,
        Self::Delete,
        Self::Interrupt,
        Self::Stop { is_abandoning: false },
        Self::Recover(Recovery { from: None, accepts_state: false }),
    ];

    /// The verb of the pure table.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Pause => Verb::Pause,
            Self::Resume => Verb::Resume,
            Self::Retire => Verb::Retire,
            Self::Recycle => Verb::Recycle,
            Self::Respawn => Verb::Respawn,
            Self::Reset => Verb::Reset,
            Self::Delete => Verb::Delete,
            Self::Interrupt => Verb::Interrupt { inputs: Vec::new() },
            Self::Stop { is_abandoning } => Verb::Stop { is_abandoning: *is_abandoning },
            Self::Recover(_) => Verb::Recover,
        }
    }

    /// The name in paths and on the command line.
    pub fn name(&self) -> &'static str {
        self.verb().name()
    }
}

/// What became of a turn that had to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TurnEnd {
    /// No turn ran.
    NothingRan,
    /// It was faster: it ended by itself.
    Finished,
    /// It ended, and these inputs are given up.
    Abandoned {
        /// Which.
        inputs: Vec<InputId>,
    },
    /// It ended, and its input was never accepted.
    NotAccepted {
        /// Which.
        input: InputId,
    },
    /// It ended and is done again when the agent runs.
    PutBack,
}

/// What a verb did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbReport {
    /// Which verb.
    pub verb: String,
    /// The state before.
    pub from: String,
    /// The state afterwards.
    pub to: String,
    /// The generation afterwards.
    pub generation: Generation,
    /// The revision afterwards.
    pub revision: Revision,
    /// What is particular to the verb.
    pub detail: VerbDetail,
    /// Inputs that the verb ended.
    pub inputs_abandoned: u64,
    /// Inputs that wait: to be drained, or to be run.
    pub inputs_pending: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// What is particular to a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerbDetail {
    /// Pause, resume, retire, recycle: nothing.
    Moved,
    /// Reset, respawn, delete: anything under the token before is fenced.
    Fenced {
        /// The generation before.
        generation_before: Generation,
        /// The token before.
        token_before: FencingToken,
        /// The token afterwards.
        token: FencingToken,
    },
    /// Interrupt, stop.
    Ended(TurnEnd),
    /// Recover; `None` when the agent was not broken.
    Recovered(Option<RecoverReport>),
}

/// What a recovery found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverReport {
    /// Why it was broken.
    pub reason: BrokenReason,
    /// Revision of the snapshot that it began with; 0 before the first boundary.
    pub from_snapshot: Revision,
    /// Turns that ran again.
    pub turns: u64,
    /// What it came to.
    pub outcome: RecoverEnd,
}

/// What a recovery came to: `godwit_core::agent::recover::RecoverOutcome`, as it is sent and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoverEnd {
    /// The recorded history came out.
    Rebuilt,
    /// It came out of an older snapshot; the newer ones are stored anew.
    Mended,
    /// Another state was accepted.
    Repaired {
        /// Where the history first does not fit.
        at: Revision,
        /// What does not fit there.
        what: String,
        /// The digest that the history names there.
        expected: Digest,
        /// Digest of the state from here.
        accepted: Digest,
        /// Turns whose doings are no part of that state.
        turns_left_out: u64,
    },
}

impl From<RecoverOutcome> for RecoverEnd {
    fn from(outcome: RecoverOutcome) -> Self {
        match outcome {
            RecoverOutcome::Rebuilt => Self::Rebuilt,
            RecoverOutcome::Mended => Self::Mended,
            RecoverOutcome::Repaired { misfit, accepted, turns_left_out } => {
                let Misfit { revision: at, expected, what } = misfit;
                Self::Repaired { at, what, expected, accepted, turns_left_out }
            }
        }
    }
}

impl From<Interrupted> for TurnEnd {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Idle => Self::NothingRan,
            Interrupted::Finished => Self::Finished,
            Interrupted::Abandoned(inputs) => Self::Abandoned { inputs },
            Interrupted::NotAccepted(input) => Self::NotAccepted { input },
            Interrupted::PutBack => Self::PutBack,
        }
    }
}

/// One verb on one agent that this host owns.
struct Act<'a> {
    runtime: &'a Runtime,
    agent: &'a AgentId,
    verb: &'a VerbCall,
    owned: Owned,
    /// As it was when the verb began.
    row: AgentRow,
    /// Boot time of the beginning.
    started: Duration,
}

impl Runtime {
    /// The host that must do a call, when it is another one on this store.
    pub(crate) fn owner_elsewhere(&self, row: &AgentRow, call: &AgentCall) -> Option<HostId> {
        let holder = row.holder.filter(|_| call.needs_owner())?;
        (holder.host != self.inner().host).then_some(holder.host)
    }

    /// Does a verb here.
    pub(crate) async fn verb_here(&self, agent: &AgentId, verb: &VerbCall) -> Result<Try, CallError> {
        let started = self.inner().clock.boot();
        let again = || Ok(Try::Again { may_be_durable: false });
        if let Some(report) = self.deleted_already(agent, verb, started).await? {
            return Ok(Try::Done(AgentReply::Verb(Box::new(report))));
        }
        let owned = match self.own_for(agent, verb).await? {
            Some(owned) => owned,
            None => return again(),
        };
        // Read under the lease: no other host moves it from here.
        let Some(row) = self.inner().store.agent(agent).await.map_err(store_error)? else { return again() };
        let held = owned.clone();
        let act = Act { runtime: self, agent, verb, owned, row, started };
        match act.run().await {
            Ok(report) => Ok(Try::Done(AgentReply::Verb(Box::new(report)))),
            Err(Refusal::Call(error)) => Err(error),
            Err(Refusal::Store(StoreError::Fenced { .. })) => {
                self.fenced(&held, verb.name()).await;
                again()
            }
            Err(Refusal::Store(StoreError::NotHome { .. })) => {
                self.inner().directory.lose(agent, held.lease.token);
                again()
            }
            // Its own end of draining, or another verb, has come in between: the table decides about the state that it is in now.
            Err(Refusal::Store(StoreError::Lifecycle { .. })) => {
                sleep(LOADING_PAUSE).await;
                again()
            }
            Err(Refusal::Store(error)) => Err(store_error(error)),
        }
    }

    /// The report of a repeated delete. Nobody takes the lease of what is gone.
    async fn deleted_already(
        &self,
        agent: &AgentId,
        verb: &VerbCall,
        started: Duration,
    ) -> Result<Option<VerbReport>, CallError> {
        if *verb != VerbCall::Delete {
            return Ok(None);
        }
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        let row = row.filter(|row| row.home == Home::Here && row.lifecycle == Lifecycle::Deleted);
        Ok(row.map(|row| {
            let name = row.lifecycle.name().to_owned();
            VerbReport {
                verb: verb.name().to_owned(),
                from: name.clone(),
                to: name,
                generation: row.generation,
                revision: row.revision,
                detail: VerbDetail::Fenced {
                    generation_before: row.generation,
                    token_before: row.token,
                    token: row.token,
                },
                inputs_abandoned: 0,
                inputs_pending: row.open_inputs,
                elapsed: self.inner().clock.boot().saturating_sub(started),
            }
        }))
    }

    /// Takes the lease for a verb that the agent's state allows; `None` when it is another's by now.
    async fn own_for(&self, agent: &AgentId, verb: &VerbCall) -> Result<Option<Owned>, CallError> {
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        row.lifecycle.after(&verb.verb()).map_err(CallError::Illegal)?;
        match self.own(agent).await {
            Ok(owned) => Ok(Some(owned)),
            Err(StoreError::Fenced { .. } | StoreError::NotHome { .. } | StoreError::NoAgent) => {
                sleep(LOADING_PAUSE).await;
                Ok(None)
            }
            Err(StoreError::SessionDead { .. }) => {
                sleep(LOADING_PAUSE).await;
                Ok(None)
            }
            Err(error) => Err(store_error(error)),
        }
    }

    /// Stores a snapshot now.
    pub(crate) async fn checkpoint_here(&self, agent: &AgentId, row: &AgentRow) -> Result<Try, CallError> {
        row.lifecycle.after(&Verb::Checkpoint).map_err(CallError::Illegal)?;
        if row.revision == Revision(0) && !row.lifecycle.runs() {
            let what = String::from("the agent has not been initialized: there is nothing to keep");
            return Err(CallError::Conflict { what });
        }
        let handle = match self.resident(agent).await {
            Ok(handle) => handle,
            Err(StoreError::NotHome { .. } | StoreError::NoAgent | StoreError::Fenced { .. }) => {
                sleep(LOADING_PAUSE).await;
                return Ok(Try::Again { may_be_durable: false });
            }
            Err(error) => return Err(store_error(error)),
        };
        match handle.checkpoint().await {
            Ok(checkpointed) => Ok(Try::Done(AgentReply::Checkpointed(checkpointed))),
            Err(CommandError::Gone) => Ok(Try::Again { may_be_durable: false }),
            Err(CommandError::Loading) => {
                sleep(LOADING_PAUSE).await;
                Ok(Try::Again { may_be_durable: false })
            }
            Err(CommandError::Unknown { reason }) => Err(CallError::Unknown { reason }),
            Err(CommandError::Failed { reason }) => Err(CallError::Unavailable { reason }),
        }
    }
}

/// Why a verb did not do what it was asked.
enum Refusal {
    Call(CallError),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RecoverError> for Refusal {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Refused(refused) => Self::Call(CallError::NotRecovered(refused)),
            RecoverError::Plugin { message } => {
                Self::Call(CallError::Broken { reason: BrokenReason::Plugin { message } })
            }
            RecoverError::Unavailable { reason } => Self::Call(CallError::Unavailable { reason }),
            RecoverError::Store(error) => Self::Store(error),
        }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Self::Call(CallError::Unavailable { reason: error.to_string() })
    }
}

impl Act<'_> {
    async fn run(&self) -> Result<VerbReport, Refusal> {
        match self.verb {
            VerbCall::Pause | VerbCall::Resume | VerbCall::Retire => self.moved().await,
            VerbCall::Recover(recovery) => self.recover(*recovery).await,
            VerbCall::Recycle => self.recycle().await,
            VerbCall::Respawn => self.respawn().await,
            VerbCall::Reset | VerbCall::Delete => self.destroy().await,
            VerbCall::Interrupt => self.interrupt().await,
            VerbCall::Stop { .. } => self.stop().await,
        }
    }

    fn handle(&self) -> Option<Handle> {
        self.runtime.inner().directory.handle(self.agent)
    }

    /// Holds a resident agent at a turn boundary, so that a running turn may commit first.
    async fn hold(&self) -> Option<Frozen> {
        within(HOLD_MAX, self.handle()?.freeze()).await?.ok()
    }

    /// The moment at which the verb is true.
    async fn commit(&self) -> Result<Standing, Refusal> {
        let verb = self.verb.verb();
        let now_ms = self.runtime.now_ms();
        let planned = LifecycleCommit::plan(self.agent, &self.row.lifecycle, &verb, now_ms);
        let commit = planned.map_err(|illegal| Refusal::Call(CallError::Illegal(illegal)))?;
        if self.row.lifecycle.is_terminal() && self.row.open_inputs > 0 {
            let state = self.row.lifecycle.name();
            let reason = format!(
                "stored rows are damaged: agent is {state} and {} inputs are open",
                self.row.open_inputs
            );
            return Err(Refusal::Call(CallError::Internal { reason }));
        }
        failpoint::hit("lifecycle.before-commit");
        let store = &self.runtime.inner().store;
        let standing = store.commit_lifecycle(&self.owned.owner(), commit).await?;
        failpoint::hit("lifecycle.after-commit");
        let (from, to) = (self.row.lifecycle.name(), standing.lifecycle.name());
        tracing::info!(agent = %self.agent, verb = verb.name(), from, to, "lifecycle verb");
        Ok(standing)
    }

    /// Pause, resume, retire: a running turn ends first, then the driver goes; the next one finds the new state.
    async fn moved(&self) -> Result<VerbReport, Refusal> {
        let held = self.hold().await;
        let standing = self.commit().await?;
        match (held, self.handle()) {
            (Some(frozen), _) => frozen.parked().await,
            (None, Some(handle)) => {
                // Its turn takes long. What it does from here is refused by the store.
                self.runtime.inner().tasks.spawn(async move { handle.park().await });
            }
            (None, None) => {}
        }
        if standing.lifecycle.runs() {
            self.runtime.look_at(self.agent, true).await;
        }
        Ok(self.report(&standing, VerbDetail::Moved))
    }

    async fn recycle(&self) -> Result<VerbReport, Refusal> {
        let resident = self.runtime.resident(self.agent).await?;
        resident.recycle().await?;
        self.report_as_is(VerbDetail::Moved).await
    }

    /// The same agent under the next token, rebuilt from what is stored, with a snapshot of its head. One that is stored
    /// already is that snapshot: each carries the token and time of the boundary that made the state, whoever stores it, so
    /// that restoring it is the same wherever it is done. What the raised token fences is its commit.
    async fn respawn(&self) -> Result<VerbReport, Refusal> {
        let held = self.hold().await;
        let standing = self.commit().await?;
        self.take_on(standing.lease.as_ref());
        if let Some(frozen) = held {
            frozen.parked().await;
        }
        failpoint::hit("lifecycle.respawn.after-raise");
        // It is respawned, whatever becomes of the rest: the next turn finds it so.
        if let Err(error) = self.rebuild().await {
            tracing::warn!(agent = %self.agent, %error, "respawned, and not rebuilt yet");
        }
        Ok(self.report(&standing, self.fenced(&standing)))
    }

    async fn rebuild(&self) -> Result<(), CommandError> {
        let failed = |error: StoreError| CommandError::Failed { reason: error.to_string() };
        let handle = self.runtime.resident(self.agent).await.map_err(failed)?;
        if self.row.revision > Revision(0) {
            checkpoint(&handle).await?;
        }
        Ok(())
    }

    /// Reset, delete: whoever acted under the former token is fenced by the commit, so nobody is waited for.
    async fn destroy(&self) -> Result<VerbReport, Refusal> {
        let handle = self.handle();
        let standing = self.commit().await?;
        self.take_on(standing.lease.as_ref());
        if let Some(handle) = handle
            && within(LET_GO_MAX, handle.stop()).await.is_none()
        {
            tracing::warn!(agent = %self.agent, "the former driver has not ended yet; it is fenced");
        }
        if standing.lifecycle.runs() {
            self.runtime.look_at(self.agent, true).await;
        }
        // What the former generation sent is still delivered.
        self.runtime.inner().rescan.notify_one();
        Ok(self.report(&standing, self.fenced(&standing)))
    }

    async fn interrupt(&self) -> Result<VerbReport, Refusal> {
        let end = match self.handle() {
            None => TurnEnd::NothingRan,
            Some(handle) => match handle.interrupt().await {
                Ok(interrupted) => interrupted.into(),
                Err(_) => {
                    let reason = String::from("the turn ended, and what became of its input was not heard");
                    return Err(Refusal::Call(CallError::Unknown { reason }));
                }
            },
        };
        let abandoned = match &end {
            TurnEnd::Abandoned { inputs } => inputs.len() as u64,
            _ => 0,
        };
        let report = self.report_as_is(VerbDetail::Ended(end)).await?;
        Ok(VerbReport { inputs_abandoned: abandoned, ..report })
    }

    /// Pauses first, so that nothing starts again what is ended then.
    async fn stop(&self) -> Result<VerbReport, Refusal> {
        let standing = self.commit().await?;
        let end = match self.handle() {
            None => TurnEnd::NothingRan,
            Some(handle) => handle.stop().await.into(),
        };
        Ok(self.report(&standing, VerbDetail::Ended(end)))
    }

    /// Runs the history again beside the driver, which a broken agent does not have.
    async fn recover(&self, recovery: Recovery) -> Result<VerbReport, Refusal> {
        let Lifecycle::Broken(reason) = self.row.lifecycle.clone() else {
            return self.report_as_is(VerbDetail::Recovered(None)).await;
        };
        let Owned { lease, guard, .. } = &self.owned;
        let recovered = recover(&self.runtime.inner().env, lease, guard.clone(), recovery).await;
        let Recovered { from, turns, outcome } = recovered?;
        self.runtime.look_at(self.agent, true).await;
        let report = RecoverReport { reason, from_snapshot: from, turns, outcome: outcome.into() };
        self.report_as_is(VerbDetail::Recovered(Some(report))).await
    }

    /// Takes up the lease that a raised token left this host with, or lets the agent go: when it is not to run any more, or
    /// when the session under which the token was raised is dead by now.
    fn take_on(&self, lease: Option<&Lease>) {
        let (directory, session) = (&self.runtime.inner().directory, self.runtime.session());
        match lease {
            Some(lease) if lease.incarnation == session.incarnation => {
                directory.enter(lease.clone(), LeaseGuard::new(session.lease.clone(), lease.token));
            }
            _ => directory.lose(self.agent, self.owned.lease.token),
        }
    }

    fn fenced(&self, standing: &Standing) -> VerbDetail {
        VerbDetail::Fenced {
            generation_before: self.row.generation,
            token_before: self.owned.lease.token,
            token: standing.token,
        }
    }

    fn report(&self, standing: &Standing, detail: VerbDetail) -> VerbReport {
        VerbReport {
            verb: self.verb.name().to_owned(),
            from: self.row.lifecycle.name().to_owned(),
            to: standing.lifecycle.name().to_owned(),
            generation: standing.generation,
            revision: standing.revision,
            detail,
            inputs_abandoned: standing.inputs_abandoned,
            inputs_pending: standing.inputs_open,
            elapsed: self.runtime.inner().clock.boot().saturating_sub(self.started),
        }
    }

    /// The report of a verb that leaves the state as it is.
    async fn report_as_is(&self, detail: VerbDetail) -> Result<VerbReport, Refusal> {
        let row = self.runtime.inner().store.agent(self.agent).await?.ok_or(StoreError::NoAgent)?;
        Ok(VerbReport {
            verb: self.verb.name().to_owned(),
            from: self.row.lifecycle.name().to_owned(),
            to: row.lifecycle.name().to_owned(),
            generation: row.generation,
            revision: row.revision,
            detail,
            inputs_abandoned: 0,
            inputs_pending: row.open_inputs,
            elapsed: self.runtime.inner().clock.boot().saturating_sub(self.started),
        })
    }
}

/// Stores a snapshot as soon as the agent has been loaded.
async fn checkpoint(handle: &Handle) -> Result<Checkpointed, CommandError> {
    let mut tries = 0;
    loop {
        match handle.checkpoint().await {
            Err(CommandError::Loading) if tries < CHECKPOINT_TRIES_MAX => {
                tries += 1;
                sleep(LOADING_PAUSE).await;
            }
            done => return done,
        }
    }
}
