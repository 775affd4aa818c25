//! Tests of what requests may say.

use axum::http::HeaderValue;

use super::*;

fn headers(name: &'static str, value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_bytes(value).expect("a header value"));
    headers
}

#[test]
fn an_idempotency_key_is_bounded_text() {
    assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    let key = |value: &[u8]| idempotency_key(&headers("idempotency-key", value));
    assert_eq!(key(b"k-1").unwrap().as_deref(), Some("k-1"));
    assert_eq!(key("schlüssel".as_bytes()).unwrap().as_deref(), Some("schlüssel"));
    for bad in [b"".as_slice(), &[0xff, 0xfe], &[b'x'; TEXT_BYTES_MAX + 1]] {
        assert_eq!(key(bad).unwrap_err().code(), Code::Malformed);
    }
}

#[test]
fn the_content_type_is_kept_or_bytes() {
    assert_eq!(content_type(&HeaderMap::new()).unwrap(), "application/octet-stream");
    let given = headers("content-type", b"text/plain; charset=utf-8");
    assert_eq!(content_type(&given).unwrap(), "text/plain; charset=utf-8");
}

#[test]
fn a_limit_out_of_range_is_malformed() {
    assert_eq!(page_limit(None).unwrap(), LIST_DEFAULT);
    assert_eq!(page_limit(Some(LIST_MAX)).unwrap(), LIST_MAX);
    for bad in [0, LIST_MAX + 1] {
        assert_eq!(page_limit(Some(bad)).unwrap_err().code(), Code::Malformed);
    }
}

#[test]
fn a_page_has_a_cursor_only_when_more_follow() {
    let page = |rows: Vec<u64>, limit| List::page(rows, limit, ToString::to_string, |row| row * 10);
    let first = page(vec![1, 2, 3], 2);
    assert_eq!((first.items, first.next.as_deref()), (vec![10, 20], Some("2")));
    let last = page(vec![3, 4], 2);
    assert_eq!((last.items, last.next), (vec![30, 40], None));
    let none = page(vec![], 2);
    assert_eq!((none.items, none.next), (vec![], None));
}

#[test]
fn a_body_over_its_limit_is_named_so() {
    assert_eq!(unread(StatusCode::PAYLOAD_TOO_LARGE, "big".into()).code(), Code::TooLarge);
    assert_eq!(unread(StatusCode::BAD_REQUEST, "torn".into()).code(), Code::Malformed);
}
