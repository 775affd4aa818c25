//! The checkers of `check`, on agents of a running host.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::check::{self, History};
use crate::client::Client;
use crate::journal::Operation;

/// Longest that an input may wait for its turn once nobody disturbs the hosts any more.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// What does not fit, for counters that only these operations changed. An inbox that does not empty is a violation too:
/// an accepted input never waits in silence (I1).
///
/// # Errors
/// When the host does not answer.
pub async fn counters(door: &Client, agents: &[String], operations: &[Operation]) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for agent in agents {
        if let Err(error) = door.settled(agent, SETTLE_MAX).await {
            violations.push(format!("{error:#}"));
        }
        let reply = door.reply(agent, "get").await?;
        let count = reply.parse().with_context(|| format!("{agent} counts {reply:?}"))?;
        let history = History::of(door, agent).await?;
        let of_agent: Vec<_> =
            operations.iter().filter(|operation| operation.agent == *agent).cloned().collect();
        let mut found = check::chain(&history);
        found.extend(check::counter(&of_agent, &history, count));
        violations.extend(found.into_iter().map(|violation| format!("{agent}: {violation}")));
    }
    Ok(violations)
}
