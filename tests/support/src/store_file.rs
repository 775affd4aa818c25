//! A store's file as it lies on disk, read without the product: plain columns, and receipts decoded here from their bytes.
//!
//! Everything comes from one read transaction, so it is one moment of the store; hosts may go on meanwhile. Values that the
//! product seals (payloads, replies) are not read here: hosts show them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, OpenFlags, Row};

/// Home of an agent that is at home in the file.
pub const HOME_HERE: u64 = 0;

/// The store at one moment.
#[derive(Debug, Clone, Default)]
pub struct StoreFile {
    /// Agents by id; copies that no id names are left out.
    pub agents: BTreeMap<String, AgentRows>,
    /// Sessions that nobody has ended.
    pub living_sessions: u64,
}

/// All rows of an agent.
#[derive(Debug, Clone, Default)]
pub struct AgentRows {
    /// 0 here, 1 handing off, 2 prepared, 3 moved.
    pub home: u64,
    /// Raised by reset.
    pub generation: u64,
    /// Boundaries in this generation.
    pub revision: u64,
    /// The highest token granted.
    pub token: u64,
    /// Digest of the last receipt.
    pub head: [u8; 32],
    /// The next input's place.
    pub next_seq: u64,
    /// What the row says waits.
    pub open_inputs: u64,
    /// What the row says of bytes that wait, of state rows, and of their bytes.
    pub sizes: [u64; 3],
    /// The same, counted.
    pub counted: [u64; 3],
    /// What the row says is on its way.
    pub pending_outputs: u64,
    /// In the order of generation and revision.
    pub receipts: Vec<ReceiptRow>,
    /// In the order of their places.
    pub inputs: Vec<InputRow>,
    /// Next number by destination and generation.
    pub destinations: BTreeMap<(String, u64), u64>,
    /// (generation, highest token heard, next number) by origin.
    pub receivers: BTreeMap<String, (u64, u64, u64)>,
    /// Rows of the outbox that still wait.
    pub outputs: u64,
}

/// A receipt: its columns, and what its bytes say.
#[derive(Debug, Clone)]
pub struct ReceiptRow {
    /// Column.
    pub generation: u64,
    /// Column.
    pub revision: u64,
    /// Column: 0 init, 1 turn, 2 dead letter, ...
    pub kind: u64,
    /// Column.
    pub token: u64,
    /// Column.
    pub incarnation: u64,
    /// Column: the digest that the product stored.
    pub digest: [u8; 32],
    /// BLAKE3 of the bytes, computed here.
    pub computed: [u8; 32],
    /// The bytes, decoded here.
    pub body: ReceiptBody,
}

/// What a receipt's bytes say, as far as the checker looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiptBody {
    /// Whose.
    pub agent: String,
    /// In which generation.
    pub generation: u64,
    /// The revision that it made.
    pub revision: u64,
    /// As the column.
    pub kind: u64,
    /// Ids of the inputs that ended here, 32 hex digits each.
    pub inputs: Vec<String>,
    /// The committing owner's token.
    pub token: u64,
    /// The committing host.
    pub host: [u8; 32],
    /// Its incarnation.
    pub incarnation: u64,
    /// Whether it names a state.
    pub has_state: bool,
    /// Digest of the receipt before.
    pub parent: [u8; 32],
    /// Whether it names what was given up.
    pub has_from: bool,
}

/// An input's plain columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRow {
    /// Its place, 1...
    pub seq: u64,
    /// 0 queued, 1 staged, 2 consumed, 3 dead-lettered, 4 replaced, 5 abandoned.
    pub state: u64,
    /// Attempts behind it.
    pub attempts: u64,
    /// The boundary that ended it.
    pub revision: Option<u64>,
    /// 32 hex digits.
    pub id: String,
    /// The client's key.
    pub key: Option<String>,
}

