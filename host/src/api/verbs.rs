//! The lifecycle verbs over HTTP, and their reports as JSON.

use axum::Json;
use axum::extract::State;
use godwit_core::agent::Checkpointed;
use godwit_core::agent::recover::Recovery;
use godwit_core::id::Revision;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::extract::{AgentDoor, JsonOf, NoBody, PathText};
use super::problem::{Code, Problem};
use crate::runtime::Runtime;
use crate::runtime::boot::Materialized;
use crate::runtime::call::{AgentCall, AgentReply};
use crate::runtime::respec::UpgradeReport;
use crate::runtime::verbs::{RecoverEnd, RecoverReport, TurnEnd, VerbCall, VerbDetail, VerbReport};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerbQuery {
    /// Of `stop`: whether the open inputs are given up.
    abandon: Option<bool>,
    /// Of `recover`: the revision of the kept snapshot to begin with.
    from: Option<u64>,
    /// Of `recover`: whether another state than the history names is taken.
    accept_state: Option<bool>,
}

/// `POST /v1/agents/{id}/{verb}`
pub(super) async fn act(
    State(_): State<Runtime>,
    path: PathText,
    door: AgentDoor<VerbQuery>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let name = path.text("verb");
    let verb = parse(name, &door.query)?;
    report(&door, verb).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpgradeJson {
    /// `NAME`, `NAME@VERSION`, or a digest.
    plugin: String,
}

/// `POST /v1/agents/{id}/upgrade`
pub(super) async fn upgrade(
    door: AgentDoor,
    JsonOf(upgrade): JsonOf<UpgradeJson>,
) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Upgrade { plugin: upgrade.plugin }).await?.reply {
        AgentReply::Upgraded(report) => Ok(Json(upgrade_json(door.agent.as_str(), &report))),
        _ => Err(Problem::wrong_reply()),
    }
}

fn upgrade_json(agent: &str, report: &UpgradeReport) -> Value {
    json!({
        "agent": agent,
        "verb": "upgrade",
        "plugin_before": report.plugin_before.to_string(),
        "plugin": report.plugin.to_string(),
        "spec_revision": report.spec_revision.to_string(),
        "revision": report.revision.to_string(),
    })
}

/// `DELETE /v1/agents/{id}`
pub(super) async fn delete(door: AgentDoor, _: NoBody) -> Result<Json<Value>, Problem> {
    report(&door, VerbCall::Delete).await
}

fn parse(name: &str, query: &VerbQuery) -> Result<VerbCall, Problem> {
    let known = VerbCall::ALL.into_iter().find(|verb| verb.name() == name);
    let verb = match (known, name) {
        (Some(verb), _) => verb,
        (None, "destroy") => VerbCall::Delete,
        (None, _) => return Err(Problem::new(Code::NoRoute, format!("no such verb: {name}"))),
    };
    let VerbQuery { abandon, from, accept_state } = *query;
    let given =
        [("abandon", abandon.is_some()), ("from", from.is_some()), ("accept_state", accept_state.is_some())];
    let (verb, takes): (_, &[&str]) = match verb {
        VerbCall::Stop { .. } => (VerbCall::Stop { is_abandoning: abandon.unwrap_or(false) }, &["abandon"]),
        VerbCall::Recover(_) => {
            let recovery =
                Recovery { from: from.map(Revision), accepts_state: accept_state.unwrap_or(false) };
            (VerbCall::Recover(recovery), &["from", "accept_state"])
        }
        verb => (verb, &[]),
    };
    match given.iter().find(|(name, is_given)| *is_given && !takes.contains(name)) {
        None => Ok(verb),
        Some((argument, _)) => Err(Problem::malformed(format!("{name} does not take `{argument}`"))),
    }
}

async fn report<Q>(door: &AgentDoor<Q>, verb: VerbCall) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Verb(verb)).await?.reply {
        AgentReply::Verb(report) => Ok(Json(report_json(door.agent.as_str(), &report))),
        _ => Err(Problem::wrong_reply()),
    }
}

