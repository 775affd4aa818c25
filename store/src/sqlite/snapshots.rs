//! The two kept snapshots of an agent, and which of them a new one replaces.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, Generation, Revision};
use godwit_core::snapshot::Snapshot;
use godwit_core::store::{KeptSnapshot, Slot, StoreError};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::bodies;
use super::codec::{Int, PackedSnapshot};
use super::error::{Fail, Fallible};
use super::journal;
use super::sql::{all, execute, first};
use super::writer::Tx;

/// A statement for each slot's table.
macro_rules! for_slot {
    ($slot:expr, $before:literal, $after:expr) => {
        match $slot {
            Slot::First => concat!($before, "snapshot", $after),
            Slot::Second => concat!($before, "snapshot_beside", $after),
        }
    };
}

/// Writes a row unless one with a higher change number is there, with what else to set and to demand of that one.
macro_rules! upsert {
    ($slot:expr, $also_set:literal, $also_demanded:literal) => {
        for_slot!(
            $slot,
            "INSERT INTO ",
            concat!(
                " AS s (agent, change, generation, revision, token, time_ms, plugin_version, digest, bytes, packed, state, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (agent) DO UPDATE SET change = excluded.change, generation = excluded.generation,
                     revision = excluded.revision, token = excluded.token, time_ms = excluded.time_ms,
                     plugin_version = excluded.plugin_version, digest = excluded.digest, bytes = excluded.bytes,
                     packed = excluded.packed, state = excluded.state",
                $also_set,
                " WHERE excluded.change > s.change",
                $also_demanded
            )
        )
    };
}

/// A snapshot's place, and the boundary that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    slot: Slot,
    at: (u64, u64),
    bytes: u64,
    digest: Digest,
}

fn kept(conn: &Connection, key: i64) -> Fallible<Vec<Kept>> {
    let mut kept = all(
        conn,
        "SELECT 0, generation, revision, bytes, digest FROM snapshot WHERE agent = ?1
         UNION ALL SELECT 1, generation, revision, bytes, digest FROM snapshot_beside WHERE agent = ?1",
        params![key],
        |row| {
            let at = (row.get::<_, Int>(1)?.0, row.get::<_, Int>(2)?.0);
            let slot = if row.get::<_, i64>(0)? == 0 { Slot::First } else { Slot::Second };
            Ok(Kept { slot, at, bytes: row.get::<_, Int>(3)?.0, digest: Digest(row.get(4)?) })
        },
    )?;
    kept.sort_by_key(|kept| kept.at);
    Ok(kept)
}

/// The kept snapshots, oldest first.
pub(super) fn list(conn: &Connection, key: i64) -> Fallible<Vec<KeptSnapshot>> {
    let kept = kept(conn, key)?.into_iter();
    let listed = kept.map(|Kept { at, bytes, digest, .. }| KeptSnapshot {
        generation: Generation(at.0),
        revision: Revision(at.1),
        bytes,
        digest,
    });
    Ok(listed.collect())
}

/// A snapshot of a generation.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// The newest, or that of a revision.
    Kept(Option<Revision>),
    /// The newest, which may be this one, whose state has this digest.
    AtHand(&'a Snapshot, Digest),
}

/// A snapshot of a generation, read unless it is at hand.
pub(super) fn of_generation(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    generation: Generation,
    which: Which<'_>,
) -> Fallible<Option<Snapshot>> {
    let at = if let Which::Kept(at) = which { at } else { None };
    let fits = |kept: &Kept| kept.at.0 == generation.0 && at.is_none_or(|at| at.0 == kept.at.1);
    let Some(kept) = kept(conn, key)?.into_iter().rfind(fits) else { return Ok(None) };
    match which {
        Which::AtHand(snapshot, state) if snapshot.digest(state) == kept.digest => Ok(Some(snapshot.clone())),
        _ => in_slot(conn, key, kept.slot)?.map(|packed| packed.unpack(agent)).transpose(),
    }
}

/// The place of the kept snapshot of a boundary, given by generation and revision, and its digest.
pub(super) fn of_boundary(conn: &Connection, key: i64, at: (u64, u64)) -> Fallible<Option<(Slot, Digest)>> {
    let kept = kept(conn, key)?.into_iter().find(|kept| kept.at == at);
    Ok(kept.map(|kept| (kept.slot, kept.digest)))
}

