//! Waiting for a condition with a deadline; never for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` answers something, at most for `limit`. An error of a look is kept for the message and tried again.
///
/// # Errors
/// When the time is over: names `what` was waited for, and the last error.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    let mut last = String::from("not yet");
    while began.elapsed() < limit {
        let left = limit.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = String::from("the last look got no answer"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("waited {limit:?} in vain for {what}: {last}")
}
