//! The source of a migration: it coordinates. `run` reads top to bottom as the protocol; a failpoint stands in each gap.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, HostId, MigrationId, Revision};
use godwit_core::mesh::{PROTOCOLS, Sent};
use godwit_core::migration::recovery::{SourceFinds, may_cut_over, source_finds};
use godwit_core::migration::{Failure, Phase, Refusal, Role};
use godwit_core::placement::Wants;
use godwit_core::retry::{Backoff, Retry, Retryable};
use godwit_core::store::{AgentImage, Handoff, Lifecycle, MigrationRecord, StoreError};
use godwit_core::time::{sleep, within};
use tokio::sync::oneshot;

use super::super::Runtime;
use super::super::call::CallError;
use super::super::routing::store_error;
use super::super::wire::{
    self, BulkHeader, MigrationAnswer, MigrationMessage, PeerAnswer, Preparation, Reservation,
};
use super::{Course, LISTED_MAX, MESSAGE_MAX, Outgoing, recovery, refused_by_store, unreachable};
use crate::runtime::operations::Still;

mod hold;
mod rows;

use hold::Held;

/// Longest wait for a turn boundary.
const FREEZE_MAX: Duration = Duration::from_secs(5);
/// How long a target that can't be reached is tried again. One that stays silent gets one message.
const REACH_MAX: Duration = Duration::from_secs(3);
/// First and longest pause before a target that is not ready is asked again, and how long that goes on.
const READY_PAUSE: Duration = Duration::from_millis(500);
const READY_PAUSE_MAX: Duration = Duration::from_secs(16);
const READY_MAX: Duration = Duration::from_secs(30);
/// Pause between tries of a store that does not answer.
const STORE_RETRY: Duration = Duration::from_millis(100);
/// A journal that is run again so quickly, and is so short, is left as it is.
const TAIL_QUICK: Duration = Duration::from_millis(5);
const TAIL_SHORT: usize = 500;
/// Longest single transfer of rows or of a component: it goes on where it was when its line has been broken, for as long as the
/// target keeps what has arrived.
const BULK_MAX: Duration = Duration::from_secs(60);
/// The same while the agent stands still: rather than that, it goes on here.
const BULK_FROZEN_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the target to bind the copy, with the rows that are still left: rather than that, the agent goes on here.
const PREPARED_MAX: Duration = Duration::from_secs(15);

impl Runtime {
    /// Starts moving an agent that is at home here. Answers at once; the record tells how it goes.
    pub(crate) async fn migrate_from_here(
        &self,
        agent: &AgentId,
        to: &str,
    ) -> Result<MigrationId, CallError> {
        let target = self.find_host(to).await?;
        self.migrate_to(agent, target).await
    }

    /// As `migrate_from_here`, to a host by its key.
    pub(crate) async fn migrate_to(&self, agent: &AgentId, target: HostId) -> Result<MigrationId, CallError> {
        if target == self.inner().host {
            return Err(CallError::Conflict { what: format!("agent {agent} is already on this host") });
        }
        // Before the record: taking the lease would close a migration that is open already.
        let token = self.own(agent).await.map_err(store_error)?.lease.token;
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        if row.is_some_and(|row| row.lifecycle == Lifecycle::Deleted) {
            return Err(CallError::Deleted);
        }
        let now_ms = self.now_ms();
        let id = MigrationId::generate(now_ms, self.inner().clock.random());
        let course = Arc::new(Course::default());
        let outgoing = Outgoing { id, target, course: course.clone() };
        {
            let mut running = self.inner().migrator.outgoing();
            match running.get(agent) {
                Some(open) if open.target == target => return Ok(open.id),
                Some(Outgoing { id: migration, target, .. }) => {
                    let (agent, migration, target) = (agent.clone(), *migration, *target);
                    return Err(CallError::AlreadyMigrating { agent, migration, target });
                }
                None => drop(running.insert(agent.clone(), outgoing)),
            }
        }
        let record = MigrationRecord {
            id,
            agent: agent.clone(),
            role: Role::Source,
            source: self.inner().host,
            target,
            phase: Phase::Reserve,
            failure: None,
            rounds: 0,
            bytes: 0,
            pause_us: None,
            started_at_ms: now_ms,
            deadline_ms: deadline_ms(now_ms, Phase::Reserve),
        };
        let source = Source {
            runtime: self.clone(),
            record,
            course,
            token,
            protocol: *PROTOCOLS.start(),
            sent: 0,
            digest: RunningDigest::default(),
            snapshots: 0,
            warmed: 0,
            frozen_at: None,
            laps: Vec::new(),
            still: None,
        };
        // A caller that goes leaves the migration recorded and run, or neither.
        let (recorded, answer) = oneshot::channel();
        self.inner().tasks.spawn(source.begin(recorded));
        let stopping = Err(StoreError::Closed { reason: "the host is stopping".into() });
        match answer.await.unwrap_or(stopping) {
            Ok(()) => Ok(id),
            Err(StoreError::Conflict { what }) => self.already_open(agent, target, what).await,
            Err(error) => Err(store_error(error)),
        }
    }

