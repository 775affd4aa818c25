//! Timers: wishes of an agent to be woken at a time, committed with the turn that sets them.
//!
//! A timer is a row with a name. When its time has come the agent's owner deletes the row and accepts the input that
//! `StoredTimer::input` makes, in one transaction (`RuntimeStore::fire_timer`): it fires once, late if nobody was there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Generation, InputId, Revision};
use crate::input::{Input, Kind, Source};
use crate::limits::TIMER_NAME_BYTES_MAX;
use crate::reply;

/// The header of a timer's input that holds the timer's name.
pub const NAME_HEADER: &str = "godwit-timer";
/// The header of a timer's input that holds the time for which it was set, decimal Unix milliseconds.
pub const AT_HEADER: &str = "godwit-timer-at-ms";

/// A timer as a turn sets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTimer {
    /// When it is due, Unix milliseconds, at most `TIMER_AT_MS_MAX`.
    pub at_ms: u64,
    /// The input's payload: at most `TIMER_PAYLOAD_BYTES_MAX` bytes.
    pub payload: Bytes,
}

/// A timer that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTimer {
    /// Unique per agent.
    pub name: String,
    /// The agent's generation when it was set.
    pub generation: Generation,
    /// The boundary that set it: tells it from earlier timers of its name.
    pub revision: Revision,
    /// What was set.
    pub timer: NewTimer,
}

/// A timer whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimer {
    /// Whose it is.
    pub agent: AgentId,
    /// Its name.
    pub name: String,
    /// The boundary that set it.
    pub revision: Revision,
    /// When it was due, Unix milliseconds.
    pub at_ms: u64,
}

impl StoredTimer {
    /// The input that it becomes. Acceptance dates it. A timer that watches a request says that nobody knows its end.
    pub fn input(&self, agent: &AgentId) -> Input {
        if let Some(request) = reply::request_of_timer(&self.name) {
            return reply::unknown(agent, request);
        }
        let headers = vec![
            (NAME_HEADER.to_owned(), self.name.clone()),
            (AT_HEADER.to_owned(), self.timer.at_ms.to_string()),
        ];
        Input {
            id: input_id(agent, self.generation, &self.name, self.revision),
            kind: Kind::Timer,
            source: Source::System,
            content_type: String::new(),
            payload: self.timer.payload.clone(),
            headers,
            correlation: None,
            accepted_at_ms: 0,
        }
    }
}

/// The id of the input that a timer becomes.
pub fn input_id(agent: &AgentId, generation: Generation, name: &str, revision: Revision) -> InputId {
    match reply::request_of_timer(name) {
        Some(request) => InputId::of_reply(agent, request),
        None => InputId::of_timer(agent, generation, name, revision),
    }
}

/// Whether a text can name a timer of a guest: 1..=`TIMER_NAME_BYTES_MAX` bytes without control characters, not of the
/// names that the host gives.
pub fn is_name(text: &str) -> bool {
    let is_sized = (1..=TIMER_NAME_BYTES_MAX).contains(&text.len());
    is_sized && !text.bytes().any(|byte| byte.is_ascii_control()) && reply::request_of_timer(text).is_none()
}

#[cfg(test)]
mod tests;
