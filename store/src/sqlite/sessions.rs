//! Host sessions. Dead ones keep their row, so that no incarnation is given twice.

use std::net::SocketAddr;
use std::time::Duration;

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{HostId, Incarnation, StoreEpoch, StoreId};
use godwit_core::store::{Session, SessionRequest, SessionRow, StoreError, StoreMark};
use rusqlite::{Connection, Row, params};

use super::SqliteMode;
use super::codec::Int;
use super::error::{Fallible, conflict, corrupt};
use super::events::append;
use super::sql::{all, execute, exists, first};
use super::writer::{Tx, WriteEnv, nanos};

pub(super) fn mark(conn: &Connection, store: StoreId) -> Fallible<StoreMark> {
    let found = first(
        conn,
        "SELECT epoch, (SELECT max(incarnation) FROM session), (SELECT max(seq) FROM event) FROM meta",
        [],
        |row| {
            Ok(StoreMark {
                store,
                epoch: StoreEpoch(row.get::<_, Int>(0)?.0),
                incarnation: Incarnation(row.get::<_, Option<Int>>(1)?.map_or(0, |number| number.0)),
                event: row.get::<_, Option<Int>>(2)?.map_or(0, |number| number.0),
            })
        },
    )?;
    found.ok_or_else(|| corrupt("the store's own row is missing"))
}

pub(super) fn is_backup(conn: &Connection) -> Fallible<bool> {
    exists(conn, "SELECT 1 FROM meta WHERE is_backup = 1", [])
}

pub(super) fn join(tx: &Tx<'_>, request: &SessionRequest) -> Fallible<Session> {
    if is_backup(tx.conn)? {
        return Err(conflict("the store is a backup: it must be restored first"));
    }
    let is_exclusive = tx.env.mode == SqliteMode::Exclusive;
    // Sessions without expiry held the exclusive lock; who can join a shared store knows that nobody does.
    execute(
        tx.conn,
        "UPDATE session SET dead = 1 WHERE dead = 0 AND (?1 OR host = ?2 OR expires_ns IS NULL)",
        params![is_exclusive, request.host.0],
    )?;
    if is_exclusive {
        // What an import left when its process died; nobody else receives anything now.
        execute(
            tx.conn,
            "DELETE FROM agent WHERE home = 4
                 AND NOT EXISTS (SELECT 1 FROM migration m WHERE m.id = agent.migration AND m.is_open > 0)
                 AND NOT EXISTS (SELECT 1 FROM standby s WHERE s.session = agent.migration)",
            [],
        )?;
    }
    let ttl = (!is_exclusive).then_some(request.ttl);
    execute(
        tx.conn,
        "INSERT INTO session (host, name, api, mesh, joined_at_ms, boot, ttl_ns, expires_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            request.host.0,
            request.name,
            request.api.to_string(),
            request.mesh.to_string(),
            Int(request.now_ms),
            ttl.map(|_| &tx.env.boot),
            ttl.map(|ttl| Int(nanos(ttl))),
            ttl.map(|ttl| Int(tx.boot_ns().saturating_add(nanos(ttl)))),
        ],
    )?;
    let incarnation = Incarnation(tx.conn.last_insert_rowid().unsigned_abs());
    let event =
        session_event(EventKind::HostJoined, request.host, &request.name, incarnation, request.now_ms);
    append(tx, &[event])?;
    Ok(Session { incarnation, ttl })
}

pub(super) fn heartbeat(tx: &Tx<'_>, incarnation: Incarnation) -> Fallible<()> {
    let beaten = execute(
        tx.conn,
        "UPDATE session SET boot = ?2, expires_ns = max(?3 + ttl_ns, iif(boot = ?2, expires_ns, 0))
         WHERE incarnation = ?1 AND dead = 0 AND expires_ns IS NOT NULL",
        params![Int(incarnation.0), tx.env.boot, Int(tx.boot_ns())],
    )?;
    if beaten == 0 { check_living(tx, incarnation) } else { Ok(()) }
}

