//! Agents: the row that every write of an agent begins with, and the image that an owner loads.

use std::collections::BTreeMap;

use godwit_core::digest::Digest;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::group::{self, GroupName};
use godwit_core::id::{
    AgentId, ClaimId, FencingToken, Generation, HostId, Incarnation, MigrationId, Revision, Seq, SpecRevision,
};
use godwit_core::identity::EntityPublicKey;
use godwit_core::lease::fence::{Fence, Refusal};
use godwit_core::lease::{GrantCause, Holder};
use godwit_core::limits::CLAIM_MAX;
use godwit_core::migration::handoff::Seat;
use godwit_core::spec::{Addressability, Spec};
use godwit_core::standby;
use godwit_core::store::{AgentImage, AgentRow, Home, Lifecycle, NewAgent, Owner, StoreError};
use rusqlite::{Connection, Row, params};

use super::codec::{Int, agent_id, migration_id, seal, unseal};
use super::error::{Fallible, conflict, corrupt};
use super::events::append;
use super::inputs::admit_initial;
use super::leases::at_home;
use super::snapshots::Which;
use super::sql::{all, execute, first};
use super::writer::Tx;
use super::{boundary, entity_keys, journal, plugins, snapshots};

/// What a write needs to know of an agent, and what it changes. Loaded at its beginning and stored at its end, or kept for
/// the next one by `Tx::with_head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) key: i64,
    pub(super) agent: AgentId,
    pub(super) home: Home,
    pub(super) generation: Generation,
    pub(super) revision: Revision,
    pub(super) token: FencingToken,
    /// Who holds the lease, when its session is not dead.
    pub(super) holder: Option<Holder>,
    pub(super) cause: GrantCause,
    pub(super) digest: Digest,
    pub(super) next_seq: Seq,
    pub(super) open_inputs: u64,
    pub(super) waking_inputs: u64,
    pub(super) open_bytes: u64,
    /// Rows of the guest's state, and bytes of their keys and values.
    pub(super) state_size: (u64, u64),
    pub(super) pending_outputs: u64,
    pub(super) next_output: u64,
    pub(super) time_ms: u64,
    pub(super) change: u64,
    /// The change number that the stored row has given last.
    stored_change: u64,
    /// Whether a migration away from here is open.
    pub(super) is_tracked: bool,
    /// Whether it has a standby.
    pub(super) is_guarded: bool,
    pub(super) lifecycle: Lifecycle,
    pub(super) failed_starts: u32,
    /// Whether the current spec takes no inputs from outside.
    pub(super) is_internal: bool,
}

const HEAD: &str = "
    SELECT a.key, a.home, a.generation, a.revision, a.token, a.holder, a.head, a.next_seq, a.open_inputs,
           a.pending_outputs, a.next_output, a.time_ms, a.change, a.tracked, a.cause_migration, a.cause_revision,
           s.host, a.home_sealed, a.waking_inputs, a.lifecycle, a.lifecycle_sealed, a.open_bytes, a.state_keys,
           a.state_bytes, a.failed_starts, a.internal, a.standby IS NOT NULL
    FROM agent a LEFT JOIN session s ON s.incarnation = a.holder AND s.dead = 0
    WHERE a.id = ?1 AND a.home < 4";

const SAVE: &str = "
    UPDATE agent SET revision = ?2, head = ?3, next_seq = ?4, open_inputs = ?5, pending_outputs = ?6,
        next_output = ?7, time_ms = ?8, change = ?9, row_change = ?9, waking_inputs = ?10, open_bytes = ?11,
        state_keys = ?12, state_bytes = ?13, failed_starts = ?14
    WHERE key = ?1";

/// What an open input counts for in its agent's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) wakes: bool,
    /// Payload and headers.
    pub(super) bytes: u64,
}

impl Head {
    /// Loads the row that an id names.
    pub(super) fn load(conn: &Connection, agent: &AgentId) -> Fallible<Option<Self>> {
        first(conn, HEAD, params![agent.as_str()], |row| Self::read(row, agent))
    }

