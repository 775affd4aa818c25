//! Plugins: manifest and component, each under the digest of the component's bytes.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::AgentId;
use godwit_core::receipt::Receipt;
use godwit_core::spec::PluginInfo;
use godwit_core::store::{Boundary, Pin, StoreError};
use rusqlite::{Connection, Row, params};

use super::boundary;
use super::codec::{Int, agent_id, seal, unseal};
use super::error::{Fallible, conflict, corrupt};
use super::events::append;
use super::sql::{all, execute, exists, first};
use super::writer::Tx;

/// Stores a plugin whose component has been checked against its digest.
pub(super) fn put(tx: &Tx<'_>, info: &PluginInfo, component: &Bytes) -> Fallible<bool> {
    if is_stored(tx.conn, info.digest)? {
        return Ok(false);
    }
    let has_other = exists(
        tx.conn,
        "SELECT 1 FROM plugin WHERE name = ?1 AND version = ?2",
        params![info.name, info.version],
    )?;
    if has_other {
        return Err(conflict(format!("plugin {} {} is another component", info.name, info.version)));
    }
    execute(
        tx.conn,
        "INSERT INTO plugin (digest, name, version, sealed) VALUES (?1, ?2, ?3, ?4)",
        params![info.digest.0, info.name, info.version, seal(info)],
    )?;
    execute(
        tx.conn,
        "INSERT INTO component (digest, bytes) VALUES (?1, ?2)",
        params![info.digest.0, &component[..]],
    )?;
    append(tx, &[plugin_event(EventKind::PluginLoaded, info, tx.now_ms())])?;
    Ok(true)
}

pub(super) fn is_stored(conn: &Connection, plugin: Digest) -> Fallible<bool> {
    exists(conn, "SELECT 1 FROM plugin WHERE digest = ?1", params![plugin.0])
}

pub(super) fn infos(conn: &Connection) -> Fallible<Vec<PluginInfo>> {
    all(conn, "SELECT sealed, killed_hosts, name FROM plugin ORDER BY name, version", [], |row| {
        let name: String = row.get(2)?;
        read(row, || format!("plugin {name}"))
    })
}

pub(super) fn info(conn: &Connection, plugin: Digest) -> Fallible<Option<PluginInfo>> {
    let sql = "SELECT sealed, killed_hosts FROM plugin WHERE digest = ?1";
    first(conn, sql, params![plugin.0], |row| read(row, || format!("plugin {plugin}")))
}

fn read(row: &Row<'_>, what: impl Fn() -> String) -> Fallible<PluginInfo> {
    let info: PluginInfo = unseal(&row.get::<_, Vec<u8>>(0)?, what)?;
    Ok(PluginInfo { killed_hosts: row.get::<_, Int>(1)?.0, ..info })
}

/// Counts the inputs that a boundary gives up because of its plugin.
pub(super) fn flag(tx: &Tx<'_>, boundary: &Boundary) -> Fallible<()> {
    let flags = boundary.flags(tx.now_ms());
    if flags.is_empty() {
        return Ok(());
    }
    execute(
        tx.conn,
        "UPDATE plugin SET killed_hosts = killed_hosts + ?2 WHERE digest = ?1",
        params![boundary.receipt.plugin.0, Int(flags.len() as u64)],
    )?;
    append(tx, &flags)
}

pub(super) fn component(conn: &Connection, plugin: Digest) -> Fallible<Option<Bytes>> {
    first(conn, "SELECT bytes FROM component WHERE digest = ?1", params![plugin.0], |row| {
        let component: Vec<u8> = row.get(0)?;
        if Digest::of(&component) == plugin {
            Ok(Bytes::from(component))
        } else {
            Err(corrupt(format!("component {plugin}: its digest does not match")))
        }
    })
}

/// An agent that needs a plugin, and for what.
fn pinned(conn: &Connection, plugin: Digest) -> Fallible<Option<(AgentId, Pin)>> {
    let user = first(
        conn,
        "SELECT id FROM agent WHERE plugin = ?1 AND home < 3 AND lifecycle <> 6 LIMIT 1",
        params![plugin.0],
        |row| agent_id(&row.get::<_, String>(0)?),
    )?;
    if let Some(agent) = user {
        return Ok(Some((agent, Pin::Spec)));
    }
    // Those who ran it once; a deleted agent keeps nothing.
    let former = all(
        conn,
        "SELECT key, id FROM agent a WHERE home < 3 AND lifecycle <> 6
             AND EXISTS (SELECT 1 FROM spec s WHERE s.agent = a.key AND s.plugin = ?1)",
        params![plugin.0],
        |row| Ok((row.get::<_, i64>(0)?, agent_id(&row.get::<_, String>(1)?)?)),
    )?;
    for (key, agent) in former {
        let kept = all(
            conn,
            "SELECT r.generation, r.revision, r.digest, r.body, k.is_turn FROM (
                 SELECT generation, revision, 0 AS is_turn FROM snapshot WHERE agent = ?1
                 UNION ALL SELECT generation, revision, 0 FROM snapshot_beside WHERE agent = ?1
                 UNION ALL SELECT generation, revision, 1 FROM journal WHERE agent = ?1) k
             JOIN receipt r ON r.agent = ?1 AND r.generation = k.generation AND r.revision = k.revision
             ORDER BY k.is_turn, r.generation, r.revision",
            params![key],
            |row| Ok((boundary::receipt(row, &agent)?, row.get::<_, bool>(4)?)),
        )?;
        let pin = kept.into_iter().find(|(receipt, _)| receipt.plugin == plugin);
        if let Some((Receipt { revision, .. }, is_turn)) = pin {
            let pin = if is_turn { Pin::Turn { revision } } else { Pin::Snapshot { revision } };
            return Ok(Some((agent, pin)));
        }
    }
    Ok(None)
}

pub(super) fn remove(tx: &Tx<'_>, plugin: Digest) -> Fallible<bool> {
    if let Some((agent, pin)) = pinned(tx.conn, plugin)? {
        return Err(StoreError::Pinned { agent, pin }.into());
    }
    let Some(info) = info(tx.conn, plugin)? else {
        return Ok(false);
    };
    execute(tx.conn, "DELETE FROM plugin WHERE digest = ?1", params![plugin.0])?;
    append(tx, &[plugin_event(EventKind::PluginRemoved, &info, tx.now_ms())])?;
    Ok(true)
}

fn plugin_event(kind: EventKind, info: &PluginInfo, at_ms: u64) -> NewEvent {
    let event = NewEvent { agent: None, kind, at_ms, data: Vec::new() };
    event.with("plugin", info.digest).with("name", &info.name).with("version", &info.version)
}
