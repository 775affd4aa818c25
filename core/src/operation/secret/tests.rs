//! Placeholders and grants.

use super::*;

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

#[test]
fn placeholders_stand_within_values() {
    let cases: [(&str, &[Piece<'_>]); 6] = [
        ("", &[]),
        ("plain } { }} value", &[Piece::Text("plain } { }} value")]),
        ("{{secret:a}}", &[Piece::Secret(name("a"))]),
        ("Bearer {{secret:api-key_2}}", &[Piece::Text("Bearer "), Piece::Secret(name("api-key_2"))]),
        (
            "{{secret:a}}{{secret:b}}:x",
            &[Piece::Secret(name("a")), Piece::Secret(name("b")), Piece::Text(":x")],
        ),
        ("{a{{secret:b}}}", &[Piece::Text("{a"), Piece::Secret(name("b")), Piece::Text("}")]),
    ];
    for (value, expected) in cases {
        assert_eq!(pieces(value).as_deref(), Ok(expected), "{value}");
    }
}

#[test]
fn what_opens_no_placeholder_is_refused() {
    let long = format!("{{{{secret:{}}}}}", "a".repeat(SECRET_NAME_BYTES_MAX + 1));
    let bad = [
        "{{",
        "{{}}",
        "{{secret}}",
        "{{secret:}}",
        "{{secret:a",
        "{{secret:a}",
        "{{secret:A}}",
        "{{secret:1a}}",
        "{{secret: a}}",
        "{{ secret:a }}",
        "{{Secret:a}}",
        "{{{secret:a}}}",
        "x {{secret:a}} {{b}}",
        "{{secret:a{{secret:b}}}}",
        &long,
    ];
    for value in bad {
        assert_eq!(pieces(value), Err(BadPlaceholder), "{value}");
    }
}

#[test]
fn headers_name_only_so_many() {
    let header = |value: &str| ("x".to_owned(), value.to_owned());
    let many = vec![header("{{secret:a}}{{secret:b}}"); OPERATION_SECRETS_MAX / 2];
    assert_eq!(named(&many).unwrap(), [name("a"), name("b")].into());
    let more = [many, vec![header("{{secret:a}}")]].concat();
    assert!(named(&more).is_err());
    assert!(
        named(&[header("{{a}}")]).is_err_and(|error| error.starts_with("the value of the header x has {{"))
    );
}

#[test]
fn a_grant_is_for_one_name() {
    let grants = ["state", "secrets.a", "secrets.b.c", "secrets.*"].map(str::to_owned);
    assert!(name("a").is_granted(&grants));
    for other in ["b", "aa", "state"] {
        assert!(!name(other).is_granted(&grants), "{other}");
    }
    assert_eq!(SecretName::of_grant("secrets.a"), Some(name("a")));
    for grant in ["secrets.", "secrets.*", "secrets.a.b", "secrets", "a"] {
        assert_eq!(SecretName::of_grant(grant), None, "{grant}");
    }
}
