//! The handoff between stores: giving a home away, receiving a copy, binding it, and backing out.

use std::collections::BTreeMap;

use godwit_core::digest::Digest;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{
    AgentId, FencingToken, Generation, HostId, Incarnation, MigrationId, Revision, SpecRevision,
};
use godwit_core::lease::{Holder, Lease};
use godwit_core::migration::handoff::{Discard, Seat};
use godwit_core::store::agent::Tombstone;
use godwit_core::store::rows::AgentPortable;
use godwit_core::store::{Adoption, Handoff, Home, Owner, PrepareRequest, Row, RowFrame, RowKey, StoreError};
use rusqlite::{Connection, params};

use super::agents::{Head, NewRow, group, set_standing, standby, write_lifecycle, write_spec};
use super::codec::{Int, PackedSnapshot, agent_id, seal, seal_bytes};
use super::error::{Fallible, conflict, corrupt};
use super::events::{append, append_of};
use super::leases::take_seat;
use super::migrations::{close, settle_tracking};
use super::sessions::living_host;
use super::sql::{execute, exists, first};
use super::writer::Tx;
use super::{
    boundary, channels, edges, entity_keys, inputs, journal, operations, outbox, plugins, retention,
    snapshots, state, timers,
};

// --- the source's side

pub(super) fn begin(
    tx: &Tx<'_>,
    owner: &Owner,
    base: Revision,
    migration: MigrationId,
    target: HostId,
) -> Fallible<Handoff> {
    let mut head = Head::load(tx.conn, &owner.agent)?.ok_or(StoreError::NoAgent)?;
    let seat = head.seat();
    let step = seat.begin(&owner.claim(), base, migration, target);
    let Some(begun) = step.map_err(|refusal| seat.error(refusal))? else {
        return Ok(Handoff { granted: seat.token, change: head.change });
    };
    // Its events are counted as long as it is at home here.
    close(tx, &mut head, Some(migration))?;
    sit(tx, head.key, &begun)?;
    Ok(Handoff { granted: begun.token, change: head.change })
}

/// Stores what a step has decided.
fn sit(tx: &Tx<'_>, key: i64, seat: &Seat) -> Fallible<()> {
    let holder = seat.holder.map(|holder| holder.incarnation);
    set_standing(tx, key, &seat.home, seat.token, holder, &seat.cause)
}

pub(super) fn finish(tx: &Tx<'_>, agent: &AgentId, migration: MigrationId) -> Fallible<()> {
    let head = Head::load(tx.conn, agent)?.ok_or(StoreError::NoAgent)?;
    let seat = head.seat();
    let Some(moved) = seat.finish(migration).map_err(|refusal| seat.error(refusal))? else {
        return Ok(());
    };
    sit(tx, head.key, &moved)?;
    let mut event = NewEvent::of_agent(agent, EventKind::HomeMoved, tx.now_ms()).with("migration", migration);
    if let Home::Moved(tombstone) = &moved.home {
        event = event.with("target", tombstone.target).with("token", tombstone.token);
    }
    append(tx, &[event])
}

pub(super) fn abort(
    tx: &Tx<'_>,
    agent: &AgentId,
    migration: MigrationId,
    incarnation: Incarnation,
) -> Fallible<Lease> {
    let holder = holder_of(tx, incarnation)?;
    let mut head = Head::load(tx.conn, agent)?.ok_or(StoreError::NoAgent)?;
    let seat = head.seat();
    let step = seat.abort(migration, holder).map_err(|refusal| seat.error(refusal))?;
    take_seat(tx, &mut head, step, migration)
}

/// A living session as a holder.
fn holder_of(tx: &Tx<'_>, incarnation: Incarnation) -> Fallible<Holder> {
    let host = living_host(tx.conn, incarnation)?.ok_or(StoreError::SessionDead { incarnation })?;
    Ok(Holder { host, incarnation })
}

/// Deletes some of what an agent left behind. Answers whether there may be more; `forget_moved` is the last step.
pub(super) fn forget_some(tx: &Tx<'_>, agent: &AgentId, migration: MigrationId) -> Fallible<bool> {
    match Head::load(tx.conn, agent)? {
        Some(head) if head.seat().forget(migration).is_some() => state::clear_some(tx, head.key),
        _ => Ok(false),
    }
}

