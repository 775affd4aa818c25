//! A burst: the turns of one agent that run in one job on a guest thread, and their commit when the store has time for it.
//!
//! ```text
//! driver --turns--> guest thread: turn, turn, .. --> commit here, if the store is idle --> driver
//!                                                \-> the driver commits ----------------/
//! ```
//! It commits here only when no other job waits and nothing of the agent is on its way.
//!
//! Everything in one job means two hand-overs between threads for all of it, which is most of what a small turn costs; one,
//! where a lone burst of an agent whose turns are quick stays on its driver's thread.

use std::collections::VecDeque;
use std::time::Duration;

use crate::agent::chain::{Chain, Origin, RanTurn};
use crate::agent::control::Control;
use crate::agent::load_notes::Noted;
use crate::agent::loading::{Loaded, outside_context};
use crate::agent::tail::Write;
use crate::agent::{AgentEnv, sabotage};
use crate::failpoint;
use crate::guest::{Answers, GuestError, TurnContext};
use crate::input::Input;
use crate::journal::JournalEntry;
use crate::store::{Owner, UnitOutcome};

/// After this long a burst takes no further turn, so that others get the thread; nor does it commit there: a long call
/// lowers the thread's priority, and nobody else's write may wait for such a thread.
const TIME_MAX: Duration = Duration::from_millis(5);
/// A burst of an agent whose last one was over so soon may run on the thread of its driver.
const QUICK_MAX: Duration = Duration::from_millis(1);

/// Turns on their way through a guest thread.
pub(crate) struct Burst {
    pub(crate) loaded: Loaded,
    pub(crate) chain: Chain,
    /// Turns that wait, each with the number of its attempt.
    pub(crate) turns: VecDeque<(Origin, u32)>,
    /// The turn that gave nothing; the guest is gone.
    pub(crate) failed: Option<(Origin, u32, GuestError)>,
    /// The chain's commit, if it was done here.
    pub(crate) outcome: Option<UnitOutcome>,
    /// Whether its turns were quick.
    pub(crate) is_quick: bool,
    /// Told which turn may be interrupted.
    control: Control,
    /// Whether its commit may be done here.
    is_lone: bool,
}

impl Burst {
    pub(crate) fn new(
        loaded: Loaded,
        chain: Chain,
        turns: VecDeque<(Origin, u32)>,
        control: Control,
        is_lone: bool,
    ) -> Self {
        Self { loaded, chain, turns, failed: None, outcome: None, is_quick: false, control, is_lone }
    }

    /// Runs turns until one fails, the chain is full or the time is up. Blocks.
    pub(crate) fn run(mut self, env: &AgentEnv) -> Self {
        let started = env.clock.boot();
        let is_short = || env.clock.boot().saturating_sub(started) < TIME_MAX;
        let mut is_first = true;
        // The first turn may have been staged: it runs, however late it is.
        while is_first || (!self.chain.is_full() && is_short()) {
            let Some((origin, attempt)) = self.turns.pop_front() else { break };
            if origin.is_abandoned() {
                continue;
            }
            is_first = false;
            self.control.begin(&self.loaded.interrupt);
            let ran = self.turn(env, &origin, attempt);
            self.control.end(matches!(ran, Err(GuestError::Interrupted)));
            match ran {
                Ok(ran) => self.chain.push_turn(origin, ran),
                Err(error) => {
                    self.failed = Some((origin, attempt, error));
                    break;
                }
            }
        }
        if !self.chain.is_empty() {
            failpoint::hit("turn.after-guest-call");
        }
        self.is_quick = self.failed.is_none() && env.clock.boot().saturating_sub(started) < QUICK_MAX;
        // While other jobs wait, the thread is theirs, and their units can share a commit with this one.
        let is_lone = self.is_lone && is_short() && !env.pool.has_waiting();
        // Fence place 2: what was computed under a lease that has run out is not committed.
        if !self.chain.is_empty() && is_lone && self.loaded.guard.is_held() {
            self.outcome = self.chain.commit_here(env.store.as_ref());
        }
        self
    }

    /// Runs one turn and takes what its boundary writes. A snapshot is proved restorable. The guest is gone after any
    /// failure.
    fn turn(&mut self, env: &AgentEnv, origin: &Origin, attempt: u32) -> Result<RanTurn, GuestError> {
        let Loaded { author, guest: place, rows, prover, tail, .. } = &mut self.loaded;
        let Some(mut guest) = place.take() else {
            // Taken by a turn that failed: the driver loads the agent again.
            return Err(GuestError::Interrupted);
        };
        let revision = self.chain.head.revision;
        let context = TurnContext {
            generation: author.owner.generation,
            token: author.owner.token,
            revision,
            attempt,
            now_ms: env.clock.wall_ms().max(self.chain.head.time_ms),
            seed: env.clock.random(),
            answers: if tail.is_journaled() { Answers::Record } else { Answers::Forget },
        };
        let Owner { agent, generation, token, .. } = &author.owner;
        let after = outside_context(agent, *generation, *token, revision.next(), context.now_ms);
        // Until its state is proved: who dies of that dies of its beginning.
        let _noted =
            matches!(origin, Origin::Init).then(|| Noted::new(env.load_notes.clone(), &author.owner.agent));
        let mut effects = match origin {
            Origin::Init => {
                sabotage::taste_start("init", agent);
                guest.init(&context)?
            }
            Origin::Direct(_) | Origin::Queued(_) | Origin::Batch(_) => {
                let inputs: Vec<Input> = origin.inputs().into_iter().cloned().collect();
                sabotage::taste(&inputs);
                guest.handle(&context, &inputs)?
            }
        };
        // The next turn sees what this one has written, though it is not committed yet.
        rows.add(revision.next(), &effects);
        let TurnContext { attempt, now_ms, seed, .. } = context;
        let answers = effects.answers.take();
        let entry = answers.map(|answers| JournalEntry { attempt, seed, answers });
        let payload: usize = origin.inputs().iter().map(|input| input.payload.len()).sum();
        let write = tail.add(entry.as_ref().map(|entry| entry.weight() + payload), effects.elapsed);
        let entry = entry.filter(|_| write != Write::Snapshot);
        if write == Write::Entry {
            *place = Some(guest);
            return Ok(RanTurn { effects, state: None, entry, now_ms });
        }
        let state = guest.snapshot(&after)?;
        if tail.is_base(state.len()) {
            // Its room is needed by the next one.
            drop(guest);
            let started = env.clock.boot();
            guest = prover.rebase(&after, &state, &author.plugin_version)?;
            tail.begin(revision.next(), state.len(), Some(env.clock.boot().saturating_sub(started)));
        } else {
            prover.prove(env.clock.boot(), &after, &state, &author.plugin_version)?;
            tail.begin(revision.next(), state.len(), None);
        }
        *place = Some(guest);
        Ok(RanTurn { effects, state: Some(state), entry, now_ms })
    }
}
