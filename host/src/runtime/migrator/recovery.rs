//! Migrations that are open and that nobody acts on: after a restart, or because the other side has fallen silent. What their
//! hosts make of them is decided by `core::migration::recovery`, from the agent's row and the other host's word; nobody guesses.

use std::time::Duration;

use godwit_core::id::{AgentId, FencingToken};
use godwit_core::lifecycle::{LifecycleCommit, Verb};
use godwit_core::migration::handoff::Seat;
use godwit_core::migration::recovery::{
    Became, Have, SourceDoes, SourceFinds, TargetDoes, TargetFinds, source_finds, source_hears, target_finds,
    target_hears,
};
use godwit_core::migration::{Failure, Phase, Role};
use godwit_core::store::{BrokenReason, MigrationRecord, StoreError};
use godwit_core::time::within;

use super::super::Runtime;
use super::super::wire::{MigrationAnswer, MigrationMessage};
use super::{LISTED_MAX, source};

/// Pause between looks at the migrations that are open.
const TEND_PAUSE: Duration = Duration::from_secs(1);
/// Migrations that are looked at in one go; those that are open come first.
const TENDED_MAX: usize = 256;
/// A source that has been silent for so long is asked what became of the migration.
const SILENCE_LONG: Duration = Duration::from_secs(3);
/// What has arrived and is not bound is dropped after so long a silence: longer than any message takes.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the target's word before an agent that was being handed off is taken back.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Pause between tries of a store that does not answer.
const READ_RETRY: Duration = Duration::from_millis(100);

/// The migrations that are open. Read before the host serves anybody, so that none that begins now is among them.
///
/// # Errors
/// As the store's.
pub(crate) async fn open_migrations(runtime: &Runtime) -> Result<Vec<MigrationRecord>, StoreError> {
    let records = runtime.inner().store.migrations(TENDED_MAX).await?;
    Ok(records.into_iter().filter(|record| !record.phase.is_terminal()).collect())
}

/// Settles those that were open when the host stopped, and then, until shutdown, whatever is open and stands still.
pub(crate) async fn tend(runtime: Runtime, mut open: Vec<MigrationRecord>) {
    let shutdown = runtime.inner().tasks.shutdown();
    let starting = runtime.clone();
    runtime.inner().tasks.spawn(async move { forget_left_behind(&starting).await });
    loop {
        for record in open {
            let Some(settling) = runtime.settling(&record) else { continue };
            let runtime = runtime.clone();
            runtime.clone().inner().tasks.spawn(async move {
                settle(&runtime, record).await;
                drop(settling);
            });
        }
        if within(TEND_PAUSE, shutdown.cancelled()).await.is_some() {
            return;
        }
        runtime.forget_silent(SILENCE_MAX).await;
        open = open_migrations(&runtime).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "open migrations can't be read now");
            Vec::new()
        });
    }
}

/// Deletes what agents have left behind that moved away shortly before the host stopped.
async fn forget_left_behind(runtime: &Runtime) {
    let records = match runtime.inner().store.migrations(LISTED_MAX).await {
        Ok(records) => records,
        Err(error) => {
            return tracing::warn!(%error, "what moved away may have left rows behind until the next start");
        }
    };
    let own = runtime.inner().host;
    for record in records {
        if record.role == Role::Source && record.source == own && record.phase == Phase::Complete {
            source::forget(runtime, &record).await;
        }
    }
}

async fn settle(runtime: &Runtime, record: MigrationRecord) {
    let own = runtime.inner().host;
    let is_running = runtime.inner().migrator.outgoing().values().any(|out| out.id == record.id);
    match record.role {
        Role::Source if record.source == own && is_running => {}
        Role::Source if record.source == own => settle_source(runtime, record).await,
        Role::Source => settle_anothers(runtime, record).await,
        Role::Target if record.target == own => settle_target(runtime, record).await,
        // Another host's, on a shared store; it has the copy.
        Role::Target => {}
    }
}

fn by(whom: &str) -> Option<Failure> {
    Some(Failure::Aborted { by: whom.into() })
}

