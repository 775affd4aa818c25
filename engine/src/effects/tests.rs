//! What effects add up to.

use godwit_core::id::AgentId;
use godwit_core::input::Kind;
use godwit_core::output::ReplyRole;

use super::*;

fn output(bytes: usize) -> Output {
    Output {
        destination: AgentId::parse("sink").expect("an agent id"),
        kind: Kind::PeerMessage,
        content_type: String::new(),
        payload: Bytes::from(vec![0; bytes]),
        headers: Vec::new(),
        correlation: None,
        reply: ReplyRole::None,
        channel: None,
    }
}

fn reply(outcome: ReplyOutcome) -> Reply {
    Reply { outcome, content_type: String::new(), headers: Vec::new() }
}

#[test]
fn the_last_write_of_a_key_counts_and_all_are_counted() {
    let mut effects = Effects::default();
    for round in 0..STATE_WRITES_MAX {
        let value = (round % 2 == 0).then(|| Bytes::from(round.to_string()));
        effects.write(format!("key-{}", round % 3), value).expect("within the quota");
    }
    assert_eq!(effects.write("key-0".into(), None), Err(QuotaReached));
    let turn = effects.finish(Vec::new(), Duration::ZERO).expect("no replies");
    let state: Vec<_> = turn.state.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    // 1,000 writes: the last of each key are the rounds 999, 997 and 998, and odd rounds delete.
    assert_eq!(state, [("key-0", None), ("key-1", None), ("key-2", Some(b"998".as_slice()))]);
}

#[test]
fn outputs_are_counted_and_weighed() {
    let mut effects = Effects::default();
    (0..OUTPUTS_MAX).for_each(|_| effects.send(output(1)).expect("within the quota"));
    assert_eq!(effects.send(output(1)), Err(QuotaReached));

    let mut effects = Effects::default();
    effects.send(output(TURN_EFFECT_BYTES_MAX - 2)).expect("within the quota");
    assert_eq!(effects.write("abc".into(), None), Err(QuotaReached));
    effects.write("ab".into(), None).expect("exactly what there is room for");
    let problem = effects
        .finish(vec![reply(ReplyOutcome::Ok(Bytes::from_static(b"x")))], Duration::ZERO)
        .expect_err("one byte too many");
    assert!(problem.contains("together"), "{problem}");
}

#[test]
fn replies_are_held_to_their_limits() {
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let header = ("name".to_string(), "value".to_string());
    let refused = |code: &str| ReplyOutcome::Refused { code: code.into(), body: Bytes::new() };
    let body = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    for (reply, says) in [
        (reply(ReplyOutcome::Ok(body)), "body"),
        (reply(refused(&long)), "code"),
        (Reply { content_type: long.clone(), ..reply(ReplyOutcome::None) }, "content type"),
        (Reply { headers: vec![header; HEADERS_MAX + 1], ..reply(ReplyOutcome::None) }, "header count"),
    ] {
        let problem = Effects::default().finish(vec![reply], Duration::ZERO).expect_err(says);
        assert!(problem.starts_with("reply 0") && problem.contains(says), "{problem}");
    }
}
