//! The event log: appended in the transaction that caused it, read after a cursor.

use godwit_core::event::{Event, EventKind, NewEvent};
use godwit_core::id::{AgentId, StoreId};
use godwit_core::limits::EVENTS_KEPT_MAX;
use rusqlite::{Connection, params};

use super::codec::{Int, event_code, event_kind, seal, unseal};
use super::error::Fallible;
use super::sql::{all, execute, first};
use super::writer::Tx;

/// Old events are deleted each time so many have been appended.
const PRUNE_EVERY: u64 = 256;

pub(super) fn append(tx: &Tx<'_>, events: &[NewEvent]) -> Fallible<()> {
    for event in events {
        execute(
            tx.conn,
            "INSERT INTO event (agent, kind, at_ms, sealed) VALUES (?1, ?2, ?3, ?4)",
            params![
                event.agent.as_ref().map(AgentId::as_str),
                event_code(event.kind),
                Int(event.at_ms),
                seal(&event.data),
            ],
        )?;
        let seq = tx.conn.last_insert_rowid().unsigned_abs();
        if seq.is_multiple_of(PRUNE_EVERY) {
            let kept_from = seq.saturating_sub(EVENTS_KEPT_MAX);
            execute(tx.conn, "DELETE FROM event WHERE seq <= ?1", params![Int(kept_from)])?;
        }
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
            "SELECT seq, agent, kind, at_ms, sealed FROM event
             WHERE seq > ?1 AND agent = ?2 AND (?3 IS NULL OR kind = ?3) ORDER BY seq LIMIT ?4"
        }
        None => {
            "SELECT seq, agent, kind, at_ms, sealed FROM event
             WHERE seq > ?1 AND ?2 IS NULL AND (?3 IS NULL OR kind = ?3) ORDER BY seq LIMIT ?4"
        }
    };
    let after = after.min(i64::MAX.unsigned_abs());
    let params = params![Int(after), agent.map(AgentId::as_str), kind.map(event_code), limit as i64];
    all(conn, sql, params, |row| {
        let seq = row.get::<_, Int>(0)?.0;
        let agent: Option<String> = row.get(1)?;
        let sealed: Vec<u8> = row.get(4)?;
        Ok(Event {
            store,
            seq,
            event: NewEvent {
                agent: agent.as_deref().map(super::codec::agent_id).transpose()?,
                kind: event_kind(row.get(2)?)?,
                at_ms: row.get::<_, Int>(3)?.0,
                data: unseal(&sealed, || format!("event {seq}"))?,
            },
        })
    })
}

pub(super) fn range(conn: &Connection) -> Fallible<(u64, u64)> {
    let bound = |sql| first(conn, sql, [], |row| Ok(row.get::<_, Int>(0)?.0));
    let lowest = bound("SELECT seq FROM event ORDER BY seq LIMIT 1")?;
    let highest = bound("SELECT seq FROM event ORDER BY seq DESC LIMIT 1")?;
    Ok((lowest.unwrap_or(0), highest.unwrap_or(0)))
}
