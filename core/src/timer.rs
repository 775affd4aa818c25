//! Timers: wishes of an agent to be woken at a time, committed with the turn that sets them.
//!
//! A timer is a row with a name. When its time has come the agent's owner deletes the row and accepts the input that
//! `StoredTimer::input` makes, in one transaction (`RuntimeStore::fire_timer`): it fires once, late if nobody was there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Generation, InputId, Revision};
use crate::input::{Input, Kind, Source};
use crate::limits::TIMER_NAME_BYTES_MAX;

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
    /// The input that it becomes. Acceptance dates it.
    pub fn input(&self, agent: &AgentId) -> Input {
        let headers = vec![
            (NAME_HEADER.to_owned(), self.name.clone()),
            (AT_HEADER.to_owned(), self.timer.at_ms.to_string()),
        ];
        Input {
            id: InputId::of_timer(agent, self.generation, &self.name, self.revision),
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

/// Whether a text can name a timer: 1..=`TIMER_NAME_BYTES_MAX` bytes without control characters.
pub fn is_name(text: &str) -> bool {
    (1..=TIMER_NAME_BYTES_MAX).contains(&text.len()) && !text.bytes().any(|byte| byte.is_ascii_control())
}

#[cfg(test)]
mod tests;