impl StoreFile {
    /// Reads a file; a host may have it open.
    ///
    /// # Errors
    /// When it can't be read, or a receipt's bytes are no receipt.
    pub fn read(path: &Path) -> Result<Self> {
        // Not read-only: a log that a dead host left is recovered by its first reader.
        let mut file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .with_context(|| format!("cannot open {}", path.display()))?;
        file.busy_timeout(std::time::Duration::from_secs(10))?;
        let moment = file.transaction()?;
        let mut read = Self {
            living_sessions: moment
                .query_row("SELECT count(*) FROM session WHERE dead = 0", [], |row| number(row, 0))?,
            ..Self::default()
        };
        let mut agents = moment.prepare(
            "SELECT key, id, home, generation, revision, token, head, next_seq, open_inputs, pending_outputs,
                 open_bytes, state_keys, state_bytes
             FROM agent WHERE home < 4",
        )?;
        let mut rows = agents.query([])?;
        while let Some(row) = rows.next()? {
            let key: i64 = row.get(0)?;
            let id: String = row.get(1)?;
            let mut agent = AgentRows {
                home: number(row, 2)?,
                generation: number(row, 3)?,
                revision: number(row, 4)?,
                token: number(row, 5)?,
                head: row.get(6)?,
                next_seq: number(row, 7)?,
                open_inputs: number(row, 8)?,
                pending_outputs: number(row, 9)?,
                sizes: [number(row, 10)?, number(row, 11)?, number(row, 12)?],
                ..AgentRows::default()
            };
            fill(&moment, key, &mut agent).with_context(|| format!("rows of {id}"))?;
            read.agents.insert(id, agent);
        }
        Ok(read)
    }
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    // The store keeps u64 in SQLite's signed integers, bit by bit.
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}

/// What seals a stored value: format and checksum.
const SEAL_BYTES: u64 = 9;

fn fill(file: &Connection, key: i64, agent: &mut AgentRows) -> Result<()> {
    let waiting = "SELECT coalesce(sum(bytes), 0) FROM input WHERE agent = ?1 AND state < 2";
    let rows = "SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) + length(sealed)), 0) FROM state WHERE agent = ?1";
    let waiting = file.query_row(waiting, [key], |row| number(row, 0))?;
    let (keys, bytes) = file.query_row(rows, [key], |row| Ok((number(row, 0)?, number(row, 1)?)))?;
    agent.counted = [waiting, keys, bytes - keys * SEAL_BYTES];
    let mut receipts = file.prepare_cached(
        "SELECT generation, revision, kind, token, incarnation, digest, body FROM receipt
         WHERE agent = ?1 ORDER BY generation, revision",
    )?;
    let mut rows = receipts.query([key])?;
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(6)?;
        let revision = number(row, 1)?;
        agent.receipts.push(ReceiptRow {
            generation: number(row, 0)?,
            revision,
            kind: number(row, 2)?,
            token: number(row, 3)?,
            incarnation: number(row, 4)?,
            digest: row.get(5)?,
            computed: *blake3::hash(&body).as_bytes(),
            body: ReceiptBody::decode(&body).with_context(|| format!("receipt {revision}"))?,
        });
    }
    let mut inputs = file.prepare_cached(
        "SELECT seq, state, attempts, revision, id, key FROM input WHERE agent = ?1 ORDER BY seq",
    )?;
    let mut rows = inputs.query([key])?;
    while let Some(row) = rows.next()? {
        let id: [u8; 16] = row.get(4)?;
        agent.inputs.push(InputRow {
            seq: number(row, 0)?,
            state: number(row, 1)?,
            attempts: number(row, 2)?,
            revision: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
            id: hex(&id),
            key: row.get(5)?,
        });
    }
    let mut destinations =
        file.prepare_cached("SELECT destination, generation, next_number FROM destination WHERE agent = ?1")?;
    let mut rows = destinations.query([key])?;
    while let Some(row) = rows.next()? {
        agent.destinations.insert((row.get(0)?, number(row, 1)?), number(row, 2)?);
    }
    let mut receivers =
        file.prepare_cached("SELECT origin, generation, token, next FROM receiver WHERE agent = ?1")?;
    let mut rows = receivers.query([key])?;
    while let Some(row) = rows.next()? {
        agent.receivers.insert(row.get(0)?, (number(row, 1)?, number(row, 2)?, number(row, 3)?));
    }
    let mut outputs = file.prepare_cached("SELECT count(*) FROM output WHERE agent = ?1 AND state = 0")?;
    agent.outputs = outputs.query_row([key], |row| number(row, 0))?;
    Ok(())
}

