//! Running what waits: which turns make the next burst, and what becomes of them.

use std::collections::VecDeque;

use super::{Driver, Flow};
use crate::agent::burst::Burst;
use crate::agent::chain::{CHAIN_TURNS_MAX, Chain, Origin};
use crate::agent::turn::{self, Start};
use crate::agent::{End, Notice};
use crate::guest::GuestError;
use crate::id::Revision;
use crate::input::{FaultKind, InputState};
use crate::store::{Attempt, BrokenReason, StoredInput};

impl Driver {
    /// Runs what waits, up to what one commit takes, commits it, and deals with the turn that failed.
    pub(super) async fn work(&mut self) -> Flow {
        let Some((chain, turns)) = self.pick().await? else { return Ok(()) };
        if turns.is_empty() {
            return if chain.is_empty() { Ok(()) } else { self.commit(chain).await };
        }
        let Some(loaded) = self.loaded.take() else { return Ok(()) };
        let (env, plugin) = (self.env.clone(), loaded.author.plugin);
        let burst = Burst::new(loaded, chain, turns);
        let run = self.env.pool.run(plugin, move || burst.run(&env)).await;
        let Burst { loaded, chain, turns, failed, outcome } = run.map_err(|_| End::Parked)?;
        self.loaded = Some(loaded);
        self.failures = 0;
        for (origin, _) in turns.into_iter().rev() {
            match origin {
                Origin::Direct(request) => self.direct.push_front(request),
                Origin::Queued(input) => self.queue.push_front(*input),
                Origin::Init => {}
            }
        }
        let settled = match outcome {
            Some(outcome) => self.settle(chain, outcome).await,
            None if chain.is_empty() => Ok(()),
            None => self.commit(chain).await,
        };
        let Some((origin, attempt, error)) = failed else { return settled };
        if settled.is_err() || self.loaded.is_none() {
            self.put_back(origin);
            return settled;
        }
        match origin {
            Origin::Init => self.on_init_failure(attempt, error).await,
            origin => self.on_failed_turn(origin, attempt, error).await,
        }
    }

    /// Takes the turns of the next burst. A turn that must be staged durably comes first in its burst, and so do dead
    /// letters, which the chain holds already.
    async fn pick(&mut self) -> Result<Option<(Chain, VecDeque<(Origin, u32)>)>, End> {
        let Some(loaded) = &self.loaded else { return Ok(None) };
        let mut chain = Chain::new(loaded.author.clone(), &loaded.head);
        let mut turns = VecDeque::new();
        if loaded.head.revision == Revision(0) {
            turns.push_back((Origin::Init, self.failures + 1));
            return Ok(Some((chain, turns)));
        }
        while turns.len() + chain.pending.len() < CHAIN_TURNS_MAX {
            let Some(input) = self.queue.pop_front() else { break };
            match turn::start(&input, self.lease.incarnation) {
                Start::Now => turns.push_back((Origin::Queued(Box::new(input)), 1)),
                Start::Stage { attempts } if turns.is_empty() && chain.is_empty() => {
                    let staged = StoredInput { state: InputState::Staged, attempts, ..input };
                    self.stage(&staged).await?;
                    if self.loaded.is_none() {
                        return Ok(None);
                    }
                    turns.push_back((Origin::Queued(Box::new(staged)), attempts));
                }
                Start::GiveUp(reason) if turns.is_empty() => {
                    chain.push_dead_letter(Origin::Queued(Box::new(input)), reason);
                }
                Start::Stage { .. } | Start::GiveUp(_) => {
                    self.queue.push_front(input);
                    break;
                }
            }
        }
        let room = CHAIN_TURNS_MAX.saturating_sub(turns.len() + chain.pending.len()).min(self.direct.len());
        turns.extend(self.direct.drain(..room).map(|request| (Origin::Direct(request), 1)));
        Ok(Some((chain, turns)))
    }

    async fn stage(&mut self, input: &StoredInput) -> Flow {
        let Some(loaded) = &self.loaded else { return Ok(()) };
        let mut chain = Chain::new(loaded.author.clone(), &loaded.head);
        let attempt = Attempt { seq: input.seq, state: InputState::Staged, attempts: input.attempts };
        chain.push_attempt(Origin::Queued(Box::new(input.clone())), attempt);
        self.commit(chain).await
    }

    async fn on_init_failure(&mut self, attempt: u32, error: GuestError) -> Flow {
        self.loaded = None;
        self.failures = attempt - 1;
        if matches!(&error, GuestError::Fault(fault) if fault.kind == FaultKind::Start) {
            (self.env.notify)(Notice::NoRoom(self.agent.clone()));
            self.pause_longer();
            return Ok(());
        }
        match turn::after_failure(&error, attempt) {
            turn::Verdict::Uncounted => self.on_uncounted(&error).await,
            turn::Verdict::Again { .. } => {
                self.failures = attempt;
                self.pause_longer();
                Ok(())
            }
            turn::Verdict::DeadLetter(_) => {
                self.break_down(BrokenReason::Init { message: error.to_string() }).await
            }
        }
    }
}
