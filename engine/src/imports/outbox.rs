//! `godwit:agent/outbox`: messages to other agents, collected for the commit.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::AgentId;
use godwit_core::input::Kind;
use godwit_core::limits::{REPLY_TIMEOUT_MS_MAX, TIMER_AT_MS_MAX};
use godwit_core::output::{Output, ReplyRole};
use godwit_core::reply;
use godwit_core::timer::NewTimer;

use crate::bindings::godwit::agent::outbox::{self, SendError};
use crate::bindings::godwit::agent::types::{ReplyExpectation, SendOptions};
use crate::context::GuestContext;
use crate::convert::kind_of_output;
use crate::effects::{QuotaReached, check_envelope};
use crate::fault::Stop;
use crate::limits::OUTPUT_PAYLOAD_BYTES_MAX;
use crate::tape::Answered;

impl outbox::Host for GuestContext {
    fn send(
        &mut self,
        to_agent: String,
        payload: Vec<u8>,
        options: SendOptions,
    ) -> wasmtime::Result<Result<String, SendError>> {
        self.taped("outbox.send", |context| {
            let watch = match context.watch_request(&options)? {
                Ok(watch) => watch,
                Err(error) => return Ok(Answered::Computed(Err(error))),
            };
            let sent = context.send_output(&to_agent, payload, options);
            if let (Err(_), Some(timer)) = (&sent, watch) {
                context.effects.forget_timer(&timer);
            }
            Ok(Answered::Computed(sent))
        })
    }
}

impl GuestContext {
    fn send_output(
        &mut self,
        to_agent: &str,
        payload: Vec<u8>,
        options: SendOptions,
    ) -> Result<String, SendError> {
        if !self.call.phase.is_turn() {
            return Err(SendError::NotInTurn);
        }
        let destination = AgentId::parse(to_agent).map_err(|_| SendError::BadAgentId)?;
        let id = self.output_id(self.effects.outputs_len());
        let output = output(destination, payload, options, &id)?;
        self.effects.send(output).map_err(|QuotaReached| SendError::Quota)?;
        Ok(id)
    }

    /// Sets the timer that ends a request when no answer has, before the request is sent. Answers its name.
    fn watch_request(&mut self, options: &SendOptions) -> Result<Result<Option<String>, SendError>, Stop> {
        let Some(ReplyExpectation { timeout_ms }) = options.expects_reply else {
            return Ok(Ok(None));
        };
        if !self.call.phase.is_turn() {
            return Ok(Err(SendError::NotInTurn));
        }
        if !(1..=REPLY_TIMEOUT_MS_MAX).contains(&timeout_ms) {
            let wrong = format!("expects-reply: timeout-ms {timeout_ms} is not 1 to {REPLY_TIMEOUT_MS_MAX}");
            return Ok(Err(SendError::Unsupported(wrong)));
        }
        if options.correlation.is_some() {
            return Ok(Err(SendError::Unsupported("expects-reply with a correlation of one's own".into())));
        }
        let timer = reply::timer_name(&self.output_id(self.effects.outputs_len()));
        if !self.has_room_for_timer(&timer)? {
            return Ok(Err(SendError::Quota));
        }
        let at_ms = self.call.turn.now_ms.saturating_add(timeout_ms).min(TIMER_AT_MS_MAX);
        let watch = NewTimer { at_ms, payload: Bytes::new() };
        let set = self.effects.set_timer(timer.clone(), Some(watch));
        Ok(set.map(|()| Some(timer)).map_err(|QuotaReached| SendError::Quota))
    }

    /// The id of an output: 128 bits of a hash over what names it, so that a repeated turn gives the same ids.
    pub(super) fn output_id(&self, index: usize) -> String {
        let turn = &self.call.turn;
        let numbers = [turn.generation.0, turn.revision.0, index as u64].map(u64::to_be_bytes);
        let [generation, revision, index] = &numbers;
        let digest = Digest::of_parts([
            b"godwit 2026 output id".as_slice(),
            self.agent.as_str().as_bytes(),
            generation,
            revision,
            index,
        ]);
        digest.to_string()[..32].to_owned()
    }
}

fn output(
    destination: AgentId,
    payload: Vec<u8>,
    options: SendOptions,
    id: &str,
) -> Result<Output, SendError> {
    let SendOptions { kind, content_type, headers, correlation, expects_reply } = options;
    let kind = kind_of_output(kind);
    let intent = if let Kind::PeerRequest { intent } = &kind { intent.as_str() } else { "" };
    // A request carries its own id, so that who answers it can say what the answer is to.
    let is_request = expects_reply.is_some() || matches!(kind, Kind::PeerRequest { .. });
    let correlation = correlation.or_else(|| is_request.then(|| id.to_owned()));
    let reply = if expects_reply.is_some() { ReplyRole::Expected } else { ReplyRole::None };
    let texts = [
        ("content type", content_type.as_str()),
        ("intent", intent),
        ("correlation", correlation.as_deref().unwrap_or_default()),
    ];
    let is_too_large = payload.len() > OUTPUT_PAYLOAD_BYTES_MAX || check_envelope(&texts, &headers).is_err();
    if is_too_large {
        return Err(SendError::TooLarge);
    }
    Ok(Output {
        destination,
        kind,
        content_type,
        payload: Bytes::from(payload),
        headers,
        correlation,
        reply,
        channel: None,
    })
}

#[cfg(test)]
mod tests;
