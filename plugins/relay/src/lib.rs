//! An agent that passes texts on: `{"to": ID, "payload": TEXT}` answers `ok` and sends the text to the agent ID.

#![forbid(unsafe_code)]

use godwit_guest::{Agent, AgentError, Host, Input, Reply, SendError};
use serde::{Deserialize, Serialize};

/// A relay remembers nothing.
#[derive(Default, Serialize, Deserialize)]
pub struct Relay {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forward {
    to: String,
    payload: String,
}

impl Agent for Relay {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        let Some(Forward { to, payload }) = input.json() else {
            return Ok(Reply::refused("malformed"));
        };
        match host.send_message(&to, payload.as_bytes()) {
            Ok(_) => Ok(Reply::text("ok")),
            Err(SendError::BadAgentId) => Ok(Reply::refused("malformed")),
            Err(SendError::TooLarge) => Ok(Reply::refused("too_large")),
            Err(error) => Err(error.into()),
        }
    }
}

godwit_guest::export!(Relay);

#[cfg(test)]
mod tests;
