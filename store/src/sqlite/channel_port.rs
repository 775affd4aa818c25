//! `StoreChannels` and `StoreGroups`: each method as one write or one read.

use std::collections::BTreeSet;

use async_trait::async_trait;
use godwit_core::channel::{ChannelName, ChannelView, Subscriber, Subscription};
use godwit_core::group::GroupName;
use godwit_core::id::{AgentId, Incarnation};
use godwit_core::input::NewInput;
use godwit_core::limits::PAGE_MAX;
use godwit_core::output::StoredOutput;
use godwit_core::store::{AcceptError, Accepted, AgentRow, StoreChannels, StoreError, StoreGroups};

use super::error::Fail;
use super::inputs::{Arrival, Hearing};
use super::writer::Work;
use super::{SqliteStore, agents, channels, inputs, outbox};

#[async_trait]
impl StoreChannels for SqliteStore {
    async fn channels(
        &self,
        agent: &AgentId,
        only: Option<&ChannelName>,
    ) -> Result<Vec<ChannelView>, StoreError> {
        let (agent, only) = (agent.clone(), only.cloned());
        self.read(move |conn| channels::views(conn, &agent, only.as_ref())).await
    }

    async fn subscribers(
        &self,
        agent: &AgentId,
        channel: &ChannelName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<Subscriber>, StoreError> {
        let (agent, channel, after) = (agent.clone(), channel.clone(), after.cloned());
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| channels::list_subscribers(conn, &agent, &channel, after.as_ref(), limit)).await
    }

    async fn subscriptions(&self, agent: &AgentId) -> Result<Vec<Subscription>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| channels::subscriptions(conn, &agent)).await
    }

    async fn waiting(&self, agent: &AgentId, destination: &AgentId) -> Result<u64, StoreError> {
        let (agent, destination) = (agent.clone(), destination.clone());
        self.read(move |conn| match inputs::key_of(conn, &agent)? {
            Some(key) => channels::waiting(conn, key, &destination),
            None => Ok(0),
        })
        .await
    }

    async fn first_outputs(
        &self,
        agent: &AgentId,
        resting: &BTreeSet<AgentId>,
        (each, limit): (usize, usize),
    ) -> Result<Vec<StoredOutput>, StoreError> {
        let (agent, resting, most) = (agent.clone(), resting.clone(), (each, limit.min(PAGE_MAX)));
        self.read(move |conn| outbox::first_of_each(conn, &agent, &resting, most)).await
    }

    async fn accept_deliveries(
        &self,
        inputs: Vec<NewInput>,
        by: Incarnation,
    ) -> Vec<Result<Accepted, AcceptError>> {
        let count = inputs.len();
        let now_ms = self.env.clock.wall_ms();
        let mut arrivals: Vec<Arrival> = inputs
            .into_iter()
            .map(|mut input| {
                input.input.accepted_at_ms = now_ms;
                Arrival::new(input)
            })
            .collect();
        let bytes = arrivals.iter().map(|arrival| arrival.new.input.payload.len()).sum();
        let accept = move |tx: &super::writer::Tx<'_>| {
            let mut hearing = Hearing::default();
            let mut answers = Vec::with_capacity(arrivals.len());
            for arrival in &mut arrivals {
                hearing.turn_to(tx, &arrival.new)?;
                answers.push(match tx.nested(|| inputs::accept_next(tx, arrival, by, &mut hearing))? {
                    Ok(accepted) => accepted,
                    Err(Fail::Store(error)) => Err(error.into()),
                    Err(error) => return Err(error),
                });
            }
            hearing.write(tx)?;
            Ok(answers)
        };
        let (mut job, answer) = Work::<_, Vec<Result<Accepted, AcceptError>>>::boxed(accept, true);
        (job.bytes, job.shares_heads) = (bytes, true);
        let failed = |error: StoreError| vec![Err(AcceptError::Store(error)); count];
        if let Err(error) = self.queue(job).await {
            return failed(error);
        }
        match answer.await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => failed(error),
            Err(_) => failed(self.closed()),
        }
    }
}

#[async_trait]
impl StoreGroups for SqliteStore {
    async fn members(
        &self,
        group: &GroupName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRow>, StoreError> {
        let (group, after) = (group.clone(), after.cloned());
        self.read(move |conn| agents::members(conn, &group, after.as_ref(), limit.min(PAGE_MAX))).await
    }
}
