//! The source of a warm copy: a task for each guarded agent sends a whole copy, and then what changes, in rounds.
//!
//! Every round is one read and, at the standby, one transaction: so what stands by is the agent as of one change number, always. A
//! process begins with a whole copy, also when its standby has one of before: which deletes that one knows of is not remembered.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, MigrationId};
use godwit_core::placement::Wants;
use godwit_core::retry::Backoff;
use godwit_core::store::standby::Delta;
use godwit_core::store::{AgentRow, Row, RowFrame, StoreError};
use godwit_core::time::within;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::copies::ROWS_MAX;
use super::{AGENTS_AT_ONCE, Fed, HELD_ASKED_AT_ONCE, LastRound, MESSAGE_MAX, lock};
use crate::runtime::migrator::Passage;
use crate::runtime::wire::{
    self, BulkHeader, PeerAnswer, StandbyAnswer, StandbyMessage, StandbyPlace, StandbyStart,
};
use crate::runtime::{Runtime, STOPPING};

/// Pause between looks for agents that are guarded, or are no more.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Copies of others' agents are looked through once in so many of those.
const LOOKS_PER_SWEEP: u64 = 10;
/// Standbys of agents that are not copied are asked once in so many: as often as by an agent in which nothing changes.
const LOOKS_PER_ASKING: u64 = IDLE_ASK.as_secs() / LOOK_PAUSE.as_secs();
/// Pause between rounds: how old a copy is at most, when its standby keeps up.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// First and longest pause after a round that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(200);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Agents that one host copies. Each holds up to a round in memory, `ROUNDS_AT_ONCE` of them at a time.
pub(super) const FED_MAX: usize = 256;
/// Rounds under way, and whole copies: a standby that is slow to take one holds up no rounds of others.
const ROUNDS_AT_ONCE: usize = 4;
const WHOLE_AT_ONCE: usize = 2;
/// Rows of a round in bytes: the largest snapshot, and what a turn writes beside it.
const ROUND_BYTES_MAX: usize = 20 << 20;
/// Rows of one bundle of a whole copy in bytes.
const BUNDLE_BYTES: usize = 2 << 20;
/// Longest single transfer of rows or of a component.
const BULK_MAX: Duration = Duration::from_secs(30);
/// A whole copy that takes longer is begun anew.
const WHOLE_MAX: Duration = Duration::from_secs(600);
/// Deletes that a standby has heard of are forgotten when there are so many.
const DELETES_FORGOTTEN_AT: usize = 1_000;
/// Deletes are not kept for longer than this for a standby that does not answer: it gets a whole copy then.
const DELETES_KEPT: Duration = Duration::from_secs(600);
/// An agent in which nothing changes asks its standby so often whether it still may.
const IDLE_ASK: Duration = Duration::from_secs(5);

/// Why a round was not made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the store can't be read: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Peer(String),
    #[error("the standby refuses: {0}")]
    Refused(String),
    #[error("a whole copy has taken longer than {} s", WHOLE_MAX.as_secs())]
    TooSlow,
    #[error("the copy at the standby is another one than was sent")]
    Behind,
    /// The agent lives elsewhere.
    #[error("the agent was promoted at its standby")]
    Promoted(FencingToken),
}

/// A whole copy, with the rounds behind it.
#[derive(Debug, Clone, Copy)]
struct Session {
    id: MigrationId,
    /// The plugin whose component the standby has: one of another needs a session of its own.
    plugin: Digest,
}

/// What the standby has of an agent.
#[derive(Debug, Clone, Copy)]
struct Copied {
    session: Session,
    generation: Generation,
    change: u64,
}

/// Places for what is under way.
#[derive(Clone)]
struct Room {
    rounds: Arc<Semaphore>,
    whole: Arc<Semaphore>,
}

