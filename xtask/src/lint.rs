//! `cargo xtask lint`: the rules that a reviewer should not have to look for.
//!
//! Each check is one function from `Tree` (the repository's files and packages) to findings, one text each; no
//! findings: the check is ok. Checks that only read files take about a second, `--fast` runs those and the format.
//!
//! Clippy checks the dependencies' metadata in the shared target directory, about a sixth of the work of building them,
//! and shares their build scripts and procedural macros with the builds of `cargo xtask test`. Code for wasm only is
//! compiled by `cargo xtask guests`, not linted.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::lint::tree::Tree;
use crate::suites;

mod code;
mod dependencies;
mod files;
mod layers;
mod mentions;
mod spdx;
mod text;
mod tools;
mod tree;

/// Arguments of `cargo xtask lint`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The checks to run; all if none is named
    checks: Vec<String>,
    /// Leaves out what compiles (clippy)
    #[arg(long)]
    fast: bool,
}

/// One rule, or a few of a kind.
struct Check {
    name: &'static str,
    about: &'static str,
    compiles: bool,
    run: fn(&Tree) -> Result<Vec<String>>,
}

impl Check {
    const fn new(name: &'static str, about: &'static str, run: fn(&Tree) -> Result<Vec<String>>) -> Self {
        Self { name, about, compiles: false, run }
    }
}

const CHECKS: &[Check] = &[
    Check::new("format", "cargo fmt changes nothing", tools::format),
    Check::new("headers", "every .rs file opens with `//!`", files::headers),
    Check::new("file-length", "no .rs file over 700 lines", files::length),
    Check::new("function-length", "no function over 70 lines", files::function_length),
    Check::new("mod-rs", "`foo.rs` beside `foo/`, never `mod.rs`", files::no_mod_rs),
    Check::new("allow", "`#[expect(lint, reason)]`, never `#[allow]`", files::no_allow),
    Check::new("unfinished", "nothing left open, no test switched off", files::no_unfinished),
    Check::new("text", "no open marks, machine paths or registries", text::check),
    Check::new("layers", "crates depend downwards only", layers::check),
    Check::new("pure", "state machines know no IO, clock, lock or task", mentions::pure),
    Check::new("api", "HTTP calls Runtime, not the store", mentions::api),
    Check::new("cli", "verbs use the public HTTP API only", mentions::cli),
    Check::new("licences", "dependencies are permissively licensed", dependencies::licences),
    Check::new("bans", "one version of what must not be there twice", dependencies::bans),
    Check::new("suites", "every package is tested by some suite", tested),
    Check { compiles: true, ..Check::new("clippy", "no warning in any code or test", tools::clippy) },
];

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let checks = chosen(arguments)?;
    let tree = Tree::load()?;
    let mut failed = Vec::new();
    for check in checks {
        let began = Instant::now();
        let findings = (check.run)(&tree)?;
        let verdict = if findings.is_empty() { "ok" } else { "FAILED" };
        let (name, about, seconds) = (check.name, check.about, began.elapsed().as_secs_f64());
        println!("{name:<16} {verdict:<7} {seconds:>6.1} s  {about}");
        for finding in &findings {
            println!("    {finding}");
        }
        if !findings.is_empty() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Check>> {
    let named = &arguments.checks;
    if let Some(unknown) = named.iter().find(|name| !CHECKS.iter().any(|check| check.name == **name)) {
        let known: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        bail!("no check `{unknown}`; there are: {}", known.join(", "));
    }
    let is_chosen = |check: &&Check| {
        (named.is_empty() || named.iter().any(|name| name == check.name))
            && !(arguments.fast && check.compiles)
    };
    Ok(CHECKS.iter().filter(is_chosen).collect())
}

fn tested(tree: &Tree) -> Result<Vec<String>> {
    let finding = |package: &crate::workspace::Package| {
        format!("{}: package {} is in no suite; see xtask/src/suites.rs", package.folder, package.name)
    };
    Ok(suites::forgotten(&tree.workspace).into_iter().map(finding).collect())
}
