//! Each status and code gives the fate that the interfaces promise, and silence is never taken for success.

use serde_json::json;

use super::*;

fn parts(status: u16, body: &Value) -> Parts {
    Parts {
        status,
        input_id: Some("i".into()),
        revision: None,
        token: None,
        body: body.to_string().into_bytes(),
    }
}

fn name(fate: &Fate) -> &'static str {
    match fate {
        Fate::Accepted(_) => "accepted",
        Fate::Refused(_) => "refused",
        Fate::Unknown(_) => "unknown",
    }
}

#[test]
fn an_ask_has_one_of_three_fates() {
    let cases = [
        (200, "", "accepted"),
        (204, "", "accepted"),
        (422, "agent_refused", "accepted"),
        (422, "agent_error", "accepted"),
        (500, "agent_fault", "accepted"),
        (422, "idempotency_key_reused", "refused"),
        (404, "agent_not_found", "refused"),
        (421, "misdirected", "refused"),
        (429, "busy", "refused"),
        (503, "unavailable", "refused"),
        (500, "internal", "unknown"),
        (504, "unknown", "unknown"),
    ];
    for (status, code, fate) in cases {
        let given = of_ask(parts(status, &json!({ "code": code })));
        assert_eq!(name(&given), fate, "{status} {code}");
    }
}

#[test]
fn an_acknowledgement_without_an_input_id_is_none() {
    let without_id = Parts { input_id: None, ..parts(200, &json!("3")) };
    assert_eq!(name(&of_ask(without_id)), "unknown");
    assert_eq!(name(&of_send(parts(202, &json!({ "seq": "1", "deduplicated": false })))), "unknown");
}

#[test]
fn a_send_is_accepted_by_202_alone() {
    let body = json!({ "input_id": "i", "seq": "7", "deduplicated": true });
    let Fate::Accepted(answer) = of_send(parts(202, &body)) else {
        panic!("a 202 is accepted");
    };
    assert!(matches!(answer.end, End::Queued { seq: 7, deduplicated: true }));
    assert_eq!(name(&of_send(parts(200, &body))), "unknown");
}

#[test]
fn what_may_help_is_repeated_and_nothing_else() {
    let repeatable = json!({ "code": "unavailable", "retryable": true });
    assert!(of_ask(parts(503, &repeatable)).is_worth_repeating());
    assert!(of_ask(parts(504, &json!({}))).is_worth_repeating());
    assert!(!of_ask(parts(422, &json!({ "code": "idempotency_key_reused" }))).is_worth_repeating());
    assert!(!of_ask(parts(200, &json!({}))).is_worth_repeating());
}