    fn read(row: &Row<'_>, agent: &AgentId) -> Fallible<Self> {
        Ok(Self {
            key: row.get(0)?,
            agent: agent.clone(),
            home: home(row, 1, 17, agent)?,
            generation: Generation(row.get::<_, Int>(2)?.0),
            revision: Revision(row.get::<_, Int>(3)?.0),
            token: FencingToken(row.get::<_, Int>(4)?.0),
            holder: holder(row, 5, 16)?,
            digest: Digest(row.get(6)?),
            next_seq: Seq(row.get::<_, Int>(7)?.0),
            open_inputs: row.get::<_, Int>(8)?.0,
            waking_inputs: row.get::<_, Int>(18)?.0,
            open_bytes: row.get::<_, Int>(21)?.0,
            state_size: (row.get::<_, Int>(22)?.0, row.get::<_, Int>(23)?.0),
            pending_outputs: row.get::<_, Int>(9)?.0,
            next_output: row.get::<_, Int>(10)?.0,
            time_ms: row.get::<_, Int>(11)?.0,
            change: row.get::<_, Int>(12)?.0,
            stored_change: row.get::<_, Int>(12)?.0,
            is_tracked: row.get(13)?,
            cause: cause(row, 14, 15)?,
            lifecycle: lifecycle(row, 19, 20)?,
            failed_starts: row.get(24)?,
            is_internal: row.get(25)?,
            is_guarded: row.get(26)?,
        })
    }

    /// Whether deletes leave tombstones: another host may have the row.
    pub(super) fn keeps_deletes(&self) -> bool {
        self.is_tracked || self.is_guarded
    }

    /// Counts an input that is open from now on.
    pub(super) fn opened(&mut self, share: Share) {
        self.open_inputs += 1;
        self.waking_inputs += u64::from(share.wakes);
        self.open_bytes += share.bytes;
    }

    /// Counts an input that has ended.
    pub(super) fn closed(&mut self, share: Share) {
        self.open_inputs = self.open_inputs.saturating_sub(1);
        self.waking_inputs = self.waking_inputs.saturating_sub(u64::from(share.wakes));
        self.open_bytes = self.open_bytes.saturating_sub(share.bytes);
    }

    /// Counts a state row that is written, deleted, or both: bytes of its key and of the values.
    pub(super) fn state_written(&mut self, key: usize, before: Option<u64>, after: Option<u64>) {
        let (keys, bytes) = &mut self.state_size;
        if let Some(before) = before {
            *keys = keys.saturating_sub(1);
            *bytes = bytes.saturating_sub(key as u64 + before);
        }
        if let Some(after) = after {
            *keys += 1;
            *bytes += key as u64 + after;
        }
    }

    /// The next change number, for a row that is about to be written.
    pub(super) fn change(&mut self) -> Int {
        self.change += 1;
        Int(self.change)
    }

    /// Whether it differs from the stored row.
    pub(super) fn is_changed(&self) -> bool {
        self.change != self.stored_change
    }

    /// Stores what the write changed. The agent's row gets the last change number.
    pub(super) fn save(&mut self, tx: &Tx<'_>) -> Result<(), rusqlite::Error> {
        let change = self.change();
        self.stored_change = self.change;
        tx.conn.prepare_cached(SAVE)?.execute(params![
            self.key,
            Int(self.revision.0),
            self.digest.0,
            Int(self.next_seq.0),
            Int(self.open_inputs),
            Int(self.pending_outputs),
            Int(self.next_output),
            Int(self.time_ms),
            change,
            Int(self.waking_inputs),
            Int(self.open_bytes),
            Int(self.state_size.0),
            Int(self.state_size.1),
            self.failed_starts,
        ])?;
        Ok(())
    }

    /// Takes over the change number that somebody has written into the stored row since. What differed from the row still
    /// does.
    pub(super) fn row_written(&mut self, change: u64) {
        if !self.is_changed() {
            self.stored_change = change;
        }
        self.change = change;
    }

    /// What the fence decides by.
    pub(super) fn fence(&self) -> Fence {
        Fence {
            token: self.token,
            generation: self.generation,
            revision: self.revision,
            holder: self.holder.map(|holder| holder.incarnation),
        }
    }

