//! Which end of a call is which error; real guests are in `guest/tests.rs`.

use super::*;

#[test]
fn each_stop_has_its_error() {
    let read = StateReadError { reason: "late".into() };
    let kind = |stop: Stop| match stop.into_guest_error() {
        GuestError::Fault(fault) => fault.kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(Stop::Fenced.into_guest_error(), GuestError::Fenced);
    assert_eq!(Stop::Interrupted.into_guest_error(), GuestError::Interrupted);
    assert_eq!(Stop::StateRead(read.clone()).into_guest_error(), GuestError::StateRead(read));
    assert_eq!(kind(Stop::Deadline { limit_ms: 1 }), FaultKind::Deadline);
    assert_eq!(kind(Stop::Exited { code: 0 }), FaultKind::Exited);
    assert_eq!(kind(Stop::Blocked { what: "poll" }), FaultKind::Blocked);
    assert_eq!(kind(Stop::Misuse { what: "x".into() }), FaultKind::Trap);
}

#[test]
fn a_panic_of_the_host_is_a_fault_with_its_text() {
    let panic = std::panic::catch_unwind(|| panic!("number {}", 7)).expect_err("it panics");
    let GuestError::Fault(fault) = panicked(panic.as_ref()) else {
        panic!("not a fault");
    };
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.ends_with("number 7"), "{}", fault.message);
}