async fn settle_source(runtime: &Runtime, record: MigrationRecord) {
    let (agent, id) = (&record.agent, record.id);
    let Some(seat) = read_seat(runtime, &record).await else { return };
    match source_finds(seat.as_ref(), id) {
        SourceFinds::Passed(token) => {
            source::activate(runtime, &record, token).await;
            source::finish(runtime, record).await;
        }
        SourceFinds::HandedOff if is_forked(runtime, &record).await => {
            tracing::error!(migration = %id, %agent, "the target runs an agent that was never let go: it stays held here");
            runtime.end_record(record, Phase::Failed, Some(Failure::Forked)).await;
        }
        SourceFinds::HandedOff => {
            let Some(token) = back_out(runtime, &record).await else { return };
            tracing::info!(migration = %id, %agent, %token, "migration backed out after a restart");
            runtime.inner().rescan.notify_one();
            call_off_taken_back(runtime, &record).await;
            runtime.end_record(record, Phase::Aborted, by("restart")).await;
        }
        SourceFinds::NotReached => {
            call_off(runtime, &record).await;
            runtime.end_record(record, Phase::Aborted, by("restart")).await;
        }
    }
}

/// Whether the target runs an agent that is handed off here and not let go. It is asked before anything is taken back; one that
/// does not answer in time has no say.
pub(super) async fn is_forked(runtime: &Runtime, record: &MigrationRecord) -> bool {
    let message = MigrationMessage::WhatHaveYou;
    let told = within(ASK_MAX, runtime.tell(record.target, record.id, &record.agent, message)).await;
    let have = told.and_then(Result::ok).and_then(|answer| answer.have());
    source_hears(have) == SourceDoes::Hold
}

/// Tells a target that the agent does not come. Best effort: one that does not hear it asks by itself, and one that runs the agent on
/// an operator's word tells that until it is heard (`adopt`). Answers whether it says that it has the agent.
pub(super) async fn call_off(runtime: &Runtime, record: &MigrationRecord) -> bool {
    let told = runtime.tell(record.target, record.id, &record.agent, MigrationMessage::Abort).await;
    told.ok().and_then(|answer| answer.have()) == Some(Have::Agent)
}

/// As `call_off`, of an agent that was handed off and taken back: a target that runs it on an operator's word has made a second one,
/// and this one, of the lower token, ends.
pub(super) async fn call_off_taken_back(runtime: &Runtime, record: &MigrationRecord) {
    if !call_off(runtime, record).await {
        return;
    }
    if let Err(error) = runtime.break_as_forked(&record.agent).await {
        tracing::error!(agent = %record.agent, %error, "the agent runs at the target as well, and can't be stopped here");
    }
}

impl Runtime {
    /// Breaks an agent at home here that lives on elsewhere, under a higher token: it never runs here again by itself.
    ///
    /// # Errors
    /// As the store's; it is as before then.
    pub(in crate::runtime) async fn break_as_forked(&self, agent: &AgentId) -> Result<(), StoreError> {
        let store = &self.inner().store;
        let row = store.agent(agent).await?.ok_or(StoreError::NoAgent)?;
        let verb = Verb::Break(BrokenReason::Forked);
        let Ok(commit) = LifecycleCommit::plan(agent, &row.lifecycle, &verb, self.now_ms()) else {
            return Ok(());
        };
        let owned = match self.inner().directory.owned(agent) {
            Some(owned) => owned,
            None => self.acquire(agent).await?,
        };
        store.commit_lifecycle(&owned.owner(), commit).await?;
        self.inner().directory.lose(agent, owned.lease.token);
        tracing::error!(%agent, "the agent runs elsewhere as well: it is broken here");
        Ok(())
    }
}

/// Of another host on the shared store. What was given to this host has come to its end, also if the source does not live to
/// write that with the pause, which only it knows; and what its source can't go on with is ended by its deadline.
async fn settle_anothers(runtime: &Runtime, record: MigrationRecord) {
    let Some(seat) = read_seat(runtime, &record).await else { return };
    let holder = seat.as_ref().and_then(|seat| seat.holder);
    match source_finds(seat.as_ref(), record.id) {
        SourceFinds::Passed(_) if holder.is_some_and(|holder| holder.host == runtime.inner().host) => {
            // Unless it can't be known now: the next look tries again.
            if let Ok(None) = runtime.session_of(record.source).await {
                runtime.end_record(record, Phase::Complete, None).await;
            }
        }
        SourceFinds::NotReached if runtime.now_ms() > record.deadline_ms => {
            runtime.end_record(record, Phase::Aborted, by("deadline")).await;
        }
        _ => {}
    }
}

