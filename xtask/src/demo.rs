//! `cargo xtask demo`: builds guests and host, then runs the tour of package `godwit-demo`.

use anyhow::Result;

use crate::guests::{self, Which};
use crate::hosts;
use crate::process::Process;
use crate::workspace::Workspace;

/// The program that drives the hosts.
const PACKAGE: &str = "godwit-demo";

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    workspace.package(PACKAGE)?;
    eprintln!("demo, step 1 of 3: the agents, as WebAssembly components");
    guests::build(&workspace, Which::All)?;
    eprintln!(
        "demo, step 2 of 3: the host (the first time this compiles all dependencies, which takes minutes)"
    );
    hosts::build_product(&workspace)?;
    eprintln!("demo, step 3 of 3: the tour");
    Process::cargo(["build", "-p", PACKAGE]).directory(&workspace.root).run()?;
    Process::cargo(["run", "--quiet", "-p", PACKAGE])
        .directory(&workspace.root)
        .variables(&hosts::demo_variables(&workspace))
        .run()
}
