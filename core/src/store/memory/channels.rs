//! Channels: their rows, and what the rules of `crate::channel::rules` work on.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use async_trait::async_trait;

use super::MemoryStore;
use crate::channel::rules::Copies;
use crate::channel::{
    Channel, ChannelName, ChannelTable, ChannelView, Publication, Subscriber, Subscription,
};
use crate::event::NewEvent;
use crate::id::{AgentId, Incarnation, Revision};
use crate::input::NewInput;
use crate::limits::PAGE_MAX;
use crate::output::{Output, OutputState, StoredOutput};
use crate::store::commit::{AcceptError, Accepted};
use crate::store::memory::rows::AgentRows;
use crate::store::rows::{Row, RowKey};
use crate::store::{StoreChannels, StoreError};

/// The rows of an agent that have to do with channels.
#[derive(Debug, Clone, Default)]
pub(super) struct ChannelRows {
    channels: BTreeMap<ChannelName, Channel>,
    subscribers: BTreeMap<(ChannelName, AgentId), Subscriber>,
    subscriptions: BTreeMap<(AgentId, ChannelName), Subscription>,
}

impl ChannelRows {
    pub(super) fn channel_row(&self, name: &ChannelName) -> Row {
        let deleted = Row::Deleted(RowKey::Channel(name.clone()));
        self.channels.get(name).cloned().map_or(deleted, Row::Channel)
    }

    pub(super) fn subscriber_row(&self, channel: &ChannelName, agent: &AgentId) -> Row {
        let deleted = Row::Deleted(RowKey::Subscriber(channel.clone(), agent.clone()));
        self.subscribers.get(&(channel.clone(), agent.clone())).cloned().map_or(deleted, Row::Subscriber)
    }

    pub(super) fn subscription_row(&self, owner: &AgentId, channel: &ChannelName) -> Row {
        let deleted = Row::Deleted(RowKey::Subscription(owner.clone(), channel.clone()));
        self.subscriptions.get(&(owner.clone(), channel.clone())).cloned().map_or(deleted, Row::Subscription)
    }

    /// Writes or deletes one of these rows; of all others nothing happens.
    pub(super) fn set(&mut self, row: Row) {
        match row {
            Row::Channel(channel) => {
                self.channels.insert(channel.name.clone(), channel);
            }
            Row::Subscriber(subscriber) => {
                let key = (subscriber.channel.clone(), subscriber.agent.clone());
                self.subscribers.insert(key, subscriber);
            }
            Row::Subscription(subscription) => {
                let key = (subscription.owner.clone(), subscription.channel.clone());
                self.subscriptions.insert(key, subscription);
            }
            Row::Deleted(RowKey::Channel(name)) => {
                self.channels.remove(&name);
            }
            Row::Deleted(RowKey::Subscriber(channel, agent)) => {
                self.subscribers.remove(&(channel, agent));
            }
            Row::Deleted(RowKey::Subscription(owner, channel)) => {
                self.subscriptions.remove(&(owner, channel));
            }
            _ => {}
        }
    }

    /// Who subscribes to a channel, by name.
    fn of_channel<'a>(&'a self, channel: &'a ChannelName) -> impl Iterator<Item = &'a Subscriber> {
        self.subscribers.values().filter(move |subscriber| subscriber.channel == *channel)
    }
}

/// The rows of an agent as the rules see them.
pub(super) struct Table<'a> {
    rows: &'a mut AgentRows,
    /// Of the outputs that are appended.
    revision: Revision,
    committed_at_ms: u64,
    /// What is to be told.
    pub(super) events: Vec<NewEvent>,
}

impl<'a> Table<'a> {
    /// The rows, for outputs of a revision.
    pub(super) fn new(rows: &'a mut AgentRows, revision: Revision, committed_at_ms: u64) -> Self {
        Self { rows, revision, committed_at_ms, events: Vec::new() }
    }

    /// The rows, for what happens outside a boundary.
    pub(super) fn between(rows: &'a mut AgentRows, now_ms: u64) -> Self {
        let revision = rows.portable().revision;
        Self::new(rows, revision, now_ms)
    }
}