/// Whether of an agent only a tombstone is left.
fn is_bare(conn: &Connection, key: i64) -> Fallible<bool> {
    let spec = first(conn, "SELECT spec_revision FROM agent WHERE key = ?1", params![key], |row| {
        Ok(row.get::<_, Int>(0)?.0)
    })?;
    Ok(spec == Some(0))
}

pub(super) fn forget_moved(tx: &Tx<'_>, agent: &AgentId, migration: MigrationId) -> Fallible<()> {
    let Some(head) = Head::load(tx.conn, agent)? else { return Ok(()) };
    match head.seat().forget(migration) {
        Some(tombstone) if !is_bare(tx.conn, head.key)? => {
            replace_by_tombstone(tx, head.key, agent, tombstone)
        }
        _ => Ok(()),
    }
}

/// Deletes all rows of a key; a bare tombstone takes the agent's name. Which agent of that name it was stays known.
fn replace_by_tombstone(tx: &Tx<'_>, key: i64, agent: &AgentId, tombstone: Tombstone) -> Fallible<()> {
    let entity_key = entity_keys::row(tx.conn, (key, agent), None)?;
    delete(tx, key)?;
    let row = NewRow {
        agent,
        home: Some(&Home::Moved(tombstone)),
        migration: None,
        generation: tombstone.generation,
        token: tombstone.token,
        spec_revision: SpecRevision(0),
        plugin: Digest::ZERO,
        is_internal: false,
        labels: &BTreeMap::new(),
        created_at_ms: 0,
        change: 0,
    };
    let key = row.insert(tx)?;
    match entity_key {
        Some(entity_key) => entity_keys::put(tx, (key, agent), Int(0), &entity_key),
        None => Ok(()),
    }
}

/// Deletes an agent's row and with it all rows that hang on it.
pub(super) fn delete(tx: &Tx<'_>, key: i64) -> Fallible<()> {
    execute(tx.conn, "DELETE FROM agent WHERE key = ?1", params![key]).map(drop)
}

// --- the target's side

/// A row on its way in. A snapshot is packed before the transaction, and a large one put; a value of the `state` is sealed.
pub(super) struct Arriving {
    frame: RowFrame,
    pub(super) packed: Option<PackedSnapshot>,
    sealed: Vec<u8>,
}

impl Arriving {
    /// # Errors
    /// `Unsupported` when a snapshot is above its limit.
    pub(super) fn new(frame: RowFrame) -> Result<Self, StoreError> {
        let packed = match &frame.row {
            Row::Snapshot { snapshot, .. } => Some(PackedSnapshot::new(snapshot, snapshot.state_digest())?),
            _ => None,
        };
        let sealed = match &frame.row {
            Row::State { value, .. } => seal_bytes(value),
            _ => Vec::new(),
        };
        Ok(Self { frame, packed, sealed })
    }

    /// About how many bytes it writes, where that is much.
    pub(super) fn bytes(&self) -> usize {
        self.sealed.len() + self.packed.as_ref().map_or(0, |packed| packed.state.len())
    }

    pub(super) fn row(&self) -> &Row {
        &self.frame.row
    }
}

/// A copy being received: its key and whose it is.
struct Copy {
    key: i64,
    agent: AgentId,
}

fn copy_of(conn: &Connection, migration: MigrationId) -> Fallible<Option<Copy>> {
    first(conn, "SELECT key, id FROM agent WHERE migration = ?1 AND home = 4", params![migration.0], |row| {
        Ok(Copy { key: row.get(0)?, agent: agent_id(&row.get::<_, String>(1)?)? })
    })
}

/// The key of the copy that was received under an id, if it is this agent's.
pub(super) fn copy_key(conn: &Connection, copy: MigrationId, agent: &AgentId) -> Fallible<Option<i64>> {
    Ok(copy_of(conn, copy)?.filter(|copy| copy.agent == *agent).map(|copy| copy.key))
}

pub(super) fn receive(
    tx: &Tx<'_>,
    migration: MigrationId,
    agent: &AgentId,
    rows: &[Arriving],
) -> Fallible<()> {
    if Head::load(tx.conn, agent)?.is_some_and(|head| head.seat().is_bound(migration)) {
        return Ok(());
    }
    receive_into_copy(tx, migration, agent, rows).map(drop)
}

/// As `receive`, into a copy that nothing else names. Answers its key.
pub(super) fn receive_copy(
    tx: &Tx<'_>,
    session: MigrationId,
    agent: &AgentId,
    rows: &[Arriving],
) -> Fallible<i64> {
    receive_into_copy(tx, session, agent, rows).map(|copy| copy.key)
}