    /// The store has an open record of the agent, which nobody here acts on: it is settled soon.
    async fn already_open(
        &self,
        agent: &AgentId,
        target: HostId,
        what: String,
    ) -> Result<MigrationId, CallError> {
        let records = self.inner().store.migrations(LISTED_MAX).await.map_err(store_error)?;
        let open = records.into_iter().find(|record| {
            record.agent == *agent && record.role == Role::Source && !record.phase.is_terminal()
        });
        match open {
            Some(open) if open.target == target => Ok(open.id),
            Some(MigrationRecord { id: migration, target, agent, .. }) => {
                Err(CallError::AlreadyMigrating { agent, migration, target })
            }
            None => Err(CallError::Conflict { what }),
        }
    }
}

/// Why a migration did not reach its commit point, or why that is not known.
enum Stopped {
    /// The agent is still this host's.
    Failed(Failure),
    /// The row could not be read before the host stopped.
    InDoubt,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One migration at its source.
struct Source {
    runtime: Runtime,
    record: MigrationRecord,
    course: Arc<Course>,
    /// The agent's when the migration began.
    token: FencingToken,
    /// The version that the target understands.
    protocol: u8,
    /// Highest change number that the target has.
    sent: u64,
    digest: RunningDigest,
    /// Bundles with a snapshot that the target has, and that it had when it built a guest.
    snapshots: u32,
    warmed: u32,
    /// Boot time of the freeze: the pause counts from here.
    frozen_at: Option<Duration>,
    /// What the pause consists of: when each step of it was done.
    laps: Vec<(&'static str, Duration)>,
    /// Held from before the freeze to the end: the agent's operations stand still.
    still: Option<Still>,
}

impl Source {
    /// Records the migration, says so, and runs it.
    async fn begin(self, recorded: oneshot::Sender<Result<(), StoreError>>) {
        let put = self.put_record().await;
        let is_recorded = put.is_ok();
        // The caller may be gone.
        drop(recorded.send(put));
        if is_recorded {
            self.live().await;
        } else {
            self.runtime.inner().migrator.outgoing().remove(&self.record.agent);
        }
    }

    /// Writes the first record. After an unknown outcome it is written again until the store says how it stands: a record
    /// that is open and that nobody acts on would keep the agent from every other migration.
    async fn put_record(&self) -> Result<(), StoreError> {
        let mut may_be_recorded = false;
        loop {
            let put = self.runtime.inner().store.put_migration(self.record.clone()).await;
            match put {
                Err(error)
                    if error.retry() == Retry::ReadBack
                        || may_be_recorded && error.retry() == Retry::Later =>
                {
                    may_be_recorded = true;
                    if self.pause().await.is_err() {
                        // The next start settles it.
                        return Err(error);
                    }
                }
                put => return put,
            }
        }
    }

