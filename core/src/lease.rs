//! Leases: the right of one host incarnation to act for an agent, and the guard that stops a stale holder early.
//!
//! ```text
//! SessionLease  (one per host session)   deadline: boot time until which the store can't have given our agents away
//!    ^ shared by
//! LeaseGuard    (one per owned agent)    lost: the store said that the agent is another's
//! ```
//! What is decided is decided by pure values: `deadline` (until when a holder acts), `keeper` (what keeps a session) and
//! `fence` (who may write, in every store).
//!
//! The guard makes a stale host stop early. It is never what makes it safe: the store compares the token inside each
//! write. So the guard is two relaxed-enough atomic loads and one clock read, and may be asked on every guest import.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FencingToken, Generation, HostId, Incarnation, MigrationId, Revision};
use crate::lease::deadline::Deadline;
use crate::time::{Clock, SystemClock};

pub mod deadline;
pub mod fence;
pub mod keeper;

/// Why a token was raised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GrantCause {
    /// The agent was free, or its holder's session was dead.
    Acquired,
    /// A migration's commit point gave it.
    Transferred {
        /// Which migration.
        migration: MigrationId,
        /// The revision that moved.
        revision: Revision,
    },
}

/// A granted lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Of which agent.
    pub agent: AgentId,
    /// The agent's generation at the grant.
    pub generation: Generation,
    /// The current token.
    pub token: FencingToken,
    /// The holder's session.
    pub incarnation: Incarnation,
    /// Why the token was raised.
    pub cause: GrantCause,
}

/// Who holds an agent, as a refused writer learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The holding host.
    pub host: HostId,
    /// Its session.
    pub incarnation: Incarnation,
}

/// How long a session lives without a heartbeat, for stores that several processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseProfile {
    /// Life of a session after a heartbeat.
    pub ttl: Duration,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// How much earlier than the store a holder stops by itself.
    pub margin: Duration,
}

impl LeaseProfile {
    /// 15 s, 5 s, 2 s.
    pub const NORMAL: Self = Self {
        ttl: Duration::from_secs(15),
        heartbeat: Duration::from_secs(5),
        margin: Duration::from_secs(2),
    };
    /// 3 s, 1 s, 0.5 s.
    pub const FAST: Self = Self {
        ttl: Duration::from_secs(3),
        heartbeat: Duration::from_secs(1),
        margin: Duration::from_millis(500),
    };
}

const _: () = assert!(LeaseProfile::NORMAL.heartbeat.as_millis() * 2 < LeaseProfile::NORMAL.ttl.as_millis());
const _: () = assert!(LeaseProfile::FAST.heartbeat.as_millis() * 2 < LeaseProfile::FAST.ttl.as_millis());

/// What the holder may believe about its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// The deadline is ahead.
    Held,
    /// The deadline has passed and the store has not spoken: act for nobody, keep everything.
    Expiring,
    /// The store said so: everything of the agent stops.
    Lost,
}

/// The session's deadline, shared by the guards of all its agents.
pub struct SessionLease {
    deadline: AtomicU64,
    /// Whose boot time the deadline is.
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for SessionLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SessionLease").field(&self.deadline()).finish()
    }
}

impl SessionLease {
    /// A session that never expires: the process holds the store's lock, and that is the session.
    pub fn unlimited() -> Arc<Self> {
        // No time is beyond that deadline, whoever tells it.
        Self::until(Deadline::UNLIMITED, Arc::new(SystemClock))
    }

    /// A session valid for `profile` after a join that was sent at boot time `sent` of `clock`.
    pub fn started(sent: Duration, profile: &LeaseProfile, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::until(Deadline::started(sent, profile), clock)
    }

    fn until(deadline: Deadline, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { deadline: AtomicU64::new(deadline.to_bits()), clock })
    }

    /// Takes a successful heartbeat into account. `sent` is the boot time from **before** the heartbeat was sent. A late
    /// answer shortens nothing, and none brings a lost session back.
    pub fn renewed(&self, sent: Duration, profile: &LeaseProfile) {
        let later = |known: u64| Some(Deadline::from_bits(known).renewed(sent, profile).to_bits());
        // It always has an answer, so it never fails.
        let _ = self.deadline.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// Marks the session as dead, for ever: every guard under it says `Lost`.
    pub fn lose(&self) {
        self.deadline.store(Deadline::LOST.to_bits(), Ordering::Release);
    }

    /// What holds now for all agents of the session.
    pub fn state(&self) -> LeaseState {
        self.deadline().state(self.clock.boot())
    }

    /// Whether the holder of an agent may act now, as far as the session goes.
    #[inline]
    fn is_held(&self) -> bool {
        self.deadline().is_held(self.clock.boot())
    }

    #[inline]
    fn deadline(&self) -> Deadline {
        Deadline::from_bits(self.deadline.load(Ordering::Acquire))
    }
}

/// Asked before each act for an agent. Cheap to clone; all clones see the same loss.
#[derive(Debug, Clone)]
pub struct LeaseGuard {
    session: Arc<SessionLease>,
    lost: Arc<AtomicBool>,
    token: FencingToken,
}

impl LeaseGuard {
    /// A guard for one grant under a session.
    pub fn new(session: Arc<SessionLease>, token: FencingToken) -> Self {
        Self { session, lost: Arc::new(AtomicBool::new(false)), token }
    }

    /// The token of the grant.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Records that the store named another holder.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// What the holder may believe now.
    pub fn state(&self) -> LeaseState {
        if self.lost.load(Ordering::Acquire) { LeaseState::Lost } else { self.session.state() }
    }

    /// Whether the holder may act now.
    #[inline]
    pub fn is_held(&self) -> bool {
        !self.lost.load(Ordering::Acquire) && self.session.is_held()
    }
}

#[cfg(test)]
mod tests;
