//! Which rule is broken, and what must notice.

use super::noticed::NOTICED;

/// The rule that a flawed store breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Writes go through whatever token and incarnation they carry.
    TokenUnchecked,
    /// Commits go through whatever revision they build on.
    RevisionUnchecked,
    /// Idempotency keys are dropped.
    KeysForgotten,
    /// Everything that is accepted wakes.
    SilenceIgnored,
    /// Newer inputs replace nothing.
    ScopesForgotten,
    /// Deliveries are accepted whatever their stamp says.
    StampsForgotten,
    /// Inputs are acknowledged and not written.
    AcknowledgedUnwritten,
    /// A step that fails does not end its chain.
    FailuresSkipped,
    /// Expired sessions are never buried.
    ExpiryIgnored,
    /// An input is found under any agent.
    AgentsMixed,
    /// Deletes don't travel.
    DeletesForgotten,
    /// A copy is never discarded.
    CopiesKept,
    /// Event filters are ignored.
    EventsUnfiltered,
    /// Ended outputs stay in the outbox.
    OutputsKept,
    /// A timer fires whichever boundary has set it.
    TimerRevisionsIgnored,
    /// What an earlier owner has begun counts as wanted.
    BeginningsForgotten,
    /// A store that is opened again is empty.
    NotDurable,
    /// Retention removes whatever has ended.
    PrunesTheYoung,
    /// An update of the auth flows is a read and a write apart.
    UpdatesTorn,
    /// No verb raises the token.
    TokenKept,
    /// No verb ends the inputs that wait.
    OpenInputsForgotten,
    /// Verbs append no events.
    ChangesUntold,
    /// The journal is not read.
    JournalForgotten,
    /// Only the newest snapshot is ever read.
    OlderSnapshotsIgnored,
    /// Every input reaches every agent.
    ReachIgnored,
    /// Claims of ids neither stand nor yield.
    ClaimsForgotten,
    /// What may become a file holds the entity key's secret.
    SecretsExported,
    /// Events show the labels that their agent has now.
    LabelsOfNow,
    /// The count of an agent's events stays behind when it moves.
    CountLeftBehind,
    /// Deliveries that come together are accepted in another order.
    DeliveriesShuffled,
    /// Nobody looks what a delivery has to do with a channel.
    ChannelsForgotten,
}

impl Flaw {
    /// All flaws.
    pub const ALL: [Self; 31] = [
        Self::TokenUnchecked,
        Self::RevisionUnchecked,
        Self::KeysForgotten,
        Self::SilenceIgnored,
        Self::ScopesForgotten,
        Self::StampsForgotten,
        Self::AcknowledgedUnwritten,
        Self::FailuresSkipped,
        Self::ExpiryIgnored,
        Self::AgentsMixed,
        Self::DeletesForgotten,
        Self::CopiesKept,
        Self::EventsUnfiltered,
        Self::OutputsKept,
        Self::TimerRevisionsIgnored,
        Self::BeginningsForgotten,
        Self::NotDurable,
        Self::PrunesTheYoung,
        Self::UpdatesTorn,
        Self::TokenKept,
        Self::OpenInputsForgotten,
        Self::ChangesUntold,
        Self::JournalForgotten,
        Self::OlderSnapshotsIgnored,
        Self::ReachIgnored,
        Self::ClaimsForgotten,
        Self::SecretsExported,
        Self::LabelsOfNow,
        Self::CountLeftBehind,
        Self::DeliveriesShuffled,
        Self::ChannelsForgotten,
    ];

    /// Names of cases that must fail on a store with this flaw; others may.
    pub fn noticed_by(self) -> &'static [&'static str] {
        let noticed = NOTICED.iter().find(|(flaw, _)| *flaw == self);
        noticed.map_or(&[], |(_, cases)| cases)
    }
}
