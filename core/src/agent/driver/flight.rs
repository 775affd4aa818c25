//! Running ahead: a chain is on its way to the store while the next turns of the agent run on top of it.
//!
//! ```text
//! burst A --launch--> store ...............answers--> what A did is released
//!          burst B on top of A --launch--> store ...............answers--> what B did is released
//!                               burst C ..
//! ```
//! The output gate: nothing of a chain is released before its own commit. When the store refuses one, all above it are
//! dropped uncounted (it refuses them too: each names the revision and the receipt it builds on), their inputs go back to
//! their places, and the agent is loaded again. Whatever needs the agent at a committed boundary lands the chains first.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;

use futures::future::BoxFuture;

use super::{Driver, Flow};
use crate::agent::chain::{Chain, Pending};
use crate::agent::{Answer, End};
use crate::failpoint;
use crate::id::Seq;
use crate::lease::LeaseState;
use crate::lifecycle::Lifecycle;
use crate::store::{StoreError, UnitFailure, UnitOutcome};

/// Chains on their way at most; with the one that runs on top of them it bounds what a refused commit throws away.
pub(super) const FLIGHTS_MAX: usize = 2;

/// The chains on their way, in the order in which they build on each other.
#[derive(Default)]
pub(super) struct Flights(VecDeque<Flight>);

struct Flight {
    chain: Chain,
    commit: Commit,
}

enum Commit {
    Running(BoxFuture<'static, UnitOutcome>),
    Done(UnitOutcome),
}

impl Commit {
    async fn outcome(self) -> UnitOutcome {
        match self {
            Self::Running(commit) => commit.await,
            Self::Done(outcome) => outcome,
        }
    }
}

impl Flights {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= FLIGHTS_MAX
    }

    /// Whether an input's end is on its way.
    pub(super) fn hold(&self, seq: Seq) -> bool {
        self.0.iter().any(|flight| flight.chain.ends(seq))
    }

    /// Whether the first was refused, so that nothing above it can commit.
    fn is_refused(&self) -> bool {
        let first = self.0.front().map(|flight| &flight.commit);
        matches!(first, Some(Commit::Done(outcome)) if outcome.failure.is_some())
    }

    /// Waits until the first has been answered; for ever when there is none.
    ///
    /// # Cancel safety
    /// Dropped before it returns, nothing is lost.
    pub(super) async fn arrival(&mut self) {
        let Some(first) = self.0.front_mut() else { return pending().await };
        if let Commit::Running(commit) = &mut first.commit {
            first.commit = Commit::Done(commit.await);
        }
    }
}

impl Driver {
    /// Whether turns may run on top of what is on its way. Everything but running what waits needs a committed boundary.
    pub(super) fn may_run_ahead(&self) -> bool {
        let is_ready = self
            .loaded
            .as_ref()
            .is_some_and(|loaded| loaded.guest.is_some() && loaded.lifecycle == Lifecycle::Active);
        // The inputs on their way are open in the store: read from the start, they would run twice.
        let is_inbox_forgotten = self.is_inbox_stale && self.known == Seq(0);
        is_ready && !is_inbox_forgotten && self.pause.is_none() && self.guard.state() == LeaseState::Held
    }

    /// Sends a chain to the store, behind those on their way. The agent's head is the chain's from here on.
    pub(super) async fn launch(&mut self, mut chain: Chain) {
        if !self.guard.is_held() {
            // Fence place 2: what was computed under a lease that has run out is thrown away.
            self.loaded = None;
            self.put_back_all(chain.pending);
            return;
        }
        if !self.flights.is_empty() {
            failpoint::hit("turn.after-run-ahead");
        }
        self.adopt(&chain);
        let mut commit: BoxFuture<'static, UnitOutcome> = Box::pin(chain.commit(self.env.store.clone()));
        // The store takes units in the order in which they are handed over, which is now, unless it has no room: a later
        // one may overtake then, and is refused.
        let commit = match futures::poll!(&mut commit) {
            std::task::Poll::Ready(outcome) => Commit::Done(outcome),
            std::task::Poll::Pending => Commit::Running(commit),
        };
        self.flights.0.push_back(Flight { chain, commit });
    }

    /// Commits a chain and settles it, with all before it.
    pub(super) async fn commit(&mut self, chain: Chain) -> Flow {
        self.launch(chain).await;
        self.land().await
    }

    /// What comes next builds on this chain.
    pub(super) fn adopt(&mut self, chain: &Chain) {
        if let Some(loaded) = &mut self.loaded {
            loaded.head = chain.head.clone();
        }
    }

    /// Waits for all chains on their way and settles them. The agent is at a committed boundary then, or `self.loaded` is
    /// `None`.
    pub(super) async fn land(&mut self) -> Flow {
        while !self.flights.is_empty() {
            self.flights.arrival().await;
            self.on_arrival().await?;
        }
        Ok(())
    }

    /// Settles the first chain, once it has been answered. Nothing is on its way after a refusal.
    pub(super) async fn on_arrival(&mut self) -> Flow {
        let Some(Flight { chain, commit }) = self.flights.0.pop_front() else { return Ok(()) };
        let outcome = commit.outcome().await;
        if outcome.failure.is_some() {
            self.loaded = None;
            let mut above = Vec::with_capacity(self.flights.0.len());
            for Flight { chain, commit } in std::mem::take(&mut self.flights.0) {
                above.push((chain.pending, commit.outcome().await));
            }
            // Each goes back in front of those that came after it.
            for (pending, outcome) in above.into_iter().rev() {
                self.drop_above(pending, outcome);
            }
        }
        self.settle(chain, outcome).await
    }

    /// Takes back turns that built on a refused chain. Some have committed all the same, where the store took the chain below
    /// and only its answer was lost.
    fn drop_above(&mut self, pending: Vec<Pending>, outcome: UnitOutcome) {
        let rest = self.release_durable(pending, outcome.committed);
        let pending = self.wait_for_accepted(rest, outcome.committed);
        if let Some(UnitFailure::Store(StoreError::Unknown { .. })) = outcome.failure {
            for request in pending.into_iter().filter_map(|pending| pending.origin.into_direct()) {
                let input = request.input.input.id;
                self.answer(request.answer, Answer::Unknown { input });
            }
        } else {
            self.put_back_all(pending);
        }
    }

    /// Waits for a burst, and releases meanwhile what arrives. A refusal waits for the end of the burst, whose turns are
    /// to go back first.
    pub(super) async fn beside_flights<T>(&mut self, burst: impl Future<Output = T>) -> Result<T, End> {
        let mut burst = pin!(burst);
        while !self.flights.is_refused() {
            // Cancel safe: the burst stays where it is, and `arrival` loses nothing when dropped.
            tokio::select! {
                biased;
                ran = &mut burst => return Ok(ran),
                () = self.flights.arrival() => {}
            }
            if !self.flights.is_refused() {
                self.on_arrival().await?;
            }
        }
        Ok(burst.await)
    }

    /// Whether the chain below a burst that has just run was refused. Then its turns are dropped, uncounted.
    pub(super) fn must_drop(&self) -> bool {
        self.flights.is_refused()
    }
}
