//! Everything about an agent over HTTP, in one answer.

use axum::Json;
use godwit_core::spec::Spec;
use godwit_core::store::KeptSnapshot;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::AgentJson;
use super::events::event_json;
use super::extract::AgentDoor;
use super::history::{operation_json, output_json, receipt_json, timer_json};
use super::inputs::json::input;
use super::problem::Problem;
use super::standby::view_json as standby_json;
use crate::runtime::call::{AgentCall, AgentReply, Rows};
use crate::runtime::inspect::{Counters, EVENTS_MAX, Inspection};
use crate::runtime::routing::Called;
use crate::runtime::standby::StandbyCall;

/// Events that are shown when the caller does not say.
const EVENTS_DEFAULT: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InspectQuery {
    /// So many of the last events.
    events: Option<usize>,
}

/// `GET /v1/agents/{id}/inspect`
pub(super) async fn inspect(door: AgentDoor<InspectQuery>) -> Result<Json<Value>, Problem> {
    let events = door.query.events.unwrap_or(EVENTS_DEFAULT);
    if events > EVENTS_MAX {
        return Err(Problem::malformed(format!("events {events} is not 0..={EVENTS_MAX}")));
    }
    match door.call(AgentCall::Inspect { events }).await?.reply {
        AgentReply::Inspected(inspection) => {
            let mut shown = inspection_json(*inspection);
            // A host of an older version knows of none.
            if let Ok(Called { reply: AgentReply::Standby(view), .. }) =
                door.call(AgentCall::Standby(StandbyCall::Show)).await
            {
                shown["standby"] = standby_json(&view);
            }
            Ok(Json(shown))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

fn inspection_json(seen: Inspection) -> Value {
    let holder = seen.holder.map(
        |holder| json!({"host": holder.host.to_string(), "incarnation": holder.incarnation.to_string()}),
    );
    let receipts: Vec<_> =
        seen.receipts.iter().map(|receipt| receipt_json(receipt, receipt.digest())).collect();
    let lease =
        json!({"holder": holder, "token": seen.view.token.to_string(), "left_ms": seen.view.lease_ms});
    let agent = seen.view.id.clone();
    json!({
        "lease": lease,
        "agent": AgentJson::from(seen.view),
        "spec": seen.spec.as_ref().map(spec_json),
        "damage": seen.damage,
        "is_resident": seen.is_resident,
        "counters": counters_json(&seen.counters),
        "snapshots": seen.snapshots.iter().map(snapshot_json).collect::<Vec<_>>(),
        "receipts": receipts,
        "inputs": rows_json(&seen.inputs, |stored| without_payload(input(stored))),
        "timers": rows_json(&seen.timers, |stored| without_payload(timer_json(stored))),
        "outputs": rows_json(&seen.outputs, |stored| without_payload(output_json(stored))),
        "operations": rows_json(&seen.operations, |stored| operation_json(&agent, stored)),
        "events": seen.events.iter().map(event_json).collect::<Vec<_>>(),
        "last_error": seen.last_error.as_ref().map(event_json),
    })
}

fn rows_json<T>(rows: &Rows<T>, show: impl Fn(&T) -> Value) -> Value {
    json!({"items": rows.items.iter().map(show).collect::<Vec<_>>(), "has_more": rows.has_more})
}

/// They were left out on the way: an empty one would be a lie.
fn without_payload(mut shown: Value) -> Value {
    if let Value::Object(members) = &mut shown {
        members.retain(|name, _| !name.starts_with("payload") && name != "headers");
    }
    shown
}

fn spec_json(spec: &Spec) -> Value {
    json!({
        "plugin": spec.plugin.to_string(),
        "config": spec.config,
        "policy": spec.durability.name(),
        "silent_intents": spec.silent_intents,
        "addressability": spec.addressability.name(),
        "display_name": spec.display_name,
        "context": spec.context,
        "instructions": spec.instructions,
        "initial_message": spec.initial_message,
        "requires": spec.requires,
        "prefers": spec.prefers,
        "limits": {
            "turn_ms_max": spec.limits.turn_ms_max,
            "memory_bytes_max": spec.limits.memory_bytes_max,
            "snapshot_bytes_max": spec.limits.snapshot_bytes_max,
        },
    })
}

fn counters_json(counters: &Counters) -> Value {
    json!({
        "open_inputs": counters.open_inputs,
        "waking_inputs": counters.waking_inputs,
        "open_bytes": counters.open_bytes,
        "state_keys": counters.state_keys,
        "state_bytes": counters.state_bytes,
        "inputs_pruned": counters.inputs_pruned,
        "failed_starts": counters.failed_starts,
        "next_seq": counters.next_seq.to_string(),
        "next_event": counters.next_event.to_string(),
        "time_ms": counters.time_ms,
    })
}

fn snapshot_json(kept: &KeptSnapshot) -> Value {
    json!({
        "generation": kept.generation.to_string(),
        "revision": kept.revision.to_string(),
        "bytes": kept.bytes,
        "digest": kept.digest.to_string(),
    })
}
