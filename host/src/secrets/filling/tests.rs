//! Filling in, and taking out again.

use godwit_core::operation::Outcome;

use super::*;

fn filling() -> Filling {
    let mut filling = Filling::default();
    filling.insert("a".parse().unwrap(), SecretText::new("s3cret-a".into()));
    filling.insert("b".parse().unwrap(), SecretText::new("other".into()));
    filling
}

#[test]
fn placeholders_become_values() {
    let cases = [
        ("plain", Some("plain")),
        ("Bearer {{secret:a}}", Some("Bearer s3cret-a")),
        ("{{secret:a}}:{{secret:b}}", Some("s3cret-a:other")),
        ("{{secret:c}}", None),
        ("{{secret:a", None),
    ];
    for (value, expected) in cases {
        let filled = filling().fill(value);
        assert_eq!(filled.as_ref().and_then(|value| value.to_str().ok()), expected, "{value}");
    }
    let shown = format!("{:?} {:?}", filling(), filling().fill("Bearer {{secret:a}}"));
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(!filling().fill("plain").unwrap().is_sensitive());
}

#[test]
fn an_answer_keeps_no_value() {
    let end = OperationEnd {
        outcome: Outcome::Completed,
        status: Some(200),
        reason: "other".into(),
        content_type: "text/s3cret-a".into(),
        headers: vec![("x-other".into(), "Bearer s3cret-a!".into()), ("etag".into(), "x".into())],
        body: b"\xffauthorization: Bearer s3cret-a".to_vec().into(),
    };
    let redacted = filling().redact(end.clone());
    assert_eq!((redacted.reason.as_str(), redacted.content_type.as_str()), ("*****", "text/********"));
    assert_eq!(redacted.headers[0], ("x-*****".into(), "Bearer ********!".into()));
    assert_eq!(redacted.headers[1], end.headers[1]);
    assert_eq!(&*redacted.body, b"\xffauthorization: Bearer ********");
    assert_eq!(Filling::default().redact(end.clone()), end);
}
