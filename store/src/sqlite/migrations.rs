//! Migration records, and the rule that a raised token closes them.

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, MigrationId};
use godwit_core::limits::{FRUITLESS_KEPT_MAX, MIGRATIONS_KEPT_MAX};
use godwit_core::migration::Role;
use godwit_core::store::MigrationRecord;
use rusqlite::{Connection, params};

use super::agents::Head;
use super::codec::{Int, phase_code, role_code, seal, unseal};
use super::error::{Fallible, conflict};
use super::events::{append, append_of};
use super::sql::{all, execute, first};
use super::writer::Tx;

pub(super) fn put(tx: &Tx<'_>, record: &MigrationRecord) -> Fallible<()> {
    let sides = all(tx.conn, "SELECT sealed FROM migration WHERE id = ?1", params![record.id.0], |row| {
        read(&row.get::<_, Vec<u8>>(0)?)
    })?;
    if sides.iter().any(|side| side.agent != record.agent) {
        return Err(conflict(format!("migration {} is of another agent", record.id)));
    }
    let stored = sides.iter().find(|side| side.role == record.role);
    if stored.is_some_and(|stored| stored.phase.is_terminal() && stored.phase != record.phase) {
        return Err(conflict(format!("migration {} is over", record.id)));
    }
    let other = open_of(tx.conn, &record.agent)?
        .into_iter()
        .find(|other| other.role == record.role && other.id != record.id);
    if let Some(other) = other.filter(|_| !record.phase.is_terminal()) {
        return Err(conflict(format!("migration {} of the agent is open", other.id)));
    }
    write(tx, record)?;
    forget_oldest(tx, &record.agent, record.role)?;
    if stored.is_none_or(|stored| stored.phase != record.phase) {
        append(tx, &[migration_event(record, tx.now_ms())])?;
    }
    settle_tracking(tx, &record.agent)
}

/// Closes the agent's open migrations, but for `own` and what its source has to hear: its token was raised by something else.
pub(super) fn close(tx: &Tx<'_>, head: &mut Head, own: Option<MigrationId>) -> Fallible<()> {
    let agent = head.agent.clone();
    let open = open_of(tx.conn, &agent)?;
    let others: Vec<_> = open.into_iter().filter(|record| Some(record.id) != own).collect();
    if others.is_empty() {
        return Ok(());
    }
    for mut record in others {
        (record.phase, record.failure) = head.seat().closes(record.id);
        write(tx, &record)?;
        forget_oldest(tx, &agent, record.role)?;
        append_of(tx, head, &[migration_event(&record, tx.now_ms())])?;
    }
    settle_tracking(tx, &agent)
}

fn write(tx: &Tx<'_>, record: &MigrationRecord) -> Fallible<()> {
    let is_open = match record.phase.is_terminal() {
        true => 0,
        false if record.is_forced() => 2,
        false => 1,
    };
    execute(
        tx.conn,
        "INSERT INTO migration (id, role, agent, is_open, phase, started_at_ms, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id, role) DO UPDATE SET is_open = excluded.is_open, phase = excluded.phase,
             started_at_ms = excluded.started_at_ms, sealed = excluded.sealed",
        params![
            record.id.0,
            role_code(record.role),
            record.agent.as_str(),
            is_open,
            phase_code(record.phase),
            Int(record.started_at_ms),
            seal(record),
        ],
    )
    .map(drop)
}

/// Of an agent's migrations that are over, the oldest go, and the oldest of all that did not bring an agent.
fn forget_oldest(tx: &Tx<'_>, agent: &AgentId, role: Role) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM migration WHERE role = ?2 AND id IN (
             SELECT id FROM migration WHERE agent = ?1 AND role = ?2 AND is_open = 0
             ORDER BY started_at_ms DESC, id DESC LIMIT -1 OFFSET ?3)",
        params![agent.as_str(), role_code(role), MIGRATIONS_KEPT_MAX as i64],
    )?;
    if role == Role::Source {
        return Ok(());
    }
    // The conditions are those of an index.
    execute(
        tx.conn,
        "DELETE FROM migration WHERE role = 1 AND id IN (
             SELECT id FROM migration WHERE role = 1 AND is_open = 0 AND phase <> 5
             ORDER BY started_at_ms DESC, id DESC LIMIT -1 OFFSET ?1)",
        params![FRUITLESS_KEPT_MAX as i64],
    )
    .map(drop)
}

/// Deletes leave tombstones while the agent has an open migration away from here; those of a guarded agent always do.
pub(super) fn settle_tracking(tx: &Tx<'_>, agent: &AgentId) -> Fallible<()> {
    let is_tracked = open_of(tx.conn, agent)?.iter().any(|record| record.role == Role::Source);
    let changed = first(
        tx.conn,
        "UPDATE agent SET tracked = ?2 WHERE id = ?1 AND home < 4 AND tracked <> ?2 RETURNING key",
        params![agent.as_str(), is_tracked],
        |row| Ok(row.get::<_, i64>(0)?),
    )?;
    if let Some(key) = changed.filter(|_| !is_tracked) {
        execute(
            tx.conn,
            "DELETE FROM tombstone WHERE agent = ?1
             AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.key = ?1 AND a.standby IS NOT NULL)",
            params![key],
        )?;
    }
    Ok(())
}

/// Those that keep the agent from others.
fn open_of(conn: &Connection, agent: &AgentId) -> Fallible<Vec<MigrationRecord>> {
    all(
        conn,
        "SELECT sealed FROM migration WHERE agent = ?1 AND is_open = 1 ORDER BY role",
        params![agent.as_str()],
        |row| read(&row.get::<_, Vec<u8>>(0)?),
    )
}

pub(super) fn migration(conn: &Connection, migration: MigrationId) -> Fallible<Option<MigrationRecord>> {
    first(
        conn,
        "SELECT sealed FROM migration WHERE id = ?1 ORDER BY role LIMIT 1",
        params![migration.0],
        |row| read(&row.get::<_, Vec<u8>>(0)?),
    )
}

pub(super) fn migrations(conn: &Connection, limit: usize) -> Fallible<Vec<MigrationRecord>> {
    all(
        conn,
        "SELECT sealed FROM migration ORDER BY is_open DESC, started_at_ms DESC, id DESC, role LIMIT ?1",
        params![limit as i64],
        |row| read(&row.get::<_, Vec<u8>>(0)?),
    )
}

fn read(sealed: &[u8]) -> Fallible<MigrationRecord> {
    unseal(sealed, || "migration record".to_owned())
}

fn migration_event(record: &MigrationRecord, at_ms: u64) -> NewEvent {
    let event = NewEvent::of_agent(&record.agent, EventKind::Migration, at_ms)
        .with("migration", record.id)
        .with("phase", record.phase.name());
    match &record.failure {
        Some(failure) => event.with("failure", failure.name()),
        None => event,
    }
}
