//! What a store tells of channels, and of what is to be delivered; deliveries in one step. Part of the contract of `store`.
//!
//! Rows of channels are written by what they are about: a boundary (`Boundary::channels`, and outputs that have to do with
//! channels), `accept` of a delivery that has, `end_outputs` and `commit_lifecycle`, each as `crate::channel::rules` says. They
//! travel with their agent, stay over everything but its deletion, and go with that: subscribers are told, and owners asked to
//! send nothing more. A reset leaves them, and makes all tokens of the agent worthless, with the subscriptions that stand on them.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{AcceptError, Accepted, StoreError};
use crate::channel::{ChannelName, ChannelView, Subscriber, Subscription};
use crate::id::{AgentId, Incarnation};
use crate::input::NewInput;
use crate::output::StoredOutput;

/// Channels of a store's agents.
#[async_trait]
pub trait StoreChannels: Send + Sync + 'static {
    /// The channels of an agent by name, all or one. **R**
    async fn channels(
        &self,
        agent: &AgentId,
        only: Option<&ChannelName>,
    ) -> Result<Vec<ChannelView>, StoreError>;

    /// Who subscribes to a channel, by name, behind `after`. **R**
    async fn subscribers(
        &self,
        agent: &AgentId,
        channel: &ChannelName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<Subscriber>, StoreError>;

    /// What an agent subscribes to, by owner and channel. **R**
    async fn subscriptions(&self, agent: &AgentId) -> Result<Vec<Subscription>, StoreError>;

    /// How many pending outputs of an agent are for a destination. **R**
    async fn waiting(&self, agent: &AgentId, destination: &AgentId) -> Result<u64, StoreError>;

    /// Pending outputs of an agent in commit order, but those for `resting`. Destinations come in the order of their first ones,
    /// each with its first ones, at most `each`, until there are `limit` in all; capped at `PAGE_MAX`. **R**
    async fn first_outputs(
        &self,
        agent: &AgentId,
        resting: &BTreeSet<AgentId>,
        (each, limit): (usize, usize),
    ) -> Result<Vec<StoredOutput>, StoreError>;

    /// Accepts deliveries in order, as `accept` does each, in one transaction; one answer for each. Those of one origin for one
    /// receiver are in the order of their numbers. A delivery that is refused leaves the others alone.
    /// Publications that are asked for become at most `FAN_OUT_MAX` copies; a delivery that would be above that is `Busy`.
    ///
    /// Crash: all of them or none.
    async fn accept_deliveries(
        &self,
        inputs: Vec<NewInput>,
        by: Incarnation,
    ) -> Vec<Result<Accepted, AcceptError>>;
}
