//! The roster, and edges: each agent's side of them, as rows that move with it.

use bytes::Bytes;
use godwit_core::edge::Edge;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, StoreId};
use godwit_core::limits::{EDGES_MAX, ROSTER_BYTES_MAX};
use godwit_core::store::{Lifecycle, RowKey, StoreError};
use rusqlite::{Connection, params};

use super::agents::Head;
use super::codec::{Int, agent_id, seal_bytes, unseal_bytes};
use super::error::{Fallible, conflict};
use super::events::append;
use super::leases::at_home;
use super::sql::{all, execute, first};
use super::state::bury;
use super::writer::Tx;

pub(super) fn put_roster(tx: &Tx<'_>, roster: &Bytes) -> Fallible<u64> {
    if roster.len() > ROSTER_BYTES_MAX {
        return Err(StoreError::Full.into());
    }
    let revision = match self::roster(tx.conn)? {
        Some((revision, known)) if known == *roster => return Ok(revision),
        known => known.map_or(1, |(revision, _)| revision + 1),
    };
    execute(
        tx.conn,
        "INSERT INTO roster (one, revision, sealed) VALUES (1, ?1, ?2)
         ON CONFLICT (one) DO UPDATE SET revision = excluded.revision, sealed = excluded.sealed",
        params![Int(revision), seal_bytes(roster)],
    )?;
    let event =
        NewEvent { agent: None, kind: EventKind::RosterChanged, at_ms: tx.now_ms(), data: Vec::new() };
    append(tx, &[event.with("revision", revision)])?;
    Ok(revision)
}

pub(super) fn roster(conn: &Connection) -> Fallible<Option<(u64, Bytes)>> {
    first(conn, "SELECT revision, sealed FROM roster WHERE one = 1", params![], |row| {
        let sealed: Vec<u8> = row.get(1)?;
        let roster = unseal_bytes(&sealed, || "the roster".to_owned())?;
        Ok((row.get::<_, Int>(0)?.0, Bytes::copy_from_slice(roster)))
    })
}

pub(super) fn put(tx: &Tx<'_>, agent: &AgentId, edge: &Edge) -> Fallible<bool> {
    let mut head = at_home(tx.conn, agent)?;
    if head.lifecycle == Lifecycle::Deleted {
        return Err(StoreError::Lifecycle { state: head.lifecycle }.into());
    }
    match self::edge(tx.conn, head.key, &edge.peer)? {
        Some(known) if edge.managed_by.is_some() || known.managed_by.is_none() => return Ok(false),
        Some(_) => {}
        None if count(tx.conn, &head)? >= EDGES_MAX => {
            return Err(conflict(format!("agent {agent} has {EDGES_MAX} edges, as many as it may")));
        }
        None => {}
    }
    let change = head.change();
    write(tx, head.key, change, edge)?;
    head.save(tx)?;
    let event = NewEvent::of_agent(agent, EventKind::EdgeWired, tx.now_ms())
        .with("peer", &edge.peer)
        .with("managed", edge.managed_by.is_some());
    append(tx, &[event])?;
    Ok(true)
}

pub(super) fn remove(tx: &Tx<'_>, agent: &AgentId, peer: &AgentId) -> Fallible<bool> {
    let mut head = at_home(tx.conn, agent)?;
    let sql = "DELETE FROM edge WHERE agent = ?1 AND peer = ?2";
    if execute(tx.conn, sql, params![head.key, peer.as_str()])? == 0 {
        return Ok(false);
    }
    if head.keeps_deletes() {
        let change = head.change();
        bury(tx, head.key, change, &RowKey::Edge(peer.clone()))?;
        head.save(tx)?;
    }
    append(tx, &[NewEvent::of_agent(agent, EventKind::EdgeUnwired, tx.now_ms()).with("peer", peer)])?;
    Ok(true)
}

/// Writes a side, unless one with a higher change number is here.
pub(super) fn write(tx: &Tx<'_>, agent: i64, change: Int, edge: &Edge) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO edge (agent, peer, change, managed_by) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, peer) DO UPDATE SET change = excluded.change, managed_by = excluded.managed_by
         WHERE excluded.change > edge.change",
        params![agent, edge.peer.as_str(), change, edge.managed_by.map(|store| store.0)],
    )
    .map(drop)
}

/// Takes a delete from another store.
pub(super) fn receive_delete(tx: &Tx<'_>, agent: i64, change: Int, peer: &AgentId) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM edge WHERE agent = ?1 AND peer = ?2 AND change < ?3",
        params![agent, peer.as_str(), change],
    )
    .map(drop)
}

// --- reading

pub(super) fn edge(conn: &Connection, agent: i64, peer: &AgentId) -> Fallible<Option<Edge>> {
    first(
        conn,
        "SELECT managed_by FROM edge WHERE agent = ?1 AND peer = ?2",
        params![agent, peer.as_str()],
        |row| Ok(Edge { peer: peer.clone(), managed_by: row.get::<_, Option<_>>(0)?.map(StoreId) }),
    )
}

fn count(conn: &Connection, head: &Head) -> Fallible<usize> {
    let sql = "SELECT count(*) FROM edge WHERE agent = ?1";
    let count = first(conn, sql, params![head.key], |row| Ok(row.get::<_, i64>(0)?))?;
    Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
}

pub(super) fn list(
    conn: &Connection,
    of: Option<&AgentId>,
    after: Option<&(AgentId, AgentId)>,
    limit: usize,
) -> Fallible<Vec<(AgentId, Edge)>> {
    let (agent, peer) = after.map_or(("", ""), |(agent, peer)| (agent.as_str(), peer.as_str()));
    all(
        conn,
        "SELECT a.id, e.peer, e.managed_by FROM agent a JOIN edge e ON e.agent = a.key
         WHERE a.home = 0 AND a.id >= ?1 AND (a.id, e.peer) > (?1, ?2) AND (?4 IS NULL OR a.id = ?4)
         ORDER BY a.id, e.peer LIMIT ?3",
        params![agent, peer, limit as i64, of.map(AgentId::as_str)],
        |row| {
            let managed_by = row.get::<_, Option<_>>(2)?.map(StoreId);
            let edge = Edge { peer: agent_id(&row.get::<_, String>(1)?)?, managed_by };
            Ok((agent_id(&row.get::<_, String>(0)?)?, edge))
        },
    )
}
