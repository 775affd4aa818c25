//! The guest's `state` rows.

use bytes::Bytes;
use godwit_core::id::AgentId;
use godwit_core::store::{Row, RowKey};
use rusqlite::types::Type;
use rusqlite::{Connection, params};

use super::agents::Head;
use super::codec::{Int, SEAL_BYTES, seal, unseal_bytes};
use super::error::Fallible;
use super::inputs::key_of;
use super::sql::{all, execute, first};
use super::writer::Tx;

/// Rows, and bytes of them, that go in one transaction when all of an agent's do: what is written meanwhile waits for it, and each
/// page of a value that goes is in memory.
const CLEARED_ROWS: i64 = 1_024;
pub(super) const CLEARED_BYTES: usize = 4 << 20;

/// Writes or deletes a key of the agent; `value` is sealed.
pub(super) fn write(tx: &Tx<'_>, head: &mut Head, key: &str, value: Option<&[u8]>) -> Fallible<()> {
    let before = size(tx.conn, head.key, key)?;
    head.state_written(key.len(), before, value.map(|value| (value.len() - SEAL_BYTES) as u64));
    match value {
        Some(value) => {
            let change = head.change();
            put(tx, head.key, change, key, value).map(drop)
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

/// Writes a sealed value, unless one with a higher change number is here. Answers whether it was written.
pub(super) fn put(tx: &Tx<'_>, agent: i64, change: Int, key: &str, value: &[u8]) -> Fallible<bool> {
    let written = execute(
        tx.conn,
        "INSERT INTO state (agent, key, change, sealed) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, key) DO UPDATE SET change = excluded.change, sealed = excluded.sealed
         WHERE excluded.change > state.change",
        params![agent, key, change, value],
    )?;
    Ok(written > 0)
}

/// Deletes some rows of an agent that nobody reads any more. Answers whether there may be more.
pub(super) fn clear_some(tx: &Tx<'_>, agent: i64) -> Fallible<bool> {
    let sql = "SELECT row, length(sealed) FROM state WHERE agent = ?1 LIMIT ?2";
    let rows = all(tx.conn, sql, params![agent, CLEARED_ROWS], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Int>(1)?.0))
    })?;
    let mut bytes = 0;
    for (row, length) in &rows {
        execute(tx.conn, "DELETE FROM state WHERE row = ?1", params![row])?;
        bytes += length;
        if bytes >= CLEARED_BYTES as u64 {
            break;
        }
    }
    tx.count_moved(bytes as usize);
    Ok(!rows.is_empty())
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
        open(blob(row, 0)?, agent, key)
    })
}

/// As `value`, by the integer of its row, with the key: for rows that leave.
pub(super) fn row_at(conn: &Connection, agent: &AgentId, row: i64) -> Fallible<Option<Row>> {
    first(conn, "SELECT key, sealed FROM state WHERE row = ?1", params![row], |row| {
        let key: String = row.get(0)?;
        let value = open(blob(row, 1)?, agent, &key)?;
        Ok(Row::State { key, value })
    })
}

/// A column's bytes where they lie: values are large enough that copies count.
fn blob<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Fallible<&'a [u8]> {
    let value = row.get_ref(column)?;
    Ok(value
        .as_blob()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, error.into()))?)
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
