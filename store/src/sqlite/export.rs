//! Exporting an agent's rows in order of their change numbers.
//!
//! Each kind of row is asked for its next rows above `after`; what all of them together have told about completely is
//! merged. Inputs and `state` rows have an index by change number. Receipts are never changed, so their change numbers
//! ascend with their revisions and the first one is found by halving. The other tables are small; the journal is as long as
//! the tail behind the older kept snapshot.

use godwit_core::id::{AgentId, Generation, OperationId, Revision, Seq, SpecRevision};
use godwit_core::store::rows::{AgentPortable, Receiver};
use godwit_core::store::{Home, Row, RowFrame, RowKey, Slot, StoreError};
use postcard::ser_flavors::Size;
use rusqlite::{Connection, params};

use super::agents::{self, Head};
use super::auth::Vault;
use super::codec::{Int, agent_id, channel_name, unseal};
use super::error::{Fallible, corrupt};
use super::sql::{all, first};
use super::{
    boundary, channels, edges, entity_keys, inputs, journal, operations, outbox, retention, snapshots, state,
    timers,
};

/// Rows of each kind that one call looks at: few at first, since large ones of one kind may be all that there is room for.
const ROWS_AT_ONCE: [i64; 3] = [64, 512, 2_048];

/// A row by the shortest name that finds it.
#[derive(Debug, Clone)]
enum Name {
    Agent,
    Spec(Int),
    Input(Int),
    Receipt(Generation, Revision),
    Snapshot(Slot),
    Journal(Generation, Revision),
    /// By the integer of its row.
    State(i64),
    Output(Int),
    Destination(String, Int),
    Receiver(String),
    Timer(String),
    Operation(OperationId),
    Edge(String),
    Deleted(Vec<u8>),
    Checkpoint(Int),
    EntityKey,
    Channel(String),
    Subscriber(String, String),
    Subscription(String, String),
}

/// Rows above a change number. A vault opens the secret of the entity key, which else stays behind.
pub(super) fn export(
    conn: &Connection,
    agent: &AgentId,
    after: u64,
    bytes_max: usize,
    vault: Option<&Vault>,
) -> Fallible<Vec<RowFrame>> {
    let Some(head) = Head::load(conn, agent)? else {
        return Ok(Vec::new());
    };
    if !matches!(head.home, Home::Here | Home::HandingOff { .. }) {
        return Err(StoreError::NotHome { home: head.home }.into());
    }
    let mut after = Int(after.min(i64::MAX.unsigned_abs()));
    let (mut frames, mut bytes) = (Vec::new(), 0);
    for rows_max in ROWS_AT_ONCE {
        let next = names_after(conn, head.key, after, rows_max)?;
        for (change, name) in next.names {
            let frame = RowFrame { change, row: load(conn, &head, &name, vault)? };
            bytes += encoded_len(&frame);
            if bytes > bytes_max && !frames.is_empty() {
                return Ok(frames);
            }
            frames.push(frame);
            after = Int(change);
        }
        if next.are_all {
            break;
        }
    }
    Ok(frames)
}

/// How many bytes a frame takes when it is sent; nothing is written for that.
pub(super) fn encoded_len(frame: &RowFrame) -> usize {
    postcard::serialize_with_flavor(frame, Size::default()).unwrap_or(0)
}

/// Rows that come next.
struct Next {
    /// With their change numbers, in order, without a gap.
    names: Vec<(u64, Name)>,
    /// Whether there are no more.
    are_all: bool,
}

/// The next rows, of each kind at most so many.
fn names_after(conn: &Connection, key: i64, after: Int, rows_max: i64) -> Fallible<Next> {
    let mut names = Vec::new();
    // Above this some kind of row may have more than was read.
    let mut complete = u64::MAX;
    let mut add = |kind: Vec<(u64, Name)>| {
        if kind.len() as i64 >= rows_max {
            complete = complete.min(kind.last().map_or(u64::MAX, |(change, _)| *change));
        }
        names.extend(kind);
    };
    for kind in KINDS {
        add(all(conn, kind.sql, params![key, after, rows_max], |row| {
            Ok((row.get::<_, Int>(0)?.0, (kind.name)(row)?))
        })?);
    }
    add(receipts_after(conn, key, after, rows_max)?);
    names.retain(|(change, _)| *change <= complete);
    names.sort_by_key(|(change, _)| *change);
    Ok(Next { names, are_all: complete == u64::MAX })
}

