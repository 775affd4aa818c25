//! The policy table, cell by cell, against a table written down by hand.

use super::*;
use crate::id::AgentId;

/// One row: kind, then per mode the lane; then wakes, batch, replaces.
struct Golden {
    kind: Kind,
    /// Lane under default, queue, steer.
    lanes: [Lane; 3],
    wakes: bool,
    batch: Batch,
    replaces: bool,
}

fn golden() -> [Golden; 10] {
    use Batch::{Alone, Joins};
    let q = [Lane::Queue, Lane::Queue, Lane::Steer];
    let s = [Lane::Steer, Lane::Queue, Lane::Steer];
    let fixed = [Lane::Steer, Lane::Steer, Lane::Steer];
    let row = |kind, lanes, wakes, batch, replaces| Golden { kind, lanes, wakes, batch, replaces };
    [
        row(Kind::Message, q, true, Alone, false),
        row(Kind::PeerMessage, q, true, Joins, false),
        row(Kind::PeerRequest { intent: "i".into() }, q, true, Alone, false),
        row(Kind::PeerResponseProgress, fixed, false, Joins, true),
        row(Kind::PeerResponseTerminal, q, true, Joins, false),
        row(Kind::FlowStep, q, true, Alone, false),
        row(Kind::Event, q, true, Joins, false),
        row(Kind::Continuation, s, true, Joins, false),
        row(Kind::Operation, q, true, Joins, false),
        row(Kind::Timer, q, true, Joins, false),
    ]
}

#[test]
fn every_cell_is_as_written_down() {
    let modes = [Mode::Default, Mode::Queue, Mode::Steer];
    let mut cells = 0;
    for Golden { kind, lanes, wakes, batch, replaces } in golden() {
        for (mode, lane) in modes.into_iter().zip(lanes) {
            let policy = Policy::of(&kind, mode);
            assert_eq!(policy, Policy { lane, wakes, batch, replaces }, "{kind:?} {mode:?}");
            for (activity, expected) in [
                (Activity::Idle, if wakes { Signal::Activate } else { Signal::Nothing }),
                (Activity::Running, Signal::Tell),
            ] {
                assert_eq!(
                    Policy::signal(policy.wakes, activity),
                    expected,
                    "{kind:?} {mode:?} {activity:?}"
                );
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 10 * 3 * 2);
}

#[test]
fn the_steer_lane_runs_first() {
    assert!(Lane::Steer < Lane::Queue);
    assert_eq!(Lane::ALL, [Lane::Steer, Lane::Queue]);
}

#[test]
fn clients_submit_three_kinds_and_learn_why_not_the_others() {
    let allowed: Vec<Kind> =
        golden().into_iter().map(|row| row.kind).filter(|kind| check_submittable(kind).is_ok()).collect();
    assert_eq!(allowed, [Kind::Message, Kind::FlowStep, Kind::Event]);
    for row in golden() {
        assert_eq!(Kind::named(row.kind.name()).map(|kind| kind.name()), Some(row.kind.name()));
    }
    assert_eq!(Kind::named("Message"), None);
    for kind in [Kind::Continuation, Kind::Operation, Kind::Timer] {
        assert_eq!(check_submittable(&kind), Err(KindRefused::Derived));
    }
    assert_eq!(check_submittable(&Kind::PeerMessage), Err(KindRefused::FromPeers));
}

#[test]
fn a_scope_is_a_key_or_an_answer_to_one_question_of_one_sender() {
    let progress = Policy::of(&Kind::PeerResponseProgress, Mode::Default);
    let message = Policy::of(&Kind::Message, Mode::Default);
    let peer = |name: &str| Source::Peer { agent: AgentId::parse(name).unwrap(), expects_reply: false };
    let of = |policy, source: &Source, correlation, key| {
        Scope::of(policy, source, correlation, key).map(|scope| scope.0)
    };
    let (a, b) = (peer("a"), peer("b"));
    assert_eq!(of(message, &a, Some("c"), None), None);
    assert_eq!(of(message, &a, Some("c"), Some("k")).as_deref(), Some("key k"));
    assert_eq!(of(progress, &a, None, None), None);
    assert_ne!(of(progress, &a, Some("c"), None), of(progress, &b, Some("c"), None));
    assert_ne!(of(progress, &a, Some("c"), None), of(progress, &a, Some("d"), None));
    assert_ne!(
        of(progress, &a, Some("c"), None),
        of(progress, &a, None, Some("c")),
        "a key is no correlation"
    );
}
