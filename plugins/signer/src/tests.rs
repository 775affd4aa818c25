//! The signer through the harness.

use godwit_guest::Outcome;
use godwit_guest::limits::SIGN_MESSAGE_BYTES_MAX;
use godwit_guest::testing::Harness;

use super::*;

fn signer(name: &str) -> Harness<Signer> {
    Harness::<Signer>::create(name, &[]).expect("it has no init")
}

/// The signature in the reply to `sign`.
fn signature(reply: &str) -> &str {
    reply.split('"').nth(7).expect("the second value")
}

#[test]
fn what_one_signs_another_verifies() {
    let (mut alice, mut bob) = (signer("alice"), signer("bob"));
    let key = alice.ask_text("key");
    let signed = alice.ask_text("sign pay 5 to bob");
    assert!(signed.contains(&key), "{signed}");
    let signature = signature(&signed);
    let verify = |agent: &str, key: &str, text: &str| format!("verify {agent} {key} {signature} {text}");
    assert_eq!(bob.ask_text(verify("alice", &key, "pay 5 to bob")), "valid");
    assert_eq!(bob.ask_text(verify("alice", &key, "pay 6 to bob")), "invalid");
    assert_eq!(bob.ask_text(verify("carol", &key, "pay 5 to bob")), "invalid");
    let other = bob.ask_text("key");
    assert_ne!(other, key);
    assert_eq!(bob.ask_text(verify("alice", &other, "pay 5 to bob")), "invalid");
}

#[test]
fn counts_what_it_has_signed_and_answers_queries_without_counting() {
    let mut signer = signer("alice");
    assert_eq!((signer.ask_text("count"), signer.ask_text("last")), ("0".into(), "none".into()));
    let signed = signer.ask_text("sign a text");
    assert_eq!((signer.ask_text("count"), signer.ask_text("last")), ("1".into(), signed.clone()));
    let queried = signer.query("sign a text").expect("it answers");
    assert_eq!(queried.outcome, Outcome::Ok(signed.into_bytes()), "the same signature");
    assert_eq!(signer.ask_text("count"), "1");
}

#[test]
fn what_it_does_not_know_is_refused() {
    let mut signer = signer("alice");
    for command in ["", "key now", "verify", "verify alice", "verify alice 00 00 text", "get"] {
        assert_eq!(signer.ask(command), Reply::refused("malformed"), "{command}");
    }
    let longest = "x".repeat(SIGN_MESSAGE_BYTES_MAX);
    assert!(signer.ask_text(format!("sign {longest}")).contains("signature"));
    assert_eq!(signer.ask(format!("sign {longest}x")), Reply::refused("too_large"));
}
