//! Which crate may depend on which: the architecture's layers, read from the manifests.
//!
//! A crate's `Cargo.toml` enforces what it can't name; this check keeps the `Cargo.toml` itself honest.

use anyhow::Result;

use crate::lint::tree::Tree;
use crate::workspace::{Package, Workspace};

/// Some packages may not depend on others.
struct Rule {
    who: Who,
    /// Names of packages; one that ends with `*` stands for all that start so.
    never: &'static [&'static str],
    /// Whether tests of the package may.
    tests_may: bool,
    why: &'static str,
}

/// Packages by folder.
enum Who {
    In(&'static [&'static str]),
    /// All but these.
    NotIn(&'static [&'static str]),
}

const RULES: &[Rule] = &[
    Rule {
        who: Who::NotIn(&["engine", "tests/bench", "tests/it"]),
        never: &["wasmtime*"],
        tests_may: false,
        why: "only the engine names wasmtime (the benches measure it, `it` checks against it)",
    },
    Rule {
        who: Who::NotIn(&[
            "store",
            "tests/bench",
            "tests/it",
            "tests/cluster",
            "tests/demo",
            "tests/support",
        ]),
        never: &["rusqlite*", "libsqlite3-sys"],
        tests_may: false,
        why: "only the store links SQLite (test programs corrupt and measure files)",
    },
    Rule {
        who: Who::In(&["core"]),
        never: &[
            "wasmtime*",
            "wasmparser",
            "rusqlite*",
            "tokio-postgres",
            "axum*",
            "iroh*",
            "reqwest",
            "hyper*",
            "cap-std",
            "godwit-store",
            "godwit-engine",
            "godwit-mesh",
            "godwit-host",
        ],
        tests_may: false,
        why: "core has no IO of its own and is the lowest layer",
    },
    Rule {
        who: Who::In(&["store"]),
        never: &["godwit-engine", "godwit-mesh", "godwit-host", "wasmparser", "iroh*", "axum*", "reqwest"],
        tests_may: false,
        why: "the store knows neither guests nor mesh nor HTTP",
    },
    Rule {
        who: Who::In(&["engine"]),
        never: &["godwit-store", "godwit-mesh", "godwit-host", "iroh*", "axum*", "reqwest"],
        tests_may: false,
        why: "the engine sees one turn at a time: no store, no mesh, no HTTP",
    },
    Rule {
        who: Who::In(&["engine"]),
        never: &["tokio"],
        tests_may: true,
        why: "the engine is synchronous; its caller gives it a thread",
    },
    Rule {
        who: Who::In(&["mesh"]),
        never: &["godwit-store", "godwit-engine", "godwit-host", "wasmparser", "axum*", "reqwest"],
        tests_may: false,
        why: "the mesh carries frames and knows neither store nor engine nor HTTP",
    },
    Rule {
        who: Who::In(&["guest-sdk", "plugins", "tests/guests"]),
        never: &["godwit-core", "godwit-store", "godwit-engine", "godwit-mesh", "godwit-host"],
        tests_may: false,
        why: "agents know the host through `wit/` only",
    },
    Rule {
        who: Who::NotIn(&["tests"]),
        never: &["godwit-support", "godwit-it", "godwit-cluster", "godwit-demo", "godwit-bench"],
        tests_may: true,
        why: "the product does not depend on its tests",
    },
];

/// Runs the check.
pub(crate) fn check(tree: &Tree) -> Result<Vec<String>> {
    Ok(findings(&tree.workspace))
}

fn findings(workspace: &Workspace) -> Vec<String> {
    let mut findings = Vec::new();
    for rule in RULES {
        for package in workspace.packages.iter().filter(|package| rule.who.includes(package)) {
            let counts = |kind: Option<&str>| !(rule.tests_may && kind == Some("dev"));
            for dependency in
                package.dependencies.iter().filter(|dependency| counts(dependency.kind.as_deref()))
            {
                if rule.never.iter().any(|pattern| matches(pattern, &dependency.name)) {
                    let (folder, name, why) = (&package.folder, &dependency.name, rule.why);
                    findings.push(format!("{folder}/Cargo.toml: depends on {name}: {why}"));
                }
            }
        }
    }
    findings
}

impl Who {
    fn includes(&self, package: &Package) -> bool {
        match self {
            Who::In(folders) => package.is_in(folders),
            Who::NotIn(folders) => !package.is_in(folders),
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
