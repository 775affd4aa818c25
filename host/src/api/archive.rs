//! Agents as files over HTTP: out as the answer's body, in as the request's.

use std::fs::File;
use std::io::Write;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use godwit_core::id::AgentId;
use serde::Deserialize;

use super::agents::AgentJson;
use super::backup::file_response;
use super::extract::{PathText, QueryOf};
use super::problem::{Code, Problem};
use crate::runtime::Runtime;
use crate::runtime::archive::ImportOptions;
use crate::runtime::call::CallError;

/// An archive in bytes: more than an agent of any sense, less than would fill a disk unnoticed.
const ARCHIVE_BYTES_MAX: u64 = 16 << 30;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    plugin: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    activate: Option<bool>,
    force: Option<bool>,
    /// 64 hex digits of a public key, or 16 of an origin hash.
    expect_identity: Option<String>,
}

/// `GET /v1/agents/{id}/export`: asked of the agent's home.
pub(super) async fn export(
    State(runtime): State<Runtime>,
    path: PathText,
    QueryOf(query): QueryOf<ExportQuery>,
) -> Result<Response, Problem> {
    let agent: AgentId = path.parse("id")?;
    let archive = runtime.export_agent(&agent, query.plugin.unwrap_or(true)).await?;
    Ok(file_response(archive, "application/vnd.godwit.agent", Vec::new()))
}

/// `POST /v1/import`: the body is an archive.
pub(super) async fn import(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<ImportQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let expected = query.expect_identity.map(|text| text.parse()).transpose().map_err(Problem::malformed)?;
    let options = ImportOptions {
        is_active: query.activate.unwrap_or(false),
        is_forced: query.force.unwrap_or(false),
        expected,
    };
    let file = runtime.scratch_unnamed("import")?;
    let file = receive(request.into_body(), file).await?;
    let agent = runtime.import_agent(file, options).await?;
    Ok((StatusCode::CREATED, Json(AgentJson::from(agent))).into_response())
}

/// Writes a body into a file, piece by piece.
async fn receive(body: Body, file: File) -> Result<File, Problem> {
    let mut file = file;
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::malformed(format!("the body broke off: {error}")))?;
        bytes += chunk.len() as u64;
        if bytes > ARCHIVE_BYTES_MAX {
            return Err(Problem::new(Code::TooLarge, "the archive is too large"));
        }
        let written = tokio::task::spawn_blocking(move || file.write_all(&chunk).map(|()| file)).await;
        let failed = |error: std::io::Error| CallError::Unavailable {
            reason: format!("the archive can't be kept: {error}"),
        };
        file = written.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)?;
    }
    Ok(file)
}
