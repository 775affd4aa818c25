//! Removing what has ended and is no longer kept. What may go is found by a reader; the write checks it again.

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, Generation, InputId, Revision, Seq};
use godwit_core::input::InputState;
use godwit_core::limits::PRUNE_ROWS_MAX;
use godwit_core::receipt::{Checkpoint, ReceiptCheckpoint};
use godwit_core::store::{Lifecycle, Pruned, Retention, StoreError};
use rusqlite::{Connection, params};

use super::agents::Head;
use super::channels::Spent;
use super::codec::{Int, input_state, seal, unseal};
use super::error::{Fallible, conflict};
use super::inputs::key_of;
use super::leases::at_home;
use super::sql::{all, execute, first};
use super::writer::Tx;
use super::{bodies, boundary, journal, snapshots};

/// Dropped pieces of snapshots that go with one call. Freeing a MiB rewrites a few pages.
const PIECES_PER_PRUNE: usize = 16;

/// What a reader has found.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Inputs by seq, and when each ended: what is redriven meanwhile has another end, or none.
    inputs: Vec<(Seq, Int)>,
    /// Outputs by position.
    outputs: Vec<Int>,
    next: Option<Seq>,
    /// Whether dropped pieces of snapshots, of whichever agent, wait for being removed.
    has_pieces: bool,
}

impl Plan {
    /// What is to be answered when there is nothing to do.
    pub(super) fn if_idle(&self) -> Option<Pruned> {
        let is_idle = self.inputs.is_empty() && self.outputs.is_empty() && !self.has_pieces;
        is_idle.then_some(Pruned { next: self.next, ..Pruned::default() })
    }
}

/// An input as far as retention looks at it.
struct Looked {
    seq: Seq,
    id: InputId,
    state: InputState,
    ended_at_ms: Option<u64>,
    revision: Option<Revision>,
}

/// Finds what may go.
///
/// # Errors
/// As of the write: `NoAgent`, `NotHome`.
pub(super) fn plan(
    conn: &Connection,
    agent: &AgentId,
    retention: &Retention,
    after: Seq,
    now_ms: u64,
) -> Fallible<Plan> {
    let head = at_home(conn, agent)?;
    if head.is_tracked {
        return Ok(Plan::default());
    }
    let before_ms = retention.inputs_before_ms(now_ms);
    let newest_from = newest_dead_letters_from(conn, head.key, retention.dead_letters)?;
    let looked_at = look(conn, head.key, after)?;
    let mut plan = Plan { has_pieces: bodies::is_any_dropped(conn, now_ms)?, ..Plan::default() };
    for input in &looked_at {
        let Some(ended_at_ms) = input.ended_at_ms.filter(|at| *at <= before_ms) else { continue };
        let is_listed = input.state == InputState::DeadLettered && input.seq >= newest_from;
        if !is_listed && !is_needed(conn, &head, input)? {
            plan.inputs.push((input.seq, Int(ended_at_ms)));
        }
    }
    // What stays says nothing of what is behind it: inputs do not end in the order of their seqs.
    plan.next = looked_at.get(PRUNE_ROWS_MAX - 1).map(|input| input.seq);
    plan.outputs = all(
        conn,
        "SELECT position FROM output WHERE agent = ?1 AND state = 1 AND committed_at_ms <= ?2
         ORDER BY position LIMIT ?3",
        params![head.key, Int(retention.outputs_before_ms(now_ms)), PRUNE_ROWS_MAX as i64],
        |row| Ok(row.get(0)?),
    )?;
    Ok(plan)
}

fn look(conn: &Connection, key: i64, after: Seq) -> Fallible<Vec<Looked>> {
    all(
        conn,
        "SELECT seq, id, state, ended_at_ms, revision FROM input WHERE agent = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        params![key, Int(after.0.min(i64::MAX.unsigned_abs())), PRUNE_ROWS_MAX as i64],
        |row| {
            Ok(Looked {
                seq: Seq(row.get::<_, Int>(0)?.0),
                id: InputId(row.get(1)?),
                state: input_state(row.get(2)?)?,
                ended_at_ms: row.get::<_, Option<Int>>(3)?.map(|at| at.0),
                revision: row.get::<_, Option<Int>>(4)?.map(|revision| Revision(revision.0)),
            })
        },
    )
}

/// The seq of the oldest dead letter that stays because it is one of the newest `count`.
fn newest_dead_letters_from(conn: &Connection, key: i64, count: usize) -> Fallible<Seq> {
    let Some(before) = count.checked_sub(1) else {
        return Ok(Seq(u64::MAX));
    };
    let seq = first(
        conn,
        "SELECT seq FROM input INDEXED BY input_dead_letter WHERE agent = ?1 AND state = 3
         ORDER BY seq DESC LIMIT 1 OFFSET ?2",
        params![key, i64::try_from(before).unwrap_or(i64::MAX)],
        |row| Ok(row.get::<_, Int>(0)?.0),
    )?;
    Ok(Seq(seq.unwrap_or(0)))
}

/// Whether a journal entry needs the payload of an input: that of the turn that ended it.
fn is_needed(conn: &Connection, head: &Head, input: &Looked) -> Fallible<bool> {
    let Some(revision) = input.revision else { return Ok(false) };
    if !journal::is_there(conn, head.key, head.generation, revision)? {
        return Ok(false);
    }
    if head.lifecycle == Lifecycle::Deleted {
        return Ok(false);
    }
    // An input that an earlier generation ended has a revision of that one.
    let before = Revision(revision.0.saturating_sub(1));
    let receipts = boundary::receipts(conn, head.key, &head.agent, head.generation, before, 1)?;
    Ok(receipts.iter().any(|receipt| receipt.revision == revision && receipt.inputs.contains(&input.id)))
}

