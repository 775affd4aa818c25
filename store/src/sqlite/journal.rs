//! The journal: what running a turn again needs beside its receipt and inputs.

use std::collections::BTreeMap;

use godwit_core::id::{AgentId, Generation, InputId, Revision};
use godwit_core::journal::{JournalEntry, JournaledTurn};
use godwit_core::receipt::Receipt;
use godwit_core::store::StoreError;
use rusqlite::{Connection, params};

use super::codec::{Int, seal, unseal};
use super::error::{Fail, Fallible};
use super::inputs;
use super::sql::{all, execute, exists, first};
use super::writer::Tx;

/// Writes the entry of a turn; `sealed` is the entry.
pub(super) fn write(
    tx: &Tx<'_>,
    (key, change): (i64, Int),
    generation: Generation,
    revision: Revision,
    sealed: &[u8],
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO journal (agent, generation, revision, change, sealed) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![key, Int(generation.0), Int(revision.0), change, sealed],
    )
    .map(drop)
}

/// Takes an entry from another store; of two of one turn the one with the higher change number stays.
pub(super) fn receive(
    tx: &Tx<'_>,
    (key, change): (i64, Int),
    generation: Generation,
    revision: Revision,
    entry: &JournalEntry,
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO journal (agent, generation, revision, change, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (agent, generation, revision) DO UPDATE SET change = excluded.change, sealed = excluded.sealed
         WHERE excluded.change > journal.change",
        params![key, Int(generation.0), Int(revision.0), change, seal(entry)],
    )
    .map(drop)
}

/// Drops the entries up to a boundary, given by generation and revision.
pub(super) fn prune(tx: &Tx<'_>, key: i64, (generation, revision): (u64, u64)) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM journal WHERE agent = ?1 AND (generation, revision) <= (?2, ?3)",
        params![key, Int(generation), Int(revision)],
    )
    .map(drop)
}

/// Whether a turn has an entry.
pub(super) fn is_there(
    conn: &Connection,
    key: i64,
    generation: Generation,
    revision: Revision,
) -> Fallible<bool> {
    exists(
        conn,
        "SELECT 1 FROM journal WHERE agent = ?1 AND generation = ?2 AND revision = ?3",
        params![key, Int(generation.0), Int(revision.0)],
    )
}

/// One entry.
pub(super) fn entry(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    generation: Generation,
    revision: Revision,
) -> Fallible<Option<JournalEntry>> {
    first(
        conn,
        "SELECT sealed FROM journal WHERE agent = ?1 AND generation = ?2 AND revision = ?3",
        params![key, Int(generation.0), Int(revision.0)],
        |row| unseal(&row.get::<_, Vec<u8>>(0)?, || format!("journal entry {revision} of agent {agent}")),
    )
}

/// Turns that can be run again, and what is wrong with those whose rows are damaged.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) whole: BTreeMap<Revision, JournaledTurn>,
    pub(super) damaged: BTreeMap<Revision, String>,
}

/// The entries of a generation behind a revision, each with the inputs that its receipt names and that are here.
pub(super) fn turns_after(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    generation: Generation,
    after: Revision,
    receipts: &[Receipt],
) -> Fallible<Turns> {
    let entries = all(
        conn,
        "SELECT revision, sealed FROM journal WHERE agent = ?1 AND generation = ?2 AND revision > ?3",
        params![key, Int(generation.0), Int(after.0)],
        |row| Ok((Revision(row.get::<_, Int>(0)?.0), row.get::<_, Vec<u8>>(1)?)),
    )?;
    let mut turns = Turns::default();
    for (revision, sealed) in entries {
        let at = receipts.binary_search_by_key(&revision, |receipt| receipt.revision);
        let named = at.map_or(&[][..], |place| &receipts[place].inputs);
        let what = || format!("journal entry {revision} of agent {agent}");
        match unseal(&sealed, what).and_then(|entry| turn(conn, (key, agent), entry, named)) {
            Ok(turn) => drop(turns.whole.insert(revision, turn)),
            Err(Fail::Store(StoreError::Corrupt { what })) => drop(turns.damaged.insert(revision, what)),
            Err(fail) => return Err(fail),
        }
    }
    Ok(turns)
}

fn turn(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    entry: JournalEntry,
    named: &[InputId],
) -> Fallible<JournaledTurn> {
    let mut inputs = Vec::with_capacity(named.len());
    for id in named {
        inputs.extend(inputs::by_id(conn, key, agent, *id)?.map(|stored| stored.input));
    }
    Ok(JournaledTurn { entry, inputs })
}
