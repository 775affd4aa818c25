//! Tests of what runs next.

use bytes::Bytes;

use super::*;
use crate::digest::Digest;
use crate::id::InputId;
use crate::input::{Input, Kind, Placing, Source};

const ME: Incarnation = Incarnation(7);

fn input(seq: u64, kind: Kind, mode: Mode) -> StoredInput {
    let policy = Policy::of(&kind, mode);
    StoredInput {
        seq: Seq(seq),
        input: Input {
            id: InputId([1; 16]),
            kind,
            source: Source::Operator,
            content_type: String::new(),
            payload: Bytes::new(),
            headers: Vec::new(),
            correlation: None,
            accepted_at_ms: 0,
        },
        state: InputState::Queued,
        attempts: 0,
        deaths: 0,
        accepted_by: ME,
        idempotency_key: None,
        body_digest: Digest::ZERO,
        placing: Placing { lane: policy.lane, wakes: policy.wakes, scope: None },
        traceparent: None,
        outcome: None,
        ended_at_ms: None,
    }
}

fn message(seq: u64) -> StoredInput {
    input(seq, Kind::Message, Mode::Default)
}

fn steer(seq: u64) -> StoredInput {
    input(seq, Kind::Message, Mode::Steer)
}

fn event(seq: u64) -> StoredInput {
    input(seq, Kind::Event, Mode::Default)
}

fn silent(mut input: StoredInput) -> StoredInput {
    input.placing.wakes = false;
    input
}

fn with(inputs: impl IntoIterator<Item = StoredInput>) -> Inbox {
    let mut inbox = Inbox::default();
    inputs.into_iter().for_each(|input| inbox.insert(input));
    inbox
}

/// Takes everything that is due: the seqs of each call.
fn drain(inbox: &mut Inbox) -> Vec<Vec<u64>> {
    std::iter::from_fn(|| inbox.next(ME))
        .map(|next| next.inputs.iter().map(|input| input.seq.0).collect())
        .collect()
}

#[test]
fn steer_runs_before_queue_and_each_lane_by_admission() {
    let mut inbox = with([message(4), steer(3), message(1), steer(2)]);
    assert_eq!(drain(&mut inbox), [[2], [3], [1], [4]]);
    assert!(inbox.is_empty());
}

#[test]
fn silent_inputs_run_before_the_last_one_that_wakes_and_not_behind_it() {
    let mut inbox = with([silent(message(1)), message(2), silent(message(3))]);
    assert!(inbox.is_due());
    assert_eq!(drain(&mut inbox), [[1], [2]]);
    assert!(!inbox.is_due());
    assert!(inbox.contains(Seq(3)));
    inbox.insert(message(4));
    assert_eq!(drain(&mut inbox), [[3], [4]]);
}

#[test]
fn what_wakes_in_the_queue_lane_takes_the_whole_steer_lane_along() {
    let progress = |seq| input(seq, Kind::PeerResponseProgress, Mode::Default);
    let mut inbox = with([progress(1), progress(2)]);
    assert_eq!(drain(&mut inbox), Vec::<Vec<u64>>::new());
    inbox.insert(message(3));
    assert_eq!(drain(&mut inbox), [vec![1, 2], vec![3]]);
    let mut inbox = with([silent(message(1)), steer(2)]);
    assert_eq!(drain(&mut inbox), [[2]], "the queue lane sleeps on");
}

#[test]
fn somebody_who_waits_rouses_an_input() {
    let mut inbox = with([silent(message(1)), silent(message(2)), silent(message(3))]);
    inbox.rouse(Seq(2));
    inbox.rouse(Seq(2));
    inbox.rouse(Seq(9));
    assert_eq!(drain(&mut inbox), [[1], [2]]);
}

#[test]
fn neighbours_that_join_share_a_call_up_to_the_bounds() {
    let mut inbox = with([event(1), event(2), message(3), event(4), silent(event(5))]);
    assert_eq!(drain(&mut inbox), [vec![1, 2], vec![3], vec![4]]);
    let mut inbox = with((1..=100).map(event));
    let sizes: Vec<usize> = drain(&mut inbox).iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCH_MAX, 100 - BATCH_MAX]);
    let large = |seq| {
        let mut input = event(seq);
        input.input.payload = Bytes::from(vec![0; BATCH_BYTES_MAX / 2]);
        input
    };
    let mut inbox = with((1..=5).map(large));
    assert_eq!(drain(&mut inbox), [vec![1, 2], vec![3, 4], vec![5]]);
}

#[test]
fn inputs_that_start_otherwise_or_have_failed_join_nobody() {
    let mut others = event(2);
    others.accepted_by = Incarnation(6);
    let mut tried = event(4);
    tried.attempts = 1;
    let mut staged = event(5);
    staged.state = InputState::Staged;
    let mut inbox = with([event(1), others, event(3), tried, staged, event(6)]);
    assert_eq!(drain(&mut inbox), [[1], [2], [3], [4], [5], [6]]);
}

#[test]
fn a_batch_that_failed_runs_one_by_one_at_its_old_place() {
    let mut inbox = with([event(1), event(2), event(3), event(4)]);
    inbox.insert(message(5));
    let batch = inbox.next(ME).unwrap();
    assert_eq!(batch.inputs.len(), 4);
    inbox.split(&batch.inputs);
    inbox.put_back(batch.inputs.into_iter().rev().collect());
    assert_eq!(drain(&mut inbox), [[1], [2], [3], [4], [5]]);
    (1..=4).for_each(|seq| inbox.ended(Seq(seq)));
    let mut again = event(3);
    again.placing.wakes = true;
    inbox.insert(again);
    inbox.insert(event(4));
    assert_eq!(drain(&mut inbox), [[3, 4]], "given another chance, they may share a call again");
}
