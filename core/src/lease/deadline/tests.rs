//! Every deadline with everything that can happen to it, and at every time that matters.

use super::*;

const PROFILE: LeaseProfile = LeaseProfile::FAST;
/// A join sent at 10 s, under a profile that stops half a second before 3 s are over.
const SENT: Duration = Duration::from_secs(10);
const AT: Duration = Duration::from_millis(12_500);
const TICK: Duration = Duration::from_nanos(1);

#[test]
fn the_table_of_states() {
    let (held, expiring, lost) = (LeaseState::Held, LeaseState::Expiring, LeaseState::Lost);
    for (deadline, expected) in [
        (Deadline::started(SENT, &PROFILE), [held, held, expiring, expiring, expiring]),
        (Deadline::UNLIMITED, [held; 5]),
        (Deadline::LOST, [lost; 5]),
    ] {
        let times = [Duration::ZERO, AT - TICK, AT, AT + TICK, Duration::MAX];
        assert_eq!(times.map(|now| deadline.state(now)), expected, "{deadline:?}");
        assert_eq!(
            times.map(|now| deadline.is_held(now)),
            expected.map(|state| state == held),
            "{deadline:?}"
        );
    }
}

#[test]
fn the_table_of_renewals() {
    let started = |sent: Duration| Deadline::started(sent, &PROFILE);
    let (before, later) = (SENT - TICK, SENT + TICK);
    for (deadline, expected) in [
        (started(SENT), [started(SENT), started(SENT), started(later)]),
        (Deadline::UNLIMITED, [Deadline::UNLIMITED; 3]),
        (Deadline::LOST, [Deadline::LOST; 3]),
    ] {
        assert_eq!(
            [before, SENT, later].map(|sent| deadline.renewed(sent, &PROFILE)),
            expected,
            "{deadline:?}"
        );
    }
}

#[test]
fn no_deadline_is_mistaken_for_a_lost_one_or_an_unlimited_one() {
    let no_time = LeaseProfile { ttl: Duration::ZERO, ..PROFILE };
    assert_eq!(Deadline::started(Duration::ZERO, &no_time).state(Duration::ZERO), LeaseState::Held);
    assert_eq!(Deadline::started(Duration::ZERO, &no_time).state(TICK), LeaseState::Expiring);
    let far = Deadline::started(Duration::from_secs(u64::MAX / 2), &PROFILE);
    assert_ne!(far, Deadline::UNLIMITED);
    assert_eq!(far.state(Duration::MAX), LeaseState::Expiring);
}

#[test]
fn bits_carry_a_deadline() {
    for deadline in [Deadline::started(SENT, &PROFILE), Deadline::UNLIMITED, Deadline::LOST] {
        assert_eq!(Deadline::from_bits(deadline.to_bits()), deadline);
    }
}
