//! Covering.

use super::*;

#[test]
fn every_place_is_covered() {
    let cases: [(&str, &[&str], &str); 8] = [
        ("nothing here", &["secret"], "nothing here"),
        ("secret", &["secret"], "******"),
        ("a secret, and a secret.", &["secret"], "a ******, and a ******."),
        ("abababab", &["abab"], "********"),
        ("xaay", &["a"], "x**y"),
        ("key-long key", &["key", "key-long"], "******** ***"),
        ("one-two-three", &["one-two", "two-three"], "*************"),
        ("köy secret ö", &["secret"], "köy ****** ö"),
    ];
    for (text, values, expected) in cases {
        let mut covered = text.to_owned();
        let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
        assert_eq!(cover_text(&mut covered, &values), text != expected, "{text}");
        assert_eq!(covered, expected, "{text}");
    }
}

#[test]
fn what_is_almost_a_value_stays() {
    let mut bytes = *b"secre t Secret secre\0t\xff";
    assert!(!cover(&mut bytes, &[b"secret", b""]));
    assert_eq!(&bytes, b"secre t Secret secre\0t\xff");
}
