//! Groups over HTTP: who is in one, and calls that one of its members takes. The answer says which.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use godwit_core::group::{GroupName, Member};
use godwit_core::lifecycle::Lifecycle;
use serde_json::{Value, json};

use super::extract::{Body, Nothing, PathText, QueryOf};
use super::inputs::{AskQuery, accepted, answer, submission, timeout_ms, with_fate};
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply};
use crate::runtime::groups::GroupCalled;

/// The member that has taken a call.
const AGENT: HeaderName = HeaderName::from_static("godwit-agent");

fn group(path: &PathText) -> Result<GroupName, Problem> {
    Ok(path.text("group").parse::<GroupName>()?)
}

/// `GET /v1/groups/{group}`
pub(super) async fn show(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    let group = group(&path)?;
    let view = runtime.group(&group).await?;
    let items = view.members.iter().map(member_json).collect::<Vec<_>>();
    Ok(Json(json!({"group": group.as_str(), "silent": view.silent, "items": items, "next": null})))
}

fn member_json(member: &Member) -> Value {
    json!({
        "agent": member.agent.as_str(),
        "host": member.host.to_string(),
        "token": member.token.to_string(),
        "state": member.lifecycle.name(),
        "takes_inputs": member.lifecycle == Lifecycle::Active,
        "load": member.load,
    })
}

/// `POST /v1/groups/{group}/ask`
pub(super) async fn ask(
    State(runtime): State<Runtime>,
    path: PathText,
    QueryOf(query): QueryOf<AskQuery>,
    headers: HeaderMap,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let (group, timeout_ms) = (group(&path)?, timeout_ms(query.timeout_ms)?);
    let submission = submission(&runtime, &headers, payload)?;
    let (id, has_key) = (submission.id, submission.idempotency_key.is_some());
    let called = runtime.call_group(&group, AgentCall::Ask { submission, timeout_ms }).await;
    let GroupCalled { agent, called } =
        called.map_err(|error| with_fate(Problem::from(error), id, has_key))?;
    match called.reply {
        AgentReply::Asked(asked) => {
            let answered = answer::answer(&agent, asked).map(|response| named(response, agent.as_str()));
            answered.map_err(|problem| problem.with_header(AGENT, agent.as_str()))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

/// `POST /v1/groups/{group}/send`
pub(super) async fn send(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
    headers: HeaderMap,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let group = group(&path)?;
    let submission = submission(&runtime, &headers, payload)?;
    let (id, has_key) = (submission.id, submission.idempotency_key.is_some());
    let called = runtime.call_group(&group, AgentCall::Send { submission }).await;
    let GroupCalled { agent, called } =
        called.map_err(|error| with_fate(Problem::from(error), id, has_key))?;
    match called.reply {
        AgentReply::Sent(sent) => accepted(&agent, sent).map(|response| named(response, agent.as_str())),
        _ => Err(Problem::wrong_reply()),
    }
}

fn named(mut response: Response, agent: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(agent) {
        response.headers_mut().insert(AGENT, value);
    }
    response
}
