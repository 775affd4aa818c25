//! Tests of the rules of a turn.

use bytes::Bytes;

use super::*;
use crate::digest::Digest;
use crate::id::{InputId, Seq};
use crate::input::{Fault, FaultKind, Input, Kind, Lane, Placing, Scope, Source};

fn input(state: InputState, attempts: u32, accepted_by: u64) -> StoredInput {
    StoredInput {
        seq: Seq(1),
        input: Input {
            id: InputId([1; 16]),
            kind: Kind::Message,
            source: Source::Operator,
            content_type: String::new(),
            payload: Bytes::new(),
            headers: Vec::new(),
            correlation: None,
            accepted_at_ms: 0,
        },
        state,
        attempts,
        deaths: 0,
        accepted_by: Incarnation(accepted_by),
        idempotency_key: None,
        body_digest: Digest::ZERO,
        placing: Placing { lane: Lane::Queue, wakes: true, scope: None },
        traceparent: None,
        outcome: None,
        ended_at_ms: None,
    }
}

#[test]
fn only_the_accepting_session_runs_an_input_unstaged_and_only_once() {
    let me = Incarnation(7);
    let stage = |attempts, deaths| Start::Stage { attempts, deaths };
    let mut replaceable = input(InputState::Queued, 0, 7);
    replaceable.placing.scope = Some(Scope("key k".into()));
    let cases = [
        (input(InputState::Queued, 0, 7), Start::Now),
        (replaceable, stage(1, 0)),
        (input(InputState::Queued, 1, 7), stage(2, 0)),
        (input(InputState::Queued, 0, 6), stage(1, 0)),
        (input(InputState::Staged, 1, 6), stage(2, 1)),
        (input(InputState::Staged, 1, 7), stage(2, 1)),
        (input(InputState::Staged, 0, 7), stage(1, 0)),
    ];
    for (input, expected) in cases {
        assert_eq!(start(&input, me), expected, "{input:?}");
    }
}

#[test]
fn after_two_deaths_an_input_runs_alone_and_after_the_third_never() {
    let after = |state, attempts, deaths| {
        let input = StoredInput { deaths, ..input(state, attempts, 6) };
        start(&input, Incarnation(7))
    };
    let alone = |attempts| Start::StageAlone { attempts, deaths: DEATHS_MAX };
    assert_eq!(after(InputState::Staged, 1, 0), Start::Stage { attempts: 2, deaths: 1 });
    assert_eq!(after(InputState::Staged, 2, 1), alone(3));
    assert_eq!(after(InputState::Queued, 3, 2), alone(4), "it asked for a retry when it ran alone");
    let killed = Start::GiveUp(DeadLetterReason::KilledHost { attempts: 3 });
    assert_eq!(after(InputState::Staged, 3, 2), killed);
    let others = after(InputState::Staged, 3, 0);
    assert_eq!(others, Start::Stage { attempts: 4, deaths: 1 }, "what failed before was no death");
}

#[test]
fn failures_are_counted_as_the_contract_says() {
    let message = String::from("no");
    let fault = Fault { kind: FaultKind::Trap, message: message.clone() };
    let retryable = GuestError::Retryable { message: message.clone() };
    let cases = [
        (GuestError::Fenced, 3, Verdict::Uncounted),
        (GuestError::Interrupted, 3, Verdict::Uncounted),
        (retryable.clone(), 1, Verdict::Again { attempts: 1 }),
        (GuestError::Fault(fault.clone()), 2, Verdict::Again { attempts: 2 }),
        (
            GuestError::Fatal { message: message.clone() },
            1,
            Verdict::DeadLetter(DeadLetterReason::Fatal { message: message.clone() }),
        ),
        (retryable, 3, Verdict::DeadLetter(DeadLetterReason::AttemptsExhausted { message, attempts: 3 })),
        (
            GuestError::Fault(fault.clone()),
            3,
            Verdict::DeadLetter(DeadLetterReason::Fault { fault, attempts: 3 }),
        ),
    ];
    for (error, attempts, expected) in cases {
        assert_eq!(after_failure(&error, attempts), expected, "{error:?} at {attempts}");
    }
}
