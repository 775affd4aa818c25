//! The documents of the simulated store, and what it tells of channels and groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::channel::{ChannelName, ChannelView, Subscriber, Subscription};
use godwit_core::group::GroupName;
use godwit_core::id::{AgentId, Incarnation, MigrationId};
use godwit_core::input::NewInput;
use godwit_core::output::StoredOutput;
use godwit_core::standby::Verdict;
use godwit_core::store::standby::{Delta, Round, StandbyCopy};
use godwit_core::store::{
    AcceptError, Accepted, AgentRow, RuntimeStore, StoreChannels, StoreDocuments, StoreError, StoreGroups,
    StoreStandbys,
};

use super::{FaultyStore, Way};
use crate::world::{World, now};

#[async_trait]
impl StoreDocuments for FaultyStore {
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError> {
        self.call("put_roster", Way::Write, move |world, _| now(world.memory.put_roster(roster))).await
    }

    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.call("roster", Way::Read, move |world, _| now(world.memory.roster())).await
    }
}

#[async_trait]
impl StoreChannels for FaultyStore {
    async fn channels(
        &self,
        agent: &AgentId,
        only: Option<&ChannelName>,
    ) -> Result<Vec<ChannelView>, StoreError> {
        let (agent, only) = (agent.clone(), only.cloned());
        let run = move |world: &Arc<World>, _| now(world.memory.channels(&agent, only.as_ref()));
        self.call("channels", Way::Read, run).await
    }

    async fn subscribers(
        &self,
        agent: &AgentId,
        channel: &ChannelName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<Subscriber>, StoreError> {
        let (agent, channel, after) = (agent.clone(), channel.clone(), after.cloned());
        let run = move |world: &Arc<World>, _| {
            now(world.memory.subscribers(&agent, &channel, after.as_ref(), limit))
        };
        self.call("subscribers", Way::Read, run).await
    }

    async fn subscriptions(&self, agent: &AgentId) -> Result<Vec<Subscription>, StoreError> {
        let agent = agent.clone();
        self.call("subscriptions", Way::Read, move |world, _| now(world.memory.subscriptions(&agent))).await
    }

    async fn waiting(&self, agent: &AgentId, destination: &AgentId) -> Result<u64, StoreError> {
        let (agent, destination) = (agent.clone(), destination.clone());
        let run = move |world: &Arc<World>, _| now(world.memory.waiting(&agent, &destination));
        self.call("waiting", Way::Read, run).await
    }

    async fn first_outputs(
        &self,
        agent: &AgentId,
        resting: &BTreeSet<AgentId>,
        most: (usize, usize),
    ) -> Result<Vec<StoredOutput>, StoreError> {
        let (agent, resting) = (agent.clone(), resting.clone());
        let run = move |world: &Arc<World>, _| now(world.memory.first_outputs(&agent, &resting, most));
        self.call("first_outputs", Way::Read, run).await
    }

    /// One after the other, so that each may get lost by itself.
    async fn accept_deliveries(
        &self,
        inputs: Vec<NewInput>,
        by: Incarnation,
    ) -> Vec<Result<Accepted, AcceptError>> {
        let mut accepted = Vec::with_capacity(inputs.len());
        for input in inputs {
            accepted.push(self.accept(input, by).await);
        }
        accepted
    }
}

#[async_trait]
impl StoreGroups for FaultyStore {
    async fn members(
        &self,
        group: &GroupName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRow>, StoreError> {
        let (group, after) = (group.clone(), after.cloned());
        let run = move |world: &Arc<World>, _| now(world.memory.members(&group, after.as_ref(), limit));
        self.call("members", Way::Read, run).await
    }
}

#[async_trait]
impl StoreStandbys for FaultyStore {
    async fn guarded(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        let after = after.cloned();
        self.call("guarded", Way::Read, move |world, _| now(world.memory.guarded(after.as_ref(), limit)))
            .await
    }

    async fn delta(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Option<Delta>, StoreError> {
        let agent = agent.clone();
        let run = move |world: &Arc<World>, _| now(world.memory.delta(&agent, after, bytes_max));
        self.call("delta", Way::Read, run).await
    }

    async fn forget_deletes(&self, agent: &AgentId, up_to: u64) -> Result<(), StoreError> {
        let agent = agent.clone();
        let run = move |world: &Arc<World>, _| now(world.memory.forget_deletes(&agent, up_to));
        self.call("forget_deletes", Way::Write, run).await
    }

    async fn stand_by(&self, round: Round) -> Result<Verdict, StoreError> {
        self.call("stand_by", Way::Write, move |world, _| now(world.memory.stand_by(round))).await
    }

    async fn standby_copies(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<StandbyCopy>, StoreError> {
        let after = after.cloned();
        let run = move |world: &Arc<World>, _| now(world.memory.standby_copies(after.as_ref(), limit));
        self.call("standby_copies", Way::Read, run).await
    }

    async fn standby_copy(&self, agent: &AgentId) -> Result<Option<StandbyCopy>, StoreError> {
        let agent = agent.clone();
        self.call("standby_copy", Way::Read, move |world, _| now(world.memory.standby_copy(&agent))).await
    }

    async fn discard_standby(&self, agent: &AgentId, session: MigrationId) -> Result<(), StoreError> {
        let agent = agent.clone();
        let run = move |world: &Arc<World>, _| now(world.memory.discard_standby(&agent, session));
        self.call("discard_standby", Way::Write, run).await
    }

    async fn promote(&self, agent: &AgentId, session: MigrationId) -> Result<AgentRow, StoreError> {
        let agent = agent.clone();
        let run = move |world: &Arc<World>, _| now(world.memory.promote(&agent, session));
        self.call("promote", Way::Write, run).await
    }
}
