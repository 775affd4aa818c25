//! Replaying an agent's kept history beside the running agent: nothing of it acts, and the agent goes on.
//!
//! From the oldest kept snapshot the journaled turns are run again; each turn's effects are compared with its receipt, and
//! where a newer snapshot is kept, the state that comes out with that one. So replay checks what loading would do, and
//! that the newer snapshot is what the turns behind the older one make. A stretch that was not journaled, or ran under
//! another spec, can't be run again: the replay begins behind it.

use std::time::Duration;

use godwit_core::agent::rebuild::{RebuildError, Start, rebuild};
use godwit_core::agent::{guest_request, outside_context, state_reader};
use godwit_core::digest::Digest;
use godwit_core::guest::Interrupt;
use godwit_core::id::{AgentId, Generation, Revision};
use godwit_core::lease::{LeaseGuard, SessionLease};
use godwit_core::limits::REPLAY_TRIES_MAX;
use godwit_core::store::{AgentImage, StoreError};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Whose history.
    pub agent: AgentId,
    /// The revision of the snapshot that it began with.
    pub from: Revision,
    /// The revision that was asked for.
    pub to: Revision,
    /// Turns that ran again.
    pub turns: u64,
    /// Digest of the state at `to`, when the replay came there.
    pub state: Option<Digest>,
    /// What does not fit, in the order of the history; empty when all is well.
    pub breaks: Vec<String>,
    /// Time in the guest, microseconds.
    pub elapsed_us: u64,
}

/// One stretch of history that has run again.
struct Stretch {
    turns: u64,
    elapsed: Duration,
    state: Digest,
}

/// Why a replay came to no report.
enum Hindrance {
    /// The agent went on meanwhile, and the snapshot of this revision is not kept any more.
    Replaced(Revision),
    Call(CallError),
}

impl From<CallError> for Hindrance {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// A history as it is found at one moment.
struct History {
    generation: Generation,
    /// The newest snapshot and what is behind it; `None` when it is damaged.
    newest: Option<AgentImage>,
    /// Revisions of the kept snapshots that lead to the one asked for, ascending.
    bases: Vec<Revision>,
    to: Revision,
}

impl Runtime {
    /// Replays an agent's history up to a revision, the head unless said otherwise. An agent that goes on meanwhile may
    /// take its snapshots away: then it is tried again.
    ///
    /// # Errors
    /// `NoSuch` when no kept snapshot leads to the revision, or the agent has not come so far; `Unavailable` when the host has
    /// no room for another guest, or the snapshots have been replaced each time. What does not fit is in the report.
    pub(crate) async fn replay_here(
        &self,
        agent: &AgentId,
        to: Option<Revision>,
    ) -> Result<ReplayReport, CallError> {
        let mut replaced = Revision(0);
        for _ in 0..REPLAY_TRIES_MAX {
            match self.try_replay(agent, to).await {
                Ok(report) => return Ok(report),
                Err(Hindrance::Replaced(revision)) => replaced = revision,
                Err(Hindrance::Call(error)) => return Err(error),
            }
        }
        let reason = format!("snapshot {replaced} has just been replaced by a newer one: replay again");
        Err(CallError::Unavailable { reason })
    }

    async fn try_replay(&self, agent: &AgentId, to: Option<Revision>) -> Result<ReplayReport, Hindrance> {
        let history = self.history(agent, to).await?;
        let (bases, to) = (&history.bases, history.to);
        let unreachable = || CallError::NoSuch {
            what: format!("kept snapshot of agent {agent} from which turns lead to revision {to}"),
        };
        let Some(from) = bases.first().copied() else { return Err(unreachable().into()) };
        let mut report = ReplayReport {
            agent: agent.clone(),
            from,
            to,
            turns: 0,
            state: None,
            breaks: Vec::new(),
            elapsed_us: 0,
        };
        let mut reaches = false;
        let ends = bases.iter().skip(1).copied().chain([to]);
        for (base, end) in bases.iter().copied().zip(ends) {
            reaches = self.replay_stretch(&history, &mut report, base, end).await?;
            if !reaches {
                report.from = end;
            }
        }
        if reaches { Ok(report) } else { Err(unreachable().into()) }
    }

    /// Reads what there is to replay. The head and the newest snapshot are of one moment: they fit, however fast the agent
    /// goes on.
    async fn history(&self, agent: &AgentId, to: Option<Revision>) -> Result<History, CallError> {
        let store = &self.inner().store;
        let not_found = || CallError::NotFound { agent: agent.clone() };
        let newest = match store.image(agent, None).await {
            Ok(image) => Some(image.ok_or_else(not_found)?),
            Err(StoreError::Corrupt { .. }) => None,
            Err(error) => return Err(store_error(error)),
        };
        let row = match &newest {
            Some(image) => image.row.clone(),
            None => store.agent(agent).await.map_err(store_error)?.ok_or_else(not_found)?,
        };
        let to = to.unwrap_or(row.revision);
        let kept = store.kept_snapshots(agent).await.map_err(store_error)?;
        let of_this = kept.iter().filter(|kept| kept.generation == row.generation);
        let mut bases: Vec<Revision> = of_this.map(|kept| kept.revision).collect();
        if let Some(image) = newest.as_ref().filter(|image| image.snapshot.is_some()) {
            // Those that came later are of another moment.
            bases.retain(|base| *base < image.base());
            bases.push(image.base());
        }
        bases.retain(|base| *base <= to && to <= row.revision);
        Ok(History { generation: row.generation, newest, bases, to })
    }

