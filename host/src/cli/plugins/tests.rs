//! Tests of the upload's body.

use super::*;

#[test]
fn parts_stand_between_boundaries() {
    let body = multipart("b", &[("component", b"\0asm"), ("manifest", b"name = 1")]);
    let expected = "--b\r\nContent-Disposition: form-data; name=\"component\"\r\n\r\n\0asm\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"manifest\"\r\n\r\nname = 1\r\n--b--\r\n";
    assert_eq!(String::from_utf8(body).unwrap(), expected);
}
