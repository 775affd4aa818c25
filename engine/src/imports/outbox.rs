//! `godwit:agent/outbox`: messages to other agents, collected for the commit.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::AgentId;
use godwit_core::input::Kind;
use godwit_core::output::Output;

use crate::bindings::godwit::agent::outbox::{self, SendError};
use crate::bindings::godwit::agent::types::SendOptions;
use crate::context::GuestContext;
use crate::convert::kind_of_output;
use crate::effects::{QuotaReached, check_envelope};
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
            Ok(Answered::Computed(context.send_output(&to_agent, payload, options)))
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
        if options.expects_reply.is_some() {
            return Err(SendError::Unsupported("expects-reply".into()));
        }
        let id = self.output_id(self.effects.outputs_len());
        let output = output(destination, payload, options, &id)?;
        self.effects.send(output).map_err(|QuotaReached| SendError::Quota)?;
        Ok(id)
    }

    /// The id of an output: 128 bits of a hash over what names it, so that a repeated turn gives the same ids.
    fn output_id(&self, index: usize) -> String {
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
    let SendOptions { kind, content_type, headers, correlation, expects_reply: _ } = options;
    let kind = kind_of_output(kind);
    // A request carries its own id, so that who answers it can say what the answer is to.
    let (intent, correlation) = match &kind {
        Kind::PeerRequest { intent } => (intent.as_str(), correlation.or_else(|| Some(id.to_owned()))),
        _ => ("", correlation),
    };
    let texts = [
        ("content type", content_type.as_str()),
        ("intent", intent),
        ("correlation", correlation.as_deref().unwrap_or_default()),
    ];
    let is_too_large = payload.len() > OUTPUT_PAYLOAD_BYTES_MAX || check_envelope(&texts, &headers).is_err();
    if is_too_large {
        return Err(SendError::TooLarge);
    }
    Ok(Output { destination, kind, content_type, payload: Bytes::from(payload), headers, correlation })
}
