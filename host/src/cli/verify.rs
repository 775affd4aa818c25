//! `godwit verify`: through a running host, or offline on a store that no host uses. `godwit replay`.

use clap::Args;
use godwit_core::id::AgentId;
use serde_json::Value;

use super::Session;
use super::error::{CliError, Exit};
use super::output::Column;
use crate::api::agents::verify_json;

const REPLAY_COLUMNS: [Column; 6] = [
    Column::text("AGENT", "/agent"),
    Column::text("OK", "/ok"),
    Column::text("FROM", "/from"),
    Column::text("TO", "/to"),
    Column::text("TURNS", "/turns"),
    Column::short("STATE", "/state"),
];
const COLUMNS: [Column; 6] = [
    Column::text("AGENT", "/agent"),
    Column::text("OK", "/ok"),
    Column::text("RECEIPTS", "/receipts"),
    Column::text("REPAIRS", "/repairs"),
    Column::text("REVISION", "/revision"),
    Column::text("TOKEN", "/token"),
];

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Verify {
    /// Which agent, on a running host.
    id: Option<AgentId>,
    /// All agents of this store, without a host: sqlite:PATH.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl Verify {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let mut damage = Vec::new();
        let reports: Vec<Value> = match (&self.id, &self.store) {
            (Some(id), _) => vec![session.client.post(&format!("/v1/agents/{id}/verify"), None).await?],
            (None, Some(url)) => {
                let found = crate::offline::verify(url).await?;
                damage.extend(found.file.iter().map(|what| format!("the store's file: {what}")));
                found.agents.iter().map(verify_json).collect()
            }
            (None, None) => Vec::new(),
        };
        damage.extend(broken_agents(&reports));
        let broken = (!damage.is_empty()).then(|| damage.join("\n"));
        session.output.list(reports, &COLUMNS, "/agent")?;
        broken.map_or(Ok(()), |text| Err(CliError::Ended { exit: Exit::Failed, text }))
    }
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Which agent.
    id: AgentId,
    /// Up to this revision [default: the last].
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
}

impl Replay {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = match self.to {
            Some(to) => format!("/v1/agents/{}/replay?to={to}", self.id),
            None => format!("/v1/agents/{}/replay", self.id),
        };
        let reports = vec![session.client.post(&path, None).await?];
        let broken = broken_agents(&reports);
        session.output.list(reports, &REPLAY_COLUMNS, "/agent")?;
        broken.map_or(Ok(()), |text| Err(CliError::Ended { exit: Exit::Failed, text }))
    }
}

/// A line for each agent that does not verify: its first break, and how many more there are.
fn broken_agents(reports: &[Value]) -> Option<String> {
    let lines = reports.iter().filter_map(|report| {
        let agent = report["agent"].as_str().unwrap_or_default();
        let breaks = report["breaks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let first = breaks.first()?.as_str().unwrap_or_default();
        Some(match breaks.len() - 1 {
            0 => format!("agent {agent}: {first}"),
            more => format!("agent {agent}: {first} (and {more} more)"),
        })
    });
    let lines: Vec<_> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests;
