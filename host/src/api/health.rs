//! Whether the host lives, works, and which one it is.

use axum::Json;
use axum::extract::State;
use godwit_core::failpoint;
use godwit_core::id::AgentId;
use serde_json::{Value, json};

use super::problem::{Code, Problem};
use crate::runtime::Runtime;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: a claim and a commit would work now. Agents that make no progress are named, and hold up nobody.
pub(super) async fn readyz(State(runtime): State<Runtime>) -> Result<Json<Value>, Problem> {
    match runtime.ready().await {
        Ok(()) => {
            let named =
                |(agent, reason): (AgentId, String)| json!({"agent": agent.as_str(), "reason": reason});
            let stuck: Vec<Value> = runtime.stuck().into_iter().map(named).collect();
            Ok(Json(json!({"status": "ready", "stuck": stuck})))
        }
        Err(reason) => Err(Problem::new(Code::NotReady, reason)),
    }
}

/// `GET /version`
pub(super) async fn version(State(runtime): State<Runtime>) -> Json<Value> {
    let mut body = version_json();
    body["host"] = json!({"id": runtime.host().to_string(), "name": runtime.name()});
    Json(body)
}

/// The program's version; the failpoints are named when it was built with them, which no product is.
pub(crate) fn version_json() -> Value {
    let mut body = json!({"name": "godwit", "version": env!("CARGO_PKG_VERSION"), "api": "v1"});
    if !failpoint::NAMES.is_empty() {
        body["failpoints"] = json!(failpoint::NAMES);
    }
    body
}
