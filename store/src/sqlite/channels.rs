//! Channels: rows, and the table that the rules of `godwit_core::channel::rules` work on.
//!
//! A publication's body is stored once, in `publication`, and the outputs of its subscribers name it; it goes with the last of
//! them. Another store gets each output whole.

use std::collections::BTreeMap;

use godwit_core::channel::rules::{self, Copies, Delivered, Heard};
use godwit_core::channel::{
    Channel, ChannelChange, ChannelDelivery, ChannelMessage, ChannelName, ChannelTable, ChannelView,
    Publication, Subscriber, Subscription, token,
};
use godwit_core::event::NewEvent;
use godwit_core::id::AgentId;
use godwit_core::input::DeliveryStamp;
use godwit_core::output::{Output, StoredOutput};
use godwit_core::receipt::Receipt;
use godwit_core::store::{AcceptError, Owner, RowKey};
use rusqlite::{Connection, Row, params};
use serde::de::DeserializeOwned;

use super::agents::Head;
use super::codec::{Int, seal, unseal};
use super::error::{Fail, Fallible};
use super::inputs::{self, Arrival, Hearing, admit, key_of};
use super::outbox::{self, Body, Place};
use super::sql::{all, execute, first};
use super::state::bury;
use super::writer::Tx;
use super::{entity_keys, events};

/// The rows of an agent as the rules see them.
struct Table<'a, 'tx> {
    tx: &'a Tx<'tx>,
    head: &'a mut Head,
    place: Place,
    /// The outputs of the turn that commits, sealed.
    sealed: &'a [Vec<u8>],
}

impl<'a, 'tx> Table<'a, 'tx> {
    /// The rows, for what happens outside a boundary.
    fn between(tx: &'a Tx<'tx>, head: &'a mut Head) -> Self {
        let place = Place { revision: head.revision, committed_at_ms: tx.now_ms() };
        Self { tx, head, place, sealed: &[] }
    }

    /// Deletes a row, and keeps a tombstone of it while that is asked.
    fn delete(&mut self, sql: &str, row: &RowKey, (first, second): (&str, Option<&str>)) -> Fallible<()> {
        let deleted = match second {
            Some(second) => execute(self.tx.conn, sql, params![self.head.key, first, second])?,
            None => execute(self.tx.conn, sql, params![self.head.key, first])?,
        };
        if deleted > 0 && self.head.keeps_deletes() {
            let change = self.head.change();
            bury(self.tx, self.head.key, change, row)?;
        }
        Ok(())
    }
}

fn what(agent: &AgentId) -> impl Fn() -> String {
    move || format!("a row of a channel of agent {agent}")
}

fn opened<T: DeserializeOwned>(row: &Row<'_>, agent: &AgentId) -> Fallible<T> {
    unseal(&row.get::<_, Vec<u8>>(0)?, what(agent))
}

impl ChannelTable for Table<'_, '_> {
    type Error = Fail;

    fn channel(&mut self, name: &ChannelName) -> Fallible<Option<Channel>> {
        channel(self.tx.conn, (self.head.key, &self.head.agent), name)
    }

    fn channels(&mut self) -> Fallible<Vec<Channel>> {
        let sql = "SELECT sealed FROM channel WHERE agent = ?1 ORDER BY name";
        all(self.tx.conn, sql, params![self.head.key], |row| opened(row, &self.head.agent))
    }

    fn put_channel(&mut self, channel: Channel) -> Fallible<()> {
        let change = self.head.change();
        put_channel(self.tx, (self.head.key, change), &channel)
    }

    fn delete_channel(&mut self, name: &ChannelName) -> Fallible<()> {
        let row = RowKey::Channel(name.clone());
        self.delete("DELETE FROM channel WHERE agent = ?1 AND name = ?2", &row, (name.as_str(), None))
    }

