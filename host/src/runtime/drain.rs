//! Sending agents away by plan: to empty a host, or to even hosts out. The plan says where each goes, and what won't go and
//! why; then a few move at a time, each by a migration of its own, and what fails is tried again or stays, named. A host that is
//! emptied is looked at again when they are gone, with what the others offer by then: targets have died since, and some came late.
//!
//! Nothing here is durable: a host that stops leaves each agent where its last migration left it, and is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use godwit_core::id::{AgentId, HostId, MigrationId};
use godwit_core::migration::Phase;
use godwit_core::migration::recovery::{SourceFinds, source_finds};
use godwit_core::placement::{Candidate, Offer, Place, Wants, empty, even_out};
use godwit_core::store::{AgentRow, Home, Lifecycle, MigrationRecord};
use godwit_core::time::{sleep, within};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::CallError;
use super::placement::Exodus;
use super::routing::store_error;

/// Agents that move at the same time.
const AT_ONCE: usize = 8;
/// Tries of each.
const TRIES_MAX: u32 = 4;
/// Pause before the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Looks at a host that is emptied, each with a plan of its own.
const PASSES_MAX: u32 = 8;
/// Pause before the next of them while of some agents it is not decided whether they are here: all of them together are longer than
/// a small one takes to arrive over a slow line.
const PASS_PAUSE: Duration = Duration::from_secs(1);
/// Pause between looks at a migration that runs.
const LOOK_PAUSE: Duration = Duration::from_millis(3);
/// How long a target may take to say that it has an agent that has gone to it, before the next one gets its turn.
const CONFIRM_MAX: Duration = Duration::from_secs(10);
/// Agents read at once.
const PAGE: usize = 1_000;
/// Specs read at the same time.
const READS_AT_ONCE: usize = 32;
/// Past migrations from which the next one's pause is guessed.
const GUESSED_FROM: usize = 100;

/// Where an agent goes, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMove {
    /// Which agent.
    pub agent: AgentId,
    /// Where to; `None` when it stays.
    pub to: Option<HostId>,
    /// What it keeps in rows, in bytes.
    pub bytes: u64,
    /// Why it stays.
    pub reason: Option<String>,
}

/// What would be done, in the order in which it would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Each agent.
    pub moves: Vec<PlannedMove>,
    /// How long an agent is expected to stand still, in microseconds: the median of what moved from here before; `None` when
    /// nothing has.
    pub predicted_pause_us: Option<u64>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// What it is.
    pub exodus: Exodus,
    /// Whether it is over.
    pub is_over: bool,
    /// Agents that are to go.
    pub total: u64,
    /// Those that have gone.
    pub moved: u64,
    /// The longest and the median pause of those, in microseconds.
    pub pause_max_us: u64,
    /// See above.
    pub pause_median_us: u64,
    /// Those that stay, or of which it is not sure that they are gone, each with the reason.
    pub left: BTreeMap<AgentId, String>,
    /// How long it has taken, in milliseconds.
    pub elapsed_ms: u64,
}

/// The agents that are this host's to send away.
#[derive(Default)]
struct Residents {
    candidates: Vec<Candidate>,
    /// What each keeps in rows.
    bytes: BTreeMap<AgentId, u64>,
    /// Those that come or go, of which it is not decided whether they are here, and why.
    in_doubt: BTreeMap<AgentId, String>,
}

/// Where agents go, and of whom that can't be said.
struct Look {
    places: Vec<Place>,
    residents: Residents,
}

/// One that was begun.
pub(crate) struct Drain(Arc<Mutex<Progress>>);

struct Progress {
    exodus: Exodus,
    began: Duration,
    ended: Option<Duration>,
    total: u64,
    pauses_us: Vec<u64>,
    left: BTreeMap<AgentId, String>,
    /// Gone, to hosts that have not said so.
    unconfirmed: BTreeMap<AgentId, HostId>,
}

/// What became of an agent that was sent away.
enum Sent {
    /// It runs there. It stood still for so many microseconds.
    Moved(u64),
    /// It has gone, and its new host does not say that it has it.
    Unconfirmed,
}

/// How a migration ended, as far as a drain waits for it.
#[derive(Debug)]
pub(super) enum Ended {
    Recorded(Box<MigrationRecord>),
    /// As `Sent::Unconfirmed`.
    Unconfirmed,
}