    async fn live(mut self) {
        let (id, agent, target) = (self.record.id, self.record.agent.clone(), self.record.target);
        let runtime = self.runtime.clone();
        let ran = self.run().await;
        // Wherever the agent is now, its operations may go on there.
        self.still = None;
        match ran {
            Ok(token) => {
                runtime.inner().hints.learn(&agent, target);
                self.complete(token).await;
            }
            Err(Stopped::Failed(failure)) => {
                tracing::warn!(migration = %id, %agent, %failure, "migration failed");
                // Whoever has come so far has handed it off, and taken it back.
                if self.record.phase == Phase::Cutover {
                    recovery::call_off_taken_back(&runtime, &self.record).await;
                } else {
                    recovery::call_off(&runtime, &self.record).await;
                }
                let is_abort = matches!(failure, Failure::Aborted { .. });
                let phase = if is_abort { Phase::Aborted } else { Phase::Failed };
                runtime.end_record(self.record, phase, Some(failure)).await;
            }
            // Nobody is told anything: the record stays open, and the next start reads the row.
            Err(Stopped::InDoubt) => {
                tracing::warn!(migration = %id, %agent, "migration is in doubt until the next start");
            }
        }
        runtime.inner().migrator.outgoing().remove(&agent);
    }

    /// Everything up to and with the commit point. Answers the token that the target holds.
    async fn run(&mut self) -> Result<FencingToken, Stopped> {
        let is_shared = self.is_shared().await?;
        let held = self.approach(is_shared).await?;
        // From here on each step has its own bound, and backing out is a step of its own: nothing may cut it short.
        self.enter(Phase::Cutover).await?;
        if !self.course.decide() {
            return Err(called_off().into());
        }
        if is_shared { self.transfer_lease(held).await } else { self.hand_off(held).await }
    }

    /// Everything before the commit point; dropping it leaves the agent running here.
    async fn approach(&mut self, is_shared: bool) -> Result<Held, Failure> {
        bounded(Phase::Reserve, self.reserve(is_shared)).await?;
        failpoint::hit("migration.source.after-reserve");

        self.enter(Phase::Transfer).await?;
        if !is_shared {
            bounded(Phase::Transfer, self.transfer()).await?;
        }
        failpoint::hit("migration.source.after-transfer");

        self.enter(Phase::Restore).await?;
        bounded(Phase::Restore, self.warm_up(is_shared)).await?;
        failpoint::hit("migration.source.after-restore");

        self.enter(Phase::Replay).await?;
        let held = bounded(Phase::Replay, self.catch_up(is_shared)).await?;
        failpoint::hit("migration.source.after-replay");
        self.lap("replay");
        Ok(held)
    }

    /// A guest is built at the target while the agent works.
    async fn warm_up(&mut self, is_shared: bool) -> Result<(), Failure> {
        self.warm(is_shared).await?;
        if is_shared { Ok(()) } else { self.until_quick().await }
    }

    /// Has the target build a guest of the newest snapshot that it has, unless it has done so: none is built while the agent stands
    /// still, if that can be helped.
    async fn warm(&mut self, is_shared: bool) -> Result<(), Failure> {
        // An agent that has only just come into being may have had nothing to restore when its rows were read.
        let row = self.row().await?;
        if row.lifecycle.rests() || !is_shared && self.snapshots == self.warmed {
            return Ok(());
        }
        self.warmed = self.snapshots;
        self.restore(row.revision).await
    }

    /// The agent is held at a boundary, and the target gets what it has done since.
    async fn catch_up(&mut self, is_shared: bool) -> Result<Held, Failure> {
        // The agent goes on with its turns meanwhile.
        self.still = Some(self.runtime.still_operations(&self.record.agent).await);
        if !is_shared {
            return self.freeze_with_little_left().await;
        }
        let held = self.freeze().await?;
        if let Held::AtBoundary(frozen) = &held {
            self.restore(frozen.revision).await?;
        }
        Ok(held)
    }

