//! The documents of a flawed store, and what it tells of channels and groups.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Flaw, Flawed};
use crate::channel::{ChannelName, ChannelView, Subscriber, Subscription};
use crate::group::GroupName;
use crate::id::{AgentId, Incarnation, MigrationId};
use crate::input::NewInput;
use crate::output::StoredOutput;
use crate::standby::Verdict;
use crate::store::standby::{Delta, Round, StandbyCopy};
use crate::store::{
    AcceptError, Accepted, AgentRow, AuthFlowError, AuthFlowUpdate, Row, RuntimeStore, StoreChannels,
    StoreDocuments, StoreError, StoreGroups, StoreStandbys,
};

#[async_trait]
impl StoreDocuments for Flawed {
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError> {
        self.inner.put_roster(roster).await
    }

    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.inner.roster().await
    }

    fn auth_authority_key(&self) -> Option<String> {
        self.inner.auth_authority_key()
    }

    async fn persist_auth_flow(&self, payload: Bytes) -> Result<(), StoreError> {
        self.inner.persist_auth_flow(payload).await
    }

    async fn load_auth_flow(&self) -> Result<Option<Bytes>, StoreError> {
        self.inner.load_auth_flow().await
    }

    async fn update_auth_flow(&self, update: AuthFlowUpdate) -> Result<Bytes, AuthFlowError> {
        if self.flaw != Flaw::UpdatesTorn {
            return self.inner.update_auth_flow(update).await;
        }
        let current = self.inner.load_auth_flow().await?;
        tokio::task::yield_now().await;
        let next = update(current.as_deref()).map_err(|reason| AuthFlowError::Refused { reason })?;
        tokio::task::yield_now().await;
        self.inner.persist_auth_flow(Bytes::from(next.clone())).await?;
        Ok(Bytes::from(next))
    }
}

#[async_trait]
impl StoreChannels for Flawed {
    async fn channels(
        &self,
        agent: &AgentId,
        only: Option<&ChannelName>,
    ) -> Result<Vec<ChannelView>, StoreError> {
        self.inner.channels(agent, only).await
    }

    async fn subscribers(
        &self,
        agent: &AgentId,
        channel: &ChannelName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<Subscriber>, StoreError> {
        self.inner.subscribers(agent, channel, after, limit).await
    }

    async fn subscriptions(&self, agent: &AgentId) -> Result<Vec<Subscription>, StoreError> {
        self.inner.subscriptions(agent).await
    }

    async fn waiting(&self, agent: &AgentId, destination: &AgentId) -> Result<u64, StoreError> {
        self.inner.waiting(agent, destination).await
    }

    async fn first_outputs(
        &self,
        agent: &AgentId,
        resting: &BTreeSet<AgentId>,
        most: (usize, usize),
    ) -> Result<Vec<StoredOutput>, StoreError> {
        self.inner.first_outputs(agent, resting, most).await
    }

    async fn accept_deliveries(
        &self,
        mut inputs: Vec<NewInput>,
        by: Incarnation,
    ) -> Vec<Result<Accepted, AcceptError>> {
        if self.flaw == Flaw::DeliveriesShuffled {
            inputs.reverse();
        }
        let mut accepted = Vec::with_capacity(inputs.len());
        for input in inputs {
            accepted.push(self.accept(input, by).await);
        }
        accepted
    }
}

#[async_trait]
impl StoreGroups for Flawed {
    async fn members(
        &self,
        group: &GroupName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRow>, StoreError> {
        self.inner.members(group, after, limit).await
    }
}

#[async_trait]
impl StoreStandbys for Flawed {
    async fn guarded(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        self.inner.guarded(after, limit).await
    }

    async fn delta(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Option<Delta>, StoreError> {
        let mut delta = self.inner.delta(agent, after, bytes_max).await?;
        if let Some(delta) = delta.as_mut().filter(|_| self.flaw == Flaw::DeletesForgotten) {
            delta.frames.retain(|frame| !matches!(frame.row, Row::Deleted(_)));
        }
        Ok(delta)
    }

    async fn forget_deletes(&self, agent: &AgentId, up_to: u64) -> Result<(), StoreError> {
        self.inner.forget_deletes(agent, up_to).await
    }

    async fn stand_by(&self, round: Round) -> Result<Verdict, StoreError> {
        self.inner.stand_by(round).await
    }

    async fn standby_copies(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<StandbyCopy>, StoreError> {
        self.inner.standby_copies(after, limit).await
    }

    async fn standby_copy(&self, agent: &AgentId) -> Result<Option<StandbyCopy>, StoreError> {
        self.inner.standby_copy(agent).await
    }

    async fn discard_standby(&self, agent: &AgentId, session: MigrationId) -> Result<(), StoreError> {
        self.inner.discard_standby(agent, session).await
    }

    async fn promote(&self, agent: &AgentId, session: MigrationId) -> Result<AgentRow, StoreError> {
        self.inner.promote(agent, session).await
    }
}
