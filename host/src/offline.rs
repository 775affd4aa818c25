//! Verifying a store without a running host.

use anyhow::Context;
use godwit_core::limits::PAGE_MAX;
use godwit_core::store::{Home, RuntimeStore};
use godwit_store::SqliteStore;

use crate::runtime::audit::audit;
use crate::runtime::verify::VerifyReport;

/// Verifies every agent at home in a store, by URL (`sqlite:PATH`). The file is not changed.
///
/// # Errors
/// When the store can't be opened or read; damage is in the reports.
pub async fn verify(url: &str) -> anyhow::Result<Vec<VerifyReport>> {
    let (path, _) = godwit_store::parse_url(url)?;
    let store = SqliteStore::open_read_only(&path).with_context(|| format!("cannot open {url}"))?;
    let mut reports = Vec::new();
    let mut after = None;
    loop {
        let rows = store.agents(after.as_ref(), PAGE_MAX).await?;
        let Some(last) = rows.last() else {
            return Ok(reports);
        };
        after = Some(last.agent.clone());
        for row in rows.iter().filter(|row| !matches!(row.home, Home::Moved(_))) {
            reports.push(audit(store.as_ref(), &row.agent).await?);
        }
    }
}
