//! `godwit receipts`, `outputs`, `verify`.

use clap::Args;
use godwit_core::id::AgentId;
use serde_json::Value;

use super::Session;
use super::error::{CliError, Exit};
use super::output::Column;
use crate::api::agents::verify_json;

const RECEIPT_COLUMNS: [Column; 7] = [
    Column::text("REVISION", "/revision"),
    Column::text("KIND", "/kind"),
    Column::text("TOKEN", "/token"),
    Column::short("HOST", "/host"),
    Column::short("DIGEST", "/digest"),
    Column::text("US", "/elapsed_us"),
    Column::time("COMMITTED", "/committed_at_ms"),
];

const OUTPUT_COLUMNS: [Column; 6] = [
    Column::text("POSITION", "/position"),
    Column::text("DESTINATION", "/destination"),
    Column::text("NUMBER", "/number"),
    Column::text("STATE", "/state"),
    Column::text("REASON", "/reason"),
    Column::time("COMMITTED", "/committed_at_ms"),
];

const VERIFY_COLUMNS: [Column; 5] = [
    Column::text("AGENT", "/agent"),
    Column::text("OK", "/ok"),
    Column::text("RECEIPTS", "/receipts"),
    Column::text("REVISION", "/revision"),
    Column::text("TOKEN", "/token"),
];

#[derive(Debug, Args)]
pub(super) struct History {
    /// Which agent.
    id: AgentId,
    /// Only those after this revision, or position of an output.
    #[arg(long, default_value_t = 0)]
    after: u64,
}

impl History {
    pub(super) async fn receipts(&self, session: &Session) -> Result<(), CliError> {
        self.list(session, "receipts", &RECEIPT_COLUMNS, "/revision")
            .await
    }

    pub(super) async fn outputs(&self, session: &Session) -> Result<(), CliError> {
        self.list(session, "outputs", &OUTPUT_COLUMNS, "/position").await
    }

    async fn list(
        &self,
        session: &Session,
        what: &str,
        columns: &[Column],
        name: &str,
    ) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/{what}", self.id);
        let after = self.after.to_string();
        let items = session.client.pages(&path, &[("after", &after)]).await?;
        session.output.list(items, columns, name)
    }
}

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
        let reports: Vec<Value> = match (&self.id, &self.store) {
            (Some(id), _) => vec![
                session
                    .client
                    .post(&format!("/v1/agents/{id}/verify"), None)
                    .await?,
            ],
            (None, Some(url)) => crate::offline::verify(url)
                .await?
                .iter()
                .map(verify_json)
                .collect(),
            (None, None) => Vec::new(),
        };
        let broken = first_break(&reports);
        session.output.list(reports, &VERIFY_COLUMNS, "/agent")?;
        broken.map_or(Ok(()), |text| {
            Err(CliError::Ended {
                exit: Exit::Failed,
                text,
            })
        })
    }
}

/// The first thing that does not fit, and how many more there are.
fn first_break(reports: &[Value]) -> Option<String> {
    let breaks = reports.iter().flat_map(|report| {
        let agent = report["agent"].as_str().unwrap_or_default();
        let breaks = report["breaks"].as_array().map(Vec::as_slice).unwrap_or_default();
        breaks
            .iter()
            .filter_map(Value::as_str)
            .map(move |text| (agent, text))
    });
    let breaks: Vec<_> = breaks.collect();
    let (agent, text) = breaks.first()?;
    Some(match breaks.len() - 1 {
        0 => format!("agent {agent}: {text}"),
        more => format!("agent {agent}: {text} (and {more} more)"),
    })
}

#[cfg(test)]
mod tests;
