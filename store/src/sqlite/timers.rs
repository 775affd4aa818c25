//! Timers: rows set with boundaries, which are due for whom, and firing one.

use bytes::Bytes;
use godwit_core::id::{AgentId, Generation, Incarnation, Revision, Seq};
use godwit_core::input::NewInput;
use godwit_core::limits::Quotas;
use godwit_core::store::{AcceptError, Owner, RowKey};
use godwit_core::timer::{DueTimer, NewTimer, StoredTimer, input_id};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::codec::{Int, agent_id, seal_bytes, unseal_bytes};
use super::error::Fallible;
use super::inputs::{self, Arrival, admit, door, key_of};
use super::leases::own;
use super::sql::{all, execute, first};
use super::state::bury;
use super::writer::Tx;

/// Sets or cancels a timer with the boundary that makes `revision`.
pub(super) fn write(
    tx: &Tx<'_>,
    head: &mut Head,
    revision: Revision,
    name: &str,
    timer: Option<&NewTimer>,
) -> Fallible<()> {
    let Some(timer) = timer else { return delete(tx, head, name) };
    let change = head.change();
    let stored =
        StoredTimer { name: name.to_owned(), generation: head.generation, revision, timer: timer.clone() };
    put(tx, head.key, change, &stored)
}

/// Writes a timer, unless one with a higher change number is here.
pub(super) fn put(tx: &Tx<'_>, agent: i64, change: Int, stored: &StoredTimer) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO timer (agent, name, change, generation, revision, at_ms, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (agent, name) DO UPDATE SET change = excluded.change, generation = excluded.generation,
             revision = excluded.revision, at_ms = excluded.at_ms, sealed = excluded.sealed
         WHERE excluded.change > timer.change",
        params![
            agent,
            stored.name,
            change,
            Int(stored.generation.0),
            Int(stored.revision.0),
            Int(stored.timer.at_ms),
            seal_bytes(&stored.timer.payload),
        ],
    )
    .map(drop)
}

/// Deletes a timer, when it is there.
pub(super) fn delete(tx: &Tx<'_>, head: &mut Head, name: &str) -> Fallible<()> {
    let deleted =
        execute(tx.conn, "DELETE FROM timer WHERE agent = ?1 AND name = ?2", params![head.key, name])?;
    if deleted > 0 && head.keeps_deletes() {
        let change = head.change();
        bury(tx, head.key, change, &RowKey::Timer(name.to_owned()))?;
    }
    Ok(())
}

/// Takes a delete from another store.
pub(super) fn receive_delete(tx: &Tx<'_>, agent: i64, change: Int, name: &str) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM timer WHERE agent = ?1 AND name = ?2 AND change < ?3",
        params![agent, name, change],
    )
    .map(drop)
}

pub(super) fn fire(
    tx: &Tx<'_>,
    owner: &Owner,
    name: &str,
    revision: Revision,
) -> Fallible<Result<Option<Seq>, AcceptError>> {
    let mut head = own(tx, owner)?;
    let waiting = timer(tx.conn, head.key, &head.agent, name)?;
    let Some(timer) = waiting.filter(|timer| timer.revision == revision) else {
        let fired = input_id(&owner.agent, owner.generation, name, revision);
        let known = inputs::by_id(tx.conn, head.key, &head.agent, fired)?;
        return Ok(Ok(known.map(|input| input.seq)));
    };
    let mut input = timer.input(&owner.agent);
    input.accepted_at_ms = tx.now_ms();
    let arrival = Arrival::new(NewInput::of_host(&owner.agent, input));
    let known = match door(tx, &head, &arrival)? {
        Ok(known) => known,
        Err(refused) => return Ok(Err(refused)),
    };
    delete(tx, &mut head, name)?;
    let seq = match known {
        Some(known) => known.seq,
        None => admit(tx, &mut head, &arrival, owner.incarnation)?,
    };
    head.save(tx)?;
    Ok(Ok(Some(seq)))
}

// --- reading

fn stored(row: &Row<'_>, agent: &AgentId) -> Fallible<StoredTimer> {
    let name: String = row.get(0)?;
    let sealed: Vec<u8> = row.get(4)?;
    let payload = unseal_bytes(&sealed, || format!("timer {name:?} of agent {agent}"))?;
    Ok(StoredTimer {
        generation: Generation(row.get::<_, Int>(1)?.0),
        revision: Revision(row.get::<_, Int>(2)?.0),
        timer: NewTimer { at_ms: row.get::<_, Int>(3)?.0, payload: Bytes::copy_from_slice(payload) },
        name,
    })
}

pub(super) fn timer(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    name: &str,
) -> Fallible<Option<StoredTimer>> {
    first(
        conn,
        "SELECT name, generation, revision, at_ms, sealed FROM timer WHERE agent = ?1 AND name = ?2",
        params![key, name],
        |row| stored(row, agent),
    )
}

/// The timers of an agent, by name.
pub(super) fn list(conn: &Connection, agent: &AgentId) -> Fallible<Vec<StoredTimer>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    all(
        conn,
        "SELECT name, generation, revision, at_ms, sealed FROM timer WHERE agent = ?1 ORDER BY name",
        params![key],
        |row| stored(row, agent),
    )
}

/// Timers in order of their time, of agents that may take their inputs and that incarnation ?1 should look after.
macro_rules! select_timer {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM timer t INDEXED BY timer_at CROSS JOIN agent a ON a.key = t.agent
             LEFT JOIN session s ON s.incarnation = a.holder AND s.dead = 0
             WHERE a.home = 0 AND a.lifecycle = 0 AND a.open_inputs < ?2 AND a.open_bytes < ?3
                 AND (s.incarnation IS NULL OR s.incarnation = ?1)",
            $rest
        )
    };
}

pub(super) fn due(
    conn: &Connection,
    incarnation: Incarnation,
    now_ms: u64,
    limit: usize,
    quotas: &Quotas,
) -> Fallible<Vec<DueTimer>> {
    all(
        conn,
        select_timer!("a.id, t.name, t.revision, t.at_ms", " AND t.at_ms <= ?4 ORDER BY t.at_ms LIMIT ?5"),
        params![
            Int(incarnation.0),
            column(quotas.inbox_inputs_max),
            column(quotas.inbox_bytes_max),
            Int(now_ms.min(i64::MAX.unsigned_abs())),
            limit as i64
        ],
        |row| {
            Ok(DueTimer {
                agent: agent_id(&row.get::<_, String>(0)?)?,
                name: row.get(1)?,
                revision: Revision(row.get::<_, Int>(2)?.0),
                at_ms: row.get::<_, Int>(3)?.0,
            })
        },
    )
}

pub(super) fn next_at(conn: &Connection, incarnation: Incarnation, quotas: &Quotas) -> Fallible<Option<u64>> {
    first(
        conn,
        select_timer!("t.at_ms", " ORDER BY t.at_ms LIMIT 1"),
        params![Int(incarnation.0), column(quotas.inbox_inputs_max), column(quotas.inbox_bytes_max)],
        |row| Ok(row.get::<_, Int>(0)?.0),
    )
}

/// A limit that may be beyond all that a column holds.
fn column(max: u64) -> Int {
    Int(max.min(i64::MAX.unsigned_abs()))
}