/// Copies guarded agents until shutdown.
pub(crate) async fn feed(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    let room = Room {
        rounds: Arc::new(Semaphore::new(ROUNDS_AT_ONCE)),
        whole: Arc::new(Semaphore::new(WHOLE_AT_ONCE)),
    };
    let workers = Arc::new(Mutex::new(BTreeSet::new()));
    let asking = Arc::new(Semaphore::new(1));
    let mut looks: u64 = 0;
    loop {
        match guarded(&runtime).await {
            Err(error) => tracing::warn!(%error, "guarded agents can't be read now"),
            Ok(Guarded { fed, others }) => {
                if !others.is_empty()
                    && looks.is_multiple_of(LOOKS_PER_ASKING)
                    && let Ok(turn) = asking.clone().try_acquire_owned()
                {
                    let asker = runtime.clone();
                    runtime.inner().tasks.spawn(async move {
                        asker.ask_about(others).await;
                        drop(turn);
                    });
                }
                for (row, standby) in fed {
                    if !lock(&workers).insert(row.agent.clone()) {
                        continue;
                    }
                    let feeder = Feeder::new(&runtime, row.agent, standby, room.clone());
                    let (workers, agent) = (workers.clone(), feeder.agent.clone());
                    runtime.inner().tasks.spawn(async move {
                        feeder.run().await;
                        lock(&workers).remove(&agent);
                    });
                }
            }
        }
        if looks.is_multiple_of(LOOKS_PER_SWEEP) {
            runtime.forget_stale_copies().await;
        }
        looks += 1;
        if within(LOOK_PAUSE, shutdown.cancelled()).await.is_some() {
            return;
        }
    }
}

/// The agents that have a standby.
#[derive(Default)]
struct Guarded {
    /// Those that are to be copied, as many as may.
    fed: Vec<(AgentRow, HostId)>,
    /// The others. A copy of before may be promoted all the same.
    others: Vec<(AgentId, HostId)>,
}

async fn guarded(runtime: &Runtime) -> Result<Guarded, StoreError> {
    let (mut guarded, mut after) = (Guarded::default(), None::<AgentId>);
    loop {
        let rows = runtime.inner().store.guarded(after.as_ref(), AGENTS_AT_ONCE).await?;
        let Some(last) = rows.last() else { return Ok(guarded) };
        after = Some(last.agent.clone());
        for row in rows {
            let Some(standby) = runtime.standby_of(&row) else { continue };
            if guarded.fed.len() < FED_MAX {
                guarded.fed.push((row, standby));
            } else {
                let trouble = Some(format!("this host copies {FED_MAX} agents already"));
                lock(&runtime.inner().standbys.fed).insert(row.agent.clone(), Fed { round: None, trouble });
                guarded.others.push((row.agent, standby));
            }
        }
    }
}

impl Runtime {
    /// Asks about agents that are not copied whether they may run. Without an answer they do.
    async fn ask_about(&self, agents: Vec<(AgentId, HostId)>) {
        let shutdown = self.inner().tasks.shutdown();
        let asked = agents.into_iter().map(|(agent, standby)| self.ask_about_one(agent, standby));
        let asking = futures::stream::iter(asked).buffer_unordered(HELD_ASKED_AT_ONCE).collect::<()>();
        // Cancel safe: they are asked about again after the next start, before they run.
        let _ = shutdown.run_until_cancelled(asking).await;
    }

    async fn ask_about_one(&self, agent: AgentId, standby: HostId) {
        let is_held = self.inner().standbys.holder_of(&agent).is_some();
        let row = self.inner().store.agent(&agent).await.ok().flatten();
        // Nobody has promoted what nobody has owned; what moves begins anew at its next home.
        let is_asked = |row: &AgentRow| row.token > FencingToken(0) && self.standby_of(row) == Some(standby);
        let Some(row) = row.filter(is_asked).filter(|_| !is_held && !self.is_migrating(&agent)) else {
            return;
        };
        let may = StandbyMessage::May { token: row.token };
        if let Ok(StandbyAnswer::Superseded { token }) = self.tell_standby(standby, &agent, may).await {
            self.break_promoted(&agent, standby, token).await;
        }
    }
}

/// One agent's copying.
struct Feeder {
    runtime: Runtime,
    agent: AgentId,
    standby: HostId,
    copied: Option<Copied>,
    /// Deletes that the standby has heard of since they were forgotten last.
    deletes: usize,
    /// Boot time of the standby's last answer.
    heard_at: Duration,
    room: Room,
}

