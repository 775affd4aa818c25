//! The counter through the harness.

use godwit_guest::testing::Harness;

use super::*;

#[test]
fn counts_up_and_down() {
    let mut counter = Harness::<Counter>::new();
    let cases = [("get", "0"), ("add 2", "2"), ("add 40\n", "42"), (" get ", "42"), ("add -50", "-8")];
    for (payload, count) in cases {
        assert_eq!(counter.ask_text(payload), count, "{payload:?}");
    }
}

#[test]
fn refuses_what_it_cannot_read() {
    let mut counter = Harness::<Counter>::new();
    for payload in ["", "add", "add x", "add 1 2", "get 1", "ADD 1", "add 9223372036854775808"] {
        assert_eq!(counter.ask(payload), Reply::refused("malformed"), "{payload:?}");
    }
    assert_eq!(counter.ask([0xff, 0xfe]), Reply::refused("malformed"));
}

#[test]
fn refuses_to_overflow_and_keeps_the_count() {
    let mut counter = Harness::<Counter>::new();
    counter.ask("add 9223372036854775807");
    assert_eq!(counter.ask("add 1"), Reply::refused("overflow"));
    assert_eq!(counter.ask_text("get"), "9223372036854775807");
}
