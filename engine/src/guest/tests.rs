//! Real components, most of them hostile, through the port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_core::guest::{GuestLoader, Interrupt, StateRead, StateReadError};
use godwit_core::id::FencingToken;
use godwit_core::input::{Kind, ReplyOutcome};
use godwit_core::lease::{LeaseGuard, LeaseProfile, SessionLease};
use godwit_core::limits::GuestLimits;
use godwit_core::time::SystemClock;

use super::*;
use crate::testing::{NOW_MS, Rows, TestEngine, ask, fault_of, message, request, turn, with_limits};

/// Rows that do something when they are read.
struct OnRead<F>(F);

impl<F: Fn() + Send + Sync + 'static> StateRead for OnRead<F> {
    fn get(&self, _: &str) -> Result<Option<Bytes>, StateReadError> {
        (self.0)();
        Ok(None)
    }

    fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateReadError> {
        Ok(Vec::new())
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        Ok(Vec::new())
    }

    fn operations(&self) -> Result<Vec<godwit_core::id::OperationId>, StateReadError> {
        Ok(Vec::new())
    }

    fn entity_key(&self) -> Result<Option<godwit_core::identity::EntityKey>, StateReadError> {
        Ok(None)
    }
}

/// A turn's time in ms: short only for those who are to run out of it, as the machine may be busy with other tests.
fn time_for(line: &str) -> u64 {
    if line.contains("loop") || line.starts_with("spin-") { 200 } else { 60_000 }
}

/// Runs a line in a guest, and `act` beside it as soon as the guest is about to run the line.
fn beside(
    test: &TestEngine,
    request: GuestRequest,
    line: &str,
    act: impl FnOnce() + Send,
) -> Result<TurnEffects, GuestError> {
    let (reading, has_read) = std::sync::mpsc::sync_channel(1);
    let state = Arc::new(OnRead(move || reading.send(()).expect("somebody waits for it")));
    let mut guest = test.start(GuestRequest { state, ..request });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            has_read.recv().expect("the guest reads");
            act();
        });
        guest.handle(&turn(1), &["get x", line].map(message))
    })
}

/// A host under load must still end a call in this time beyond its limit; the contract says 100 ms.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn an_agent_lives_through_snapshot_and_restore() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let mut guest = test.start(request(plugin));
    for line in ["note remember", "turns", "turns"] {
        ask(guest.as_mut(), line).expect(line);
    }
    let bytes = guest.snapshot(&turn(3)).expect("a snapshot");
    assert_eq!(guest.snapshot(&turn(3)).expect("the same snapshot"), bytes);

    let mut restored = test.engine.start(request(plugin)).expect("a fresh guest");
    restored.restore(&turn(3), &bytes, "0.1.0").expect("it takes the state");
    assert_eq!(restored.snapshot(&turn(3)).expect("the same state"), bytes);
    assert_eq!(ask(restored.as_mut(), "noted").as_deref(), Ok("remember"));
    assert_eq!(ask(restored.as_mut(), "turns").as_deref(), Ok("5"));
}

#[test]
fn a_guest_without_the_sdk_runs() {
    let test = TestEngine::new();
    let mut guest = test.start(request(test.load("test/bare")));
    let batch = [message("20"), message("22"), message("echo")];
    let replies = guest.handle(&turn(1), &batch).expect("a batch").replies;
    let bodies = replies.into_iter().map(|reply| reply.outcome);
    let expected = ["20", "42", "echo"].map(|text| ReplyOutcome::Ok(text.into()));
    assert_eq!(bodies.collect::<Vec<_>>(), expected);
}

#[test]
fn what_the_agent_says_is_told_apart() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let say = |line: &str| ask(test.start(request(plugin)).as_mut(), line);
    assert_eq!(say("echo hello").as_deref(), Ok("hello"));
    assert_eq!(say("none").as_deref(), Ok("none"));
    assert_eq!(say("refuse poor").as_deref(), Ok("refused: poor"));
    assert_eq!(say("fatal broken"), Err(GuestError::Fatal { message: "broken".into() }));
    let retry = GuestError::Retryable { message: "attempt 1 of 2".into() };
    assert_eq!(say("retry 2"), Err(retry));
    assert_eq!(say("config greeting").as_deref(), Ok("hello"));
    assert_eq!(say("config farewell").as_deref(), Ok("none"));
    let turn = format!("agent=agent-1 generation=1 token=7 revision=1 attempt=1 now_ms={NOW_MS}");
    assert_eq!(say("turn").as_deref(), Ok(turn.as_str()));
}

