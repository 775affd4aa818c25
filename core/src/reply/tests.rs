//! Tests of what goes back to who asked.

use super::*;

fn request(expects_reply: bool) -> Input {
    Input {
        id: InputId([1; 16]),
        kind: Kind::PeerRequest { intent: "i".into() },
        source: Source::Peer { agent: AgentId::parse("asker").unwrap(), expects_reply },
        content_type: String::new(),
        payload: Bytes::new(),
        headers: Vec::new(),
        correlation: Some("0123".into()),
        accepted_at_ms: 1,
    }
}

fn reply(outcome: ReplyOutcome) -> Reply {
    Reply { outcome, content_type: "text/plain".into(), headers: vec![("a".into(), "b".into())] }
}

#[test]
fn each_end_says_how_it_was() {
    let ok = reply(ReplyOutcome::Ok(Bytes::from_static(b"42")));
    assert_eq!(of_turn(&request(false), &ok), None, "nobody waits");
    let refused = reply(ReplyOutcome::Refused { code: "no".into(), body: Bytes::from_static(b"why") });
    let fatal = DeadLetterReason::Fatal { message: "never".into() };
    let cases = [
        (of_turn(&request(true), &ok), "ok", "42"),
        (of_turn(&request(true), &reply(ReplyOutcome::None)), "none", ""),
        (of_turn(&request(true), &refused), "refused", "why"),
        (of_dead_letter(&request(true), &fatal), "dead-letter", "never"),
    ];
    for (output, how, payload) in cases {
        let output = output.expect("somebody waits");
        assert_eq!(output.destination.as_str(), "asker");
        assert_eq!((output.kind, output.reply), (Kind::PeerResponseTerminal, ReplyRole::Given));
        assert_eq!(output.correlation.as_deref(), Some("0123"));
        assert_eq!(output.headers[0], (REPLY_HEADER.to_owned(), how.to_owned()));
        assert_eq!(output.payload, payload);
    }
    let refused = of_turn(&request(true), &refused).unwrap().headers;
    assert_eq!(refused[1..], [(CODE_HEADER.to_owned(), "no".to_owned()), ("a".to_owned(), "b".to_owned())]);
}

#[test]
fn an_answer_fits_an_input_whatever_headers_the_guest_gave() {
    let mut many = reply(ReplyOutcome::None);
    many.headers = (0..HEADERS_MAX).map(|number| (number.to_string(), "x".repeat(1_000))).collect();
    let headers = of_turn(&request(true), &many).unwrap().headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(headers.len() <= HEADERS_MAX && bytes <= HEADER_BYTES_MAX, "{} {bytes}", headers.len());
    assert_eq!(headers[0].0, REPLY_HEADER);
}

#[test]
fn only_the_end_of_a_request_ends_its_timer() {
    let asker = AgentId::parse("asker").unwrap();
    let end = unknown(&asker, "0123");
    assert_eq!(timer_ended_by(&asker, &end), Some(timer_name("0123")));
    assert_eq!(request_of_timer(&timer_name("0123")), Some("0123"));
    assert_eq!(request_of_timer("alarm"), None);
    let other = Input { id: InputId([3; 16]), ..end.clone() };
    assert_eq!(timer_ended_by(&asker, &other), None, "an agent's own words about a request");
    assert_eq!(timer_ended_by(&AgentId::parse("b").unwrap(), &end), None);
    assert_eq!(timer_ended_by(&asker, &request(true)), None);
}
