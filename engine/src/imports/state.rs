//! `godwit:agent/state`: the agent's rows as the turn sees them, the committed ones under its own writes.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use godwit_core::guest::StateReadError;
use godwit_core::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};

use crate::bindings::godwit::agent::state::{self, StateError};
use crate::context::GuestContext;
use crate::effects::QuotaReached;
use crate::fault::Stop;
use crate::limits::STATE_KEYS_PAGE_MAX;
use crate::tape::Answered;

impl state::Host for GuestContext {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, StateError>> {
        self.taped("state.get", |context| {
            if let Err(error) = context.check_key(&key) {
                return Ok(Answered::Computed(Err(error)));
            }
            let value = |value: Option<Bytes>| Ok(value.map(|value| value.to_vec()));
            if let Some(written) = context.effects.written(&key) {
                return Ok(Answered::Computed(value(written.clone())));
            }
            context.check_live()?;
            let read = context.state.get(&key).map_err(Stop::StateRead)?;
            Ok(Answered::Fetched(value(read)))
        })
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), StateError>> {
        self.taped("state.set", |context| Ok(Answered::Computed(context.write(key, Some(value)))))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), StateError>> {
        self.taped("state.delete", |context| Ok(Answered::Computed(context.write(key, None))))
    }

    fn list_keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<String>, StateError>> {
        self.taped("state.list-keys", |context| {
            let checked = if prefix.is_empty() { context.check_read() } else { context.check_key(&prefix) };
            if let Err(error) = checked {
                return Ok(Answered::Computed(Err(error)));
            }
            context.check_live()?;
            let limit = STATE_KEYS_PAGE_MAX.min(limit as usize);
            let keys = context.keys(&prefix, after, limit).map_err(Stop::StateRead)?;
            Ok(Answered::Fetched(Ok(keys)))
        })
    }
}

impl GuestContext {
    fn write(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), StateError> {
        if !self.call.phase.is_turn() {
            return Err(StateError::NotInTurn);
        }
        self.check_key(&key)?;
        if value.as_ref().is_some_and(|value| value.len() > STATE_VALUE_BYTES_MAX) {
            return Err(StateError::TooLarge);
        }
        let written = self.effects.write(key, value.map(Bytes::from));
        written.map_err(|QuotaReached| StateError::Quota)
    }

    fn check_read(&self) -> Result<(), StateError> {
        if self.call.phase.may_read() { Ok(()) } else { Err(StateError::NotInTurn) }
    }

    fn check_key(&self, key: &str) -> Result<(), StateError> {
        self.check_read()?;
        let is_valid = (1..=STATE_KEY_BYTES_MAX).contains(&key.len())
            && !key.bytes().any(|byte| byte.is_ascii_control());
        if is_valid { Ok(()) } else { Err(StateError::InvalidKey) }
    }

    /// Lists keys: page by page of the committed ones, each page laid under the turn's writes in its range.
    fn keys(&self, prefix: &str, after: Option<String>, limit: usize) -> Result<Vec<String>, StateReadError> {
        let writes = self.effects.writes();
        let removed = writes.values().filter(|written| written.is_none()).count();
        // Room for those that this turn has removed, so that one page is most often enough.
        let page_max = (limit + removed).min(STATE_KEYS_PAGE_MAX);
        let mut keys = Vec::new();
        let mut after = after;
        while keys.len() < limit {
            let page = self.state.list(prefix, after.as_deref(), page_max)?;
            let end = if page.len() < page_max { None } else { page.last().cloned() };
            let mut merged: BTreeSet<String> = page.into_iter().collect();
            let from = match &after {
                Some(after) => Bound::Excluded(after.as_str()),
                None => Bound::Included(prefix),
            };
            let written = writes.range::<str, _>((from, Bound::Unbounded));
            for (key, value) in written.take_while(|(key, _)| end.as_ref().is_none_or(|end| *key <= end)) {
                match value {
                    Some(_) if key.starts_with(prefix) => merged.insert(key.clone()),
                    Some(_) => false,
                    None => merged.remove(key),
                };
            }
            keys.extend(merged.into_iter().take(limit - keys.len()));
            if end.is_none() {
                break;
            }
            after = end;
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests;