pub(super) fn bury_expired(tx: &Tx<'_>) -> Fallible<Vec<Incarnation>> {
    let mut expired = all(
        tx.conn,
        "SELECT incarnation FROM session
         WHERE dead = 0 AND expires_ns IS NOT NULL AND (boot <> ?1 OR expires_ns <= ?2) ORDER BY incarnation",
        params![tx.env.boot, Int(tx.boot_ns())],
        |row| Ok(Incarnation(row.get::<_, Int>(0)?.0)),
    )?;
    for incarnation in &mut expired {
        leave(tx, *incarnation)?;
    }
    Ok(expired)
}

pub(super) fn leave(tx: &Tx<'_>, incarnation: Incarnation) -> Fallible<()> {
    let left = first(
        tx.conn,
        "UPDATE session SET dead = 1 WHERE incarnation = ?1 AND dead = 0 RETURNING host, name",
        params![Int(incarnation.0)],
        |row| Ok((HostId(row.get(0)?), row.get::<_, String>(1)?)),
    )?;
    if let Some((host, name)) = left {
        append(tx, &[session_event(EventKind::HostGone, host, &name, incarnation, tx.now_ms())])?;
    }
    Ok(())
}

pub(super) fn sessions(conn: &Connection, env: &WriteEnv) -> Fallible<Vec<SessionRow>> {
    let now_ns = nanos(env.clock.boot());
    all(
        conn,
        "SELECT incarnation, host, name, api, mesh, boot, expires_ns FROM session
         WHERE dead = 0 ORDER BY incarnation",
        [],
        |row| {
            let expires: Option<Int> = row.get(6)?;
            let is_this_boot = row.get::<_, Option<String>>(5)?.as_ref() == Some(&env.boot);
            let remaining_ns = |expires: Int| {
                if is_this_boot { expires.0.saturating_sub(now_ns) } else { 0 }
            };
            Ok(SessionRow {
                incarnation: Incarnation(row.get::<_, Int>(0)?.0),
                host: HostId(row.get(1)?),
                name: row.get(2)?,
                api: address(row, 3)?,
                mesh: address(row, 4)?,
                remaining: expires.map(|expires| Duration::from_nanos(remaining_ns(expires))),
            })
        },
    )
}

fn address(row: &Row<'_>, column: usize) -> Fallible<SocketAddr> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| corrupt(format!("address of a session: {text:?}")))
}

/// The host of a session that is not dead.
pub(super) fn living_host(conn: &Connection, incarnation: Incarnation) -> Fallible<Option<HostId>> {
    first(
        conn,
        "SELECT host FROM session WHERE incarnation = ?1 AND dead = 0",
        params![Int(incarnation.0)],
        |row| Ok(HostId(row.get(0)?)),
    )
}

/// The newest session of a host that is neither dead nor expired.
pub(super) fn live_session(tx: &Tx<'_>, host: HostId) -> Fallible<Option<Incarnation>> {
    first(
        tx.conn,
        "SELECT incarnation FROM session
         WHERE dead = 0 AND host = ?1 AND (expires_ns IS NULL OR (boot = ?2 AND expires_ns > ?3))
         ORDER BY incarnation DESC LIMIT 1",
        params![host.0, tx.env.boot, Int(tx.boot_ns())],
        |row| Ok(Incarnation(row.get::<_, Int>(0)?.0)),
    )
}

/// # Errors
/// `SessionDead`.
pub(super) fn check_living(tx: &Tx<'_>, incarnation: Incarnation) -> Fallible<()> {
    match living_host(tx.conn, incarnation)? {
        Some(_) => Ok(()),
        None => Err(StoreError::SessionDead { incarnation }.into()),
    }
}

fn session_event(
    kind: EventKind,
    host: HostId,
    name: &str,
    incarnation: Incarnation,
    at_ms: u64,
) -> NewEvent {
    let event = NewEvent { agent: None, kind, at_ms, data: Vec::new() };
    event.with("host", host).with("name", name).with("incarnation", incarnation)
}
