//! `cargo xtask test [SUITE...]`: builds what the suites need, runs them in order, and ends with a table.
//!
//! The test programs of all suites are built by one cargo, and started from here: a cargo for each suite would choose the
//! features of dependencies for its packages alone, and compile half of them again. Doc tests are cargo's to run.
//!
//! A suite that only computes runs beside those that come after it, and leaves them the processor when they want it.
//!
//! A suite that fails does not stop the next one; the exit code tells. Which suites there are follows from the
//! packages in the workspace.

use std::ffi::OsString;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::artifacts::{Artifact, artifacts};
use crate::guests::{self, Which};
use crate::hosts;
use crate::process::Process;
use crate::suites::{SUITES, Suite};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The suites to run; all if none is named
    suites: Vec<String>,
    /// Only the tests whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// The verdict of a suite in which something failed.
const FAILED: &str = "FAILED";

/// One line of the table.
struct Row {
    name: &'static str,
    verdict: String,
    seconds: f64,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::load()?;
    let chosen = chosen(&arguments.suites)?;
    let (suites, absent): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|suite| !suite.packages(&workspace).is_empty());
    if let Some(suite) = absent.first()
        && !arguments.suites.is_empty()
    {
        bail!("cannot run suite {}: no {} in the workspace", suite.name, suite.looks_for());
    }

    let start = Instant::now();
    let mut rows = vec![set_up(&workspace, &suites)?];
    let began = Instant::now();
    let programs =
        if arguments.suites.is_empty() { build_all(&workspace) } else { build(&workspace, &suites) }?;
    rows.push(Row { name: "build", verdict: "ok".to_owned(), seconds: began.elapsed().as_secs_f64() });
    let run = |suite: &Suite| {
        eprintln!("\n=== {}: {}", suite.name, suite.about);
        let began = Instant::now();
        let result = run_suite(&workspace, suite, &programs, arguments.only.as_deref());
        let verdict = if result.is_ok() { "ok" } else { FAILED };
        if let Err(error) = result {
            eprintln!("{}: {error:#}", suite.name);
        }
        Row { name: suite.name, verdict: verdict.to_owned(), seconds: began.elapsed().as_secs_f64() }
    };
    std::thread::scope(|scope| {
        let mut beside = Vec::new();
        for suite in suites {
            if suite.is_patient {
                beside.push(scope.spawn(move || run(suite)));
            } else {
                rows.push(run(suite));
            }
        }
        rows.extend(beside.into_iter().map(|suite| suite.join().expect("a suite's failure is no panic")));
    });
    rows.extend(absent.into_iter().map(|suite| {
        let verdict = format!("not run: no {} in the workspace", suite.looks_for());
        Row { name: suite.name, verdict, seconds: 0.0 }
    }));
    print_table(&rows, start.elapsed().as_secs_f64());
    let failed: Vec<_> = rows.iter().filter(|row| row.verdict == FAILED).map(|row| row.name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The suites with these names, in the order of `SUITES`; all if there are no names.
fn chosen(names: &[String]) -> Result<Vec<&'static Suite>> {
    if let Some(unknown) = names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        let known: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        bail!("no suite `{unknown}`; there are: {}", known.join(", "));
    }
    let is_chosen = |suite: &&Suite| names.is_empty() || names.iter().any(|name| name == suite.name);
    Ok(SUITES.iter().filter(is_chosen).collect())
}

/// Builds the guests, and the two hosts if a suite starts processes.
fn set_up(workspace: &Workspace, suites: &[&Suite]) -> Result<Row> {
    eprintln!("=== set-up");
    let began = Instant::now();
    guests::build(workspace, Which::All)?;
    if suites.iter().any(|suite| suite.needs_hosts) {
        hosts::build_failpoints(workspace)?;
        hosts::build_product(workspace)?;
    }
    Ok(Row { name: "set-up", verdict: "ok".to_owned(), seconds: began.elapsed().as_secs_f64() })
}

/// Builds the test programs of these suites: libraries and programs with their unit tests, and integration tests.
fn build(workspace: &Workspace, suites: &[&Suite]) -> Result<Vec<Artifact>> {
    let packages = suites.iter().flat_map(|suite| suite.packages(workspace));
    build_tests(workspace, packages.flat_map(|package| ["-p", package.name.as_str()]).chain(["--tests"]))
}

/// Builds everything for this machine, also what no suite runs: it has to compile.
fn build_all(workspace: &Workspace) -> Result<Vec<Artifact>> {
    let packages = workspace.native();
    build_tests(
        workspace,
        packages.flat_map(|package| ["-p", package.name.as_str()]).chain(["--all-targets"]),
    )
}

fn build_tests<'a>(workspace: &Workspace, arguments: impl Iterator<Item = &'a str>) -> Result<Vec<Artifact>> {
    eprintln!("\n=== build: the test programs");
    let messages = Process::cargo(["test", "--no-run", "--message-format=json-render-diagnostics"])
        .arguments(arguments)
        .directory(&workspace.root)
        .run_for_output()?;
    Ok(artifacts(&messages)?.into_iter().filter(|artifact| artifact.is_test).collect())
}

/// Runs all programs of a suite: one's failure does not hide the next one's.
fn run_suite(workspace: &Workspace, suite: &Suite, programs: &[Artifact], only: Option<&str>) -> Result<()> {
    let mut variables =
        if suite.needs_hosts { hosts::suite_variables(workspace) } else { hosts::guest_variables(workspace) };
    let unset = suite.defaults().iter().filter(|(name, _)| std::env::var_os(name).is_none());
    variables.extend(unset.map(|(name, value)| (*name, OsString::from(value))));
    let mut failed = Vec::new();
    let mut ran = 0;
    for package in suite.packages(workspace) {
        let own = programs.iter().filter(|program| program.package == package.id);
        for program in own {
            let executable = program.executable.as_ref().context("a test program is a program")?;
            // Directory and variables as under cargo.
            let directory = workspace.root.join(&package.folder);
            let of_cargo = [
                ("CARGO_PKG_NAME", OsString::from(&package.name)),
                ("CARGO_MANIFEST_DIR", directory.clone().into()),
            ];
            let process = match suite.is_patient {
                true => Process::new("nice", ["-n", "19"]).arguments([executable]).arguments(only),
                false => Process::new(executable, only),
            };
            let process = process.directory(&directory);
            let run = process.variables(&of_cargo).variables(&variables).run();
            ran += 1;
            failed.extend(run.err().map(|error| error.to_string()));
        }
    }
    if suite.has_doc_tests {
        let packages = suite.packages(workspace);
        let documented = packages.iter().filter(|package| package.has_doc_tests);
        let run = Process::cargo(["test", "--doc"])
            .arguments(documented.flat_map(|package| ["-p", package.name.as_str()]))
            .arguments(only)
            .directory(&workspace.root)
            .variables(&variables)
            .run();
        failed.extend(run.err().map(|error| error.to_string()));
    }
    if ran == 0 {
        bail!("no test program of {}", suite.name);
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// `total` is less than all seconds together when suites run side by side.
fn print_table(rows: &[Row], total: f64) {
    eprintln!("\n{:<10} {:>8}  result", "suite", "seconds");
    for Row { name, verdict, seconds } in rows {
        eprintln!("{name:<10} {seconds:>8.1}  {verdict}");
    }
    eprintln!("{:<10} {total:>8.1}", "total");
}

#[cfg(test)]
mod tests;