/// How one kind of row is found by change number.
struct Kind {
    sql: &'static str,
    name: fn(&rusqlite::Row<'_>) -> rusqlite::Result<Name>,
}

const KINDS: &[Kind] = &[
    Kind {
        sql: "SELECT row_change FROM agent WHERE key = ?1 AND row_change > ?2 LIMIT ?3",
        name: |_| Ok(Name::Agent),
    },
    Kind {
        sql: "SELECT change, revision FROM spec WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Spec(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, seq FROM input WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Input(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change FROM snapshot WHERE agent = ?1 AND change > ?2 LIMIT ?3",
        name: |_| Ok(Name::Snapshot(Slot::First)),
    },
    Kind {
        sql: "SELECT change FROM snapshot_beside WHERE agent = ?1 AND change > ?2 LIMIT ?3",
        name: |_| Ok(Name::Snapshot(Slot::Second)),
    },
    Kind {
        sql: "SELECT change, generation, revision FROM journal WHERE agent = ?1 AND change > ?2
              ORDER BY change LIMIT ?3",
        name: |row| {
            let (generation, revision): (Int, Int) = (row.get(1)?, row.get(2)?);
            Ok(Name::Journal(Generation(generation.0), Revision(revision.0)))
        },
    },
    Kind {
        sql: "SELECT change, row FROM state WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::State(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, position FROM output WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Output(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, destination, generation FROM destination WHERE agent = ?1 AND change > ?2
              ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Destination(row.get(1)?, row.get(2)?)),
    },
    Kind {
        sql: "SELECT change, origin FROM receiver WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Receiver(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, name FROM timer WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Timer(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, id FROM operation WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Operation(OperationId(row.get(1)?))),
    },
    Kind {
        sql: "SELECT change, peer FROM edge WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Edge(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, key FROM tombstone WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Deleted(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, generation FROM receipt_checkpoint WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Checkpoint(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change FROM entity_key WHERE agent = ?1 AND change > ?2 LIMIT ?3",
        name: |_| Ok(Name::EntityKey),
    },
    Kind {
        sql: "SELECT change, name FROM channel WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Channel(row.get(1)?)),
    },
    Kind {
        sql: "SELECT change, channel, subscriber FROM subscriber WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Subscriber(row.get(1)?, row.get(2)?)),
    },
    Kind {
        sql: "SELECT change, owner, channel FROM subscription WHERE agent = ?1 AND change > ?2 ORDER BY change LIMIT ?3",
        name: |row| Ok(Name::Subscription(row.get(1)?, row.get(2)?)),
    },
];

/// The next receipts above a change number, generation by generation.
fn receipts_after(conn: &Connection, key: i64, after: Int, rows_max: i64) -> Fallible<Vec<(u64, Name)>> {
    let generations = all(
        conn,
        "WITH RECURSIVE g (generation) AS (
             SELECT min(generation) FROM receipt WHERE agent = ?1
             UNION ALL
             SELECT (SELECT min(generation) FROM receipt WHERE agent = ?1 AND generation > g.generation) FROM g
             WHERE g.generation IS NOT NULL)
         SELECT generation FROM g WHERE generation IS NOT NULL",
        params![key],
        |row| Ok(row.get::<_, Int>(0)?),
    )?;
    let mut names = Vec::new();
    for generation in generations {
        let from = first_receipt_above(conn, (key, generation), after)?;
        let room = rows_max - names.len() as i64;
        names.extend(all(
            conn,
            "SELECT change, revision FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision >= ?3
             ORDER BY revision LIMIT ?4",
            params![key, generation, from, room],
            |row| {
                let revision = Revision(row.get::<_, Int>(1)?.0);
                Ok((row.get::<_, Int>(0)?.0, Name::Receipt(Generation(generation.0), revision)))
            },
        )?);
    }
    Ok(names)
}

/// The lowest revision whose receipt has a change number above `after`, found by halving.
fn first_receipt_above(conn: &Connection, (key, generation): (i64, Int), after: Int) -> Fallible<Int> {
    let last = first(
        conn,
        "SELECT revision FROM receipt WHERE agent = ?1 AND generation = ?2 ORDER BY revision DESC LIMIT 1",
        params![key, generation],
        |row| Ok(row.get::<_, Int>(0)?),
    )?;
    let (mut low, mut high) = (0, last.map_or(0, |last| last.0 + 1));
    while low < high {
        let middle = low + (high - low) / 2;
        let found = first(
            conn,
            "SELECT revision, change FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision >= ?3
             ORDER BY revision LIMIT 1",
            params![key, generation, Int(middle)],
            |row| Ok((row.get::<_, Int>(0)?.0, row.get::<_, Int>(1)?.0)),
        )?;
        match found {
            Some((revision, change)) if change <= after.0 => low = revision + 1,
            _ => high = middle,
        }
    }
    Ok(Int(low))
}