    /// Records the next phase, unless somebody has ended the migration.
    async fn enter(&mut self, phase: Phase) -> Result<(), Failure> {
        self.check_wanted()?;
        self.record.phase = phase;
        self.record.deadline_ms = deadline_ms(self.runtime.now_ms(), phase);
        // While the agent is frozen, callers wait: the row decides, so the record may follow later.
        if self.frozen_at.is_none() {
            self.runtime.record(&self.record).await;
        }
        Ok(())
    }

    fn check_wanted(&self) -> Result<(), Failure> {
        if self.course.is_called_off() {
            return Err(called_off());
        }
        if self.runtime.inner().tasks.is_ending() {
            return Err(Failure::Aborted { by: "shutdown".into() });
        }
        Ok(())
    }

    fn target(&self) -> HostId {
        self.record.target
    }

    async fn tell(&self, message: MigrationMessage) -> Result<MigrationAnswer, Failure> {
        let told = self.runtime.tell(self.target(), self.record.id, &self.record.agent, message).await;
        said(told.map_err(|error| unreachable(&error))?)
    }

    /// Whether the target has a session on this host's store.
    async fn is_shared(&self) -> Result<bool, Failure> {
        let session =
            self.runtime.session_of(self.target()).await.map_err(|error| refused_by_store(&error))?;
        if let Some(session) = &session {
            // It may have joined since the last heartbeat.
            self.runtime.inner().mesh.add_peer(session.host, session.mesh);
        }
        Ok(session.is_some())
    }

