//! Bringing a broken agent back: its history is run again from a kept snapshot, and only then does it run on.
//!
//! ```text
//!                          fits what is recorded   nothing else is written, or what was damaged once more --> Active
//! kept snapshot --> walk <
//!                          does not fit            refused, unless another state is accepted:
//!                                                  boundary `repair` {both digests, snapshot, Active}, one step
//! ```
//! What the turns did to the world stays as it was committed: nothing here emits an effect, and inputs that have ended stay
//! so. A refusal says which other recovery would work: it has been tried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::chain::{Author, Chain, Head};
use crate::agent::loading::{Unloadable, ensure_loaded, guest_request, is_held, state_reader};
use crate::agent::rebuild::RebuildError;
use crate::agent::{AgentEnv, Notice, Overlay};
use crate::digest::Digest;
use crate::event::{EventKind, NewEvent};
use crate::failpoint;
use crate::guest::Interrupt;
use crate::id::Revision;
use crate::lease::{Lease, LeaseGuard};
use crate::lifecycle::{LifecycleCommit, Verb};
use crate::receipt::BoundaryKind;
use crate::store::{AgentRow, KeptSnapshot, Owner, Step, StoreError, Unit, UnitFailure};

mod walk;

use walk::{Story, Walk};

pub use walk::Misfit;

/// How a broken agent is to be brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recovery {
    /// Begin with the kept snapshot of this revision; `None` is the newest one.
    pub from: Option<Revision>,
    /// Take the state that comes out, though the history names another one.
    pub accepts_state: bool,
}

/// What a recovery did. The agent is `Active`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Revision of the snapshot that it began with; 0 before the first boundary.
    pub from: Revision,
    /// Turns that ran again.
    pub turns: u64,
    /// What it came to.
    pub outcome: RecoverOutcome,
}

/// What a recovery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverOutcome {
    /// The newest snapshot and what follows give the recorded history.
    Rebuilt,
    /// An older snapshot gives the recorded history; the newer ones, and one of the head, are stored anew.
    Mended,
    /// Another state was accepted.
    Repaired {
        /// Where the history first does not fit.
        misfit: Misfit,
        /// Digest of the state from here.
        accepted: Digest,
        /// Turns whose doings are no part of that state.
        turns_left_out: u64,
    },
}

/// Why an agent is as broken as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// It does not fit.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The plugin can't be loaded, so that nothing could be tried.
    #[error("{message}")]
    Plugin {
        /// What is wrong.
        message: String,
    },
    /// The guest could not be run now: no room, the lease, or the host is stopping.
    #[error("not now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The store refused or failed. Only `Unknown` leaves open what was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What stands in the way, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What does not fit.
    pub what: String,
    /// Revision of the snapshot that it began with; 0 without one.
    pub from: Revision,
    /// Turns that ran again.
    pub turns: u64,
    /// Recoveries that work now. Those that accept no other state come first.
    pub ways: Vec<Recovery>,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("recover")?;
        if let Some(from) = self.from {
            write!(f, " --from {from}")?;
        }
        if self.accepts_state { f.write_str(" --accept-state") } else { Ok(()) }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, from, turns, ways } = self;
        write!(f, "{what} (from snapshot {from}, {turns} turns ran again)")?;
        let Some((first, others)) = ways.split_first() else {
            return f.write_str(
                "; no kept snapshot helps: reset the agent, or bring it back from an archive or a backup",
            );
        };
        write!(f, "; what works: `{first}`")?;
        others.iter().try_for_each(|way| write!(f, " or `{way}`"))?;
        match ways.iter().any(|way| way.accepts_state) {
            true => f.write_str(", where --accept-state takes another state than the history names"),
            false => Ok(()),
        }
    }
}

/// Brings a broken agent back under the caller's lease.
///
/// # Errors
/// `RecoverError`; the agent is still broken, but for `Store(Unknown)`.
///
/// Crash: broken as before, perhaps with sound snapshots in place of damaged ones; or recovered.
pub async fn recover(
    env: &AgentEnv,
    lease: &Lease,
    guard: LeaseGuard,
    recovery: Recovery,
) -> Result<Recovered, RecoverError> {
    let patient = Patient::open(env, lease, guard).await?;
    let asked = match (recovery.from, patient.kept.last()) {
        (Some(from), _) => Some(from),
        (None, newest) => newest.map(|newest| newest.revision),
    };
    match patient.examine(asked).await {
        Ok(found) if found.walk.misfit.is_none() => patient.mend(found).await,
        Ok(found) if recovery.accepts_state => patient.repair(found).await,
        Err(Obstacle::Passing(error)) => Err(error),
        Ok(found) => {
            let what = found.walk.misfit.as_ref().map(|misfit| misfit.what.clone());
            patient.refuse(what.unwrap_or_default(), asked, Some(found)).await
        }
        Err(Obstacle::Lasting(what)) => patient.refuse(what, asked, None).await,
    }
}

