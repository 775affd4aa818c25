//! `godwit:agent/timers`: when the agent wants to be woken, collected for the commit.

use bytes::Bytes;
use godwit_core::limits::{TIMER_AT_MS_MAX, TIMER_PAYLOAD_BYTES_MAX, TIMERS_MAX};
use godwit_core::timer::{NewTimer, is_name};

use crate::bindings::godwit::agent::timers::{self, TimerError};
use crate::context::GuestContext;
use crate::effects::QuotaReached;
use crate::fault::Stop;
use crate::tape::Answered;

impl timers::Host for GuestContext {
    fn set(
        &mut self,
        name: String,
        at_ms: u64,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<(), TimerError>> {
        self.taped("timers.set", |context| {
            if let Err(error) = context.check_timer(&name, at_ms, payload.len()) {
                return Ok(Answered::Computed(Err(error)));
            }
            if !context.has_room_for_timer(&name)? {
                return Ok(Answered::Computed(Err(TimerError::Quota)));
            }
            let timer = NewTimer { at_ms, payload: Bytes::from(payload) };
            let set = context.effects.set_timer(name, Some(timer));
            Ok(Answered::Computed(set.map_err(|QuotaReached| TimerError::Quota)))
        })
    }

    fn cancel(&mut self, name: String) -> wasmtime::Result<Result<(), TimerError>> {
        self.taped("timers.cancel", |context| {
            if let Err(error) = context.check_timer(&name, 0, 0) {
                return Ok(Answered::Computed(Err(error)));
            }
            let cancelled = context.effects.set_timer(name, None);
            Ok(Answered::Computed(cancelled.map_err(|QuotaReached| TimerError::Quota)))
        })
    }
}

impl GuestContext {
    fn check_timer(&self, name: &str, at_ms: u64, payload_bytes: usize) -> Result<(), TimerError> {
        if !self.call.phase.is_turn() {
            return Err(TimerError::NotInTurn);
        }
        if !is_name(name) {
            return Err(TimerError::InvalidName);
        }
        if at_ms > TIMER_AT_MS_MAX {
            return Err(TimerError::InvalidTime);
        }
        if payload_bytes > TIMER_PAYLOAD_BYTES_MAX { Err(TimerError::TooLarge) } else { Ok(()) }
    }

    /// Whether the agent would have no more timers than it may with one of this name: what waits, under this turn's
    /// changes. What fires meanwhile only makes room.
    pub(super) fn has_room_for_timer(&self, name: &str) -> Result<bool, Stop> {
        if self.call.tape.is_replay() {
            // Had there been none, the error would be on the tape.
            return Ok(true);
        }
        let changed = self.effects.timers();
        if changed.get(name).is_some_and(Option::is_some) {
            return Ok(true);
        }
        let mut others = self.state.timers().map_err(Stop::StateRead)?;
        if others.iter().any(|waiting| waiting == name) && !changed.contains_key(name) {
            return Ok(true);
        }
        others.retain(|waiting| !changed.contains_key(waiting));
        let set = changed.values().filter(|timer| timer.is_some()).count();
        Ok(others.len() + set < TIMERS_MAX)
    }
}

#[cfg(test)]
mod tests;
