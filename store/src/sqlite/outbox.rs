//! The outbox: outputs committed with a turn and not yet acknowledged.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use godwit_core::channel::Publication;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, Generation, Revision};
use godwit_core::lifecycle::Lifecycle;
use godwit_core::output::{Output, OutputState, StoredOutput, UndeliverableReason};
use godwit_core::store::{OutputEnd, OutputKey, Owner, Page, RowKey};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::channels::{self, Spent};
use super::codec::{Int, agent_id, channel_name, reason, reason_code, unseal};
use super::error::{Fallible, corrupt};
use super::inputs::key_of;
use super::sql::{all, execute, first};
use super::state::bury;
use super::writer::Tx;
use super::{entity_keys, events};

/// When outputs are committed.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) revision: Revision,
    pub(super) committed_at_ms: u64,
}

/// What an output says.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    /// An `Output`, sealed.
    Own(&'a [u8]),
    /// What all outputs of a publication say.
    Shared(Int),
}

/// Appends an output under the next number of its destination.
pub(super) fn append(
    tx: &Tx<'_>,
    head: &mut Head,
    place: &Place,
    destination: &AgentId,
    body: Body<'_>,
) -> Fallible<()> {
    let number = take_numbers(tx, head, destination, 1)?;
    append_as(tx, head, place, (destination, number), body)
}

/// Takes the next numbers of a destination for outputs that are appended now, and answers the first of them. Under a token of a
/// later epoch also a new destination may have had outputs that nothing here knows of.
pub(super) fn take_numbers(tx: &Tx<'_>, head: &mut Head, destination: &AgentId, count: u64) -> Fallible<u64> {
    let change = head.change();
    let number = first(
        tx.conn,
        "INSERT INTO destination (agent, destination, generation, change, next_number, waiting)
         VALUES (?1, ?2, ?3, ?4, ?5 + ?6, ?6)
         ON CONFLICT (agent, destination, generation) DO UPDATE SET change = excluded.change,
             next_number = next_number + ?6, waiting = waiting + ?6
         RETURNING next_number - ?6",
        params![
            head.key,
            destination.as_str(),
            Int(head.generation.0),
            change,
            Int(head.token.first_number()),
            Int(count),
        ],
        |row| Ok(row.get::<_, Int>(0)?),
    )?;
    Ok(number.ok_or_else(|| corrupt("a written destination is not there"))?.0)
}

/// Appends an output under a number that was taken for it.
pub(super) fn append_as(
    tx: &Tx<'_>,
    head: &mut Head,
    place: &Place,
    (destination, number): (&AgentId, u64),
    body: Body<'_>,
) -> Fallible<()> {
    let columns = Columns {
        position: head.next_output,
        generation: head.generation,
        number,
        revision: place.revision,
        committed_at_ms: place.committed_at_ms,
        state: &OutputState::Pending,
    };
    let change = head.change();
    insert(tx, head.key, change, destination, body, &columns)?;
    head.next_output += 1;
    head.pending_outputs += 1;
    Ok(())
}

/// What an output's row says besides the output.
pub(super) struct Columns<'a> {
    pub(super) position: u64,
    pub(super) generation: Generation,
    pub(super) number: u64,
    pub(super) revision: Revision,
    pub(super) committed_at_ms: u64,
    pub(super) state: &'a OutputState,
}

pub(super) fn insert(
    tx: &Tx<'_>,
    agent: i64,
    change: Int,
    destination: &AgentId,
    body: Body<'_>,
    columns: &Columns<'_>,
) -> Fallible<()> {
    let (sealed, publication) = match body {
        Body::Own(sealed) => (Some(sealed), None),
        Body::Shared(publication) => (None, Some(publication)),
    };
    let reason = match columns.state {
        OutputState::Pending => None,
        OutputState::Undeliverable { reason } => Some(reason_code(*reason)),
    };
    execute(
        tx.conn,
        "INSERT INTO output (agent, position, change, destination, generation, number, revision, committed_at_ms, state,
             reason, sealed, publication)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            agent,
            Int(columns.position),
            change,
            destination.as_str(),
            Int(columns.generation.0),
            Int(columns.number),
            Int(columns.revision.0),
            Int(columns.committed_at_ms),
            i64::from(reason.is_some()),
            reason,
            sealed,
            publication,
        ],
    )
    .map(drop)
}

/// What has gone with some outputs, to be written once for each.
#[derive(Default)]
struct Gone {
    /// How many that were pending, by destination and generation.
    waiting: BTreeMap<(AgentId, Generation), u64>,
    publications: Spent,
}

pub(super) fn end(tx: &Tx<'_>, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Fallible<()> {
    tx.with_head(&owner.agent, |head| {
        head.check_owner(owner)?;
        end_at(tx, head, owner, ends)
    })
}

