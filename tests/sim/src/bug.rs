//! The bugs that can be planted, one at a time, to see that the judge finds them.

/// What is wrong in a run, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A commit is taken whatever its token says.
    TokenUnchecked,
    /// The owner is compared first, and what it writes is written later.
    CheckThenAct,
    /// A commit is taken whatever revision it builds on.
    RevisionUnchecked,
    /// Who takes an agent gets the token that the holder before had.
    TokenKept,
    /// Tokens sometimes go back, as in a store that was restored and forgot its epoch.
    TokenGoesBack,
    /// A heartbeat brings a dead session back.
    DeadRevived,
    /// A session is buried while it lives.
    LivingBuried,
    /// Who wants an agent gets it, whoever holds it.
    HolderIgnored,
    /// The guard takes no notice of its deadline.
    DeadlineIgnored,
    /// What dies at a host's leave is what it held once, whoever holds it now.
    LeaveOfAnother,
    /// After a lost answer the same input is offered again, as a new one.
    BlindRetry,
    /// Commits are acknowledged before they are made.
    AckBeforeCommit,
    /// A commit that was fenced is acknowledged.
    FencedAcknowledged,
    /// Keys are forgotten.
    KeysForgotten,
    /// Some inputs are acknowledged and not written.
    InputsLost,
    /// Outputs leave with the turn, not with its commit.
    GateOpen,
    /// Inputs are read with the first one missing, now and then, so that others come before it.
    InputsReordered,
    /// A delivery arrives a second time, under another id.
    DeliveredTwice,
    /// A delivery is acknowledged and not written.
    DeliveryLost,
    /// A timer fires a second time, under another id.
    TimerFiredTwice,
    /// Some loads are answered from an older image.
    StaleRead,
    /// Some guests start with nothing, whatever they are restored from.
    StateForgotten,
    /// Nobody is ever buried.
    NobodyBuried,
    /// A host believes that its session lives, whatever the store says of it.
    DeathUnheard,
    /// A target runs what it has bound, whatever its source says.
    AdoptedEarly,
    /// Inputs that have ended stay behind when their agent moves, and with them the keys.
    KeysLeftBehind,
    /// Of what a sender has seen to its end the receiver remembers nothing: a late copy is another delivery.
    LateCopyTaken,
    /// Turns that run again, so that an agent stands where it was when it is loaded, send once more what they sent.
    ReplayActs,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::TokenUnchecked,
        Self::CheckThenAct,
        Self::RevisionUnchecked,
        Self::TokenKept,
        Self::TokenGoesBack,
        Self::DeadRevived,
        Self::LivingBuried,
        Self::HolderIgnored,
        Self::DeadlineIgnored,
        Self::LeaveOfAnother,
        Self::BlindRetry,
        Self::AckBeforeCommit,
        Self::FencedAcknowledged,
        Self::KeysForgotten,
        Self::InputsLost,
        Self::GateOpen,
        Self::InputsReordered,
        Self::DeliveredTwice,
        Self::DeliveryLost,
        Self::TimerFiredTwice,
        Self::StaleRead,
        Self::StateForgotten,
        Self::NobodyBuried,
        Self::DeathUnheard,
        Self::AdoptedEarly,
        Self::KeysLeftBehind,
        Self::LateCopyTaken,
        Self::ReplayActs,
    ];

    /// In how many runs of a thousand hosts have stores of their own, for this bug to strike.
    pub fn apart(self) -> u64 {
        match self {
            Self::AdoptedEarly | Self::KeysLeftBehind | Self::LateCopyTaken => 1_000,
            _ => 0,
        }
    }
}
