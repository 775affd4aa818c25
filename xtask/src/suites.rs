//! The test suites: which packages each one tests and what it needs built first.
//!
//! Every package of the workspace belongs to one suite or to `UNTESTED`, which `cargo xtask lint` checks: a new
//! package can't be left out by accident.

use crate::workspace::{Package, Workspace};

/// One suite.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// What it asks, for the heading.
    pub(crate) about: &'static str,
    /// Whether it starts host processes, which have to be built first.
    pub(crate) needs_hosts: bool,
    /// Whether its packages have examples in their docs that run.
    pub(crate) has_doc_tests: bool,
    /// Whether it only computes, and so may run beside those that come after it and wait for disks and clocks.
    pub(crate) is_patient: bool,
    packages: Packages,
}

enum Packages {
    /// The workspace's default members.
    Default,
    /// Everything at or below these folders.
    Folders(&'static [&'static str]),
    /// The one package of this name.
    Named(&'static str),
}

/// In the order they run: the cheap ones first.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        about: "is each rule right?",
        needs_hosts: false,
        // A doc test would link wasmtime and all; examples that must run are in the SDK.
        has_doc_tests: false,
        is_patient: false,
        packages: Packages::Default,
    },
    Suite {
        name: "sdk",
        about: "do agents behave under the SDK's native harness?",
        needs_hosts: false,
        has_doc_tests: true,
        is_patient: false,
        packages: Packages::Folders(&["guest-sdk", "plugins"]),
    },
    Suite {
        name: "support",
        about: "are the test tools themselves right?",
        needs_hosts: false,
        has_doc_tests: false,
        is_patient: false,
        packages: Packages::Folders(&["tests/support"]),
    },
    Suite {
        name: "model",
        about: "do leases and migrations hold in every order in which things can happen?",
        needs_hosts: false,
        has_doc_tests: false,
        is_patient: true,
        packages: Packages::Named("godwit-model"),
    },
    Suite {
        name: "sim",
        about: "do whole hosts keep the invariants under every fault that a seed makes?",
        needs_hosts: false,
        has_doc_tests: false,
        is_patient: true,
        packages: Packages::Named("godwit-sim"),
    },
    Suite {
        name: "fuzz",
        about: "does what reads others' bytes take any bytes?",
        needs_hosts: false,
        has_doc_tests: false,
        is_patient: true,
        packages: Packages::Named("godwit-fuzz"),
    },
    Suite {
        name: "it",
        about: "do real wasm, SQLite and HTTP agree with the model?",
        needs_hosts: true,
        has_doc_tests: false,
        is_patient: false,
        packages: Packages::Named("godwit-it"),
    },
    Suite {
        name: "crash",
        about: "does a death in any gap between two durable steps lose or double anything?",
        needs_hosts: true,
        has_doc_tests: false,
        is_patient: false,
        packages: Packages::Named("godwit-crash"),
    },
    Suite {
        name: "cluster",
        about: "do several processes survive kill -9, SIGSTOP and migration under load?",
        needs_hosts: true,
        has_doc_tests: false,
        is_patient: false,
        packages: Packages::Named("godwit-cluster"),
    },
];

/// Packages that no suite tests, with the reason.
const UNTESTED: &[(&str, &str)] = &[
    ("tests/guests", "components that misbehave on purpose; `it` and `cluster` run them"),
    ("tests/bench", "measures; `cargo xtask bench` runs it"),
    ("tests/demo", "is itself a check of the whole; `cargo xtask demo` runs it"),
];

impl Suite {
    /// Environment variables of its programs, unless they are set already: each target of `fuzz` is run for a minute.
    pub(crate) fn defaults(&self) -> &'static [(&'static str, &'static str)] {
        match self.name {
            "fuzz" => &[("GODWIT_FUZZ_SECONDS", "60")],
            _ => &[],
        }
    }

    /// The packages it tests; empty if the workspace has none of them.
    pub(crate) fn packages<'a>(&self, workspace: &'a Workspace) -> Vec<&'a Package> {
        workspace.packages.iter().filter(|package| self.tests(package)).collect()
    }

    /// What it looks for, for the message that nothing is there.
    pub(crate) fn looks_for(&self) -> String {
        match &self.packages {
            Packages::Default => "default member".to_owned(),
            Packages::Folders(folders) => format!("package in {}", folders.join(", ")),
            Packages::Named(name) => format!("package {name}"),
        }
    }

    fn tests(&self, package: &Package) -> bool {
        match &self.packages {
            // The SDK and the plugins have their own suite, also if they become default members.
            Packages::Default => {
                package.is_default_member && !package.is_in(&["guest-sdk", "plugins", "tests"])
            }
            Packages::Folders(folders) => package.is_in(folders),
            Packages::Named(name) => package.name == *name,
        }
    }
}

/// The packages that no suite tests and that `UNTESTED` does not excuse.
pub(crate) fn forgotten(workspace: &Workspace) -> Vec<&Package> {
    let is_known = |package: &Package| {
        SUITES.iter().any(|suite| suite.tests(package))
            || UNTESTED.iter().any(|(folder, _)| package.is_in(&[folder]))
    };
    workspace.packages.iter().filter(|package| !is_known(package)).collect()
}

#[cfg(test)]
mod tests;
