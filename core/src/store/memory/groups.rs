//! Groups: who is in one.

use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use crate::group::{self, GroupName};
use crate::id::AgentId;
use crate::lifecycle::Lifecycle;
use crate::limits::PAGE_MAX;
use crate::store::{AgentRow, Home, StoreError, StoreGroups};

#[async_trait]
impl StoreGroups for MemoryStore {
    async fn members(
        &self,
        group: &GroupName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentRow>, StoreError> {
        let tables = self.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let members = tables.agents.range((from, Bound::Unbounded)).filter(|(_, rows)| {
            let is_deleted = rows.portable().lifecycle == Lifecycle::Deleted;
            let is_here = !is_deleted && !matches!(rows.standing.home, Home::Moved(_));
            is_here && rows.portable().labels.get(group::LABEL).is_some_and(|name| name == group.as_str())
        });
        Ok(members.take(limit.min(PAGE_MAX)).map(|(_, rows)| tables.agent_row(rows)).collect())
    }
}
