//! `cargo xtask bench`: builds host, guests and bench program in release and measures.

use anyhow::Result;

use crate::guests::{self, Which};
use crate::hosts;
use crate::process::Process;
use crate::workspace::Workspace;

/// The program that measures.
const PACKAGE: &str = "godwit-bench";

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to the bench program; `--help` after `--` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::load()?;
    workspace.package(PACKAGE)?;
    guests::build(&workspace, Which::All)?;
    let host = hosts::build_release(&workspace)?;
    // Built before it is run, so that no compiler shares the machine with the first measurement.
    Process::cargo(["build", "--release", "-p", PACKAGE]).directory(&workspace.root).run()?;
    Process::cargo(["run", "--release", "--quiet", "-p", PACKAGE, "--"])
        .arguments(&arguments.rest)
        .directory(&workspace.root)
        .variables(&hosts::bench_variables(&workspace, host))
        .run()
}
