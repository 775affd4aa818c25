//! The fetcher through the harness.

use godwit_guest::OperationOutcome;
use godwit_guest::testing::Harness;

use super::*;

#[test]
fn keeps_what_came_back_last() {
    let mut fetcher = Harness::<Fetcher>::new();
    assert_eq!(fetcher.ask_text("last"), "none");
    let first = fetcher.ask_text("fetch http://example.com/a");
    let second = fetcher.ask_text("post https://example.com/b some text");
    assert_eq!(fetcher.ask_text("active"), format!("{first}\n{second}"));
    let asked: Vec<_> = fetcher.operations().iter().map(|operation| operation.request.clone()).collect();
    assert_eq!((asked[0].method.as_str(), asked[0].is_repeatable), ("GET", true));
    assert_eq!((asked[1].method.as_str(), asked[1].is_repeatable), ("POST", false));
    assert_eq!(asked[1].body, b"some text");
    fetcher.end_operation(&first, OperationOutcome::Completed, Some(200), "found");
    assert_eq!(fetcher.ask_text("last"), "completed 200\nfound");
    fetcher.end_operation(&second, OperationOutcome::Unknown, None, "");
    assert_eq!(fetcher.ask_text("last"), "unknown 0\n");
    assert_eq!((fetcher.ask_text("count"), fetcher.ask_text("active")), ("2".into(), String::new()));
}

#[test]
fn cancels() {
    let mut fetcher = Harness::<Fetcher>::new();
    let id = fetcher.ask_text("fetch http://example.com/");
    assert_eq!(fetcher.ask_text(format!("cancel {id}")), "ok");
    assert!(fetcher.operations()[0].is_cancelled);
}

#[test]
fn what_it_does_not_know_is_refused() {
    let mut fetcher = Harness::<Fetcher>::new();
    for command in ["", "fetch", "fetch example.com", "post http://a", "cancel", "cancel ", "last one", "get"]
    {
        assert_eq!(fetcher.ask(command), Reply::refused("malformed"), "{command}");
    }
    for _ in 0..godwit_guest::limits::OPERATIONS_MAX {
        fetcher.ask_text("fetch http://example.com/");
    }
    assert_eq!(fetcher.ask("fetch http://example.com/"), Reply::refused("busy"));
}