fn receive_into_copy(
    tx: &Tx<'_>,
    migration: MigrationId,
    agent: &AgentId,
    rows: &[Arriving],
) -> Fallible<Copy> {
    let copy = match copy_of(tx.conn, migration)? {
        Some(copy) if copy.agent == *agent => copy,
        Some(_) => return Err(conflict(format!("migration {migration} moves another agent"))),
        None => Copy { key: new_copy(tx, migration, agent)?, agent: agent.clone() },
    };
    let (mut last, mut grown) = (0, Grown::default());
    for arriving in rows {
        receive_row(tx, &copy, arriving, &mut grown)?;
        last = last.max(arriving.frame.change);
    }
    execute(
        tx.conn,
        "UPDATE agent SET change = max(change, ?2), state_keys = state_keys + ?3, state_bytes = state_bytes + ?4
         WHERE key = ?1",
        params![copy.key, Int(last), grown.keys, grown.bytes],
    )?;
    Ok(copy)
}

/// By how much the `state` of a copy has grown. It is counted as rows arrive: all at once would take the longer the more there
/// are, and the agent stands still by then.
#[derive(Default)]
struct Grown {
    keys: i64,
    bytes: i64,
}

impl Grown {
    /// One value has taken the place of another, each of so many bytes.
    fn by(&mut self, key: &str, before: Option<u64>, after: Option<u64>) {
        let bytes = |size: Option<u64>| size.map_or(0, |size| (key.len() as u64 + size) as i64);
        self.keys += i64::from(after.is_some()) - i64::from(before.is_some());
        self.bytes += bytes(after) - bytes(before);
    }
}

fn new_copy(tx: &Tx<'_>, migration: MigrationId, agent: &AgentId) -> Fallible<i64> {
    let row = NewRow {
        agent,
        home: None,
        migration: Some(migration),
        generation: Generation(0),
        token: FencingToken(0),
        spec_revision: SpecRevision(0),
        plugin: Digest::ZERO,
        is_internal: false,
        labels: &BTreeMap::new(),
        created_at_ms: 0,
        change: 0,
    };
    row.insert(tx)
}

fn receive_row(tx: &Tx<'_>, copy: &Copy, arriving: &Arriving, grown: &mut Grown) -> Fallible<()> {
    let (key, change) = (copy.key, Int(arriving.frame.change));
    let check = |owner: &AgentId| {
        if *owner == copy.agent { Ok(()) } else { Err(conflict(format!("a row is of agent {owner}"))) }
    };
    match &arriving.frame.row {
        Row::Agent(portable) => {
            check(&portable.agent)?;
            receive_agent(tx, key, change, portable)
        }
        Row::Spec { revision, spec } => write_spec(tx, key, change, *revision, spec),
        Row::Input(input) => inputs::receive(tx, key, change, input),
        Row::Receipt(receipt) => {
            check(&receipt.agent)?;
            receive_receipt(tx, key, change, receipt)
        }
        Row::Snapshot { slot, .. } => {
            let packed = arriving.packed.as_ref().expect("snapshots are packed before the transaction");
            snapshots::write(tx, (key, *slot, change), packed)
        }
        Row::Journal { generation, revision, entry } => {
            journal::receive(tx, (key, change), *generation, *revision, entry)
        }
        Row::State { key: name, value } => {
            if is_deleted_since(tx, key, change, &RowKey::State(name.clone()))? {
                return Ok(());
            }
            let before = state::size(tx.conn, key, name)?;
            if state::put(tx, key, change, name, &arriving.sealed)? {
                grown.by(name, before, Some(value.len() as u64));
            }
            Ok(())
        }
        Row::Output(output) => {
            check(&output.agent)?;
            receive_output(tx, key, change, output)
        }
        Row::Destination { destination, generation, next_number } => {
            receive_destination(tx, (key, change), destination, *generation, *next_number)
        }
        Row::Receiver(receiver) => inputs::write_receiver(tx, key, change, receiver),
        Row::Deleted(deleted) => receive_delete(tx, (key, change), deleted, grown),
        Row::Timer(timer) => {
            if is_deleted_since(tx, key, change, &RowKey::Timer(timer.name.clone()))? {
                return Ok(());
            }
            timers::put(tx, key, change, timer)
        }
        Row::ReceiptCheckpoint(signed) => {
            check(&signed.checkpoint.agent)?;
            retention::write_checkpoint(tx, key, change, signed)
        }
        Row::Operation(stored) => {
            if is_deleted_since(tx, key, change, &RowKey::Operation(stored.id()))? {
                return Ok(());
            }
            operations::put(tx, key, change, stored)
        }
        Row::Edge(edge) => {
            if is_deleted_since(tx, key, change, &RowKey::Edge(edge.peer.clone()))? {
                return Ok(());
            }
            edges::write(tx, key, change, edge)
        }
        Row::EntityKey(row) => entity_keys::put(tx, (key, &copy.agent), change, row),
        Row::Channel(_) | Row::Subscriber(_) | Row::Subscription(_) => {
            receive_of_channel(tx, key, change, &arriving.frame.row)
        }
    }
}