    fn subscribers(&mut self, channel: &ChannelName) -> Fallible<Vec<(Subscriber, u64)>> {
        all(
            self.tx.conn,
            "SELECT s.sealed, coalesce((SELECT sum(d.waiting) FROM destination d
                 WHERE d.agent = s.agent AND d.destination = s.subscriber), 0)
             FROM subscriber s WHERE s.agent = ?1 AND s.channel = ?2 ORDER BY s.subscriber",
            params![self.head.key, channel.as_str()],
            |row| Ok((opened(row, &self.head.agent)?, row.get::<_, Int>(1)?.0)),
        )
    }

    fn subscriber_count(&mut self) -> Fallible<usize> {
        let sql = "SELECT count(*) FROM subscriber WHERE agent = ?1";
        let count = first(self.tx.conn, sql, params![self.head.key], |row| Ok(row.get::<_, i64>(0)?))?;
        Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
    }

    fn subscriber(&mut self, channel: &ChannelName, agent: &AgentId) -> Fallible<Option<Subscriber>> {
        subscriber(self.tx.conn, (self.head.key, &self.head.agent), channel, agent)
    }

    fn put_subscriber(&mut self, subscriber: Subscriber) -> Fallible<()> {
        let change = self.head.change();
        put_subscriber(self.tx, (self.head.key, change), &subscriber)
    }

    fn delete_subscriber(&mut self, channel: &ChannelName, agent: &AgentId) -> Fallible<()> {
        let row = RowKey::Subscriber(channel.clone(), agent.clone());
        let sql = "DELETE FROM subscriber WHERE agent = ?1 AND channel = ?2 AND subscriber = ?3";
        self.delete(sql, &row, (channel.as_str(), Some(agent.as_str())))
    }

    fn subscription(&mut self, owner: &AgentId, channel: &ChannelName) -> Fallible<Option<Subscription>> {
        subscription(self.tx.conn, (self.head.key, &self.head.agent), owner, channel)
    }

    fn subscriptions(&mut self) -> Fallible<Vec<Subscription>> {
        list_subscriptions(self.tx.conn, self.head.key, &self.head.agent)
    }

    fn put_subscription(&mut self, subscription: Subscription) -> Fallible<()> {
        let change = self.head.change();
        put_subscription(self.tx, (self.head.key, change), &subscription)
    }

    fn delete_subscription(&mut self, owner: &AgentId, channel: &ChannelName) -> Fallible<()> {
        let row = RowKey::Subscription(owner.clone(), channel.clone());
        let sql = "DELETE FROM subscription WHERE agent = ?1 AND owner = ?2 AND channel = ?3";
        self.delete(sql, &row, (owner.as_str(), Some(channel.as_str())))
    }

    fn waiting(&mut self, receiver: &AgentId) -> Fallible<u64> {
        waiting(self.tx.conn, self.head.key, receiver)
    }

    fn append(&mut self, index: usize, output: &Output) -> Fallible<()> {
        match self.sealed.get(index) {
            Some(sealed) => {
                outbox::append(self.tx, self.head, &self.place, &output.destination, Body::Own(sealed))
            }
            None => self.send(output.clone()),
        }
    }

    fn send(&mut self, output: Output) -> Fallible<()> {
        let sealed = seal(&output);
        outbox::append(self.tx, self.head, &self.place, &output.destination, Body::Own(&sealed))
    }

    fn fan_out(&mut self, publications: &[Publication<'_>], to: &[AgentId]) -> Fallible<()> {
        if to.is_empty() {
            return Ok(());
        }
        let count = publications.len() as u64;
        let numbers: Vec<u64> = to
            .iter()
            .map(|subscriber| outbox::take_numbers(self.tx, self.head, subscriber, count))
            .collect::<Fallible<_>>()?;
        for (place, publication) in publications.iter().enumerate() {
            let position = Int(self.head.next_output);
            self.head.next_output += 1;
            execute(
                self.tx.conn,
                "INSERT INTO publication (agent, position, outputs, channel, number, published_by, sealed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    self.head.key,
                    position,
                    Int(to.len() as u64),
                    publication.channel.as_str(),
                    Int(publication.number),
                    publication.by.map(AgentId::as_str),
                    seal(publication.body),
                ],
            )?;
            for (subscriber, first) in to.iter().zip(&numbers) {
                let (number, body) = (first + place as u64, Body::Shared(position));
                outbox::append_as(self.tx, self.head, &self.place, (subscriber, number), body)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: NewEvent) -> Fallible<()> {
        events::append_of(self.tx, self.head, &[event])
    }
}

// --- what other writes do

/// Appends the outputs of a turn, and does what it does to its channels.
pub(super) fn commit(
    tx: &Tx<'_>,
    head: &mut Head,
    receipt: &Receipt,
    (outputs, sealed): (&[Output], &[Vec<u8>]),
    changes: &[ChannelChange],
) -> Fallible<()> {
    let agent = head.agent.clone();
    let owner = token::Owner { agent: &agent, generation: head.generation, public_key: None };
    let place = Place { revision: receipt.revision, committed_at_ms: receipt.committed_at_ms };
    let now_ms = tx.now_ms();
    let mut table = Table { tx, head, place, sealed };
    rules::commit(&mut table, &owner, receipt.revision, (outputs, changes), now_ms)
}

/// Lets go of an agent's channels and subscriptions when it is deleted.
pub(super) fn delete_all(tx: &Tx<'_>, head: &mut Head) -> Fallible<()> {
    let agent = head.agent.clone();
    rules::delete(&mut Table::between(tx, head), &agent, tx.now_ms())
}

/// Lets an agent's channels take the tokens of the generation that a reset has begun.
pub(super) fn reset(tx: &Tx<'_>, head: &mut Head) -> Fallible<()> {
    rules::reset(&mut Table::between(tx, head))
}

/// Does what a delivered request asks.
pub(super) fn hear(
    tx: &Tx<'_>,
    head: &mut Head,
    arrival: &Arrival,
    origin: &AgentId,
    copies: &mut Copies,
) -> Fallible<Result<(), AcceptError>> {
    let Some(ChannelDelivery { message: ChannelMessage::Request(request), .. }) = arrival.channel() else {
        return Ok(Ok(()));
    };
    let public_key = match &arrival.credential {
        Ok(Some(_)) => entity_keys::row(tx.conn, (head.key, &head.agent), None)?.map(|row| row.public()),
        Ok(None) | Err(_) => None,
    };
    let (agent, generation) = (head.agent.clone(), head.generation);
    let owner = token::Owner { agent: &agent, generation, public_key };
    let (credential, input) = (&arrival.credential, &arrival.new.input);
    let delivered = Delivered { origin, request, credential, input };
    let (depth, bytes) = (head.open_inputs, head.open_bytes);
    match rules::hear(&mut Table::between(tx, head), &owner, &delivered, copies, tx.now_ms())? {
        Heard::Answered => Ok(Ok(())),
        Heard::Busy => Ok(Err(AcceptError::Busy { depth, bytes })),
    }
}

/// Whether a delivery is an event that the agent does not take.
pub(super) fn unwanted(
    tx: &Tx<'_>,
    head: &mut Head,
    arrival: &Arrival,
    stamp: &DeliveryStamp,
    hearing: &mut Hearing,
) -> Fallible<Option<AcceptError>> {
    let Some(ChannelDelivery { message: ChannelMessage::Event { channel }, .. }) = arrival.channel() else {
        hearing.note_takes(None);
        return Ok(None);
    };
    if hearing.takes(channel) {
        return Ok(None);
    }
    let (origin, channel) = (stamp.origin.clone(), channel.clone());
    let is_taken = rules::takes_events(&mut Table::between(tx, head), &origin, &channel)?;
    if is_taken {
        hearing.note_takes(Some(channel));
        return Ok(None);
    }
    Ok(Some(AcceptError::NotSubscribed { origin, channel }))
}

/// Takes note of what an accepted delivery says of a subscription.
pub(super) fn told(tx: &Tx<'_>, head: &mut Head, arrival: &Arrival, origin: &AgentId) -> Fallible<()> {
    match arrival.channel() {
        Some(delivery) => {
            let message = &delivery.message;
            rules::told(&mut Table::between(tx, head), origin, &arrival.new.input, message)
        }
        None => Ok(()),
    }
}

/// An output will never arrive: ends its subscription, or tells the agent that its request was refused.
pub(super) fn undeliverable(
    tx: &Tx<'_>,
    head: &mut Head,
    owner: &Owner,
    stored: &StoredOutput,
) -> Fallible<()> {
    if stored.output.channel.is_none() {
        return Ok(());
    }
    let agent = head.agent.clone();
    let answer = rules::undeliverable(&mut Table::between(tx, head), &agent, stored, tx.now_ms())?;
    let Some(answer) = answer.filter(|_| head.lifecycle.accepts()) else {
        return Ok(());
    };
    if inputs::by_id(tx.conn, head.key, &agent, answer.input.id)?.is_some() {
        return Ok(());
    }
    admit(tx, head, &Arrival::new(answer), owner.incarnation).map(drop)
}

/// Publications and how many of their outputs have gone.
#[derive(Default)]
pub(super) struct Spent(BTreeMap<u64, u64>);

impl Spent {
    /// One more output of a publication has gone.
    pub(super) fn add(&mut self, publication: Option<Int>) {
        if let Some(publication) = publication {
            *self.0.entry(publication.0).or_default() += 1;
        }
    }

    /// Removes the publications that nobody waits for any more.
    pub(super) fn settle(self, tx: &Tx<'_>, agent: i64) -> Fallible<()> {
        for (position, gone) in self.0 {
            let left = first(
                tx.conn,
                "UPDATE publication SET outputs = outputs - ?3 WHERE agent = ?1 AND position = ?2 RETURNING outputs",
                params![agent, Int(position), Int(gone)],
                |row| Ok(row.get::<_, Int>(0)?.0),
            )?;
            if left == Some(0) {
                let sql = "DELETE FROM publication WHERE agent = ?1 AND position = ?2";
                execute(tx.conn, sql, params![agent, Int(position)])?;
            }
        }
        Ok(())
    }
}

// --- rows, also from another store: of two of one name the one with the higher change number stays

pub(super) fn put_channel(tx: &Tx<'_>, (agent, change): (i64, Int), channel: &Channel) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO channel (agent, name, change, sealed) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, name) DO UPDATE SET change = excluded.change, sealed = excluded.sealed
         WHERE excluded.change > channel.change",
        params![agent, channel.name.as_str(), change, seal(channel)],
    )
    .map(drop)
}

