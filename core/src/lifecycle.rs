//! The life cycle of an agent: the states that are stored, the verbs, and the one table of legal moves.
//!
//! | verb | active | paused | retiring | retired | broken | suspended | deleted |
//! |---|---|---|---|---|---|---|---|
//! | pause | paused | . | - | - | - | - | - |
//! | resume | . | active | active | active | - | active | - |
//! | retire | retiring | retiring | . | . | retired | - | - |
//! | drained | - | - | retired | . | - | - | - |
//! | stop | paused | paused | paused | - | - | - | - |
//! | interrupt, recycle, respawn, checkpoint, configure | . | . | . | - | - | - | - |
//! | upgrade | . | . | . | - | . | - | - |
//! | recover | . | - | - | - | active | - | - |
//! | reset | . | . | active | active | active | - | - |
//! | delete | deleted | deleted | deleted | deleted | deleted | deleted | . |
//! | recreate | - | - | - | - | - | - | active |
//! | break | broken | broken | broken | broken | broken | broken | - |
//! | suspend | suspended | suspended | suspended | - | suspended | . | - |
//!
//! A dot leaves the state as it is, a dash is an `IllegalMove`. `drained` and `break` are the owner's own, `suspend` is the
//! store's when a backup is opened; all others are an operator's.
//!
//! What a store writes is a `LifecycleCommit`, which only `LifecycleCommit::plan` makes: so no caller can store a state that
//! the table does not lead to, or forget the open inputs of an agent that ends.

use serde::{Deserialize, Serialize};

use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, Seq};
use crate::input::AbandonReason;
use crate::receipt::BoundaryKind;

/// Whether an agent accepts and runs. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lifecycle {
    /// It runs when there is something to do.
    Active,
    /// It can't run until somebody acts; it still accepts, bounded.
    Broken(BrokenReason),
    /// It accepts and does not run.
    Paused,
    /// It accepts nothing and runs what it has accepted.
    Retiring,
    /// It has run everything and accepts nothing.
    Retired,
    /// It neither accepts nor runs until an operator says that it may.
    Suspended(SuspendReason),
    /// It is gone for good; its token and generation stay.
    Deleted,
}

/// Why an agent can't run. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BrokenReason {
    /// `init` failed for good.
    Init {
        /// The last error.
        message: String,
    },
    /// Stored bytes are damaged.
    Corrupt {
        /// Which.
        what: String,
    },
    /// The guest can't take its own snapshot back.
    Restore {
        /// The last error.
        message: String,
    },
    /// The plugin's bytes are missing or can't be loaded.
    Plugin {
        /// What is wrong.
        message: String,
    },
    /// Two histories of one agent exist.
    Forked,
    /// A journaled turn, run again, did something else.
    Diverged {
        /// Which turn, and what did not fit.
        message: String,
    },
}

/// Why an agent is suspended. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SuspendReason {
    /// Its store is a restored backup: the agent may live on elsewhere.
    Restored,
    /// It came from an archive: the agent may live on elsewhere.
    Imported,
}

/// Something that is asked of an agent as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Go on accepting, run nothing.
    Pause,
    /// Run again.
    Resume,
    /// Accept nothing more, run what is there, then rest.
    Retire,
    /// Nothing is left to run: the end of `Retire`.
    Drained,
    /// End the running turn and pause.
    Stop {
        /// Whether the open inputs are given up.
        is_abandoning: bool,
    },
    /// End the running turn and go on with the next input.
    Interrupt {
        /// The inputs of the interrupted turn: they are given up.
        inputs: Vec<Seq>,
    },
    /// Rebuild the instance from the store.
    Recycle,
    /// Rebuild the instance under a new token.
    Respawn,
    /// Store a snapshot.
    Checkpoint,
    /// Take another configuration.
    Configure,
    /// Run another plugin on the same state.
    Upgrade,
    /// Try again after what broke it was dealt with.
    Recover,
    /// Start anew: the next generation, nothing of the state.
    Reset,
    /// End for good.
    Delete,
    /// Be made anew under the id of a deleted agent.
    Recreate,
    /// It can't run until somebody acts.
    Break(BrokenReason),
    /// It must not run here until somebody says so.
    Suspend(SuspendReason),
}

/// A verb that the state does not allow. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("an agent that is {state} can't take {verb}{}", hint(state, verb))]
pub struct IllegalMove {
    /// The name of the state it is in.
    pub state: String,
    /// The name of the verb.
    pub verb: String,
}

