//! The floor of an ask: plain SQLite that commits the same rows, on the same disk, with WAL and `synchronous=FULL`.
//!
//! It works on a copy of the host's own database, so schema, indexes, agents and sizes are the product's. What it leaves
//! out is everything but writing: reading, checking, hashing, packing, HTTP, guests.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, params};

/// A copy of a host's database, and where each of its agents is in its history.
pub(crate) struct PlainStore {
    connection: Connection,
    agents: Vec<Position>,
    /// The agent that is next.
    next: usize,
    rows: AskRows,
}

/// The counters that an ask advances.
struct Position {
    key: i64,
    generation: i64,
    revision: i64,
    change: i64,
    seq: i64,
}

/// The contents that one ask wrote: those of the last one that the host committed.
struct AskRows {
    kind: String,
    input_digest: Vec<u8>,
    outcome: Vec<u8>,
    input_body: Vec<u8>,
    receipt_body: Vec<u8>,
    plugin_version: String,
    state_bytes: i64,
    packed: i64,
    state: Vec<u8>,
}

impl PlainStore {
    /// Copies the database of a host, in which every agent has been asked at least once.
    ///
    /// # Errors
    /// When it can't be read or copied.
    pub(crate) fn copy_of(database: &Path, copy: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let source = Connection::open_with_flags(database, flags)
            .with_context(|| format!("cannot open {}", database.display()))?;
        let target = copy.to_str().context("the directory's name is not text")?;
        source.execute("VACUUM INTO ?1", [target])?;
        drop(source);
        let connection = Connection::open(copy)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(Self { agents: positions(&connection)?, rows: AskRows::read(&connection)?, connection, next: 0 })
    }

    /// Writes what `asks` asks write, of one agent after the other, in one transaction.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub(crate) fn commit(&mut self, asks: usize) -> Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..asks {
            let position = &mut self.agents[self.next];
            position.revision += 1;
            position.change += 1;
            write_ask(&self.connection, position, &self.rows)?;
            position.seq += 1;
            self.next = (self.next + 1) % self.agents.len();
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }

    /// The contents' sizes, for people.
    pub(crate) fn describe(&self) -> String {
        let rows = &self.rows;
        format!(
            "an ask writes input {} + {} B, receipt {} B, snapshot {} B (state of {} B)",
            rows.input_body.len(),
            rows.outcome.len(),
            rows.receipt_body.len(),
            rows.state.len(),
            rows.state_bytes,
        )
    }
}

fn positions(connection: &Connection) -> Result<Vec<Position>> {
    let mut statement =
        connection.prepare("SELECT key, generation, revision, change, next_seq FROM agent")?;
    let rows = statement.query_map([], |row| {
        Ok(Position {
            key: row.get(0)?,
            generation: row.get(1)?,
            revision: row.get(2)?,
            change: row.get(3)?,
            seq: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl AskRows {
    fn read(connection: &Connection) -> Result<Self> {
        let sql = "SELECT i.kind, i.digest, i.outcome_sealed, i.body, r.body, s.plugin_version, s.bytes, s.packed, s.state
                   FROM input i
                   JOIN receipt r ON r.agent = i.agent AND r.revision = i.revision
                   JOIN snapshot s ON s.agent = i.agent AND s.revision = i.revision
                   WHERE i.body IS NOT NULL";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                kind: row.get(0)?,
                input_digest: row.get(1)?,
                outcome: row.get(2)?,
                input_body: row.get(3)?,
                receipt_body: row.get(4)?,
                plugin_version: row.get(5)?,
                state_bytes: row.get(6)?,
                packed: row.get(7)?,
                state: row.get(8)?,
            })
        };
        let rows = connection.query_row(sql, [], read);
        rows.context("no agent's last boundary is an ask")
    }
}

/// The rows of one ask: the agent's row, the ended input, the receipt, the snapshot.
fn write_ask(connection: &Connection, at: &Position, rows: &AskRows) -> Result<()> {
    let unique = at.revision.to_le_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&unique);
    let mut digest = [1; 32];
    digest[..8].copy_from_slice(&unique);
    connection
        .prepare_cached(
            "UPDATE agent SET revision = ?2, head = ?3, next_seq = ?4, time_ms = time_ms + 1, change = ?5, row_change = ?5
             WHERE key = ?1",
        )?
        .execute(params![at.key, at.revision, digest, at.seq + 1, at.change])?;
    connection
        .prepare_cached(
            "INSERT INTO input (agent, seq, change, state, attempts, accepted_by, revision, token, kind, id, digest,
                                outcome_sealed, ended_at_ms, body, deaths, lane, wakes)
             VALUES (?1, ?2, ?3, 2, 0, 1, ?4, 1, ?5, ?6, ?7, ?8, ?3, ?9, 0, 0, 1)",
        )?
        .execute(params![
            at.key,
            at.seq,
            at.change,
            at.revision,
            rows.kind,
            id,
            rows.input_digest,
            rows.outcome,
            rows.input_body
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO receipt (agent, generation, revision, change, kind, token, incarnation, committed_at_ms, digest,
                                  body)
             VALUES (?1, ?2, ?3, ?4, 1, 1, 1, ?3, ?5, ?6)",
        )?
        .execute(params![at.key, at.generation, at.revision, at.change, digest, rows.receipt_body])?;
    connection
        .prepare_cached(
            "INSERT INTO snapshot (agent, change, generation, revision, token, time_ms, plugin_version, digest, bytes, packed,
                                   state)
             VALUES (?1, ?2, ?3, ?4, 1, ?2, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (agent) DO UPDATE SET change = excluded.change, revision = excluded.revision,
                 digest = excluded.digest, state = excluded.state",
        )?
        .execute(params![
            at.key,
            at.change,
            at.generation,
            at.revision,
            rows.plugin_version,
            digest,
            rows.state_bytes,
            rows.packed,
            rows.state
        ])?;
    Ok(())
}