/// A broken agent.
struct Patient<'a> {
    env: &'a AgentEnv,
    lease: &'a Lease,
    guard: LeaseGuard,
    row: AgentRow,
    /// Of its generation, oldest first.
    kept: Vec<KeptSnapshot>,
}

/// A history that has run again.
struct Found {
    story: Arc<Story>,
    walk: Walk,
}

/// Why a history could not be run again.
enum Obstacle {
    /// It will be the same next time.
    Lasting(String),
    /// Later it may work.
    Passing(RecoverError),
}

impl From<StoreError> for Obstacle {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { what } => Self::Lasting(what),
            other => Self::Passing(other.into()),
        }
    }
}

fn stopping(error: impl ToString) -> Obstacle {
    Obstacle::Passing(RecoverError::Unavailable { reason: error.to_string() })
}

impl<'a> Patient<'a> {
    async fn open(env: &'a AgentEnv, lease: &'a Lease, guard: LeaseGuard) -> Result<Self, RecoverError> {
        let row = env.store.agent(&lease.agent).await?.ok_or(StoreError::NoAgent)?;
        if !is_held(&row, lease) {
            return Err(StoreError::Fenced { current: row.token, holder: row.holder }.into());
        }
        let mut kept = env.store.kept_snapshots(&lease.agent).await?;
        kept.retain(|kept| kept.generation == row.generation);
        Ok(Self { env, lease, guard, row, kept })
    }

    fn owner(&self) -> Owner {
        Owner {
            agent: self.lease.agent.clone(),
            generation: self.row.generation,
            incarnation: self.lease.incarnation,
            token: self.lease.token,
        }
    }

    /// Runs the history again from a kept snapshot; `None` is from before the first boundary.
    async fn examine(&self, from: Option<Revision>) -> Result<Found, Obstacle> {
        let agent = &self.lease.agent;
        let Some(image) = self.env.store.image(agent, from).await? else {
            let kept: Vec<String> = self.kept.iter().map(|kept| kept.revision.to_string()).collect();
            let asked = from.unwrap_or(Revision(0));
            let kept = if kept.is_empty() { String::from("none") } else { kept.join(", ") };
            return Err(Obstacle::Lasting(format!(
                "no snapshot of revision {asked} is kept: there is {kept}"
            )));
        };
        image.check_chain().map_err(Obstacle::Lasting)?;
        if image.snapshot.is_none() && image.row.revision > Revision(0) {
            let what = format!("the agent is at revision {} and no snapshot is kept", image.row.revision);
            return Err(Obstacle::Lasting(what));
        }
        let digest = image.spec.plugin;
        let unloadable = |what: String| {
            let message = format!("{what}: load the plugin again, then recover");
            Obstacle::Passing(RecoverError::Plugin { message })
        };
        let missing = || unloadable(format!("plugin {digest} is not stored"));
        let plugin = image.plugin.clone().ok_or_else(missing)?;
        match ensure_loaded(self.env, digest).await {
            Ok(()) => {}
            Err(Unloadable::Store(StoreError::Corrupt { what })) => return Err(unloadable(what)),
            Err(Unloadable::Store(error)) => return Err(error.into()),
            Err(Unloadable::Missing(what)) => return Err(unloadable(what)),
        }
        let state = state_reader(self.env.store.clone(), agent.clone());
        let request = guest_request(&image, self.guard.clone(), state, Interrupt::default());
        let behind = |kept: &&KeptSnapshot| kept.revision > image.base();
        let newer = self.kept.iter().filter(behind).copied().collect();
        let story = Arc::new(Story { newer, image, plugin_version: plugin.version });
        let (running, loader) = (story.clone(), self.env.loader.clone());
        let job = move || running.walk(loader.as_ref(), &request);
        let walk = self.env.pool.run(digest, job).await.map_err(stopping)?;
        match walk {
            Ok(walk) => Ok(Found { story, walk }),
            Err(error) if error.is_for_want_of_room() => {
                (self.env.notify)(Notice::NoRoom(agent.clone()));
                Err(stopping(format!("no room for another guest: {error}")))
            }
            Err(error @ RebuildError::Stopped(_)) => Err(stopping(error)),
            Err(error) if error.is_of_guest() => Err(Obstacle::Lasting(error.to_string())),
            Err(error) => Err(stopping(error)),
        }
    }