/// What would help, where that is not the same for every verb.
fn hint(state: &str, verb: &str) -> &'static str {
    match (state, verb) {
        ("broken", "recover" | "reset" | "retire") => {
            ": another host runs it; `adopt --force` or `delete` here gives up what only this one has"
        }
        ("broken", "resume") => ": recover it",
        ("broken", "checkpoint" | "upgrade" | "configure") => ": recover it first, or reset it",
        ("paused" | "retiring" | "retired", "recover") => ": resume it",
        ("suspended", _) => ": resume it first, if it does not live on elsewhere",
        ("retired", _) => ": resume it first",
        ("deleted", _) => ": it can only be created again, with recreate",
        (_, "recreate") => ": it is not deleted",
        _ => "",
    }
}

/// What becomes of inputs that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenInputs {
    /// They go on waiting.
    Keep,
    /// All of them end.
    Abandon(AbandonReason),
    /// These end, as far as they are open.
    AbandonThese {
        /// Which.
        inputs: Vec<Seq>,
        /// Why.
        reason: AbandonReason,
    },
}

/// What becomes of the token and the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMove {
    /// Both stay.
    Keep,
    /// The token rises by one; the owner holds the agent on under the new one.
    Raise,
    /// The token rises by one; nobody holds the agent.
    RaiseAndFree,
}

/// A move of the table, ready to be stored. Made by `plan` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleCommit {
    from: Lifecycle,
    next: Lifecycle,
    inputs: OpenInputs,
    token: TokenMove,
    is_generation_raised: bool,
    is_state_cleared: bool,
    events: Vec<NewEvent>,
}

impl Verb {
    /// The name in the HTTP API and in events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retire => "retire",
            Self::Drained => "drained",
            Self::Stop { .. } => "stop",
            Self::Interrupt { .. } => "interrupt",
            Self::Recycle => "recycle",
            Self::Respawn => "respawn",
            Self::Checkpoint => "checkpoint",
            Self::Configure => "configure",
            Self::Upgrade => "upgrade",
            Self::Recover => "recover",
            Self::Reset => "reset",
            Self::Delete => "delete",
            Self::Recreate => "recreate",
            Self::Break(_) => "break",
            Self::Suspend(_) => "suspend",
        }
    }

    /// Whether it ends something that nothing brings back: these fence first.
    pub fn is_destructive(&self) -> bool {
        matches!(self, Self::Reset | Self::Delete)
    }
}

