//! Proving that a snapshot can be taken back, before it is committed: a guest that returns garbage gets a fault and keeps
//! its last good state. The proof is a restore in another guest. A busy agent's proofs share one for up to a second, which
//! the contract allows (`wit/guest.wit`): what only a fresh guest would refuse is found within that second, or at the next
//! load.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::guest::{Guest, GuestError, GuestLoader, GuestRequest, StateReadError, TurnContext};
use crate::input::{Fault, FaultKind};

/// A snapshot of at most this many bytes is proved at each turn.
const ALWAYS_BYTES: usize = 64 * 1024;
/// A larger one is proved at most this often per agent, so that a hot agent does not pay for its size at each turn.
const EVERY: Duration = Duration::from_secs(1);
/// Agents that are busy at the same time and prove at each turn without starting a guest.
const SPARES_MAX: usize = 64;

/// Guests that a host keeps for proofs, when it may have this many residents.
pub const fn spares_max(resident_max: usize) -> usize {
    let share = resident_max.div_ceil(8);
    if share < SPARES_MAX { share } else { SPARES_MAX }
}

/// Proves one agent's snapshots.
pub struct Prover {
    loader: Arc<dyn GuestLoader>,
    request: GuestRequest,
    /// Boot time of the last proof.
    proved_at: Option<Duration>,
    /// How many guests the host keeps for proofs.
    spares: Arc<Semaphore>,
    spare: Option<Spare>,
    /// A used guest refused what a fresh one took: this plugin's guests can't be kept.
    is_fresh_only: bool,
}

/// A guest that has passed a proof and is kept for the next ones, for at most `EVERY`: restoring into it costs a call, into
/// a fresh one a start as well.
struct Spare {
    guest: Box<dyn Guest>,
    /// Boot time.
    started_at: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Prover {
    /// A prover for the agent of `request`; `spares` says how many guests the host keeps for proofs.
    pub fn new(loader: Arc<dyn GuestLoader>, request: GuestRequest, spares: Arc<Semaphore>) -> Self {
        Self { loader, request, proved_at: None, spares, spare: None, is_fresh_only: false }
    }

    /// Restores `state` in another guest when a proof is due at boot time `now`. Blocks.
    ///
    /// # Errors
    /// `FaultKind::Snapshot` when a fresh guest refuses it; `StateRead` when the host has no room to tell.
    pub fn prove(
        &mut self,
        now: Duration,
        context: &TurnContext,
        state: &Bytes,
        version: &str,
    ) -> Result<(), GuestError> {
        let is_small = state.len() <= ALWAYS_BYTES;
        let is_due = self.proved_at.is_none_or(|proved_at| now.saturating_sub(proved_at) >= EVERY);
        if !is_due && !is_small {
            return Ok(());
        }
        self.proved_at = Some(now);
        let spare = self.spare.take().filter(|spare| now.saturating_sub(spare.started_at) < EVERY);
        let mut is_refused = false;
        if let Some(mut spare) = spare {
            if spare.guest.restore(context, state, version).is_ok() {
                self.spare = is_small.then_some(spare);
                return Ok(());
            }
            is_refused = true;
        }
        let guest = self.loader.start(self.request.clone()).and_then(|mut guest| {
            guest.restore(context, state, version)?;
            Ok(guest)
        });
        // What a used guest refuses, a fresh one may take: only that one's refusal counts.
        let guest = guest.map_err(refusal)?;
        self.is_fresh_only |= is_refused;
        if is_small && !self.is_fresh_only {
            let permit = self.spares.clone().try_acquire_owned().ok();
            self.spare = permit.map(|permit| Spare { guest, started_at: now, _permit: permit });
        }
        Ok(())
    }

    /// Starts an instance that goes on from a snapshot in the agent's stead. Blocks. The proof is in the starting.
    ///
    /// # Errors
    /// As `prove`.
    pub fn rebase(
        &mut self,
        context: &TurnContext,
        state: &Bytes,
        version: &str,
    ) -> Result<Box<dyn Guest>, GuestError> {
        self.spare = None;
        let mut guest = self.loader.start(self.request.clone()).map_err(refusal)?;
        guest.restore(context, state, version).map_err(refusal)?;
        Ok(guest)
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Gives up the guest that is kept for the next proof.
    pub(crate) fn drop_spare(&mut self) {
        self.spare = None;
    }
}

fn refusal(error: GuestError) -> GuestError {
    match error {
        GuestError::Fault(fault) if fault.kind == FaultKind::Start => {
            let reason = format!("no room to prove the snapshot: {}", fault.message);
            GuestError::StateRead(StateReadError { reason })
        }
        GuestError::Retryable { .. } | GuestError::Fatal { .. } | GuestError::Fault(_) => {
            let message = format!("the snapshot can't be restored: {error}");
            GuestError::Fault(Fault { kind: FaultKind::Snapshot, message })
        }
        uncounted => uncounted,
    }
}

#[cfg(test)]
mod tests;
