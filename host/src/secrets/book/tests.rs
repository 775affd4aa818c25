//! What may happen to flows, step by step.

use super::*;

const NOW: u64 = 1_000_000;
const LIFE: u64 = 600_000;
const HOST: HostId = HostId([1; 32]);

fn id(number: u8) -> AuthFlowId {
    AuthFlowId([number; 16])
}

fn text(text: &str) -> SecretText {
    SecretText::new(text.into())
}

fn flow(number: u8, kind: FlowKind) -> Flow {
    let state = match kind {
        FlowKind::Device => Open::Device {
            device_code: Kept(text("device-code")),
            user_code: "ABCD".into(),
            verification_uri: "https://a/device".into(),
            verification_uri_complete: None,
            interval_s: 5,
        },
        FlowKind::Pkce => Open::Pkce {
            verifier: Kept(text("verifier")),
            state: Kept(text("state")),
            authorize_url: "https://a/authorize".into(),
            redirect_uri: None,
        },
    };
    Flow {
        id: id(number),
        secret: "mail".into(),
        kind,
        client: Digest::of(b"client"),
        host: HOST,
        started_at_ms: NOW,
        expires_at_ms: NOW + LIFE,
        changed_at_ms: NOW,
        state: FlowState::Open(state),
    }
}

fn book(flows: &[(u8, FlowKind)]) -> Book {
    let mut book = Book::default();
    for (number, kind) in flows {
        book.admit(flow(*number, *kind), NOW).unwrap();
    }
    book
}

fn answer(access: &str, refresh: Option<&str>) -> TokenAnswer {
    TokenAnswer { access: text(access), refresh: refresh.map(text), expires_in_s: Some(3_600) }
}

fn state(book: &Book, number: u8) -> &'static str {
    book.flows.iter().find(|flow| flow.id == id(number)).unwrap().state.name()
}

#[test]
fn a_code_is_consumed_once() {
    let mut book = book(&[(1, FlowKind::Pkce)]);
    let before = book.clone();
    assert_eq!(book.consume(id(1), &text("other"), NOW), Err(BookError::WrongState { id: id(1) }));
    assert_eq!(book.consume(id(9), &text("state"), NOW), Err(BookError::NoFlow { id: id(9) }));
    assert_eq!(book, before);
    let consumed = book.consume(id(1), &text("state"), NOW).unwrap();
    assert_eq!((consumed.verifier.expose(), consumed.secret.as_str()), ("verifier", "mail"));
    let again = book.consume(id(1), &text("state"), NOW);
    assert_eq!(again, Err(BookError::Over { id: id(1), state: "consumed" }));
    assert_eq!(book.cancel(id(1), NOW), Err(BookError::Over { id: id(1), state: "consumed" }));
    assert!(!format!("{book:?}").contains("verifier"));
    assert!(book.tokens.is_empty());
    book.settle(id(1), Ok(answer("access", None)), NOW).unwrap();
    book.settle(id(1), Ok(answer("access", None)), NOW).unwrap();
    assert_eq!((state(&book, 1), book.tokens["mail"].access.0.expose()), ("done", "access"));
}

#[test]
fn what_is_over_takes_nothing_more() {
    let mut flows =
        book(&[(1, FlowKind::Pkce), (2, FlowKind::Device), (3, FlowKind::Device), (4, FlowKind::Pkce)]);
    flows.cancel(id(1), NOW).unwrap();
    flows.cancel(id(1), NOW).unwrap();
    flows.settle(id(2), Err(FlowState::Failed { reason: "access_denied".into() }), NOW).unwrap();
    let late = NOW + LIFE;
    for (number, expected) in [(1, "cancelled"), (2, "failed"), (3, "expired"), (4, "expired")] {
        let over = Err(BookError::Over { id: id(number), state: expected });
        assert_eq!(flows.consume(id(number), &text("state"), late).map(drop), over);
        assert_eq!(flows.slow_down(id(number), late).map(drop), over);
        if number != 1 {
            assert_eq!(flows.cancel(id(number), late), over);
        }
        assert_eq!(flows.settle(id(number), Ok(answer("late", None)), late), over);
        assert_eq!(state(&flows, number), expected);
    }
    assert!(flows.tokens.is_empty(), "what comes for a flow that is over is not kept");
    let mut pkce = book(&[(1, FlowKind::Pkce)]);
    assert!(pkce.settle(id(1), Ok(answer("early", None)), NOW).is_err(), "not without being consumed");
}

#[test]
fn a_device_flow_is_settled_by_its_server_alone() {
    let mut book = book(&[(1, FlowKind::Device)]);
    assert_eq!(book.consume(id(1), &text("state"), NOW).map(drop), Err(BookError::NotByHand { id: id(1) }));
    assert_eq!((book.slow_down(id(1), NOW), book.slow_down(id(1), NOW)), (Ok(10), Ok(15)));
    book.settle(id(1), Ok(answer("access", Some("refresh"))), NOW).unwrap();
    assert_eq!(state(&book, 1), "done");
    assert!(
        !String::from_utf8_lossy(&book.write().unwrap()).contains("device-code"),
        "an ended flow keeps no secret"
    );
}

