//! Planted packages with a wrong licence, a second version or a banned name are found.

use super::*;

fn locked(name: &str, version: &str, license: Option<&str>) -> Locked {
    Locked {
        name: name.to_owned(),
        version: version.to_owned(),
        license: license.map(str::to_owned),
        source: Some("registry".to_owned()),
    }
}

fn rules() -> Rules {
    toml::from_str(include_str!("../../../../deny.toml")).unwrap()
}

#[test]
fn licence_that_is_not_allowed_is_found() {
    let packages = [
        locked("good", "1.0.0", Some("MIT OR Apache-2.0")),
        locked("viral", "2.0.0", Some("AGPL-3.0-only")),
        locked("silent", "3.0.0", None),
        locked("odd", "4.0.0", Some("MIT or so")),
        Locked { source: None, ..locked("ours", "0.1.0", None) },
    ];
    let findings = unlicensed(&rules().licenses.allow, &packages);
    assert_eq!(
        findings,
        [
            "viral 2.0.0: `AGPL-3.0-only` is not met by what deny.toml allows",
            "silent 3.0.0: states no licence",
            "odd 4.0.0: `MIT or so` is not a licence expression",
        ]
    );
}

#[test]
fn second_version_of_a_banned_duplicate_is_found() {
    let once = [locked("tokio", "1.0.0", None), locked("syn", "2.0.0", None), locked("syn", "3.0.0", None)];
    assert!(banned(&rules().bans.deny, &once).is_empty());
    let twice = [locked("tokio", "1.0.0", None), locked("tokio", "2.0.0", None)];
    let findings = banned(&rules().bans.deny, &twice);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].starts_with("tokio 1.0.0, 2.0.0: at most 1 allowed:"), "{findings:?}");
}

#[test]
fn banned_package_is_found_at_the_first_version() {
    let findings = banned(&rules().bans.deny, &[locked("openssl-sys", "0.9.0", None)]);
    assert!(findings[0].starts_with("openssl-sys 0.9.0: at most 0 allowed:"), "{findings:?}");
}

#[test]
fn what_must_be_single_is_listed() {
    let names: Vec<_> = rules().bans.deny.into_iter().map(|ban| ban.name).collect();
    for name in ["wasmtime", "rusqlite", "libsqlite3-sys", "tokio", "axum", "postcard"] {
        assert!(names.iter().any(|listed| listed == name), "{name}");
    }
}
