//! The section, as operators write it, and what is said of slips of the pen.

use super::*;
use crate::config::{Flags, HostConfig};

fn load(text: &str, mode: u32, environment: &[(&str, &str)]) -> Result<SecretsConfig, String> {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("godwit.toml");
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    let flags = Flags { config: Some(path), values: Vec::new() };
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    HostConfig::load(&flags, environment).map(|config| config.secrets).map_err(|error| error.to_string())
}

fn secret<'a>(secrets: &'a SecretsConfig, name: &str) -> &'a SecretConfig {
    &secrets[&name.parse::<SecretName>().unwrap()]
}

#[test]
fn sources_are_read() {
    let text = r#"
        [secrets]
        a = { file = "/run/a", hosts = ["api.example.com:443", "http://inside:80"] }
        [secrets.b-2]
        env = "B_TOKEN"
        hosts = ["b:1"]
        [secrets.c]
        env = "NOT_SET"
        hosts = ["c:1"]
    "#;
    let secrets = load(text, 0o644, &[("B_TOKEN", "s3cret")]).unwrap();
    assert_eq!(secret(&secrets, "a").origin, Origin::Given(Source::File("/run/a".into())));
    assert_eq!(secret(&secrets, "a").hosts.len(), 2);
    let env = |name: &str, value: Option<&str>| {
        let value = value.map(|value| SecretText::new(value.into()));
        Origin::Given(Source::Env { name: name.into(), value })
    };
    assert_eq!(secret(&secrets, "b-2").origin, env("B_TOKEN", Some("s3cret")));
    assert_eq!(secret(&secrets, "c").origin, env("NOT_SET", None));
    assert!(load("", 0o644, &[]).unwrap().is_empty());
}

#[test]
fn a_value_in_the_file_needs_a_file_that_only_its_owner_reads() {
    let plain = "[secrets.a]\nvalue = \"s3cret\"\nhosts = [\"a:1\"]\n";
    let client = "[secrets.a]\nhosts = [\"a:1\"]\n[secrets.a.oauth]\nclient_id = \"c\"\nclient_secret = { value = \"s3cret\" }\n\
                  token_url = \"https://a/t\"\nauthorize_url = \"https://a/a\"\n";
    for text in [plain, client] {
        assert!(load(text, 0o600, &[]).is_ok() && load(text, 0o400, &[]).is_ok());
        for mode in [0o644, 0o640, 0o604] {
            let refused = load(text, mode, &[]).unwrap_err();
            assert!(refused.contains("chmod 600") && refused.contains("secrets.a"), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}

#[test]
fn sign_ins_are_read() {
    let text = r#"
        [secrets.mail.oauth]
        client_id = "client"
        client_secret = { file = "/run/client" }
        device_authorization_url = "https://auth.example.com/device"
        token_url = "http://127.0.0.1:1/token"
        scopes = ["mail.read", "https://scope.example/x"]
        [secrets.mail]
        hosts = ["mail.example.com:443"]
    "#;
    let secrets = load(text, 0o644, &[]).unwrap();
    let Origin::SignIn(oauth) = &secret(&secrets, "mail").origin else { panic!("{secrets:?}") };
    assert_eq!((oauth.client_id.as_str(), oauth.scopes.len()), ("client", 2));
    assert_eq!(oauth.client_secret, Some(Source::File("/run/client".into())));
    assert!(oauth.device_authorization_url.is_some() && oauth.authorize_url.is_none());
}

#[test]
fn what_is_wrong_is_named_and_never_quoted() {
    let hosts = "hosts = [\"a:1\"]";
    let oauth = |rest: &str| format!("[secrets.a]\n{hosts}\n[secrets.a.oauth]\nclient_id = \"c\"\n{rest}\n");
    let urls = "token_url = \"https://a/t\"\nauthorize_url = \"https://a/a\"";
    let cases = [
        ("secrets = \"s3cret\"".to_owned(), "no key secrets"),
        ("[secrets]\na = \"s3cret\"".to_owned(), "secrets.a"),
        ("[secrets]\nA = { value = \"s3cret\" }".to_owned(), "lower-case"),
        ("[secrets.a]\nvalue = \"s3cret\"".to_owned(), "no hosts"),
        (format!("[secrets.a]\n{hosts}"), "exactly one source"),
        (format!("[secrets.a]\n{hosts}\nvalue = \"s3cret\"\nfile = \"/f\""), "exactly one source"),
        (format!("[secrets.a]\n{hosts}\nvalue = \"s3cret\"\nvalu = \"s3cret\""), "key that there is not"),
        (format!("[secrets.a]\n{hosts}\nvalue = [\"s3cret\"]"), "value is not a text"),
        (format!("[secrets.a]\n{hosts}\nvalue = \"\""), "value is not a text"),
        ("[secrets.a]\nvalue = \"s3cret\"\nhosts = \"a:1\"".to_owned(), "hosts is not a list"),
        ("[secrets.a]\nvalue = \"s3cret\"\nhosts = [\"*:443\"]".to_owned(), "without *"),
        (oauth("token_url = \"https://a/t\""), "device_authorization_url"),
        (oauth("authorize_url = \"https://a/t\""), "token_url is missing"),
        (oauth("token_url = \"http://a/t\"\nauthorize_url = \"https://a/a\""), "token_url is not an https"),
        (
            oauth("token_url = \"https://u:s3cret@a/t\"\nauthorize_url = \"https://a/a\""),
            "token_url is not an https",
        ),
        (oauth(&format!("{urls}\nclient_secret = \"s3cret\"")), "client_secret is not a source"),
        (oauth(&format!("{urls}\nclient_secret = {{ valu = \"s3cret\" }}")), "exactly one source"),
        (oauth(&format!("{urls}\nscopes = [\"two words\"]")), "scope"),
        ("[secrets.a]\nvalue = \"s3cret\nhosts = []".to_owned(), "line 2"),
        ("[secrets.a]\nvalue = s3cret".to_owned(), "line 2"),
    ];
    for (text, expected) in cases {
        let refused = load(&text, 0o600, &[]).unwrap_err();
        assert!(refused.contains(expected), "{text}: {refused}");
        assert!(!refused.contains("s3cret"), "{text}: {refused}");
    }
}

#[test]
fn the_help_s_example_is_one() {
    let example =
        HELP.lines().filter_map(|line| line.strip_prefix("# ")).skip_while(|line| !line.starts_with('['));
    let example: String = example.map(|line| format!("{line}\n")).collect();
    let secrets = load(&example, 0o644, &[]).unwrap();
    assert_eq!(secrets.len(), 2);
}
