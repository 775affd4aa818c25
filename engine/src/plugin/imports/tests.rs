//! The table against the linker: what the one promises, the other has.

use wasmtime::component::Component;

use super::*;
use crate::config::wasmtime_config;
use crate::imports::linker;
use crate::testing::encode_function_import;

/// A function of each interface that has one outside of resources. The others (`types`, `error`, `streams`, the two
/// terminals) are imported by every component that the Rust toolchain makes, and so by those of the other tests.
const FUNCTIONS: [(&str, &str); 19] = [
    ("godwit:agent/turn", "current"),
    ("godwit:agent/state", "list-keys"),
    ("godwit:agent/outbox", "send"),
    ("godwit:agent/timers", "set"),
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
        let Some((_, Verdict::Served(versions) | Verdict::NeedsGrant(_, versions))) = entry else {
            panic!("{interface} is not served");
        };
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
            assert_eq!(problem(&import, None), None);
            assert!(is_linked(&import, function), "{import}");
        }
    }
    for (import, function) in [
        ("wasi:filesystem/preopens@0.2.6", "get-directories"),
        ("wasi:sockets/instance-network@0.2.6", "instance-network"),
        ("wasi:http/outgoing-handler@0.2.6", "handle"),
        ("wasi:clocks/timezone@0.2.6", "display"),
        ("godwit:agent/channels@0.1.0", "subscribe"),
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
            Verdict::NeedsGrant(grant, _) => Some(*grant),
            Verdict::Served(_) | Verdict::Never(_) => None,
        })
        .collect();
    needed.sort_unstable();
    assert_eq!(needed, GRANTS);
}
