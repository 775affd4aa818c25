//! Tests of who is let in.

use axum::http::{HeaderName, HeaderValue};

use super::*;

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs.map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a header value"))).collect()
}

fn refused(access: &Access, path: &str, pairs: &[(HeaderName, &str)]) -> Option<Code> {
    access.check(path, &headers(pairs)).err().map(|problem| problem.code())
}

#[test]
fn loopback_serves_this_machine_and_no_foreign_page() {
    let host = |value| (header::HOST, value);
    let origin = |value| (header::ORIGIN, value);
    let cases: [(&[_], bool); 12] = [
        (&[], true),
        (&[host("127.0.0.1:7700")], true),
        (&[host("127.8.0.1")], true),
        (&[host("localhost:1")], true),
        (&[host("[::1]:7700")], true),
        (&[host("evil.example:7700")], false),
        (&[host("127.0.0.1.evil.example")], false),
        (&[host("10.0.0.1:7700")], false),
        (&[host("127.0.0.1:7700"), origin("http://127.0.0.1:7700")], true),
        (&[host("127.0.0.1:7700"), origin("http://127.0.0.1:3000")], false),
        (&[host("127.0.0.1:7700"), origin("https://evil.example")], false),
        (&[host("127.0.0.1:7700"), origin("null")], false),
    ];
    for (pairs, is_let_in) in cases {
        let expected = (!is_let_in).then_some(Code::Forbidden);
        assert_eq!(refused(&Access::Loopback, "/v1/agents", pairs), expected, "{pairs:?}");
    }
}

#[test]
fn beyond_loopback_only_the_token_opens() {
    let access = Access::Token(blake3::hash(b"secret"));
    let bearer = |value| (header::AUTHORIZATION, value);
    let cases: [(&str, &[_], bool); 9] = [
        ("/v1/agents", &[bearer("Bearer secret")], true),
        ("/v1/agents", &[bearer("bearer secret")], true),
        ("/v1/agents", &[bearer("Bearer secre")], false),
        ("/v1/agents", &[bearer("Bearer ")], false),
        ("/v1/agents", &[bearer("Basic secret")], false),
        ("/v1/agents", &[bearer("x")], false),
        ("/v1/agents", &[], false),
        ("/version", &[], false),
        ("/readyz", &[], true),
    ];
    for (path, pairs, is_let_in) in cases {
        let expected = (!is_let_in).then_some(Code::Unauthorized);
        assert_eq!(refused(&access, path, pairs), expected, "{path} {pairs:?}");
    }
}

#[test]
fn the_token_is_made_once_and_private() {
    let data = tempfile::tempdir().unwrap();
    let token = load_or_create(data.path()).unwrap();
    assert!(token.starts_with("godwit_") && token.len() == 71, "{token}");
    assert_eq!(load_or_create(data.path()).unwrap(), token);
    let file = data.path().join("api.token");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&file, mode(0o644)).unwrap();
    let error = load_or_create(data.path()).unwrap_err().to_string();
    assert!(error.contains("readable by others"), "{error}");
    std::fs::set_permissions(&file, mode(0o600)).unwrap();
    std::fs::write(&file, "\n").unwrap();
    assert!(load_or_create(data.path()).is_err());
}