    /// Reads a kept snapshot and what is behind it.
    async fn kept_image(
        &self,
        history: &History,
        agent: &AgentId,
        at: Revision,
    ) -> Result<Result<AgentImage, String>, Hindrance> {
        if let Some(image) = history.newest.as_ref().filter(|image| image.base() == at) {
            return Ok(Ok(image.clone()));
        }
        match self.inner().store.image(agent, Some(at)).await {
            Ok(Some(image)) if image.row.generation == history.generation => Ok(Ok(image)),
            Ok(_) => Err(Hindrance::Replaced(at)),
            Err(StoreError::Corrupt { what }) => Ok(Err(what)),
            Err(error) => Err(store_error(error).into()),
        }
    }

    /// Replays from one kept snapshot to a revision; compares the state with the snapshot that is kept there, if one is.
    /// Answers whether there is a way; otherwise the report is as it was.
    async fn replay_stretch(
        &self,
        history: &History,
        report: &mut ReplayReport,
        base: Revision,
        end: Revision,
    ) -> Result<bool, Hindrance> {
        let image = match self.kept_image(history, &report.agent, base).await? {
            Ok(image) => image,
            Err(what) => {
                report.breaks.push(what);
                return Ok(true);
            }
        };
        if !image.is_journaled_to(end) {
            return Ok(false);
        }
        if let Err(what) = image.check_to(end) {
            report.breaks.push(what);
            return Ok(true);
        }
        let expected = match history.bases.contains(&end) && end > base {
            // A damaged one is named when it is its turn.
            true => self.kept_image(history, &report.agent, end).await?.ok(),
            false => None,
        };
        match self.run_stretch(image, end).await? {
            Ok(stretch) => {
                report.turns += stretch.turns;
                report.elapsed_us += u64::try_from(stretch.elapsed.as_micros()).unwrap_or(u64::MAX);
                let expected = expected.and_then(|kept| kept.snapshot).map(|kept| kept.state_digest());
                if expected.is_some_and(|expected| expected != stretch.state) {
                    report
                        .breaks
                        .push(format!("snapshot {end} is another state than the turns behind {base} make"));
                }
                report.state = (end == report.to).then_some(stretch.state);
            }
            Err(what) => report.breaks.push(what),
        }
        Ok(true)
    }

    /// Runs the turns of an image up to a revision in a guest of its own.
    async fn run_stretch(
        &self,
        image: AgentImage,
        end: Revision,
    ) -> Result<Result<Stretch, String>, CallError> {
        let inner = self.inner();
        let agent = image.row.agent.clone();
        let plugin = image.spec.plugin;
        if !inner.env.loader.is_loaded(plugin) {
            let component = inner.store.component(plugin).await.map_err(store_error)?;
            let missing = || CallError::NoSuch { what: format!("component of plugin {plugin}") };
            let compiled = self.compile(component.ok_or_else(missing)?).await;
            compiled.map_err(|error| CallError::Internal { reason: error.to_string() })?;
        }
        // It acts for nobody, so it needs no lease.
        let guard = LeaseGuard::new(SessionLease::unlimited(), image.row.token);
        let rows = state_reader(inner.store.clone(), agent.clone());
        let request = guest_request(&image, guard, rows, Interrupt::default());
        let (loader, clock) = (inner.env.loader.clone(), inner.clock.clone());
        let job = move || -> Result<Stretch, RebuildError> {
            let at = image.receipts.iter().find(|receipt| receipt.revision == end);
            let (token, time_ms) = at.map_or((image.row.token, image.row.time_ms), |receipt| {
                (receipt.token, receipt.committed_at_ms)
            });
            let context = outside_context(&agent, image.row.generation, token, end, time_ms);
            let with = (loader.as_ref(), clock.as_ref());
            let mut rebuilt = rebuild(with, Start::Cold(request), &image, end)?;
            let state = rebuilt.guest.snapshot(&context).map_err(RebuildError::Restore)?;
            let elapsed = rebuilt.turns.iter().map(|(_, elapsed)| *elapsed).sum();
            Ok(Stretch { turns: rebuilt.turns.len() as u64, elapsed, state: Digest::of(&state) })
        };
        let stopping = |_| CallError::Unavailable { reason: super::STOPPING.into() };
        match inner.env.pool.run(plugin, job).await.map_err(stopping)? {
            Ok(stretch) => Ok(Ok(stretch)),
            Err(error) if error.is_for_want_of_room() => {
                Err(CallError::Unavailable { reason: format!("no room for another guest: {error}") })
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}
