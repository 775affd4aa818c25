//! The outbox: outputs committed with a turn and not yet acknowledged.

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, Generation, Revision};
use godwit_core::output::{Output, OutputState, StoredOutput};
use godwit_core::receipt::Receipt;
use godwit_core::store::{OutputEnd, OutputKey, Owner, Page, RowKey};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::codec::{Int, agent_id, reason, reason_code, unseal};
use super::error::{Fallible, corrupt};
use super::events;
use super::inputs::key_of;
use super::leases::own;
use super::sql::{all, execute, first};
use super::state::bury;
use super::writer::Tx;

/// Appends an output of a turn under the next number of its destination.
pub(super) fn append(
    tx: &Tx<'_>,
    head: &mut Head,
    receipt: &Receipt,
    output: &Output,
    sealed: &[u8],
) -> Fallible<()> {
    let change = head.change();
    let number = first(
        tx.conn,
        "INSERT INTO destination (agent, destination, generation, change, next_number) VALUES (?1, ?2, ?3, ?4, 2)
         ON CONFLICT (agent, destination, generation) DO UPDATE SET change = excluded.change,
             next_number = next_number + 1
         RETURNING next_number - 1",
        params![head.key, output.destination.as_str(), Int(receipt.generation.0), change],
        |row| Ok(row.get::<_, Int>(0)?),
    )?;
    let number = number.ok_or_else(|| corrupt("a written destination is not there"))?;
    let columns = Columns {
        position: head.next_output,
        generation: receipt.generation,
        number: number.0,
        revision: receipt.revision,
        committed_at_ms: receipt.committed_at_ms,
        state: &OutputState::Pending,
    };
    let change = head.change();
    insert(tx, head.key, change, output, sealed, &columns)?;
    head.next_output += 1;
    head.pending_outputs += 1;
    Ok(())
}

/// What an output's row says besides the output.
pub(super) struct Columns<'a> {
    pub(super) position: u64,
    pub(super) generation: Generation,
    pub(super) number: u64,
    pub(super) revision: Revision,
    pub(super) committed_at_ms: u64,
    pub(super) state: &'a OutputState,
}

pub(super) fn insert(
    tx: &Tx<'_>,
    agent: i64,
    change: Int,
    output: &Output,
    sealed: &[u8],
    columns: &Columns<'_>,
) -> Fallible<()> {
    let reason = match columns.state {
        OutputState::Pending => None,
        OutputState::Undeliverable { reason } => Some(reason_code(*reason)),
    };
    execute(
        tx.conn,
        "INSERT INTO output (agent, position, change, destination, generation, number, revision, committed_at_ms, state,
             reason, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            agent,
            Int(columns.position),
            change,
            output.destination.as_str(),
            Int(columns.generation.0),
            Int(columns.number),
            Int(columns.revision.0),
            Int(columns.committed_at_ms),
            i64::from(reason.is_some()),
            reason,
            sealed,
        ],
    )
    .map(drop)
}

pub(super) fn end(tx: &Tx<'_>, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Fallible<()> {
    let mut head = own(tx, owner)?;
    let (change, pending) = (head.change, head.pending_outputs);
    for (key, end) in ends {
        end_one(tx, &mut head, key, *end)?;
    }
    if (head.change, head.pending_outputs) == (change, pending) {
        return Ok(());
    }
    Ok(head.save(tx)?)
}

fn end_one(tx: &Tx<'_>, head: &mut Head, key: &OutputKey, end: OutputEnd) -> Fallible<()> {
    let known = first(
        tx.conn,
        "SELECT position, state FROM output
         WHERE agent = ?1 AND destination = ?2 AND generation = ?3 AND number = ?4",
        params![head.key, key.destination.as_str(), Int(key.generation.0), Int(key.number)],
        |row| Ok((row.get::<_, Int>(0)?, row.get::<_, i64>(1)?)),
    )?;
    let Some((position, state)) = known else {
        return Ok(());
    };
    let is_pending = state == 0;
    match end {
        OutputEnd::Acknowledged => {
            execute(
                tx.conn,
                "DELETE FROM output WHERE agent = ?1 AND position = ?2",
                params![head.key, position],
            )?;
            if head.is_tracked {
                let change = head.change();
                let row = RowKey::Output(key.destination.clone(), key.generation, key.number);
                bury(tx, head.key, change, &row)?;
            }
        }
        OutputEnd::Undeliverable(_) if !is_pending => return Ok(()),
        OutputEnd::Undeliverable(reason) => {
            let change = head.change();
            execute(
                tx.conn,
                "UPDATE output SET state = 1, reason = ?3, change = ?4 WHERE agent = ?1 AND position = ?2",
                params![head.key, position, reason_code(reason), change],
            )?;
            let event = NewEvent::of_agent(&head.agent, EventKind::OutputUndeliverable, tx.now_ms())
                .with("destination", &key.destination)
                .with("number", key.number)
                .with("reason", reason.name());
            events::append_of(tx, head, &[event])?;
        }
    }
    head.pending_outputs = head.pending_outputs.saturating_sub(u64::from(is_pending));
    Ok(())
}

/// Outputs in commit order: the pending ones, or all that have a row.
pub(super) fn list(
    conn: &Connection,
    agent: &AgentId,
    is_pending: bool,
    page: Page,
) -> Fallible<Vec<StoredOutput>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    let after = Int(page.after.min(i64::MAX.unsigned_abs()));
    all(
        conn,
        "SELECT position, change, destination, generation, number, revision, committed_at_ms, reason, sealed
         FROM output WHERE agent = ?1 AND position > ?2 AND (state = 0 OR NOT ?3) ORDER BY position LIMIT ?4",
        params![key, after, is_pending, page.limit as i64],
        |row| stored(row, agent),
    )
}

/// Reads an output; column 1 is not looked at.
pub(super) fn stored(row: &Row<'_>, agent: &AgentId) -> Fallible<StoredOutput> {
    let position = row.get::<_, Int>(0)?.0;
    let what = || format!("output {position} of agent {agent}");
    let output: Output = unseal(&row.get::<_, Vec<u8>>(8)?, what)?;
    if output.destination != agent_id(&row.get::<_, String>(2)?)? {
        return Err(corrupt(format!("{}: its columns say otherwise than its content", what())));
    }
    Ok(StoredOutput {
        agent: agent.clone(),
        generation: Generation(row.get::<_, Int>(3)?.0),
        number: row.get::<_, Int>(4)?.0,
        revision: Revision(row.get::<_, Int>(5)?.0),
        position,
        committed_at_ms: row.get::<_, Int>(6)?.0,
        output,
        state: match row.get::<_, Option<i64>>(7)? {
            None => OutputState::Pending,
            Some(code) => OutputState::Undeliverable { reason: reason(code)? },
        },
    })
}
