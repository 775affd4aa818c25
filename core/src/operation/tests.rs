//! Every cell of the transition table, every next step, and what may be asked for.

use super::request::{RequestError, Target, TargetPattern, is_granted};
use super::*;
use crate::limits::{OPERATION_REQUEST_BYTES_MAX, OPERATION_TIMEOUT_MS_MAX, URL_BYTES_MAX};

fn http() -> HttpRequest {
    HttpRequest {
        method: "POST".into(),
        url: "https://api.example.com/v1?q=1".into(),
        headers: vec![("accept".into(), "text/plain".into())],
        body: Bytes::from_static(b"body"),
        timeout_ms: 1_000,
        class: Class::AtLeastOnce,
    }
}

fn stored(state: OperationState, class: Class, is_cancelled: bool) -> StoredOperation {
    let id = OperationId([7; 16]);
    let request = Request::Http(HttpRequest { class, ..http() });
    StoredOperation {
        operation: NewOperation { id, index: 0, request },
        generation: Generation(1),
        revision: Revision(1),
        state,
        since_ms: 0,
        is_cancelled,
    }
}

#[test]
fn every_cell_of_the_table() {
    use OperationEvent::{Begin, End};
    use OperationState::{Begun, Wanted};
    let at = |token| FencingToken(token);
    for class in [Class::AtLeastOnce, Class::AtMostOnce] {
        let again = match class {
            Class::AtLeastOnce => Some(After::Goes(Begun(at(6)))),
            Class::AtMostOnce => None,
        };
        let mut cells = vec![
            (Wanted, Begin(at(5)), Some(After::Goes(Begun(at(5))))),
            (Begun(at(5)), Begin(at(5)), Some(After::Goes(Begun(at(5))))),
            (Begun(at(5)), Begin(at(6)), again),
            (Begun(at(5)), Begin(at(4)), None),
            (Wanted, End(Outcome::Completed), None),
            (Wanted, End(Outcome::Failed), Some(After::Ended(Outcome::Failed))),
            (Wanted, End(Outcome::Unknown), None),
            (Wanted, End(Outcome::Cancelled), Some(After::Ended(Outcome::Cancelled))),
        ];
        cells.extend(Outcome::ALL.map(|end| (Begun(at(5)), End(end), Some(After::Ended(end)))));
        for (state, event, expected) in cells {
            let answer = state.on(event, class);
            let expected = expected.ok_or(IllegalOperation { state, event });
            assert_eq!(answer, expected, "{state:?} {event:?} {class:?}");
        }
    }
}

#[test]
fn the_next_owner_does_what_the_class_says() {
    use Class::{AtLeastOnce, AtMostOnce};
    let begun = OperationState::Begun(FencingToken(3));
    let cases = [
        (OperationState::Wanted, AtLeastOnce, false, NextStep::Begin),
        (OperationState::Wanted, AtMostOnce, false, NextStep::Begin),
        (begun, AtLeastOnce, false, NextStep::Begin),
        (begun, AtMostOnce, false, NextStep::End(Outcome::Unknown)),
        (OperationState::Wanted, AtLeastOnce, true, NextStep::End(Outcome::Cancelled)),
        (OperationState::Wanted, AtMostOnce, true, NextStep::End(Outcome::Cancelled)),
        (begun, AtLeastOnce, true, NextStep::End(Outcome::Cancelled)),
        (begun, AtMostOnce, true, NextStep::End(Outcome::Cancelled)),
    ];
    for (state, class, is_cancelled, expected) in cases {
        let operation = stored(state, class, is_cancelled);
        assert_eq!(operation.next_step(), expected, "{state:?} {class:?} {is_cancelled}");
        // What the rules want, the table allows.
        let event = match expected {
            NextStep::Begin => OperationEvent::Begin(FencingToken(9)),
            NextStep::End(outcome) => OperationEvent::End(outcome),
        };
        assert!(state.on(event, class).is_ok(), "{state:?} {event:?}");
    }
}

