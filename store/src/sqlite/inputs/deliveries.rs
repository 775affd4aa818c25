//! What agents have heard from each other: which delivery an agent waits for, and what it makes of one that comes.

use godwit_core::channel::ChannelName;
use godwit_core::channel::rules::Copies;
use godwit_core::id::{AgentId, FencingToken, Generation};
use godwit_core::identity::{EntityPublicKey, OriginHash};
use godwit_core::input::{DeliveryStamp, NewInput};
use godwit_core::limits::PAGE_MAX;
use godwit_core::store::AcceptError;
use godwit_core::store::rows::Receiver;
use rusqlite::{Connection, Row, params};

use crate::sqlite::agents::Head;
use crate::sqlite::codec::Int;
use crate::sqlite::error::Fallible;
use crate::sqlite::sql::{all, execute, first};
use crate::sqlite::writer::Tx;

/// What agents have heard, within one transaction: read once for deliveries that follow on each other and are for one agent, and
/// written once behind them; at once where a savepoint may have to undo it.
#[derive(Default)]
pub(in crate::sqlite) struct Hearing {
    last: Option<Ear>,
    /// What publications that were asked for have become.
    pub(in crate::sqlite) copies: Copies,
}

/// What one agent has heard from another one.
struct Ear {
    agent: i64,
    name: AgentId,
    origin: AgentId,
    known: Option<Receiver>,
    /// Change number of `known`, when it is not written yet.
    unwritten: Option<Int>,
    /// A channel of the origin whose events the agent takes.
    takes: Option<ChannelName>,
}

impl Hearing {
    /// Before the step that takes a delivery: what it is not about is written, so that no failure of the step has to do with that.
    pub(in crate::sqlite) fn turn_to(&mut self, tx: &Tx<'_>, delivery: &NewInput) -> Fallible<()> {
        let stamp = delivery.delivery.as_ref();
        let is_about =
            |ear: &Ear| ear.name == delivery.agent && stamp.is_some_and(|stamp| stamp.origin == ear.origin);
        if self.last.as_ref().is_some_and(is_about) { Ok(()) } else { self.write(tx) }
    }

    /// What an agent has heard from an origin.
    pub(super) fn of(&mut self, tx: &Tx<'_>, head: &Head, origin: &AgentId) -> Fallible<Option<Receiver>> {
        let is_same = |ear: &&Ear| ear.agent == head.key && ear.origin == *origin;
        if let Some(ear) = self.last.as_ref().filter(is_same) {
            return Ok(ear.known.clone());
        }
        self.write(tx)?;
        let known = receiver(tx.conn, head.key, origin)?;
        self.last = Some(Ear {
            agent: head.key,
            name: head.agent.clone(),
            origin: origin.clone(),
            known: known.clone(),
            unwritten: None,
            takes: None,
        });
        Ok(known)
    }

    /// The agent that was asked about has heard this now.
    pub(super) fn note(&mut self, tx: &Tx<'_>, change: Int, heard: Receiver) -> Fallible<()> {
        if let Some(ear) = &mut self.last {
            (ear.known, ear.unwritten) = (Some(heard), Some(change));
        }
        if tx.has_savepoints() { self.write(tx) } else { Ok(()) }
    }

    /// Whether the agent that was asked about is known to take events of a channel of the origin's.
    pub(in crate::sqlite) fn takes(&self, channel: &ChannelName) -> bool {
        self.last.as_ref().is_some_and(|ear| ear.takes.as_ref() == Some(channel))
    }

    /// It takes the events of this channel; of none, as far as is known, when something else has been said.
    pub(in crate::sqlite) fn note_takes(&mut self, channel: Option<ChannelName>) {
        if let Some(ear) = &mut self.last {
            ear.takes = channel;
        }
    }

    /// Writes what is not written.
    pub(in crate::sqlite) fn write(&mut self, tx: &Tx<'_>) -> Fallible<()> {
        let Some(ear) = &mut self.last else { return Ok(()) };
        match (ear.unwritten.take(), &ear.known) {
            (Some(change), Some(known)) => write_receiver(tx, ear.agent, change, known),
            _ => Ok(()),
        }
    }
}

/// What a receiver makes of a delivery.
pub(super) struct Heard {
    /// Its row afterwards.
    pub(super) receiver: Receiver,
    /// Whether that is its row before.
    pub(super) is_known: bool,
    /// Whether the delivery is the one that it waits for.
    pub(super) is_next: bool,
}

