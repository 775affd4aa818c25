//! Replies between agents: what goes back to an agent that asked another one, and when it stops waiting.
//!
//! ```text
//! asker: send(expects-reply) --commit--> output + timer `godwit:reply:ID` --delivery--> answerer's input (correlation ID)
//! answerer: the input ends (turn, dead letter) --commit--> output, kind response-terminal, correlation ID --delivery-+
//! asker: input with the id H(asker, ID) <-- whichever comes first: that delivery, or the timer with "unknown" <------+
//! ```
//! Both ends of a request have one id, so the store accepts one of them; the other is a repetition of it. An answer that is
//! accepted removes the timer. An input that a verb ends sends nothing: the asker's timer says that nobody knows.

use bytes::Bytes;

use crate::id::{AgentId, InputId};
use crate::input::{DeadLetterReason, Input, Kind, Reply, ReplyOutcome, Source};
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use crate::output::{Output, ReplyRole};

/// The header of an answer that says how the request ended: `ok`, `none`, `refused`, `dead-letter` or `unknown`.
pub const REPLY_HEADER: &str = "godwit-reply";
/// The header of a refusal with its code.
pub const CODE_HEADER: &str = "godwit-refusal-code";
/// Begins the names of timers that end requests. Guests can't set timers of such a name.
const TIMER_PREFIX: &str = "godwit:reply:";

/// The name of the timer that ends a request without answer.
pub fn timer_name(output_id: &str) -> String {
    format!("{TIMER_PREFIX}{output_id}")
}

/// The request that a timer ends, when it is such a timer.
pub fn request_of_timer(name: &str) -> Option<&str> {
    name.strip_prefix(TIMER_PREFIX)
}

/// The input that ends a request without answer, at its asker.
pub fn unknown(asker: &AgentId, output_id: &str) -> Input {
    Input {
        id: InputId::of_reply(asker, output_id),
        kind: Kind::PeerResponseTerminal,
        source: Source::System,
        content_type: String::new(),
        payload: Bytes::new(),
        headers: vec![(REPLY_HEADER.to_owned(), "unknown".to_owned())],
        correlation: Some(output_id.to_owned()),
        accepted_at_ms: 0,
    }
}

/// The name of the timer that an input makes needless: it is the end of the request that the timer watches.
pub fn timer_ended_by(agent: &AgentId, input: &Input) -> Option<String> {
    let output_id = input.correlation.as_deref()?;
    let is_end = input.kind == Kind::PeerResponseTerminal && input.id == InputId::of_reply(agent, output_id);
    is_end.then(|| timer_name(output_id))
}

/// The answer to an input that a turn applied, when its sender waits for one.
pub fn of_turn(input: &Input, reply: &Reply) -> Option<Output> {
    let mut headers = Vec::new();
    let (name, payload) = match &reply.outcome {
        ReplyOutcome::None => ("none", Bytes::new()),
        ReplyOutcome::Ok(bytes) => ("ok", bytes.clone()),
        ReplyOutcome::Refused { code, body } => {
            headers.push((CODE_HEADER.to_owned(), code.clone()));
            ("refused", body.clone())
        }
    };
    headers.insert(0, (REPLY_HEADER.to_owned(), name.to_owned()));
    headers.extend(reply.headers.iter().cloned());
    answer(input, reply.content_type.clone(), payload, headers)
}

/// The answer to an input that was given up, when its sender waits for one.
pub fn of_dead_letter(input: &Input, reason: &DeadLetterReason) -> Option<Output> {
    let text = match reason {
        DeadLetterReason::Fatal { message } | DeadLetterReason::AttemptsExhausted { message, .. } => {
            message.clone()
        }
        DeadLetterReason::Fault { fault, .. } => format!("{}: {}", fault.kind.name(), fault.message),
        DeadLetterReason::KilledHost { .. } => "the host process died each time it ran".to_owned(),
    };
    let headers = vec![(REPLY_HEADER.to_owned(), "dead-letter".to_owned())];
    answer(input, "text/plain".to_owned(), Bytes::from(text), headers)
}

fn answer(
    input: &Input,
    content_type: String,
    payload: Bytes,
    mut headers: Vec<(String, String)>,
) -> Option<Output> {
    let Source::Peer { agent, expects_reply: true } = &input.source else {
        return None;
    };
    let output_id = input.correlation.clone()?;
    // What the host says comes first; of the guest's own headers stays what an input may carry.
    let mut bytes = 0;
    headers.truncate(HEADERS_MAX);
    headers.retain(|(name, value)| {
        let size = name.len() + value.len();
        let fits = bytes + size <= HEADER_BYTES_MAX;
        bytes += if fits { size } else { 0 };
        fits
    });
    Some(Output {
        destination: agent.clone(),
        kind: Kind::PeerResponseTerminal,
        content_type,
        payload,
        headers,
        correlation: Some(output_id),
        reply: ReplyRole::Given,
        channel: None,
    })
}

#[cfg(test)]
mod tests;
