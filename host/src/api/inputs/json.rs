//! Inputs as JSON: what was sent, where it is, how it ended, what the agent answered.

use godwit_core::input::{DeadLetterReason, Outcome, Reply, ReplyOutcome, Source, TraceParent};
use godwit_core::store::StoredInput;
use serde_json::{Map, Value, json};

use super::super::payload::{member, members};
use crate::runtime::outputs::Output;

/// An input with its outcome and reply, both `null` while it is open.
pub(in super::super) fn input(stored: &StoredInput) -> Value {
    let input = &stored.input;
    let reply = match &stored.outcome {
        Some(Outcome::Committed { reply, .. }) => Some(reply_json(reply)),
        _ => None,
    };
    let mut members = object(json!({
        "id": input.id.to_string(),
        "seq": stored.seq.to_string(),
        "state": stored.state.name(),
        "kind": input.kind.name(),
        "source": source(&input.source),
        "content_type": input.content_type,
        "headers": input.headers,
        "correlation": input.correlation,
        "idempotency_key": stored.idempotency_key,
        "lane": stored.placing.lane.name(),
        "wakes": stored.placing.wakes,
        "traceparent": stored.traceparent.as_ref().map(TraceParent::as_str),
        "attempts": stored.attempts,
        "accepted_at_ms": input.accepted_at_ms,
        "ended_at_ms": stored.ended_at_ms,
        "outcome": stored.outcome.as_ref().map(|ended| Value::Object(outcome(ended))),
        "reply": reply,
    }));
    members.extend([member("payload", &input.payload)]);
    Value::Object(members)
}

/// What an agent said, and where to wait for the next.
pub(super) fn output(output: &Output) -> Value {
    json!({
        "generation": output.place.generation.to_string(),
        "revision": output.place.revision.to_string(),
        "after": format!("{}.{}", output.place.generation, output.place.revision),
        "token": output.token.to_string(),
        "input_id": output.input.to_string(),
        "seq": output.seq.to_string(),
        "reply": reply_json(&output.reply),
    })
}

/// How an input ended, as members.
pub(super) fn outcome(outcome: &Outcome) -> Map<String, Value> {
    object(match outcome {
        Outcome::Committed { revision, token, .. } => json!({
            "outcome": "committed",
            "revision": revision.to_string(),
            "token": token.to_string(),
        }),
        Outcome::DeadLettered { revision, reason } => {
            let mut members = dead_lettered(reason);
            members.insert("outcome".into(), "dead-lettered".into());
            members.insert("revision".into(), revision.to_string().into());
            Value::Object(members)
        }
        Outcome::Replaced { by } => json!({"outcome": "replaced", "by": by.to_string()}),
        Outcome::Abandoned { reason } => json!({"outcome": "abandoned", "reason": reason.name()}),
    })
}

fn dead_lettered(reason: &DeadLetterReason) -> Map<String, Value> {
    object(match reason {
        DeadLetterReason::Fatal { message } => json!({"reason": "fatal", "message": message}),
        DeadLetterReason::AttemptsExhausted { message, attempts } => {
            json!({"reason": "attempts_exhausted", "message": message, "attempts": attempts})
        }
        DeadLetterReason::Fault { fault, attempts } => json!({
            "reason": "fault",
            "fault": fault.kind.name(),
            "message": fault.message,
            "attempts": attempts,
        }),
        DeadLetterReason::KilledHost { attempts } => {
            json!({"reason": "killed_host", "fault": "killed_host", "attempts": attempts})
        }
    })
}

fn reply_json(reply: &Reply) -> Value {
    let mut shown = match &reply.outcome {
        ReplyOutcome::None => return json!({"outcome": "none"}),
        ReplyOutcome::Ok(bytes) => {
            let mut shown = members("body", bytes);
            shown.insert("outcome".into(), "ok".into());
            shown
        }
        ReplyOutcome::Refused { code, body } => {
            let mut shown = members("body", body);
            shown.insert("outcome".into(), "refused".into());
            shown.insert("code".into(), code.as_str().into());
            shown
        }
    };
    shown.insert("content_type".into(), reply.content_type.as_str().into());
    shown.insert("headers".into(), json!(reply.headers));
    Value::Object(shown)
}

fn source(source: &Source) -> Value {
    match source {
        Source::Operator => json!({"kind": "operator"}),
        Source::Peer { agent, expects_reply } => {
            json!({"kind": "peer", "agent": agent.as_str(), "expects_reply": expects_reply})
        }
        Source::Flow { id, step } => json!({"kind": "flow", "id": id, "step": step}),
        Source::System => json!({"kind": "system"}),
        Source::External { name } => json!({"kind": "external", "name": name}),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
