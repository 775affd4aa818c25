//! Tests of what a boundary writes.

use super::*;

const QUICK: Duration = Duration::from_micros(10);

fn tail(durability: Durability, bytes: u64) -> Tail {
    Tail::new(durability, Some((Revision(5), bytes)), Duration::from_millis(1))
}

#[test]
fn a_policy_and_the_last_snapshot_decide_what_a_turn_writes() {
    let small = AUTO_SNAPSHOT_BYTES_MAX as u64;
    let cases = [
        (Durability::Snapshot, small, Write::Snapshot),
        (Durability::Snapshot, small + 1, Write::Snapshot),
        (Durability::Journal, small, Write::Entry),
        (Durability::Journal, small + 1, Write::Entry),
        (Durability::Auto, small, Write::Snapshot),
        (Durability::Auto, small + 1, Write::Entry),
    ];
    for (durability, bytes, write) in cases {
        assert_eq!(tail(durability, bytes).add(Some(100), QUICK), write, "{durability:?} {bytes}");
    }
}

#[test]
fn what_cannot_be_journaled_is_written_whole() {
    for durability in Durability::ALL {
        assert_eq!(tail(durability, 1 << 20).add(None, QUICK), Write::Snapshot);
        let mut first = Tail::new(durability, None, Duration::ZERO);
        assert_eq!(first.add(Some(1), QUICK), Write::Snapshot, "nothing to build on");
    }
}

#[test]
fn an_instance_is_restored_where_a_tail_will_build() {
    let limit = AUTO_SNAPSHOT_BYTES_MAX;
    let is_base = |durability, bytes| tail(durability, 0).is_base(bytes);
    assert!(!is_base(Durability::Snapshot, limit + 1));
    assert!(is_base(Durability::Journal, 0));
    assert!(!is_base(Durability::Auto, limit));
    assert!(is_base(Durability::Auto, limit + 1));
}

#[test]
fn a_costly_tail_ends_in_a_new_base() {
    let costly = |bytes: usize, elapsed: Duration| {
        let mut tail = tail(Durability::Journal, 100);
        let mut turns = 0;
        while tail.add(Some(bytes), elapsed) == Write::Entry {
            turns += 1;
        }
        turns + 1
    };
    assert_eq!(costly(1, QUICK), TAIL_TURNS_MAX, "turns");
    assert_eq!(costly(1 << 10, QUICK), 64, "bytes");
    assert_eq!(costly(1, Duration::from_millis(10)), 5, "time");
}

#[test]
fn a_tail_may_grow_with_what_a_snapshot_costs() {
    let mut large = tail(Durability::Auto, 1 << 20);
    assert_eq!(large.add(Some(900 << 10), QUICK), Write::Entry);
    assert_eq!(large.add(Some(200 << 10), QUICK), Write::Base);
    let mut huge = tail(Durability::Auto, 1 << 30);
    assert_eq!(huge.add(Some(TAIL_BYTES_MAX as usize), QUICK), Write::Base, "but not beyond its limit");
    let mut slow = Tail::new(Durability::Journal, Some((Revision(5), 0)), Duration::from_millis(100));
    assert_eq!(slow.add(Some(1), Duration::from_millis(399)), Write::Entry);
    assert_eq!(slow.add(Some(1), Duration::from_millis(1)), Write::Base);
}

#[test]
fn a_snapshot_begins_the_tail_anew() {
    let mut tail = tail(Durability::Journal, 100);
    assert!(tail.is_at(Revision(5)) && !tail.is_worth_a_snapshot());
    assert_eq!(tail.add(Some(60 << 10), QUICK), Write::Entry);
    assert!(tail.is_worth_a_snapshot());
    tail.begin(Revision(6), 200, None);
    assert!(tail.is_at(Revision(6)) && !tail.is_worth_a_snapshot());
    assert_eq!(tail, Tail::new(Durability::Journal, Some((Revision(6), 200)), Duration::from_millis(1)));
}
