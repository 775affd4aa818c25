//! Plugins: manifest and component, each under the digest of the component's bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::AgentId;
use godwit_core::receipt::Receipt;
use godwit_core::spec::PluginInfo;
use godwit_core::store::{Boundary, Pin, StoreError};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::boundary;
use super::codec::{Int, agent_id, seal, unseal};
use super::error::{Fallible, conflict, corrupt};
use super::events::{append, append_of};
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
pub(super) fn flag(tx: &Tx<'_>, head: &mut Head, boundary: &Boundary) -> Fallible<()> {
    let flags = boundary.flags(tx.now_ms());
    if flags.is_empty() {
        return Ok(());
    }
    execute(
        tx.conn,
        "UPDATE plugin SET killed_hosts = killed_hosts + ?2 WHERE digest = ?1",
        params![boundary.receipt.plugin.0, Int(flags.len() as u64)],
    )?;
    append_of(tx, head, &flags)
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

/// Agents whose specs name a plugin, by key, each with the newest spec revision that does. Deleted ones need nothing, and
/// those that moved away keep nothing.
pub(super) const USERS: &str =
    "SELECT s.agent, a.id, max(s.revision), a.plugin = ?1 FROM spec s INDEXED BY spec_plugin
     JOIN agent a ON a.key = s.agent WHERE s.plugin = ?1 AND a.home < 3 AND a.lifecycle <> 6 GROUP BY s.agent";

/// Agents that were found to need a plugin no more, by key, each with the newest spec revision that names it: an agent needs
/// it again only under a newer one.
pub(super) type Former = BTreeMap<i64, u64>;

/// Looks at all agents whose specs name a plugin, but for those known to need it no more; answers all that don't.
///
/// # Errors
/// `Pinned`.
pub(super) fn former_users(conn: &Connection, plugin: Digest, known: &Former) -> Fallible<Former> {
    let users = all(conn, USERS, params![plugin.0], |row| {
        let agent = agent_id(&row.get::<_, String>(1)?)?;
        Ok((row.get::<_, i64>(0)?, agent, row.get::<_, Int>(2)?.0, row.get::<_, bool>(3)?))
    })?;
    if let Some((_, agent, ..)) = users.iter().find(|(_, _, _, is_current)| *is_current) {
        return Err(StoreError::Pinned { agent: agent.clone(), pin: Pin::Spec }.into());
    }
    let mut former = Former::new();
    for (key, agent, revision, _) in users {
        if known.get(&key) != Some(&revision)
            && let Some(pin) = kept_of(conn, (key, &agent), plugin)?
        {
            return Err(StoreError::Pinned { agent, pin }.into());
        }
        former.insert(key, revision);
    }
    Ok(former)
}

/// What an agent keeps of a plugin that it ran once.
fn kept_of(conn: &Connection, (key, agent): (i64, &AgentId), plugin: Digest) -> Fallible<Option<Pin>> {
    let kept = all(
        conn,
        "SELECT r.generation, r.revision, r.digest, r.body, k.is_turn FROM (
                 SELECT generation, revision, 0 AS is_turn FROM snapshot WHERE agent = ?1
                 UNION ALL SELECT generation, revision, 0 FROM snapshot_beside WHERE agent = ?1
                 UNION ALL SELECT generation, revision, 1 FROM journal WHERE agent = ?1) k
             JOIN receipt r ON r.agent = ?1 AND r.generation = k.generation AND r.revision = k.revision
             ORDER BY k.is_turn, r.generation, r.revision",
        params![key],
        |row| Ok((boundary::receipt(row, agent)?, row.get::<_, bool>(4)?)),
    )?;
    let pin = kept.into_iter().find(|(receipt, _)| receipt.plugin == plugin);
    Ok(pin.map(|(Receipt { revision, .. }, is_turn)| match is_turn {
        true => Pin::Turn { revision },
        false => Pin::Snapshot { revision },
    }))
}

/// Removes a plugin, if a reader has looked at all its users; `None` when there are others by now.
pub(super) fn remove(tx: &Tx<'_>, plugin: Digest, former: &Former) -> Fallible<Option<bool>> {
    let users = all(tx.conn, USERS, params![plugin.0], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Int>(2)?.0, row.get::<_, bool>(3)?))
    })?;
    let is_looked_at =
        |(key, revision, is_current): &(i64, u64, bool)| !is_current && former.get(key) == Some(revision);
    if !users.iter().all(is_looked_at) {
        return Ok(None);
    }
    let Some(info) = info(tx.conn, plugin)? else {
        return Ok(Some(false));
    };
    execute(tx.conn, "DELETE FROM plugin WHERE digest = ?1", params![plugin.0])?;
    append(tx, &[plugin_event(EventKind::PluginRemoved, &info, tx.now_ms())])?;
    Ok(Some(true))
}

fn plugin_event(kind: EventKind, info: &PluginInfo, at_ms: u64) -> NewEvent {
    let event = NewEvent { agent: None, kind, at_ms, data: Vec::new() };
    event.with("plugin", info.digest).with("name", &info.name).with("version", &info.version)
}