pub(super) fn put_subscriber(
    tx: &Tx<'_>,
    (agent, change): (i64, Int),
    subscriber: &Subscriber,
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO subscriber (agent, channel, subscriber, change, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (agent, channel, subscriber) DO UPDATE SET change = excluded.change, sealed = excluded.sealed
         WHERE excluded.change > subscriber.change",
        params![agent, subscriber.channel.as_str(), subscriber.agent.as_str(), change, seal(subscriber)],
    )
    .map(drop)
}

pub(super) fn put_subscription(
    tx: &Tx<'_>,
    (agent, change): (i64, Int),
    subscription: &Subscription,
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO subscription (agent, owner, channel, change, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (agent, owner, channel) DO UPDATE SET change = excluded.change, sealed = excluded.sealed
         WHERE excluded.change > subscription.change",
        params![
            agent,
            subscription.owner.as_str(),
            subscription.channel.as_str(),
            change,
            seal(subscription)
        ],
    )
    .map(drop)
}

/// Takes a delete from another store.
pub(super) fn receive_delete(tx: &Tx<'_>, agent: i64, change: Int, row: &RowKey) -> Fallible<()> {
    let deleted = match row {
        RowKey::Channel(name) => execute(
            tx.conn,
            "DELETE FROM channel WHERE agent = ?1 AND name = ?2 AND change < ?3",
            params![agent, name.as_str(), change],
        ),
        RowKey::Subscriber(channel, subscriber) => execute(
            tx.conn,
            "DELETE FROM subscriber WHERE agent = ?1 AND channel = ?2 AND subscriber = ?3 AND change < ?4",
            params![agent, channel.as_str(), subscriber.as_str(), change],
        ),
        RowKey::Subscription(owner, channel) => execute(
            tx.conn,
            "DELETE FROM subscription WHERE agent = ?1 AND owner = ?2 AND channel = ?3 AND change < ?4",
            params![agent, owner.as_str(), channel.as_str(), change],
        ),
        _ => Ok(0),
    };
    deleted.map(drop)
}