    /// What the steps of a handoff decide by.
    pub(super) fn seat(&self) -> Seat {
        let Self { token, generation, revision, holder, .. } = *self;
        Seat { home: self.home.clone(), token, generation, revision, holder, cause: self.cause.clone() }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::Fenced => self.fenced(),
            Refusal::Stale => self.stale(),
        }
    }

    /// Whether somebody is its owner now.
    pub(super) fn check_owner(&self, owner: &Owner) -> Fallible<()> {
        self.fence().check(&owner.claim()).map_err(|refusal| self.refused(refusal).into())
    }

    pub(super) fn fenced(&self) -> StoreError {
        StoreError::Fenced { current: self.token, holder: self.holder }
    }

    pub(super) fn stale(&self) -> StoreError {
        StoreError::Stale { generation: self.generation, revision: self.revision }
    }
}

fn holder(row: &Row<'_>, incarnation: usize, host: usize) -> Fallible<Option<Holder>> {
    let host: Option<[u8; 32]> = row.get(host)?;
    let incarnation: Option<Int> = row.get(incarnation)?;
    Ok(host
        .zip(incarnation)
        .map(|(host, incarnation)| Holder { host: HostId(host), incarnation: Incarnation(incarnation.0) }))
}

fn cause(row: &Row<'_>, migration: usize, revision: usize) -> Fallible<GrantCause> {
    let migration = migration_id(row.get(migration)?);
    let revision: Option<Int> = row.get(revision)?;
    Ok(match migration.zip(revision) {
        Some((migration, revision)) => GrantCause::Transferred { migration, revision: Revision(revision.0) },
        None => GrantCause::Acquired,
    })
}

/// Reads the home of a bound row: the code and the details must agree.
fn home(row: &Row<'_>, code: usize, details: usize, agent: &AgentId) -> Fallible<Home> {
    let code: i64 = row.get(code)?;
    let home = match row.get::<_, Option<Vec<u8>>>(details)? {
        None => Home::Here,
        Some(sealed) => unseal(&sealed, || format!("home of agent {agent}"))?,
    };
    if home_code(&home) == code {
        Ok(home)
    } else {
        Err(corrupt(format!("home of agent {agent}: {code} is not {home:?}")))
    }
}

fn home_code(home: &Home) -> i64 {
    match home {
        Home::Here => 0,
        Home::HandingOff { .. } => 1,
        Home::Prepared { .. } => 2,
        Home::Moved(_) => 3,
    }
}

fn home_migration(home: &Home) -> Option<MigrationId> {
    match home {
        Home::Here => None,
        Home::HandingOff { migration, .. } | Home::Prepared { migration, .. } => Some(*migration),
        Home::Moved(tombstone) => Some(tombstone.migration),
    }
}

/// Sets where an agent is, and who may act for it: what does not travel.
pub(super) fn set_standing(
    tx: &Tx<'_>,
    key: i64,
    home: &Home,
    token: FencingToken,
    holder: Option<Incarnation>,
    cause: &GrantCause,
) -> Fallible<()> {
    let (migration, revision) = match cause {
        GrantCause::Acquired => (None, None),
        GrantCause::Transferred { migration, revision } => (Some(migration.0), Some(Int(revision.0))),
    };
    execute(
        tx.conn,
        "UPDATE agent SET home = ?2, home_sealed = ?3, migration = ?4, token = ?5, holder = ?6, cause_migration = ?7,
             cause_revision = ?8
         WHERE key = ?1",
        params![
            key,
            home_code(home),
            (*home != Home::Here).then(|| seal(home)),
            home_migration(home).map(|migration| migration.0),
            Int(token.0),
            holder.map(|holder| Int(holder.0)),
            migration,
            revision,
        ],
    )
    .map(drop)
}

/// Lifecycle as its columns.
fn lifecycle_columns(lifecycle: &Lifecycle) -> (i64, Option<Vec<u8>>) {
    match lifecycle {
        Lifecycle::Active => (0, None),
        Lifecycle::Broken(_) => (1, Some(seal(lifecycle))),
        Lifecycle::Paused => (2, None),
        Lifecycle::Retiring => (3, None),
        Lifecycle::Retired => (4, None),
        Lifecycle::Suspended(_) => (5, Some(seal(lifecycle))),
        Lifecycle::Deleted => (6, None),
    }
}

