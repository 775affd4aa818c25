//! Builds the host program and says where tests, demo and benches find it and the guests.
//!
//! In the dev profile there are two of it: the product, and one that carries failpoints (feature `test-util`). Both
//! are built in the same target directory, one after the other, and copied aside: only this workspace's crates differ
//! between them, so the dependencies are compiled once. (`test-util` must therefore not change a feature of a
//! dependency.) The product is built last, so that `target/debug/godwit` is left without failpoints.
//!
//! Cargo chooses the features of dependencies for the packages that it is asked for. So those packages are named here too
//! that ask most of them for the tests: then the tests find every dependency compiled.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::guests::install;
use crate::process::Process;
use crate::workspace::Workspace;

/// What the host's package and program are called.
pub(crate) const PACKAGE: &str = "godwit-host";
const PROGRAM: &str = "godwit";

/// Packages with which the dev profile's features are chosen; nothing of them is built here.
const BESIDE: [&str; 4] = ["-p", "godwit-model", "-p", "godwit-support"];

/// Tells test programs which host to start, which one has failpoints, and where the components are.
const HOST_VARIABLE: &str = "GODWIT_BIN";
const FAILPOINTS_VARIABLE: &str = "GODWIT_FAILPOINTS_BIN";
const GUESTS_VARIABLE: &str = "GODWIT_GUESTS";

/// The program that embeds a host, and what tells tests where it is.
const EXAMPLE: &str = "embed";
const EXAMPLE_VARIABLE: &str = "GODWIT_EMBED_BIN";

/// Builds the product in the dev profile.
pub(crate) fn build_product(workspace: &Workspace) -> Result<()> {
    eprintln!("building the host");
    build_dev(workspace, &[])?;
    install(&workspace.target.join("debug").join(PROGRAM), &product(workspace))
}

/// Builds the host with failpoints, and the example that embeds one (they cost it nothing while none is asked for), in the
/// dev profile. Leaves `target/debug/godwit` with failpoints: build the product next.
pub(crate) fn build_failpoints(workspace: &Workspace) -> Result<()> {
    eprintln!("building the host with failpoints, for the tests only");
    build_dev(workspace, &["--example", EXAMPLE, "--features", "godwit-host/test-util"])?;
    install(&workspace.target.join("debug").join("examples").join(EXAMPLE), &example(workspace))?;
    install(&workspace.target.join("debug").join(PROGRAM), &failpoints(workspace))
}

fn build_dev(workspace: &Workspace, more: &[&str]) -> Result<()> {
    let build = Process::cargo(["build", "-p", PACKAGE, "--bin", PROGRAM]).arguments(BESIDE).arguments(more);
    build.directory(&workspace.root).run()
}

/// Builds the product in release and returns where it is.
pub(crate) fn build_release(workspace: &Workspace) -> Result<PathBuf> {
    eprintln!("building the host for release");
    Process::cargo(["build", "--release", "-p", PACKAGE]).directory(&workspace.root).run()?;
    Ok(workspace.target.join("release").join(PROGRAM))
}

/// Where the demo finds the guests and the product.
pub(crate) fn demo_variables(workspace: &Workspace) -> Vec<(&'static str, OsString)> {
    let mut variables = guest_variables(workspace);
    variables.push((HOST_VARIABLE, product(workspace).into()));
    variables
}

/// Where the suites that start processes find the guests and both hosts.
pub(crate) fn suite_variables(workspace: &Workspace) -> Vec<(&'static str, OsString)> {
    let mut variables = demo_variables(workspace);
    variables.push((FAILPOINTS_VARIABLE, failpoints(workspace).into()));
    variables.push((EXAMPLE_VARIABLE, example(workspace).into()));
    variables
}

/// Where a suite finds the guests.
pub(crate) fn guest_variables(workspace: &Workspace) -> Vec<(&'static str, OsString)> {
    vec![(GUESTS_VARIABLE, workspace.guests().into())]
}

/// Where the benches find the guests and the release host.
pub(crate) fn bench_variables(workspace: &Workspace, host: PathBuf) -> Vec<(&'static str, OsString)> {
    let mut variables = guest_variables(workspace);
    variables.push((HOST_VARIABLE, host.into()));
    variables
}

fn product(workspace: &Workspace) -> PathBuf {
    workspace.target.join("test-bin").join(PROGRAM)
}

fn example(workspace: &Workspace) -> PathBuf {
    workspace.target.join("test-bin").join(EXAMPLE)
}

fn failpoints(workspace: &Workspace) -> PathBuf {
    workspace.target.join("test-bin").join("godwit-failpoints")
}
