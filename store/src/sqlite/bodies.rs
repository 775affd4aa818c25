//! Packed states that are too large for one transaction.
//!
//! ```text
//! put: a piece per transaction, unfenced --> named: by the snapshot of a unit, fenced --> dropped: replaced or deleted
//!                                       \\-> dropped: the unit was refused, its process has died, or an hour is over
//! ```
//! So nobody's commit waits for more than a piece. A body belongs to one snapshot: of two that are kept, neither is hurt when
//! the other's bytes are damaged. What is dropped leaves piece by piece with what is put next, and with retention.

use bytes::Bytes;
use godwit_core::failpoint;
use godwit_core::limits::SNAPSHOT_BYTES_MAX;
use godwit_core::store::StoreError;
use rusqlite::{Connection, params};

use super::SqliteStore;
use super::codec::{Int, PackedSnapshot};
use super::error::{Fallible, corrupt};
use super::sql::{all, execute, exists, first};
use super::writer::Tx;

/// Packed states above this are bodies, in pieces of this size.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Pieces of dropped bodies that go with one that is put: what is dropped never outgrows what is there.
const DROPPED_PER_PUT: usize = 2;
/// A body that nobody has named for so long was left behind. Its unit follows its pieces within seconds.
const UNNAMED_MS_MAX: u64 = 3_600_000;

impl SqliteStore {
    /// Puts the states that are too large for a row; answers the bodies that it made.
    ///
    /// # Errors
    /// As of writes; what was put is dropped again.
    pub(super) async fn put_bodies(
        &self,
        snapshots: impl Iterator<Item = &mut PackedSnapshot>,
    ) -> Result<Vec<i64>, StoreError> {
        let mut bodies = Vec::new();
        for snapshot in snapshots.filter(|snapshot| snapshot.state.len() > PIECE_BYTES) {
            if let Err(error) = self.put_body(&snapshot.state, &mut bodies).await {
                self.drop_bodies(bodies).await;
                return Err(error);
            }
            snapshot.body = bodies.last().copied();
        }
        Ok(bodies)
    }

    /// Puts one state as a new body, whose key goes to `bodies` as soon as there is one.
    async fn put_body(&self, state: &Bytes, bodies: &mut Vec<i64>) -> Result<(), StoreError> {
        let mut body = None;
        for (position, from) in (0..state.len()).step_by(PIECE_BYTES).enumerate() {
            let piece = state.slice(from..state.len().min(from + PIECE_BYTES));
            let key = self.write_large(piece.len(), move |tx| put(tx, body, position, &piece)).await?;
            if body.replace(key).is_none() {
                bodies.push(key);
            }
            failpoint::hit("store.after-piece");
        }
        Ok(())
    }

    /// Lets go of those of the bodies that no snapshot has taken. Where that fails, an hour or the next start does it.
    pub(super) async fn drop_bodies(&self, bodies: Vec<i64>) {
        if !bodies.is_empty() {
            let dropped = self.write(move |tx| drop_unnamed(tx, &bodies)).await;
            drop(
                dropped.inspect_err(|error| tracing::debug!(%error, "pieces of a snapshot stay for a while")),
            );
        }
    }
}

/// Puts a piece: the first one of a new body, or the next one of a body. Answers the body's key.
///
/// # Errors
/// `Busy` when the body was dropped meanwhile.
pub(super) fn put(tx: &Tx<'_>, body: Option<i64>, position: usize, piece: &[u8]) -> Fallible<i64> {
    drop_pieces(tx, DROPPED_PER_PUT)?;
    let body = match body {
        Some(body) => body,
        None => {
            let put_at_ms = Int(tx.now_ms());
            execute(
                tx.conn,
                "INSERT INTO snapshot_body (state, put_at_ms) VALUES (0, ?1)",
                params![put_at_ms],
            )?;
            tx.conn.last_insert_rowid()
        }
    };
    check_unnamed(tx.conn, body)?;
    execute(
        tx.conn,
        "INSERT INTO snapshot_piece (body, position, bytes) VALUES (?1, ?2, ?3)",
        params![body, position as i64, piece],
    )?;
    Ok(body)
}