fn lifecycle(row: &Row<'_>, code: usize, details: usize) -> Fallible<Lifecycle> {
    let code: i64 = row.get(code)?;
    let lifecycle = match (code, row.get::<_, Option<Vec<u8>>>(details)?) {
        (0, None) => Lifecycle::Active,
        (2, None) => Lifecycle::Paused,
        (3, None) => Lifecycle::Retiring,
        (4, None) => Lifecycle::Retired,
        (6, None) => Lifecycle::Deleted,
        (1 | 5, Some(sealed)) => unseal(&sealed, || "lifecycle of an agent".to_owned())?,
        _ => return Err(corrupt(format!("lifecycle {code} of an agent"))),
    };
    if lifecycle_columns(&lifecycle).0 == code {
        Ok(lifecycle)
    } else {
        Err(corrupt(format!("lifecycle of an agent: {code} is not {lifecycle:?}")))
    }
}

pub(super) fn write_lifecycle(tx: &Tx<'_>, key: i64, lifecycle: &Lifecycle) -> Fallible<()> {
    let (code, details) = lifecycle_columns(lifecycle);
    execute(
        tx.conn,
        "UPDATE agent SET lifecycle = ?2, lifecycle_sealed = ?3 WHERE key = ?1",
        params![key, code, details],
    )
    .map(drop)
}

/// An agent row about to be inserted: a new agent, a copy, or a tombstone.
pub(super) struct NewRow<'a> {
    pub(super) agent: &'a AgentId,
    /// `None` makes a copy that no id names.
    pub(super) home: Option<&'a Home>,
    /// Of a copy; otherwise the home names it.
    pub(super) migration: Option<MigrationId>,
    pub(super) generation: Generation,
    pub(super) token: FencingToken,
    pub(super) spec_revision: SpecRevision,
    pub(super) plugin: Digest,
    pub(super) is_internal: bool,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) created_at_ms: u64,
    /// Change numbers given so far, the last to this row.
    pub(super) change: u64,
}

impl NewRow<'_> {
    /// Inserts it and answers its key.
    pub(super) fn insert(&self, tx: &Tx<'_>) -> Fallible<i64> {
        execute(
            tx.conn,
            "INSERT INTO agent (id, home, home_sealed, migration, lifecycle, generation, revision, token, head, next_seq,
                 open_inputs, waking_inputs, pending_outputs, next_output, time_ms, change, row_change, spec_revision, plugin,
                 internal, labels_sealed, created_at_ms, group_name, standby)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, 0, ?6, ?7, 1, 0, 0, 0, 1, 0, ?8, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            params![
                self.agent.as_str(),
                self.home.map_or(4, home_code),
                self.home.filter(|home| **home != Home::Here).map(seal),
                self.home.and_then(home_migration).or(self.migration).map(|migration| migration.0),
                Int(self.generation.0),
                Int(self.token.0),
                Digest::ZERO.0,
                Int(self.change),
                Int(self.spec_revision.0),
                self.plugin.0,
                self.is_internal,
                seal(self.labels),
                Int(self.created_at_ms),
                group(self.labels),
                standby(self.labels),
            ],
        )?;
        Ok(tx.conn.last_insert_rowid())
    }
}

/// What of its labels makes an agent a member of a group.
pub(super) fn group(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(group::LABEL).map(String::as_str)
}

/// What of its labels gives an agent a standby.
pub(super) fn standby(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(standby::LABEL).map(String::as_str)
}

/// Writes labels. Of an agent that is guarded no more, deletes are not kept any longer, unless it moves.
pub(super) fn write_labels(tx: &Tx<'_>, head: &mut Head, labels: &BTreeMap<String, String>) -> Fallible<()> {
    execute(
        tx.conn,
        "UPDATE agent SET labels_sealed = ?2, group_name = ?3, standby = ?4 WHERE key = ?1",
        params![head.key, seal(labels), group(labels), standby(labels)],
    )?;
    head.is_guarded = labels.contains_key(standby::LABEL);
    if !head.keeps_deletes() {
        execute(tx.conn, "DELETE FROM tombstone WHERE agent = ?1", params![head.key])?;
    }
    Ok(())
}