impl ChannelTable for Table<'_> {
    type Error = Infallible;

    fn channel(&mut self, name: &ChannelName) -> Result<Option<Channel>, Infallible> {
        Ok(self.rows.channels().channels.get(name).cloned())
    }

    fn channels(&mut self) -> Result<Vec<Channel>, Infallible> {
        Ok(self.rows.channels().channels.values().cloned().collect())
    }

    fn put_channel(&mut self, channel: Channel) -> Result<(), Infallible> {
        self.rows.put(Row::Channel(channel));
        Ok(())
    }

    fn delete_channel(&mut self, name: &ChannelName) -> Result<(), Infallible> {
        self.rows.delete(RowKey::Channel(name.clone()));
        Ok(())
    }

    fn subscribers(&mut self, channel: &ChannelName) -> Result<Vec<(Subscriber, u64)>, Infallible> {
        let subscribers = self.rows.channels().of_channel(channel);
        Ok(subscribers.map(|known| (known.clone(), self.rows.waiting(&known.agent))).collect())
    }

    fn subscriber_count(&mut self) -> Result<usize, Infallible> {
        Ok(self.rows.channels().subscribers.len())
    }

    fn subscriber(
        &mut self,
        channel: &ChannelName,
        agent: &AgentId,
    ) -> Result<Option<Subscriber>, Infallible> {
        Ok(self.rows.channels().subscribers.get(&(channel.clone(), agent.clone())).cloned())
    }

    fn put_subscriber(&mut self, subscriber: Subscriber) -> Result<(), Infallible> {
        self.rows.put(Row::Subscriber(subscriber));
        Ok(())
    }

    fn delete_subscriber(&mut self, channel: &ChannelName, agent: &AgentId) -> Result<(), Infallible> {
        self.rows.delete(RowKey::Subscriber(channel.clone(), agent.clone()));
        Ok(())
    }

    fn subscription(
        &mut self,
        owner: &AgentId,
        channel: &ChannelName,
    ) -> Result<Option<Subscription>, Infallible> {
        Ok(self.rows.channels().subscriptions.get(&(owner.clone(), channel.clone())).cloned())
    }

    fn subscriptions(&mut self) -> Result<Vec<Subscription>, Infallible> {
        Ok(self.rows.channels().subscriptions.values().cloned().collect())
    }

    fn put_subscription(&mut self, subscription: Subscription) -> Result<(), Infallible> {
        self.rows.put(Row::Subscription(subscription));
        Ok(())
    }

    fn delete_subscription(&mut self, owner: &AgentId, channel: &ChannelName) -> Result<(), Infallible> {
        self.rows.delete(RowKey::Subscription(owner.clone(), channel.clone()));
        Ok(())
    }

    fn waiting(&mut self, receiver: &AgentId) -> Result<u64, Infallible> {
        Ok(self.rows.waiting(receiver))
    }

    fn append(&mut self, _index: usize, output: &Output) -> Result<(), Infallible> {
        self.send(output.clone())
    }

    fn send(&mut self, output: Output) -> Result<(), Infallible> {
        let number = self.rows.next_number(&output.destination);
        let (agent, generation) = (self.rows.portable().agent.clone(), self.rows.portable().generation);
        let position = self.rows.portable().next_output;
        self.rows.put(Row::Destination {
            destination: output.destination.clone(),
            generation,
            next_number: number + 1,
        });
        self.rows.put(Row::Output(StoredOutput {
            agent,
            generation,
            number,
            revision: self.revision,
            position,
            committed_at_ms: self.committed_at_ms,
            output,
            state: OutputState::Pending,
        }));
        self.rows.update(|portable| portable.next_output = position + 1);
        Ok(())
    }

    fn fan_out(&mut self, publications: &[Publication<'_>], to: &[AgentId]) -> Result<(), Infallible> {
        let mut events =
            publications.iter().flat_map(|publication| to.iter().map(|agent| publication.event(agent)));
        events.try_for_each(|event| self.send(event))
    }

    fn tell(&mut self, event: NewEvent) -> Result<(), Infallible> {
        self.events.push(event);
        Ok(())
    }
}

#[async_trait]
impl StoreChannels for MemoryStore {
    async fn channels(
        &self,
        agent: &AgentId,
        only: Option<&ChannelName>,
    ) -> Result<Vec<ChannelView>, StoreError> {
        Ok(self.read(agent, |rows| {
            let known = rows.channels();
            let channels =
                known.channels.values().filter(|channel| only.is_none_or(|only| channel.name == *only));
            let view = |channel: &Channel| {
                let backlog = known.of_channel(&channel.name).map(|known| rows.waiting(&known.agent)).max();
                ChannelView {
                    channel: channel.clone(),
                    subscribers: known.of_channel(&channel.name).count() as u64,
                    backlog: backlog.unwrap_or(0),
                }
            };
            channels.map(view).collect()
        }))
    }

    async fn subscribers(
        &self,
        agent: &AgentId,
        channel: &ChannelName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<Subscriber>, StoreError> {
        Ok(self.read(agent, |rows| {
            let behind = rows.channels().of_channel(channel);
            let behind = behind.filter(|known| after.is_none_or(|after| known.agent > *after));
            behind.take(limit.min(PAGE_MAX)).cloned().collect()
        }))
    }

    async fn subscriptions(&self, agent: &AgentId) -> Result<Vec<Subscription>, StoreError> {
        Ok(self.read(agent, |rows| rows.channels().subscriptions.values().cloned().collect()))
    }

    async fn waiting(&self, agent: &AgentId, destination: &AgentId) -> Result<u64, StoreError> {
        Ok(self.read(agent, |rows| rows.waiting(destination)))
    }

    async fn first_outputs(
        &self,
        agent: &AgentId,
        resting: &BTreeSet<AgentId>,
        (each, limit): (usize, usize),
    ) -> Result<Vec<StoredOutput>, StoreError> {
        let limit = limit.min(PAGE_MAX);
        Ok(self.read(agent, |rows| {
            let goes = |stored: &&StoredOutput| {
                stored.state == OutputState::Pending && !resting.contains(&stored.output.destination)
            };
            let mut lanes: BTreeMap<&AgentId, Vec<&StoredOutput>> = BTreeMap::new();
            for stored in rows.outputs_after(0).filter(goes) {
                let lane = lanes.entry(&stored.output.destination).or_default();
                if lane.len() < each {
                    lane.push(stored);
                }
            }
            let mut lanes: Vec<_> = lanes.into_values().collect();
            lanes.sort_by_key(|lane| lane.first().map(|first| first.position));
            let mut outputs: Vec<_> = lanes.into_iter().flatten().take(limit).cloned().collect();
            outputs.sort_by_key(|stored| stored.position);
            outputs
        }))
    }

    async fn accept_deliveries(
        &self,
        inputs: Vec<NewInput>,
        by: Incarnation,
    ) -> Vec<Result<Accepted, AcceptError>> {
        let now_ms = self.clock.wall_ms();
        let (mut tables, mut copies) = (self.tables(), Copies::default());
        inputs.into_iter().map(|input| tables.accept(input, by, &mut copies, now_ms)).collect()
    }
}
