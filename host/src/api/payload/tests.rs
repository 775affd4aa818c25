//! Tests of bytes in JSON.

use super::*;

#[test]
fn base64_is_that_of_rfc_4648() {
    let cases = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (bytes, text) in cases {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
    assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
}

#[test]
fn the_name_says_how_bytes_are_shown() {
    assert_eq!(member("payload", "grüße".as_bytes()), ("payload".into(), "grüße".into()));
    assert_eq!(member("payload", &[0xff]), ("payload_base64".into(), "/w==".into()));
}
