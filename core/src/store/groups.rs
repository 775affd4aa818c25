//! What a store tells of groups. Part of the contract of `store`.
//!
//! A store reads one label, `crate::group::LABEL`, so that members are found without a look at every agent.

use async_trait::async_trait;

use super::{AgentRow, StoreError};
use crate::group::GroupName;
use crate::id::AgentId;

/// Groups of a store's agents.
#[async_trait]
pub trait StoreGroups: Send + Sync + 'static {
    /// Rows of the members of a group with ids after `after`, ascending: of agents that are here, on their way out, or bound
    /// and on their way in; none that has moved away, or is deleted: that one keeps its labels. **R**
    async fn members(
        &self,
        group: &GroupName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRow>, StoreError>;
}