/// The snapshot in a slot.
pub(super) fn in_slot(conn: &Connection, key: i64, slot: Slot) -> Fallible<Option<PackedSnapshot>> {
    let sql = for_slot!(
        slot,
        "SELECT generation, revision, token, time_ms, plugin_version, digest, bytes, packed, state, body FROM ",
        " WHERE agent = ?1"
    );
    first(conn, sql, params![key], |row| packed(conn, row))
}

fn packed(conn: &Connection, row: &Row<'_>) -> Fallible<PackedSnapshot> {
    let body: Option<i64> = row.get(9)?;
    let state = match body {
        None => row.get(8)?,
        Some(body) => bodies::whole(conn, body)?,
    };
    Ok(PackedSnapshot {
        generation: row.get::<_, Int>(0)?.0,
        revision: row.get::<_, Int>(1)?.0,
        token: row.get::<_, Int>(2)?.0,
        time_ms: row.get::<_, Int>(3)?.0,
        plugin_version: row.get(4)?,
        digest: Digest(row.get(5)?),
        bytes: row.get::<_, Int>(6)?.0,
        is_packed: row.get(7)?,
        state: Bytes::from(state),
        body,
    })
}

/// Whether the snapshot in a slot is what was written there.
pub(super) fn is_sound(conn: &Connection, head: &Head, slot: Slot) -> Fallible<bool> {
    match in_slot(conn, head.key, slot) {
        Ok(packed) => Ok(packed.is_some_and(|packed| packed.unpack(&head.agent).is_ok())),
        Err(Fail::Store(StoreError::Corrupt { .. })) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Writes a snapshot into a slot, unless one with a higher change number is there.
///
/// # Errors
/// `Busy` when its body was dropped since it was put.
pub(super) fn write(
    tx: &Tx<'_>,
    (key, slot, change): (i64, Slot, Int),
    snapshot: &PackedSnapshot,
) -> Fallible<()> {
    let inline = match snapshot.body {
        None => &snapshot.state[..],
        Some(body) => {
            bodies::check_unnamed(tx.conn, body)?;
            &[]
        }
    };
    let put = |sql: &str| {
        let values = params![
            key,
            change,
            Int(snapshot.generation),
            Int(snapshot.revision),
            Int(snapshot.token),
            Int(snapshot.time_ms),
            snapshot.plugin_version,
            snapshot.digest.0,
            Int(snapshot.bytes),
            snapshot.is_packed,
            inline,
            snapshot.body,
        ];
        execute(tx.conn, sql, values)
    };
    // Most rows have never had a body: they are written without asking for one to drop.
    if snapshot.body.is_none() && put(upsert!(slot, "", " AND s.body IS NULL"))? > 0 {
        return Ok(());
    }
    let written = put(upsert!(slot, ", body = excluded.body", ""))?;
    match snapshot.body {
        Some(body) if written > 0 => bodies::name(tx, body),
        _ => Ok(()),
    }
}

/// Writes a snapshot beside the newest one, and drops the journal entries that neither of them needs.
pub(super) fn write_beside(tx: &Tx<'_>, head: &mut Head, snapshot: &PackedSnapshot) -> Fallible<()> {
    let kept = kept(tx.conn, head.key)?;
    let slot = kept.last().map_or(Slot::First, |newest| newest.slot.other());
    write_in(tx, head, (slot, &kept), snapshot)
}

/// As `write_beside`, but in the newest one's place when that one is damaged: the older one may be all that is left.
pub(super) fn write_over_damage(tx: &Tx<'_>, head: &mut Head, snapshot: &PackedSnapshot) -> Fallible<()> {
    let kept = kept(tx.conn, head.key)?;
    let Some(newest) = kept.last() else { return write_in(tx, head, (Slot::First, &kept), snapshot) };
    let slot = if is_sound(tx.conn, head, newest.slot)? { newest.slot.other() } else { newest.slot };
    write_in(tx, head, (slot, &kept), snapshot)
}

/// Writes a snapshot that is newer than the kept ones, and drops the journal entries that none needs then.
fn write_in(
    tx: &Tx<'_>,
    head: &mut Head,
    (slot, kept): (Slot, &[Kept]),
    snapshot: &PackedSnapshot,
) -> Fallible<()> {
    let place = (head.key, slot, head.change());
    write(tx, place, snapshot)?;
    let oldest = kept.iter().find(|kept| kept.slot != slot);
    journal::prune(tx, head.key, oldest.map_or((snapshot.generation, snapshot.revision), |kept| kept.at))
}
