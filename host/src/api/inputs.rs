//! Inputs over HTTP: ask, send, look them up, give dead letters another chance. And queries, which are answered as asks are.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use godwit_core::id::{AgentId, Generation, InputId, Revision};
use godwit_core::input::{AbandonReason, InputState, Kind, Mode, Outcome, Source, TraceParent};
use godwit_core::limits::{ASK_TIMEOUT_DEFAULT, ASK_TIMEOUT_MAX};
use godwit_core::store::StoredInput;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{
    AgentDoor, Body, List, NoBody, PathText, content_type, idempotency_key, page_limit, short_header,
    text_header,
};
use super::problem::{Code, Problem};
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply, Asked, Sent, Submission};
use crate::runtime::outputs::OutputPlace;

pub(super) mod answer;
pub(super) mod json;

/// What a submitted input is about.
const KIND: &str = "godwit-kind";
/// In which lane it waits.
const MODE: &str = "godwit-mode";
/// Under which key it takes the place of queued inputs.
const SUPERSEDES: &str = "godwit-supersedes";
/// What dispatches.
const ORIGIN: &str = "godwit-origin";
/// What a dispatched input belongs to.
const CORRELATION: &str = "godwit-correlation";
/// The input that an answer is about.
pub(super) const INPUT_ID: HeaderName = HeaderName::from_static("godwit-input-id");
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskQuery {
    pub(super) timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputsQuery {
    state: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneQuery {
    wait_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLettersQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `POST /v1/agents/{id}/ask`
pub(super) async fn ask(
    State(runtime): State<Runtime>,
    door: AgentDoor<AskQuery>,
    headers: HeaderMap,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let timeout_ms = timeout_ms(door.query.timeout_ms)?;
    let submission = submission(&runtime, &headers, payload)?;
    let (id, has_key) = (submission.id, submission.idempotency_key.is_some());
    let call = AgentCall::Ask { submission, timeout_ms };
    match door.call(call).await {
        Ok(called) => match called.reply {
            AgentReply::Asked(asked) => answer::answer(&door.agent, asked),
            _ => Err(Problem::wrong_reply()),
        },
        Err(problem) => Err(with_fate(problem, id, has_key)),
    }
}

/// `POST /v1/agents/{id}/send`
pub(super) async fn send(
    State(runtime): State<Runtime>,
    door: AgentDoor,
    headers: HeaderMap,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let submission = submission(&runtime, &headers, payload)?;
    deliver(&door, submission).await
}

/// `POST /v1/agents/{id}/enqueue`
pub(super) async fn enqueue(
    State(runtime): State<Runtime>,
    door: AgentDoor,
    headers: HeaderMap,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let submission = Submission { is_silent: true, ..submission(&runtime, &headers, payload)? };
    deliver(&door, submission).await
}

/// `POST /v1/agents/{id}/dispatch`: as `send`, also to internal agents, by something that says what it is and what it is
/// about, and may repeat itself.
pub(super) async fn dispatch(
    State(runtime): State<Runtime>,
    door: AgentDoor,
    headers: HeaderMap,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let submission = submission(&runtime, &headers, payload)?;
    let needed = |name: &'static str, text: Option<String>| {
        text.ok_or_else(|| Problem::malformed(format!("a dispatch needs the header {name}")))
    };
    let origin = needed(ORIGIN, short_header(&headers, ORIGIN)?)?;
    let correlation = needed(CORRELATION, short_header(&headers, CORRELATION)?)?;
    needed("idempotency-key", submission.idempotency_key.clone())?;
    let source = Source::External { name: origin };
    let correlation = Some(correlation);
    deliver(&door, Submission { source, correlation, is_dispatched: true, ..submission }).await
}

/// `POST /v1/agents/{id}/query`
pub(super) async fn query(door: AgentDoor, Body(payload): Body) -> Result<Response, Problem> {
    match door.call(AgentCall::Query { payload }).await?.reply {
        AgentReply::Queried(queried) => answer::queried(&door.agent, queried),
        _ => Err(Problem::wrong_reply()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// Only an output that contains this text.
    containing: Option<String>,
    /// Behind this revision: of the current generation, or `GENERATION.REVISION`.
    after: Option<String>,
    timeout_ms: Option<u64>,
}

/// `GET /v1/agents/{id}/wait-output`
pub(super) async fn wait_output(door: AgentDoor<WaitQuery>) -> Result<Json<Value>, Problem> {
    let limit = Duration::from_millis(timeout_ms(door.query.timeout_ms)?);
    let after = match door.query.after.as_deref() {
        None => None,
        Some(text) => Some(boundary(&door, text).await?),
    };
    let containing = door.query.containing.clone().map(Bytes::from);
    let output = door.output(containing, after, limit).await?;
    Ok(Json(json::output(&output)))
}

/// A boundary as a client names it.
async fn boundary(door: &AgentDoor<WaitQuery>, text: &str) -> Result<OutputPlace, Problem> {
    let number = |digits: &str| {
        let refused = || Problem::malformed(format!("after {text:?} is not REVISION or GENERATION.REVISION"));
        digits.parse::<u64>().ok().filter(|number| *number < u64::MAX).ok_or_else(refused)
    };
    if let Some((generation, revision)) = text.split_once('.') {
        let (generation, revision) = (Generation(number(generation)?), Revision(number(revision)?));
        return Ok(OutputPlace { generation, revision });
    }
    let revision = Revision(number(text)?);
    match door.call(AgentCall::Show).await?.reply {
        AgentReply::Agent(view) => Ok(OutputPlace { generation: view.generation, revision }),
        _ => Err(Problem::wrong_reply()),
    }
}

/// Submits, and answers once it is durable. A repetition of one that a verb or a newer input has ended learns that: it will
/// not run.
async fn deliver(door: &AgentDoor, submission: Submission) -> Result<Response, Problem> {
    let (id, has_key) = (submission.id, submission.idempotency_key.is_some());
    let called = door.call(AgentCall::Send { submission }).await;
    match called.map_err(|problem| with_fate(problem, id, has_key))?.reply {
        AgentReply::Sent(sent) => accepted(&door.agent, sent),
        _ => Err(Problem::wrong_reply()),
    }
}

/// The answer to what was accepted durably, now or before.
pub(super) fn accepted(agent: &AgentId, sent: Sent) -> Result<Response, Problem> {
    if let Some(Outcome::Replaced { .. } | Outcome::Abandoned { .. }) = &sent.outcome {
        let Sent { input, seq, is_duplicate, outcome } = sent;
        let asked = outcome.map(|outcome| Asked { input, seq, outcome, is_duplicate });
        return asked.map_or_else(|| Err(Problem::wrong_reply()), |asked| answer::answer(agent, asked));
    }
    let body = json!({
        "agent": agent.as_str(),
        "input_id": sent.input.to_string(),
        "seq": sent.seq.to_string(),
        "deduplicated": sent.is_duplicate,
    });
    let id = [(INPUT_ID, sent.input.to_string())];
    Ok((StatusCode::ACCEPTED, id, Json(body)).into_response())
}

pub(super) fn timeout_ms(given: Option<u64>) -> Result<u64, Problem> {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let max = millis(ASK_TIMEOUT_MAX);
    match given {
        None => Ok(millis(ASK_TIMEOUT_DEFAULT)),
        Some(given) if (1..=max).contains(&given) => Ok(given),
        Some(given) => Err(Problem::malformed(format!("timeout_ms {given} is not 1..={max}"))),
    }
}

pub(super) fn submission(
    runtime: &Runtime,
    headers: &HeaderMap,
    payload: Bytes,
) -> Result<Submission, Problem> {
    Ok(Submission {
        id: runtime.new_input_id(),
        kind: kind(headers)?,
        source: Source::External { name: "http".into() },
        content_type: content_type(headers)?,
        payload,
        headers: Vec::new(),
        idempotency_key: idempotency_key(headers)?,
        mode: mode(headers)?,
        is_silent: false,
        supersedes: short_header(headers, SUPERSEDES)?,
        // What is no trace context is passed over, as the standard wants it.
        traceparent: text_header(headers, "traceparent")?.and_then(|text| TraceParent::parse(&text).ok()),
        correlation: None,
        is_dispatched: false,
    })
}

/// `Godwit-Kind`. Whether clients may submit it the runtime decides.
fn kind(headers: &HeaderMap) -> Result<Kind, Problem> {
    match text_header(headers, KIND)? {
        None => Ok(Kind::Message),
        Some(name) => Kind::named(&name)
            .ok_or_else(|| Problem::malformed(format!("there is no kind of input {name:?}"))),
    }
}

/// `Godwit-Mode`.
fn mode(headers: &HeaderMap) -> Result<Mode, Problem> {
    let Some(name) = text_header(headers, MODE)? else {
        return Ok(Mode::Default);
    };
    let found = [Mode::Queue, Mode::Steer].into_iter().find(|mode| mode.name() == name);
    found.ok_or_else(|| Problem::malformed(format!("{MODE} {name:?} is neither queue nor steer")))
}

/// Tells the caller how to find out about an input whose fate is unknown.
pub(super) fn with_fate(problem: Problem, id: InputId, has_key: bool) -> Problem {
    if problem.code() != Code::Unknown {
        return problem;
    }
    problem
        .with("input_id", id.to_string())
        .with_header(INPUT_ID, &id.to_string())
        // Repeating it is safe only under the same key.
        .retryable(has_key)
}

/// `GET /v1/agents/{id}/inputs`
pub(super) async fn list(door: AgentDoor<InputsQuery>) -> Result<Json<List<Value>>, Problem> {
    let InputsQuery { state, after, limit } = &door.query;
    let state = state.as_deref().map(parse_state).transpose()?;
    page(&door, state, *after, *limit).await
}

/// `GET /v1/agents/{id}/dead-letters`
pub(super) async fn dead_letters(door: AgentDoor<DeadLettersQuery>) -> Result<Json<List<Value>>, Problem> {
    page(&door, Some(InputState::DeadLettered), door.query.after, door.query.limit).await
}

/// `GET /v1/agents/{id}/inputs/{input}?wait_ms=`: as it is, or as it ends within that time.
pub(super) async fn one(door: AgentDoor<OneQuery>, path: PathText) -> Result<Json<Value>, Problem> {
    let input: InputId = path.parse("input")?;
    let limit = Duration::from_millis(door.query.wait_ms.unwrap_or(0));
    if limit > ASK_TIMEOUT_MAX {
        let max = ASK_TIMEOUT_MAX.as_millis();
        return Err(Problem::malformed(format!("wait_ms {} is not 0..={max}", limit.as_millis())));
    }
    match door.end_of_input(input, limit).await? {
        Some(stored) => Ok(Json(json::input(&stored))),
        None => {
            let detail = format!("agent {} has no input {input}", door.agent);
            Err(Problem::new(Code::NotFound, detail).with("agent", door.agent.as_str()))
        }
    }
}

/// `POST /v1/agents/{id}/dead-letters/{input}/retry`
pub(super) async fn retry(door: AgentDoor, path: PathText, _: NoBody) -> Result<Response, Problem> {
    let input: InputId = path.parse("input")?;
    match door.call(AgentCall::Redrive { input }).await?.reply {
        AgentReply::Done => {
            let body = json!({"input_id": input.to_string(), "state": InputState::Queued.name()});
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        _ => Err(Problem::wrong_reply()),
    }
}

/// `DELETE /v1/agents/{id}/dead-letters/{input}`
pub(super) async fn drop_letter(door: AgentDoor, path: PathText, _: NoBody) -> Result<Json<Value>, Problem> {
    end(&door, path.parse("input")?, InputState::DeadLettered).await
}

/// `DELETE /v1/agents/{id}/inputs/{input}`
pub(super) async fn cancel(door: AgentDoor, path: PathText, _: NoBody) -> Result<Json<Value>, Problem> {
    end(&door, path.parse("input")?, InputState::Queued).await
}

/// Ends an input as cancelled that is in this state; repeating it is success.
async fn end(door: &AgentDoor, input: InputId, from: InputState) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Cancel { input, from }).await?.reply {
        AgentReply::Done => {
            let cancelled = AbandonReason::Cancelled.name();
            let state = InputState::Abandoned.name();
            Ok(Json(json!({"input_id": input.to_string(), "state": state, "reason": cancelled})))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

async fn page<Q>(
    door: &AgentDoor<Q>,
    state: Option<InputState>,
    after: Option<u64>,
    limit: Option<usize>,
) -> Result<Json<List<Value>>, Problem> {
    let limit = page_limit(limit)?;
    let call = AgentCall::Inputs { state, after: after.unwrap_or(0), limit };
    match door.call(call).await?.reply {
        AgentReply::Inputs(inputs) => {
            let cursor = |stored: &StoredInput| stored.seq.to_string();
            Ok(Json(List::rows(inputs, cursor, |stored| json::input(&stored))))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

fn parse_state(text: &str) -> Result<InputState, Problem> {
    let found = InputState::ALL.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| {
        let names = InputState::ALL.map(InputState::name).join(", ");
        Problem::malformed(format!("state {text:?} is not one of {names}"))
    })
}

#[cfg(test)]
mod tests;