/// `POST /v1/agents/{id}/materialize`
pub(super) async fn materialize(door: AgentDoor, _: NoBody) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Materialize).await?.reply {
        AgentReply::Materialized(outcome) => Ok(Json(materialized_json(door.agent.as_str(), &outcome))),
        _ => Err(Problem::wrong_reply()),
    }
}

fn materialized_json(agent: &str, outcome: &Materialized) -> Value {
    let mut answer = match outcome {
        Materialized::Created => json!({"outcome": "created"}),
        Materialized::Resumed { revision } => json!({"outcome": "resumed", "revision": revision.to_string()}),
        Materialized::Dormant { state } => json!({"outcome": "dormant", "state": state}),
        Materialized::HeldElsewhere { holder, until_ms } => {
            json!({"outcome": "held_elsewhere", "holder": holder.to_string(), "until_ms": until_ms})
        }
        Materialized::Broken { reason, message } => {
            json!({"outcome": "broken", "reason": reason, "message": message})
        }
        Materialized::Unfinished { reason } => json!({"outcome": "unfinished", "reason": reason}),
    };
    answer["agent"] = agent.into();
    answer
}

/// `POST /v1/agents/{id}/checkpoint`
pub(super) async fn checkpoint(door: AgentDoor, _: NoBody) -> Result<Json<Value>, Problem> {
    match door.call(AgentCall::Checkpoint).await?.reply {
        AgentReply::Checkpointed(report) => Ok(Json(checkpoint_json(door.agent.as_str(), &report))),
        _ => Err(Problem::wrong_reply()),
    }
}

fn checkpoint_json(agent: &str, report: &Checkpointed) -> Value {
    json!({
        "agent": agent,
        "verb": "checkpoint",
        "generation": report.generation.to_string(),
        "revision": report.revision.to_string(),
    })
}

fn report_json(agent: &str, report: &VerbReport) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("agent", json!(agent));
    add("verb", json!(report.verb));
    add("from", json!(report.from));
    add("state", json!(report.to));
    add("generation", json!(report.generation.to_string()));
    add("revision", json!(report.revision.to_string()));
    add("inputs_abandoned", json!(report.inputs_abandoned));
    add("inputs_pending", json!(report.inputs_pending));
    add("elapsed_ms", json!(u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX)));
    match &report.detail {
        VerbDetail::Moved => {}
        VerbDetail::Fenced { generation_before, token_before, token } => {
            add("generation_before", json!(generation_before.to_string()));
            add("token_before", json!(token_before.to_string()));
            add("token", json!(token.to_string()));
        }
        VerbDetail::Ended(end) => {
            add("turn", turn_json(end));
        }
        VerbDetail::Recovered(report) => {
            add("recovery", report.as_ref().map_or(Value::Null, recovery_json));
        }
    }
    Value::Object(members)
}

fn recovery_json(report: &RecoverReport) -> Value {
    let (outcome, repair) = match &report.outcome {
        RecoverEnd::Rebuilt => ("rebuilt", None),
        RecoverEnd::Mended => ("mended", None),
        RecoverEnd::Repaired { at, what, expected, accepted, turns_left_out } => {
            let repair = json!({
                "misfit_revision": at.to_string(),
                "misfit": what,
                "expected": expected.to_string(),
                "accepted": accepted.to_string(),
                "turns_left_out": turns_left_out,
            });
            ("repaired", Some(repair))
        }
    };
    json!({
        "reason": report.reason.name(),
        "message": report.reason.message(),
        "from_snapshot": report.from_snapshot.to_string(),
        "turns": report.turns,
        "outcome": outcome,
        "repair": repair,
    })
}

fn turn_json(end: &TurnEnd) -> Value {
    match end {
        TurnEnd::NothingRan => json!({"end": "nothing_ran"}),
        TurnEnd::Finished => json!({"end": "finished"}),
        TurnEnd::Abandoned { inputs } => {
            let inputs: Vec<String> = inputs.iter().map(ToString::to_string).collect();
            json!({"end": "abandoned", "inputs": inputs})
        }
        TurnEnd::NotAccepted { input } => json!({"end": "not_accepted", "input": input.to_string()}),
        TurnEnd::PutBack => json!({"end": "put_back"}),
    }
}