    /// Says what does not fit, and tries what would help.
    async fn refuse(
        &self,
        what: String,
        asked: Option<Revision>,
        found: Option<Found>,
    ) -> Result<Recovered, RecoverError> {
        let turns = found.as_ref().map_or(0, |found| found.walk.turns);
        let newest = self.kept.last().map(|kept| kept.revision);
        let mut ways = Vec::new();
        for kept in self.kept.iter().rev() {
            let has_misfit = match &found {
                Some(found) if asked == Some(kept.revision) => found.walk.misfit.is_some(),
                None if asked == Some(kept.revision) => continue,
                _ => match self.examine(Some(kept.revision)).await {
                    Ok(other) => other.walk.misfit.is_some(),
                    Err(_) => continue,
                },
            };
            let from = Some(kept.revision).filter(|from| Some(*from) != newest);
            ways.push(Recovery { from, accepts_state: has_misfit });
        }
        ways.sort_by_key(|way| way.accepts_state);
        let from = asked.unwrap_or(Revision(0));
        Err(RecoverError::Refused(Box::new(Refused { what, from, turns, ways })))
    }

    fn plan(&self) -> Result<LifecycleCommit, RecoverError> {
        let now_ms = self.env.clock.wall_ms();
        LifecycleCommit::plan(&self.lease.agent, &self.row.lifecycle, &Verb::Recover, now_ms)
            .map_err(|_| StoreError::Lifecycle { state: self.row.lifecycle.clone() }.into())
    }

    /// The history is whole: stores anew what newer snapshots should hold, and lets the agent run.
    async fn mend(&self, found: Found) -> Result<Recovered, RecoverError> {
        let Found { story, walk } = found;
        let commit = self.plan()?;
        let is_older = !story.newer.is_empty();
        if is_older {
            let last = walk.passed.last().map(|snapshot| snapshot.revision);
            let head = walk.end.filter(|end| Some(end.revision) != last);
            let steps = walk.passed.into_iter().chain(head).map(Step::Checkpoint).collect();
            self.commit(steps).await?;
            failpoint::hit("recover.after-mended");
        }
        self.env.store.commit_lifecycle(&self.owner(), commit).await?;
        failpoint::hit("recover.after-commit");
        let outcome = if is_older { RecoverOutcome::Mended } else { RecoverOutcome::Rebuilt };
        let from = story.image.base();
        tracing::info!(agent = %self.lease.agent, from = %from, turns = walk.turns, "agent is recovered");
        Ok(Recovered { from, turns: walk.turns, outcome })
    }

    /// Takes the state that came out for the one of the head, on the record.
    async fn repair(&self, found: Found) -> Result<Recovered, RecoverError> {
        let Found { story, walk } = found;
        let (Some(end), Some(misfit)) = (walk.end, walk.misfit) else {
            return Err(StoreError::Closed { reason: "nothing to accept was found".into() }.into());
        };
        let commit = self.plan()?;
        let image = &story.image;
        let accepted = end.state_digest();
        let is_left_out = |kind| matches!(kind, BoundaryKind::Init | BoundaryKind::Turn);
        let behind = image.receipts.iter().filter(|receipt| receipt.revision > end.revision);
        let turns_left_out = behind.filter(|receipt| is_left_out(receipt.kind)).count() as u64;
        let head = Head {
            revision: image.row.revision,
            digest: image.row.head,
            next_seq: image.row.next_seq,
            time_ms: image.row.time_ms,
            token: image.row.token,
        };
        let now_ms = self.env.clock.wall_ms().max(head.time_ms);
        let event = NewEvent::of_agent(&self.lease.agent, EventKind::AgentRepaired, now_ms)
            .with("from_snapshot", image.base())
            .with("misfit", &misfit.what)
            .with("misfit_revision", misfit.revision)
            .with("expected", misfit.expected)
            .with("accepted", accepted)
            .with("turns_left_out", turns_left_out);
        let rows = Overlay::new(state_reader(self.env.store.clone(), self.lease.agent.clone()));
        let mut chain = Chain::new(Arc::new(self.author(&story)), &head, rows);
        chain.push_repair(commit, misfit.expected, end, now_ms, event);
        let Unit { steps, .. } = chain.unit();
        self.commit(steps).await?;
        failpoint::hit("recover.after-commit");
        tracing::warn!(agent = %self.lease.agent, from = %image.base(), error = misfit.what, "another state is accepted");
        let outcome = RecoverOutcome::Repaired { misfit, accepted, turns_left_out };
        Ok(Recovered { from: image.base(), turns: walk.turns, outcome })
    }

    fn author(&self, story: &Story) -> Author {
        Author {
            owner: self.owner(),
            host: self.env.host,
            plugin: story.image.spec.plugin,
            plugin_version: story.plugin_version.clone(),
            spec_revision: story.image.row.spec_revision,
            clock: self.env.clock.clone(),
        }
    }

    async fn commit(&self, steps: Vec<Step>) -> Result<(), RecoverError> {
        failpoint::hit("recover.before-commit");
        let unit = Unit { owner: self.owner(), base: self.row.revision, steps };
        match self.env.store.commit_turns(unit).await.failure {
            None => Ok(()),
            Some(UnitFailure::Store(error)) => Err(error.into()),
            Some(failure) => Err(StoreError::Conflict { what: format!("store refused: {failure:?}") }.into()),
        }
    }
}
