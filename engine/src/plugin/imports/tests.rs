//! The table against the linker: what the one promises, the other has.

use wasmtime::component::Component;

use super::*;
use crate::config::wasmtime_config;
use crate::imports::linker;
use crate::testing::encode_function_import;

/// A function of each interface that has one outside of resources. The others (`types`, `error`, `streams`, the two
/// terminals) are imported by every component that the Rust toolchain makes, and so by those of the other tests.
const FUNCTIONS: [(&str, &str); 22] = [
    ("godwit:agent/turn", "current"),
    ("godwit:agent/state", "list-keys"),
    ("godwit:agent/outbox", "send"),
    ("godwit:agent/timers", "set"),
    ("godwit:agent/operations", "list-active"),
    ("godwit:agent/identity", "public-key"),
    ("godwit:agent/channels", "subscribe"),
    ("wasi:logging/logging", "log"),
    ("wasi:config/store", "get-all"),
    ("wasi:io/poll", "poll"),
    ("wasi:cli/environment", "get-arguments"),
    ("wasi:cli/exit", "exit"),
    ("wasi:cli/stdin", "get-stdin"),
    ("wasi:cli/stdout", "get-stdout"),
    ("wasi:cli/stderr", "get-stderr"),
    ("wasi:cli/terminal-stdin", "get-terminal-stdin"),
    ("wasi:cli/terminal-stdout", "get-terminal-stdout"),
    ("wasi:cli/terminal-stderr", "get-terminal-stderr"),
    ("wasi:clocks/monotonic-clock", "subscribe-instant"),
    ("wasi:clocks/wall-clock", "resolution"),
    ("wasi:random/random", "get-random-u64"),
    ("wasi:random/insecure", "get-insecure-random-bytes"),
];

#[test]
fn what_the_table_serves_is_linked_and_nothing_else_is() {
    let engine = wasmtime::Engine::new(&wasmtime_config(1)).expect("an engine");
    let linker = linker(&engine).expect("a linker");
    let is_linked = |import: &str, function: &str| {
        let component =
            Component::new(&engine, encode_function_import(import, function)).expect("it compiles");
        // A function of this name with no parameters and no result: it is there with another type, or not at all.
        match linker.instantiate_pre(&component) {
            Ok(_) => true,
            Err(error) => !format!("{error:#}").contains("implementation is missing"),
        }
    };
    for (interface, function) in FUNCTIONS {
        let entry = TABLE.iter().find(|(name, _)| *name == interface);
        let (versions, grants) = match entry {
            Some((_, Verdict::Served(versions) | Verdict::NeedsGrant(_, versions))) => (versions, None),
            Some((_, Verdict::NeedsTarget(prefix, versions))) => (versions, Some([format!("{prefix}a:1")])),
            Some((_, Verdict::MustAsk(grant, versions))) => (versions, Some([(*grant).to_owned()])),
            _ => panic!("{interface} is not served"),
        };
        let grants = grants.as_ref().map(<[String; 1]>::as_slice);
        let versions: &[&str] = match versions {
            Versions::Wasi => &["0.2.0", "0.2.6", "0.2.12"],
            Versions::Godwit => &["0.1.0", "0.1.7"],
            Versions::These(these) => these,
        };
        for version in versions {
            let import = match *version {
                "" => interface.to_string(),
                version => format!("{interface}@{version}"),
            };
            assert_eq!(problem(&import, grants), None);
            assert!(is_linked(&import, function), "{import}");
        }
    }
    for (import, function) in [
        ("wasi:filesystem/preopens@0.2.6", "get-directories"),
        ("wasi:sockets/instance-network@0.2.6", "instance-network"),
        ("wasi:http/outgoing-handler@0.2.6", "handle"),
        ("wasi:clocks/timezone@0.2.6", "display"),
        ("godwit:agent/groups@0.1.0", "join"),
    ] {
        assert!(problem(import, None).is_some(), "{import}");
        assert!(!is_linked(import, function), "{import}");
    }
}

#[test]
fn each_grant_is_one_that_an_interface_needs() {
    let mut needed: Vec<_> = TABLE
        .iter()
        .filter_map(|(_, verdict)| match verdict {
            Verdict::NeedsGrant(grant, _) | Verdict::MustAsk(grant, _) => Some(*grant),
            Verdict::Served(_) | Verdict::NeedsTarget(..) | Verdict::Never(_) => None,
        })
        .collect();
    needed.sort_unstable();
    assert_eq!(needed, GRANTS);
}

#[test]
fn what_reaches_outside_is_never_there_without_being_asked_for() {
    let import = "godwit:agent/operations@0.1.0";
    let granted = |grants: Option<&[&str]>| {
        let owned = grants.map(|grants| grants.iter().map(|grant| (*grant).to_owned()).collect::<Vec<_>>());
        problem(import, owned.as_deref())
    };
    for grants in [None, Some([].as_slice()), Some(["state", "operations.http"].as_slice())] {
        let said = granted(grants).expect("it is refused");
        assert!(said.contains("operations.http:HOST:PORT"), "{said}");
    }
    assert_eq!(granted(Some(&["operations.http:example.com:443"])), None);
}

#[test]
fn an_agent_signs_only_if_it_asks_for_that() {
    let import = "godwit:agent/identity@0.1.0";
    for grants in [None, Some([].as_slice()), Some(["state".to_owned()].as_slice())] {
        let said = problem(import, grants).expect("it is refused");
        assert!(said.contains("`sign`"), "{said}");
    }
    assert_eq!(problem(import, Some(&["sign".to_owned()])), None);
    assert_eq!(grant_problem("sign"), None);
}

#[test]
fn grants_that_no_host_has_are_named() {
    for grant in
        ["state", "timers", "operations.http:example.com:443", "operations.http:*:*", "secrets.api-key"]
    {
        assert_eq!(grant_problem(grant), None, "{grant}");
    }
    for grant in ["", "files", "operations.http:", "operations.http:Example.com:443", "operations.ftp:a:1"] {
        let said = grant_problem(grant).expect("it is refused");
        assert!(said.contains("operations.http:HOST:PORT"), "{said}");
    }
    for grant in ["secrets.", "secrets.*", "secrets.API_KEY", "secrets.a.b"] {
        let said = grant_problem(grant).expect("it is refused");
        assert!(said.contains("secrets.NAME") && said.contains("lower-case"), "{said}");
    }
}