pub(super) fn claim(tx: &Tx<'_>, agent: &AgentId, host: HostId, claim: ClaimId) -> Fallible<()> {
    let now_ms = tx.now_ms();
    execute(tx.conn, "DELETE FROM claim WHERE until_ms <= ?1", params![Int(now_ms)])?;
    execute(
        tx.conn,
        "INSERT INTO claim (agent, host, id, until_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, host) DO UPDATE SET id = excluded.id, until_ms = excluded.until_ms",
        params![agent.as_str(), host.0, claim.0, Int(now_ms + CLAIM_MAX.as_millis() as u64)],
    )
    .map(drop)
}

pub(super) fn yield_claims(tx: &Tx<'_>, agent: &AgentId, to: HostId) -> Fallible<Option<HostId>> {
    let lowest = first(
        tx.conn,
        "SELECT host FROM claim WHERE agent = ?1 AND until_ms > ?2 ORDER BY host LIMIT 1",
        params![agent.as_str(), Int(tx.now_ms())],
        |row| Ok(HostId(row.get(0)?)),
    )?;
    let lowest = lowest.filter(|host| *host < to);
    if lowest.is_none() {
        let sql = "DELETE FROM claim WHERE agent = ?1 AND host <> ?2";
        execute(tx.conn, sql, params![agent.as_str(), to.0])?;
    }
    Ok(lowest)
}

/// Uses a claim up, if one is asked for.
pub(super) fn take_claim(tx: &Tx<'_>, agent: &AgentId, claim: Option<ClaimId>) -> Fallible<()> {
    let Some(claim) = claim else { return Ok(()) };
    let sql = "DELETE FROM claim WHERE agent = ?1 AND id = ?2 AND until_ms > ?3";
    match execute(tx.conn, sql, params![agent.as_str(), claim.0, Int(tx.now_ms())])? {
        0 => Err(StoreError::Unclaimed.into()),
        _ => Ok(()),
    }
}

pub(super) fn create(tx: &Tx<'_>, new: &NewAgent) -> Fallible<bool> {
    if Head::load(tx.conn, &new.agent)?.is_some() {
        let head = at_home(tx.conn, &new.agent)?;
        if head.lifecycle == Lifecycle::Deleted {
            return Err(StoreError::Lifecycle { state: head.lifecycle }.into());
        }
        let known = row(tx.conn, &new.agent)?.zip(spec(tx.conn, &new.agent)?);
        return match known {
            Some((row, spec)) if spec == new.spec && row.labels == new.labels => Ok(false),
            _ => Err(conflict(format!("agent {} exists with another spec or other labels", new.agent))),
        };
    }
    let plugin = new.spec.plugin;
    if !plugins::is_stored(tx.conn, plugin)? {
        return Err(StoreError::NoPlugin { plugin }.into());
    }
    take_claim(tx, &new.agent, new.claim)?;
    let revision = SpecRevision(1);
    let row = NewRow {
        agent: &new.agent,
        home: Some(&Home::Here),
        migration: None,
        generation: Generation(1),
        token: FencingToken(0),
        spec_revision: revision,
        plugin,
        is_internal: is_internal(&new.spec),
        labels: &new.labels,
        created_at_ms: new.now_ms,
        change: 3,
    };
    let key = row.insert(tx)?;
    write_spec(tx, key, Int(1), revision, &new.spec)?;
    entity_keys::renew(tx, key, &new.agent, || Int(2))?;
    let mut head = at_home(tx.conn, &new.agent)?;
    admit_initial(tx, &mut head, &new.spec)?;
    if head.is_changed() {
        head.save(tx)?;
    }
    let event = NewEvent::of_agent(&new.agent, EventKind::AgentCreated, new.now_ms).with("plugin", plugin);
    append(tx, &[event])?;
    Ok(true)
}

