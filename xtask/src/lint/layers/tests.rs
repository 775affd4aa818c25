//! The layers as they are pass; a dependency that points upwards is found.

use super::*;
use crate::workspace::tests::{package, workspace};

fn check_one(folder: &str, dependency: &str) -> Vec<String> {
    findings(&workspace(vec![package("some", folder, &["serde", dependency])]))
}

#[test]
fn layers_as_designed_pass() {
    let packages = vec![
        package("godwit-core", "core", &["tokio", "dev:proptest"]),
        package("godwit-store", "store", &["godwit-core", "rusqlite", "rusqlite_migration", "dev:tempfile"]),
        package("godwit-engine", "engine", &["godwit-core", "wasmtime", "wasmtime-wasi", "dev:tokio"]),
        package("godwit-mesh", "mesh", &["godwit-core", "iroh", "tokio"]),
        package("godwit-host", "host", &["godwit-store", "godwit-engine", "godwit-mesh", "axum", "reqwest"]),
        package("counter", "plugins/counter", &["godwit-guest"]),
        package("godwit-bench", "tests/bench", &["wasmtime", "rusqlite", "godwit-support"]),
    ];
    assert!(findings(&workspace(packages)).is_empty());
}

#[test]
fn planted_dependencies_are_found() {
    let cases = [
        ("core", "axum"),
        ("core", "godwit-store"),
        ("core", "dev:reqwest"),
        ("store", "godwit-mesh"),
        ("store", "dev:godwit-engine"),
        ("engine", "tokio"),
        ("engine", "godwit-store"),
        ("mesh", "godwit-engine"),
        ("host", "wasmtime-wasi"),
        ("host", "rusqlite"),
        ("tests/cluster", "wasmtime"),
        ("guest-sdk", "godwit-core"),
        ("plugins/counter", "godwit-host"),
        ("host", "godwit-support"),
    ];
    for (folder, dependency) in cases {
        let findings = check_one(folder, dependency);
        let name = dependency.trim_start_matches("dev:");
        let expected = format!("{folder}/Cargo.toml: depends on {name}:");
        assert!(
            findings.iter().any(|finding| finding.starts_with(&expected)),
            "{folder} -> {dependency}: {findings:?}"
        );
    }
}
