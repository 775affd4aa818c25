//! Proving that a snapshot can be taken back, before it is committed: a guest that returns garbage gets a fault and keeps
//! its last good state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::guest::{GuestError, GuestLoader, GuestRequest, StateReadError, TurnContext};
use crate::input::{Fault, FaultKind};

/// A snapshot of at most this many bytes is proved at each turn: a few tens of microseconds.
const ALWAYS_BYTES: usize = 64 * 1024;
/// A larger one is proved at most this often per agent, so that a hot agent does not pay for its size at each turn.
const EVERY: Duration = Duration::from_secs(1);

/// Proves one agent's snapshots.
pub(crate) struct Prover {
    loader: Arc<dyn GuestLoader>,
    request: GuestRequest,
    /// Boot time of the last proof.
    proved_at: Option<Duration>,
}

impl Prover {
    pub(crate) fn new(loader: Arc<dyn GuestLoader>, request: GuestRequest) -> Self {
        Self { loader, request, proved_at: None }
    }

    /// Restores `state` in a fresh guest when a proof is due at boot time `now`. Blocks.
    pub(crate) fn prove(
        &mut self,
        now: Duration,
        context: &TurnContext,
        state: &Bytes,
        version: &str,
    ) -> Result<(), GuestError> {
        let is_due = self.proved_at.is_none_or(|proved_at| now.saturating_sub(proved_at) >= EVERY);
        if !is_due && state.len() > ALWAYS_BYTES {
            return Ok(());
        }
        self.proved_at = Some(now);
        let restored = self
            .loader
            .start(self.request.clone())
            .and_then(|mut guest| guest.restore(context, state, version));
        restored.map_err(|error| match error {
            GuestError::Fault(fault) if fault.kind == FaultKind::Start => {
                let reason = format!("no room to prove the snapshot: {}", fault.message);
                GuestError::StateRead(StateReadError { reason })
            }
            GuestError::Retryable { .. } | GuestError::Fatal { .. } | GuestError::Fault(_) => {
                let message = format!("the snapshot can't be restored: {error}");
                GuestError::Fault(Fault { kind: FaultKind::Snapshot, message })
            }
            uncounted => uncounted,
        })
    }
}