/// Takes a row that has to do with a channel; of all others nothing happens.
fn receive_of_channel(tx: &Tx<'_>, key: i64, change: Int, row: &Row) -> Fallible<()> {
    let name = match row {
        Row::Channel(channel) => RowKey::Channel(channel.name.clone()),
        Row::Subscriber(subscriber) => {
            RowKey::Subscriber(subscriber.channel.clone(), subscriber.agent.clone())
        }
        Row::Subscription(subscription) => {
            RowKey::Subscription(subscription.owner.clone(), subscription.channel.clone())
        }
        _ => return Ok(()),
    };
    if is_deleted_since(tx, key, change, &name)? {
        return Ok(());
    }
    match row {
        Row::Channel(channel) => channels::put_channel(tx, (key, change), channel),
        Row::Subscriber(subscriber) => channels::put_subscriber(tx, (key, change), subscriber),
        Row::Subscription(subscription) => channels::put_subscription(tx, (key, change), subscription),
        _ => Ok(()),
    }
}

fn receive_agent(tx: &Tx<'_>, key: i64, change: Int, portable: &AgentPortable) -> Fallible<()> {
    let written = execute(
        tx.conn,
        "UPDATE agent SET change = max(change, ?2), row_change = ?2, generation = ?3, revision = ?4, head = ?5,
             next_seq = ?6, spec_revision = ?7, labels_sealed = ?8, time_ms = ?9, created_at_ms = ?10, next_output = ?11,
             inputs_pruned = ?12, failed_starts = ?13, next_event = ?14, group_name = ?15, standby = ?16
         WHERE key = ?1 AND row_change < ?2",
        params![
            key,
            change,
            Int(portable.generation.0),
            Int(portable.revision.0),
            portable.head.0,
            Int(portable.next_seq.0),
            Int(portable.spec_revision.0),
            seal(&portable.labels),
            Int(portable.time_ms),
            Int(portable.created_at_ms),
            Int(portable.next_output),
            Int(portable.inputs_pruned),
            portable.failed_starts,
            Int(portable.next_event),
            group(&portable.labels),
            standby(&portable.labels),
        ],
    )?;
    if written > 0 { write_lifecycle(tx, key, &portable.lifecycle) } else { Ok(()) }
}

fn receive_receipt(
    tx: &Tx<'_>,
    key: i64,
    change: Int,
    receipt: &godwit_core::receipt::Receipt,
) -> Fallible<()> {
    let place = params![key, Int(receipt.generation.0), Int(receipt.revision.0)];
    let known = "SELECT change FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision = ?3";
    match first(tx.conn, known, place, |row| Ok(row.get::<_, Int>(0)?))? {
        Some(known) if known.0 >= change.0 => return Ok(()),
        Some(_) => {
            let delete = "DELETE FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision = ?3";
            execute(tx.conn, delete, place)?;
        }
        None => {}
    }
    let bytes = receipt.to_bytes();
    boundary::write_receipt(tx, (key, change), receipt, Digest::of(&bytes), &bytes)
}

