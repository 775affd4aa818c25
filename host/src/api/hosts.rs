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
use crate::runtime::placement::{Exodus, HostCall, HostReply};

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
    let hosts = runtime.with_offers(runtime.hosts().await?).await?;
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
            "protocol": peer.protocol,
            "limited": peer.limited,
            "trouble": peer.trouble,
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

/// `POST /v1/peers/reload`: reads the configured peers again, as SIGHUP does.
pub(super) async fn reload_peers(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let changes = runtime.reload_peers()?;
    let texts = |keys: &[HostId]| keys.iter().map(HostId::to_string).collect::<Vec<_>>();
    Ok(Json(json!({"added": texts(&changes.added), "removed": texts(&changes.removed)})))
}

/// `DELETE /v1/peers/{key}`: its connections are closed, and what it has asked for is not gone on with.
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

/// Whether it is only said what would be done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    plan: Option<bool>,
}

/// `POST /v1/hosts/{id}/cordon|uncordon|rebalance`: of the host named so, or `self`.
pub(super) async fn act(
    State(runtime): State<Runtime>,
    path: PathText,
    QueryOf(query): QueryOf<PlanQuery>,
    _: NoBody,
) -> Result<Response, Problem> {
    act_on(&runtime, path.text("id"), path.text("verb"), &query).await
}

/// `POST /v1/hosts/{id}/drain`
pub(super) async fn drain(
    State(runtime): State<Runtime>,
    path: PathText,
    QueryOf(query): QueryOf<PlanQuery>,
    _: NoBody,
) -> Result<Response, Problem> {
    act_on(&runtime, path.text("id"), "drain", &query).await
}

async fn act_on(runtime: &Runtime, host: &str, verb: &str, query: &PlanQuery) -> Result<Response, Problem> {
    let plan = query.plan;
    let exodus = |exodus| if plan == Some(true) { HostCall::Plan(exodus) } else { HostCall::Begin(exodus) };
    let call = match (verb, plan) {
        ("cordon", None) => HostCall::Cordon(true),
        ("uncordon", None) => HostCall::Cordon(false),
        ("cordon" | "uncordon", Some(_)) => {
            return Err(Problem::malformed(format!("{verb} does not take `plan`")));
        }
        ("drain", _) => exodus(Exodus::Drain),
        ("rebalance", _) => exodus(Exodus::Rebalance),
        _ => return Err(Problem::new(Code::NoRoute, format!("no such verb of hosts: {verb}"))),
    };
    let reply = runtime.call_host(host, call).await?;
    let status = match call {
        HostCall::Begin(_) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(reply_json(reply)?)).into_response())
}

/// `GET /v1/hosts/{id}/drain`: the last drain or rebalance.
pub(super) async fn progress(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(reply_json(runtime.call_host(path.text("id"), HostCall::Progress).await?)?))
}

/// `GET /v1/hosts/{id}/counts`: of the host named so, or `self`.
pub(super) async fn counts(
    State(runtime): State<Runtime>,
    path: PathText,
    _: QueryOf<Nothing>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(reply_json(runtime.call_host(path.text("id"), HostCall::Counts).await?)?))
}

fn reply_json(reply: HostReply) -> Result<Value, Problem> {
    match reply {
        HostReply::Offer(offer) => Ok(json!({
            "agents": offer.agents,
            "cordoned": offer.is_cordoned,
            "capabilities": offer.capabilities,
        })),
        HostReply::Plan(plan) => Ok(json!({
            "predicted_pause_ms": plan.predicted_pause_us.map(milliseconds),
            "items": plan.moves.iter().map(|planned| json!({
                "agent": planned.agent.as_str(),
                "to": planned.to.map(|host| host.to_string()),
                "bytes": planned.bytes,
                "reason": planned.reason,
            })).collect::<Vec<_>>(),
        })),
        HostReply::Progress(Some(view)) => Ok(json!({
            "verb": match view.exodus {
                Exodus::Drain => "drain",
                Exodus::Rebalance => "rebalance",
            },
            "over": view.is_over,
            "total": view.total,
            "moved": view.moved,
            "pause_max_ms": milliseconds(view.pause_max_us),
            "pause_median_ms": milliseconds(view.pause_median_us),
            "elapsed_ms": view.elapsed_ms,
            "left": view.left.iter().map(|(agent, reason)| json!({
                "agent": agent.as_str(),
                "reason": reason,
            })).collect::<Vec<_>>(),
        })),
        HostReply::Counts(counts) => Ok(json!({
            "agents": counts.agents,
            "resident": counts.resident,
            "open_inputs": counts.open_inputs,
            "waiting_outputs": counts.waiting_outputs,
            "open_migrations": counts.open_migrations,
            "plugins": counts.plugins,
        })),
        HostReply::Progress(None) => {
            Err(Problem::new(Code::NotFound, "no drain or rebalance has begun since this host's start"))
        }
    }
}

/// With three decimals.
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}

fn host_json(host: &HostView) -> Value {
    json!({
        "id": host.id.to_string(),
        "name": host.name,
        "self": host.is_self,
        "api": host.api.map(|api| format!("http://{api}")),
        "mesh": host.mesh.to_string(),
        "state": host.state,
        "release": host.release,
        "agents": host.offer.as_ref().map(|offer| offer.agents),
        "cordoned": host.offer.as_ref().map(|offer| offer.is_cordoned),
        "capabilities": host.offer.as_ref().map(|offer| &offer.capabilities),
    })
}

#[cfg(test)]
mod tests;
