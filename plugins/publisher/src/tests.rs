//! The publisher through the harness.

use godwit_guest::testing::Harness;

use super::*;

#[test]
fn publishes_on_open_channels_only() {
    let mut publisher = Harness::<Publisher>::new();
    assert_eq!(publisher.ask("publish news hello"), Reply::refused("no_channel"));
    assert_eq!(publisher.ask_text("open news by-token end"), "ok");
    let id = publisher.ask_text("publish news hello world");
    let published = publisher.take_published().remove(0);
    assert_eq!((published.id, published.payload), (id, b"hello world".to_vec()));
    assert_eq!(publisher.ask_text("burst news 3"), "ok");
    let bodies: Vec<Vec<u8>> = publisher.take_published().into_iter().map(|one| one.payload).collect();
    assert_eq!(bodies, [b"00000002", b"00000003", b"00000004"]);
    assert_eq!(publisher.ask_text("close news"), "ok");
    assert_eq!(publisher.ask("revoke news"), Reply::refused("no_channel"));
}

#[test]
fn slow_subscribers_hold_it_up() {
    let mut publisher = Harness::<Publisher>::new();
    publisher.ask_text("open news");
    let channel = publisher.channels().get_mut("news").expect("it is open");
    channel.subscribers.insert("slow".into());
    channel.backlog = 1_000;
    assert_eq!(publisher.ask_text("channels"), "news 1 1000");
    assert_eq!(publisher.ask("publish news hello"), Reply::refused("backlogged"));
    assert!(publisher.handle(Input::message("burst news 2")).is_err());
    assert_eq!(publisher.take_published(), []);
    assert_eq!(publisher.ask_text("subscribers news"), "slow");
    publisher.ask_text("remove news slow");
    assert_eq!(publisher.ask_text("subscribers news"), "");
}

#[test]
fn what_it_does_not_know_is_refused() {
    let mut publisher = Harness::<Publisher>::new();
    publisher.ask_text("open news");
    for command in
        ["", "open", "publish", "burst news x", "burst news 1 9999999", "issue news 00 all 1", "close a b"]
    {
        assert_eq!(publisher.ask(command), Reply::refused("malformed"), "{command}");
    }
    assert_eq!(publisher.ask("open News"), Reply::refused("invalid_name"));
    assert_eq!(publisher.ask("issue news 00 publish 1"), Reply::refused("token"), "a key has 32 bytes");
    let key = "00".repeat(32);
    assert!(!publisher.ask_text(format!("issue news {key} publish+delegate 1")).is_empty());
}
