//! Reading inputs: their rows as values, checked against their plain columns.

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Incarnation, InputId, Revision, Seq};
use godwit_core::input::{Input, InputState, Outcome, Placing, Scope, TraceParent};
use godwit_core::store::{Page, StoredInput};
use rusqlite::{Connection, Row, params};

use crate::sqlite::codec::{Int, input_state, input_state_code, lane, unseal};
use crate::sqlite::error::{Fallible, corrupt};
use crate::sqlite::sql::{all, first};

/// A query of what `stored` reads. The index is named where the planner can't know that few rows are in it.
macro_rules! select_input {
    ($index:literal, $rest:literal) => {
        concat!(
            "SELECT i.seq, i.state, i.attempts, i.accepted_by, i.id, i.key, i.digest,
                    CASE i.outcome_sealed WHEN x'' THEN (SELECT p.bytes FROM input_part p
                        WHERE p.agent = i.agent AND p.seq = i.seq AND p.part = 1) ELSE i.outcome_sealed END,
                    coalesce(i.body, (SELECT p.bytes FROM input_part p
                        WHERE p.agent = i.agent AND p.seq = i.seq AND p.part = 0)),
                    i.change, i.revision, i.token, i.ended_at_ms, i.deaths, i.lane, i.wakes, i.scope, i.traceparent
             FROM input i ",
            $index,
            " WHERE i.agent = ?1 AND ",
            $rest
        )
    };
}

pub(in crate::sqlite) const BY_KEY: &str = select_input!("", "i.key = ?2");
const BY_ID: &str = select_input!("", "i.id = ?2");
const BY_SEQ: &str = select_input!("", "i.seq = ?2");
const ANY: &str = select_input!("", "i.seq > ?2 ORDER BY i.seq LIMIT ?3");
pub(in crate::sqlite) const OPEN: &str =
    select_input!("INDEXED BY input_open", "i.seq > ?2 AND i.state < 2 ORDER BY i.seq LIMIT ?3");
pub(in crate::sqlite) const DEAD_LETTERS: &str =
    select_input!("INDEXED BY input_dead_letter", "i.seq > ?2 AND i.state = 3 ORDER BY i.seq LIMIT ?3");
const OF_STATE: &str = select_input!("", "i.seq > ?2 AND i.state = ?4 ORDER BY i.seq LIMIT ?3");

pub(super) fn stored(row: &Row<'_>, agent: &AgentId) -> Fallible<StoredInput> {
    let seq = Seq(row.get::<_, Int>(0)?.0);
    let what = || format!("input {seq} of agent {agent}");
    let body: Option<Vec<u8>> = row.get(8)?;
    let input: Input = match body {
        Some(body) => unseal(&body, what)?,
        None => return Err(corrupt(format!("{}: its body is missing", what()))),
    };
    let outcome: Option<Vec<u8>> = row.get(7)?;
    let has_ended = row.get::<_, Option<Int>>(12)?.is_some();
    if has_ended != outcome.is_some() {
        return Err(corrupt(format!("{}: its outcome is missing", what())));
    }
    let traceparent: Option<String> = row.get(17)?;
    let stored = StoredInput {
        seq,
        state: input_state(row.get(1)?)?,
        attempts: row.get(2)?,
        deaths: row.get(13)?,
        accepted_by: Incarnation(row.get::<_, Int>(3)?.0),
        idempotency_key: row.get(5)?,
        body_digest: Digest(row.get(6)?),
        placing: Placing {
            lane: lane(row.get(14)?)?,
            wakes: row.get(15)?,
            scope: row.get::<_, Option<String>>(16)?.map(Scope),
        },
        traceparent: traceparent
            .map(|text| TraceParent::parse(&text).map_err(|error| corrupt(format!("{}: {error}", what()))))
            .transpose()?,
        outcome: outcome.map(|sealed| unseal(&sealed, what)).transpose()?,
        ended_at_ms: row.get::<_, Option<Int>>(12)?.map(|at| at.0),
        input,
    };
    let columns = (
        row.get::<_, Option<Int>>(10)?.map(|revision| Revision(revision.0)),
        row.get::<_, Option<Int>>(11)?.map(|token| FencingToken(token.0)),
    );
    if stored.input.id.0 != row.get::<_, [u8; 16]>(4)? || columns != numbers(stored.outcome.as_ref()) {
        return Err(corrupt(format!("{}: its columns say otherwise than its content", what())));
    }
    Ok(stored)
}

/// Revision and token of an end, as the plain columns have them.
fn numbers(outcome: Option<&Outcome>) -> (Option<Revision>, Option<FencingToken>) {
    match outcome {
        Some(Outcome::Committed { revision, token, .. }) => (Some(*revision), Some(*token)),
        Some(Outcome::DeadLettered { revision, .. }) => (Some(*revision), None),
        _ => (None, None),
    }
}

pub(in crate::sqlite) fn by_id(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    id: InputId,
) -> Fallible<Option<StoredInput>> {
    first(conn, BY_ID, params![key, id.0], |row| stored(row, agent))
}

pub(in crate::sqlite) fn by_key(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    given: &str,
) -> Fallible<Option<StoredInput>> {
    first(conn, BY_KEY, params![key, given], |row| stored(row, agent))
}

pub(in crate::sqlite) fn by_seq(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    seq: Seq,
) -> Fallible<Option<StoredInput>> {
    first(conn, BY_SEQ, params![key, Int(seq.0)], |row| stored(row, agent))
}

/// The key of an agent that an id names.
pub(in crate::sqlite) fn key_of(conn: &Connection, agent: &AgentId) -> Fallible<Option<i64>> {
    first(conn, "SELECT key FROM agent WHERE id = ?1 AND home < 4", params![agent.as_str()], |row| {
        Ok(row.get(0)?)
    })
}

pub(in crate::sqlite) fn input(
    conn: &Connection,
    agent: &AgentId,
    id: InputId,
) -> Fallible<Option<StoredInput>> {
    match key_of(conn, agent)? {
        Some(key) => by_id(conn, key, agent, id),
        None => Ok(None),
    }
}

pub(in crate::sqlite) fn input_by_key(
    conn: &Connection,
    agent: &AgentId,
    given: &str,
) -> Fallible<Option<StoredInput>> {
    match key_of(conn, agent)? {
        Some(key) => by_key(conn, key, agent, given),
        None => Ok(None),
    }
}

/// Which inputs to list.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) enum Listed {
    Open,
    Any,
    Of(InputState),
}

pub(in crate::sqlite) fn list(
    conn: &Connection,
    agent: &AgentId,
    listed: Listed,
    page: Page,
) -> Fallible<Vec<StoredInput>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    let after = Int(page.after.min(i64::MAX.unsigned_abs()));
    let limit = page.limit as i64;
    let read = |row: &Row<'_>| stored(row, agent);
    match listed {
        Listed::Open => all(conn, OPEN, params![key, after, limit], read),
        Listed::Any => all(conn, ANY, params![key, after, limit], read),
        Listed::Of(InputState::DeadLettered) => all(conn, DEAD_LETTERS, params![key, after, limit], read),
        Listed::Of(state) => all(conn, OF_STATE, params![key, after, limit, input_state_code(state)], read),
    }
}
