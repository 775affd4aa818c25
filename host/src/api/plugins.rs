//! Plugins over HTTP: load a component while the host runs, list, show, remove.

use axum::Json;
use axum::RequestExt;
use axum::extract::{Multipart, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use godwit_core::spec::PluginInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, List, NoBody, Nothing, PathText, QueryOf, unread};
use super::problem::{Code, Problem};
use crate::runtime::Runtime;
use crate::runtime::plugins::PluginLabel;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadQuery {
    name: Option<String>,
    version: Option<String>,
}

/// `POST /v1/plugins`
pub(super) async fn load(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<LoadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let (component, manifest) = if is_multipart(request.headers()) {
        parts(request).await?
    } else {
        let Body(component) = request.extract().await?;
        (component, None)
    };
    let label = PluginLabel { name: query.name, version: query.version, manifest };
    let (info, is_new) = runtime.load_plugin(component, label).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = [(header::LOCATION, format!("/v1/plugins/{}", info.digest))];
    Ok((status, location, Json(plugin_json(&info))).into_response())
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with(b"multipart/form-data"))
}

/// Reads the parts `component` and `manifest`.
async fn parts(request: Request) -> Result<(Bytes, Option<String>), Problem> {
    let form: Result<Multipart, _> = request.extract().await;
    let mut form = form.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let torn = |error: axum::extract::multipart::MultipartError| unread(error.status(), error.body_text());
    let (mut component, mut manifest) = (None, None);
    while let Some(field) = form.next_field().await.map_err(torn)? {
        match field.name() {
            Some("component") => component = Some(field.bytes().await.map_err(torn)?),
            Some("manifest") => manifest = Some(field.text().await.map_err(torn)?),
            other => {
                let name = other.unwrap_or_default();
                return Err(Problem::malformed(format!("part {name:?} is not component or manifest")));
            }
        }
    }
    let component = component.ok_or_else(|| Problem::malformed("the part component is missing"))?;
    Ok((component, manifest))
}

/// `GET /v1/plugins`
pub(super) async fn list(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
) -> Result<Json<List<Value>>, Problem> {
    let plugins = runtime.plugins().await?;
    Ok(Json(List::whole(plugins.iter().map(plugin_json).collect())))
}

/// `GET /v1/plugins/{digest}`; a name or `NAME@VERSION` does as well.
pub(super) async fn show(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    let info = runtime.plugin(path.text("digest")).await?;
    Ok(Json(plugin_json(&info)))
}

/// `DELETE /v1/plugins/{digest}`
pub(super) async fn remove(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    let digest = path.parse("digest")?;
    if runtime.remove_plugin(digest).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(Code::NotFound, format!("no such plugin {digest}")))
    }
}

fn plugin_json(info: &PluginInfo) -> Value {
    json!({
        "digest": info.digest.to_string(),
        "name": info.name,
        "version": info.version,
        "imports": info.imports,
        "grants": info.grants,
        "size": info.size,
        "loaded_at_ms": info.loaded_at_ms,
        "killed_hosts": info.killed_hosts,
    })
}
