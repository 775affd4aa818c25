//! The `Clock` port and the system's clock: the only place that reads time or randomness.
//!
//! Two clocks with different duties: **wall** time (Unix milliseconds) is shown and recorded, never compared for
//! safety; **boot** time (CLOCK_BOOTTIME, which counts suspend) drives leases and deadlines.

#![expect(clippy::disallowed_methods, reason = "this file is the port that the others use instead")]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time and randomness, injected so that a simulation owns both.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in Unix milliseconds.
    fn wall_ms(&self) -> u64;
    /// Time since boot, counting suspend.
    fn boot(&self) -> Duration;
    /// Fills `bytes` with randomness fit for ids and seeds.
    fn fill_random(&self, bytes: &mut [u8]);
}

impl dyn Clock {
    /// Random bytes as an array.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill_random(&mut bytes);
        bytes
    }
}

/// The operating system's clock and random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        let (seconds, nanos) = (now.tv_sec.max(0).unsigned_abs(), now.tv_nsec.max(0).unsigned_abs());
        seconds * 1_000 + nanos / 1_000_000
    }

    fn boot(&self) -> Duration {
        boot_now()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system always has randomness once it has booted");
    }
}

/// Reads CLOCK_BOOTTIME. Kept apart from the port for what measures or bounds real work, also in a simulation.
pub fn boot_now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(now.tv_sec.max(0).unsigned_abs(), nanos)
}

/// Waits. Kept here so that one place decides what waiting means under simulation.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Bounds a wait. `None` when the time is over first.
pub async fn within<T>(duration: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(duration, work).await.ok()
}
