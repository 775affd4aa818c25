//! Large bodies and outcomes of inputs, which lie beside the inputs' own rows: finding an input reads none of them.

use godwit_core::id::Seq;
use rusqlite::params;

use crate::sqlite::codec::Int;
use crate::sqlite::error::Fallible;
use crate::sqlite::sql::execute;
use crate::sqlite::writer::Tx;

/// Sealed bodies and outcomes above this size lie in a table of their own: states change, they don't.
pub(super) const INLINE_MAX: usize = 512;
/// What stands in the place of an outcome that lies there.
const ELSEWHERE: &[u8] = &[];

/// What lies in that table.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Body = 0,
    Outcome = 1,
}

/// What stands in the input's own row for an outcome.
pub(super) fn column(outcome: &[u8]) -> &[u8] {
    if outcome.len() <= INLINE_MAX { outcome } else { ELSEWHERE }
}

/// Puts what is too large for an input's own row; what is not is there.
pub(super) fn put_large(tx: &Tx<'_>, (agent, seq): (i64, Seq), part: Part, bytes: &[u8]) -> Fallible<()> {
    if bytes.len() <= INLINE_MAX {
        return Ok(());
    }
    execute(
        tx.conn,
        "INSERT INTO input_part (agent, seq, part, bytes) VALUES (?1, ?2, ?3, ?4)",
        params![agent, Int(seq.0), part as i64, bytes],
    )
    .map(drop)
}

/// An input that has ended is opened again, or ends otherwise.
pub(super) fn drop_outcome(tx: &Tx<'_>, agent: i64, seq: Seq) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM input_part WHERE agent = ?1 AND seq = ?2 AND part = ?3",
        params![agent, Int(seq.0), Part::Outcome as i64],
    )
    .map(drop)
}