/// Makes a written spec revision the current one.
pub(super) fn use_spec(tx: &Tx<'_>, head: &mut Head, revision: SpecRevision, spec: &Spec) -> Fallible<()> {
    head.is_internal = is_internal(spec);
    execute(
        tx.conn,
        "UPDATE agent SET spec_revision = ?2, plugin = ?3, internal = ?4 WHERE key = ?1",
        params![head.key, Int(revision.0), spec.plugin.0, head.is_internal],
    )
    .map(drop)
}

fn is_internal(spec: &Spec) -> bool {
    spec.addressability == Addressability::Internal
}

/// Writes a spec revision; of two under one number the one with the higher change number stays.
pub(super) fn write_spec(
    tx: &Tx<'_>,
    key: i64,
    change: Int,
    revision: SpecRevision,
    spec: &Spec,
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO spec (agent, revision, change, plugin, internal, sealed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (agent, revision) DO UPDATE SET change = excluded.change, plugin = excluded.plugin,
             internal = excluded.internal, sealed = excluded.sealed
         WHERE excluded.change > spec.change",
        params![key, Int(revision.0), change, spec.plugin.0, is_internal(spec), seal(spec)],
    )
    .map(drop)
}

/// Rows of bound agents between two ids, both included.
const ROWS: &str = "
    SELECT a.id, a.home, a.generation, a.revision, a.token, a.holder, a.head, a.next_seq, a.open_inputs, a.time_ms,
           a.change, a.lifecycle, a.spec_revision, a.plugin, a.created_at_ms, s.host, a.home_sealed,
           a.lifecycle_sealed, a.labels_sealed, a.waking_inputs, a.inputs_pruned, a.open_bytes, a.state_keys,
           a.state_bytes, a.failed_starts, e.public, a.next_event, a.cause_migration, a.cause_revision,
           a.pending_outputs
    FROM agent a LEFT JOIN session s ON s.incarnation = a.holder AND s.dead = 0
    LEFT JOIN entity_key e ON e.agent = a.key
    WHERE a.home < 4 AND a.id BETWEEN ?1 AND ?2 ORDER BY a.id LIMIT ?3";

