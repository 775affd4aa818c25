//! Tests of the layers.

use super::*;

const KEY: &str = "abababababababababababababababababababababababababababababababab";

/// File, environment, flags, and what the message names.
type Case = (
    Option<&'static str>,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

fn load(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<HostConfig, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let config = file.map(|text| {
        let path = dir.path().join("godwit.toml");
        std::fs::write(&path, text).expect("a file");
        path
    });
    let values = flags.iter().map(|(flag, value)| (*flag, vec![(*value).to_owned()]));
    let flags = Flags { config, values: values.collect() };
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    HostConfig::load(&flags, environment)
}

#[test]
fn nothing_set_gives_the_defaults() {
    let config = load(None, &[], &[]).unwrap();
    assert_eq!(config.data, PathBuf::from("./godwit-data"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:7700");
    assert_eq!(config.mesh.to_string(), "127.0.0.1:7701");
    assert_eq!((config.name, config.store_url), (None, None));
    assert_eq!(config.lease_profile, LeaseProfile::NORMAL);
    assert!(config.peers.is_empty());
    assert!(config.guest_threads >= 2);
    assert_eq!((config.inputs_kept, config.receipts_kept), (INPUTS_KEPT, None));
}

#[test]
fn the_higher_layer_wins() {
    let file = "[host]\nname = \"file\"\ndata = \"/file\"\n[api]\nlisten = \"127.0.0.1:1\"\n[limits]\nresident_max = 5\n";
    let environment = [("GODWIT_HOST_NAME", "env"), ("GODWIT_HOST_DATA", "/env")];
    let config = load(Some(file), &environment, &[("--name", "flag")]).unwrap();
    assert_eq!(config.name.as_deref(), Some("flag"));
    assert_eq!(config.data, PathBuf::from("/env"));
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.resident_max, 5);
}

#[test]
fn lists_are_replaced_as_a_whole() {
    let file = format!("[mesh]\npeers = [\"{KEY}@127.0.0.1:1\", \"{KEY}@127.0.0.1:2\"]\n");
    assert_eq!(load(Some(&file), &[], &[]).unwrap().peers.len(), 2);
    let both = format!("{KEY}@127.0.0.1:3, {KEY}@[::1]:4");
    let config = load(Some(&file), &[("GODWIT_MESH_PEERS", &both)], &[]).unwrap();
    let ports: Vec<_> = config.peers.iter().map(|(_, address)| address.port()).collect();
    assert_eq!(ports, [3, 4]);
    assert_eq!(config.peers[0].0, HostId([0xab; 32]));
    let none = load(Some(&file), &[("GODWIT_MESH_PEERS", "")], &[]).unwrap();
    assert!(none.peers.is_empty());
}

#[test]
fn a_bad_value_names_its_key_and_origin() {
    let cases: [Case; 9] = [
        (
            None,
            &[("GODWIT_LEASE_PROFILE", "slow")],
            &[],
            &["lease.profile", "GODWIT_LEASE_PROFILE", "normal or fast"],
        ),
        (None, &[], &[("--listen", "localhost")], &["api.listen", "--listen", "IP:PORT"]),
        (None, &[], &[("--peer", "x@127.0.0.1:1")], &["mesh.peers", "--peer", "64 lower-case hex"]),
        (None, &[], &[("--peer", KEY)], &["mesh.peers", "KEY@IP:PORT"]),
        (None, &[], &[("--name", "two words")], &["host.name", "two words"]),
        (None, &[], &[("--data", "")], &["host.data"]),
        (Some("[limits]\nresident_max = 0\n"), &[], &[], &["limits.resident_max", "godwit.toml", "1..="]),
        (Some("[limits]\nresident_max = true\n"), &[], &[], &["limits.resident_max", "true", "like 1000"]),
        (Some("[mesh]\npeers = \"x\"\n"), &[], &[], &["mesh.peers", "like []"]),
    ];
    for (file, environment, flags, parts) in cases {
        let error = load(file, environment, flags).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} does not name {part:?}");
        }
    }
}

#[test]
fn what_agents_may_fill_can_be_set() {
    assert_eq!(load(None, &[], &[]).unwrap().quotas, Quotas::default());
    let file = "[limits]\ninbox_bytes_max = 1000\nstate_keys_max = 0\nstore_bytes_max = 33554432\nevents_kept = 500\n";
    let config = load(Some(file), &[("GODWIT_LIMITS_STATE_BYTES_MAX", "7")], &[]).unwrap();
    let expected = Quotas {
        inbox_bytes_max: 1_000,
        state_keys_max: 0,
        state_bytes_max: 7,
        store_bytes_max: Some(32 << 20),
        events_kept: 500,
        ..Quotas::default()
    };
    assert_eq!(config.quotas, expected);
    let small = load(Some("[limits]\nstore_bytes_max = 1\n"), &[], &[]).unwrap_err().to_string();
    assert!(small.contains("limits.store_bytes_max"), "{small}");
}

#[test]
fn unknown_keys_are_refused() {
    for file in ["[host]\nnmae = \"a\"\n", "[hsot]\nname = \"a\"\n", "name = \"a\"\n"] {
        let error = load(Some(file), &[], &[]).unwrap_err();
        assert!(matches!(error, ConfigError::UnknownKey { .. }), "{file:?}: {error}");
    }
    let typo = load(None, &[("GODWIT_STORE_ULR", "x")], &[]).unwrap_err();
    assert!(typo.to_string().contains("GODWIT_STORE_ULR"), "{typo}");
    let others = [("GODWIT_API_TOKEN", "x"), ("GODWIT_URL", "x"), ("GODWIT_LOG", "x"), ("PATH", "x")];
    load(None, &others, &[]).unwrap();
    assert!(matches!(load(Some("not toml"), &[], &[]), Err(ConfigError::File { .. })));
}

#[test]
fn the_help_is_a_file_that_changes_nothing() {
    let text = help();
    assert_eq!(load(Some(&text), &[], &[]), load(None, &[], &[]));
    for key in &KEYS {
        assert!(text.contains(&variable(key)), "{} is missing", key.name);
        assert!(key.flag.is_none_or(|flag| text.contains(flag)));
    }
    let uncommented = text.replace("# name =", "name =").replace("# url =", "url =");
    let config = load(Some(&uncommented.replace("# guest_threads =", "guest_threads =")), &[], &[]).unwrap();
    assert_eq!((config.name.as_deref(), config.guest_threads), (Some("host-a"), 4));
}

#[test]
fn what_operations_may_reach_is_listed() {
    assert_eq!(load(None, &[], &[]).unwrap().operations, OperationPolicy::default());
    let file = "[operations]\nhttp = [\"api.example.com:443\", \"*:80\"]\nnetworks = [\"10.0.0.0/8\"]\n";
    let policy = load(Some(file), &[], &[]).unwrap().operations;
    assert_eq!((policy.targets.len(), policy.networks.len()), (2, 1));
    let environment = [("GODWIT_OPERATIONS_HTTP", "a:1, b:2"), ("GODWIT_OPERATIONS_NETWORKS", "::1")];
    let policy = load(Some(file), &environment, &[]).unwrap().operations;
    assert_eq!(policy.targets, ["a:1".parse().unwrap(), "b:2".parse().unwrap()]);
    for (name, value) in
        [("GODWIT_OPERATIONS_HTTP", "example.com"), ("GODWIT_OPERATIONS_NETWORKS", "localhost")]
    {
        let error = load(None, &[(name, value)], &[]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}
