//! Until when a session's holder may act without asking the store: a pure value, which `SessionLease` shares.
//!
//! ```text
//! boot time   sent ............ deadline .. margin .. expiry at the earliest
//!             |<---- ttl - margin ---->|
//!               Held                   | Expiring            Lost: `lose`, for ever
//! ```
//! The store counts its time to live from when it writes, which is after the send. So no store can have given away what is
//! `Held` here because of the clock.

use std::time::Duration;

use super::{LeaseProfile, LeaseState};

/// The boot time at which a holder stops by itself, or the end of it all. In nanoseconds; 0 is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deadline(u64);

impl Deadline {
    /// Of a session that nothing but `lose` ends.
    pub const UNLIMITED: Self = Self(u64::MAX);
    /// Of a session that is dead.
    pub const LOST: Self = Self(0);

    /// The deadline after a join that was sent at boot time `sent`.
    pub fn started(sent: Duration, profile: &LeaseProfile) -> Self {
        Self(nanos(sent + profile.ttl.saturating_sub(profile.margin)).max(1))
    }

    /// The deadline after a successful heartbeat that was sent at boot time `sent`. It is never earlier than before, and a
    /// lost session stays lost.
    #[must_use]
    pub fn renewed(self, sent: Duration, profile: &LeaseProfile) -> Self {
        match self {
            Self::LOST => Self::LOST,
            Self(known) => Self(known.max(Self::started(sent, profile).0)),
        }
    }

    /// What the holder may believe at boot time `now`.
    pub fn state(self, now: Duration) -> LeaseState {
        match self {
            Self::LOST => LeaseState::Lost,
            _ if self.is_held(now) => LeaseState::Held,
            _ => LeaseState::Expiring,
        }
    }

    /// Whether the holder may act at boot time `now`.
    #[inline]
    pub fn is_held(self, now: Duration) -> bool {
        nanos(now) < self.0
    }

    /// From what `to_bits` gave.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As one number, for an atomic.
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }
}

/// One less than the unlimited deadline at most: that one is ahead at all times.
fn nanos(boot: Duration) -> u64 {
    u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests;
