//! Tests of what a migration's end says.

use super::*;

fn ended(phase: &str, failure: Option<&str>) -> Value {
    json!({
        "agent": "a-1", "target": "ab", "phase": phase, "rounds": 1, "bytes": 2048, "pause_ms": 12.345,
        "failure": failure.map(|code| json!({"code": code, "message": "why", "retryable": code == "aborted"})),
    })
}

#[test]
fn a_complete_migration_says_how_long_the_agent_paused() {
    let text = summary(&ended("complete", None));
    assert_eq!(text, "agent a-1 moved to host ab: 1 round, 2.0 KiB, paused 12.3 ms");
}

#[test]
fn a_failed_migration_says_why_and_exits_accordingly() {
    let cases = [
        ("refused", Exit::Refused),
        ("plugin_unavailable", Exit::Refused),
        ("fenced", Exit::Refused),
        ("peer_unreachable", Exit::Unreachable),
        ("timeout", Exit::Unknown),
        ("state_failed", Exit::Failed),
        ("aborted", Exit::Failed),
    ];
    for (code, exit) in cases {
        let migration = ended("failed", Some(code));
        let helps = if code == "aborted" { "may" } else { "will not" };
        let expected = format!("agent a-1 did not move: failed: why (trying again {helps} help)");
        assert_eq!(summary(&migration), expected);
        assert_eq!(exit_of_failure(&migration), exit, "{code}");
    }
}
