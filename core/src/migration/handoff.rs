//! Where an agent is and whose it is, and each step that moves it: every store decides with this, inside the transaction of the
//! step, and so does the model of migration.
//!
//! ```text
//!                 begin                    finish                          (source's store)
//!   Here, t  ---------------> HandingOff ---------> Moved, t+1
//!     ^  ^                        |
//!     |  +---- abort, t+2 --------+
//!     |           prepare                  adopt                           (target's store)
//!     |  nothing, Moved ------> Prepared ---------> Here, t+1; forced: t+1+2^20
//!     |                           | discard: what was there before
//!     +-- transfer, t+1: within one store, from one holder to the next
//! ```
//! It decides and changes nothing. A step answers the seat that the row has from then on, or `None` when it was made before. Whether
//! the asking session lives, and whether the rows of a copy are whole, is the store's to know.

use crate::id::{FencingToken, Generation, HostId, Incarnation, MigrationId, Revision};
use crate::lease::fence::{self, Claim, Fence};
use crate::lease::{GrantCause, Holder};
use crate::migration::{Failure, Phase};
use crate::store::agent::{Home, Tombstone};
use crate::store::{Adoption, StoreError};

/// What an agent's row says of where the agent is and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Where the authoritative rows are.
    pub home: Home,
    /// The token that was granted last.
    pub token: FencingToken,
    /// The agent's generation.
    pub generation: Generation,
    /// The head's revision.
    pub revision: Revision,
    /// Whose it is; `None` when it is free, or its holder's session is dead.
    pub holder: Option<Holder>,
    /// Why the token was raised last.
    pub cause: GrantCause,
}

/// What a target was told to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    /// Which migration.
    pub migration: MigrationId,
    /// From which host.
    pub source: HostId,
    /// The token that this host will hold.
    pub token: FencingToken,
    /// The agent's generation.
    pub generation: Generation,
    /// The revision that moves.
    pub revision: Revision,
}

/// What becomes of a row whose copy is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discard {
    /// It is no copy of that migration: it stays.
    Stays,
    /// It goes.
    Goes,
    /// The tombstone that it replaced comes back.
    Replaced(Tombstone),
}

/// Why a step is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The agent is not at home here, or another migration has it.
    NotHome,
    /// The agent is another's.
    Fenced,
    /// The step builds on another revision than the head's.
    Stale,
    /// The target has no session on this store.
    NoSession,
    /// Something else is in the way.
    Conflict(Obstacle),
}

/// What is in the way of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Obstacle {
    /// A living agent, or a newer tombstone, has the id.
    #[error("an agent of this id is here, or was later than the one that comes")]
    Taken,
    /// The copy is not what was announced.
    #[error("the copy is not whole, or of another revision than was announced")]
    NotAsAnnounced,
    /// The migration does not hand the agent off.
    #[error("this migration does not hand the agent off")]
    NotHandedOff,
    /// The migration did not bring the agent.
    #[error("this migration did not bring the agent here")]
    NotBrought,
}

impl From<fence::Refusal> for Refusal {
    fn from(refusal: fence::Refusal) -> Self {
        match refusal {
            fence::Refusal::Fenced => Self::Fenced,
            fence::Refusal::Stale => Self::Stale,
        }
    }
}

impl From<Obstacle> for StoreError {
    fn from(obstacle: Obstacle) -> Self {
        Self::Conflict { what: obstacle.to_string() }
    }
}

impl Seat {
    /// What the fence decides by.
    pub fn fence(&self) -> Fence {
        Fence {
            token: self.token,
            generation: self.generation,
            revision: self.revision,
            holder: self.holder.map(|holder| holder.incarnation),
        }
    }

    /// Whether a migration's commit point gave the agent to who has it, or had it last.
    pub fn is_caused_by(&self, migration: MigrationId) -> bool {
        matches!(self.cause, GrantCause::Transferred { migration: cause, .. } if cause == migration)
    }

    /// Whether a migration's copy is bound: prepared, or adopted since. Rows of it that arrive now come too late.
    pub fn is_bound(&self, migration: MigrationId) -> bool {
        match &self.home {
            Home::Prepared { migration: bound, .. } => *bound == migration,
            _ => self.is_caused_by(migration),
        }
    }

