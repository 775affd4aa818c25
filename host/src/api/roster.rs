//! The roster and edges over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use godwit_core::edge::Pair;
use godwit_core::id::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::extract::{Body, JsonOf, List, NoBody, Nothing, QueryOf, content_type};
use super::problem::Problem;
use crate::roster::Roster;
use crate::runtime::Runtime;
use crate::runtime::edges::EdgeView;
use crate::runtime::reconcile::ReconcileReport;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRun {
    /// Whether it is only said what would be done.
    dry_run: Option<bool>,
}

/// A report, and whether everything is as the roster says now.
#[derive(Debug, Serialize)]
struct ReportJson {
    complete: bool,
    #[serde(flatten)]
    report: ReconcileReport,
}

fn answer(report: ReconcileReport) -> Response {
    Json(ReportJson { complete: report.is_complete(), report }).into_response()
}

/// `PUT /v1/roster?dry_run=`: TOML (`application/toml`) or JSON.
pub(super) async fn apply(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<DryRun>,
    headers: HeaderMap,
    Body(text): Body,
) -> Result<Response, Problem> {
    let is_toml = content_type(&headers)?.ends_with("/toml");
    let roster = match (is_toml, std::str::from_utf8(&text)) {
        (true, Ok(text)) => Roster::from_toml(text),
        (true, Err(_)) => return Err(Problem::malformed("the roster is no text")),
        (false, _) => Roster::from_json(&text),
    };
    let roster = roster.map_err(|error| Problem::malformed(error.to_string()))?;
    Ok(answer(runtime.apply(&roster, query.dry_run.unwrap_or(false)).await?))
}

/// `GET /v1/roster`
pub(super) async fn show(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    let (roster, revision) = runtime.roster().await?;
    let unreadable = |error: serde_json::Error| Problem::malformed(error.to_string());
    let mut shown: Value = serde_json::from_str(&roster.to_json()).map_err(unreadable)?;
    shown["revision"] = revision.map(|revision| revision.to_string()).into();
    Ok(Json(shown))
}

/// `POST /v1/reconcile?dry_run=`
pub(super) async fn reconcile(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<DryRun>,
    _: NoBody,
) -> Result<Response, Problem> {
    Ok(answer(runtime.reconcile(query.dry_run.unwrap_or(false)).await?))
}

/// An edge as a request names it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EdgeJson {
    between: [AgentId; 2],
}

impl EdgeJson {
    fn pair(self) -> Result<Pair, Problem> {
        let [one, other] = self.between;
        Pair::new(one, other).map_err(|error| Problem::malformed(error.to_string()))
    }
}

fn edge_json(pair: &Pair) -> Value {
    json!({"between": [pair.first().as_str(), pair.second().as_str()]})
}

/// `GET /v1/edges`
pub(super) async fn edges(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
) -> Result<Json<List<Value>>, Problem> {
    let item = |EdgeView { pair, is_managed, is_whole }: EdgeView| {
        let mut item = edge_json(&pair);
        item["managed"] = is_managed.into();
        item["whole"] = is_whole.into();
        item
    };
    Ok(Json(List::whole(runtime.edges().await?.into_iter().map(item).collect())))
}

/// `PUT /v1/edges`
pub(super) async fn wire(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    JsonOf(edge): JsonOf<EdgeJson>,
) -> Result<Response, Problem> {
    let pair = edge.pair()?;
    let status = if runtime.wire(&pair, None).await? { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(edge_json(&pair))).into_response())
}

/// `DELETE /v1/edges`
pub(super) async fn unwire(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    JsonOf(edge): JsonOf<EdgeJson>,
) -> Result<Json<Value>, Problem> {
    let pair = edge.pair()?;
    let mut answer = edge_json(&pair);
    answer["removed"] = runtime.unwire(&pair).await?.into();
    Ok(Json(answer))
}