fn load(conn: &Connection, head: &Head, name: &Name, vault: Option<&Vault>) -> Fallible<Row> {
    let (key, agent) = (head.key, &head.agent);
    let row = match name {
        Name::Agent => portable(conn, head)?.map(Row::Agent),
        Name::Spec(revision) => first(
            conn,
            "SELECT sealed FROM spec WHERE agent = ?1 AND revision = ?2",
            params![key, revision],
            |row| {
                Ok(Row::Spec {
                    revision: SpecRevision(revision.0),
                    spec: unseal(&row.get::<_, Vec<u8>>(0)?, || format!("spec of agent {agent}"))?,
                })
            },
        )?,
        Name::Input(seq) => inputs::by_seq(conn, key, agent, Seq(seq.0))?.map(Row::Input),
        Name::Receipt(generation, revision) => {
            let before = Revision(revision.0.saturating_sub(1));
            let mut receipts = boundary::receipts(conn, key, agent, *generation, before, 1)?;
            receipts.pop().map(Row::Receipt)
        }
        Name::Snapshot(slot) => match snapshots::in_slot(conn, key, *slot)? {
            Some(packed) => Some(Row::Snapshot { slot: *slot, snapshot: packed.unpack(agent)? }),
            None => None,
        },
        Name::Journal(generation, revision) => {
            let entry = journal::entry(conn, (key, agent), *generation, *revision)?;
            entry.map(|entry| Row::Journal { generation: *generation, revision: *revision, entry })
        }
        Name::State(row) => state::row_at(conn, agent, *row)?,
        Name::Output(position) => outbox::at(conn, key, agent, *position)?.map(Row::Output),
        Name::Destination(destination, generation) => first(
            conn,
            "SELECT next_number FROM destination WHERE agent = ?1 AND destination = ?2 AND generation = ?3",
            params![key, destination, generation],
            |row| {
                Ok(Row::Destination {
                    destination: agent_id(destination)?,
                    generation: Generation(generation.0),
                    next_number: row.get::<_, Int>(0)?.0,
                })
            },
        )?,
        Name::Receiver(origin) => receiver(conn, key, origin)?.map(Row::Receiver),
        Name::Timer(name) => timers::timer(conn, key, agent, name)?.map(Row::Timer),
        Name::Checkpoint(generation) => {
            retention::one_checkpoint(conn, key, Generation(generation.0))?.map(Row::ReceiptCheckpoint)
        }
        Name::Operation(id) => operations::operation(conn, key, agent, *id)?.map(Row::Operation),
        Name::Edge(peer) => edges::edge(conn, key, &agent_id(peer)?)?.map(Row::Edge),
        Name::EntityKey => entity_keys::row_for_export(conn, (key, agent), vault)?.map(Row::EntityKey),
        Name::Channel(name) => channels::channel(conn, (key, agent), &channel_name(name)?)?.map(Row::Channel),
        Name::Subscriber(channel, subscriber) => {
            let (channel, subscriber) = (channel_name(channel)?, agent_id(subscriber)?);
            channels::subscriber(conn, (key, agent), &channel, &subscriber)?.map(Row::Subscriber)
        }
        Name::Subscription(owner, channel) => {
            let (owner, channel) = (agent_id(owner)?, channel_name(channel)?);
            channels::subscription(conn, (key, agent), &owner, &channel)?.map(Row::Subscription)
        }
        Name::Deleted(sealed) => {
            let deleted: RowKey = unseal(sealed, || format!("tombstone of agent {agent}"))?;
            Some(Row::Deleted(deleted))
        }
    };
    row.ok_or_else(|| corrupt(format!("row {name:?} of agent {agent}: it is missing")))
}

fn receiver(conn: &Connection, key: i64, origin: &str) -> Fallible<Option<Receiver>> {
    inputs::receiver(conn, key, &agent_id(origin)?)
}

fn portable(conn: &Connection, head: &Head) -> Fallible<Option<AgentPortable>> {
    let row = agents::row(conn, &head.agent)?;
    Ok(row.map(|row| AgentPortable {
        agent: row.agent,
        lifecycle: row.lifecycle,
        generation: row.generation,
        revision: row.revision,
        head: row.head,
        next_seq: row.next_seq,
        spec_revision: row.spec_revision,
        labels: row.labels,
        time_ms: row.time_ms,
        created_at_ms: row.created_at_ms,
        next_output: head.next_output,
        inputs_pruned: row.inputs_pruned,
        failed_starts: row.failed_starts,
        next_event: row.next_event,
    }))
}
