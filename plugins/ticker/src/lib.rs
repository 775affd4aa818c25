//! An agent that wakes itself by a timer and counts how often: bytes in, bytes out, all of them text.
//!
//! | payload | does | reply |
//! |---|---|---|
//! | `once MS` | ticks once, MS milliseconds after this turn | `ok` |
//! | `every MS` | ticks each MS milliseconds (at least 1), until it is told otherwise | `ok` |
//! | `stop` | ticks no more | `ok` |
//! | `get` | | how often it has ticked, in decimal |
//!
//! `once` and `every` take the place of what was said before. A tick that comes late does not move those after it, and
//! ticks that were missed altogether are not made up for. What can't be parsed is `refused("malformed")`.

#![forbid(unsafe_code)]

use godwit_guest::{Agent, AgentError, Host, Input, Kind, Reply, TimerError};
use serde::{Deserialize, Serialize};

/// The name of its timer.
const TICK: &str = "tick";

/// How often it has ticked, and whether it goes on.
#[derive(Default, Serialize, Deserialize)]
pub struct Ticker {
    ticks: u64,
    every_ms: Option<u64>,
}

enum Command {
    Once(u64),
    Every(u64),
    Stop,
    Get,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(' ') {
            Some(("once", ms)) => Self::Once(ms.parse().ok()?),
            Some(("every", ms)) => Self::Every(ms.parse().ok().filter(|ms| *ms > 0)?),
            None if text == "stop" => Self::Stop,
            None if text == "get" => Self::Get,
            _ => return None,
        })
    }
}

impl Ticker {
    fn tick(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        self.ticks += 1;
        if let (Some(every_ms), Some(at_ms)) = (self.every_ms, input.timer_at_ms()) {
            // The first multiple that is still to come.
            let late_ms = host.turn().now_ms.saturating_sub(at_ms);
            let steps = late_ms / every_ms + 1;
            host.timer_set(TICK, at_ms.saturating_add(steps.saturating_mul(every_ms)), &[])?;
        }
        Ok(Reply::none())
    }
}

impl Agent for Ticker {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        if input.kind == Kind::Timer {
            return self.tick(input, host);
        }
        let Some(command) = input.text().and_then(Command::parse) else {
            return Ok(Reply::refused("malformed"));
        };
        let (delay_ms, every_ms) = match command {
            Command::Get => return Ok(Reply::text(self.ticks.to_string())),
            Command::Stop => {
                self.every_ms = None;
                host.timer_cancel(TICK)?;
                return Ok(Reply::text("ok"));
            }
            Command::Once(delay_ms) => (delay_ms, None),
            Command::Every(every_ms) => (every_ms, Some(every_ms)),
        };
        match host.timer_after(TICK, delay_ms, &[]) {
            Ok(()) => {
                self.every_ms = every_ms;
                Ok(Reply::text("ok"))
            }
            Err(TimerError::InvalidTime) => Ok(Reply::refused("malformed")),
            Err(error) => Err(error.into()),
        }
    }
}

godwit_guest::export!(Ticker);

#[cfg(test)]
mod tests;