/// Flips a bit of an agent's newest snapshot, of two that are kept. No host may have the file open.
///
/// # Errors
/// When there are not two, or the file can't be written.
pub fn damage_newest_snapshot(path: &Path, agent: &str) -> Result<()> {
    let file = Connection::open(path)?;
    let in_table = |table: &'static str| {
        let sql = format!(
            "SELECT revision, state FROM {table} WHERE agent = (SELECT key FROM agent WHERE id = ?1)"
        );
        let row = file.query_row(&sql, [agent], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
        row.map(|(revision, state)| (revision, table, state))
            .with_context(|| format!("no {table} of {agent}"))
    };
    let (_, table, mut state) = in_table("snapshot")?.max(in_table("snapshot_beside")?);
    state[0] ^= 1;
    let sql = format!("UPDATE {table} SET state = ?1 WHERE agent = (SELECT key FROM agent WHERE id = ?2)");
    ensure!(file.execute(&sql, rusqlite::params![state, agent])? == 1, "one snapshot is damaged");
    Ok(())
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ReceiptBody {
    /// Reads a receipt's bytes: postcard, fields in the order in which the product documents them.
    ///
    /// # Errors
    /// When they end too early.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut bytes = Bytes(bytes);
        let agent = bytes.counted()?;
        let agent = String::from_utf8(agent.to_vec()).context("the agent's id is not text")?;
        let (generation, revision) = (bytes.varint()?, bytes.varint()?);
        bytes.take(16)?; // run
        bytes.varint()?; // sequence
        let kind = bytes.varint()?;
        let count = bytes.varint()?;
        let mut inputs = Vec::new();
        for _ in 0..count {
            inputs.push(hex(bytes.take(16)?));
        }
        let token = bytes.varint()?;
        let host = bytes.array()?;
        let incarnation = bytes.varint()?;
        bytes.take(32)?; // plugin
        bytes.varint()?; // spec revision
        bytes.take(32)?; // effects
        let has_state = bytes.digest()?;
        bytes.digest()?; // journal
        let parent = bytes.array()?;
        bytes.varint()?; // elapsed
        if bytes.is_some()? {
            bytes.varint()?; // fuel
        }
        bytes.varint()?; // time
        let has_from = bytes.digest()?;
        Ok(Self {
            agent,
            generation,
            revision,
            kind,
            inputs,
            token,
            host,
            incarnation,
            has_state,
            parent,
            has_from,
        })
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        ensure!(self.0.len() >= count, "it ends {} bytes too early", count - self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn array(&mut self) -> Result<[u8; 32]> {
        Ok(self.take(32)?.try_into()?)
    }

    /// The mark of an optional value.
    fn is_some(&mut self) -> Result<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => bail!("{other:?} is neither none nor some"),
        }
    }

    /// Whether there is an optional digest, which is passed.
    fn digest(&mut self) -> Result<bool> {
        let is_there = self.is_some()?;
        if is_there {
            self.take(32)?;
        }
        Ok(is_there)
    }

    fn counted(&mut self) -> Result<&'a [u8]> {
        let count = usize::try_from(self.varint()?)?;
        self.take(count)
    }

    /// Seven bits a byte, the low ones first.
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.take(1)?[0]);
            value |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a number of more than 64 bits")
    }
}

#[cfg(test)]
mod tests;
