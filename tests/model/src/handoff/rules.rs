//! The decisions: the product's own, or all but one that a bug replaces.

use godwit_core::id::{FencingToken, HostId, Incarnation, MigrationId, Revision};
use godwit_core::lease::Holder;
use godwit_core::lease::fence::Claim;
use godwit_core::migration::handoff::{Refusal, Seat};
use godwit_core::migration::recovery::{self, Activation, Became, Have, SourceDoes, SourceFinds, TargetDoes};
use godwit_core::store::Home;

use super::rows::{Frame, Row};

/// One thing that is done wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A lease is transferred on the word of who had the agent once.
    StaleCutover,
    /// A source that starts again takes back what it has let go.
    SourceResumes,
    /// A target runs a bound copy when its source is silent.
    ActivatedWithoutCommit,
    /// A migration is called off at its target after the commit point.
    AbortAfterCutover,
    /// What is handed off goes on accepting.
    InputsLeftBehind,
    /// Rounds carry no deletes.
    DeleteNotCarried,
    /// A target drops a bound copy when its source is silent.
    PresumedAbort,
    /// The source lets go whatever the target says that it has bound.
    DigestSkipped,
    /// An agent that moves is moved once more, to another host.
    DuplicateMigration,
    /// A bound copy is taken up under whatever token is named.
    WrongToken,
    /// Receivers' rows stay behind.
    ReceiverNotMoved,
    /// Inputs that have ended stay behind, and with them the keys.
    KeysNotMoved,
    /// A source takes back what its target runs on an operator's word.
    ForkIgnored,
    /// A target goes on with the guest that it has warm, whatever has been committed since.
    StaleGuest,
    /// A migration goes on when its agent has left and come back meanwhile.
    OldMigration,
    /// Backing out gives back the token of before, so that the granted one is given twice.
    GrantedTwice,
}

/// All decisions of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Which one is wrong.
    pub bug: Option<Bug>,
}

impl Rules {
    /// Whether this is what is wrong.
    pub fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn transfer(
        self,
        seat: &Seat,
        claim: &Claim,
        base: Revision,
        migration: MigrationId,
        target: (HostId, Option<Incarnation>),
    ) -> Result<Option<Seat>, Refusal> {
        let holder = seat.holder.map_or(claim.incarnation, |holder| holder.incarnation);
        match self.bug {
            Some(Bug::StaleCutover) => {
                let claim = Claim { token: seat.token, incarnation: holder, ..*claim };
                seat.transfer(&claim, seat.revision, migration, target)
            }
            _ => seat.transfer(claim, base, migration, target),
        }
    }

    pub(crate) fn begin(
        self,
        seat: &Seat,
        claim: &Claim,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Option<Seat>, Refusal> {
        match seat.home {
            Home::HandingOff { .. } if self.has(Bug::DuplicateMigration) => Ok(None),
            _ => seat.begin(claim, base, migration, target),
        }
    }

    pub(crate) fn finish(self, seat: &Seat, migration: MigrationId) -> Result<Option<Seat>, Refusal> {
        match seat.home {
            Home::HandingOff { migration: begun, .. } if self.has(Bug::DuplicateMigration) => {
                seat.finish(begun)
            }
            Home::Moved(_) if self.has(Bug::DuplicateMigration) => Ok(None),
            _ => seat.finish(migration),
        }
    }

    pub(crate) fn abort(
        self,
        seat: &Seat,
        migration: MigrationId,
        holder: Holder,
    ) -> Result<Option<Seat>, Refusal> {
        let back = seat.abort(migration, holder)?;
        let lower = |seat: Seat| Seat { token: FencingToken(seat.token.0 - 2), ..seat };
        Ok(if self.has(Bug::GrantedTwice) { back.map(lower) } else { back })
    }

    pub(crate) fn may_cut_over(self, began: FencingToken, held: FencingToken) -> bool {
        self.has(Bug::OldMigration) || recovery::may_cut_over(began, held)
    }

    pub(crate) fn source_finds(self, seat: Option<&Seat>, migration: MigrationId) -> SourceFinds {
        recovery::source_finds(seat, migration)
    }

    pub(crate) fn source_hears(self, have: Option<Have>) -> SourceDoes {
        if self.has(Bug::ForkIgnored) { SourceDoes::TakeBack } else { recovery::source_hears(have) }
    }

    pub(crate) fn target_hears(self, became: Option<Became>) -> TargetDoes {
        match (self.bug, became) {
            (Some(Bug::ActivatedWithoutCommit), None) => TargetDoes::Adopt,
            (Some(Bug::PresumedAbort), None) => TargetDoes::Discard,
            _ => recovery::target_hears(became),
        }
    }

    pub(crate) fn activation(
        self,
        seat: Option<&Seat>,
        migration: MigrationId,
        token: FencingToken,
    ) -> Activation {
        match seat.map(|seat| &seat.home) {
            Some(Home::Prepared { migration: bound, .. })
                if self.has(Bug::WrongToken) && *bound == migration =>
            {
                Activation::Adopt
            }
            _ => recovery::activation(seat, migration, token),
        }
    }

    /// What of some rows is sent.
    pub(crate) fn sent(self, mut frames: Vec<Frame>) -> Vec<Frame> {
        frames.retain(|(_, row)| match self.bug {
            Some(Bug::DeleteNotCarried) => *row != Row::StateDeleted,
            Some(Bug::ReceiverNotMoved) => *row != Row::Receiver,
            Some(Bug::KeysNotMoved) => !matches!(row, Row::Input(_, true)),
            _ => true,
        });
        frames
    }
}
