//! Queries of real components: what they see, what is refused to them, how they end.

use super::*;
use crate::testing::component;

/// A guest of the hostile component whose state is five lines, without a turn.
fn restored(test: &TestEngine, request: GuestRequest) -> Box<dyn Guest> {
    let mut guest = test.engine.start(request).expect("it is loaded");
    guest.restore(&turn(3), b"7\n\n\n\nremembered", "0.1.0").expect("a good state");
    guest
}

fn say(guest: &mut dyn Guest, line: &str) -> Result<String, GuestError> {
    let reply = guest.query(&turn(3), line.as_bytes())?;
    Ok(match reply.outcome {
        ReplyOutcome::Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        ReplyOutcome::None => "none".into(),
        ReplyOutcome::Refused { code, .. } => format!("refused: {code}"),
    })
}

#[test]
fn only_who_exports_it_answers_queries() {
    let test = TestEngine::new();
    for (name, answers) in [("test/hostile", true), ("index", true), ("counter", false), ("test/bare", false)]
    {
        let plugin = test.load(name);
        assert_eq!(test.engine.answers_queries(plugin), answers, "{name}");
    }
    let unknown = godwit_core::digest::Digest::of(b"nobody");
    assert!(!test.engine.answers_queries(unknown));
    let plugin = test.load("test/bare");
    let mut bare = test.start(request(plugin));
    let (kind, message) = fault_of(bare.query(&turn(1), b"1"));
    assert_eq!(kind, FaultKind::Start);
    assert!(message.contains("godwit:agent/query"), "{message}");
    // Who has the export is an agent first.
    assert!(test.engine.load(&component("index")).is_ok());
}

#[test]
fn a_query_reads_the_agent_and_its_rows() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let state = Arc::new(Rows::of(&["a", "b"]));
    let mut guest = restored(&test, GuestRequest { state, ..request(plugin) });
    let guest = guest.as_mut();
    assert_eq!(say(guest, "noted").as_deref(), Ok("remembered"));
    assert_eq!(say(guest, "turns").as_deref(), Ok("7"));
    assert_eq!(say(guest, "get a").as_deref(), Ok("committed a"));
    assert_eq!(say(guest, "keys").as_deref(), Ok("a\nb"));
    assert_eq!(say(guest, "get nothing").as_deref(), Ok("none"));
    assert_eq!(say(guest, "config greeting").as_deref(), Ok("hello"));
    assert_eq!(say(guest, "refuse no").as_deref(), Ok("refused: no"));
    let seen = say(guest, "turn").expect("it is told");
    assert!(seen.contains("revision=3 attempt=0") && seen.contains(&NOW_MS.to_string()), "{seen}");
}

/// Every import that does something, with what the guest hears.
#[test]
fn what_has_an_effect_is_refused() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let mut guest = restored(&test, request(plugin));
    for line in ["set a 1", "delete a", "send sink x", "flood-state 1 1", "flood-outputs 1 1"] {
        let said = say(guest.as_mut(), line).expect(line);
        assert!(said.contains("there is no turn"), "{line}: {said}");
    }
}

#[test]
fn random_numbers_are_those_of_the_revision() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let random = |context: &TurnContext| {
        let mut guest = test.engine.start(request(plugin)).expect("it is loaded");
        guest.restore(&turn(0), b"0\n\n\n\n", "0.1.0").expect("an empty state");
        guest.query(context, b"random").expect("a number").outcome
    };
    let first = random(&turn(3));
    assert_eq!(random(&turn(3)), first);
    assert_eq!(random(&TurnContext { seed: [1; 32], ..turn(3) }), first, "there is no seed outside a turn");
    assert_ne!(random(&turn(4)), first);
}

#[test]
fn a_query_that_misbehaves_has_a_typed_end() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    for (line, expected) in [
        ("loop", FaultKind::Deadline),
        ("trap", FaultKind::Trap),
        ("panic", FaultKind::Trap),
        ("sleep 10", FaultKind::Blocked),
        ("exit 3", FaultKind::Exited),
        ("allocate 0", FaultKind::Memory),
        ("reply-bytes 600000", FaultKind::Effects),
        ("reply-bytes 9000000", FaultKind::Effects),
    ] {
        // Time is short only for who is to run out of it: the machine may be busy with other tests.
        let turn_ms_max = if line == "loop" { 200 } else { 60_000 };
        let request = with_limits(request(plugin), |limits| limits.turn_ms_max = turn_ms_max);
        let mut guest = restored(&test, request);
        let (kind, message) = fault_of(guest.query(&turn(3), line.as_bytes()));
        assert_eq!(kind, expected, "{line}: {message}");
        assert_eq!(fault_of(guest.query(&turn(3), b"noted")).0, FaultKind::Trap, "it is dead");
    }
    let mut guest = restored(&test, request(plugin));
    let said = guest.query(&turn(3), b"fatal never");
    assert_eq!(said, Err(GuestError::Fatal { message: "never".into() }));
}

#[test]
fn a_query_is_fenced_and_can_be_interrupted() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let asked = request(plugin);
    let guard = asked.guard.clone();
    // The lease is lost while the query reads: its answer does not leave.
    let state = Arc::new(OnRead(move || guard.lose()));
    let mut guest = restored(&test, GuestRequest { state, ..asked });
    assert_eq!(guest.query(&turn(3), b"get x"), Err(GuestError::Fenced));

    let asked = request(plugin);
    let interrupt = asked.interrupt.clone();
    let state = Arc::new(OnRead(move || interrupt.interrupt()));
    let mut guest = restored(&test, GuestRequest { state, ..asked });
    assert_eq!(guest.query(&turn(3), b"spin-state 0"), Err(GuestError::Interrupted));
}
