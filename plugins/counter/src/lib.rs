//! An agent that counts: `add N` and `get` answer with the count in decimal.

#![forbid(unsafe_code)]

use godwit_guest::{Agent, AgentError, Host, Input, Reply};
use serde::{Deserialize, Serialize};

/// The count.
#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    count: i64,
}

impl Agent for Counter {
    fn handle(&mut self, input: &Input, _host: &mut impl Host) -> Result<Reply, AgentError> {
        let Some(step) = step(input) else {
            return Ok(Reply::refused("malformed"));
        };
        let Some(count) = self.count.checked_add(step) else {
            return Ok(Reply::refused("overflow"));
        };
        self.count = count;
        Ok(Reply::text(count.to_string()))
    }
}

/// By how much to count: a `get` counts by nothing.
fn step(input: &Input) -> Option<i64> {
    match input.text()?.trim().split_once(' ') {
        Some(("add", number)) => number.trim().parse().ok(),
        None if input.text()?.trim() == "get" => Some(0),
        _ => None,
    }
}

godwit_guest::export!(Counter);

#[cfg(test)]
mod tests;
