//! The event log: appended in the transaction that caused it, read after a cursor.

use godwit_core::event::{Event, EventKind, EventPlace, NewEvent};
use godwit_core::id::{AgentId, Generation, StoreId};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::codec::{Int, agent_id, event_code, event_kind, seal, unseal};
use super::error::Fallible;
use super::sql::{all, execute, first};
use super::writer::Tx;

/// Old events are deleted each time so many have been appended.
const PRUNE_EVERY: u64 = 256;

/// What an agent's row gives to an event about it: its place, and its labels as they are stored.
struct Stamp {
    generation: Int,
    number: Int,
    labels: Vec<u8>,
    /// Of the agent's row, which has changed.
    change: u64,
}

/// Counts an event in the row of its agent, if that is at home here. The row is found by key or by id.
const COUNT: [&str; 2] = [
    "UPDATE agent SET next_event = next_event + 1, change = max(change, ?2) + 1, row_change = max(change, ?2) + 1
     WHERE key = ?1 AND home = 0 RETURNING generation, next_event - 1, labels_sealed, change",
    "UPDATE agent SET next_event = next_event + 1, change = max(change, ?2) + 1, row_change = max(change, ?2) + 1
     WHERE id = ?1 AND home < 4 AND home = 0 RETURNING generation, next_event - 1, labels_sealed, change",
];

fn stamp(row: &Row<'_>) -> Fallible<Stamp> {
    Ok(Stamp {
        generation: row.get(0)?,
        number: row.get(1)?,
        labels: row.get(2)?,
        change: row.get::<_, Int>(3)?.0,
    })
}

/// Appends events, in a job that holds no agent's head.
pub(super) fn append(tx: &Tx<'_>, events: &[NewEvent]) -> Fallible<()> {
    for event in events {
        let stamp = match &event.agent {
            Some(agent) => first(tx.conn, COUNT[1], params![agent.as_str(), 0], stamp)?,
            None => None,
        };
        insert(tx, event, stamp.as_ref())?;
    }
    Ok(())
}

/// Appends events about an agent whose head the caller holds. The count is in the stored row at once; the head knows of the
/// change, and need not be saved for it.
pub(super) fn append_of(tx: &Tx<'_>, head: &mut Head, events: &[NewEvent]) -> Fallible<()> {
    for event in events {
        debug_assert_eq!(event.agent.as_ref(), Some(&head.agent), "the head is the event's agent");
        let stamp = first(tx.conn, COUNT[0], params![head.key, Int(head.change)], stamp)?;
        if let Some(stamp) = &stamp {
            head.row_written(stamp.change);
        }
        insert(tx, event, stamp.as_ref())?;
    }
    Ok(())
}

fn insert(tx: &Tx<'_>, event: &NewEvent, stamp: Option<&Stamp>) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO event (agent, kind, at_ms, generation, number, labels_sealed, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            event.agent.as_ref().map(AgentId::as_str),
            event_code(event.kind),
            Int(event.at_ms),
            stamp.map(|stamp| stamp.generation),
            stamp.map(|stamp| stamp.number),
            stamp.map(|stamp| &stamp.labels),
            seal(&event.data),
        ],
    )?;
    let seq = tx.conn.last_insert_rowid().unsigned_abs();
    tx.newest_event.set(seq);
    if seq.is_multiple_of(PRUNE_EVERY) {
        let kept_from = seq.saturating_sub(tx.env.quotas.events_kept);
        execute(tx.conn, "DELETE FROM event WHERE seq <= ?1", params![Int(kept_from)])?;
    }
    Ok(())
}

pub(super) fn events(
    conn: &Connection,
    store: StoreId,
    after: u64,
    agent: Option<&AgentId>,
    kind: Option<EventKind>,
    limit: usize,
) -> Fallible<Vec<Event>> {
    // Two statements, so that each has the index that serves it.
    let sql = match agent {
        Some(_) => {
            "SELECT seq, agent, kind, at_ms, sealed, generation, number, labels_sealed FROM event
             WHERE seq > ?1 AND agent = ?2 AND (?3 IS NULL OR kind = ?3) ORDER BY seq LIMIT ?4"
        }
        None => {
            "SELECT seq, agent, kind, at_ms, sealed, generation, number, labels_sealed FROM event
             WHERE seq > ?1 AND ?2 IS NULL AND (?3 IS NULL OR kind = ?3) ORDER BY seq LIMIT ?4"
        }
    };
    let after = after.min(i64::MAX.unsigned_abs());
    let params = params![Int(after), agent.map(AgentId::as_str), kind.map(event_code), limit as i64];
    all(conn, sql, params, |row| event(row, store))
}

/// The events of an agent that have a place behind a number.
pub(super) fn of_agent(
    conn: &Connection,
    store: StoreId,
    agent: &AgentId,
    after: u64,
    limit: usize,
) -> Fallible<Vec<Event>> {
    let after = after.min(i64::MAX.unsigned_abs());
    all(
        conn,
        "SELECT seq, agent, kind, at_ms, sealed, generation, number, labels_sealed FROM event
         WHERE agent = ?1 AND number > ?2 AND number IS NOT NULL ORDER BY number LIMIT ?3",
        params![agent.as_str(), Int(after), limit as i64],
        |row| event(row, store),
    )
}

fn event(row: &Row<'_>, store: StoreId) -> Fallible<Event> {
    let seq = row.get::<_, Int>(0)?.0;
    let agent: Option<String> = row.get(1)?;
    let sealed: Vec<u8> = row.get(4)?;
    let place = row.get::<_, Option<Int>>(5)?.zip(row.get::<_, Option<Int>>(6)?);
    let labels: Option<Vec<u8>> = row.get(7)?;
    let labels = labels.map(|labels| unseal(&labels, || format!("labels of event {seq}"))).transpose()?;
    Ok(Event {
        store,
        seq,
        place: place.map(|(generation, number)| EventPlace {
            generation: Generation(generation.0),
            number: number.0,
        }),
        labels: labels.unwrap_or_default(),
        event: NewEvent {
            agent: agent.as_deref().map(agent_id).transpose()?,
            kind: event_kind(row.get(2)?)?,
            at_ms: row.get::<_, Int>(3)?.0,
            data: unseal(&sealed, || format!("event {seq}"))?,
        },
    })
}

pub(super) fn range(conn: &Connection) -> Fallible<(u64, u64)> {
    let bound = |sql| first(conn, sql, [], |row| Ok(row.get::<_, Int>(0)?.0));
    let lowest = bound("SELECT seq FROM event ORDER BY seq LIMIT 1")?;
    let highest = bound("SELECT seq FROM event ORDER BY seq DESC LIMIT 1")?;
    Ok((lowest.unwrap_or(0), highest.unwrap_or(0)))
}