    /// The token under which a migration's commit point gave the agent away, as far as that can still be seen here: it has it now, or
    /// had it last, or has left, also when it is about to come back.
    pub fn passed(&self, migration: MigrationId) -> Option<FencingToken> {
        let left = match self.home {
            Home::Moved(tombstone) | Home::Prepared { before: Some(tombstone), .. } => Some(tombstone),
            Home::Here | Home::HandingOff { .. } | Home::Prepared { before: None, .. } => None,
        };
        let left = left.filter(|tombstone| tombstone.migration == migration);
        left.map(|tombstone| tombstone.token).or_else(|| self.is_caused_by(migration).then_some(self.token))
    }

    /// How an open migration ends when something else raises the token of this seat, or begins: what has passed its commit point
    /// has come to its end.
    pub fn closes(&self, migration: MigrationId) -> (Phase, Option<Failure>) {
        match self.passed(migration) {
            Some(_) => (Phase::Complete, None),
            None => (Phase::Aborted, Some(Failure::Fenced)),
        }
    }

    /// Within one store: from its holder to a session of the target.
    ///
    /// # Errors
    /// `NotHome`, `Fenced`, `Stale`, `NoSession`.
    pub fn transfer(
        &self,
        claim: &Claim,
        base: Revision,
        migration: MigrationId,
        (target, session): (HostId, Option<Incarnation>),
    ) -> Result<Option<Self>, Refusal> {
        self.at_home()?;
        let cause = GrantCause::Transferred { migration, revision: base };
        let is_targets = self.holder.is_some_and(|holder| holder.host == target);
        if is_targets && self.cause == cause && self.token == claim.token.next() {
            return Ok(None);
        }
        self.fence().check_at(claim, base)?;
        let incarnation = session.ok_or(Refusal::NoSession)?;
        let holder = Holder { host: target, incarnation };
        Ok(Some(self.granted(self.token.next(), holder, cause)))
    }

