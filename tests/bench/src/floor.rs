//! The floor of a commit: plain SQLite that writes the same rows, on the same disk, with WAL and `synchronous=FULL`.
//!
//! It works on a copy of the host's own database, so schema, indexes, agents and sizes are the product's. What it leaves
//! out is everything but writing: reading, checking, hashing, packing, HTTP, guests.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags, params};

/// More than the floor has.
const STATEMENTS_CACHED: usize = 32;

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
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        Ok(Self { agents: positions(&connection)?, rows: AskRows::read(&connection)?, connection, next: 0 })
    }

    /// Writes what `asks` asks write, of one agent after the other, in one transaction.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub(crate) fn commit(&mut self, asks: usize) -> Result<()> {
        self.transaction(asks, |connection, at, rows| {
            at.advance();
            insert_input(connection, at, at.seq, rows, true)?;
            at.seq += 1;
            write_boundary(connection, at, rows)?;
            update_agent(connection, at)
        })
    }

    /// Accepts inputs of the first agent in one transaction. Answers their places.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub(crate) fn accept(&mut self, inputs: usize) -> Result<Range<i64>> {
        let (connection, rows) = (&self.connection, &self.rows);
        let at = self.agents.first_mut().context("the store has an agent")?;
        let first = at.seq;
        step(connection, "BEGIN IMMEDIATE")?;
        for _ in 0..inputs {
            at.change += 1;
            insert_input(connection, at, at.seq, rows, false)?;
            at.seq += 1;
        }
        update_agent(connection, at)?;
        step(connection, "COMMIT")?;
        Ok(first..at.seq)
    }

    /// Writes what the turns of accepted inputs write, in one transaction.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub(crate) fn run(&mut self, inputs: Range<i64>) -> Result<()> {
        let (connection, rows) = (&self.connection, &self.rows);
        let at = self.agents.first_mut().context("the store has an agent")?;
        step(connection, "BEGIN IMMEDIATE")?;
        for seq in inputs {
            at.advance();
            end_input(connection, at, seq, rows)?;
            write_boundary(connection, at, rows)?;
        }
        update_agent(connection, at)?;
        step(connection, "COMMIT")
    }

    /// Shows each statement to `observer` before it runs.
    pub(crate) fn trace(&self, observer: Option<fn(TraceEvent<'_>)>) {
        self.connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, observer);
    }

    fn transaction(
        &mut self,
        asks: usize,
        write: impl Fn(&Connection, &mut Position, &AskRows) -> Result<()>,
    ) -> Result<()> {
        step(&self.connection, "BEGIN IMMEDIATE")?;
        for _ in 0..asks {
            write(&self.connection, &mut self.agents[self.next], &self.rows)?;
            self.next = (self.next + 1) % self.agents.len();
        }
        step(&self.connection, "COMMIT")
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

impl Position {
    /// To the next boundary.
    fn advance(&mut self) {
        self.revision += 1;
        self.change += 1;
    }

    /// A digest that no other boundary of the agent has.
    fn digest(&self) -> [u8; 32] {
        let mut digest = [1; 32];
        digest[..8].copy_from_slice(&self.revision.to_le_bytes());
        digest
    }
}

/// The id of an input, which no other of the agent has.
fn input_id(seq: i64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seq.to_le_bytes());
    id
}

fn step(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn update_agent(connection: &Connection, at: &Position) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE agent SET revision = ?2, head = ?3, next_seq = ?4, time_ms = time_ms + 1, change = ?5, row_change = ?5
             WHERE key = ?1",
        )?
        .execute(params![at.key, at.revision, at.digest(), at.seq, at.change])?;
    Ok(())
}

/// The row of an input, which has ended or waits.
fn insert_input(
    connection: &Connection,
    at: &Position,
    seq: i64,
    rows: &AskRows,
    has_ended: bool,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO input (agent, seq, change, state, attempts, accepted_by, revision, token, kind, id, digest,
                                outcome_sealed, ended_at_ms, body, deaths, lane, wakes)
             VALUES (?1, ?2, ?3, ?10, 0, 1, ?4, 1, ?5, ?6, ?7, ?8, ?11, ?9, 0, 0, 1)",
        )?
        .execute(params![
            at.key,
            seq,
            at.change,
            has_ended.then_some(at.revision),
            rows.kind,
            input_id(seq),
            rows.input_digest,
            has_ended.then_some(&rows.outcome),
            rows.input_body,
            if has_ended { 2 } else { 0 },
            has_ended.then_some(at.change),
        ])?;
    Ok(())
}

fn end_input(connection: &Connection, at: &Position, seq: i64, rows: &AskRows) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE input SET change = ?3, state = 2, revision = ?4, token = 1, outcome_sealed = ?5, ended_at_ms = ?3
             WHERE agent = ?1 AND seq = ?2",
        )?
        .execute(params![at.key, seq, at.change, at.revision, rows.outcome])?;
    Ok(())
}

/// The receipt and the snapshot.
fn write_boundary(connection: &Connection, at: &Position, rows: &AskRows) -> Result<()> {
    let digest = at.digest();
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