#[test]
fn only_so_many_are_open_and_only_so_many_are_kept() {
    let mut full = book(&[]);
    for number in 0..OPEN_MAX {
        full.admit(flow(u8::try_from(number).unwrap(), FlowKind::Pkce), NOW).unwrap();
    }
    assert_eq!(full.admit(flow(200, FlowKind::Pkce), NOW), Err(BookError::Full));
    full.cancel(id(3), NOW).unwrap();
    full.admit(flow(200, FlowKind::Pkce), NOW).unwrap();
    assert_eq!(full.admit(flow(201, FlowKind::Pkce), NOW), Err(BookError::Full));
    // Those that have expired make room.
    full.admit(flow(201, FlowKind::Pkce), NOW + LIFE).unwrap();
    let ended = |book: &Book| book.flows.iter().filter(|flow| flow.state.name() != "open").count();
    assert_eq!((ended(&full), full.flows.len()), (ENDED_MAX, ENDED_MAX + 1));
    assert!(full.flows.iter().all(|flow| flow.id != id(0)), "the oldest goes first");
}

#[test]
fn tokens_are_refreshed_before_they_end() {
    let mut book = book(&[(1, FlowKind::Device)]);
    let mail: SecretName = "mail".parse().unwrap();
    book.settle(id(1), Ok(answer("one", Some("r1"))), NOW).unwrap();
    let end = NOW + 3_600_000;
    let tokens = book.tokens["mail"].clone();
    for (now, expected) in
        [(NOW, (true, true)), (end - REFRESH_BEFORE_MS, (false, true)), (end, (false, false))]
    {
        assert_eq!((tokens.is_fresh(now), tokens.is_valid(now)), expected, "{now}");
    }
    // The server may give another refresh token, or none.
    book.refreshed(&mail, &text("r1"), Some(Ok(answer("two", None))), end);
    assert_eq!(book.tokens["mail"].refresh, Some(Kept(text("r1"))));
    book.refreshed(&mail, &text("r1"), Some(Ok(answer("three", Some("r2")))), end);
    // A late answer to an older one changes nothing.
    book.refreshed(&mail, &text("r1"), Some(Ok(answer("stale", Some("r3")))), end);
    book.refreshed(&mail, &text("r1"), Some(Err("invalid_grant".into())), end);
    assert_eq!((book.tokens["mail"].access.0.expose(), &book.tokens["mail"].refused), ("three", &None));
    book.refreshed(&mail, &text("r2"), Some(Err("invalid_grant".into())), end);
    assert_eq!((&book.tokens["mail"].refresh, book.tokens["mail"].access.0.expose()), (&None, "three"));
    assert!(Tokens { expires_at_ms: None, ..book.tokens["mail"].clone() }.is_fresh(u64::MAX));
}

#[test]
fn one_host_refreshes() {
    let mut book = book(&[(1, FlowKind::Device)]);
    let (mail, client, other): (SecretName, _, _) =
        ("mail".parse().unwrap(), Digest::of(b"client"), HostId([2; 32]));
    assert!(matches!(book.refresh(&mail, client, HOST, NOW), Refresh::Never(_)), "nobody has signed in");
    book.settle(id(1), Ok(answer("one", Some("r1"))), NOW).unwrap();
    assert!(matches!(book.refresh(&mail, client, HOST, NOW), Refresh::Fresh(_)));
    assert!(matches!(book.refresh(&mail, Digest::of(b"x"), HOST, NOW), Refresh::Never(_)));
    let late = NOW + 3_600_000;
    let ask = Refresh::Ask(text("r1"));
    assert_eq!(book.refresh(&mail, client, HOST, late), ask);
    assert_eq!(book.refresh(&mail, client, other, late), Refresh::Wait);
    assert_eq!(book.refresh(&mail, client, HOST, late), ask, "after a restart");
    assert_eq!(book.refresh(&mail, client, other, late + REFRESHING_MAX_MS), ask, "its host is gone");
    assert_eq!(book.refresh(&mail, client, HOST, late + REFRESHING_MAX_MS), Refresh::Wait);
    // What is not known lets anybody try again.
    book.refreshed(&mail, &text("r1"), None, late);
    assert_eq!(book.refresh(&mail, client, HOST, late), ask);
    book.refreshed(&mail, &text("r1"), Some(Ok(answer("two", None))), late);
    assert!(
        matches!(book.refresh(&mail, client, other, late), Refresh::Fresh(tokens) if tokens.access == Kept(text("two")))
    );
    book.refreshed(&mail, &text("r1"), Some(Err("invalid_grant".into())), late);
    let never = book.refresh(&mail, client, HOST, late + 3_600_000);
    assert!(matches!(&never, Refresh::Never(reason) if reason.contains("invalid_grant")), "{never:?}");
}

#[test]
fn the_payload_is_read_as_it_was_written() {
    let mut book = book(&[(1, FlowKind::Pkce), (2, FlowKind::Device)]);
    book.settle(id(2), Ok(answer("access", Some("refresh"))), NOW).unwrap();
    let payload = book.write().unwrap();
    assert_eq!(Book::read(Some(&payload)), Ok(book));
    assert_eq!(Book::read(None), Ok(Book::default()));
    for bad in [&b""[..], b"\x02", &payload[..payload.len() - 3]] {
        assert!(matches!(Book::read(Some(bad)), Err(BookError::Unreadable { .. })));
    }
    let shown = format!("{:?}", Book::read(Some(&payload)).unwrap());
    for secret in ["device-code", "\"verifier", "\"state\"", "access\"", "refresh\""] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}