#[test]
fn an_end_is_one_input() {
    let agent = AgentId::parse("a").unwrap();
    let id = OperationId::of(&agent, Generation(1), Revision(2), 3);
    let end = OperationEnd {
        outcome: Outcome::Completed,
        status: Some(201),
        reason: String::new(),
        content_type: "text/plain".into(),
        headers: vec![("etag".into(), "x".into()), ("long".into(), "v".repeat(HEADER_BYTES_MAX))],
        body: Bytes::from_static(b"made"),
    };
    let input = end.clone().input(&agent, id);
    assert_eq!(input.id, end.input(&agent, id).id);
    assert_eq!(input.correlation, Some(id.to_string()));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        header("godwit-operation-outcome", "completed"),
        header("godwit-operation-status", "201"),
        header("http-etag", "x"),
    ];
    assert_eq!(input.headers, expected, "what there is no room for is left out");
    let failed = OperationEnd::without_answer(Outcome::Failed, "ö".repeat(400)).input(&agent, id);
    let (_, reason) = &failed.headers[1];
    assert_eq!(reason.len(), TEXT_BYTES_MAX);
    let ids = [
        OperationId::of(&agent, Generation(1), Revision(2), 4),
        OperationId::of(&agent, Generation(1), Revision(3), 3),
        OperationId::of(&agent, Generation(2), Revision(2), 3),
        OperationId::of(&AgentId::parse("b").unwrap(), Generation(1), Revision(2), 3),
        id,
    ];
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[test]
fn urls_are_taken_in_one_plain_form() {
    let target = |host: &str, port, is_tls| Some(Target { host: host.into(), port, is_tls });
    let cases = [
        ("http://example.com", target("example.com", 80, false)),
        ("https://example.com/a/b?c=d&e=%20", target("example.com", 443, true)),
        ("https://example.com?x", target("example.com", 443, true)),
        ("http://a-b.example:8080/", target("a-b.example", 8080, false)),
        ("http://127.0.0.1:1/", target("127.0.0.1", 1, false)),
        ("http://[::1]:9/", target("::1", 9, false)),
        ("http://[0:0::1]/", target("::1", 80, false)),
        ("http://localhost/", target("localhost", 80, false)),
        ("ftp://example.com/", None),
        ("http:/example.com", None),
        ("http://", None),
        ("http:///path", None),
        ("http://user@example.com/", None),
        ("http://user:pass@example.com/", None),
        ("http://example.com/#fragment", None),
        ("http://example.com/a b", None),
        ("http://example.com/\r\nx: y", None),
        ("http://example.com\\@evil.com/", None),
        ("http://EXAMPLE.com/", None),
        ("http://exämple.com/", None),
        ("http://example.com:0/", None),
        ("http://example.com:65536/", None),
        ("http://example.com:/", None),
        ("http://example.com:+80/", None),
        ("http://example..com/", None),
        ("http://example.com./", None),
        ("http://-a.com/", None),
        ("http://127.1/", None),
        ("http://2130706433/", None),
        ("http://0x7f.0.0.1/", None),
        ("http://0177.0.0.1/", None),
        ("http://1.2.3.4.5/", None),
        ("http://[::1/", None),
        ("http://[::1%25lo]/", None),
        ("http://[127.0.0.1]/", None),
    ];
    for (url, expected) in cases {
        assert_eq!(Target::of_url(url), expected, "{url}");
    }
}

#[test]
fn requests_are_checked_whole() {
    assert!(http().check().is_ok());
    let invalid = [
        HttpRequest { method: "get".into(), ..http() },
        HttpRequest { method: "CONNECT".into(), ..http() },
        HttpRequest { url: "file:///etc/passwd".into(), ..http() },
        HttpRequest { timeout_ms: 0, ..http() },
        HttpRequest { timeout_ms: OPERATION_TIMEOUT_MS_MAX + 1, ..http() },
        HttpRequest { headers: vec![("Accept".into(), String::new())], ..http() },
        HttpRequest { headers: vec![("a b".into(), String::new())], ..http() },
        HttpRequest { headers: vec![(String::new(), String::new())], ..http() },
        HttpRequest { headers: vec![("a".into(), "x\r\nhost: evil".into())], ..http() },
        HttpRequest { headers: vec![("host".into(), "evil".into())], ..http() },
        HttpRequest { headers: vec![("a".into(), "Bearer {{secret:}}".into())], ..http() },
        HttpRequest { url: "https://api.example.com/{{secret:key}}".into(), ..http() },
        HttpRequest { headers: vec![("content-length".into(), "1".into())], ..http() },
        HttpRequest { headers: vec![("idempotency-key".into(), "mine".into())], ..http() },
    ];
    for request in invalid {
        assert!(matches!(request.check(), Err(RequestError::Invalid(_))), "{request:?}");
    }
    let too_large = [
        HttpRequest { url: format!("http://a/{}", "x".repeat(URL_BYTES_MAX)), ..http() },
        HttpRequest { body: vec![0; OPERATION_REQUEST_BYTES_MAX + 1].into(), ..http() },
        HttpRequest { headers: vec![("a".into(), "b".repeat(HEADER_BYTES_MAX))], ..http() },
        HttpRequest { headers: vec![("a".into(), "b".into()); 100], ..http() },
    ];
    for request in too_large {
        assert!(matches!(request.check(), Err(RequestError::TooLarge(_))), "{}", request.url);
    }
}

#[test]
fn grants_name_hosts_and_ports() {
    let target = |url: &str| Target::of_url(url).unwrap();
    let cases = [
        ("example.com:443", "https://example.com/", true),
        ("example.com:443", "http://example.com/", false),
        ("example.com:443", "https://sub.example.com/", false),
        ("example.com:*", "http://example.com:81/", true),
        ("*:443", "https://anything.example/", true),
        ("*:443", "https://anything.example:444/", false),
        ("*:*", "http://anything.example:1/", true),
        ("[::1]:80", "http://[0::1]/", true),
        ("127.0.0.1:80", "http://127.0.0.1/", true),
    ];
    for (pattern, url, expected) in cases {
        let parsed: TargetPattern = pattern.parse().unwrap();
        assert_eq!(parsed.allows(&target(url)), expected, "{pattern} {url}");
        let grants = ["state".to_owned(), format!("operations.http:{pattern}")];
        assert_eq!(is_granted(&grants, &target(url)), expected, "{pattern} {url}");
    }
    for text in [
        "",
        "example.com",
        ":80",
        "example.com:",
        "example.com:0",
        "Example.com:80",
        "*.example.com:80",
        "::1:80",
    ] {
        assert!(text.parse::<TargetPattern>().is_err(), "{text:?}");
    }
    assert!(!is_granted(&["operations.http".to_owned(), "*:*".to_owned()], &target("http://a.example/")));
}
