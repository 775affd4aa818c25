//! What a log lets through.

use super::*;

#[test]
fn control_characters_are_escaped_and_long_texts_cut() {
    for (text, bytes_max, expected) in [
        ("plain äöü", 100, "plain äöü"),
        ("\u{1b}[31mred\r\n\0", 100, "\\u{1b}[31mred\\r\\n\\u{0}"),
        ("tab\there", 100, "tab\\there"),
        ("\u{9b}2J", 100, "\\u{9b}2J"),
        ("12345678", 4, "1234 [cut]"),
        ("äöü", 3, "ä [cut]"),
    ] {
        assert_eq!(escaped(text, bytes_max), expected);
    }
}

#[test]
fn a_full_log_says_so_once() {
    let mut budget = Budget::default();
    let lines = (0..100_000).map(|_| budget.admit(0)).collect::<Vec<_>>();
    let count = |wanted: Admission| lines.iter().filter(|admission| **admission == wanted).count();
    assert_eq!(count(Admission::Line), LOG_TURN_BYTES_MAX / LINE_OVERHEAD_BYTES);
    assert_eq!(count(Admission::LastNote), 1);
    assert_eq!(lines.last(), Some(&Admission::Dropped));
}

#[test]
fn a_line_without_end_takes_no_more_than_a_line() {
    let mut log = GuestLog::new(AgentId::parse("a").expect("an agent id"));
    for _ in 0..100 {
        log.write(Stream::Output, &[b'x'; 1_000]);
    }
    assert_eq!(log.output.bytes.len(), LOG_LINE_BYTES_MAX + 1);
    log.write(Stream::Output, b"\nnext");
    assert_eq!(log.output.bytes, b"next");
    log.end_call();
    assert!(log.output.bytes.is_empty());
}