/// Takes an agent back that was being handed off, however often that must be tried: nobody else can. `None` when the host
/// stops before.
async fn back_out(runtime: &Runtime, record: &MigrationRecord) -> Option<FencingToken> {
    let shutdown = runtime.inner().tasks.shutdown();
    while !shutdown.is_cancelled() {
        let incarnation = runtime.session().incarnation;
        match runtime.inner().store.abort_handoff(&record.agent, record.id, incarnation).await {
            Ok(lease) => return Some(lease.token),
            Err(error) => {
                tracing::error!(migration = %record.id, agent = %record.agent, %error, "migration can't be backed out now");
            }
        }
        // The pause ends early at shutdown.
        let _ = within(READ_RETRY, shutdown.cancelled()).await;
    }
    None
}

/// Reads where the agent is. `None` when the store does not answer: the next look tries again.
async fn read_seat(runtime: &Runtime, record: &MigrationRecord) -> Option<Option<Seat>> {
    match runtime.inner().store.agent(&record.agent).await {
        Ok(row) => Some(row.map(|row| row.seat())),
        Err(error) => {
            tracing::warn!(migration = %record.id, agent = %record.agent, %error, "row can't be read now");
            None
        }
    }
}

/// Whether the target of a migration that has passed its commit point may not know it yet, as far as can be told.
pub(super) async fn may_still_wait(runtime: &Runtime, record: &MigrationRecord) -> bool {
    let seat = read_seat(runtime, record).await;
    seat.is_none_or(|seat| matches!(source_finds(seat.as_ref(), record.id), SourceFinds::Passed(_)))
}

/// Settles a migration at its target, as far as that can be done now. What is bound waits for the source's word, however long
/// that takes.
async fn settle_target(runtime: &Runtime, record: MigrationRecord) {
    let (id, agent) = (record.id, record.agent.clone());
    let silence = runtime.silence_of(id);
    let Some(seat) = read_seat(runtime, &record).await else { return };
    match target_finds(seat.as_ref(), id) {
        TargetFinds::Arrived | TargetFinds::Unbound if record.is_forced() => {
            runtime.tell_forced(record).await
        }
        TargetFinds::Arrived => runtime.end_record(record, Phase::Complete, None).await,
        // Nobody can go on with what an earlier process received.
        TargetFinds::Unbound if silence.is_none() => runtime.discard_unbound(record, "restart").await,
        TargetFinds::Unbound if runtime.now_ms() > record.deadline_ms => {
            runtime.discard_unbound(record, "deadline").await;
        }
        TargetFinds::Bound(_) | TargetFinds::Unbound if silence.is_some_and(|time| time < SILENCE_LONG) => {}
        TargetFinds::Unbound => {
            if target_hears(ask_source(runtime, &record).await) == TargetDoes::Discard {
                runtime.discard_unbound(record, "source").await;
            }
        }
        TargetFinds::Bound(token) => match target_hears(ask_source(runtime, &record).await) {
            TargetDoes::Adopt => {
                let answer = runtime.activate_here(record, token).await;
                tracing::info!(migration = %id, %agent, ?answer, "bound copy settled on the source's word");
            }
            TargetDoes::Discard => runtime.discard(record, "source").await,
            TargetDoes::Wait => {
                tracing::warn!(migration = %id, %agent, "agent is in doubt until its source answers");
            }
        },
    }
}

async fn ask_source(runtime: &Runtime, record: &MigrationRecord) -> Option<Became> {
    let told =
        runtime.tell(record.source, record.id, &record.agent, MigrationMessage::WhatBecame).await.ok()?;
    match &told {
        MigrationAnswer::Refused { reason, .. } => {
            tracing::warn!(migration = %record.id, reason, "the source does not say what became of it");
            None
        }
        answer => answer.became(),
    }
}