fn end_at(tx: &Tx<'_>, head: &mut Head, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Fallible<()> {
    let pending_before = head.pending_outputs;
    let mut gone = Gone::default();
    let mut rest = ends;
    while let Some(((key, end), behind)) = rest.split_first() {
        let (pending, ended) = match end {
            OutputEnd::Acknowledged => {
                let run =
                    1 + behind.iter().zip(1..).take_while(|(next, place)| follows(next, key, *place)).count();
                (acknowledge(tx, head, key, run as u64, &mut gone)?, run)
            }
            OutputEnd::Undeliverable(reason) => (give_up(tx, head, owner, key, *reason)?, 1),
        };
        if pending > 0 {
            *gone.waiting.entry((key.destination.clone(), key.generation)).or_default() += pending;
        }
        rest = &rest[ended..];
    }
    for ((destination, generation), count) in gone.waiting {
        head.pending_outputs = head.pending_outputs.saturating_sub(count);
        execute(
            tx.conn,
            "UPDATE destination SET waiting = max(waiting - ?4, 0)
             WHERE agent = ?1 AND destination = ?2 AND generation = ?3",
            params![head.key, destination.as_str(), Int(generation.0), Int(count)],
        )?;
    }
    gone.publications.settle(tx, head.key)?;
    if head.pending_outputs != pending_before {
        // The row says how many there are.
        head.change();
        if head.pending_outputs == 0 && head.lifecycle == Lifecycle::Deleted {
            entity_keys::erase_secret(tx, head)?;
        }
    }
    Ok(())
}

/// Whether what has ended is the output that lies so many behind another one, and has arrived.
fn follows((key, end): &(OutputKey, OutputEnd), first: &OutputKey, place: u64) -> bool {
    *end == OutputEnd::Acknowledged
        && first.number.checked_add(place) == Some(key.number)
        && (&key.destination, key.generation) == (&first.destination, first.generation)
}

/// Deletes so many outputs that have arrived, from one on. Answers how many were pending.
fn acknowledge(tx: &Tx<'_>, head: &mut Head, from: &OutputKey, count: u64, gone: &mut Gone) -> Fallible<u64> {
    let known = all(
        tx.conn,
        "DELETE FROM output WHERE agent = ?1 AND destination = ?2 AND generation = ?3 AND number BETWEEN ?4 AND ?5
         RETURNING number, state, publication",
        params![
            head.key,
            from.destination.as_str(),
            Int(from.generation.0),
            Int(from.number),
            Int(from.number.saturating_add(count - 1)),
        ],
        |row| Ok((row.get::<_, Int>(0)?.0, row.get::<_, i64>(1)?, row.get::<_, Option<Int>>(2)?)),
    )?;
    let mut pending = 0;
    for (number, state, publication) in known {
        pending += u64::from(state == 0);
        gone.publications.add(publication);
        if head.keeps_deletes() {
            let change = head.change();
            let row = RowKey::Output(from.destination.clone(), from.generation, number);
            bury(tx, head.key, change, &row)?;
        }
    }
    Ok(pending)
}

/// Keeps an output that will never arrive, with the reason. Answers how many that were pending.
fn give_up(
    tx: &Tx<'_>,
    head: &mut Head,
    owner: &Owner,
    key: &OutputKey,
    reason: UndeliverableReason,
) -> Fallible<u64> {
    let position = first(
        tx.conn,
        "SELECT position FROM output
         WHERE agent = ?1 AND destination = ?2 AND generation = ?3 AND number = ?4 AND state = 0",
        params![head.key, key.destination.as_str(), Int(key.generation.0), Int(key.number)],
        |row| Ok(row.get::<_, Int>(0)?),
    )?;
    let Some(position) = position else {
        return Ok(0);
    };
    let change = head.change();
    execute(
        tx.conn,
        "UPDATE output SET state = 1, reason = ?3, change = ?4 WHERE agent = ?1 AND position = ?2",
        params![head.key, position, reason_code(reason), change],
    )?;
    let event = NewEvent::of_agent(&head.agent, EventKind::OutputUndeliverable, tx.now_ms())
        .with("destination", &key.destination)
        .with("number", key.number)
        .with("reason", reason.name());
    events::append_of(tx, head, &[event])?;
    if let Some(stored) = at(tx.conn, head.key, &head.agent, position)? {
        channels::undeliverable(tx, head, owner, &stored)?;
    }
    Ok(1)
}

/// The columns of an output, and those of the publication that it is a copy of.
macro_rules! select_output {
    ($rest:literal) => {
        concat!(
            "SELECT o.position, o.change, o.destination, o.generation, o.number, o.revision, o.committed_at_ms, o.reason,
                 o.sealed, p.channel, p.number, p.published_by, p.sealed, o.publication
             FROM output o LEFT JOIN publication p ON p.agent = o.agent AND p.position = o.publication ",
            $rest
        )
    };
}

/// The output at a position.
pub(super) fn at(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    position: Int,
) -> Fallible<Option<StoredOutput>> {
    let sql = select_output!("WHERE o.agent = ?1 AND o.position = ?2");
    first(conn, sql, params![key, position], |row| stored(row, agent, &mut Bodies::new()))
}

