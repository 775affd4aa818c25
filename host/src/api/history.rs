//! What an agent did, over HTTP: its receipts and outputs; and what it waits for: timers and operations.

use axum::Json;
use axum::extract::State;
use godwit_core::digest::Digest;
use godwit_core::id::AgentId;
use godwit_core::operation::request::Target;
use godwit_core::operation::{OperationState, Request, StoredOperation};
use godwit_core::output::{OutputState, StoredOutput};
use godwit_core::receipt::Receipt;
use godwit_core::timer::StoredTimer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{AgentDoor, List, QueryOf, page_limit};
use super::payload::member;
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/agents/{id}/receipts`
pub(super) async fn receipts(door: AgentDoor<HistoryQuery>) -> Result<Json<List<Value>>, Problem> {
    let limit = page_limit(door.query.limit)?;
    let call = AgentCall::Receipts { after: door.query.after.unwrap_or(0), limit };
    match door.call(call).await?.reply {
        AgentReply::Receipts(receipts) => {
            let cursor = |(receipt, _): &(Receipt, Digest)| receipt.revision.to_string();
            Ok(Json(List::rows(receipts, cursor, |(receipt, digest)| receipt_json(&receipt, digest))))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

/// `GET /v1/agents/{id}/outputs`
pub(super) async fn outputs(door: AgentDoor<HistoryQuery>) -> Result<Json<List<Value>>, Problem> {
    let limit = page_limit(door.query.limit)?;
    let call = AgentCall::Outputs { after: door.query.after.unwrap_or(0), limit };
    match door.call(call).await?.reply {
        AgentReply::Outputs(outputs) => {
            let cursor = |stored: &StoredOutput| stored.position.to_string();
            Ok(Json(List::rows(outputs, cursor, |stored| output_json(&stored))))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

pub(super) fn receipt_json(receipt: &Receipt, digest: Digest) -> Value {
    let inputs: Vec<_> = receipt.inputs.iter().map(ToString::to_string).collect();
    json!({
        "agent": receipt.agent.as_str(),
        "generation": receipt.generation.to_string(),
        "revision": receipt.revision.to_string(),
        "kind": receipt.kind.name(),
        "inputs": inputs,
        "token": receipt.token.to_string(),
        "host": receipt.host.to_string(),
        "incarnation": receipt.incarnation.to_string(),
        "plugin": receipt.plugin.to_string(),
        "spec_revision": receipt.spec_revision.to_string(),
        "from": receipt.from.map(|from| from.to_string()),
        "effects": receipt.effects.to_string(),
        "state": receipt.state.map(|state| state.to_string()),
        "journal": receipt.journal.map(|entry| entry.to_string()),
        "parent": receipt.parent.to_string(),
        "digest": digest.to_string(),
        "run": receipt.run.to_string(),
        "sequence": receipt.sequence.to_string(),
        "elapsed_us": receipt.elapsed_us,
        "fuel": receipt.fuel,
        "committed_at_ms": receipt.committed_at_ms,
    })
}

/// `GET /v1/agents/{id}/timers`
pub(super) async fn timers(door: AgentDoor) -> Result<Json<List<Value>>, Problem> {
    match door.call(AgentCall::Timers).await?.reply {
        AgentReply::Timers(timers) => Ok(Json(List::whole(timers.iter().map(timer_json).collect()))),
        _ => Err(Problem::wrong_reply()),
    }
}

/// `GET /v1/agents/{id}/operations`
pub(super) async fn operations(door: AgentDoor) -> Result<Json<List<Value>>, Problem> {
    match door.call(AgentCall::Operations).await?.reply {
        AgentReply::Operations(active) => {
            let shown = active.iter().map(|stored| operation_json(&door.agent, stored));
            Ok(Json(List::whole(shown.collect())))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationsQuery {
    after: Option<AgentId>,
    limit: Option<usize>,
}

/// `GET /v1/operations`: of all agents that are at home here. A page may hold a few more than its limit, so that those of an
/// agent stay together.
pub(super) async fn all_operations(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<OperationsQuery>,
) -> Result<Json<List<Value>>, Problem> {
    let limit = page_limit(query.limit)?;
    let (found, last) = runtime.open_operations(query.after.as_ref(), limit).await?;
    let items = found.iter().map(|(agent, stored)| operation_json(agent, stored)).collect();
    Ok(Json(List { items, next: last.map(|agent| agent.as_str().to_owned()) }))
}

pub(super) fn timer_json(stored: &StoredTimer) -> Value {
    let mut shown = json!({
        "name": stored.name,
        "at_ms": stored.timer.at_ms,
        "generation": stored.generation.to_string(),
        "revision": stored.revision.to_string(),
    });
    if let Value::Object(members) = &mut shown {
        members.extend([member("payload", &stored.timer.payload)]);
    }
    shown
}

/// Without headers and body: what an agent sends is its own business.
pub(super) fn operation_json(agent: &AgentId, stored: &StoredOperation) -> Value {
    let (state, token) = match stored.state {
        OperationState::Wanted => ("wanted", None),
        OperationState::Begun(token) => ("begun", Some(token.to_string())),
    };
    let Request::Http(request) = &stored.operation.request;
    let target = Target::of_url(&request.url);
    let secrets: Vec<_> = request.secrets().iter().map(|name| name.as_str().to_owned()).collect();
    json!({
        "id": stored.operation.id.to_string(),
        "agent": agent.as_str(),
        "kind": "http",
        "state": state,
        "since_ms": stored.since_ms,
        "token": token,
        "is_cancelled": stored.is_cancelled,
        "generation": stored.generation.to_string(),
        "revision": stored.revision.to_string(),
        "method": request.method,
        "target": target.map(|target| target.to_string()),
        "url": request.url,
        "secrets": secrets,
        "class": request.class.name(),
        "timeout_ms": request.timeout_ms,
    })
}

pub(super) fn output_json(stored: &StoredOutput) -> Value {
    let output = &stored.output;
    let (state, reason) = match &stored.state {
        OutputState::Pending => ("pending", None),
        OutputState::Undeliverable { reason } => ("undeliverable", Some(reason.name())),
    };
    let mut shown = json!({
        "agent": stored.agent.as_str(),
        "generation": stored.generation.to_string(),
        "position": stored.position.to_string(),
        "destination": output.destination.as_str(),
        "number": stored.number.to_string(),
        "revision": stored.revision.to_string(),
        "state": state,
        "reason": reason,
        "kind": output.kind.name(),
        "content_type": output.content_type,
        "headers": output.headers,
        "correlation": output.correlation,
        "committed_at_ms": stored.committed_at_ms,
    });
    if let Value::Object(members) = &mut shown {
        members.extend([member("payload", &output.payload)]);
    }
    shown
}