#[test]
fn a_guest_is_dead_after_anything_but_ok() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    for line in ["trap", "fatal x", "retry 9", "exit 0", "replies 2"] {
        let mut guest = test.start(request(plugin));
        ask(guest.as_mut(), line).expect_err(line);
        let (kind, text) = fault_of(ask(guest.as_mut(), "echo alive"));
        assert_eq!(kind, FaultKind::Trap);
        assert!(text.contains("dead"), "{text}");
    }
}

#[test]
fn each_misdeed_has_its_fault() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    for (line, kind, says) in [
        ("trap", FaultKind::Trap, "unreachable"),
        ("panic", FaultKind::Trap, "asked to"),
        ("recurse", FaultKind::Trap, ""),
        ("exit 3", FaultKind::Exited, "code 1"),
        ("exit 0", FaultKind::Exited, "code 0"),
        ("sleep 10", FaultKind::Blocked, "set a timer"),
        ("poll 10", FaultKind::Blocked, "poll"),
        ("loop", FaultKind::Deadline, "200 ms"),
        ("spin-import 0", FaultKind::Deadline, "200 ms"),
        ("spin-state 0", FaultKind::Deadline, "200 ms"),
        ("allocate 0", FaultKind::Memory, "bytes of memory"),
        ("replies 0", FaultKind::ReplyCount, "0 replies to 1 inputs"),
        ("replies 3", FaultKind::ReplyCount, "3 replies to 1 inputs"),
        ("reply-bytes 600000", FaultKind::Effects, "body is 600000"),
        ("reply-bytes 12000000", FaultKind::Effects, "longer than one turn may have"),
        ("reply-bytes 100000000", FaultKind::Memory, "bytes of memory"),
    ] {
        let turn_ms_max = time_for(line);
        let request = with_limits(request(plugin), |limits| limits.turn_ms_max = turn_ms_max);
        let mut guest = test.start(request);
        let started = Instant::now();
        let (found, text) = fault_of(ask(guest.as_mut(), line));
        assert_eq!(found, kind, "{line}: {text}");
        assert!(text.contains(says), "{line}: {text}");
        let is_late = started.elapsed() > Duration::from_millis(turn_ms_max) + SLACK;
        assert!(kind != FaultKind::Deadline || !is_late, "{line}");
    }
}

#[test]
fn harmless_calls_of_the_same_kind_go_through() {
    let test = TestEngine::new();
    let mut guest = test.start(request(test.load("test/hostile")));
    for (line, answer) in [
        ("poll 0", "[0]"),
        ("stdin", "0"),
        ("print to both streams", "ok"),
        ("log a line with \u{1b}[31m", "ok"),
        ("flood-log 100 100000", "flooded"),
        ("flood-print 2000 1000", "flooded"),
        ("allocate 20", "allocated"),
        ("spin 1000", "spun"),
        ("reply-bytes 3", "xxx"),
    ] {
        assert_eq!(ask(guest.as_mut(), line).as_deref(), Ok(answer), "{line}");
    }
}

#[test]
fn init_is_a_turn_and_may_fail_like_one() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let behave = |line: &str| {
        let mut request = request(plugin);
        let spec = Arc::make_mut(&mut request.spec);
        spec.config.insert("behave".into(), line.into());
        spec.limits.turn_ms_max = time_for(line);
        test.engine.start(request).expect("it is loaded").init(&turn(0))
    };
    let effects = behave("set a 1").expect("it may write");
    assert_eq!(effects.state, [("a".to_string(), Some(Bytes::from_static(b"1")))]);
    assert_eq!(effects.replies, []);
    assert_eq!(behave("send sink hello").expect("it may send").outputs.len(), 1);
    assert_eq!(fault_of(behave("trap")).0, FaultKind::Trap);
    assert_eq!(fault_of(behave("loop")).0, FaultKind::Deadline);
    let refused = behave("unheard-of");
    assert!(matches!(refused, Err(GuestError::Fatal { .. })), "{refused:?}");
}