fn receive_output(
    tx: &Tx<'_>,
    key: i64,
    change: Int,
    stored: &godwit_core::output::StoredOutput,
) -> Fallible<()> {
    let row = RowKey::Output(stored.output.destination.clone(), stored.generation, stored.number);
    if is_deleted_since(tx, key, change, &row)? {
        return Ok(());
    }
    execute(
        tx.conn,
        "DELETE FROM output WHERE agent = ?1 AND destination = ?2 AND generation = ?3 AND number = ?4 AND change < ?5",
        params![
            key,
            stored.output.destination.as_str(),
            Int(stored.generation.0),
            Int(stored.number),
            change
        ],
    )?;
    let is_here = exists(
        tx.conn,
        "SELECT 1 FROM output WHERE agent = ?1 AND destination = ?2 AND generation = ?3 AND number = ?4",
        params![key, stored.output.destination.as_str(), Int(stored.generation.0), Int(stored.number)],
    )?;
    if is_here {
        return Ok(());
    }
    let columns = outbox::Columns {
        position: stored.position,
        generation: stored.generation,
        number: stored.number,
        revision: stored.revision,
        committed_at_ms: stored.committed_at_ms,
        state: &stored.state,
    };
    let (destination, sealed) = (&stored.output.destination, seal(&stored.output));
    outbox::insert(tx, key, change, destination, outbox::Body::Own(&sealed), &columns)
}

fn receive_destination(
    tx: &Tx<'_>,
    (key, change): (i64, Int),
    destination: &AgentId,
    generation: Generation,
    next_number: u64,
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO destination (agent, destination, generation, change, next_number) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (agent, destination, generation) DO UPDATE SET change = excluded.change,
             next_number = excluded.next_number
         WHERE excluded.change > destination.change",
        params![key, destination.as_str(), Int(generation.0), change, Int(next_number)],
    )
    .map(drop)
}

/// Whether a copy knows that a row was deleted after a change.
fn is_deleted_since(tx: &Tx<'_>, key: i64, change: Int, row: &RowKey) -> Fallible<bool> {
    exists(
        tx.conn,
        "SELECT 1 FROM tombstone WHERE agent = ?1 AND key = ?2 AND change > ?3",
        params![key, state::tombstone_key(row), change],
    )
}

fn receive_delete(tx: &Tx<'_>, (key, change): (i64, Int), row: &RowKey, grown: &mut Grown) -> Fallible<()> {
    match row {
        RowKey::State(name) => {
            let before = state::size(tx.conn, key, name)?;
            let sql = "DELETE FROM state WHERE agent = ?1 AND key = ?2 AND change < ?3";
            if execute(tx.conn, sql, params![key, name, change])? > 0 {
                grown.by(name, before, None);
            }
        }
        RowKey::Output(destination, generation, number) => execute(
            tx.conn,
            "DELETE FROM output WHERE agent = ?1 AND destination = ?2 AND generation = ?3 AND number = ?4
                 AND change < ?5",
            params![key, destination.as_str(), Int(generation.0), Int(*number), change],
        )
        .map(drop)?,
        RowKey::Timer(name) => timers::receive_delete(tx, key, change, name)?,
        RowKey::Operation(id) => operations::receive_delete(tx, key, change, *id)?,
        RowKey::Edge(peer) => edges::receive_delete(tx, key, change, peer)?,
        RowKey::Channel(_) | RowKey::Subscriber(..) | RowKey::Subscription(..) => {
            channels::receive_delete(tx, key, change, row)?;
        }
    }
    state::bury(tx, key, change, row)
}

/// Binds a copy; `rows` are the request's frames.
pub(super) fn prepare(tx: &Tx<'_>, request: &PrepareRequest, rows: &[Arriving]) -> Fallible<()> {
    let PrepareRequest { migration, agent, .. } = request;
    let (known, binding) = (Head::load(tx.conn, agent)?, request.binding());
    let seat = known.as_ref().map(Head::seat);
    // Rows that come too late for a bound copy stay outside.
    if seat.as_ref().is_some_and(|seat| seat.is_bound(*migration)) {
        return Ok(Seat::prepare(seat.as_ref(), &binding, None).map(drop).map_err(StoreError::from)?);
    }
    let copy = receive_into_copy(tx, *migration, agent, rows)?;
    let arrived = first(
        tx.conn,
        "SELECT generation, revision FROM agent WHERE key = ?1 AND row_change > 0",
        params![copy.key],
        |row| Ok((Generation(row.get::<_, Int>(0)?.0), Revision(row.get::<_, Int>(1)?.0))),
    )?;
    let step = Seat::prepare(seat.as_ref(), &binding, arrived).map_err(StoreError::from)?;
    let Some(bound) = step else { return Ok(()) };
    if let Some(replaced) = known {
        delete(tx, replaced.key)?;
    }
    settle_copy(tx, copy.key)?;
    check_plugin(tx, copy.key)?;
    sit(tx, copy.key, &bound)?;
    settle_tracking(tx, agent)
}

