//! The end of an asked input as an HTTP answer: a reply's bytes, or a problem that says how it ended.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_core::id::{AgentId, FencingToken, Revision};
use godwit_core::input::{DeadLetterReason, Outcome, Reply, ReplyOutcome};

use super::super::payload::members;
use super::super::problem::{Code, Problem};
use super::{INPUT_ID, json};
use crate::runtime::call::{Asked, Queried};

/// The revision that the input's turn made.
const REVISION: HeaderName = HeaderName::from_static("godwit-revision");
/// The token under which it committed.
const TOKEN: HeaderName = HeaderName::from_static("godwit-token");

/// What the asking client gets.
pub(in crate::api) fn answer(agent: &AgentId, asked: Asked) -> Result<Response, Problem> {
    let input = asked.input.to_string();
    match asked.outcome {
        Outcome::Committed { revision, token, reply } => {
            at(revision, token, reply).map(|response| with_header(response, INPUT_ID, &input))
        }
        ended => Err(unreplied(&ended)),
    }
    .map_err(|problem| {
        problem.with("agent", agent.as_str()).with("input_id", input.as_str()).with_header(INPUT_ID, &input)
    })
}

/// What the client gets that asked about the committed state.
pub(super) fn queried(agent: &AgentId, queried: Queried) -> Result<Response, Problem> {
    let Queried { reply, revision, token } = queried;
    at(revision, token, reply).map_err(|problem| problem.with("agent", agent.as_str()))
}

/// The agent's reply, with the revision and token that it is of.
fn at(revision: Revision, token: FencingToken, reply: Reply) -> Result<Response, Problem> {
    let (revision, token) = (revision.to_string(), token.to_string());
    match replied(reply) {
        Ok(response) => Ok(with_header(with_header(response, REVISION, &revision), TOKEN, &token)),
        Err(refused) => Err(refused
            .with("token", token.as_str())
            .with_header(REVISION, &revision)
            .with_header(TOKEN, &token)),
    }
}

fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The agent's answer.
fn replied(reply: Reply) -> Result<Response, Problem> {
    match reply.outcome {
        ReplyOutcome::None => Ok(StatusCode::NO_CONTENT.into_response()),
        ReplyOutcome::Ok(bytes) => {
            let mut response = bytes.into_response();
            let given = HeaderValue::from_str(&reply.content_type).ok();
            let content_type = given
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, content_type);
            // The guest chose the type; a browser must not guess a livelier one.
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            Ok(response)
        }
        ReplyOutcome::Refused { code, body } => {
            let detail = match String::from_utf8_lossy(&body).as_ref() {
                "" => code.clone(),
                text => format!("{code}: {text}"),
            };
            Err(Problem::new(Code::AgentRefused, detail)
                .with("refusal_code", code)
                .with_all(members("refusal_body", &body)))
        }
    }
}

/// The problem of an input that ended without a reply.
fn unreplied(outcome: &Outcome) -> Problem {
    let (code, detail) = match outcome {
        Outcome::Committed { .. } => (Code::Internal, String::from("the reply is missing")),
        Outcome::Replaced { by } => (Code::InputReplaced, format!("replaced by input {by}")),
        Outcome::Abandoned { reason } => {
            (Code::InputAbandoned, format!("ended before its turn: {}", reason.name()))
        }
        Outcome::DeadLettered { reason, .. } => dead_lettered(reason),
    };
    let problem = Problem::new(code, detail).with_all(json::outcome(outcome));
    match outcome {
        Outcome::DeadLettered { revision, .. } => problem.with_header(REVISION, &revision.to_string()),
        _ => problem,
    }
}

fn dead_lettered(reason: &DeadLetterReason) -> (Code, String) {
    match reason {
        DeadLetterReason::Fatal { message } if message.is_empty() => {
            (Code::AgentError, "given up without a reason".into())
        }
        DeadLetterReason::Fatal { message } => (Code::AgentError, message.clone()),
        DeadLetterReason::AttemptsExhausted { message, attempts } => {
            (Code::AgentError, format!("given up after {attempts} attempts: {message}"))
        }
        DeadLetterReason::Fault { fault, attempts } => {
            let name = fault.kind.name();
            let message = &fault.message;
            (Code::AgentFault, format!("given up after {attempts} attempts: {name}: {message}"))
        }
        DeadLetterReason::KilledHost { attempts } => {
            (Code::AgentFault, format!("given up after {attempts} attempts: the host process died each time"))
        }
    }
}