#[test]
fn effects_are_collected_and_dropped_with_the_turn() {
    let test = TestEngine::new();
    let rows = Arc::new(Rows::of(&["a", "b"]));
    let mut guest = test.start(GuestRequest { state: rows, ..request(test.load("test/hostile")) });
    let batch = ["get a", "set a new", "get a", "delete b", "keys ", "send sink hi"].map(message);
    let effects = guest.handle(&turn(1), &batch).expect("a batch");
    let texts: Vec<_> = effects
        .replies
        .iter()
        .map(|reply| match &reply.outcome {
            ReplyOutcome::Ok(body) => String::from_utf8_lossy(body).into_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(texts[..5], ["committed a", "ok", "new", "ok", "a"]);
    assert_eq!(texts[5].len(), 32, "an output's id: {}", texts[5]);
    assert_eq!(effects.state, [("a".to_string(), Some(Bytes::from_static(b"new"))), ("b".to_string(), None)]);
    let [output] = effects.outputs.as_slice() else {
        panic!("{:?}", effects.outputs);
    };
    assert_eq!((output.destination.as_str(), &output.kind), ("sink", &Kind::PeerMessage));
    assert_eq!(output.payload.as_ref(), b"hi");

    let next = guest.handle(&turn(2), &[message("get a")]).expect("the next turn");
    assert_eq!(next.replies[0].outcome, ReplyOutcome::Ok("committed a".into()), "nothing was committed");
    assert!(next.state.is_empty() && next.outputs.is_empty());
}

#[test]
fn floods_end_at_the_quota() {
    let test = TestEngine::new();
    let mut guest = test.start(request(test.load("test/hostile")));
    for (line, good) in [
        ("flood-outputs 1000 10", "256 "),
        ("flood-outputs 100 200000", "20 "),
        ("flood-outputs 1 262145", "0 "),
        ("flood-state 2000 10", "1000 "),
        ("flood-state 100 262144", "15 "),
        ("flood-state 1 262145", "0 "),
        ("send Not-An-Id x", "refused: "),
    ] {
        let answer = ask(guest.as_mut(), line).expect(line);
        assert!(answer.starts_with(good), "{line}: {answer}");
    }
    // 16 outputs fill the turn to the last byte, and its reply has no room.
    assert_eq!(fault_of(ask(guest.as_mut(), "flood-outputs 16 262144")).0, FaultKind::Effects);
}

#[test]
fn snapshots_are_held_to_their_limit_and_have_no_effects() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let snapshot = |mode: &str, limits: fn(&mut GuestLimits)| {
        let request = with_limits(request(plugin), limits);
        let mut guest = test.start(request);
        ask(guest.as_mut(), &format!("mode {mode}")).expect("the mode is kept");
        guest.snapshot(&turn(1))
    };
    let slow = |limits: &mut GuestLimits| limits.turn_ms_max = 20_000;
    let bytes = snapshot("big-snapshot 15", slow).expect("15 MiB are within the limit");
    assert!(bytes.len() > 15 << 20);
    assert_eq!(fault_of(snapshot("big-snapshot 17", slow)).0, FaultKind::Snapshot);
    assert_eq!(fault_of(snapshot("big-snapshot 1024", slow)).0, FaultKind::Memory);
    let small = |limits: &mut GuestLimits| limits.snapshot_bytes_max = 10;
    let (kind, text) = fault_of(snapshot("big-snapshot 1", small));
    assert_eq!(kind, FaultKind::Snapshot);
    assert!(text.contains("10 bytes"), "{text}");

    let short = |limits: &mut GuestLimits| limits.turn_ms_max = 500;
    assert_eq!(fault_of(snapshot("trap-in-snapshot", slow)).0, FaultKind::Trap);
    assert_eq!(fault_of(snapshot("loop-in-snapshot", short)).0, FaultKind::Deadline);
    let failed = snapshot("fail-in-snapshot", slow);
    assert!(matches!(failed, Err(GuestError::Fatal { .. })), "{failed:?}");
    let bytes = snapshot("effect-in-snapshot", slow).expect("refused effects are answers");
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(text.matches("NotInTurn").count(), 2, "{text}");
}

#[test]
fn a_restore_can_fail_in_every_way() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let restore = |state: &[u8]| {
        let time = time_for(&String::from_utf8_lossy(state));
        let request = with_limits(request(plugin), |limits| limits.turn_ms_max = time);
        let mut guest = test.engine.start(request).expect("it is loaded");
        guest.restore(&turn(1), state, "0.1.0")
    };
    assert_eq!(restore(b"1\n\n\n\n"), Ok(()));
    assert_eq!(fault_of(restore(b"1\ntrap-in-restore\n\n\n")).0, FaultKind::Trap);
    assert_eq!(fault_of(restore(b"1\nloop-in-restore\n\n\n")).0, FaultKind::Deadline);
    for state in [b"1\nfail-in-restore\n\n\n".as_slice(), &[0xff; 64]] {
        assert!(matches!(restore(state), Err(GuestError::Fatal { .. })));
    }
}

