//! Timers of a turn, without a guest.

use std::sync::Arc;

use godwit_core::guest::GuestRequest;
use godwit_core::limits::TIMER_NAME_BYTES_MAX;

use super::*;
use crate::bindings::godwit::agent::timers::Host;
use crate::context::Phase;
use crate::testing::{Rows, request, turn};

fn context(rows: Rows, phase: Phase) -> GuestContext {
    let request = GuestRequest { state: Arc::new(rows), ..request(Default::default()) };
    let mut context = GuestContext::new(request, &turn(1));
    context.begin_call(phase, &turn(1));
    context
}

fn waiting(names: impl IntoIterator<Item = String>) -> Rows {
    Rows { timers: names.into_iter().collect(), ..Rows::default() }
}

fn set(context: &mut GuestContext, name: &str, at_ms: u64, bytes: usize) -> Result<(), TimerError> {
    context.set(name.into(), at_ms, vec![7; bytes]).expect("the store answers")
}

fn cancel(context: &mut GuestContext, name: &str) -> Result<(), TimerError> {
    context.cancel(name.into()).expect("no trap")
}

#[test]
fn the_last_call_for_a_name_counts() {
    let mut context = context(Rows::default(), Phase::Handle);
    for (name, at_ms) in [("b", 1), ("a", 2), ("b", 3)] {
        set(&mut context, name, at_ms, 1).expect("set");
    }
    cancel(&mut context, "a").expect("cancelled");
    cancel(&mut context, "unknown").expect("cancelled");
    let timers = std::mem::take(&mut context.effects);
    let timers = timers.finish(Vec::new(), Default::default()).expect("within the limits").timers;
    let timer = NewTimer { at_ms: 3, payload: Bytes::from_static(&[7]) };
    let expected = [("a", None), ("b", Some(timer)), ("unknown", None)];
    assert_eq!(timers, expected.map(|(name, timer)| (name.to_owned(), timer)));
}

#[test]
fn what_no_timer_may_be_is_refused() {
    let longest = "n".repeat(TIMER_NAME_BYTES_MAX);
    let longer = "n".repeat(TIMER_NAME_BYTES_MAX + 1);
    let cases = [
        (longest.as_str(), TIMER_AT_MS_MAX, TIMER_PAYLOAD_BYTES_MAX, "ok"),
        ("", 0, 0, "TimerError::InvalidName"),
        (longer.as_str(), 0, 0, "TimerError::InvalidName"),
        ("a\tb", 0, 0, "TimerError::InvalidName"),
        ("a", TIMER_AT_MS_MAX + 1, 0, "TimerError::InvalidTime"),
        ("a", 0, TIMER_PAYLOAD_BYTES_MAX + 1, "TimerError::TooLarge"),
    ];
    for (name, at_ms, bytes, expected) in cases {
        let mut context = context(Rows::default(), Phase::Handle);
        let answer = match set(&mut context, name, at_ms, bytes) {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(answer, expected, "{name:?} {at_ms} {bytes}");
        let is_set = expected == "ok";
        assert_eq!(context.effects.timers().len(), usize::from(is_set));
    }
    for phase in [Phase::Start, Phase::Snapshot, Phase::Restore] {
        let mut context = context(Rows::default(), phase);
        assert!(matches!(set(&mut context, "a", 0, 0), Err(TimerError::NotInTurn)));
        assert!(matches!(cancel(&mut context, "a"), Err(TimerError::NotInTurn)));
    }
}

#[test]
fn an_agent_has_so_many_timers_and_no_more() {
    let names = |count: usize| (0..count).map(|number| format!("t{number}"));
    let mut full = context(waiting(names(TIMERS_MAX)), Phase::Handle);
    assert!(matches!(set(&mut full, "new", 0, 0), Err(TimerError::Quota)));
    set(&mut full, "t3", 0, 0).expect("one that waits may be set anew");
    cancel(&mut full, "t5").expect("cancelled");
    set(&mut full, "new", 0, 0).expect("it has made room");
    assert!(matches!(set(&mut full, "t5", 0, 0), Err(TimerError::Quota)), "the room is taken");
    assert!(matches!(set(&mut full, "other", 0, 0), Err(TimerError::Quota)));
    set(&mut full, "new", 1, 0).expect("one of this turn may be set again");

    let mut empty = context(Rows::default(), Phase::Handle);
    for name in names(TIMERS_MAX) {
        set(&mut empty, &name, 0, 0).expect("there is room");
    }
    assert!(matches!(set(&mut empty, "new", 0, 0), Err(TimerError::Quota)));
}

#[test]
fn a_store_that_does_not_answer_ends_the_turn() {
    let mut context = context(Rows { is_broken: true, ..Rows::default() }, Phase::Handle);
    assert!(context.set("a".into(), 0, Vec::new()).is_err());
    assert!(context.cancel("a".into()).is_ok(), "which a cancel need not ask");
}

#[test]
fn timers_count_as_writes() {
    let mut context = context(Rows::default(), Phase::Handle);
    for _ in 0..godwit_core::limits::STATE_WRITES_MAX {
        set(&mut context, "a", 0, 0).expect("there is room");
    }
    assert!(matches!(set(&mut context, "a", 0, 0), Err(TimerError::Quota)));
    assert!(matches!(cancel(&mut context, "a"), Err(TimerError::Quota)));
}
