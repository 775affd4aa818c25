//! The checks that are cargo's own: format and clippy. Their output goes to the terminal as it comes.

use anyhow::{Result, bail};

use crate::lint::tree::Tree;
use crate::process::Process;

/// `cargo fmt` would change nothing.
pub(crate) fn format(tree: &Tree) -> Result<Vec<String>> {
    ensure_component("fmt", "rustfmt")?;
    // The names are enough: whoever reads this runs `cargo fmt`.
    let format = Process::cargo(["fmt", "--all", "--check", "--", "-l"]).directory(&tree.workspace.root);
    Ok(finding(format.run()))
}

/// Clippy has nothing to say about any code that compiles for this machine, tests included.
pub(crate) fn clippy(tree: &Tree) -> Result<Vec<String>> {
    ensure_component("clippy", "clippy")?;
    let packages = tree.workspace.native();
    let clippy = Process::cargo(["clippy", "--all-targets", "--keep-going"])
        .arguments(packages.flat_map(|package| ["-p", package.name.as_str()]))
        // Given to clippy, not as RUSTFLAGS: those would compile every dependency again.
        .arguments(["--", "-D", "warnings"])
        .directory(&tree.workspace.root);
    Ok(finding(clippy.run()))
}

fn finding(result: Result<()>) -> Vec<String> {
    result.err().map(|error| format!("{error:#}; see above")).into_iter().collect()
}

fn ensure_component(subcommand: &str, component: &str) -> Result<()> {
    if !Process::cargo([subcommand, "--version"]).succeeds() {
        bail!("`cargo {subcommand}` is missing: `rustup component add {component}`");
    }
    Ok(())
}