// --- reading

pub(super) fn channel(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    name: &ChannelName,
) -> Fallible<Option<Channel>> {
    let sql = "SELECT sealed FROM channel WHERE agent = ?1 AND name = ?2";
    first(conn, sql, params![key, name.as_str()], |row| opened(row, agent))
}

pub(super) fn subscriber(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    channel: &ChannelName,
    subscriber: &AgentId,
) -> Fallible<Option<Subscriber>> {
    let sql = "SELECT sealed FROM subscriber WHERE agent = ?1 AND channel = ?2 AND subscriber = ?3";
    first(conn, sql, params![key, channel.as_str(), subscriber.as_str()], |row| opened(row, agent))
}

pub(super) fn subscription(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    owner: &AgentId,
    channel: &ChannelName,
) -> Fallible<Option<Subscription>> {
    let sql = "SELECT sealed FROM subscription WHERE agent = ?1 AND owner = ?2 AND channel = ?3";
    first(conn, sql, params![key, owner.as_str(), channel.as_str()], |row| opened(row, agent))
}

/// Outputs of an agent that wait for a destination.
pub(super) fn waiting(conn: &Connection, agent: i64, destination: &AgentId) -> Fallible<u64> {
    let sql = "SELECT coalesce(sum(waiting), 0) FROM destination WHERE agent = ?1 AND destination = ?2";
    let waiting = first(conn, sql, params![agent, destination.as_str()], |row| Ok(row.get::<_, Int>(0)?.0))?;
    Ok(waiting.unwrap_or(0))
}

