//! `cargo xtask guests`: builds the components in one cargo invocation and copies each to `target/guests/NAME.wasm`.
//!
//! NAME is the folder's name. Plugins come from `plugins/`; with `--all` also the components that the tests use, from
//! `tests/guests/`, to `target/guests/test/NAME.wasm`. They are built in a target directory of their own, so that a
//! build of the hosts can go on at the same time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::artifacts::artifacts;
use crate::process::Process;
use crate::workspace::{Package, Workspace};

/// What the components are compiled to: a component, with nothing but cargo.
const TARGET: &str = "wasm32-wasip2";

/// Arguments of `cargo xtask guests`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also the components that the tests and the demo use
    #[arg(long)]
    all: bool,
}

/// Which components to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those of `plugins/`.
    Plugins,
    /// Also those of `tests/guests/`.
    All,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let which = if arguments.all { Which::All } else { Which::Plugins };
    build(&Workspace::load()?, which)
}

/// Builds the components; fails when there is none, since whoever asked needs them.
pub(crate) fn build(workspace: &Workspace, which: Which) -> Result<()> {
    let wanted = wanted(workspace, which);
    if wanted.is_empty() {
        bail!("no component in the workspace: no package below plugins/ has the crate type cdylib");
    }
    ensure_tools()?;
    let names = wanted.iter().map(|(package, _)| package.folder_name()).collect::<Vec<_>>().join(", ");
    eprintln!("building {} guests for {TARGET}: {names}", wanted.len());

    let packages = wanted.iter().flat_map(|(package, _)| ["-p", package.name.as_str()]);
    let messages = Process::cargo(["build", "--profile", "guest"])
        .arguments(packages)
        .arguments(["--target", TARGET, "--message-format=json-render-diagnostics", "--target-dir"])
        .arguments([workspace.target.join("guests-build")])
        .directory(&workspace.root)
        .run_for_output()?;

    let built = components(&messages)?;
    for (package, copy) in &wanted {
        let file =
            built.get(&package.id).with_context(|| format!("cargo built no .wasm for {}", package.name))?;
        install(file, copy)?;
    }
    eprintln!("guests are in {}", workspace.guests().display());
    Ok(())
}

/// The components to build, each with the file it is copied to.
fn wanted(workspace: &Workspace, which: Which) -> Vec<(&Package, PathBuf)> {
    let copy = |folder: &Path, package: &Package| folder.join(format!("{}.wasm", package.folder_name()));
    let guests = workspace.guests();
    let plugins = workspace.components_below("plugins").into_iter();
    let mut wanted: Vec<_> = plugins.map(|package| (package, copy(&guests, package))).collect();
    if which == Which::All {
        let tests = guests.join("test");
        let test_guests = workspace.components_below("tests/guests").into_iter();
        wanted.extend(test_guests.map(|package| (package, copy(&tests, package))));
    }
    wanted
}

/// The `.wasm` that each package built, by package id.
fn components(messages: &str) -> Result<HashMap<String, PathBuf>> {
    let is_wasm = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
    let built = artifacts(messages)?.into_iter();
    Ok(built.filter_map(|built| Some((built.package, built.files.into_iter().find(is_wasm)?))).collect())
}

/// Puts a copy of `from` at `to` at once: a program that has `to` open or runs it keeps what it has.
pub(crate) fn install(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().with_context(|| format!("{} has no folder", to.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let partial = to.with_added_extension("partial");
    fs::copy(from, &partial)
        .and_then(|_| fs::rename(&partial, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Checks for the C compiler and adds the target, each only if missing.
pub(crate) fn ensure_tools() -> Result<()> {
    if !Process::new("cc", ["--version"]).succeeds() {
        bail!(
            "no C compiler: `cc` is needed to link and to build SQLite. On Debian and Ubuntu: \
             apt-get install build-essential"
        );
    }
    // The standard library of a target is a folder of the toolchain; asking for it needs neither rustup nor network.
    let sysroot = Process::new("rustc", ["--print", "sysroot"]).output()?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(());
    }
    eprintln!("the toolchain lacks the target {TARGET}: adding it");
    Process::new("rustup", ["target", "add", TARGET]).run().with_context(|| {
        format!("cannot add the target {TARGET}; with a toolchain that is not rustup's, install its standard library")
    })
}

#[cfg(test)]
mod tests;
