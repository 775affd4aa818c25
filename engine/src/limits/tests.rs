//! The limiter as wasmtime calls it.

use super::*;

const PAGE: usize = 64 << 10;

#[test]
fn all_memories_together_are_held_to_the_limit() {
    let mut limiter = Limiter::new(4 * PAGE as u64);
    let mut grow = |current: usize, desired: usize| {
        limiter.memory_growing(current * PAGE, desired * PAGE, None).expect("a limiter never fails")
    };
    assert!(grow(0, 2), "the first memory");
    assert!(grow(0, 1), "the second memory");
    assert!(grow(1, 2), "the second memory grows");
    assert!(!grow(2, 3), "there is no fifth page");
    let denied = limiter.denied().expect("it was denied");
    assert!(denied.contains("327680") && denied.contains("262144"), "{denied}");
    limiter.begin_call();
    assert_eq!(limiter.denied(), None);
}

#[test]
fn a_guests_own_maximum_is_no_denial() {
    let mut limiter = Limiter::new(4 * PAGE as u64);
    assert!(!limiter.memory_growing(PAGE, 3 * PAGE, Some(2 * PAGE)).expect("never fails"));
    assert!(!limiter.table_growing(10, 12, Some(11)).expect("never fails"));
    assert_eq!(limiter.denied(), None);
    assert!(!limiter.table_growing(10, TABLE_ELEMENTS_MAX + 1, None).expect("never fails"));
    assert!(limiter.denied().is_some());
}

#[test]
fn a_spec_gets_no_more_than_the_host_gives() {
    let asked = GuestLimits { turn_ms_max: 10, memory_bytes_max: u64::MAX, snapshot_bytes_max: u64::MAX };
    let given = effective(&asked);
    assert_eq!(given.turn_ms_max, 10);
    assert_eq!(given.memory_bytes_max, HOST_MAX.memory_bytes_max);
    assert_eq!(given.snapshot_bytes_max, HOST_MAX.snapshot_bytes_max);
}
