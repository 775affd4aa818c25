//! Tests of leases and guards.

use super::*;
use crate::time::boot_now;

#[test]
fn a_guard_is_held_until_its_deadline_or_its_loss() {
    let profile = LeaseProfile::FAST;
    let fresh =
        LeaseGuard::new(SessionLease::started(boot_now(), &profile, Arc::new(SystemClock)), FencingToken(3));
    assert_eq!(fresh.state(), LeaseState::Held);
    assert!(fresh.is_held());

    let long_ago = boot_now().saturating_sub(profile.ttl);
    let expiring =
        LeaseGuard::new(SessionLease::started(long_ago, &profile, Arc::new(SystemClock)), FencingToken(3));
    assert_eq!(expiring.state(), LeaseState::Expiring);
    assert!(!expiring.is_held());

    let clone = fresh.clone();
    fresh.lose();
    assert_eq!(clone.state(), LeaseState::Lost);
    assert!(!clone.is_held());
}

#[test]
fn a_late_renewal_never_shortens_the_deadline_and_revives_an_expiring_session() {
    let profile = LeaseProfile::FAST;
    let session =
        SessionLease::started(boot_now().saturating_sub(profile.ttl), &profile, Arc::new(SystemClock));
    assert_eq!(session.state(), LeaseState::Expiring);
    session.renewed(boot_now(), &profile);
    assert_eq!(session.state(), LeaseState::Held);
    session.renewed(boot_now().saturating_sub(profile.ttl), &profile);
    assert_eq!(session.state(), LeaseState::Held);
}

#[test]
fn a_lost_session_loses_every_guard_under_it() {
    let session = SessionLease::unlimited();
    let guard = LeaseGuard::new(session.clone(), FencingToken(1));
    assert!(guard.is_held());
    session.lose();
    assert_eq!(guard.state(), LeaseState::Lost);
    session.renewed(boot_now(), &LeaseProfile::NORMAL);
    assert_eq!(guard.state(), LeaseState::Lost, "an answer that comes late brings nothing back");
    assert!(!guard.is_held());
}
