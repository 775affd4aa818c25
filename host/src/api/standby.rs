//! Warm copies over HTTP: who keeps one of an agent, which stand by here, and one that becomes the agent.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use godwit_core::id::AgentId;
use godwit_core::store::standby::StandbyCopy;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{AgentDoor, List, NoBody, PathText, QueryOf, page_limit};
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply};
use crate::runtime::standby::{Promoted, StandbyCall, StandbyView};

/// On which host, or on none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuery {
    on: Option<String>,
    /// Also while the agent is held, or its standby does not answer.
    force: Option<bool>,
}

/// `GET /v1/agents/{id}/standby`
pub(super) async fn show(door: AgentDoor) -> Result<Json<Value>, Problem> {
    call(&door, StandbyCall::Show).await
}

/// `POST /v1/agents/{id}/standby?on=HOST`; without `on` no host keeps a copy any more.
pub(super) async fn change(door: AgentDoor<ChangeQuery>, _: NoBody) -> Result<Json<Value>, Problem> {
    let call_of = match (&door.query.on, door.query.force) {
        (Some(host), None | Some(false)) => StandbyCall::On { host: host.clone() },
        (Some(_), Some(true)) => return Err(Problem::malformed("force is for letting a standby go")),
        (None, force) => StandbyCall::Off { is_forced: force.unwrap_or(false) },
    };
    call(&door, call_of).await
}

async fn call<Q>(door: &AgentDoor<Q>, call: StandbyCall) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Standby(call)).await?.reply {
        AgentReply::Standby(view) => Ok(Json(view_json(&view))),
        _ => Err(Problem::wrong_reply()),
    }
}

pub(super) fn view_json(view: &StandbyView) -> Value {
    json!({
        "agent": view.agent.as_str(),
        "standby": view.standby.map(|standby| standby.to_string()),
        "held": view.is_held,
        "session": view.round.map(|round| round.session.to_string()),
        "change": view.round.map(|round| round.change.to_string()),
        "revision": view.round.map(|round| round.revision.to_string()),
        "last_round_ms": view.round.map(|round| round.at_ms),
        "lag_revisions": view.lag_revisions,
        "lag_changes": view.lag_changes,
        "trouble": view.trouble,
    })
}

/// Whether hosts that do not answer are taken for lost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteQuery {
    force: Option<bool>,
}

/// `POST /v1/agents/{id}/promote?force=`: of the copy on this host. 202 when the agent lives and moves here instead.
pub(super) async fn promote(
    State(runtime): State<Runtime>,
    path: PathText,
    QueryOf(query): QueryOf<PromoteQuery>,
    _: NoBody,
) -> Result<Response, Problem> {
    let agent: AgentId = path.parse("id")?;
    match runtime.promote(&agent, query.force.unwrap_or(false)).await? {
        Promoted::Moves { from, migration } => {
            let body = json!({
                "agent": agent.as_str(),
                "source": from.to_string(),
                "migration_id": migration.to_string(),
            });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        Promoted::TakenUp { agent: view, copy } => {
            let mut body = copy_json(&copy);
            body["token"] = view.token.to_string().into();
            Ok(Json(body).into_response())
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopiesQuery {
    after: Option<AgentId>,
    limit: Option<usize>,
}

/// `GET /v1/standbys`: the copies that stand by here.
pub(super) async fn copies(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<CopiesQuery>,
) -> Result<Json<List<Value>>, Problem> {
    let limit = page_limit(query.limit)?;
    let copies = runtime.standby_copies(query.after.as_ref(), limit + 1).await?;
    let cursor = |copy: &StandbyCopy| copy.agent.to_string();
    Ok(Json(List::page(copies, limit, cursor, |copy| copy_json(&copy))))
}

fn copy_json(copy: &StandbyCopy) -> Value {
    let standing = &copy.standing;
    json!({
        "agent": copy.agent.as_str(),
        "session": standing.session.to_string(),
        "source": standing.source.to_string(),
        "token": standing.token.to_string(),
        "generation": standing.generation.to_string(),
        "revision": standing.revision.to_string(),
        "change": standing.change.to_string(),
        "last_round_ms": copy.at_ms,
    })
}
