//! Plugins: manifest and component, each under the digest of the component's bytes.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::spec::PluginInfo;
use rusqlite::{Connection, params};

use super::codec::{seal, unseal};
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
    all(conn, "SELECT sealed, name FROM plugin ORDER BY name, version", [], |row| {
        let sealed: Vec<u8> = row.get(0)?;
        let name: String = row.get(1)?;
        unseal(&sealed, || format!("plugin {name}"))
    })
}

pub(super) fn info(conn: &Connection, plugin: Digest) -> Fallible<Option<PluginInfo>> {
    first(conn, "SELECT sealed FROM plugin WHERE digest = ?1", params![plugin.0], |row| {
        let sealed: Vec<u8> = row.get(0)?;
        unseal(&sealed, || format!("plugin {plugin}"))
    })
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

pub(super) fn remove(tx: &Tx<'_>, plugin: Digest) -> Fallible<bool> {
    let user = first(
        tx.conn,
        "SELECT id FROM agent WHERE plugin = ?1 AND home < 3 LIMIT 1",
        params![plugin.0],
        |row| Ok(row.get::<_, String>(0)?),
    )?;
    if let Some(agent) = user {
        return Err(conflict(format!("agent {agent} runs the plugin")));
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
