//! The guest's `state` rows.

use bytes::Bytes;
use godwit_core::id::AgentId;
use godwit_core::store::RowKey;
use rusqlite::{Connection, params};

use super::agents::Head;
use super::codec::{Int, SEAL_BYTES, seal, unseal_bytes};
use super::error::Fallible;
use super::inputs::key_of;
use super::sql::{all, execute, first};
use super::writer::Tx;

/// Writes or deletes a key of the agent; `value` is sealed.
pub(super) fn write(tx: &Tx<'_>, head: &mut Head, key: &str, value: Option<&[u8]>) -> Fallible<()> {
    let before = size(tx.conn, head.key, key)?;
    head.state_written(key.len(), before, value.map(|value| (value.len() - SEAL_BYTES) as u64));
    match value {
        Some(value) => {
            let change = head.change();
            put(tx, head.key, change, key, value)
        }
        None => {
            let deleted =
                execute(tx.conn, "DELETE FROM state WHERE agent = ?1 AND key = ?2", params![head.key, key])?;
            if deleted > 0 && head.keeps_deletes() {
                let change = head.change();
                bury(tx, head.key, change, &RowKey::State(key.to_owned()))?;
            }
            Ok(())
        }
    }
}

/// Bytes of a stored value.
pub(super) fn size(conn: &Connection, agent: i64, key: &str) -> Fallible<Option<u64>> {
    first(
        conn,
        "SELECT length(sealed) FROM state WHERE agent = ?1 AND key = ?2",
        params![agent, key],
        |row| Ok(row.get::<_, Int>(0)?.0.saturating_sub(SEAL_BYTES as u64)),
    )
}

/// Writes a sealed value, unless one with a higher change number is here.
pub(super) fn put(tx: &Tx<'_>, agent: i64, change: Int, key: &str, value: &[u8]) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO state (agent, key, change, sealed) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, key) DO UPDATE SET change = excluded.change, sealed = excluded.sealed
         WHERE excluded.change > state.change",
        params![agent, key, change, value],
    )
    .map(drop)
}

/// Leaves a tombstone for a deleted row.
pub(super) fn bury(tx: &Tx<'_>, agent: i64, change: Int, key: &RowKey) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO tombstone (agent, key, change) VALUES (?1, ?2, ?3)
         ON CONFLICT (agent, key) DO UPDATE SET change = excluded.change WHERE excluded.change > tombstone.change",
        params![agent, tombstone_key(key), change],
    )
    .map(drop)
}

/// A row's key as a column.
pub(super) fn tombstone_key(key: &RowKey) -> Vec<u8> {
    seal(key)
}

pub(super) fn value(conn: &Connection, agent: &AgentId, key: &str) -> Fallible<Option<Bytes>> {
    let Some(agent_key) = key_of(conn, agent)? else {
        return Ok(None);
    };
    first(conn, "SELECT sealed FROM state WHERE agent = ?1 AND key = ?2", params![agent_key, key], |row| {
        open(&row.get::<_, Vec<u8>>(0)?, agent, key)
    })
}

/// Opens a sealed value.
pub(super) fn open(sealed: &[u8], agent: &AgentId, key: &str) -> Fallible<Bytes> {
    unseal_bytes(sealed, || format!("state {key:?} of agent {agent}")).map(Bytes::copy_from_slice)
}

pub(super) fn keys(
    conn: &Connection,
    agent: &AgentId,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Fallible<Vec<String>> {
    let Some(agent_key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    // Keys with the prefix stand together: from the prefix itself to below the prefix with a byte that no text has.
    match after {
        None => all(
            conn,
            "SELECT key FROM state WHERE agent = ?1 AND key >= ?2 AND key < ?2 || x'FF' ORDER BY key LIMIT ?3",
            params![agent_key, prefix, limit as i64],
            |row| Ok(row.get(0)?),
        ),
        // Below the prefix there is nothing to skip.
        Some(after) if after < prefix => keys(conn, agent, prefix, None, limit),
        Some(after) => all(
            conn,
            "SELECT key FROM state WHERE agent = ?1 AND key > ?3 AND key < ?2 || x'FF'
             ORDER BY key LIMIT ?4",
            params![agent_key, prefix, after, limit as i64],
            |row| Ok(row.get(0)?),
        ),
    }
}
