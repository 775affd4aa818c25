//! Leases: the fence that every owner's write passes, and the grants that raise tokens.

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, FencingToken, HostId, Incarnation, MigrationId, Revision};
use godwit_core::lease::fence::{Acquire, Release};
use godwit_core::lease::{GrantCause, Lease};
use godwit_core::migration::handoff::Seat;
use godwit_core::store::{Home, Owner, StoreError};
use rusqlite::Connection;

use super::agents::{Head, set_standing};
use super::error::{Fail, Fallible};
use super::events::append_of;
use super::migrations::close;
use super::sessions::{check_living, live_session, living_host};
use super::writer::Tx;

/// The row of an agent that is at home here.
///
/// # Errors
/// `NoAgent`, `NotHome`.
pub(super) fn at_home(conn: &Connection, agent: &AgentId) -> Fallible<Head> {
    let head = Head::load(conn, agent)?.ok_or(StoreError::NoAgent)?;
    match head.home {
        Home::Here => Ok(head),
        home => Err(StoreError::NotHome { home }.into()),
    }
}

/// The row of an agent that is at home here, for its current owner and nobody else.
///
/// # Errors
/// As `at_home`, and `Fenced`.
pub(super) fn own(tx: &Tx<'_>, owner: &Owner) -> Fallible<Head> {
    let head = at_home(tx.conn, &owner.agent)?;
    head.check_owner(owner)?;
    Ok(head)
}

/// The lease of a row that somebody holds.
pub(super) fn lease_of(head: &Head) -> Option<Lease> {
    head.holder.map(|holder| Lease {
        agent: head.agent.clone(),
        generation: head.generation,
        token: head.token,
        incarnation: holder.incarnation,
        cause: head.cause.clone(),
    })
}

/// The lease of a row that a session holds.
///
/// # Errors
/// `Fenced` when another one does, or nobody.
pub(super) fn lease_held_by(head: &Head, incarnation: Incarnation) -> Result<Lease, StoreError> {
    lease_of(head).filter(|lease| lease.incarnation == incarnation).ok_or_else(|| head.fenced())
}

/// Gives an agent to a session under a new token, at home here, and closes the migrations that this is not part of.
pub(super) fn grant(
    tx: &Tx<'_>,
    head: &mut Head,
    token: FencingToken,
    incarnation: Incarnation,
    cause: GrantCause,
    own: Option<MigrationId>,
) -> Fallible<Lease> {
    set_standing(tx, head.key, &Home::Here, token, Some(incarnation), &cause)?;
    let mut event =
        NewEvent::of_agent(&head.agent, EventKind::LeaseAcquired, tx.now_ms()).with("token", token);
    if let Some(host) = living_host(tx.conn, incarnation)? {
        event = event.with("host", host);
    }
    append_of(tx, head, &[event])?;
    close(tx, head, own)?;
    Ok(Lease { agent: head.agent.clone(), generation: head.generation, token, incarnation, cause })
}

pub(super) fn acquire(
    tx: &Tx<'_>,
    incarnation: Incarnation,
    agents: &[AgentId],
) -> Fallible<Vec<Result<Lease, StoreError>>> {
    check_living(tx, incarnation)?;
    agents
        .iter()
        .map(|agent| match acquire_one(tx, incarnation, agent) {
            Ok(lease) => Ok(Ok(lease)),
            Err(Fail::Store(error)) => Ok(Err(error)),
            Err(engine) => Err(engine),
        })
        .collect()
}

fn acquire_one(tx: &Tx<'_>, incarnation: Incarnation, agent: &AgentId) -> Fallible<Lease> {
    let mut head = at_home(tx.conn, agent)?;
    match head.fence().acquire(incarnation) {
        Acquire::Held => Ok(lease_held_by(&head, incarnation)?),
        Acquire::Free(token) => grant(tx, &mut head, token, incarnation, GrantCause::Acquired, None),
        Acquire::Fenced => Err(head.fenced().into()),
    }
}

pub(super) fn release(tx: &Tx<'_>, owner: &Owner) -> Fallible<()> {
    let mut head = at_home(tx.conn, &owner.agent)?;
    match head.fence().release(&owner.claim()) {
        Release::Done => Ok(()),
        Release::Freed => {
            set_standing(tx, head.key, &head.home, head.token, None, &head.cause)?;
            let event = NewEvent::of_agent(&owner.agent, EventKind::LeaseReleased, tx.now_ms());
            append_of(tx, &mut head, &[event.with("token", owner.token)])
        }
        Release::Fenced => Err(head.fenced().into()),
    }
}

pub(super) fn lease(conn: &Connection, agent: &AgentId) -> Fallible<Option<Lease>> {
    let head = Head::load(conn, agent)?;
    Ok(head.filter(|head| head.home == Home::Here).as_ref().and_then(lease_of))
}

pub(super) fn transfer(
    tx: &Tx<'_>,
    owner: &Owner,
    base: Revision,
    migration: MigrationId,
    target: HostId,
) -> Fallible<Lease> {
    let mut head = Head::load(tx.conn, &owner.agent)?.ok_or(StoreError::NoAgent)?;
    let (seat, session) = (head.seat(), live_session(tx, target)?);
    let step = seat.transfer(&owner.claim(), base, migration, (target, session));
    take_seat(tx, &mut head, step.map_err(|refusal| seat.error(refusal))?, migration)
}

/// Carries out a step that gives the agent to a session. A step that was made before answers the lease as it stands.
pub(super) fn take_seat(
    tx: &Tx<'_>,
    head: &mut Head,
    step: Option<Seat>,
    own: MigrationId,
) -> Fallible<Lease> {
    match step {
        Some(Seat { token, cause, holder: Some(holder), .. }) => {
            grant(tx, head, token, holder.incarnation, cause, Some(own))
        }
        _ => Ok(lease_of(head).ok_or_else(|| head.fenced())?),
    }
}