/// Outputs in commit order: the pending ones, or all that have a row.
pub(super) fn list(
    conn: &Connection,
    agent: &AgentId,
    is_pending: bool,
    page: Page,
) -> Fallible<Vec<StoredOutput>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    let after = Int(page.after.min(i64::MAX.unsigned_abs()));
    let mut bodies = Bodies::new();
    all(
        conn,
        select_output!(
            "WHERE o.agent = ?1 AND o.position > ?2 AND (o.state = 0 OR NOT ?3) ORDER BY o.position LIMIT ?4"
        ),
        params![key, after, is_pending, page.limit as i64],
        |row| stored(row, agent, &mut bodies),
    )
}

/// The destinations of pending outputs, by how long they wait: a look into the index for each, and one for its first output.
const DESTINATIONS: &str = "
    WITH RECURSIVE known (name) AS (
        SELECT min(destination) FROM output INDEXED BY output_number WHERE agent = ?1
        UNION ALL
        SELECT (SELECT min(destination) FROM output INDEXED BY output_number
                WHERE agent = ?1 AND destination > known.name)
        FROM known WHERE known.name IS NOT NULL),
    waiting (name, first) AS MATERIALIZED (
        SELECT name, (SELECT position FROM output INDEXED BY output_number
                      WHERE agent = ?1 AND destination = known.name AND state = 0
                      ORDER BY generation, number LIMIT 1)
        FROM known WHERE name IS NOT NULL)
    SELECT name FROM waiting WHERE first IS NOT NULL ORDER BY first";

/// The first pending outputs of the destinations that wait longest and do not rest, in commit order. What is there of others is
/// not looked at.
pub(super) fn first_of_each(
    conn: &Connection,
    agent: &AgentId,
    resting: &BTreeSet<AgentId>,
    (each, limit): (usize, usize),
) -> Fallible<Vec<StoredOutput>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    let destinations = all(conn, DESTINATIONS, params![key], |row| agent_id(&row.get::<_, String>(0)?))?;
    let mut outputs = Vec::new();
    let mut bodies = Bodies::new();
    for destination in destinations.iter().filter(|destination| !resting.contains(destination)) {
        let left = limit - outputs.len();
        if left == 0 {
            break;
        }
        outputs.extend(all(
            conn,
            select_output!(
                "WHERE o.agent = ?1 AND o.destination = ?2 AND o.state = 0 ORDER BY o.generation, o.number LIMIT ?3"
            ),
            params![key, destination.as_str(), left.min(each) as i64],
            |row| stored(row, agent, &mut bodies),
        )?);
    }
    outputs.sort_unstable_by_key(|stored| stored.position);
    Ok(outputs)
}

/// Bodies of publications that have been opened, by position: most outputs of a page are copies of few of them.
type Bodies = BTreeMap<u64, Output>;

/// Reads an output; column 1 is not looked at.
fn stored(row: &Row<'_>, agent: &AgentId, bodies: &mut Bodies) -> Fallible<StoredOutput> {
    let position = row.get::<_, Int>(0)?.0;
    let what = || format!("output {position} of agent {agent}");
    let destination = agent_id(&row.get::<_, String>(2)?)?;
    let output: Output = match row.get::<_, Option<Vec<u8>>>(8)? {
        Some(sealed) => unseal(&sealed, what)?,
        None => copied(row, &destination, bodies, what)?,
    };
    if output.destination != destination {
        return Err(corrupt(format!("{}: its columns say otherwise than its content", what())));
    }
    Ok(StoredOutput {
        agent: agent.clone(),
        generation: Generation(row.get::<_, Int>(3)?.0),
        number: row.get::<_, Int>(4)?.0,
        revision: Revision(row.get::<_, Int>(5)?.0),
        position,
        committed_at_ms: row.get::<_, Int>(6)?.0,
        output,
        state: match row.get::<_, Option<i64>>(7)? {
            None => OutputState::Pending,
            Some(code) => OutputState::Undeliverable { reason: reason(code)? },
        },
    })
}

/// What one subscriber gets of a publication.
fn copied(
    row: &Row<'_>,
    destination: &AgentId,
    bodies: &mut Bodies,
    what: impl Fn() -> String,
) -> Fallible<Output> {
    let gone = || corrupt(format!("{}: the publication that it is a copy of is missing", what()));
    let channel: String = row.get::<_, Option<_>>(9)?.ok_or_else(gone)?;
    let channel = channel_name(&channel)?;
    let by = row.get::<_, Option<String>>(11)?.map(|by| agent_id(&by)).transpose()?;
    let number = row.get::<_, Int>(10)?.0;
    let body = match bodies.entry(row.get::<_, Int>(13)?.0) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => place.insert(unseal(&row.get::<_, Vec<u8>>(12)?, &what)?),
    };
    Ok(Publication { channel: &channel, number, by: by.as_ref(), body }.event(destination))
}
