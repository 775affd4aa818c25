//! Verifying a store without a running host.

use anyhow::Context;
use godwit_core::limits::PAGE_MAX;
use godwit_core::store::{Home, RuntimeStore};
use godwit_store::SqliteStore;

use crate::runtime::audit::audit;
use crate::runtime::verify::VerifyReport;

/// What an offline verification found.
#[derive(Debug)]
pub struct OfflineReport {
    /// What is wrong with the file itself; empty when all is well.
    pub file: Vec<String>,
    /// One per agent that is at home there, and per tombstone that is wrong.
    pub agents: Vec<VerifyReport>,
}

/// Verifies a store's file and every agent in it, by URL (`sqlite:PATH`). The file is not changed.
///
/// # Errors
/// When the store can't be opened or read; damage is in the report.
pub async fn verify(url: &str) -> anyhow::Result<OfflineReport> {
    let (path, _) = godwit_store::parse_url(url)?;
    let store = SqliteStore::open_read_only(&path).with_context(|| format!("cannot open {url}"))?;
    let file = store.check_file().await?;
    let mut agents = Vec::new();
    let mut after = None;
    loop {
        let rows = store.agents(after.as_ref(), PAGE_MAX).await?;
        let Some(last) = rows.last() else {
            return Ok(OfflineReport { file, agents });
        };
        after = Some(last.agent.clone());
        for row in &rows {
            let report = audit(store.as_ref(), &row.agent).await?;
            // Of an agent that has moved away only a tombstone that is wrong is worth a line.
            if !matches!(row.home, Home::Moved(_)) || !report.breaks.is_empty() {
                agents.push(report);
            }
        }
    }
}
