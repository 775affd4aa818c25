//! Tests of the rules of a turn.

use bytes::Bytes;

use super::*;
use crate::digest::Digest;
use crate::id::{InputId, Seq};
use crate::input::{Fault, FaultKind, Input, Kind, Source};

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
        accepted_by: Incarnation(accepted_by),
        idempotency_key: None,
        body_digest: Digest::ZERO,
        outcome: None,
        ended_at_ms: None,
    }
}

#[test]
fn only_the_accepting_session_runs_an_input_unstaged_and_only_once() {
    let me = Incarnation(7);
    let cases = [
        (input(InputState::Queued, 0, 7), Start::Now),
        (input(InputState::Queued, 1, 7), Start::Stage { attempts: 2 }),
        (input(InputState::Queued, 0, 6), Start::Stage { attempts: 1 }),
        (input(InputState::Staged, 1, 6), Start::Stage { attempts: 2 }),
        (input(InputState::Staged, 1, 7), Start::Stage { attempts: 2 }),
        (input(InputState::Staged, 3, 6), Start::GiveUp(DeadLetterReason::KilledHost { attempts: 3 })),
    ];
    for (input, expected) in cases {
        assert_eq!(start(&input, me), expected, "{input:?}");
    }
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