/// A plugin that was here when the copy was announced may have been removed since: nothing pins it for a copy.
fn check_plugin(tx: &Tx<'_>, key: i64) -> Fallible<()> {
    let sql = "SELECT plugin FROM spec WHERE agent = ?1
               AND revision = (SELECT spec_revision FROM agent WHERE key = ?1)";
    match first(tx.conn, sql, params![key], |row| Ok(Digest(row.get(0)?)))? {
        Some(plugin) if !plugins::is_stored(tx.conn, plugin)? => Err(StoreError::NoPlugin { plugin }.into()),
        _ => Ok(()),
    }
}

/// Brings what the agent's row says about its other rows up to date, once all have arrived.
pub(super) fn settle_copy(tx: &Tx<'_>, key: i64) -> Fallible<()> {
    execute(tx.conn, "DELETE FROM tombstone WHERE agent = ?1", params![key])?;
    execute(
        tx.conn,
        "UPDATE destination SET waiting = (SELECT count(*) FROM output o WHERE o.agent = ?1 AND o.state = 0
             AND o.destination = destination.destination AND o.generation = destination.generation)
         WHERE agent = ?1",
        params![key],
    )?;
    execute(
        tx.conn,
        "UPDATE agent SET
             open_inputs = (SELECT count(*) FROM input WHERE agent = ?1 AND state < 2),
             waking_inputs = (SELECT count(*) FROM input WHERE agent = ?1 AND state < 2 AND wakes = 1),
             open_bytes = (SELECT coalesce(sum(bytes), 0) FROM input WHERE agent = ?1 AND state < 2),
             pending_outputs = (SELECT count(*) FROM output WHERE agent = ?1 AND state = 0),
             plugin = coalesce((SELECT plugin FROM spec WHERE agent = ?1 AND revision = spec_revision), plugin),
             internal = coalesce((SELECT internal FROM spec WHERE agent = ?1 AND revision = spec_revision), internal)
         WHERE key = ?1",
        params![key],
    )
    .map(drop)
}

pub(super) fn adopt(
    tx: &Tx<'_>,
    agent: &AgentId,
    migration: MigrationId,
    (incarnation, how): (Incarnation, Adoption),
) -> Fallible<Lease> {
    let holder = holder_of(tx, incarnation)?;
    let mut head = Head::load(tx.conn, agent)?.ok_or(StoreError::NoAgent)?;
    let seat = head.seat();
    let step = seat.adopt(migration, holder, how).map_err(|refusal| seat.error(refusal))?;
    if let Some(taken) = &step {
        // From here its events are counted here.
        sit(tx, head.key, taken)?;
        let event = NewEvent::of_agent(agent, EventKind::HomeMoved, tx.now_ms())
            .with("migration", migration)
            .with("token", taken.token);
        append_of(tx, &mut head, &[event])?;
    }
    take_seat(tx, &mut head, step, migration)
}

/// Deletes some rows of a copy that is not bound. Answers whether there may be more; `discard_copy` is the last step.
pub(super) fn discard_some(tx: &Tx<'_>, migration: MigrationId) -> Fallible<bool> {
    match copy_of(tx.conn, migration)? {
        Some(copy) => state::clear_some(tx, copy.key),
        None => Ok(false),
    }
}

pub(super) fn discard_copy(tx: &Tx<'_>, migration: MigrationId) -> Fallible<()> {
    if let Some(copy) = copy_of(tx.conn, migration)? {
        delete(tx, copy.key)?;
    }
    let bound = first(
        tx.conn,
        "SELECT id FROM agent WHERE migration = ?1 AND home = 2",
        params![migration.0],
        |row| agent_id(&row.get::<_, String>(0)?),
    )?;
    let Some(agent) = bound else {
        return Ok(());
    };
    let Some(head) = Head::load(tx.conn, &agent)? else { return Ok(()) };
    match head.seat().discard(migration) {
        Discard::Goes => delete(tx, head.key),
        Discard::Replaced(tombstone) => replace_by_tombstone(tx, head.key, &agent, tombstone),
        Discard::Stays => {
            Err(corrupt(format!("home of agent {agent}: the copy of migration {migration} is not prepared")))
        }
    }
}