impl Lifecycle {
    /// The name in the HTTP API and in events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Broken(_) => "broken",
            Self::Paused => "paused",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Suspended(_) => "suspended",
            Self::Deleted => "deleted",
        }
    }

    /// Whether the agent takes new inputs.
    pub fn accepts(&self) -> bool {
        matches!(self, Self::Active | Self::Paused | Self::Broken(_))
    }

    /// Whether the agent takes turns.
    pub fn runs(&self) -> bool {
        matches!(self, Self::Active | Self::Retiring)
    }

    /// Whether the agent answers queries: it has a state that is its own, and is not over.
    pub fn answers_queries(&self) -> bool {
        matches!(self, Self::Active | Self::Paused | Self::Retiring)
    }

    /// Whether nothing of it runs, whoever owns it: no guest is loaded. Its rows are all there is of it.
    pub fn rests(&self) -> bool {
        !self.answers_queries()
    }

    /// Whether committed outputs are delivered. Not those of a broken agent, which may be one of two.
    pub fn publishes(&self) -> bool {
        !matches!(self, Self::Broken(_) | Self::Suspended(_))
    }

    /// Whether no input may be open.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Retired | Self::Deleted)
    }

    /// Whether a boundary of this kind may commit.
    pub fn takes_boundary(&self, kind: BoundaryKind) -> bool {
        match kind {
            BoundaryKind::Init | BoundaryKind::Turn | BoundaryKind::DeadLetter => self.runs(),
            BoundaryKind::Upgrade => self.runs() || matches!(self, Self::Paused | Self::Broken(_)),
            BoundaryKind::Repair => matches!(self, Self::Broken(_)),
        }
    }

    /// The state after a verb: the table.
    ///
    /// # Errors
    /// `IllegalMove` for every dash.
    pub fn after(&self, verb: &Verb) -> Result<Self, IllegalMove> {
        use Lifecycle::{Active, Broken, Deleted, Paused, Retired, Retiring, Suspended};
        let same = || Ok(self.clone());
        let illegal = || IllegalMove { state: self.name().to_owned(), verb: verb.name().to_owned() };
        match (self, verb) {
            // Whatever leads to where it runs would make a second one of it.
            (Broken(BrokenReason::Forked), Verb::Recover | Verb::Reset | Verb::Upgrade | Verb::Retire) => {
                Err(illegal())
            }
            (Broken(BrokenReason::Forked), Verb::Break(_)) => same(),
            (Active | Paused, Verb::Pause) | (Active | Paused | Retiring, Verb::Stop { .. }) => Ok(Paused),
            (Active | Paused | Retiring | Retired | Suspended(_), Verb::Resume)
            | (Active | Broken(_), Verb::Recover)
            | (Active | Retiring | Retired | Broken(_), Verb::Reset)
            | (Deleted, Verb::Recreate) => Ok(Active),
            (Active | Paused | Retiring, Verb::Retire) => Ok(Retiring),
            (Retired | Broken(_), Verb::Retire) | (Retiring | Retired, Verb::Drained) => Ok(Retired),
            (
                Active | Paused | Retiring,
                Verb::Interrupt { .. }
                | Verb::Recycle
                | Verb::Respawn
                | Verb::Checkpoint
                | Verb::Configure
                | Verb::Upgrade,
            )
            | (Broken(_), Verb::Upgrade)
            | (Paused, Verb::Reset) => same(),
            (_, Verb::Delete) => Ok(Deleted),
            (Active | Paused | Retiring | Retired | Broken(_) | Suspended(_), Verb::Break(reason)) => {
                Ok(Broken(reason.clone()))
            }
            (Active | Paused | Retiring | Broken(_) | Suspended(_), Verb::Suspend(reason)) => {
                Ok(Suspended(*reason))
            }
            _ => Err(illegal()),
        }
    }
}

impl LifecycleCommit {
    /// What a verb changes of an agent in a state, at wall time `now_ms`.
    ///
    /// # Errors
    /// `IllegalMove` when the table does not allow it.
    pub fn plan(agent: &AgentId, from: &Lifecycle, verb: &Verb, now_ms: u64) -> Result<Self, IllegalMove> {
        let next = from.after(verb)?;
        let inputs = match (from, verb) {
            (Lifecycle::Deleted, _) => OpenInputs::Keep,
            (Lifecycle::Broken(_), Verb::Retire) => OpenInputs::Abandon(AbandonReason::Retired),
            (_, Verb::Reset) => OpenInputs::Abandon(AbandonReason::Reset),
            (_, Verb::Delete) => OpenInputs::Abandon(AbandonReason::Destroyed),
            (_, Verb::Stop { is_abandoning: true }) => OpenInputs::Abandon(AbandonReason::Stopped),
            (_, Verb::Interrupt { inputs }) => {
                OpenInputs::AbandonThese { inputs: inputs.clone(), reason: AbandonReason::Cancelled }
            }
            _ => OpenInputs::Keep,
        };
        let token = match verb {
            Verb::Reset | Verb::Respawn => TokenMove::Raise,
            Verb::Delete | Verb::Suspend(_) if *from != next => TokenMove::RaiseAndFree,
            _ => TokenMove::Keep,
        };
        let is_generation_raised = matches!(verb, Verb::Reset | Verb::Recreate);
        let is_state_cleared = matches!(verb, Verb::Reset | Verb::Delete) && *from != Lifecycle::Deleted;
        let is_change = *from != next || token != TokenMove::Keep;
        let event = is_change.then(|| event(agent, from, &next, verb, now_ms));
        let events = event.into_iter().collect();
        Ok(Self { from: from.clone(), next, inputs, token, is_generation_raised, is_state_cleared, events })
    }

    /// The state that the agent must be in.
    pub fn from(&self) -> &Lifecycle {
        &self.from
    }

    /// The state afterwards.
    pub fn next(&self) -> &Lifecycle {
        &self.next
    }

    /// What becomes of the inputs that wait.
    pub fn inputs(&self) -> &OpenInputs {
        &self.inputs
    }

    /// What becomes of the token and the lease.
    pub fn token(&self) -> TokenMove {
        self.token
    }

