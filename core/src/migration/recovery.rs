//! What the two hosts of a migration make of the agent's row, of each other's answers, and of time. Only the row and the other
//! host's word decide; nobody guesses.
//!
//! ```text
//!  source                              target
//!  row says    it does                 row says      it does
//!  Moved       tell the target         Prepared      ask the source; only its word decides
//!  HandingOff  ask the target, then    Here, by it   say so
//!              take back, or hold      else          drop what has arrived, once the source is not at it
//!  else        give it up
//! ```

use std::cmp::Ordering;

use crate::id::{FencingToken, MigrationId};
use crate::store::agent::Home;

use super::handoff::Seat;

/// What a source finds of an open migration of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceFinds {
    /// The commit point is passed: the target is told until it has heard, under this token.
    Passed(FencingToken),
    /// The agent is handed off and not let go: nobody can run it. The target is asked what it has.
    HandedOff,
    /// The commit point was not reached: nothing has moved.
    NotReached,
}

/// What a target has, as it answers its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Have {
    /// The agent: it has run here.
    Agent,
    /// A bound copy.
    Bound,
    /// Nothing that is bound.
    Nothing,
}

/// What a source does that has asked its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceDoes {
    /// Takes the agent back under a token above the granted one.
    TakeBack,
    /// Leaves it held: the target runs it on an operator's word, and there would be two.
    Hold,
}

/// What became of a migration, as its source answers the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Became {
    /// The commit point is passed: the agent is the target's.
    Moved,
    /// Nothing is decided yet: ask again.
    Undecided,
    /// The agent does not come.
    NotMoved,
}

/// What a target finds of an open migration to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetFinds {
    /// A bound copy, under this token: its source is asked.
    Bound(FencingToken),
    /// The agent has come.
    Arrived,
    /// Nothing is bound.
    Unbound,
}

/// What a target does with a bound copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetDoes {
    /// Takes the agent up.
    Adopt,
    /// Drops the copy.
    Discard,
    /// Asks again.
    Wait,
}

/// What a target does that is told to run an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Adopts the copy, then runs it.
    Adopt,
    /// It is adopted, or was given within the store: runs it.
    Run,
    /// It has been the agent's home under this token, and things have gone on since.
    Passed,
    /// No such copy is bound.
    Refused,
}

/// Why an agent can't come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unwelcome {
    /// An agent of this id lives here.
    Living,
    /// One of a later token was here.
    Later,
    /// An earlier migration of it is not settled: it may come when that is.
    Unsettled,
}

/// Whether a source may go on that has the agent under a token: every grant since the migration began has closed it, also when the
/// agent has come back since.
pub fn may_cut_over(began: FencingToken, held: FencingToken) -> bool {
    began == held
}

/// What a source makes of an open migration of its own, from the agent's row.
pub fn source_finds(seat: Option<&Seat>, migration: MigrationId) -> SourceFinds {
    let Some(seat) = seat else { return SourceFinds::NotReached };
    match (&seat.home, seat.passed(migration)) {
        (Home::HandingOff { migration: begun, .. }, _) if *begun == migration => SourceFinds::HandedOff,
        (_, Some(token)) => SourceFinds::Passed(token),
        _ => SourceFinds::NotReached,
    }
}

/// What a source does whose agent is handed off. `None`: the target did not answer in time.
pub fn source_hears(have: Option<Have>) -> SourceDoes {
    match have {
        Some(Have::Agent) => SourceDoes::Hold,
        Some(Have::Bound | Have::Nothing) | None => SourceDoes::TakeBack,
    }
}

/// What a target says that it has. `is_complete`: its record says that the migration has ended here.
pub fn target_has(seat: Option<&Seat>, migration: MigrationId, is_complete: bool) -> Have {
    match target_finds(seat, migration) {
        TargetFinds::Bound(_) => Have::Bound,
        TargetFinds::Arrived => Have::Agent,
        // It has come here and has moved on since.
        TargetFinds::Unbound if is_complete => Have::Agent,
        TargetFinds::Unbound => Have::Nothing,
    }
}

/// What a source says became of a migration. `is_open`: its record says that it is not over.
pub fn became(seat: Option<&Seat>, migration: MigrationId, is_open: bool) -> Became {
    match source_finds(seat, migration) {
        SourceFinds::Passed(_) => Became::Moved,
        SourceFinds::HandedOff => Became::Undecided,
        SourceFinds::NotReached if is_open => Became::Undecided,
        SourceFinds::NotReached => Became::NotMoved,
    }
}

/// What a target makes of an open migration to it, from the agent's row.
pub fn target_finds(seat: Option<&Seat>, migration: MigrationId) -> TargetFinds {
    let Some(seat) = seat else { return TargetFinds::Unbound };
    match seat.home {
        Home::Prepared { migration: bound, token, .. } if bound == migration => TargetFinds::Bound(token),
        _ if seat.is_caused_by(migration) => TargetFinds::Arrived,
        _ => TargetFinds::Unbound,
    }
}

/// What a target does with a bound copy. `None`: the source did not answer.
pub fn target_hears(became: Option<Became>) -> TargetDoes {
    match became {
        Some(Became::Moved) => TargetDoes::Adopt,
        Some(Became::NotMoved) => TargetDoes::Discard,
        Some(Became::Undecided) | None => TargetDoes::Wait,
    }
}

/// What a target does that is told to run the agent under a token.
pub fn activation(seat: Option<&Seat>, migration: MigrationId, token: FencingToken) -> Activation {
    let Some(seat) = seat else { return Activation::Refused };
    match seat.home {
        Home::Prepared { migration: bound, token: granted, .. } if bound == migration && granted == token => {
            Activation::Adopt
        }
        Home::Here if seat.is_caused_by(migration) && seat.token == token => Activation::Run,
        // A later token was granted here: this one was taken up before.
        _ if seat.token > token => Activation::Passed,
        Home::Here if seat.token == token => Activation::Passed,
        _ => Activation::Refused,
    }
}

/// Whether a target may take an agent that its source has under a token. On a shared store it is at home there already.
///
/// # Errors
/// Why not.
pub fn welcome(seat: Option<&Seat>, token: FencingToken, is_shared: bool) -> Result<(), Unwelcome> {
    match seat.map(|seat| &seat.home) {
        None => Ok(()),
        Some(Home::Here) if is_shared => Ok(()),
        Some(Home::Moved(tombstone)) if tombstone.token <= token => Ok(()),
        Some(Home::Moved(_)) => Err(Unwelcome::Later),
        Some(Home::Here | Home::HandingOff { .. }) => Err(Unwelcome::Living),
        Some(Home::Prepared { .. }) => Err(Unwelcome::Unsettled),
    }
}

/// What a target that is asked to take an agent makes of another migration of it that is open there.
///
/// # Errors
/// `Unsettled` when the open one is the later one: what asks is late itself.
pub fn supersedes(new: MigrationId, open: MigrationId) -> Result<(), Unwelcome> {
    match new.cmp(&open) {
        Ordering::Greater | Ordering::Equal => Ok(()),
        Ordering::Less => Err(Unwelcome::Unsettled),
    }
}

#[cfg(test)]
mod tests;
