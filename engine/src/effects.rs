//! What a turn has done so far: state writes, timers, operations and outputs, within the limits of one turn. Nothing leaves from here; the
//! caller commits what `finish` gives.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use godwit_core::channel::{ChannelChange, ChannelVerb};
use godwit_core::guest::TurnEffects;
use godwit_core::input::{Reply, ReplyOutcome};
use godwit_core::limits::{
    FAN_OUT_MAX, HEADER_BYTES_MAX, HEADERS_MAX, OUTPUTS_MAX, PAYLOAD_BYTES_MAX, STATE_WRITES_MAX,
    TEXT_BYTES_MAX, TURN_EFFECT_BYTES_MAX,
};
use godwit_core::operation::{NewOperation, OperationChange};
use godwit_core::output::Output;
use godwit_core::timer::NewTimer;

/// The effects of the running turn.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    writes: BTreeMap<String, Option<Bytes>>,
    write_calls: usize,
    outputs: Vec<Output>,
    channels: Vec<ChannelChange>,
    /// Outputs that publications become, as far as that is known.
    copies: usize,
    timers: BTreeMap<String, Option<NewTimer>>,
    operations: Vec<OperationChange>,
    /// Keys, values and payloads of all calls, also of writes that a later one replaced.
    bytes: usize,
}

/// The turn has done as much as one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuotaReached;

impl Effects {
    /// Notes a write; `None` deletes.
    ///
    /// # Errors
    /// When the turn has no room for it; nothing has changed then.
    pub(crate) fn write(&mut self, key: String, value: Option<Bytes>) -> Result<(), QuotaReached> {
        if self.write_calls == STATE_WRITES_MAX {
            return Err(QuotaReached);
        }
        self.spend(key.len() + value.as_ref().map_or(0, Bytes::len))?;
        self.write_calls += 1;
        self.writes.insert(key, value);
        Ok(())
    }

    /// What this turn has written under a key: nothing, a value, or its removal.
    pub(crate) fn written(&self, key: &str) -> Option<&Option<Bytes>> {
        self.writes.get(key)
    }

    /// All that this turn has written, in key order.
    pub(crate) fn writes(&self) -> &BTreeMap<String, Option<Bytes>> {
        &self.writes
    }

    /// Notes what becomes of a timer; `None` cancels. Counts as a write.
    ///
    /// # Errors
    /// When the turn has no room for it; nothing has changed then.
    pub(crate) fn set_timer(&mut self, name: String, timer: Option<NewTimer>) -> Result<(), QuotaReached> {
        if self.write_calls == STATE_WRITES_MAX {
            return Err(QuotaReached);
        }
        self.spend(name.len() + timer.as_ref().map_or(0, |timer| timer.payload.len()))?;
        self.write_calls += 1;
        self.timers.insert(name, timer);
        Ok(())
    }

    /// Takes back a timer that this turn has set.
    pub(crate) fn forget_timer(&mut self, name: &str) {
        self.timers.remove(name);
    }

    /// Notes the start or cancellation of an operation. Counts as a write.
    ///
    /// # Errors
    /// When the turn has no room for it; nothing has changed then.
    pub(crate) fn change_operation(&mut self, change: OperationChange) -> Result<(), QuotaReached> {
        if self.write_calls == STATE_WRITES_MAX {
            return Err(QuotaReached);
        }
        let bytes = match &change {
            OperationChange::Start(operation) => operation.request.bytes(),
            OperationChange::Cancel(operation) => operation.0.len(),
        };
        self.spend(bytes)?;
        self.write_calls += 1;
        self.operations.push(change);
        Ok(())
    }

    /// The operations that this turn starts, in order.
    pub(crate) fn started(&self) -> impl Iterator<Item = &NewOperation> {
        self.operations.iter().filter_map(|change| match change {
            OperationChange::Start(operation) => Some(operation),
            OperationChange::Cancel(_) => None,
        })
    }

    /// What this turn does to timers, by name.
    pub(crate) fn timers(&self) -> &BTreeMap<String, Option<NewTimer>> {
        &self.timers
    }

    /// How many outputs there are: the index of the next one.
    pub(crate) fn outputs_len(&self) -> usize {
        self.outputs.len()
    }