    /// Whether the generation rises by one, and the revision starts at 0 again.
    pub fn is_generation_raised(&self) -> bool {
        self.is_generation_raised
    }

    /// Whether the guest's state goes: snapshots, and everything else that only the guest's own history explains.
    pub fn is_state_cleared(&self) -> bool {
        self.is_state_cleared
    }

    /// Whether no start of the agent has failed from here: the generation is new, or what broke it is over.
    pub fn is_start_fresh(&self) -> bool {
        let was_broken = matches!(self.from, Lifecycle::Broken(_));
        self.is_generation_raised || (was_broken && !matches!(self.next, Lifecycle::Broken(_)))
    }

    /// Whether it changes the state alone: no input, token, generation or guest state.
    pub fn keeps_all(&self) -> bool {
        self.inputs == OpenInputs::Keep
            && self.token == TokenMove::Keep
            && !self.is_generation_raised
            && !self.is_state_cleared
    }

    /// Whether nothing is left to do of it in a state that it does not begin in, with so many open inputs. A commit that
    /// ends inputs is not done while there are any: it was planned before somebody else made the same move.
    pub fn is_done(&self, state: &Lifecycle, open_inputs: u64) -> bool {
        let leaves_inputs = self.inputs == OpenInputs::Keep || open_inputs == 0;
        *state == self.next && self.token == TokenMove::Keep && leaves_inputs
    }

    /// What is to be known of it.
    pub fn events(&self) -> &[NewEvent] {
        &self.events
    }

    /// The commit without one of its duties, for stores that must be found out.
    #[cfg(feature = "test-util")]
    pub(crate) fn forgetting(mut self, duty: Forgotten) -> Self {
        match duty {
            Forgotten::Token => self.token = TokenMove::Keep,
            Forgotten::Inputs => self.inputs = OpenInputs::Keep,
            Forgotten::Events => self.events.clear(),
        }
        self
    }
}

/// A duty of a commit that a flawed store forgets.
#[cfg(feature = "test-util")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    Token,
    Inputs,
    Events,
}

/// The event of a change.
fn event(agent: &AgentId, from: &Lifecycle, next: &Lifecycle, verb: &Verb, now_ms: u64) -> NewEvent {
    let kind = match (verb, next) {
        (Verb::Pause | Verb::Stop { .. }, _) => EventKind::AgentPaused,
        (Verb::Resume, _) => EventKind::AgentResumed,
        (_, Lifecycle::Retiring) => EventKind::AgentRetiring,
        (Verb::Retire | Verb::Drained, _) => EventKind::AgentRetired,
        (Verb::Respawn, _) => EventKind::AgentRespawned,
        (Verb::Recover, _) => EventKind::AgentRecovered,
        (Verb::Reset, _) => EventKind::AgentReset,
        (Verb::Delete, _) => EventKind::AgentDeleted,
        (Verb::Break(_), _) => EventKind::AgentBroken,
        (Verb::Suspend(_), _) => EventKind::AgentSuspended,
        (Verb::Recreate, _) => EventKind::AgentCreated,
        _ => EventKind::AgentResumed,
    };
    let event = NewEvent::of_agent(agent, kind, now_ms)
        .with("verb", verb.name())
        .with("from", from.name())
        .with("to", next.name());
    match verb {
        Verb::Break(reason) => event.with("reason", reason.name()).with("message", reason.message()),
        Verb::Suspend(reason) => event.with("reason", reason.name()),
        _ => event,
    }
}

impl BrokenReason {
    /// The name in the HTTP API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init { .. } => "init",
            Self::Corrupt { .. } => "corrupt",
            Self::Restore { .. } => "restore",
            Self::Plugin { .. } => "plugin",
            Self::Forked => "forked",
            Self::Diverged { .. } => "diverged",
        }
    }

    /// Details for people; empty when the name says all.
    pub fn message(&self) -> &str {
        match self {
            Self::Init { message }
            | Self::Restore { message }
            | Self::Plugin { message }
            | Self::Diverged { message } => message,
            Self::Corrupt { what } => what,
            Self::Forked => "another host runs it, under a higher token",
        }
    }

    /// What an operator can do about it.
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::Forked => "ask that host; `adopt --force` or `delete` here gives up what only this one has",
            _ => "when the cause is gone, recover it; or reset it",
        }
    }
}

impl SuspendReason {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Imported => "imported",
        }
    }
}

#[cfg(test)]
mod tests;