/// Decides about a delivery by what was heard from its origin before.
pub(super) fn judge(known: Option<Receiver>, stamp: &DeliveryStamp) -> Result<Heard, AcceptError> {
    let mut receiver = known.clone().unwrap_or_else(|| Receiver {
        origin: stamp.origin.clone(),
        generation: stamp.generation,
        token: FencingToken(0),
        next: 1,
        origin_hash: stamp.origin_hash,
    });
    receiver.check_origin(stamp)?;
    if stamp.token < receiver.token {
        return Err(AcceptError::StalePublisher { highest: receiver.token });
    }
    receiver.origin_hash = receiver.hash_after(stamp);
    receiver.token = stamp.token;
    let mut is_next = false;
    if stamp.generation >= receiver.generation {
        if stamp.generation > receiver.generation {
            receiver.generation = stamp.generation;
            receiver.next = 1;
        }
        receiver.next = receiver.next.max(stamp.lowest_open);
        if stamp.number > receiver.next {
            return Err(AcceptError::Gap { next: receiver.next });
        }
        is_next = stamp.number == receiver.next;
        receiver.next += u64::from(is_next);
    }
    Ok(Heard { is_known: known.as_ref() == Some(&receiver), receiver, is_next })
}

/// By which hash an agent is known here to somebody who has heard nothing from it: that of its own row, or what another agent has
/// heard.
pub(super) fn known_hash(conn: &Connection, origin: &AgentId) -> Fallible<Option<OriginHash>> {
    let own = first(
        conn,
        "SELECT e.public FROM agent a JOIN entity_key e ON e.agent = a.key WHERE a.id = ?1 AND a.home < 4",
        params![origin.as_str()],
        |row| Ok(EntityPublicKey(row.get(0)?).origin_hash()),
    )?;
    if own.is_some() {
        return Ok(own);
    }
    first(
        conn,
        "SELECT origin_hash FROM receiver WHERE origin = ?1 AND origin_hash IS NOT NULL LIMIT 1",
        params![origin.as_str()],
        |row| Ok(OriginHash(u64::from_le_bytes(row.get(0)?))),
    )
}

pub(in crate::sqlite) fn receiver(
    conn: &Connection,
    agent: i64,
    origin: &AgentId,
) -> Fallible<Option<Receiver>> {
    first(
        conn,
        "SELECT generation, token, next, origin_hash FROM receiver WHERE agent = ?1 AND origin = ?2",
        params![agent, origin.as_str()],
        |row| heard(row, origin),
    )
}

/// What all agents here have heard from an origin.
pub(in crate::sqlite) fn heard_of(conn: &Connection, origin: &AgentId) -> Fallible<Vec<Receiver>> {
    all(
        conn,
        "SELECT r.generation, r.token, r.next, r.origin_hash FROM receiver r JOIN agent a ON a.key = r.agent
         WHERE r.origin = ?1 AND a.home < 4 LIMIT ?2",
        params![origin.as_str(), PAGE_MAX as i64],
        |row| heard(row, origin),
    )
}

fn heard(row: &Row<'_>, origin: &AgentId) -> Fallible<Receiver> {
    Ok(Receiver {
        origin: origin.clone(),
        generation: Generation(row.get::<_, Int>(0)?.0),
        token: FencingToken(row.get::<_, Int>(1)?.0),
        next: row.get::<_, Int>(2)?.0,
        origin_hash: row.get::<_, Option<[u8; 8]>>(3)?.map(u64::from_le_bytes).map(OriginHash),
    })
}

/// Writes what was heard; of two writes the one with the higher change number stays.
pub(in crate::sqlite) fn write_receiver(
    tx: &Tx<'_>,
    agent: i64,
    change: Int,
    receiver: &Receiver,
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO receiver (agent, origin, change, generation, token, next, origin_hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (agent, origin) DO UPDATE SET change = excluded.change, generation = excluded.generation,
             token = excluded.token, next = excluded.next, origin_hash = excluded.origin_hash
         WHERE excluded.change > receiver.change",
        params![
            agent,
            receiver.origin.as_str(),
            change,
            Int(receiver.generation.0),
            Int(receiver.token.0),
            Int(receiver.next),
            receiver.origin_hash.map(|hash| hash.0.to_le_bytes()),
        ],
    )
    .map(drop)
}