/// Before a snapshot's row takes a body.
///
/// # Errors
/// `Busy` when the body was dropped meanwhile: it must be put again.
pub(super) fn check_unnamed(conn: &Connection, body: i64) -> Fallible<()> {
    match exists(conn, "SELECT 1 FROM snapshot_body WHERE key = ?1 AND state = 0", params![body])? {
        true => Ok(()),
        false => Err(StoreError::Busy.into()),
    }
}

/// After a snapshot's row has taken a body.
pub(super) fn name(tx: &Tx<'_>, body: i64) -> Fallible<()> {
    execute(tx.conn, "UPDATE snapshot_body SET state = 1 WHERE key = ?1", params![body]).map(drop)
}

/// All of a body.
pub(super) fn whole(conn: &Connection, body: i64) -> Fallible<Vec<u8>> {
    let mut whole = Vec::new();
    let sql = "SELECT position, bytes FROM snapshot_piece WHERE body = ?1 ORDER BY position";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![body])?;
    let mut next = 0;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        if row.get::<_, i64>(0)? != next || whole.len() + bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(corrupt(format!(
                "pieces of snapshot body {body}: piece {next} is missing or too large"
            )));
        }
        next += 1;
        whole.extend_from_slice(bytes);
    }
    Ok(whole)
}

// --- leaving

/// Drops those of the bodies that nobody has named: their unit was refused.
pub(super) fn drop_unnamed(tx: &Tx<'_>, bodies: &[i64]) -> Fallible<()> {
    let sql = "UPDATE snapshot_body SET state = 2 WHERE key = ?1 AND state = 0";
    bodies.iter().try_for_each(|body| execute(tx.conn, sql, params![body]).map(drop))
}

/// Drops all bodies that nobody has named, for whoever is alone on the file: who put them is gone.
pub(super) fn drop_left_behind(conn: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM snapshot_body WHERE state = 0 AND state <> 1)";
    if conn.query_row(sql, [], |row| row.get(0))? {
        conn.execute("UPDATE snapshot_body SET state = 2 WHERE state = 0 AND state <> 1", [])?;
    }
    Ok(())
}

/// Whether something has been dropped or left behind.
pub(super) fn is_any_dropped(conn: &Connection, now_ms: u64) -> Fallible<bool> {
    exists(
        conn,
        "SELECT 1 FROM snapshot_body INDEXED BY snapshot_body_unnamed
         WHERE state <> 1 AND (state = 2 OR put_at_ms <= ?1)",
        params![Int(now_ms.saturating_sub(UNNAMED_MS_MAX))],
    )
}

/// Drops bodies that nobody has named for long. Here and below, `state <> 1` lets SQLite see that the index will do.
pub(super) const LEFT_BEHIND: &str =
    "UPDATE snapshot_body SET state = 2 WHERE state = 0 AND state <> 1 AND put_at_ms <= ?1";
/// The next dropped body.
pub(super) const DROPPED: &str =
    "SELECT key FROM snapshot_body WHERE state = 2 AND state <> 1 ORDER BY key LIMIT 1";

/// Removes dropped bodies, and those that were left behind: so many pieces of them.
pub(super) fn sweep(tx: &Tx<'_>, pieces: usize) -> Fallible<()> {
    execute(tx.conn, LEFT_BEHIND, params![Int(tx.now_ms().saturating_sub(UNNAMED_MS_MAX))])?;
    drop_pieces(tx, pieces)
}

fn drop_pieces(tx: &Tx<'_>, pieces: usize) -> Fallible<()> {
    let mut room = pieces;
    while room > 0 {
        let Some(body) = first(tx.conn, DROPPED, [], |row| Ok(row.get::<_, i64>(0)?))? else { break };
        let found = all(
            tx.conn,
            "SELECT key FROM snapshot_piece WHERE body = ?1 ORDER BY position LIMIT ?2",
            params![body, room as i64],
            |row| Ok(row.get::<_, i64>(0)?),
        )?;
        for piece in &found {
            execute(tx.conn, "DELETE FROM snapshot_piece WHERE key = ?1", params![piece])?;
        }
        if found.len() < room {
            execute(tx.conn, "DELETE FROM snapshot_body WHERE key = ?1", params![body])?;
        }
        room -= found.len().max(1);
    }
    Ok(())
}
