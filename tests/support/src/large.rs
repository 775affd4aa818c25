//! An agent whose state is as large as a snapshot may be.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};

use crate::client::Client;

/// What the guest `hostile` makes by itself, in MiB: with the words, just below the limit of 16 MiB.
const NOTE_MIB: u32 = 15;
/// Words beside it, each as long as a payload allows.
const WORDS: u32 = 2;
const WORD_BYTES: usize = 450 << 10;

/// Lets an agent of the plugin `hostile` grow to nearly 16 MiB, and has it snapshotted: it is journaled from here.
///
/// # Errors
/// When it does not.
pub async fn grow(api: &Client, agent: &str) -> Result<()> {
    api.reply(agent, &format!("mode big-snapshot {NOTE_MIB}")).await?;
    // What it made up is its note since it was restored, so that it must not be made up again.
    api.reply(agent, "mode").await?;
    for number in 0..WORDS {
        let word = "w".repeat(WORD_BYTES);
        api.reply(agent, &format!("word {number}{word}")).await?;
    }
    api.verb(agent, "checkpoint").await?;
    Ok(())
}

/// Size of the state in an agent's largest snapshot.
///
/// # Errors
/// When the file can't be read or has no snapshot.
pub fn state_bytes(store: &Path, agent: &str) -> Result<u64> {
    let file = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT max(bytes) FROM (SELECT agent, bytes FROM snapshot UNION ALL SELECT agent, bytes FROM snapshot_beside)
               WHERE agent = (SELECT key FROM agent WHERE id = ?1 AND home < 4)";
    let bytes: i64 = file.query_row(sql, [agent], |row| row.get(0))?;
    Ok(u64::try_from(bytes)?)
}
