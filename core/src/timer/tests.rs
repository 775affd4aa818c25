//! Names, and the input that a timer becomes.

use super::*;

#[test]
fn names_are_short_and_printable() {
    let longest = "n".repeat(TIMER_NAME_BYTES_MAX);
    let cases = [
        ("tick", true),
        ("Überfällig am 3.", true),
        (longest.as_str(), true),
        ("", false),
        ("a\nb", false),
        ("a\u{7f}", false),
    ];
    for (name, expected) in cases {
        assert_eq!(is_name(name), expected, "{name:?}");
    }
    assert!(!is_name(&"n".repeat(TIMER_NAME_BYTES_MAX + 1)));
}

#[test]
fn each_setting_of_a_timer_is_an_input_of_its_own() {
    let agent = AgentId::parse("a").unwrap();
    let timer = |name: &str, generation, revision| StoredTimer {
        name: name.to_owned(),
        generation: Generation(generation),
        revision: Revision(revision),
        timer: NewTimer { at_ms: 5, payload: Bytes::from_static(b"x") },
    };
    let id = |name, generation, revision| timer(name, generation, revision).input(&agent).id;
    assert_eq!(id("t", 1, 2), id("t", 1, 2));
    let other = AgentId::parse("b").unwrap();
    let all = [id("t", 1, 2), id("t", 1, 3), id("t", 2, 2), id("u", 1, 2), timer("t", 1, 2).input(&other).id];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    let input = timer("t", 1, 2).input(&agent);
    assert_eq!((input.kind, input.source), (Kind::Timer, Source::System));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(input.headers, [header("godwit-timer", "t"), header("godwit-timer-at-ms", "5")]);
}