/// Removes what was found, as far as it is still so.
pub(super) fn prune(tx: &Tx<'_>, agent: &AgentId, plan: &Plan) -> Fallible<Pruned> {
    let mut head = at_home(tx.conn, agent)?;
    if head.is_tracked {
        return Ok(Pruned::default());
    }
    if plan.has_pieces {
        bodies::sweep(tx, PIECES_PER_PRUNE)?;
    }
    let mut pruned = Pruned { next: plan.next, ..Pruned::default() };
    for (seq, ended_at_ms) in &plan.inputs {
        pruned.inputs += execute(
            tx.conn,
            "DELETE FROM input WHERE agent = ?1 AND seq = ?2 AND ended_at_ms = ?3",
            params![head.key, Int(seq.0), ended_at_ms],
        )? as u64;
    }
    let mut spent = Spent::default();
    for position in &plan.outputs {
        let gone = first(
            tx.conn,
            "DELETE FROM output WHERE agent = ?1 AND position = ?2 AND state = 1 RETURNING publication",
            params![head.key, position],
            |row| Ok(row.get::<_, Option<Int>>(0)?),
        )?;
        if let Some(publication) = gone {
            pruned.outputs += 1;
            spent.add(publication);
        }
    }
    spent.settle(tx, head.key)?;
    if pruned.inputs > 0 {
        execute(
            tx.conn,
            "UPDATE agent SET inputs_pruned = inputs_pruned + ?2 WHERE key = ?1",
            params![head.key, Int(pruned.inputs)],
        )?;
        head.save(tx)?;
    }
    Ok(pruned)
}

// --- receipts

/// The revision of the oldest kept snapshot of the agent's generation; 0 without one.
fn kept_from(conn: &Connection, head: &Head) -> Fallible<Revision> {
    let kept = snapshots::list(conn, head.key)?.into_iter();
    let oldest = kept.filter(|kept| kept.generation == head.generation).map(|kept| kept.revision).min();
    Ok(oldest.unwrap_or(Revision(0)))
}

pub(super) fn oldest_kept(conn: &Connection, agent: &AgentId) -> Fallible<Revision> {
    match Head::load(conn, agent)? {
        Some(head) => kept_from(conn, &head),
        None => Ok(Revision(0)),
    }
}

/// Replaces receipts by a checkpoint whose signature has been checked.
pub(super) fn checkpoint(tx: &Tx<'_>, signed: &ReceiptCheckpoint) -> Fallible<u64> {
    let Checkpoint { agent, generation, revision, head: digest, .. } = &signed.checkpoint;
    let mut head = at_home(tx.conn, agent)?;
    let known = one_checkpoint(tx.conn, head.key, *generation)?;
    if known.as_ref() == Some(signed) {
        return Ok(0);
    }
    if head.is_tracked {
        return Err(StoreError::Busy.into());
    }
    if *generation == head.generation && *revision >= kept_from(tx.conn, &head)? {
        return Err(conflict(format!("receipt {revision} is needed above the oldest kept snapshot")));
    }
    let before = known.map_or(Revision(0), |known| known.checkpoint.revision);
    let place = params![head.key, Int(generation.0), Int(revision.0)];
    let stored = first(
        tx.conn,
        "SELECT digest FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision = ?3",
        place,
        |row| Ok(Digest(row.get(0)?)),
    )?;
    let removed = execute(
        tx.conn,
        "DELETE FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision <= ?3",
        place,
    )? as u64;
    if stored != Some(*digest) || removed != revision.0.saturating_sub(before.0) {
        let next = before.next();
        return Err(conflict(format!(
            "receipts {next} to {revision} are not what the checkpoint stands for"
        )));
    }
    write_checkpoint(tx, head.key, head.change(), signed)?;
    head.save(tx)?;
    Ok(removed)
}

/// Writes a checkpoint, unless one with a higher change number is here.
pub(super) fn write_checkpoint(
    tx: &Tx<'_>,
    agent: i64,
    change: Int,
    signed: &ReceiptCheckpoint,
) -> Fallible<()> {
    let Checkpoint { generation, revision, .. } = &signed.checkpoint;
    execute(
        tx.conn,
        "INSERT INTO receipt_checkpoint (agent, generation, change, revision, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (agent, generation) DO UPDATE SET change = excluded.change, revision = excluded.revision,
             sealed = excluded.sealed
         WHERE excluded.change > receipt_checkpoint.change",
        params![agent, Int(generation.0), change, Int(revision.0), seal(signed)],
    )
    .map(drop)
}

pub(super) fn one_checkpoint(
    conn: &Connection,
    key: i64,
    generation: Generation,
) -> Fallible<Option<ReceiptCheckpoint>> {
    first(
        conn,
        "SELECT sealed FROM receipt_checkpoint WHERE agent = ?1 AND generation = ?2",
        params![key, Int(generation.0)],
        |row| unseal(&row.get::<_, Vec<u8>>(0)?, || format!("checkpoint of generation {generation}")),
    )
}

pub(super) fn checkpoints(conn: &Connection, agent: &AgentId) -> Fallible<Vec<ReceiptCheckpoint>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    all(
        conn,
        "SELECT sealed FROM receipt_checkpoint WHERE agent = ?1 ORDER BY generation",
        params![key],
        |row| unseal(&row.get::<_, Vec<u8>>(0)?, || format!("checkpoint of agent {agent}")),
    )
}
