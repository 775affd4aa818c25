//! The relay through the harness.

use godwit_guest::testing::Harness;
use serde_json::json;

use super::*;

#[test]
fn sends_the_text_to_the_named_agent() {
    let mut relay = Harness::<Relay>::new();
    let inner = json!({"to": "counter-1", "payload": "add 1"}).to_string();
    let request = json!({"to": "relay-2", "payload": inner}).to_string();
    assert_eq!(relay.ask_text(request), "ok");
    let mut sent = relay.take_sent();
    let output = sent.remove(0);
    assert!(sent.is_empty());
    assert_eq!((output.to.as_str(), output.payload.as_slice()), ("relay-2", inner.as_bytes()));

    let mut second = Harness::<Relay>::create("relay-2", &[]).unwrap();
    second.handle(output.into_input("agent")).unwrap();
    let output = second.take_sent().remove(0);
    assert_eq!((output.to.as_str(), output.payload.as_slice()), ("counter-1", b"add 1".as_slice()));
}

#[test]
fn refuses_what_it_cannot_send() {
    let mut relay = Harness::<Relay>::new();
    let cases = [
        (json!({"to": "x"}), "malformed"),
        (json!({"to": "x", "payload": 1}), "malformed"),
        (json!({"to": "x", "payload": "", "more": 1}), "malformed"),
        (json!({"to": "No Such Id", "payload": ""}), "malformed"),
        (json!({"to": "x", "payload": "a".repeat(256 * 1024 + 1)}), "too_large"),
    ];
    for (request, code) in cases {
        assert_eq!(relay.ask(request.to_string()), Reply::refused(code));
    }
    assert!(relay.take_sent().is_empty());
}
