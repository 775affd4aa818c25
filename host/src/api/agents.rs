//! Agents over HTTP: create, list, show, verify.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_core::id::{AgentId, Revision, SpecRevision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::extract::{AgentDoor, JsonOf, LIST_MAX, List, NoBody, QueryOf, page_limit};
use super::problem::Problem;
use crate::agent_doc::AgentDoc;
use crate::runtime::Runtime;
use crate::runtime::agents::{CreateAgent, check_labels};
use crate::runtime::call::{AgentCall, AgentReply, AgentView};
use crate::runtime::respec::SpecUpdate;
use crate::runtime::verify::VerifyReport;

/// How an agent that is listed may stand.
const STATES: [&str; 11] = [
    "active",
    "dormant",
    "paused",
    "retiring",
    "retired",
    "broken",
    "suspended",
    "deleted",
    "held",
    "handing_off",
    "prepared",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentsQuery {
    /// `NAME=VALUE`, or `NAME` for any value.
    label: Option<String>,
    state: Option<String>,
    after: Option<AgentId>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateQuery {
    /// Whether one of this name that was deleted is made anew.
    recreate: Option<bool>,
    /// Whether it is made though peers that may have one of this name do not answer.
    force: Option<bool>,
    /// At home on this host: its name, its key, or a unique prefix of that.
    host: Option<String>,
}

/// An agent as JSON.
#[derive(Debug, Serialize)]
pub(super) struct AgentJson {
    id: String,
    state: String,
    host: Option<String>,
    home: String,
    token: String,
    lease_ms: Option<u64>,
    generation: String,
    revision: String,
    spec_revision: String,
    plugin: Value,
    public_key: Option<String>,
    labels: BTreeMap<String, String>,
    queue_depth: u64,
    last_receipt: String,
    broken: Option<Value>,
    created_at_ms: u64,
    stuck: Option<String>,
}

impl From<AgentView> for AgentJson {
    fn from(view: AgentView) -> Self {
        let broken = view.broken.map(|reason| json!({"reason": reason.name(), "message": reason.message()}));
        Self {
            id: view.id.to_string(),
            state: view.state,
            host: view.host.map(|host| host.to_string()),
            home: view.home.to_string(),
            token: view.token.to_string(),
            lease_ms: view.lease_ms,
            generation: view.generation.to_string(),
            revision: view.revision.to_string(),
            spec_revision: view.spec_revision.to_string(),
            plugin: json!({
                "name": view.plugin_name,
                "version": view.plugin_version,
                "digest": view.plugin.to_string(),
            }),
            public_key: view.public_key.map(|key| key.to_string()),
            labels: view.labels,
            queue_depth: view.queue_depth,
            last_receipt: view.last_receipt.to_string(),
            broken,
            created_at_ms: view.created_at_ms,
            stuck: view.stuck,
        }
    }
}

/// `PUT /v1/agents/{id}`
pub(super) async fn create(
    State(runtime): State<Runtime>,
    door: AgentDoor<CreateQuery>,
    headers: HeaderMap,
    JsonOf(doc): JsonOf<AgentDoc>,
) -> Result<Response, Problem> {
    let agent = door.agent.clone();
    let location = format!("/v1/agents/{agent}");
    let problem_agent = agent.to_string();
    let patch = doc.patch().map_err(|error| Problem::malformed(error.to_string()))?;
    let AgentDoc { plugin, labels, .. } = doc;
    if let Some(base) = if_match(&headers)? {
        check_labels(labels.as_ref().unwrap_or(&BTreeMap::new()))?;
        let update = SpecUpdate { base, plugin, labels, patch };
        return match door.call(AgentCall::Update(update)).await?.reply {
            AgentReply::Agent(view) => Ok(Json(AgentJson::from(*view)).into_response()),
            _ => Err(Problem::wrong_reply()),
        };
    }
    let request = CreateAgent {
        agent,
        plugin,
        labels: labels.unwrap_or_default(),
        patch,
        recreates: door.query.recreate.unwrap_or(false),
        is_forced: door.query.force.unwrap_or(false),
    };
    let host = door.query.host.as_deref().unwrap_or("self");
    let created = runtime.create_agent_on(host, request).await;
    let (view, is_new) = created.map_err(|error| Problem::from(error).with("agent", problem_agent))?;
    let body = Json(AgentJson::from(view));
    Ok(if is_new {
        (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response()
    } else {
        body.into_response()
    })
}

/// The spec revision in `If-Match`, as it stands or in quotes.
fn if_match(headers: &HeaderMap) -> Result<Option<SpecRevision>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    let revision = text.parse().map_err(|_| Problem::malformed("If-Match is not a spec revision"))?;
    Ok(Some(SpecRevision(revision)))
}

/// `GET /v1/agents`
pub(super) async fn list(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<AgentsQuery>,
) -> Result<Json<List<AgentJson>>, Problem> {
    let limit = page_limit(query.limit)?;
    if let Some(state) = query.state.as_deref().filter(|state| !STATES.contains(state)) {
        return Err(Problem::malformed(format!("state {state:?} is not one of {}", STATES.join(", "))));
    }
    let fits = |view: &AgentView| {
        let has_label = query.label.as_deref().is_none_or(|label| has_label(view, label));
        // What was deleted is listed for whoever asks for it.
        let is_there = view.state != "deleted" || query.state.is_some();
        is_there && has_label && query.state.as_deref().is_none_or(|state| view.state == state)
    };
    let mut after = query.after.clone();
    let mut found = Vec::new();
    // One more than asked for says whether more follow.
    while found.len() <= limit {
        let views = runtime.agents(after.as_ref(), LIST_MAX).await?;
        let Some(last) = views.last() else { break };
        after = Some(last.id.clone());
        found.extend(views.into_iter().filter(&fits));
    }
    let cursor = |view: &AgentView| view.id.to_string();
    Ok(Json(List::page(found, limit, cursor, AgentJson::from)))
}

fn has_label(view: &AgentView, selector: &str) -> bool {
    match selector.split_once('=') {
        Some((name, value)) => view.labels.get(name).is_some_and(|known| known == value),
        None => view.labels.contains_key(selector),
    }
}

/// `GET /v1/agents/{id}`
pub(super) async fn show(door: AgentDoor) -> Result<Json<AgentJson>, Problem> {
    match door.call(AgentCall::Show).await?.reply {
        AgentReply::Agent(view) => Ok(Json(AgentJson::from(*view))),
        _ => Err(Problem::wrong_reply()),
    }
}

/// `POST /v1/agents/{id}/verify`
pub(super) async fn verify(door: AgentDoor, _: NoBody) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Verify).await?.reply {
        AgentReply::Verified(report) => Ok(Json(verify_json(&report))),
        _ => Err(Problem::wrong_reply()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayQuery {
    /// Up to this revision.
    to: Option<u64>,
}

/// `POST /v1/agents/{id}/replay`
pub(super) async fn replay(door: AgentDoor<ReplayQuery>, _: NoBody) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Replay { to: door.query.to.map(Revision) }).await?.reply {
        AgentReply::Replayed(report) => Ok(Json(json!({
            "agent": report.agent.as_str(),
            "ok": report.breaks.is_empty(),
            "from": report.from.to_string(),
            "to": report.to.to_string(),
            "turns": report.turns,
            "state": report.state.map(|state| state.to_string()),
            "elapsed_us": report.elapsed_us,
            "breaks": report.breaks,
        }))),
        _ => Err(Problem::wrong_reply()),
    }
}

/// A verification as JSON; the offline command shows the same.
pub(crate) fn verify_json(report: &VerifyReport) -> Value {
    json!({
        "agent": report.agent.as_str(),
        "ok": report.breaks.is_empty(),
        "receipts": report.receipts,
        "repairs": report.repairs,
        "checkpointed": report.checkpointed,
        "signers": report.signers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "generation": report.generation.to_string(),
        "revision": report.revision.to_string(),
        "token": report.token.to_string(),
        "breaks": report.breaks,
    })
}
