//! Tests of exit codes.

use super::*;

#[test]
fn each_problem_has_its_exit_code() {
    let cases = [
        (400, "malformed", 2),
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (404, "agent_not_found", 3),
        (404, "no_route", 3),
        (405, "method_not_allowed", 1),
        (409, "conflict", 4),
        (412, "spec_mismatch", 4),
        (413, "too_large", 1),
        (421, "misdirected", 4),
        (422, "agent_refused", 4),
        (422, "agent_error", 1),
        (422, "idempotency_key_reused", 4),
        (422, "plugin_refused", 4),
        (429, "busy", 1),
        (500, "agent_fault", 1),
        (500, "internal", 1),
        (503, "agent_broken", 1),
        (503, "peers_silent", 5),
        (503, "unavailable", 5),
        (504, "unknown", 6),
    ];
    for (status, code, exit) in cases {
        let body = format!(r#"{{"code": "{code}", "detail": "why"}}"#);
        let error = CliError::of_answer(StatusCode::from_u16(status).expect("a status"), body.as_bytes());
        assert_eq!(error.exit() as u8, exit, "{status} {code}");
        assert_eq!(error.to_string(), format!("{code}: why"));
    }
}

#[test]
fn what_never_reached_a_host_has_its_exit_code_too() {
    let cases = [
        (CliError::Usage("bad".into()), 2),
        (CliError::Unreachable("nobody".into()), 5),
        (CliError::NoAnswer("late".into()), 6),
        (CliError::OutputClosed, 0),
        (CliError::Local(anyhow::anyhow!("disk")), 1),
        (std::io::Error::from(std::io::ErrorKind::BrokenPipe).into(), 0),
        (std::io::Error::from(std::io::ErrorKind::NotFound).into(), 1),
    ];
    for (error, exit) in cases {
        assert_eq!(error.exit() as u8, exit, "{error:?}");
    }
}

#[test]
fn a_refused_component_lists_all_problems() {
    let body = br#"{"code": "plugin_refused", "detail": "x", "problems": ["one", "two"]}"#;
    let error = CliError::of_answer(StatusCode::UNPROCESSABLE_ENTITY, body).to_string();
    assert!(error.ends_with("\n  - one\n  - two"), "{error}");
}

#[test]
fn an_unknown_outcome_names_the_input() {
    let body = br#"{"code": "unknown", "detail": "no answer in time", "input_id": "i-1"}"#;
    let error = CliError::of_answer(StatusCode::GATEWAY_TIMEOUT, body).to_string();
    assert_eq!(error, "unknown: no answer in time; it was input i-1");
}

#[test]
fn an_answer_that_is_no_problem_is_shown() {
    let error = CliError::of_answer(StatusCode::BAD_GATEWAY, b"<html> proxy \n");
    assert_eq!(error.to_string(), "http 502: <html> proxy");
}