    /// Step 1 at the source: nothing is accepted from here on.
    ///
    /// # Errors
    /// `NotHome`, `Fenced`, `Stale`.
    pub fn begin(
        &self,
        claim: &Claim,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Option<Self>, Refusal> {
        let granted = claim.token.next();
        let home = Home::HandingOff { migration, target, granted };
        if self.home == home && self.generation == claim.generation {
            self.fence().check_base(base)?;
            return Ok(None);
        }
        self.at_home()?;
        self.fence().check_at(claim, base)?;
        Ok(Some(Self { home, token: granted, holder: None, ..self.clone() }))
    }

    /// Step 2 at the target: a whole copy becomes the row of this id, not runnable. `known` is what has the id so far, and
    /// `arrived` at what the copy's agent row is.
    ///
    /// # Errors
    /// `Taken`, `NotAsAnnounced`.
    pub fn prepare(
        known: Option<&Self>,
        binding: &Binding,
        arrived: Option<(Generation, Revision)>,
    ) -> Result<Option<Self>, Obstacle> {
        let Some(before) = Self::place_for(known, binding)? else { return Ok(None) };
        if arrived != Some((binding.generation, binding.revision)) {
            return Err(Obstacle::NotAsAnnounced);
        }
        let Binding { migration, source, token, generation, revision } = *binding;
        let home = Home::Prepared { migration, source, token, before };
        let cause = GrantCause::Acquired;
        Ok(Some(Self { home, token, generation, revision, holder: None, cause }))
    }

    /// The tombstone that a copy would replace, if there is one; `None` when the copy is bound already.
    ///
    /// # Errors
    /// `Taken`.
    fn place_for(known: Option<&Self>, binding: &Binding) -> Result<Option<Option<Tombstone>>, Obstacle> {
        let Some(seat) = known else { return Ok(Some(None)) };
        let Binding { migration, source, token, generation, .. } = *binding;
        match seat.home {
            Home::Prepared { migration: bound, source: from, token: held, .. }
                if (bound, from, held) == (migration, source, token) =>
            {
                Ok(None)
            }
            Home::Here if seat.is_caused_by(migration) && seat.token == token => Ok(None),
            Home::Moved(before) if before.token < token && before.generation <= generation => {
                Ok(Some(Some(before)))
            }
            _ => Err(Obstacle::Taken),
        }
    }

    /// Step 3 at the source, the commit point.
    ///
    /// # Errors
    /// `Conflict`: `NotHandedOff`.
    pub fn finish(&self, migration: MigrationId) -> Result<Option<Self>, Refusal> {
        match self.home {
            Home::HandingOff { migration: begun, target, granted } if begun == migration => {
                let tombstone = Tombstone { migration, target, token: granted, generation: self.generation };
                Ok(Some(Self { home: Home::Moved(tombstone), token: granted, holder: None, ..self.clone() }))
            }
            Home::Moved(tombstone) if tombstone.migration == migration => Ok(None),
            _ => Err(Refusal::Conflict(Obstacle::NotHandedOff)),
        }
    }

    /// Step 4 at the target: the copy becomes the agent. `None`: the session has it already.
    ///
    /// # Errors
    /// `NotHome`; `Fenced` when another session has taken it up; `Conflict`: `NotBrought`.
    pub fn adopt(
        &self,
        migration: MigrationId,
        holder: Holder,
        how: Adoption,
    ) -> Result<Option<Self>, Refusal> {
        match self.home {
            Home::Prepared { migration: bound, token, .. } if bound == migration => {
                let cause = GrantCause::Transferred { migration, revision: self.revision };
                Ok(Some(self.granted(how.token(token), holder, cause)))
            }
            Home::Here if self.is_caused_by(migration) => self.is_held_by(holder.incarnation),
            Home::Here => Err(Refusal::Conflict(Obstacle::NotBrought)),
            _ => Err(Refusal::NotHome),
        }
    }

    /// Back out at the source, before the commit point: under a token above the granted one, which is never valid anywhere then.
    /// `None`: the session has it already.
    ///
    /// # Errors
    /// `NotHome` when it has moved, or another migration has it; `Fenced` when it is here and another's.
    pub fn abort(&self, migration: MigrationId, holder: Holder) -> Result<Option<Self>, Refusal> {
        match self.home {
            Home::HandingOff { migration: begun, granted, .. } if begun == migration => {
                Ok(Some(self.granted(granted.next(), holder, GrantCause::Acquired)))
            }
            Home::Here => self.is_held_by(holder.incarnation),
            _ => Err(Refusal::NotHome),
        }
    }

    /// Back out at the target: only on the source's word once it is bound, and an adopted agent is no copy any more.
    pub fn discard(&self, migration: MigrationId) -> Discard {
        match self.home {
            Home::Prepared { migration: bound, before, .. } if bound == migration => {
                before.map_or(Discard::Goes, Discard::Replaced)
            }
            _ => Discard::Stays,
        }
    }

    /// The tombstone that alone stays of an agent that this migration took away.
    pub fn forget(&self, migration: MigrationId) -> Option<Tombstone> {
        match self.home {
            Home::Moved(tombstone) if tombstone.migration == migration => Some(tombstone),
            _ => None,
        }
    }

    /// What a store answers to a step that is not made.
    pub fn error(&self, refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::NotHome => StoreError::NotHome { home: self.home.clone() },
            Refusal::Fenced => StoreError::Fenced { current: self.token, holder: self.holder },
            Refusal::Stale => StoreError::Stale { generation: self.generation, revision: self.revision },
            Refusal::NoSession => StoreError::NoSession,
            Refusal::Conflict(obstacle) => obstacle.into(),
        }
    }

    fn granted(&self, token: FencingToken, holder: Holder, cause: GrantCause) -> Self {
        Self { home: Home::Here, token, holder: Some(holder), cause, ..self.clone() }
    }

    fn at_home(&self) -> Result<(), Refusal> {
        if self.home == Home::Here { Ok(()) } else { Err(Refusal::NotHome) }
    }

    fn is_held_by(&self, incarnation: Incarnation) -> Result<Option<Self>, Refusal> {
        match self.holder {
            Some(holder) if holder.incarnation == incarnation => Ok(None),
            _ => Err(Refusal::Fenced),
        }
    }
}

#[cfg(test)]
mod tests;