#[test]
fn time_stands_still_and_random_numbers_follow_the_seed() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    // Rust seeds its hasher once per instance: each line gets an instance of its own.
    let say = |line: &str, context: &TurnContext| {
        let mut guest = test.engine.start(request(plugin)).expect("it is loaded");
        guest.restore(&turn(0), b"0\n\n\n\n", "0.1.0").expect("an empty state");
        let effects = guest.handle(context, &[message(line)]).expect(line);
        effects.replies[0].outcome.clone()
    };
    let clock = ReplyOutcome::Ok(format!("{NOW_MS} 0").into());
    assert_eq!(say("clock", &turn(1)), clock);
    let first = say("random", &turn(1));
    assert_eq!(say("random", &turn(1)), first);
    let reseeded = TurnContext { seed: [1; 32], ..turn(1) };
    assert_ne!(say("random", &reseeded), first);
    let sent = say("send sink x", &turn(1));
    assert_eq!(say("send sink x", &reseeded), sent, "ids come from the revision, not from the seed");
    assert_ne!(say("send sink x", &turn(2)), sent);
}

/// It would stay with whatever the thread does next.
#[test]
fn a_long_call_keeps_the_priority_of_a_thread_that_nobody_replaces() {
    let nice = || rustix::process::getpriority_process(None).unwrap();
    let before = nice();
    let test = TestEngine::new();
    let request = with_limits(request(test.load("test/hostile")), |limits| limits.turn_ms_max = 300);
    let (kind, _) = fault_of(ask(test.start(request).as_mut(), "loop"));
    assert_eq!((kind, nice()), (FaultKind::Deadline, before));
}

#[test]
fn a_lost_lease_stops_imports_and_loops() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    for line in ["spin-import 0", "loop"] {
        let request = with_limits(request(plugin), |limits| limits.turn_ms_max = 60_000);
        let guard = request.guard.clone();
        let started = Instant::now();
        let result = beside(&test, request, line, move || guard.lose());
        assert_eq!(result, Err(GuestError::Fenced), "{line}");
        assert!(started.elapsed() < SLACK, "{line}");
    }
}

#[test]
fn a_lease_that_ran_out_fences_before_anything_else() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let session = SessionLease::started(boot_now(), &LeaseProfile::NORMAL, Arc::new(SystemClock));
    let guard = LeaseGuard::new(Arc::clone(&session), FencingToken(7));
    let mut guest = test.start(GuestRequest { guard, ..request(plugin) });
    assert_eq!(ask(guest.as_mut(), "echo held").as_deref(), Ok("held"));
    session.lose();
    assert_eq!(ask(guest.as_mut(), "trap"), Err(GuestError::Fenced));
}

/// The lease is lost in the import itself, so that the very next one must be refused, and a trap after it is no trap.
#[test]
fn a_lease_lost_in_an_import_beats_what_follows() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    for line in ["trap", "echo done", "set y 1", "exit 1", "fatal x"] {
        let request = request(plugin);
        let guard = request.guard.clone();
        let state = Arc::new(OnRead(move || guard.lose()));
        let mut guest = test.start(GuestRequest { state, ..request });
        let result = guest.handle(&turn(1), &["get x", line].map(message));
        assert_eq!(result, Err(GuestError::Fenced), "{line}");
    }
}

#[test]
fn an_interrupt_ends_a_call_and_counts_for_nothing() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let request = with_limits(request(plugin), |limits| limits.turn_ms_max = 60_000);
    let interrupt = request.interrupt.clone();
    let started = Instant::now();
    let result = beside(&test, request, "loop", move || interrupt.interrupt());
    assert_eq!(result, Err(GuestError::Interrupted));
    assert!(started.elapsed() < SLACK);

    let interrupt = Interrupt::default();
    interrupt.interrupt();
    let mut guest =
        test.engine.start(GuestRequest { interrupt, ..crate::testing::request(plugin) }).expect("loaded");
    assert_eq!(guest.init(&turn(0)), Err(GuestError::Interrupted), "not even entered");
}

#[test]
fn a_store_that_does_not_answer_is_not_the_guests_fault() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    let state = Arc::new(Rows { is_broken: true, ..Rows::default() });
    let mut guest = test.start(GuestRequest { state, ..request(plugin) });
    let result = ask(guest.as_mut(), "get x");
    assert!(matches!(result, Err(GuestError::StateRead(_))), "{result:?}");
}

/// Each guest's trouble is its own: the same engine, the same moment.
#[test]
fn other_guests_go_on_beside_a_hostile_one() {
    let test = TestEngine::new();
    let plugin = test.load("test/hostile");
    std::thread::scope(|scope| {
        for line in ["loop", "allocate 0"] {
            let request = with_limits(request(plugin), |limits| limits.turn_ms_max = 300);
            let mut guest = test.start(request);
            scope.spawn(move || fault_of(ask(guest.as_mut(), line)));
        }
        let mut guest = test.start(request(plugin));
        for number in 1..=1_000 {
            assert_eq!(ask(guest.as_mut(), "turns"), Ok(number.to_string()));
        }
    });
}

mod identity;
mod query;
