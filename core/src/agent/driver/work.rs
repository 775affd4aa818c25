//! Running what waits: which turns make the next burst, and what becomes of them.

use std::collections::VecDeque;

use super::{Driver, Flow};
use crate::agent::burst::Burst;
use crate::agent::chain::{CHAIN_TURNS_MAX, Chain, Origin};
use crate::agent::pool::{Alone, PoolError};
use crate::agent::turn::Start;
use crate::agent::{End, Ending, Interrupted};
use crate::failpoint;
use crate::guest::GuestError;
use crate::id::Revision;
use crate::input::InputState;
use crate::store::StoredInput;

/// What the next burst is made of.
pub(super) struct Picked {
    chain: Chain,
    /// Each with the number of its attempt.
    pub(super) turns: VecDeque<(Origin, u32)>,
    /// Set when its only turn runs alone in the process.
    pub(super) alone: Option<Alone>,
}

impl Picked {
    fn nothing(chain: Chain) -> Self {
        Self { chain, turns: VecDeque::new(), alone: None }
    }

    fn len(&self) -> usize {
        self.turns.len() + self.chain.pending.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Driver {
    /// Runs what waits, up to what one commit takes, commits it, and deals with the turn that failed.
    pub(super) async fn work(&mut self) -> Flow {
        let flow = self.run_what_waits().await;
        // A turn that had to end and was not given up is done again.
        self.control.tell(&Interrupted::PutBack);
        flow
    }

    async fn run_what_waits(&mut self) -> Flow {
        if self.flights.is_full() {
            self.flights.arrival().await;
            return self.on_arrival().await;
        }
        let Some(Picked { chain, turns, alone }) = self.pick().await? else { return Ok(()) };
        if turns.is_empty() {
            return if chain.is_empty() { Ok(()) } else { self.commit(chain).await };
        }
        let Some(loaded) = self.loaded.take() else { return Ok(()) };
        let is_init = loaded.head.revision == Revision(0);
        let is_lone = self.flights.is_empty() && !self.inbox.is_due() && self.direct.is_empty();
        let (env, plugin) = (self.env.clone(), loaded.author.plugin);
        let pool = env.pool.clone();
        let burst = Burst::new(loaded, chain, turns, self.control.clone(), is_lone);
        let job = move || burst.run(&env);
        let may_stay = is_lone && self.is_quick;
        // Held until what it ran is committed: no other guest call can be to blame if the process dies.
        let run = async {
            match &alone {
                Some(alone) => alone.run(job).await,
                None if may_stay => match pool.run_here(plugin, job) {
                    Ok(ran) => ran,
                    Err(job) => pool.run(plugin, job).await,
                },
                None => pool.run(plugin, job).await,
            }
        };
        let ran = match self.beside_flights(run).await? {
            Ok(ran) => ran,
            Err(PoolError::Closed) => return Err(End::Parked),
            Err(PoolError::Panicked) => return self.on_panic().await,
        };
        let Burst { loaded, chain, turns, failed, outcome, is_quick, .. } = ran;
        self.failures = 0;
        self.is_quick = is_quick;
        self.take_back(turns);
        if self.must_drop() {
            return self.drop_burst(chain, failed.map(|(origin, ..)| origin)).await;
        }
        self.loaded = Some(loaded);
        let must_land = failed.is_some() || alone.is_some() || is_init;
        let settled = match outcome {
            Some(outcome) => {
                self.adopt(&chain);
                self.settle(chain, outcome).await
            }
            None => {
                if !chain.is_empty() {
                    self.launch(chain).await;
                }
                if must_land { self.land().await } else { Ok(()) }
            }
        };
        let Some((origin, attempt, error)) = failed else {
            return settled;
        };
        if settled.is_err() || self.loaded.is_none() {
            self.put_back(origin);
            return settled;
        }
        let is_interrupted = error == GuestError::Interrupted;
        match origin {
            origin if is_interrupted && self.control.asked() == Some(Ending::Interrupt) => {
                self.on_interrupted(origin).await
            }
            Origin::Init => self.on_init_failure(attempt, error).await,
            origin => self.on_failed_turn(origin, attempt, error).await,
        }
    }

    /// What the turns built on was refused: they did not run, nor did the one that failed.
    async fn drop_burst(&mut self, chain: Chain, failed: Option<Origin>) -> Flow {
        if let Some(origin) = failed {
            self.put_back(origin);
        }
        self.put_back_all(chain.pending);
        self.land().await
    }

    /// Turns that did not run wait at their old places.
    fn take_back(&mut self, turns: VecDeque<(Origin, u32)>) {
        for (origin, _) in turns.into_iter().rev() {
            match origin {
                Origin::Direct(request) => self.direct.push_front(request),
                Origin::Queued(input) => self.inbox.insert(*input),
                Origin::Batch(inputs) => self.inbox.put_back(inputs),
                Origin::Init => {}
            }
        }
    }

    /// The host's own code failed in the middle of a burst: nobody knows how far it came, and nothing of it has committed.
    /// Durable inputs are read again, later each time; asks end unknown.
    async fn on_panic(&mut self) -> Flow {
        tracing::error!(agent = %self.agent, "a burst panicked");
        self.land().await?;
        self.loaded = None;
        self.forget_queue();
        self.failures += 1;
        self.pause_longer();
        Ok(())
    }

    /// Takes the turns of the next burst. A turn that must be staged durably comes first in its burst, and so do dead
    /// letters, which the chain holds already. A turn that runs alone is all of its burst.
    async fn pick(&mut self) -> Result<Option<Picked>, End> {
        let Some(loaded) = &self.loaded else { return Ok(None) };
        let mut picked = Picked::nothing(loaded.chain());
        if loaded.head.revision == Revision(0) {
            let failed = loaded.failed_starts;
            return Ok(Some(self.pick_init(picked, failed).await));
        }
        while picked.len() < CHAIN_TURNS_MAX {
            let Some(next) = self.inbox.next(self.lease.incarnation) else { break };
            match next.start {
                Start::Now => picked.turns.push_back((Origin::queued(next.inputs), 1)),
                Start::Stage { attempts, deaths } if picked.is_empty() => {
                    let Some(origin) = self.stage(next.inputs, attempts, deaths).await? else {
                        return Ok(None);
                    };
                    picked.turns.push_back((origin, attempts));
                }
                Start::StageAlone { attempts, deaths } if picked.is_empty() => {
                    picked.alone = Some(self.env.pool.alone().await);
                    let Some(origin) = self.stage(next.inputs, attempts, deaths).await? else {
                        return Ok(None);
                    };
                    picked.turns.push_back((origin, attempts));
                    return Ok(Some(picked));
                }
                Start::GiveUp(reason) if picked.turns.is_empty() => {
                    picked.chain.push_dead_letter(Origin::queued(next.inputs), reason);
                }
                Start::Stage { .. } | Start::StageAlone { .. } | Start::GiveUp(_) => {
                    self.inbox.put_back(next.inputs);
                    break;
                }
            }
        }
        let room = CHAIN_TURNS_MAX.saturating_sub(picked.len()).min(self.direct.len());
        picked.turns.extend(self.direct.drain(..room).map(|request| (Origin::Direct(request), 1)));
        Ok(Some(picked))
    }

    /// Makes an attempt durable before it is made; `None` when the store did not take it. A batch has no attempt: what
    /// becomes of it says nothing about any one of its inputs.
    async fn stage(
        &mut self,
        inputs: Vec<StoredInput>,
        attempts: u32,
        deaths: u32,
    ) -> Result<Option<Origin>, End> {
        let Some(loaded) = &self.loaded else { return Ok(None) };
        let attempts = if inputs.len() == 1 { attempts } else { 0 };
        let staged = |input| StoredInput { state: InputState::Staged, attempts, deaths, ..input };
        let inputs: Vec<StoredInput> = inputs.into_iter().map(staged).collect();
        let mut chain = loaded.chain();
        chain.push_attempts(Origin::queued(inputs.clone()), InputState::Staged, attempts, deaths);
        self.commit(chain).await?;
        failpoint::hit("input.after-stage");
        Ok(self.loaded.is_some().then(|| Origin::queued(inputs)))
    }
}
