//! The keeper of a host's session, as a pure machine: what is to be done next, from the time and what the store has said.
//!
//! ```text
//! Kept --dead--> Dying --stopped--> Looking --nobody newer--> Joining --joined--> Kept
//!   ^ renewed, unclear: Kept          | a newer session of this host: Superseded (the process ends)
//! ```
//! Whoever drives it sends what `next` says and tells what came back. It holds no deadline: that is the `SessionLease`,
//! which guards read. An answer that did not come is `Heard::Unclear`, and nothing is concluded from it: the session may
//! live, so the next heartbeat comes soon, and until then the guards stop by themselves.

use std::time::Duration;

use super::LeaseProfile;

/// Pause before the host tries to join again, or looks again whether it may.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What keeps one host's session. Times are boot times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keeper {
    profile: LeaseProfile,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// The session lives, as far as is known; the next heartbeat is due then.
    Kept { beat_at: Duration },
    /// The store said that it is dead; guards under it may still let something pass.
    Dying,
    /// Nothing under it may act any more; whether a newer process has this host's key is to be read then.
    Looking { at: Duration },
    /// Nobody has it; the host joins again then.
    Joining { at: Duration },
    /// A newer process has it.
    Superseded,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nothing until then.
    Wait(Duration),
    /// Send a heartbeat, and tell `heard`.
    Beat,
    /// Lose the session's lease, stop everything under it, and tell `stopped`.
    Stop,
    /// Read the sessions, and tell `looked`.
    Look,
    /// Join as a new incarnation, and tell `joined` or `not_joined`.
    Join,
    /// End the process: another one acts for this host.
    Exit,
}

/// What became of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Heard {
    /// The session lives on.
    Renewed,
    /// The session is dead.
    Dead,
    /// No answer, or one that says nothing of the session.
    Unclear,
}

impl Keeper {
    /// Keeps a session whose join was sent at `sent`.
    pub fn new(profile: LeaseProfile, sent: Duration) -> Self {
        Self { profile, phase: Phase::Kept { beat_at: sent + profile.heartbeat } }
    }

    /// What is to be done at `now`.
    pub fn next(&self, now: Duration) -> Next {
        let due = |at: Duration, next: Next| if at <= now { next } else { Next::Wait(at) };
        match self.phase {
            Phase::Kept { beat_at } => due(beat_at, Next::Beat),
            Phase::Dying => Next::Stop,
            Phase::Looking { at } => due(at, Next::Look),
            Phase::Joining { at } => due(at, Next::Join),
            Phase::Superseded => Next::Exit,
        }
    }

    /// A heartbeat that was sent at `sent` has ended at `now`. Nothing but a living session takes notice.
    pub fn heard(&mut self, sent: Duration, now: Duration, heard: Heard) {
        let Phase::Kept { .. } = self.phase else { return };
        self.phase = match heard {
            Heard::Renewed => Phase::Kept { beat_at: sent + self.profile.heartbeat },
            Heard::Unclear => Phase::Kept { beat_at: now + self.profile.heartbeat / 4 },
            Heard::Dead => Phase::Dying,
        };
    }

    /// Everything under a dead session has been told to stop, and its guards let nothing pass.
    pub fn stopped(&mut self, now: Duration) {
        if self.phase == Phase::Dying {
            self.phase = Phase::Looking { at: now };
        }
    }

    /// Whether a newer session of this host's key is open; `None` when that can't be read now.
    pub fn looked(&mut self, now: Duration, is_newer_there: Option<bool>) {
        if let Phase::Looking { .. } = self.phase {
            self.phase = match is_newer_there {
                Some(true) => Phase::Superseded,
                Some(false) => Phase::Joining { at: now },
                None => Phase::Looking { at: now + RETRY_PAUSE },
            };
        }
    }

    /// The host has joined again; the join was sent at `sent`.
    pub fn joined(&mut self, sent: Duration) {
        if let Phase::Joining { .. } = self.phase {
            self.phase = Phase::Kept { beat_at: sent + self.profile.heartbeat };
        }
    }

    /// The host has not joined, as far as is known. A newer process may have come meanwhile: it is looked for again.
    pub fn not_joined(&mut self, now: Duration) {
        if let Phase::Joining { .. } = self.phase {
            self.phase = Phase::Looking { at: now + RETRY_PAUSE };
        }
    }
}

#[cfg(test)]
mod tests;
