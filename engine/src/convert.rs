//! Between the product's types and those of the contract in `wit/`.

use bytes::Bytes;
use godwit_core::guest::GuestError;
use godwit_core::input::{Input, Kind, Reply, ReplyOutcome, Source};

use crate::bindings::godwit::agent::types as wit;
use crate::fault::shortened;

/// An input as the guest sees it.
pub(crate) fn input(input: &Input) -> wit::Input {
    let Input { id, kind, source, content_type, payload, headers, correlation, accepted_at_ms } = input;
    wit::Input {
        id: halves(id.0),
        kind: kind_to_guest(kind),
        source: source_to_guest(source),
        content_type: content_type.clone(),
        payload: payload.to_vec(),
        headers: headers.clone(),
        correlation: correlation.clone(),
        accepted_at_ms: *accepted_at_ms,
    }
}

/// What another agent's input will be, from what the guest says of an output.
pub(crate) fn kind_of_output(kind: wit::PeerKind) -> Kind {
    match kind {
        wit::PeerKind::Message => Kind::PeerMessage,
        wit::PeerKind::Request(intent) => Kind::PeerRequest { intent },
        wit::PeerKind::ResponseProgress => Kind::PeerResponseProgress,
        wit::PeerKind::ResponseTerminal => Kind::PeerResponseTerminal,
    }
}

/// A reply as the guest gave it.
pub(crate) fn reply(reply: wit::Reply) -> Reply {
    let wit::Reply { outcome, content_type, headers } = reply;
    Reply {
        outcome: match outcome {
            wit::Outcome::None => ReplyOutcome::None,
            wit::Outcome::Ok(body) => ReplyOutcome::Ok(Bytes::from(body)),
            wit::Outcome::Refused(wit::Refusal { code, body }) => {
                ReplyOutcome::Refused { code, body: Bytes::from(body) }
            }
        },
        content_type,
        headers,
    }
}

/// What the agent says of a call that must not count.
pub(crate) fn agent_error(error: &wit::AgentError) -> GuestError {
    match error {
        wit::AgentError::Retryable(message) => GuestError::Retryable { message: shortened(message) },
        wit::AgentError::Fatal(message) => GuestError::Fatal { message: shortened(message) },
    }
}

fn kind_to_guest(kind: &Kind) -> wit::Kind {
    match kind {
        Kind::Message => wit::Kind::Message,
        Kind::PeerMessage => wit::Kind::Peer(wit::PeerKind::Message),
        Kind::PeerRequest { intent } => wit::Kind::Peer(wit::PeerKind::Request(intent.clone())),
        Kind::PeerResponseProgress => wit::Kind::Peer(wit::PeerKind::ResponseProgress),
        Kind::PeerResponseTerminal => wit::Kind::Peer(wit::PeerKind::ResponseTerminal),
        Kind::FlowStep => wit::Kind::FlowStep,
        Kind::Event => wit::Kind::Event,
        Kind::Continuation => wit::Kind::Continuation,
        Kind::Operation => wit::Kind::Operation,
        Kind::Timer => wit::Kind::Timer,
    }
}

fn source_to_guest(source: &Source) -> wit::Source {
    match source {
        Source::Operator => wit::Source::Operator,
        Source::Peer { agent, expects_reply } => wit::Source::Peer(wit::PeerSource {
            agent: agent.as_str().to_owned(),
            expects_reply: *expects_reply,
        }),
        Source::Flow { id, step } => {
            wit::Source::Flow(wit::FlowSource { id: id.clone(), step: step.clone() })
        }
        Source::System => wit::Source::System,
        Source::External { name } => wit::Source::External(name.clone()),
    }
}

/// 16 bytes as two big-endian numbers, the high half first.
fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(bytes);
    let low = number & u128::from(u64::MAX);
    let fits = "half of 128 bits is 64 bits";
    (u64::try_from(number >> 64).expect(fits), u64::try_from(low).expect(fits))
}

#[cfg(test)]
mod tests;
