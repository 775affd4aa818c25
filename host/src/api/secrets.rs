//! Secrets and the sign-ins that obtain them, over HTTP: names and states, never a value.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_core::id::AuthFlowId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{JsonOf, List, NoBody, Nothing, PathText, QueryOf};
use super::problem::{Code, Problem};
use crate::runtime::Runtime;
use crate::runtime::routing::store_error;
use crate::runtime::secrets::SecretView;
use crate::secrets::book::{BookError, Flow, FlowKind, FlowState, Open};
use crate::secrets::flows::AuthError;
use crate::secrets::oauth::OAuthError;

/// Seconds after which a full book or a server that did not answer is worth another try.
const RETRY_AFTER_S: &str = "10";

/// A sign-in to start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartJson {
    /// The secret's name.
    secret: String,
    /// How.
    kind: KindJson,
    /// Where the browser comes back to; for `pkce`, if the server does not know it.
    redirect_uri: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindJson {
    Device,
    Pkce,
}

/// What a browser has brought. No `Debug`: both are secrets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteJson {
    code: String,
    state: String,
}

/// `GET /v1/secrets`
pub(super) async fn list(State(runtime): State<Runtime>, _: QueryOf<Nothing>) -> Json<List<Value>> {
    Json(List::whole(runtime.secrets().await.iter().map(secret_json).collect()))
}

/// `POST /v1/auth-flows`: 201 with what the user must do.
pub(super) async fn start(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    JsonOf(StartJson { secret, kind, redirect_uri }): JsonOf<StartJson>,
) -> Result<Response, Problem> {
    let kind = match kind {
        KindJson::Device => FlowKind::Device,
        KindJson::Pkce => FlowKind::Pkce,
    };
    let flow = runtime.start_auth_flow(&secret, kind, redirect_uri).await?;
    let location = [(header::LOCATION, format!("/v1/auth-flows/{}", flow.id))];
    Ok((StatusCode::CREATED, location, Json(flow_json(&flow))).into_response())
}

/// `GET /v1/auth-flows`
pub(super) async fn flows(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
) -> Result<Json<List<Value>>, Problem> {
    Ok(Json(List::whole(runtime.auth_flows().await?.iter().map(flow_json).collect())))
}

/// `GET /v1/auth-flows/{id}`
pub(super) async fn show(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    let id: AuthFlowId = path.parse("id")?;
    Ok(Json(flow_json(&runtime.auth_flow(id).await?)))
}

/// `POST /v1/auth-flows/{id}/complete`: sends the code, once.
pub(super) async fn complete(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
    JsonOf(CompleteJson { code, state }): JsonOf<CompleteJson>,
) -> Result<Json<Value>, Problem> {
    let id: AuthFlowId = path.parse("id")?;
    Ok(Json(flow_json(&runtime.complete_auth_flow(id, code, state).await?)))
}

/// `DELETE /v1/auth-flows/{id}`: ends one that is open.
pub(super) async fn cancel(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    let id: AuthFlowId = path.parse("id")?;
    runtime.cancel_auth_flow(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn secret_json(secret: &SecretView) -> Value {
    json!({
        "name": secret.name.as_str(),
        "kind": secret.kind,
        "hosts": secret.hosts,
        "has_value": secret.has_value,
        "problem": secret.problem,
        "expires_at_ms": secret.expires_at_ms,
    })
}

/// Without verifier and device code. The page of a browser is shown, since whoever may see it may start a sign-in as well.
fn flow_json(flow: &Flow) -> Value {
    let reason = match &flow.state {
        FlowState::Failed { reason } => Some(reason.as_str()),
        FlowState::Consumed => Some(
            "its code was taken and no answer is recorded: if that stays so, the host died meanwhile; start another",
        ),
        _ => None,
    };
    let mut shown = json!({
        "id": flow.id.to_string(),
        "secret": flow.secret,
        "kind": flow.kind.name(),
        "state": flow.state.name(),
        "reason": reason,
        "started_at_ms": flow.started_at_ms,
        "expires_at_ms": flow.expires_at_ms,
        "changed_at_ms": flow.changed_at_ms,
    });
    let more = match &flow.state {
        FlowState::Open(Open::Device {
            user_code,
            verification_uri,
            verification_uri_complete,
            interval_s,
            ..
        }) => {
            json!({
                "user_code": user_code,
                "verification_uri": verification_uri,
                "verification_uri_complete": verification_uri_complete,
                "interval_s": interval_s,
            })
        }
        FlowState::Open(Open::Pkce { authorize_url, redirect_uri, .. }) => {
            json!({"authorize_url": authorize_url, "redirect_uri": redirect_uri})
        }
        _ => json!({}),
    };
    if let (Value::Object(members), Value::Object(more)) = (&mut shown, more) {
        members.extend(more);
    }
    shown
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let detail = error.to_string();
        match error {
            AuthError::NoSecret { .. } | AuthError::Book(BookError::NoFlow { .. }) => {
                Self::new(Code::NotFound, detail)
            }
            AuthError::Invalid { .. } => Self::malformed(detail),
            AuthError::Given { .. }
            | AuthError::NoSuchKind { .. }
            | AuthError::Book(BookError::WrongState { .. } | BookError::NotByHand { .. }) => {
                Self::new(Code::AuthFlowRefused, detail)
            }
            AuthError::Book(BookError::Full) => {
                Self::new(Code::AuthFlowsFull, detail).with_header(header::RETRY_AFTER, RETRY_AFTER_S)
            }
            AuthError::Book(BookError::Over { state, .. }) => {
                Self::new(Code::AuthFlowOver, detail).with("state", state)
            }
            AuthError::Book(BookError::Unreadable { .. }) => Self::new(Code::Internal, detail),
            AuthError::Server(error) => {
                let is_silent = matches!(error, OAuthError::Silent { .. });
                Self::new(Code::AuthServerFailed, detail).retryable(is_silent)
            }
            AuthError::Stopping => Self::new(Code::Unavailable, detail),
            AuthError::Store(error) => store_error(error).into(),
        }
    }
}
