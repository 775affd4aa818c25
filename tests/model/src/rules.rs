//! The decisions: the product's own, or all but one that a bug replaces.

use std::time::Duration;

use godwit_core::id::{FencingToken, Revision};
use godwit_core::lease::LeaseProfile;
use godwit_core::lease::deadline::Deadline;
use godwit_core::lease::fence::{Claim, Fence, Refusal, Release};

/// Life of a session, in seconds.
pub const TTL: u8 = 3;

/// The profile of all hosts. Its unit is the model's unit of time.
pub const PROFILE: LeaseProfile = LeaseProfile {
    ttl: Duration::from_secs(TTL as u64),
    heartbeat: Duration::from_secs(1),
    margin: Duration::from_secs(1),
};

/// One decision that is made wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Writes are not compared with the owner at all.
    OwnerUnchecked,
    /// The owner's session is compared and its token is not; requests overtake each other as well, for it takes both.
    TokenIgnored,
    /// The fence is read in one step and the write done in a later one.
    CheckThenAct,
    /// An acquire grants the token as it stands.
    TokenNotRaised,
    /// The token is counted from what the asker has known.
    TokenOfClaimant,
    /// Anybody's release frees the agent.
    AnyRelease,
    /// A session that has not expired is buried.
    LivingBuried,
    /// A heartbeat brings a dead session back.
    DeadRevived,
    /// An answer to a heartbeat brings a lost deadline back.
    LostRevived,
    /// The deadline counts from the answer.
    DeadlineOfAnswer,
    /// A commit without an answer is taken as done, and its input sent again on the next revision.
    BlindRetry,
    /// A host that takes the agent again keeps the value that it had.
    StaleRead,
    /// Requests of one process overtake each other. No decision: the order that the stores' writers keep is missing.
    Overtaking,
}

/// All decisions of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Which one is wrong.
    pub bug: Option<Bug>,
}

impl Rules {
    fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether a claim passes the fence.
    ///
    /// # Errors
    /// As `Fence::check`.
    pub fn check(self, fence: &Fence, claim: &Claim) -> Result<(), Refusal> {
        match self.bug {
            Some(Bug::OwnerUnchecked) => Ok(()),
            Some(Bug::TokenIgnored) => fence.check(&Claim { token: fence.token, ..*claim }),
            _ => fence.check(claim),
        }
    }

    /// Whether a write passes the fence.
    ///
    /// # Errors
    /// As `Fence::check_at`.
    pub fn check_at(self, fence: &Fence, claim: &Claim, base: Revision) -> Result<(), Refusal> {
        match self.bug {
            Some(Bug::OwnerUnchecked) => fence.check_base(base),
            Some(Bug::TokenIgnored) => fence.check_at(&Claim { token: fence.token, ..*claim }, base),
            _ => fence.check_at(claim, base),
        }
    }

    pub(crate) fn writes_later(self) -> bool {
        self.has(Bug::CheckThenAct)
    }

    pub(crate) fn granted(
        self,
        token: FencingToken,
        next: FencingToken,
        known: FencingToken,
    ) -> FencingToken {
        match self.bug {
            Some(Bug::TokenNotRaised) => token,
            Some(Bug::TokenOfClaimant) => known.next(),
            _ => next,
        }
    }

    pub(crate) fn release(self, fence: &Fence, claim: &Claim) -> Release {
        if self.has(Bug::AnyRelease) { Release::Freed } else { fence.release(claim) }
    }

    pub(crate) fn may_bury(self, expiry: u8, now: u8) -> bool {
        expiry <= now || self.has(Bug::LivingBuried)
    }

    pub(crate) fn revives_dead(self) -> bool {
        self.has(Bug::DeadRevived)
    }

    pub(crate) fn started(self, sent: u8, now: u8) -> Deadline {
        Deadline::started(self.counted_from(sent, now), &PROFILE)
    }

    pub(crate) fn renewed(self, deadline: Deadline, sent: u8, now: u8) -> Deadline {
        match deadline {
            Deadline::LOST if self.has(Bug::LostRevived) => self.started(sent, now),
            known => known.renewed(self.counted_from(sent, now), &PROFILE),
        }
    }

    fn counted_from(self, sent: u8, now: u8) -> Duration {
        seconds(if self.has(Bug::DeadlineOfAnswer) { now } else { sent })
    }

    pub(crate) fn retries_blindly(self) -> bool {
        self.has(Bug::BlindRetry)
    }

    pub(crate) fn keeps_value(self) -> bool {
        self.has(Bug::StaleRead)
    }

    pub(crate) fn keeps_token(self) -> bool {
        self.has(Bug::TokenOfClaimant)
    }

    pub(crate) fn keeps_order(self) -> bool {
        !self.has(Bug::Overtaking) && !self.has(Bug::TokenIgnored)
    }
}

/// A time of the model as boot time.
pub fn seconds(time: u8) -> Duration {
    Duration::from_secs(u64::from(time))
}
