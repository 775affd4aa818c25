//! Tests of ids.

use super::*;

#[test]
fn agent_ids_are_canonical_or_refused() {
    let long = "a".repeat(129);
    let cases: &[(&str, bool)] = &[
        ("a", true),
        ("9", true),
        ("ledger:eu-1.main_x", true),
        ("ledger:eu-1.main", true),
        ("", false),
        ("-a", false),
        (".a", false),
        ("A", false),
        ("a/b", false),
        ("ä", false),
        (&long[..128], true),
        (&long, false),
    ];
    for (text, ok) in cases {
        assert_eq!(AgentId::parse(text).is_ok(), *ok, "{text:?}");
    }
}

#[test]
fn uuids_and_hex_round_trip() {
    let id = InputId::generate(1_700_000_000_000, [7; 10]);
    assert_eq!(id.to_string().parse::<InputId>(), Ok(id));
    let host = HostId([0xab; 32]);
    assert_eq!(host.to_string().parse::<HostId>(), Ok(host));
    assert!("AB".repeat(32).parse::<HostId>().is_err());
    assert!("nonsense".parse::<MigrationId>().is_err());
}

#[test]
fn delivery_ids_differ_by_each_part() {
    let (a, b) = (AgentId::parse("a").unwrap(), AgentId::parse("b").unwrap());
    let base = InputId::of_delivery(&a, Generation(1), &b, 1);
    assert_eq!(base, InputId::of_delivery(&a, Generation(1), &b, 1));
    assert_ne!(base, InputId::of_delivery(&b, Generation(1), &a, 1));
    assert_ne!(base, InputId::of_delivery(&a, Generation(2), &b, 1));
    assert_ne!(base, InputId::of_delivery(&a, Generation(1), &b, 2));
}

#[test]
fn a_raised_token_is_above_whatever_counting_reaches() {
    let token = FencingToken(7);
    let raised = token.raised(1).unwrap();
    assert_eq!((raised.epoch(), raised.raised(2).map(FencingToken::epoch)), (1, Some(3)));
    assert!(raised > FencingToken((1 << 48) - 1));
    assert_eq!(raised.next(), FencingToken((1 << 48) + 8));
    assert_eq!(token.raised(1 << 15), None);
    assert_eq!(FencingToken(i64::MAX as u64).raised(1), None);
    assert_eq!(token.raised(u64::MAX), None);
}