    /// Notes an output.
    ///
    /// # Errors
    /// When the turn has no room for it; nothing has changed then.
    pub(crate) fn send(&mut self, output: Output) -> Result<(), QuotaReached> {
        if self.outputs.len() == OUTPUTS_MAX {
            return Err(QuotaReached);
        }
        self.spend(output.payload.len())?;
        self.outputs.push(output);
        Ok(())
    }

    /// Notes a publication for so many subscribers.
    ///
    /// # Errors
    /// When the turn has no room for it; nothing has changed then.
    pub(crate) fn publish(&mut self, output: Output, subscribers: usize) -> Result<(), QuotaReached> {
        let copies = self.copies + subscribers;
        if copies > FAN_OUT_MAX {
            return Err(QuotaReached);
        }
        self.send(output)?;
        self.copies = copies;
        Ok(())
    }

    /// Notes what becomes of one of the agent's channels. Counts as a write.
    ///
    /// # Errors
    /// When the turn has no room for it; nothing has changed then.
    pub(crate) fn change_channel(&mut self, verb: ChannelVerb) -> Result<(), QuotaReached> {
        if self.write_calls == STATE_WRITES_MAX {
            return Err(QuotaReached);
        }
        self.spend(verb.channel().as_str().len())?;
        self.write_calls += 1;
        let before_output = u32::try_from(self.outputs.len()).unwrap_or(u32::MAX);
        self.channels.push(ChannelChange { before_output, verb });
        Ok(())
    }

    /// What this turn does to the agent's channels, in order.
    pub(crate) fn channels(&self) -> impl Iterator<Item = &ChannelVerb> {
        self.channels.iter().map(|change| &change.verb)
    }

    /// The outputs of this turn so far.
    pub(crate) fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Ends the turn with its replies.
    ///
    /// # Errors
    /// Names what of the replies is more than a turn may have.
    pub(crate) fn finish(mut self, replies: Vec<Reply>, elapsed: Duration) -> Result<TurnEffects, String> {
        for (index, reply) in replies.iter().enumerate() {
            check_reply(reply).map_err(|problem| format!("reply {index}: {problem}"))?;
            self.spend(body_bytes(reply)).map_err(|QuotaReached| {
                format!("its replies, state writes and outputs are more than {TURN_EFFECT_BYTES_MAX} bytes together")
            })?;
        }
        Ok(TurnEffects {
            replies,
            state: self.writes.into_iter().collect(),
            outputs: self.outputs,
            channels: self.channels,
            timers: self.timers.into_iter().collect(),
            operations: self.operations,
            answers: None,
            elapsed,
        })
    }

    fn spend(&mut self, bytes: usize) -> Result<(), QuotaReached> {
        let total = self.bytes + bytes;
        if total > TURN_EFFECT_BYTES_MAX {
            return Err(QuotaReached);
        }
        self.bytes = total;
        Ok(())
    }
}

/// Says which part of an envelope is too large, if any: texts of at most `TEXT_BYTES_MAX` bytes, and headers.
pub(crate) fn check_envelope(texts: &[(&str, &str)], headers: &[(String, String)]) -> Result<(), String> {
    for (name, text) in texts {
        check_size(name, text.len(), TEXT_BYTES_MAX)?;
    }
    check_size("header count", headers.len(), HEADERS_MAX)?;
    let bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    check_size("headers", bytes, HEADER_BYTES_MAX)
}

fn check_reply(reply: &Reply) -> Result<(), String> {
    let code = match &reply.outcome {
        ReplyOutcome::None | ReplyOutcome::Ok(_) => "",
        ReplyOutcome::Refused { code, .. } => code,
    };
    check_envelope(&[("content type", &reply.content_type), ("code", code)], &reply.headers)?;
    check_size("body", body_bytes(reply), PAYLOAD_BYTES_MAX)
}

fn body_bytes(reply: &Reply) -> usize {
    match &reply.outcome {
        ReplyOutcome::None => 0,
        ReplyOutcome::Ok(body) | ReplyOutcome::Refused { body, .. } => body.len(),
    }
}

fn check_size(what: &str, size: usize, max: usize) -> Result<(), String> {
    if size > max {
        return Err(format!("its {what} is {size}, over the limit of {max}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
