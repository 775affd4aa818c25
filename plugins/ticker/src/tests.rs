//! The ticker through the harness.

use godwit_guest::testing::Harness;

use super::*;

fn started(command: &str) -> Harness<Ticker> {
    let mut ticker = Harness::<Ticker>::new();
    ticker.host().set_now_ms(1_000);
    assert_eq!(ticker.ask_text(command), "ok");
    ticker
}

#[test]
fn ticks_once() {
    let mut ticker = started("once 500");
    assert!(ticker.pass_to(1_499).is_empty());
    assert_eq!(ticker.pass_to(1_500), [Reply::none()]);
    assert!(ticker.pass_to(99_000).is_empty());
    assert_eq!(ticker.ask_text("get"), "1");
}

#[test]
fn ticks_again_and_again_until_it_is_stopped() {
    let mut ticker = started("every 100");
    assert_eq!(ticker.pass_to(1_350).len(), 3);
    assert_eq!(ticker.timers()["tick"].at_ms, 1_400);
    assert_eq!(ticker.ask_text("stop"), "ok");
    assert!(ticker.timers().is_empty());
    assert!(ticker.pass_to(99_000).is_empty());
    assert_eq!(ticker.ask_text("get"), "3");
}

#[test]
fn ticks_that_were_missed_are_not_made_up_for() {
    let mut ticker = started("every 100");
    ticker.host().set_now_ms(1_777);
    assert_eq!(ticker.pass_to(1_777).len(), 1);
    assert_eq!(ticker.timers()["tick"].at_ms, 1_800);
}

#[test]
fn the_last_word_counts() {
    let mut ticker = started("every 100");
    assert_eq!(ticker.ask_text("once 300"), "ok");
    assert_eq!(ticker.pass_to(99_000).len(), 1);
    assert_eq!(ticker.ask_text("get"), "1");
}

#[test]
fn what_it_does_not_know_is_refused() {
    let mut ticker = Harness::<Ticker>::new();
    for command in
        ["", "once", "once x", "once -1", "every 0", "every ", "stop now", "once 999999999999999999"]
    {
        assert_eq!(ticker.ask(command), Reply::refused("malformed"), "{command}");
    }
    assert!(ticker.timers().is_empty());
}
