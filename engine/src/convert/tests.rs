//! Nothing gets lost between the two sides.

use godwit_core::id::{AgentId, InputId};

use super::*;

#[test]
fn an_id_becomes_two_big_endian_halves() {
    let mut bytes = [0; 16];
    bytes[0] = 0x01;
    bytes[7] = 0x02;
    bytes[8] = 0x03;
    bytes[15] = 0x04;
    assert_eq!(halves(bytes), (0x0100_0000_0000_0002, 0x0300_0000_0000_0004));
}

#[test]
fn an_input_keeps_all_its_parts() {
    let given = Input {
        id: InputId([0xff; 16]),
        kind: Kind::PeerRequest { intent: "quote".into() },
        source: Source::Peer { agent: AgentId::parse("a").expect("an agent id"), expects_reply: true },
        content_type: "text/plain".into(),
        payload: Bytes::from_static(b"body"),
        headers: vec![("name".into(), "value".into())],
        correlation: Some("c".into()),
        accepted_at_ms: 5,
    };
    let seen = input(&given);
    assert_eq!(seen.id, (u64::MAX, u64::MAX));
    assert!(matches!(&seen.kind, wit::Kind::Peer(wit::PeerKind::Request(intent)) if intent == "quote"));
    assert!(matches!(&seen.source, wit::Source::Peer(peer) if peer.agent == "a" && peer.expects_reply));
    assert_eq!(seen.content_type, "text/plain");
    assert_eq!(seen.payload, b"body");
    assert_eq!(seen.headers, given.headers);
    assert_eq!(seen.correlation.as_deref(), Some("c"));
    assert_eq!(seen.accepted_at_ms, 5);
}

#[test]
fn what_an_agent_says_of_an_error_is_made_fit_for_people() {
    let error = agent_error(&wit::AgentError::Fatal("bell \u{7}".repeat(2_000)));
    let GuestError::Fatal { message } = error else {
        panic!("{error:?}");
    };
    assert!(message.starts_with("bell \\u{7}bell") && message.ends_with(" [cut]"), "{message}");
}