fn agent_row(row: &Row<'_>) -> Fallible<AgentRow> {
    let agent = agent_id(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
    let labels: Vec<u8> = row.get(18)?;
    Ok(AgentRow {
        home: home(row, 1, 16, &agent)?,
        generation: Generation(row.get::<_, Int>(2)?.0),
        revision: Revision(row.get::<_, Int>(3)?.0),
        token: FencingToken(row.get::<_, Int>(4)?.0),
        holder: holder(row, 5, 15)?,
        cause: cause(row, 27, 28)?,
        head: Digest(row.get(6)?),
        next_seq: Seq(row.get::<_, Int>(7)?.0),
        open_inputs: row.get::<_, Int>(8)?.0,
        waking_inputs: row.get::<_, Int>(19)?.0,
        time_ms: row.get::<_, Int>(9)?.0,
        change: row.get::<_, Int>(10)?.0,
        lifecycle: lifecycle(row, 11, 17)?,
        spec_revision: SpecRevision(row.get::<_, Int>(12)?.0),
        plugin: Digest(row.get(13)?),
        created_at_ms: row.get::<_, Int>(14)?.0,
        open_bytes: row.get::<_, Int>(21)?.0,
        pending_outputs: row.get::<_, Int>(29)?.0,
        state_keys: row.get::<_, Int>(22)?.0,
        state_bytes: row.get::<_, Int>(23)?.0,
        inputs_pruned: row.get::<_, Int>(20)?.0,
        failed_starts: row.get(24)?,
        public_key: row.get::<_, Option<[u8; 32]>>(25)?.map(EntityPublicKey),
        next_event: row.get::<_, Int>(26)?.0,
        labels: unseal(&labels, || format!("labels of agent {agent}"))?,
        agent,
    })
}

pub(super) fn row(conn: &Connection, agent: &AgentId) -> Fallible<Option<AgentRow>> {
    first(conn, ROWS, params![agent.as_str(), agent.as_str(), 1], agent_row)
}

pub(super) fn rows(conn: &Connection, after: Option<&AgentId>, limit: usize) -> Fallible<Vec<AgentRow>> {
    // Below every character of an id: the first text behind `after`. And a text behind every id.
    let from = after.map_or_else(String::new, |after| format!("{after}\u{1}"));
    all(conn, ROWS, params![from, "~", limit as i64], agent_row)
}

/// Members of a group behind an id, but for those that have moved away.
pub(super) fn members(
    conn: &Connection,
    group: &GroupName,
    after: Option<&AgentId>,
    limit: usize,
) -> Fallible<Vec<AgentRow>> {
    let after = after.map_or("", AgentId::as_str);
    let agents = all(
        conn,
        "SELECT id FROM agent WHERE group_name = ?1 AND home < 3 AND lifecycle <> 6 AND id > ?2
         ORDER BY id LIMIT ?3",
        params![group.as_str(), after, limit as i64],
        |found| agent_id(found.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?),
    )?;
    agents.iter().filter_map(|agent| row(conn, agent).transpose()).collect()
}

pub(super) fn spec(conn: &Connection, agent: &AgentId) -> Fallible<Option<Spec>> {
    first(
        conn,
        "SELECT s.sealed FROM agent a JOIN spec s ON s.agent = a.key AND s.revision = a.spec_revision
         WHERE a.id = ?1 AND a.home < 4",
        params![agent.as_str()],
        |row| unseal(&row.get::<_, Vec<u8>>(0)?, || format!("spec of agent {agent}")),
    )
}

/// What is asked for is word for word what the index `agent_runnable` holds. In its numbers: those that retire; those that
/// run and have open inputs that wake; those that publish and have pending outputs.
pub(super) const RUNNABLE: &str = "
    SELECT a.key, a.id FROM agent a LEFT JOIN session s ON s.incarnation = a.holder AND s.dead = 0
    WHERE a.key > ?2 AND a.home = 0 AND (a.lifecycle = 3 OR (a.waking_inputs > 0 AND a.lifecycle = 0)
        OR (a.pending_outputs > 0 AND a.lifecycle IN (0, 2, 4, 6)))
        AND (s.incarnation IS NULL OR s.incarnation = ?1)
    ORDER BY a.key LIMIT ?3";

/// Agents with work for an incarnation, by key behind `after`: (key, id).
pub(super) fn runnable(
    conn: &Connection,
    incarnation: Incarnation,
    after: i64,
    limit: usize,
) -> Fallible<Vec<(i64, AgentId)>> {
    all(conn, RUNNABLE, params![Int(incarnation.0), after, limit as i64], |row| {
        Ok((row.get(0)?, agent_id(&row.get::<_, String>(1)?)?))
    })
}

pub(super) fn image(conn: &Connection, agent: &AgentId, which: Which<'_>) -> Fallible<Option<AgentImage>> {
    let Some(row) = row(conn, agent)?.filter(|row| !matches!(row.home, Home::Moved(_))) else {
        return Ok(None);
    };
    let Some(head) = Head::load(conn, agent)? else {
        return Ok(None);
    };
    let Some(spec) = spec(conn, agent)? else {
        return Err(corrupt(format!("spec {} of agent {agent}: it is missing", row.spec_revision)));
    };
    let snapshot = snapshots::of_generation(conn, (head.key, agent), row.generation, which)?;
    if matches!(which, Which::Kept(Some(_))) && snapshot.is_none() {
        return Ok(None);
    }
    let from = snapshot.as_ref().map_or(1, |snapshot| snapshot.revision.0.max(1));
    let behind = snapshot.as_ref().map_or(Revision(0), |snapshot| snapshot.revision);
    let receipts = boundary::receipts(conn, head.key, agent, row.generation, Revision(from - 1), usize::MAX)?;
    let turns = journal::turns_after(conn, (head.key, agent), row.generation, behind, &receipts)?;
    Ok(Some(AgentImage {
        journal: turns.whole,
        damaged: turns.damaged,
        plugin: plugins::info(conn, spec.plugin)?,
        spec,
        snapshot,
        receipts,
        row,
    }))
}
