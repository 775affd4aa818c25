//! The subscriber through the harness.

use godwit_guest::testing::{Ask, Harness};

use super::*;

#[test]
fn asks_and_counts_what_it_hears() {
    let mut subscriber = Harness::<Subscriber>::new();
    let id = subscriber.ask_text("subscribe owner news");
    let asked = subscriber.take_asked().remove(0);
    assert_eq!((asked.id, asked.what, asked.token), (id.clone(), Ask::Subscribe, None));
    assert_eq!(subscriber.ask_text("subscriptions"), "owner news asked");
    subscriber.handle(Input::answered("owner", "news", &id, "subscribed")).expect("it notes");
    for number in [3, 4, 6, 6] {
        let event = Input::published("owner", "news", number, format!("text {number}"));
        subscriber.handle(event).expect("it counts");
    }
    assert_eq!(subscriber.ask_text("heard owner news"), "3 6 4 2");
    assert_eq!(subscriber.ask_text("last"), "text 6");
    assert_eq!(subscriber.ask_text("notes"), "news subscribed");
    assert_eq!(subscriber.query("heard owner other").expect("it answers"), Reply::text("0 0 0 0"));
}

#[test]
fn tokens_go_along() {
    let mut subscriber = Harness::<Subscriber>::new();
    subscriber.ask_text("subscribe owner news 0102");
    subscriber.ask_text("publish-to owner news 0102 some text");
    subscriber.ask_text("remove owner news 0102 other");
    let asked = subscriber.take_asked();
    assert!(asked.iter().all(|asked| asked.token == Some(vec![1, 2])));
    assert!(matches!(&asked[1].what, Ask::Publish(text, _) if text == b"some text"));
    let key = "00".repeat(32);
    assert_eq!(subscriber.ask(format!("delegate 0102 {key} publish 1")), Reply::refused("token"));
}

#[test]
fn what_it_does_not_know_is_refused() {
    let mut subscriber = Harness::<Subscriber>::new();
    for command in
        ["", "subscribe", "subscribe a b xyz", "publish-to a b 01", "heard a", "delegate 01 02 all 1"]
    {
        assert_eq!(subscriber.ask(command), Reply::refused("malformed"), "{command}");
    }
    assert_eq!(subscriber.ask("subscribe A b"), Reply::refused("invalid_name"));
}
