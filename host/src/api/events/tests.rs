//! Tests of cursors, filters and gaps.

use super::*;

fn page(store: StoreId, newest: u64) -> EventPage {
    EventPage { store, events: Vec::new(), gap: None, newest }
}

#[test]
fn a_cursor_is_a_seq_with_or_without_its_store() {
    let store = StoreId([9; 16]);
    let with_store = Cursor::parse(&format!("{store}:12")).unwrap();
    assert_eq!((with_store.store, with_store.seq), (Some(store), 12));
    assert_eq!(Cursor::parse("12").unwrap(), Cursor { store: None, seq: 12 });
    for bad in
        ["", "x", "-1", "x:1", ":1", &format!("{store}:"), "18446744073709551615", "18446744073709551616"]
    {
        assert!(Cursor::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_cursor_of_another_log_is_a_gap() {
    let store = StoreId([9; 16]);
    let cursor = |store, seq| Cursor { store, seq };
    let cases = [
        (cursor(None, 5), None),
        (cursor(Some(store), 5), None),
        (cursor(Some(StoreId([8; 16])), 5), Some("other-store")),
        (cursor(None, 6), Some("ahead")),
    ];
    for (cursor, expected) in cases {
        assert_eq!(foreign(cursor, &page(store, 5)), expected, "{cursor:?}");
    }
}

#[test]
fn kinds_have_names_of_their_own_and_are_found_by_them() {
    for kind in EventKind::ALL {
        assert_eq!(parse_kind(kind.name()).unwrap(), kind);
    }
    assert!(parse_kind("nothing").is_err());
}

#[test]
fn a_stream_is_the_default_and_json_is_asked_for() {
    let accept =
        |value: &'static str| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
    let cases = [
        (None, HeaderMap::new(), true),
        (None, accept("*/*"), true),
        (None, accept("text/event-stream"), true),
        (None, accept("application/json"), false),
        (None, accept("application/json, text/event-stream"), true),
        (Some(0), accept("text/event-stream"), false),
        (Some(1), accept("application/json"), true),
    ];
    for (asked, headers, expected) in cases {
        assert_eq!(follows(asked, &headers).unwrap(), expected, "{asked:?} {headers:?}");
    }
    assert!(follows(Some(2), &HeaderMap::new()).is_err());
}
