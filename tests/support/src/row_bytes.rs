//! How much a store was given to write: the values of an agent's rows, counted in its file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};

/// Tables of an agent's rows whose rows tell when they were written last.
const TABLES: [&str; 12] = [
    "spec",
    "input",
    "receipt",
    "receipt_checkpoint",
    "snapshot",
    "snapshot_beside",
    "journal",
    "state",
    "output",
    "destination",
    "timer",
    "operation",
];
/// What an integer counts for, whatever it takes in the file.
const INTEGER_BYTES: u32 = 8;

/// Bytes of values by table.
pub type RowBytes = BTreeMap<String, u64>;

/// An agent's last change number: a mark for `since`.
///
/// # Errors
/// When the file can't be read or has no such agent.
pub fn mark(store: &Path, agent: &str) -> Result<i64> {
    let file = open(store)?;
    let read = |row: &rusqlite::Row<'_>| row.get(0);
    file.query_row("SELECT change FROM agent WHERE id = ?1 AND home < 4", [agent], read)
        .with_context(|| format!("no agent {agent}"))
}

/// The values of an agent's rows that were written after a mark: by table, with bodies of inputs under `input`, pieces under
/// their snapshot, and the agent's own row, once, under `agent`.
///
/// # Errors
/// When the file can't be read.
pub fn since(store: &Path, agent: &str, mark: i64) -> Result<RowBytes> {
    let file = open(store)?;
    let mut found = RowBytes::new();
    for table in TABLES {
        let condition = "change > ?2 AND agent = (SELECT key FROM agent WHERE id = ?1 AND home < 4)";
        found.insert(table.to_owned(), bytes(&file, table, condition, agent, mark)?);
    }
    let bodies = "(agent, seq) IN (SELECT i.agent, i.seq FROM input i JOIN agent a ON a.key = i.agent
                                   WHERE a.id = ?1 AND a.home < 4 AND i.change > ?2)";
    *found.entry("input".to_owned()).or_default() += bytes(&file, "input_part", bodies, agent, mark)?;
    for table in ["snapshot", "snapshot_beside"] {
        let pieces = format!(
            "body IN (SELECT s.body FROM {table} s JOIN agent a ON a.key = s.agent
                      WHERE a.id = ?1 AND a.home < 4 AND s.change > ?2)"
        );
        *found.entry(table.to_owned()).or_default() += bytes(&file, "snapshot_piece", &pieces, agent, mark)?;
    }
    found.insert(
        "agent".to_owned(),
        bytes(&file, "agent", "id = ?1 AND home < 4 AND change >= ?2", agent, mark)?,
    );
    Ok(found)
}

fn open(store: &Path) -> Result<Connection> {
    Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("cannot open {}", store.display()))
}

fn bytes(file: &Connection, table: &str, condition: &str, agent: &str, mark: i64) -> Result<u64> {
    let mut names = file.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names: Vec<String> = names.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let of_one = |name: &String| {
        format!(
            "CASE typeof({name}) WHEN 'integer' THEN {INTEGER_BYTES} WHEN 'null' THEN 0 ELSE octet_length({name}) END"
        )
    };
    let sum: Vec<String> = names.iter().map(of_one).collect();
    let sql = format!("SELECT coalesce(sum({}), 0) FROM {table} WHERE {condition}", sum.join(" + "));
    let bytes: i64 = file.query_row(&sql, rusqlite::params![agent, mark], |row| row.get(0))?;
    Ok(u64::try_from(bytes)?)
}
