//! Hosts and peers over HTTP.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use godwit_core::id::HostId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{JsonOf, List, NoBody, Nothing, PathText, QueryOf};
use super::problem::{Code, Problem};
use crate::config::parse_peer;
use crate::runtime::Runtime;
use crate::runtime::agents::HostView;

/// A peer to list: `{key, address}`, or `{peer}` with both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPeerJson {
    /// 64 lower-case hex digits.
    key: Option<String>,
    /// `IP:PORT` of its mesh.
    address: Option<SocketAddr>,
    /// `KEY@IP:PORT`.
    peer: Option<String>,
}

impl NewPeerJson {
    fn parse(self) -> Result<(HostId, SocketAddr), Problem> {
        match (self.key, self.address, self.peer) {
            (Some(key), Some(address), None) => Ok((key.parse()?, address)),
            (None, None, Some(peer)) => {
                parse_peer(&peer).map_err(|reason| Problem::malformed(format!("peer {peer:?} {reason}")))
            }
            _ => Err(Problem::malformed("a peer is given as key and address, or as peer: KEY@IP:PORT")),
        }
    }
}

/// `GET /v1/hosts`
pub(super) async fn list(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
) -> Result<Json<List<Value>>, Problem> {
    let hosts = runtime.hosts().await?;
    Ok(Json(List::whole(hosts.iter().map(host_json).collect())))
}

/// `GET /v1/peers`
pub(super) async fn peers(State(runtime): State<Runtime>, _: QueryOf<Nothing>) -> Json<List<Value>> {
    let peers = runtime.peers();
    let items = peers.iter().map(|peer| {
        json!({
            "key": peer.host.to_string(),
            "address": peer.address.to_string(),
            "connected": peer.is_connected,
        })
    });
    Json(List::whole(items.collect()))
}

/// `POST /v1/peers`: 201 when it was not listed, 200 when it was; its address is replaced.
pub(super) async fn add_peer(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    JsonOf(new): JsonOf<NewPeerJson>,
) -> Result<Response, Problem> {
    let (key, address) = new.parse()?;
    if key == runtime.host() {
        return Err(Problem::malformed("a host is no peer of itself"));
    }
    let is_known = runtime.peers().iter().any(|peer| peer.host == key);
    runtime.add_peer(key, address)?;
    let status = if is_known { StatusCode::OK } else { StatusCode::CREATED };
    let body = json!({"key": key.to_string(), "address": address.to_string()});
    Ok((status, Json(body)).into_response())
}

/// `DELETE /v1/peers/{key}`
pub(super) async fn remove_peer(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    let key: HostId = path.parse("key")?;
    if runtime.remove_peer(key)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(Code::NotFound, format!("no such peer {key}")))
    }
}

fn host_json(host: &HostView) -> Value {
    json!({
        "id": host.id.to_string(),
        "name": host.name,
        "self": host.is_self,
        "api": host.api.map(|api| format!("http://{api}")),
        "mesh": host.mesh.to_string(),
        "state": host.state,
        "agents": host.agents,
    })
}

#[cfg(test)]
mod tests;