    async fn reserve(&mut self, is_shared: bool) -> Result<(), Failure> {
        let inner = self.runtime.inner();
        let owned = self.runtime.own(&self.record.agent).await.map_err(|error| refused_by_store(&error))?;
        let image =
            inner.store.image(&self.record.agent, None).await.map_err(|error| refused_by_store(&error))?;
        let image = image.ok_or(Failure::Fenced)?;
        if !image.row.lifecycle.rests() && is_long(&image) {
            self.shorten_tail().await;
        }
        let plugin =
            image.plugin.ok_or_else(|| Failure::PluginUnavailable { reason: "not stored here".into() })?;
        if !may_cut_over(self.token, owned.lease.token) {
            return Err(Failure::Fenced);
        }
        let reservation = Reservation {
            token: self.token,
            generation: image.row.generation,
            revision: image.row.revision,
            plugin: plugin.clone(),
            residency: Wants::of(&image.spec, &image.row.labels).residency,
            public_key: image.row.public_key,
            spec: image.spec,
            is_shared,
            deadline_ms: self.record.deadline_ms,
        };
        let reached = self.reach(reservation).await?;
        let protocol = inner.mesh.protocol(self.target(), MESSAGE_MAX).await;
        self.protocol = protocol.map_err(|error| unreachable(&error))?;
        match reached {
            MigrationAnswer::NeedsPlugin => {
                let component = inner.store.component(plugin.digest).await;
                let component = component.map_err(|error| refused_by_store(&error))?;
                let missing =
                    || Failure::PluginUnavailable { reason: "its component is not stored here".into() };
                let header = BulkHeader::Plugin { id: self.record.id, plugin };
                let component = component.ok_or_else(missing)?;
                self.record.bytes += component.len() as u64;
                self.send_bulk(header, component).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What is journaled behind the newest snapshot is run again at the target before it takes its first input: so it begins with
    /// little. The agent's callers wait for the snapshot as well.
    async fn shorten_tail(&self) {
        let Ok(handle) = self.runtime.resident(&self.record.agent).await else { return };
        if let Err(error) = handle.checkpoint().await {
            tracing::debug!(agent = %self.record.agent, %error, "no snapshot before the move");
        }
    }

    /// The first message to the target. A connection that was open before the target was started again is found dead only by
    /// using it, so a target that can't be reached is tried again, for a while; one that is not ready for longer.
    async fn reach(&self, reservation: Reservation) -> Result<MigrationAnswer, Failure> {
        let clock = &self.runtime.inner().clock;
        let began = clock.boot();
        let mut unreachable = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut not_ready = Backoff::new(READY_PAUSE, READY_PAUSE_MAX);
        loop {
            let told = self.tell(MigrationMessage::Reserve(Box::new(reservation.clone()))).await;
            let [random] = clock.random();
            let (pause, limit) = match &told {
                Err(Failure::PeerUnreachable { .. }) => (unreachable.delay(random), REACH_MAX),
                Err(Failure::NotReady { .. }) => (not_ready.delay(random), READY_MAX),
                _ => return told,
            };
            if clock.boot() + pause >= began + limit {
                return told;
            }
            sleep(pause).await;
            self.check_wanted()?;
        }
    }

    /// Answers the digest of what was sent.
    async fn send_bulk(&self, header: BulkHeader, body: Bytes) -> Result<Digest, Failure> {
        let mesh = &self.runtime.inner().mesh;
        let header = wire::encode_in(self.protocol, &header);
        let most = if self.frozen_at.is_some() { BULK_FROZEN_MAX } else { BULK_MAX };
        let sent = mesh.send_bulk(self.record.target, header, body, most).await;
        let Sent { answer, digest } = sent.map_err(|error| unreachable(&error))?;
        let odd = |reason: String| Failure::Refused { why: Refusal::Protocol, reason };
        match wire::decode::<PeerAnswer>(&answer) {
            Ok(PeerAnswer::Migration(answer)) if said(answer.clone())? == MigrationAnswer::Ok => Ok(digest),
            Ok(_) => Err(odd("another kind of answer".into())),
            Err(reason) => Err(odd(reason)),
        }
    }

    async fn restore(&self, revision: Revision) -> Result<(), Failure> {
        match self.tell(MigrationMessage::Restore { revision }).await? {
            MigrationAnswer::Restored { .. } => Ok(()),
            other => Err(Failure::StateFailed { reason: format!("the target answered {other:?}") }),
        }
    }

    fn lap(&mut self, step: &'static str) {
        let since = self.frozen_at.map(|at| self.runtime.inner().clock.boot().saturating_sub(at));
        self.laps.extend(since.map(|since| (step, since)));
    }

    /// The commit point of hosts that share the store: one transaction.
    async fn transfer_lease(&mut self, held: Held) -> Result<FencingToken, Stopped> {
        let store = self.runtime.inner().store.clone();
        let transferred = store.transfer(held.owner(), held.revision(), self.record.id, self.target()).await;
        failpoint::hit("migration.source.after-transferred");
        let failure = match transferred {
            Ok(lease) => {
                self.let_go(held).await;
                return Ok(lease.token);
            }
            Err(error) => refused_by_store(&error),
        };
        // Whatever the write said, the row knows.
        let row = self.until_read(|| store.agent(&self.record.agent)).await?;
        match source_finds(row.map(|row| row.seat()).as_ref(), self.record.id) {
            SourceFinds::Passed(token) => {
                self.let_go(held).await;
                Ok(token)
            }
            SourceFinds::HandedOff | SourceFinds::NotReached => Err(Stopped::Failed(failure)),
        }
    }

    /// The commit point of hosts with stores of their own: see `RuntimeStore`'s handoff.
    async fn hand_off(&mut self, held: Held) -> Result<FencingToken, Stopped> {
        let agent = self.record.agent.clone();
        let store = self.runtime.inner().store.clone();
        let begun = store.begin_handoff(held.owner(), held.revision(), self.record.id, self.target()).await;
        failpoint::hit("migration.source.after-handing-off");
        self.lap("handing-off");
        let Handoff { granted, change } = match begun {
            Ok(handoff) => handoff,
            Err(error) => return self.back_out(held, refused_by_store(&error)).await,
        };
        let prepared = within(PREPARED_MAX, self.prepare(&held, granted, change)).await;
        let prepared = prepared.unwrap_or(Err(Failure::Timeout { phase: Phase::Cutover }));
        failpoint::hit("migration.source.after-prepared");
        self.lap("prepared");
        if let Err(failure) = prepared {
            return self.back_out(held, failure).await;
        }
        let moved = store.finish_handoff(&agent, self.record.id).await;
        failpoint::hit("migration.source.after-moved");
        self.lap("moved");
        match moved {
            Ok(()) => {
                self.let_go(held).await;
                self.lap("let go");
                Ok(granted)
            }
            Err(error) => self.back_out(held, refused_by_store(&error)).await,
        }
    }

    /// Backs out of a handoff, unless the row says that it has moved: then it has. A row in `HandingOff` is taken back under
    /// a token above the granted one, however often that must be tried; until the row is known nobody is told anything.
    async fn back_out(&self, held: Held, failure: Failure) -> Result<FencingToken, Stopped> {
        let store = self.runtime.inner().store.clone();
        let (agent, id) = (&self.record.agent, self.record.id);
        loop {
            let row = self.until_read(|| store.agent(agent)).await?;
            match source_finds(row.map(|row| row.seat()).as_ref(), id) {
                SourceFinds::Passed(token) => {
                    self.let_go(held).await;
                    return Ok(token);
                }
                SourceFinds::HandedOff if recovery::is_forked(&self.runtime, &self.record).await => {
                    self.let_go(held).await;
                    return Err(Stopped::Failed(Failure::Forked));
                }
                SourceFinds::HandedOff => {
                    let incarnation = self.runtime.session().incarnation;
                    if let Err(error) = store.abort_handoff(agent, id, incarnation).await {
                        tracing::error!(%agent, %error, "migration can't be backed out now");
                        self.pause().await?;
                        continue;
                    }
                    tracing::info!(%agent, "migration backed out");
                }
                SourceFinds::NotReached => {}
            }
            self.let_go(held).await;
            self.runtime.inner().rescan.notify_one();
            return Err(Stopped::Failed(failure));
        }
    }

    /// Reads until the store answers, or the host stops.
    async fn until_read<T, F>(&self, read: impl Fn() -> F) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match read().await {
                Ok(value) => return Ok(value),
                Err(error) => tracing::error!(agent = %self.record.agent, %error, "row can't be read now"),
            }
            self.pause().await?;
        }
    }

    async fn pause(&self) -> Result<(), Stopped> {
        let shutdown = self.runtime.inner().tasks.shutdown();
        match within(STORE_RETRY, shutdown.cancelled()).await {
            Some(()) => Err(Stopped::InDoubt),
            None => Ok(()),
        }
    }

    /// Sends the last rows, up to a change number, which the target binds and restores at the same time.
    async fn prepare(&mut self, held: &Held, granted: FencingToken, newest: u64) -> Result<(), Failure> {
        let frames = self.last_rows(newest).await?;
        let preparation = Preparation {
            granted,
            generation: held.owner().generation,
            revision: held.revision(),
            frames,
            bundle: self.digest.finish(),
        };
        match self.tell(MigrationMessage::Prepare(Box::new(preparation))).await? {
            MigrationAnswer::Prepared { bundle } if bundle == self.digest.finish() => Ok(()),
            MigrationAnswer::Prepared { .. } => {
                Err(Failure::StateFailed { reason: "the target received other bytes than were sent".into() })
            }
            other => Err(Failure::StateFailed { reason: format!("the target answered {other:?}") }),
        }
    }

    /// After the commit point it always finishes: the target is told until it has heard.
    async fn complete(mut self, token: FencingToken) {
        activate(&self.runtime, &self.record, token).await;
        self.lap("activated");
        tracing::debug!(migration = %self.record.id, laps = ?self.laps, "what the pause consisted of");
        let pause = self.laps.last().map(|(_, pause)| *pause);
        self.record.pause_us = pause.map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        // Not before: it writes to the same disk, and callers wait for the target.
        if let Err(error) = self.runtime.note_head().await {
            let agent = &self.record.agent;
            tracing::error!(%agent, %error, "a backup of before this migration would not be recognized");
        }
        finish(&self.runtime, self.record.clone()).await;
    }
}

/// What the target said, unless that is a no.
fn said(answer: MigrationAnswer) -> Result<MigrationAnswer, Failure> {
    match answer {
        MigrationAnswer::Refused { why, reason } => Err(Failure::Refused { why, reason }),
        MigrationAnswer::NotReady { reason } => Err(Failure::NotReady { reason }),
        MigrationAnswer::IdentityFailed { reason } => Err(Failure::IdentityTransportFailed { reason }),
        MigrationAnswer::StateFailed { reason } => Err(Failure::StateFailed { reason }),
        MigrationAnswer::Diverged { reason } => Err(Failure::Diverged { reason }),
        answer => Ok(answer),
    }
}

/// An operator's word before the commit point.
fn called_off() -> Failure {
    Failure::Aborted { by: "operator".into() }
}

/// Whether running what is journaled again takes longer than callers notice.
fn is_long(image: &AgentImage) -> bool {
    let journaled = image.receipts.iter().filter(|receipt| image.journal.contains_key(&receipt.revision));
    let again = Duration::from_micros(journaled.map(|receipt| receipt.elapsed_us).sum());
    again > TAIL_QUICK || image.journal.len() > TAIL_SHORT
}

/// Takes a step within its phase's time.
async fn bounded<T>(
    phase: Phase,
    step: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    match phase.time_max() {
        Some(most) => within(most, step).await.unwrap_or(Err(Failure::Timeout { phase })),
        None => step.await,
    }
}

/// Until when a phase may take that begins now. The one without a bound of its own keeps the one of before in its record.
fn deadline_ms(now_ms: u64, phase: Phase) -> u64 {
    let most = phase.time_max().or(Phase::Replay.time_max()).unwrap_or_default();
    now_ms + u64::try_from(most.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the target that the agent is its own, until it answers, this host stops, or the agent's row says something else: the
/// agent has come back by another way, so its target has had it.
pub(in crate::runtime) async fn activate(runtime: &Runtime, record: &MigrationRecord, token: FencingToken) {
    let shutdown = runtime.inner().tasks.shutdown();
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    while !shutdown.is_cancelled() {
        let message = MigrationMessage::Activate { token };
        let told = within(MESSAGE_MAX, runtime.tell(record.target, record.id, &record.agent, message)).await;
        match told {
            Some(Ok(MigrationAnswer::Activated)) => return,
            other => tracing::warn!(migration = %record.id, answer = ?other, "target has not activated yet"),
        }
        if !recovery::may_still_wait(runtime, record).await {
            return;
        }
        let [random] = runtime.inner().clock.random();
        // The pause ends early at shutdown.
        let _ = within(backoff.delay(random), shutdown.cancelled()).await;
    }
}

/// Records the end, and deletes what the agent left behind.
pub(super) async fn finish(runtime: &Runtime, record: MigrationRecord) {
    if runtime.inner().tasks.is_ending() {
        return;
    }
    let MigrationRecord { id, agent, target, pause_us, .. } = &record;
    tracing::info!(migration = %id, %agent, %target, pause_us, "migrated");
    runtime.end_record(record.clone(), Phase::Complete, None).await;
    failpoint::hit("migration.source.before-forgotten");
    forget(runtime, &record).await;
}

/// Deletes what an agent left behind that has moved away: all but a forwarding address.
pub(super) async fn forget(runtime: &Runtime, record: &MigrationRecord) {
    match runtime.inner().store.forget_moved(&record.agent, record.id).await {
        Ok(()) | Err(StoreError::NotHome { .. } | StoreError::Conflict { .. }) => {}
        Err(error) => {
            tracing::warn!(agent = %record.agent, %error, "rows of a moved agent stay until the next start");
        }
    }
}

#[cfg(test)]
mod tests;