fn list_subscriptions(conn: &Connection, key: i64, agent: &AgentId) -> Fallible<Vec<Subscription>> {
    let sql = "SELECT sealed FROM subscription WHERE agent = ?1 ORDER BY owner, channel";
    all(conn, sql, params![key], |row| opened(row, agent))
}

/// What an agent subscribes to.
pub(super) fn subscriptions(conn: &Connection, agent: &AgentId) -> Fallible<Vec<Subscription>> {
    match key_of(conn, agent)? {
        Some(key) => list_subscriptions(conn, key, agent),
        None => Ok(Vec::new()),
    }
}

/// The subscribers of a channel behind one of them.
pub(super) fn list_subscribers(
    conn: &Connection,
    agent: &AgentId,
    channel: &ChannelName,
    after: Option<&AgentId>,
    limit: usize,
) -> Fallible<Vec<Subscriber>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    all(
        conn,
        "SELECT sealed FROM subscriber WHERE agent = ?1 AND channel = ?2 AND subscriber > ?3
         ORDER BY subscriber LIMIT ?4",
        params![key, channel.as_str(), after.map_or("", AgentId::as_str), limit as i64],
        |row| opened(row, agent),
    )
}

/// The channels of an agent, all or one.
pub(super) fn views(
    conn: &Connection,
    agent: &AgentId,
    only: Option<&ChannelName>,
) -> Fallible<Vec<ChannelView>> {
    let Some(key) = key_of(conn, agent)? else {
        return Ok(Vec::new());
    };
    all(
        conn,
        "SELECT c.sealed,
             (SELECT count(*) FROM subscriber s WHERE s.agent = c.agent AND s.channel = c.name),
             (SELECT coalesce(max((SELECT sum(d.waiting) FROM destination d
                  WHERE d.agent = s.agent AND d.destination = s.subscriber)), 0)
              FROM subscriber s WHERE s.agent = c.agent AND s.channel = c.name)
         FROM channel c WHERE c.agent = ?1 AND (?2 IS NULL OR c.name = ?2) ORDER BY c.name",
        params![key, only.map(ChannelName::as_str)],
        |row| {
            Ok(ChannelView {
                channel: opened(row, agent)?,
                subscribers: row.get::<_, Int>(1)?.0,
                backlog: row.get::<_, Option<Int>>(2)?.map_or(0, |backlog| backlog.0),
            })
        },
    )
}
