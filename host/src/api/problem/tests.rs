//! Tests of the problem table.

use std::collections::BTreeSet;

use godwit_core::group::GroupName;
use godwit_core::guest::LoadError;
use godwit_core::id::{AgentId, HostId};
use godwit_core::store::BrokenReason;

use super::*;

fn agent() -> AgentId {
    AgentId::parse("a-1").expect("a valid id")
}

fn group() -> GroupName {
    "workers".parse().expect("a valid name")
}

fn reason() -> String {
    "why".into()
}

fn check(problem: impl Into<Problem>, status: u16, code: &str, is_retryable: bool) -> Value {
    let problem = problem.into();
    let body = problem.to_json();
    let response = problem.into_response();
    assert_eq!(response.status().as_u16(), status, "{body}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["type"], format!("urn:godwit:problem:{code}"));
    assert_eq!(body["retryable"], is_retryable, "{body}");
    assert!(!body["title"].as_str().unwrap_or_default().is_empty(), "{body}");
    assert!(!body["detail"].as_str().unwrap_or_default().is_empty(), "{body}");
    body
}

#[test]
fn each_call_error_has_its_status_and_code() {
    let host = HostId([7; 32]);
    let cases = [
        (CallError::NotFound { agent: agent() }, 404, "agent_not_found", false),
        (CallError::PeersSilent { agent: agent(), silent: 2 }, 503, "peers_silent", true),
        (CallError::Misdirected { agent: agent(), host }, 421, "misdirected", false),
        (CallError::NoSuch { what: reason() }, 404, "not_found", false),
        (CallError::Broken { reason: BrokenReason::Forked }, 503, "agent_broken", false),
        (CallError::KeyReused, 422, "idempotency_key_reused", false),
        (CallError::KindRefused { kind: "timer".into(), reason: reason() }, 422, "kind_refused", false),
        (CallError::Busy { depth: 3 }, 429, "busy", true),
        (CallError::Invalid { reason: reason() }, 400, "malformed", false),
        (CallError::Conflict { what: reason() }, 409, "conflict", false),
        (CallError::Unavailable { reason: reason() }, 503, "unavailable", true),
        (CallError::Unknown { reason: reason() }, 504, "unknown", false),
        (CallError::Internal { reason: reason() }, 500, "internal", false),
        (CallError::NoGroup { group: group(), silent: 1 }, 404, "group_not_found", false),
        (
            CallError::NoMember { group: group(), members: 2, reason: reason(), silent: 0 },
            503,
            "no_member",
            true,
        ),
    ];
    for (error, status, code, is_retryable) in cases {
        check(error, status, code, is_retryable);
    }
}

#[test]
fn each_plugin_error_has_its_status_and_code() {
    let load = LoadError { problems: vec!["imports wasi:filesystem".into(), "has no guest export".into()] };
    let body = check(PluginError::Load(load), 422, "plugin_refused", false);
    assert_eq!(body["problems"][1], "has no guest export");
    check(PluginError::Unnamed, 400, "malformed", false);
    check(PluginError::TooLarge { size: 99 }, 413, "too_large", false);
    check(PluginError::Manifest { reason: reason() }, 400, "malformed", false);
    check(PluginError::Call(CallError::Conflict { what: reason() }), 409, "conflict", false);
}

#[test]
fn a_misdirected_call_names_agent_and_holder() {
    let host = HostId([0xab; 32]);
    let body = check(CallError::Misdirected { agent: agent(), host }, 421, "misdirected", false);
    assert_eq!(body["agent"], "a-1");
    assert_eq!(body["holder"], "ab".repeat(32));
}

#[test]
fn a_busy_answer_says_when_to_come_back() {
    let response = Problem::from(CallError::Busy { depth: 1 }).into_response();
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
}

#[test]
fn members_never_replace_the_standard_ones() {
    let problem = Problem::malformed("bad").with("code", "mine").with("extra", 1);
    let body = problem.to_json();
    assert_eq!(body["code"], "malformed");
    assert_eq!(body["extra"], 1);
}

#[test]
fn codes_have_names_of_their_own() {
    let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len());
    for code in Code::ALL {
        assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
    }
}
