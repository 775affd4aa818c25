//! Tests of how the end of an input becomes an answer.

use axum::body::to_bytes;
use axum::http::header;
use godwit_core::id::{AgentId, FencingToken, Revision, Seq};
use godwit_core::input::{AbandonReason, DeadLetterReason, Fault, FaultKind, Outcome, Reply, ReplyOutcome};

use super::*;
use crate::runtime::call::Asked;

const TEXT: &str = "text/plain";

fn committed(outcome: ReplyOutcome, content_type: &str) -> Outcome {
    Outcome::Committed {
        revision: Revision(7),
        token: FencingToken(u64::MAX),
        reply: Reply { outcome, content_type: content_type.to_owned(), headers: Vec::new() },
    }
}

fn dead(reason: DeadLetterReason) -> Outcome {
    Outcome::DeadLettered { revision: Revision(7), reason }
}

fn respond(outcome: Outcome) -> Response {
    let asked = Asked { input: InputId([1; 16]), seq: Seq(3), outcome, is_duplicate: false };
    let agent = AgentId::parse("a-1").expect("a valid id");
    let response = answer::answer(&agent, asked).into_response();
    assert_eq!(response.headers()["godwit-input-id"], "01010101-0101-0101-0101-010101010101");
    response
}

async fn body_of(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    serde_json::from_slice(&bytes).expect("json")
}

#[test]
fn headers_say_what_an_input_is_and_how_it_waits() {
    let headers = |pairs: &[(&'static str, &'static str)]| {
        HeaderMap::from_iter(
            pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))),
        )
    };
    assert_eq!(kind(&headers(&[])).expect("the usual"), Kind::Message);
    assert_eq!(kind(&headers(&[(KIND, "event")])).expect("a kind"), Kind::Event);
    assert_eq!(kind(&headers(&[(KIND, "timer")])).expect("judged by the runtime"), Kind::Timer);
    for odd in ["Event", "", "telegram"] {
        assert_eq!(kind(&headers(&[(KIND, odd)])).expect_err("no kind").code(), Code::Malformed);
    }
    assert_eq!(mode(&headers(&[])).expect("the usual"), Mode::Default);
    assert_eq!(mode(&headers(&[(MODE, "queue")])).expect("a mode"), Mode::Queue);
    assert_eq!(mode(&headers(&[(MODE, "steer")])).expect("a mode"), Mode::Steer);
    for odd in ["default", "", "STEER"] {
        assert_eq!(mode(&headers(&[(MODE, odd)])).expect_err("no mode").code(), Code::Malformed);
    }
    let key = |value| short_header(&headers(&[(SUPERSEDES, value)]), SUPERSEDES);
    assert_eq!(key("k").expect("a key").as_deref(), Some("k"));
    assert_eq!(key("").expect_err("empty").code(), Code::Malformed);
}

#[tokio::test]
async fn a_reply_is_its_bytes_under_its_type() {
    let response = respond(committed(ReplyOutcome::Ok(Bytes::from_static(b"\xff\x00")), "image/x-y"));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "image/x-y");
    assert_eq!(response.headers()["godwit-revision"], "7");
    assert_eq!(response.headers()["godwit-token"], "18446744073709551615");
    let bytes = to_bytes(response.into_body(), 10).await.expect("a body");
    assert_eq!(bytes.as_ref(), b"\xff\x00");
}

#[test]
fn a_type_that_is_no_header_becomes_bytes() {
    for bad in ["", "text/plain\r\nset-cookie: a=b"] {
        let response = respond(committed(ReplyOutcome::Ok(Bytes::new()), bad));
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/octet-stream");
        assert!(!response.headers().contains_key("set-cookie"));
    }
}

#[test]
fn no_reply_is_no_content() {
    let response = respond(committed(ReplyOutcome::None, TEXT));
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["godwit-revision"], "7");
}

#[tokio::test]
async fn a_refusal_carries_code_body_and_token() {
    let refused = |body: &'static [u8]| ReplyOutcome::Refused {
        code: "insufficient".into(),
        body: Bytes::from_static(body),
    };
    let response = respond(committed(refused(b"need 3"), TEXT));
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(response.headers()["godwit-token"], "18446744073709551615");
    let body = body_of(response).await;
    assert_eq!(body["code"], "agent_refused");
    assert_eq!(body["detail"], "insufficient: need 3");
    assert_eq!(body["refusal_code"], "insufficient");
    assert_eq!(body["refusal_body"], "need 3");
    assert_eq!(body["agent"], "a-1");
    assert_eq!(body["token"], "18446744073709551615");
    let body = body_of(respond(committed(refused(&[0xff]), TEXT))).await;
    assert_eq!(body["refusal_body_base64"], "/w==");
}

#[tokio::test]
async fn an_input_without_reply_says_how_it_ended() {
    let message = || String::from("why");
    let fault = Fault { kind: FaultKind::Deadline, message: message() };
    let exhausted = DeadLetterReason::AttemptsExhausted { message: message(), attempts: 3 };
    let by = InputId([2; 16]);
    let cases = [
        (dead(DeadLetterReason::Fatal { message: String::new() }), 422, "agent_error", "fatal"),
        (dead(DeadLetterReason::Fatal { message: message() }), 422, "agent_error", "fatal"),
        (dead(exhausted), 422, "agent_error", "attempts_exhausted"),
        (dead(DeadLetterReason::Fault { fault, attempts: 3 }), 500, "agent_fault", "fault"),
        (dead(DeadLetterReason::KilledHost { attempts: 2 }), 500, "agent_fault", "killed_host"),
        (Outcome::Replaced { by }, 409, "input_replaced", ""),
        (Outcome::Abandoned { reason: AbandonReason::Reset }, 409, "input_abandoned", "reset"),
    ];
    for (outcome, status, code, reason) in cases {
        let response = respond(outcome);
        assert_eq!(response.status().as_u16(), status);
        let body = body_of(response).await;
        assert_eq!(body["code"], code);
        assert_eq!(body["reason"].as_str().unwrap_or_default(), reason);
        assert_eq!(body["retryable"], false);
        assert_ne!(body["detail"], "");
        let fault = match reason {
            "fault" => Some("deadline"),
            "killed_host" => Some("killed_host"),
            _ => None,
        };
        assert_eq!(body["fault"].as_str(), fault);
    }
}

#[test]
fn an_unknown_fate_names_the_input_and_asks_for_a_key() {
    let id = InputId([1; 16]);
    for has_key in [true, false] {
        let body = with_fate(Problem::new(Code::Unknown, "no answer"), id, has_key).to_json();
        assert_eq!(body["retryable"], has_key);
        assert_eq!(body["input_id"], id.to_string());
    }
    let refused = with_fate(Problem::new(Code::Busy, "full"), id, true).to_json();
    assert_eq!(refused.get("input_id"), None);
}

#[test]
fn a_timeout_is_bounded() {
    assert_eq!(timeout_ms(None).unwrap(), 30_000);
    assert_eq!(timeout_ms(Some(600_000)).unwrap(), 600_000);
    for bad in [0, 600_001] {
        assert_eq!(timeout_ms(Some(bad)).unwrap_err().code(), Code::Malformed);
    }
}

#[test]
fn states_are_given_by_name() {
    assert_eq!(parse_state("dead-lettered").unwrap(), InputState::DeadLettered);
    let problem = parse_state("gone").unwrap_err().to_json();
    assert!(problem["detail"].as_str().unwrap().contains("queued, staged"), "{problem}");
}
