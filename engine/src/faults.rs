//! A switch that makes guests non-deterministic on purpose, so that replay can be seen to notice. The product has none.

/// The host's own clock, an hour ahead, in Unix milliseconds: what guests see instead of their turn's time under
/// `GODWIT_BREAK=real-clock`.
#[cfg(feature = "test-util")]
pub(crate) fn real_clock_ms() -> Option<u64> {
    use std::sync::OnceLock;

    use godwit_core::time::{Clock, SystemClock};

    static IS_BROKEN: OnceLock<bool> = OnceLock::new();
    let is_broken = *IS_BROKEN.get_or_init(|| {
        let broken = std::env::var("GODWIT_BREAK").unwrap_or_default();
        broken.split(',').any(|part| part.trim() == "real-clock")
    });
    is_broken.then(|| SystemClock.wall_ms() + 3_600_000)
}

/// Nothing is broken.
#[cfg(not(feature = "test-util"))]
#[inline]
pub(crate) fn real_clock_ms() -> Option<u64> {
    None
}
