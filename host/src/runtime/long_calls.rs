//! Calls that may wait at a peer for as long as their callers like. They wait for each other, so that what hosts say among
//! themselves is never behind them: a host has only so many requests at a peer at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use godwit_core::id::HostId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// At one peer at a time: three quarters of the requests that the mesh lets through.
const AT_ONCE_MAX: usize = 48;

/// Those that are at peers now.
#[derive(Default)]
pub(crate) struct LongCalls(Mutex<BTreeMap<HostId, Arc<Semaphore>>>);

impl LongCalls {
    /// Waits until one more may go to a peer; it is there while the permit is held.
    pub(super) async fn turn(&self, peer: HostId) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_MAX))).clone()
        };
        // It is never closed.
        turns.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use godwit_core::time::within;

    use super::*;

    #[tokio::test]
    async fn they_wait_for_each_other_at_one_peer() {
        let (calls, soon) = (LongCalls::default(), Duration::from_millis(50));
        let (one, other) = (HostId([1; 32]), HostId([2; 32]));
        let mut held = Vec::new();
        for _ in 0..AT_ONCE_MAX {
            held.push(within(soon, calls.turn(one)).await.expect("there is room"));
        }
        assert!(within(soon, calls.turn(one)).await.is_none(), "one too many");
        assert!(within(soon, calls.turn(other)).await.is_some(), "another peer has its own");
        held.pop();
        assert!(within(soon, calls.turn(one)).await.is_some(), "one has ended");
    }
}
