//! `SimClock`: the clock of one simulated machine, on tokio's paused time.
//!
//! Boot time runs with the simulation and may jump forward, as after a suspend. Wall time may be anywhere. Both outlive the
//! processes of their machine. All random numbers come from the seed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use godwit_core::time::Clock;
use tokio::time::Instant;

use crate::random::Random;

/// Boot time of all machines when a run begins.
const BOOT_START: Duration = Duration::from_secs(1_000);
/// Wall time of all machines when a run begins.
const WALL_START_MS: u64 = 1_800_000_000_000;

/// The clock of one machine.
pub struct SimClock {
    start: Instant,
    boot_ahead_ms: AtomicU64,
    wall_ahead_ms: AtomicI64,
    random: Mutex<Random>,
}

impl SimClock {
    /// A clock of a run that began at `start`.
    pub fn new(start: Instant, random: Random) -> Self {
        Self {
            start,
            boot_ahead_ms: AtomicU64::new(0),
            wall_ahead_ms: AtomicI64::new(0),
            random: Mutex::new(random),
        }
    }

    /// Lets boot time jump.
    pub fn jump_boot(&self, by: Duration) {
        self.boot_ahead_ms.fetch_add(millis(by), Ordering::Relaxed);
    }

    /// Sets wall time so far ahead of the true one, or behind it.
    pub fn set_wall_ahead_ms(&self, ahead: i64) {
        self.wall_ahead_ms.store(ahead, Ordering::Relaxed);
    }
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        let true_ms = WALL_START_MS + millis(self.start.elapsed());
        true_ms.saturating_add_signed(self.wall_ahead_ms.load(Ordering::Relaxed))
    }

    fn boot(&self) -> Duration {
        BOOT_START + self.start.elapsed() + Duration::from_millis(self.boot_ahead_ms.load(Ordering::Relaxed))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            let number = random.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
