//! What a host has, counted: for operators who look at it, and for programs that embed it.

use std::collections::BTreeMap;

use godwit_core::limits::PAGE_MAX;
use godwit_core::store::{AgentRow, Home};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

/// What a host has at one look. The figures are read one after the other, not in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostCounts {
    /// Its agents by state, in the words of `AgentView::state`; states that no agent is in are left out.
    pub agents: BTreeMap<String, u64>,
    /// Agents whose guests are in memory.
    pub resident: u64,
    /// Inputs of its agents that have not ended.
    pub open_inputs: u64,
    /// Outputs of its agents that their receivers do not have yet.
    pub waiting_outputs: u64,
    /// Migrations from and to it that are not over.
    pub open_migrations: u64,
    /// Plugins in its store.
    pub plugins: u64,
}

impl Runtime {
    /// Counts what this host has. Of a shared store, the agents that it owns.
    ///
    /// # Errors
    /// As the store's.
    pub async fn counts(&self) -> Result<HostCounts, CallError> {
        let mut counts = HostCounts::default();
        let store = &self.inner().store;
        let mut after = None;
        loop {
            let rows = store.agents(after.as_ref(), PAGE_MAX).await.map_err(store_error)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.agent.clone());
            for row in rows.iter().filter(|row| self.is_own(row)) {
                *counts.agents.entry(self.state_of(row).to_owned()).or_default() += 1;
                counts.open_inputs += row.open_inputs;
                counts.waiting_outputs += row.pending_outputs;
            }
        }
        let host = self.inner().host;
        let records = self.migrations().await?;
        let open = records.iter().filter(|record| !record.phase.is_terminal());
        counts.open_migrations =
            open.filter(|record| [record.source, record.target].contains(&host)).count() as u64;
        counts.resident = self.inner().directory.residents() as u64;
        counts.plugins = store.plugins().await.map_err(store_error)?.len() as u64;
        Ok(counts)
    }

    /// Whether an agent is this host's: in its own store, or on a shared one under its lease.
    pub(super) fn is_own(&self, row: &AgentRow) -> bool {
        let session = self.session();
        let is_held = row.holder.is_some_and(|holder| holder.incarnation == session.incarnation);
        !matches!(row.home, Home::Moved(_)) && (session.profile.is_none() || is_held)
    }
}