impl Drain {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Notes who is left, and answers who goes next: of those that could, the ones for which `is_next` holds. Of the others the
    /// reason stays why they did not.
    fn look_again(
        &mut self,
        look: Look,
        is_next: impl Fn(&(AgentId, HostId)) -> bool,
    ) -> Vec<(AgentId, HostId)> {
        let Look { places, residents: Residents { in_doubt, .. } } = look;
        let failed = std::mem::replace(&mut self.left, in_doubt);
        let mut going = Vec::new();
        for Place { agent, to } in places {
            let reason = match to.map(|host| (agent.clone(), host)) {
                Ok(next) if is_next(&next) => {
                    going.push(next);
                    continue;
                }
                Ok(_) => failed.get(&agent).cloned().unwrap_or_else(|| "it came too late".to_owned()),
                Err(stays) => stays.to_string(),
            };
            self.left.insert(agent, reason);
        }
        let known = self.pauses_us.len() + self.unconfirmed.len() + self.left.len() + going.len();
        self.total = self.total.max(known as u64);
        going
    }

    fn view(&self, now: Duration) -> DrainView {
        let mut pauses = self.pauses_us.clone();
        pauses.sort_unstable();
        let mut left = self.left.clone();
        let unconfirmed = |host| format!("it has gone to host {host}, which has not said yet that it has it");
        left.extend(self.unconfirmed.iter().map(|(agent, host)| (agent.clone(), unconfirmed(host))));
        let elapsed = self.ended.unwrap_or(now).saturating_sub(self.began);
        DrainView {
            exodus: self.exodus,
            is_over: self.ended.is_some(),
            total: self.total,
            moved: pauses.len() as u64,
            pause_max_us: pauses.last().copied().unwrap_or_default(),
            pause_median_us: pauses.get(pauses.len() / 2).copied().unwrap_or_default(),
            left,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Runtime {
    async fn look(&self, exodus: Exodus) -> Result<Look, CallError> {
        let others = self.offers_of_others().await;
        let mut residents = self.residents().await?;
        let places = self.places(exodus, std::mem::take(&mut residents.candidates), &others);
        Ok(Look { places, residents })
    }

    pub(super) async fn plan_exodus(&self, exodus: Exodus) -> Result<Plan, CallError> {
        let Look { places, residents: Residents { bytes, .. } } = self.look(exodus).await?;
        let moves = places.into_iter().map(|Place { agent, to }| PlannedMove {
            bytes: bytes.get(&agent).copied().unwrap_or_default(),
            reason: to.as_ref().err().map(ToString::to_string),
            to: to.ok(),
            agent,
        });
        let moves = moves.collect();
        Ok(Plan { moves, predicted_pause_us: self.usual_pause().await? })
    }

    /// Begins, unless one of this kind is running: then that one is answered.
    ///
    /// # Errors
    /// `Conflict` while one of the other kind is running. As the store's.
    pub(super) async fn begin_exodus(&self, exodus: Exodus) -> Result<DrainView, CallError> {
        let known = running(self.exodus_progress(), exodus)?;
        // Before the plan: who comes behind it would be left.
        if exodus == Exodus::Drain {
            self.set_cordoned(true);
        }
        if let Some(running) = known {
            return Ok(running);
        }
        let plan = self.plan_exodus(exodus).await?;
        let clock = &self.inner().clock;
        let staying =
            plan.moves.iter().filter_map(|stays| Some((stays.agent.clone(), stays.reason.clone()?)));
        let progress = Progress {
            exodus,
            began: clock.boot(),
            ended: None,
            total: plan.moves.len() as u64,
            pauses_us: Vec::new(),
            left: staying.collect(),
            unconfirmed: BTreeMap::new(),
        };
        let shared = Arc::new(Mutex::new(progress));
        {
            let mut last = self.inner().placement.last.lock().unwrap_or_else(PoisonError::into_inner);
            let began_meanwhile = last.as_ref().map(|last| last.progress().view(clock.boot()));
            if let Some(running) = running(began_meanwhile, exodus)? {
                return Ok(running);
            }
            *last = Some(Drain(shared.clone()));
        }
        let view = Drain(shared.clone()).progress().view(clock.boot());
        self.inner().tasks.spawn(self.clone().send_away(plan, Drain(shared)));
        Ok(view)
    }

    pub(super) fn exodus_progress(&self) -> Option<DrainView> {
        let last = self.inner().placement.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|last| last.progress().view(self.inner().clock.boot()))
    }

    async fn send_away(self, plan: Plan, drain: Drain) {
        let shutdown = self.inner().tasks.shutdown();
        let exodus = drain.progress().exodus;
        let is_going = |planned: PlannedMove| Some((planned.agent, planned.to?));
        let mut going: Vec<_> = plan.moves.into_iter().filter_map(is_going).collect();
        let mut tried = BTreeSet::new();
        for pass in 1..=PASSES_MAX {
            tried.extend(going.iter().cloned());
            self.send_all(std::mem::take(&mut going), &drain).await;
            if exodus == Exodus::Rebalance || self.inner().tasks.is_ending() {
                break;
            }
            let is_decided = match self.look(exodus).await {
                Ok(look) => {
                    let is_decided = look.residents.in_doubt.is_empty();
                    let is_last = pass == PASSES_MAX;
                    going = drain.progress().look_again(look, |going| !is_last && !tried.contains(going));
                    is_decided
                }
                Err(error) => {
                    tracing::warn!(%error, "who is left can't be read now");
                    false
                }
            };
            match (going.is_empty(), is_decided) {
                (true, true) => break,
                (true, false) if pass < PASSES_MAX => drop(within(PASS_PAUSE, shutdown.cancelled()).await),
                _ => {}
            }
        }
        let now = self.inner().clock.boot();
        drain.progress().ended = Some(now);
        let DrainView { moved, left, elapsed_ms, .. } = drain.progress().view(now);
        tracing::info!(?exodus, moved, left = left.len(), elapsed_ms, "agents were sent away");
    }

    /// Moves some agents, a few at a time.
    async fn send_all(&self, going: Vec<(AgentId, HostId)>, drain: &Drain) {
        let moving = stream::iter(going).map(|(agent, to)| async move {
            let sent = self.send_one(&agent, to).await;
            (agent, to, sent)
        });
        let mut moving = moving.buffer_unordered(AT_ONCE);
        while let Some((agent, to, sent)) = moving.next().await {
            let mut progress = drain.progress();
            match sent {
                Ok(Sent::Moved(pause_us)) => progress.pauses_us.push(pause_us),
                Ok(Sent::Unconfirmed) => drop(progress.unconfirmed.insert(agent, to)),
                Err(reason) => drop(progress.left.insert(agent, reason)),
            }
        }
    }

    /// Moves one agent.
    ///
    /// # Errors
    /// Why it stays.
    async fn send_one(&self, agent: &AgentId, to: HostId) -> Result<Sent, String> {
        let mut tries = 1;
        loop {
            let failed = match self.migrate_to(agent, to).await {
                Ok(id) => match self.ended(agent, id, CONFIRM_MAX).await? {
                    Ended::Unconfirmed => return Ok(Sent::Unconfirmed),
                    Ended::Recorded(record) if record.phase == Phase::Complete => {
                        return Ok(Sent::Moved(record.pause_us.unwrap_or_default()));
                    }
                    Ended::Recorded(record) => {
                        let failure = record.failure.ok_or("it was ended without a reason")?;
                        (failure.to_string(), failure.is_retryable())
                    }
                },
                Err(error) => (error.to_string(), matches!(error, CallError::Unavailable { .. })),
            };
            if !failed.1 || tries == TRIES_MAX || self.inner().tasks.is_ending() {
                return Err(failed.0);
            }
            tries += 1;
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Waits for the end of a migration. One that has passed its commit point goes on until its target has heard, which may be
    /// never: that is waited for no longer than `confirm_max`.
    ///
    /// # Errors
    /// When the host stops first.
    pub(super) async fn ended(
        &self,
        agent: &AgentId,
        id: MigrationId,
        confirm_max: Duration,
    ) -> Result<Ended, String> {
        let clock = &self.inner().clock;
        // When the row was last looked at, and when it was first seen to say that the agent has gone.
        let (mut looked_at, mut gone_at) = (clock.boot(), None);
        loop {
            match self.migration(id).await {
                Ok(record) if record.phase.is_terminal() => return Ok(Ended::Recorded(Box::new(record))),
                Ok(_) => {}
                Err(error) => tracing::debug!(migration = %id, %error, "record can't be read now"),
            }
            if self.inner().tasks.is_ending() {
                return Err("the host is stopping".to_owned());
            }
            let now = clock.boot();
            // Seldom: the record says it soon, as a rule.
            if now.saturating_sub(looked_at) >= confirm_max / 10 {
                looked_at = now;
                let row = self.inner().store.agent(agent).await.ok().flatten();
                let found = source_finds(row.map(|row| row.seat()).as_ref(), id);
                let has_gone = matches!(found, SourceFinds::Passed(_));
                gone_at = gone_at.filter(|_| has_gone).or(has_gone.then_some(now));
                if gone_at.is_some_and(|since| now.saturating_sub(since) >= confirm_max) {
                    return Ok(Ended::Unconfirmed);
                }
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    fn places(
        &self,
        exodus: Exodus,
        candidates: Vec<Candidate>,
        others: &BTreeMap<HostId, Offer>,
    ) -> Vec<Place> {
        match exodus {
            Exodus::Drain => empty(candidates, others),
            Exodus::Rebalance => {
                let own = candidates.len() as u64;
                even_out(candidates, own, others)
            }
        }
    }

    async fn residents(&self) -> Result<Residents, CallError> {
        let is_ours = |row: &AgentRow| {
            row.home == Home::Here && row.lifecycle != Lifecycle::Deleted && self.is_own(row)
        };
        let store = &self.inner().store;
        let mut residents = Residents { in_doubt: self.on_their_way().await?, ..Residents::default() };
        let mut after: Option<AgentId> = None;
        loop {
            let rows = store.agents(after.as_ref(), PAGE).await.map_err(store_error)?;
            let Some(last) = rows.last() else { return Ok(residents) };
            after = Some(last.agent.clone());
            residents.in_doubt.extend(rows.iter().filter_map(doubt));
            let reading = stream::iter(rows.into_iter().filter(is_ours)).map(|row| async move {
                let spec = store.spec(&row.agent).await?;
                let wants = spec.map(|spec| Wants::of(&spec, &row.labels)).unwrap_or_default();
                Ok(Candidate { agent: row.agent, wants, bytes: row.state_bytes + row.open_bytes })
            });
            let read: Vec<_> = reading.buffer_unordered(READS_AT_ONCE).collect().await;
            for candidate in read {
                let candidate: Candidate = candidate.map_err(store_error)?;
                residents.bytes.insert(candidate.agent.clone(), candidate.bytes);
                residents.candidates.push(candidate);
            }
        }
    }

    /// Agents that began to come before the host was cordoned, or in spite of it, and may arrive.
    async fn on_their_way(&self) -> Result<BTreeMap<AgentId, String>, CallError> {
        let own = self.inner().host;
        let records = self.migrations().await?;
        let coming = records
            .into_iter()
            .filter(|record| record.target == own && !record.phase.is_terminal() && !record.is_forced());
        Ok(coming.map(|MigrationRecord { agent, source, .. }| (agent, comes_from(source))).collect())
    }

    async fn usual_pause(&self) -> Result<Option<u64>, CallError> {
        let own = self.inner().host;
        let records = self.migrations().await?;
        let left =
            records.into_iter().filter(|record| record.source == own && record.phase == Phase::Complete);
        let mut pauses: Vec<_> = left.filter_map(|record| record.pause_us).take(GUESSED_FROM).collect();
        pauses.sort_unstable();
        Ok(pauses.get(pauses.len() / 2).copied())
    }
}

/// The last one, if it is still running and of this kind.
///
/// # Errors
/// `Conflict` when it is of the other kind: whoever waited for it would take it for what was asked.
fn running(last: Option<DrainView>, exodus: Exodus) -> Result<Option<DrainView>, CallError> {
    match last.filter(|view| !view.is_over) {
        Some(view) if view.exodus != exodus => {
            let runs = match view.exodus {
                Exodus::Drain => "drain",
                Exodus::Rebalance => "rebalance",
            };
            let what = format!("a {runs} of this host is running: ask again when it is over");
            Err(CallError::Conflict { what })
        }
        running => Ok(running),
    }
}

fn comes_from(source: HostId) -> String {
    format!("it is on its way here from host {source}")
}

/// An agent whose row does not say yet whether it is here.
fn doubt(row: &AgentRow) -> Option<(AgentId, String)> {
    let reason = match &row.home {
        Home::HandingOff { target, .. } => {
            format!("it is not decided yet whether it has gone to host {target}")
        }
        Home::Prepared { source, .. } => comes_from(*source),
        Home::Here | Home::Moved(_) => return None,
    };
    Some((row.agent.clone(), reason))
}
