//! Sources and targets.

use super::*;

fn target(url: &str) -> Target {
    Target::of_url(url).unwrap()
}

fn secret(hosts: &[&str]) -> SecretConfig {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    SecretConfig { hosts, origin: Origin::Given(Source::Value(SecretText::new("x".into()))) }
}

#[test]
fn a_secret_goes_where_it_may_and_encrypted() {
    let name: SecretName = "key".parse().unwrap();
    let hosts =
        ["api.example.com:443", "http://inside.example:80", "127.0.0.1:80", "[::1]:80", "localhost:80"];
    let cases = [
        ("https://api.example.com/x", "ok"),
        ("http://api.example.com:443/", "unencrypted"),
        ("https://api.example.com:444/", "may not be sent to api.example.com:444"),
        ("https://example.com/", "may not be sent"),
        ("http://inside.example/", "ok"),
        ("http://127.0.0.1/", "ok"),
        ("http://[::1]/", "ok"),
        ("http://localhost/", "ok"),
        ("http://127.0.0.2/", "may not be sent"),
    ];
    for (url, expected) in cases {
        let answer = secret(&hosts).check(&name, &target(url));
        let said = answer.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert!(said.contains(expected) && (said == "ok" || said.contains("secret key")), "{url}: {said}");
    }
}

#[test]
fn hosts_are_named_one_by_one() {
    for text in [
        "*:443",
        "api.example.com:*",
        "api.example.com",
        "https://a:1",
        "API.example.com:443",
        "",
        "http://*:1",
    ] {
        assert!(text.parse::<AllowedHost>().is_err(), "{text}");
    }
    assert_eq!("http://a:1".parse::<AllowedHost>().unwrap().to_string(), "http://a:1");
}

#[tokio::test]
async fn values_are_read_when_they_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let source = Source::File(path.clone());
    let read = async || source.read().await.map(|text| text.expose().to_owned());
    assert!(read().await.is_err_and(|reason| reason.contains("secret: ")), "no file");
    let cases: [(&[u8], Result<&str, &str>); 8] = [
        (b"value", Ok("value")),
        (b"value\n", Ok("value")),
        (b"value\r\n", Ok("value")),
        (b"two words\n", Ok("two words")),
        (b"value\n\n", Err("visible")),
        (b"\n", Err("empty")),
        (b"caf\xc3\xa9", Err("visible")),
        (&[b'x'; SECRET_BYTES_MAX + 10], Err("more than")),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        match (read().await, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(reason), Err(expected)) => {
                assert!(reason.contains(expected) && !reason.contains("value"), "{reason}");
            }
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    let unset = Source::Env { name: "API_KEY".into(), value: None };
    assert!(unset.read().await.is_err_and(|reason| reason.contains("API_KEY")));
}

#[test]
fn nothing_shows_a_value() {
    let text = SecretText::new("s3cret".into());
    let source = Source::Env { name: "N".into(), value: Some(text.clone()) };
    let shown = format!(
        "{text:?} {source:?} {:?}",
        SecretConfig { hosts: Vec::new(), origin: Origin::Given(Source::Value(text.clone())) }
    );
    assert!(!shown.contains("s3cret"), "{shown}");
}