impl Feeder {
    fn new(runtime: &Runtime, agent: AgentId, standby: HostId, room: Room) -> Self {
        let heard_at = runtime.inner().clock.boot();
        Self { runtime: runtime.clone(), agent, standby, copied: None, deletes: 0, heard_at, room }
    }

    async fn run(mut self) {
        let shutdown = self.runtime.inner().tasks.shutdown();
        let mut backoff = Backoff::new(FAILED_PAUSE, FAILED_PAUSE_MAX);
        lock(&self.runtime.inner().standbys.fed).insert(self.agent.clone(), Fed::default());
        loop {
            // Cancel safe: what a round has brought about is known to its standby, and asked for by the next process.
            let ticked = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                ticked = self.tick() => ticked,
            };
            let pause = match ticked {
                Ok(true) => {
                    backoff = Backoff::new(FAILED_PAUSE, FAILED_PAUSE_MAX);
                    ROUND_PAUSE
                }
                Ok(false) => break,
                Err(Failed::Promoted(token)) => {
                    self.runtime.break_promoted(&self.agent, self.standby, token).await;
                    break;
                }
                Err(failed) => {
                    self.has_failed(&failed).await;
                    let [random] = self.runtime.inner().clock.random();
                    backoff.delay(random)
                }
            };
            if within(pause, shutdown.cancelled()).await.is_some() {
                // The copy stays: that is what it is for.
                return;
            }
        }
        lock(&self.runtime.inner().standbys.fed).remove(&self.agent);
    }

    /// Makes a round if there is something new. `false`: the agent is not to be copied there any more.
    async fn tick(&mut self) -> Result<bool, Failed> {
        if self.runtime.inner().standbys.holder_of(&self.agent).is_some() {
            return Ok(true);
        }
        let row = self.runtime.inner().store.agent(&self.agent).await?;
        let row = row.filter(|row| self.runtime.standby_of(row) == Some(self.standby));
        let Some(row) = row else {
            self.end().await;
            return Ok(false);
        };
        // Its rows are on their way as a migration: the new home begins anew.
        if self.runtime.is_migrating(&self.agent) {
            return Ok(true);
        }
        if row.token == FencingToken(0) {
            // Nobody has owned it yet, so nobody could say that the copy is of whoever has it.
            self.runtime.own(&self.agent).await?;
            return Ok(true);
        }
        let is_of =
            |copied: &Copied| (copied.generation, copied.session.plugin) == (row.generation, row.plugin);
        self.copied = self.copied.filter(is_of);
        if let Some(copied) = self.copied {
            if copied.change == row.change {
                self.ask_at_times(row.token).await?;
                return Ok(true);
            }
            if self.goes_on(copied).await? {
                return Ok(true);
            }
        }
        let _place = self.place_for_whole(row.token).await?;
        within(WHOLE_MAX, self.whole(&row)).await.unwrap_or(Err(Failed::TooSlow))?;
        Ok(true)
    }

    /// Waits for a place to send a whole copy, which may take long: meanwhile the standby is asked whether the agent still may run.
    async fn place_for_whole(&mut self, token: FencingToken) -> Result<OwnedSemaphorePermit, Failed> {
        let mut place = pin!(self.room.whole.clone().acquire_owned());
        loop {
            if let Some(place) = within(IDLE_ASK, &mut place).await {
                return place.map_err(|_| Failed::Peer(STOPPING.into()));
            }
            self.ask_at_times(token).await?;
        }
    }

    /// Makes a round of what has changed. `false`: that is too much for one.
    async fn goes_on(&mut self, copied: Copied) -> Result<bool, Failed> {
        let room = self.room.rounds.clone();
        let _place = room.acquire().await.map_err(|_| Failed::Peer(STOPPING.into()))?;
        let Some(delta) = self.delta(copied.change).await? else { return Ok(false) };
        self.round(copied.session, copied.change, delta).await?;
        Ok(true)
    }

    async fn has_failed(&mut self, failed: &Failed) {
        tracing::debug!(agent = %self.agent, standby = %self.standby, error = %failed, "a round failed");
        if matches!(failed, Failed::Behind | Failed::Refused(_)) {
            self.copied = None;
        }
        if let Some(fed) = lock(&self.runtime.inner().standbys.fed).get_mut(&self.agent) {
            fed.trouble = Some(failed.to_string());
        }
        let now = self.runtime.inner().clock.boot();
        if now.saturating_sub(self.heard_at) > DELETES_KEPT {
            self.copied = None;
            self.heard_at = now;
            self.forget_deletes(u64::MAX).await;
        }
    }

    async fn forget_deletes(&mut self, up_to: u64) {
        self.deletes = 0;
        if let Err(error) = self.runtime.inner().store.forget_deletes(&self.agent, up_to).await {
            tracing::warn!(agent = %self.agent, %error, "deletes stay for now");
        }
    }

    /// The copy is of no use any more.
    async fn end(&self) {
        if let Err(error) = self.runtime.end_standby(self.standby, &self.agent).await {
            tracing::warn!(agent = %self.agent, standby = %self.standby, %error, "the copy stays there");
        }
    }

    async fn ask_at_times(&mut self, token: FencingToken) -> Result<(), Failed> {
        let now = self.runtime.inner().clock.boot();
        if now.saturating_sub(self.heard_at) < IDLE_ASK {
            return Ok(());
        }
        match self.tell(StandbyMessage::May { token }).await? {
            StandbyAnswer::Ok => {
                self.heard();
                Ok(())
            }
            answer => Err(unwelcome(answer)),
        }
    }

    fn heard(&mut self) {
        self.heard_at = self.runtime.inner().clock.boot();
        if let Some(fed) = lock(&self.runtime.inner().standbys.fed).get_mut(&self.agent) {
            fed.trouble = None;
        }
    }

    async fn tell(&self, message: StandbyMessage) -> Result<StandbyAnswer, Failed> {
        let told = self.runtime.tell_standby(self.standby, &self.agent, message).await;
        told.map_err(|error| Failed::Peer(error.to_string()))
    }

    async fn delta(&self, after: u64) -> Result<Option<Delta>, Failed> {
        let delta = self.runtime.inner().store.delta(&self.agent, after, ROUND_BYTES_MAX).await?;
        Ok(delta.filter(|delta| delta.frames.len() <= ROWS_MAX))
    }

    /// Sends a whole copy. What changes meanwhile goes in its last round, so that it is the agent as of one moment.
    async fn whole(&mut self, row: &AgentRow) -> Result<(), Failed> {
        self.copied = None;
        let id = MigrationId::generate(self.runtime.now_ms(), self.runtime.inner().clock.random());
        let session = Session { id, plugin: self.begin(id, row).await? };
        let mut sent = 0;
        loop {
            let frames = self.runtime.inner().store.export_rows(&self.agent, sent, BUNDLE_BYTES).await?;
            let is_little = frames.iter().map(wire::encoded_len).sum::<usize>() < BUNDLE_BYTES / 2;
            // Of a bundle of many tiny rows the target would take none.
            let frames: Vec<_> = frames.into_iter().take(ROWS_MAX).collect();
            if is_little && let Some(delta) = self.delta(sent).await? {
                return self.round(session, sent, delta).await;
            }
            let Some(last) = frames.last() else { return Err(Failed::Behind) };
            sent = last.change;
            let place = self.place(id, sent, row);
            let header = BulkHeader::StandbyRows { agent: self.agent.clone(), place };
            match self.send(header, self.sealed(frames, &place).await?).await? {
                StandbyAnswer::Ok => {}
                answer => return Err(unwelcome(answer)),
            }
        }
    }

    /// Answers the plugin that the standby has for it.
    async fn begin(&mut self, session: MigrationId, row: &AgentRow) -> Result<Digest, Failed> {
        let store = &self.runtime.inner().store;
        let gone = || Failed::Peer("the agent is not here any more".into());
        let image = store.image(&self.agent, None).await?.ok_or_else(gone)?;
        let missing = || Failed::Refused("its plugin is not stored here".into());
        let plugin = image.plugin.ok_or_else(missing)?;
        let residency = Wants::of(&image.spec, &row.labels).residency;
        let (token, spec, digest) = (row.token, image.spec, plugin.digest);
        let start = StandbyStart { session, token, plugin: plugin.clone(), spec, residency };
        let message = StandbyMessage::Begin(Box::new(start));
        match self.tell(message).await? {
            StandbyAnswer::Ok => {
                self.heard();
                return Ok(digest);
            }
            StandbyAnswer::NeedsPlugin => {}
            answer => return Err(unwelcome(answer)),
        }
        let component = store.component(plugin.digest).await?.ok_or_else(missing)?;
        let header = BulkHeader::StandbyPlugin { agent: self.agent.clone(), session, plugin };
        match self.send(header, component).await? {
            StandbyAnswer::Ok => {
                self.heard();
                Ok(digest)
            }
            answer => Err(unwelcome(answer)),
        }
    }

    fn place(&self, session: MigrationId, change: u64, row: &AgentRow) -> StandbyPlace {
        let (token, generation, revision) = (row.token, row.generation, row.revision);
        StandbyPlace { session, change, token, generation, revision }
    }

    /// Rows as they travel.
    async fn sealed(&self, frames: Vec<RowFrame>, place: &StandbyPlace) -> Result<Bytes, Failed> {
        let passage = Passage::to_standby(&self.agent, place.session, place.token);
        let protocol = self.protocol().await?;
        Ok(wire::encode_in(protocol, &self.runtime.sealed(frames, self.standby, &passage)))
    }

    async fn protocol(&self) -> Result<u8, Failed> {
        let protocol = self.runtime.inner().mesh.protocol(self.standby, MESSAGE_MAX).await;
        protocol.map_err(|error| Failed::Peer(error.to_string()))
    }

    async fn round(&mut self, session: Session, builds_on: u64, delta: Delta) -> Result<(), Failed> {
        let Delta { frames, change, token, generation, revision } = delta;
        let deletes = frames.iter().filter(|frame| matches!(frame.row, Row::Deleted(_))).count();
        let place = StandbyPlace { session: session.id, change, token, generation, revision };
        let header = BulkHeader::StandbyRound { agent: self.agent.clone(), builds_on, place };
        let body = self.sealed(frames, &place).await?;
        match self.send(header, body).await? {
            StandbyAnswer::Ok => {}
            answer => return Err(unwelcome(answer)),
        }
        failpoint::hit("standby.source.after-round");
        self.copied = Some(Copied { session, generation, change });
        self.heard();
        let round = LastRound { session: session.id, change, revision, at_ms: self.runtime.now_ms() };
        if let Some(fed) = lock(&self.runtime.inner().standbys.fed).get_mut(&self.agent) {
            fed.round = Some(round);
        }
        self.deletes += deletes;
        if self.deletes >= DELETES_FORGOTTEN_AT {
            self.forget_deletes(change).await;
        }
        Ok(())
    }

    async fn send(&self, header: BulkHeader, body: Bytes) -> Result<StandbyAnswer, Failed> {
        let header = wire::encode_in(self.protocol().await?, &header);
        let sent = self.runtime.inner().mesh.send_bulk(self.standby, header, body, BULK_MAX).await;
        let sent = sent.map_err(|error| Failed::Peer(error.to_string()))?;
        match wire::decode::<PeerAnswer>(&sent.answer) {
            Ok(PeerAnswer::Standby(answer)) => Ok(answer),
            Ok(_) => Err(Failed::Peer("the standby gave another kind of answer".into())),
            Err(reason) => Err(Failed::Peer(reason)),
        }
    }
}

fn unwelcome(answer: StandbyAnswer) -> Failed {
    match answer {
        StandbyAnswer::Superseded { token } => Failed::Promoted(token),
        StandbyAnswer::Behind => Failed::Behind,
        StandbyAnswer::Refused { reason } => Failed::Refused(reason),
        StandbyAnswer::NotReady { reason } => Failed::Peer(reason),
        StandbyAnswer::Ok | StandbyAnswer::NeedsPlugin => Failed::Peer("an answer to something else".into()),
    }
}
