//! Migrations over HTTP: start one, watch it, end it.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, HostId, MigrationId};
use godwit_core::migration::{Refusal, Role};
use godwit_core::store::MigrationRecord;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::AgentJson;
use super::extract::{AgentDoor, JsonOf, List, NoBody, Nothing, PathText, QueryOf, from_text};
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply};

/// Where to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MigrateJson {
    /// A host's name, key, or unique prefix of a key.
    to: String,
}

/// `POST /v1/agents/{id}/migrate`
pub(super) async fn start(
    door: AgentDoor,
    JsonOf(MigrateJson { to }): JsonOf<MigrateJson>,
) -> Result<Response, Problem> {
    let called = door.call(AgentCall::Migrate { to }).await?;
    let AgentReply::Migrating(id) = called.reply else {
        return Err(Problem::wrong_reply());
    };
    // Source and target remember the migration, so the caller learns where to look.
    let body = json!({
        "migration_id": id.to_string(),
        "agent": door.agent.as_str(),
        "source": called.host.to_string(),
    });
    let location = [(header::LOCATION, format!("/v1/migrations/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(body)).into_response())
}

/// Whether a source that does not answer is taken for lost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptQuery {
    force: Option<bool>,
}

/// `POST /v1/agents/{id}/adopt?force=`: of this host, whose copy is in doubt.
pub(super) async fn adopt(
    State(runtime): State<Runtime>,
    path: PathText,
    QueryOf(query): QueryOf<AdoptQuery>,
    _: NoBody,
) -> Result<Json<AgentJson>, Problem> {
    let agent: AgentId = path.parse("id")?;
    let view = runtime.adopt(&agent, query.force.unwrap_or(false)).await?;
    Ok(Json(AgentJson::from(view)))
}

/// An agent that is to come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedJson {
    agent: AgentId,
    /// The host that it comes from; any peer, when nothing is said.
    #[serde(default, deserialize_with = "from_text")]
    from: Option<HostId>,
    /// Its secret entity key, 64 hex digits, when it does not travel with the agent.
    #[serde(default, deserialize_with = "from_text")]
    entity_secret: Option<Digest>,
}

/// `POST /v1/expected-migrations`
pub(super) async fn expect(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    JsonOf(expected): JsonOf<ExpectedJson>,
) -> Result<StatusCode, Problem> {
    let ExpectedJson { agent, from, entity_secret } = expected;
    runtime.expect_migration(agent, from, entity_secret.map(|secret| secret.0).as_ref())?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/migrations`
pub(super) async fn list(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
) -> Result<Json<List<Value>>, Problem> {
    let records = runtime.migrations().await?;
    Ok(Json(List::whole(records.iter().map(migration_json).collect())))
}

/// `GET /v1/migrations/{id}`
pub(super) async fn show(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    let id: MigrationId = path.parse("id")?;
    Ok(Json(migration_json(&runtime.migration(id).await?)))
}

/// `POST /v1/migrations/{id}/abort`
pub(super) async fn abort(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let id: MigrationId = path.parse("id")?;
    Ok(Json(migration_json(&runtime.abort_migration(id).await?)))
}

fn migration_json(record: &MigrationRecord) -> Value {
    let role = match record.role {
        Role::Source => "source",
        Role::Target => "target",
    };
    let failure = record.failure.as_ref().map(|failure| {
        json!({
            "code": failure.name(),
            "why": failure.refusal().map(Refusal::name),
            "message": failure.to_string(),
            "retryable": failure.is_retryable(),
        })
    });
    json!({
        "id": record.id.to_string(),
        "agent": record.agent.as_str(),
        "role": role,
        "source": record.source.to_string(),
        "target": record.target.to_string(),
        "phase": record.phase.name(),
        "rounds": record.rounds,
        "bytes": record.bytes,
        "pause_ms": record.pause_us.map(pause_ms),
        "failure": failure,
        "started_at_ms": record.started_at_ms,
        "deadline_ms": record.deadline_ms,
    })
}

/// Milliseconds with three decimals.
fn pause_ms(pause_us: u64) -> f64 {
    pause_us as f64 / 1e3
}
