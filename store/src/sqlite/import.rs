//! Taking all rows of an agent out, and binding a copy that came from an archive.

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, FencingToken};
use godwit_core::lease::GrantCause;
use godwit_core::lifecycle::{LifecycleCommit, SuspendReason, Verb};
use godwit_core::store::handoff::RowSink;
use godwit_core::store::{AgentRow, Home, ImportRequest, StoreError};
use rusqlite::{Connection, params};

use super::agents::{self, Head, set_standing, write_lifecycle};
use super::codec::Int;
use super::error::{Fallible, conflict};
use super::events::append_of;
use super::handoff::{copy_key, delete, settle_copy};
use super::leases::at_home;
use super::sql::{all, execute, first};
use super::writer::Tx;
use super::{entity_keys, export, plugins};

/// Bytes of rows that the sink gets at once.
const BATCH_BYTES: usize = 1 << 20;

/// Gives all rows to a sink, without a vault that would open secrets; the caller's transaction makes them one moment's.
pub(super) fn whole(conn: &Connection, agent: &AgentId, sink: &mut RowSink) -> Fallible<Option<AgentRow>> {
    let Some(row) = agents::row(conn, agent)? else {
        return Ok(None);
    };
    at_home(conn, agent)?;
    let mut after = 0;
    loop {
        let frames = export::export(conn, agent, after, BATCH_BYTES, None)?;
        let Some(last) = frames.last() else { break };
        after = last.change;
        if !sink(&row, frames) {
            break;
        }
    }
    Ok(Some(row))
}

pub(super) fn import(tx: &Tx<'_>, request: &ImportRequest) -> Fallible<AgentRow> {
    let ImportRequest { copy, agent, generation, revision, token, is_suspended, replaces_moved, claim } =
        request;
    let known = Head::load(tx.conn, agent)?;
    let highest = match known.as_ref().map(|head| &head.home) {
        None => token.raised(1),
        Some(Home::Moved(tombstone)) => {
            if !replaces_moved {
                return Err(StoreError::NotHome { home: Home::Moved(*tombstone) }.into());
            }
            if tombstone.generation > *generation {
                return Err(conflict(format!("agent {agent} had a later generation here")));
            }
            tombstone.token.max(*token).raised(1)
        }
        Some(_) => return Err(conflict(format!("agent {agent} is here"))),
    };
    let raised = highest.ok_or_else(|| conflict(format!("the token {token} has no room above")))?;
    let key = copy_key(tx.conn, *copy, agent)?.ok_or_else(|| conflict("nothing has been received"))?;
    let arrived = first(
        tx.conn,
        "SELECT generation, revision FROM agent WHERE key = ?1 AND row_change > 0",
        params![key],
        |row| Ok((row.get::<_, Int>(0)?.0, row.get::<_, Int>(1)?.0)),
    )?;
    if arrived != Some((generation.0, revision.0)) {
        return Err(conflict(format!(
            "the copy of agent {agent} is not at revision {revision} of generation {generation}"
        )));
    }
    agents::take_claim(tx, agent, *claim)?;
    if let Some(replaced) = known {
        delete(tx, replaced.key)?;
    }
    settle_copy(tx, key)?;
    set_standing(tx, key, &Home::Here, raised, None, &GrantCause::Acquired)?;
    let mut head = at_home(tx.conn, agent)?;
    let spec = agents::spec(tx.conn, agent)?.ok_or_else(|| conflict("the copy has no spec"))?;
    if !plugins::is_stored(tx.conn, spec.plugin)? {
        return Err(StoreError::NoPlugin { plugin: spec.plugin }.into());
    }
    skip_numbers(tx, &mut head, 1)?;
    skip_events(tx, &head, raised)?;
    let public_key = entity_keys::renew(tx, key, agent, || head.change())?;
    let verb = match is_suspended {
        true => Verb::Suspend(SuspendReason::Imported),
        false => Verb::Resume,
    };
    let event = NewEvent::of_agent(agent, EventKind::AgentImported, tx.now_ms()).with("token", raised);
    let event = public_key.into_iter().fold(event, |event, public| event.with("public_key", public));
    append_of(tx, &mut head, &[event])?;
    if let Ok(commit) = LifecycleCommit::plan(agent, &head.lifecycle, &verb, tx.now_ms()) {
        write_lifecycle(tx, key, commit.next())?;
        if commit.from() != commit.next() {
            append_of(tx, &mut head, commit.events())?;
        }
    }
    head.save(tx)?;
    agents::row(tx.conn, agent)?.ok_or_else(|| conflict("the agent's row is missing"))
}

/// Outputs of the new epoch get numbers above all that may have been used since the copy was made: receivers would take a
/// used number for an old output. They follow the jump, because a publisher says which number is its lowest open one.
pub(super) fn skip_numbers(tx: &Tx<'_>, head: &mut Head, epochs: u64) -> Fallible<()> {
    let destinations = all(
        tx.conn,
        "SELECT destination, generation FROM destination WHERE agent = ?1",
        params![head.key],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, Int>(1)?)),
    )?;
    for (destination, generation) in destinations {
        let change = head.change();
        execute(
            tx.conn,
            "UPDATE destination SET next_number = next_number + ?4, change = ?5
             WHERE agent = ?1 AND destination = ?2 AND generation = ?3",
            params![head.key, destination, generation, Int(FencingToken::NUMBERS_PER_EPOCH * epochs), change],
        )?;
    }
    Ok(())
}

/// Events under a token of a new epoch get numbers above all that may have been given since the copy was made; the caller
/// saves the head.
pub(super) fn skip_events(tx: &Tx<'_>, head: &Head, token: FencingToken) -> Fallible<()> {
    execute(
        tx.conn,
        "UPDATE agent SET next_event = max(next_event, ?2) WHERE key = ?1",
        params![head.key, Int(token.first_number())],
    )
    .map(drop)
}
