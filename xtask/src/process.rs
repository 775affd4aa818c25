//! Sub-processes: one way to run them, so that each prints its command line and how long it took.
//!
//! Children get no stdin, and none of the variables that `cargo run` sets for xtask itself: build scripts that watch
//! `CARGO_PKG_*` (ring's does) would see them change between a plain `cargo build` and one started from here, and
//! rebuild half of the graph each time.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Variables that `cargo run` sets for the program it starts, besides those with one of `CARGO_RUN_PREFIXES`.
const CARGO_RUN_NAMES: &[&str] = &["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
const CARGO_RUN_PREFIXES: &[&str] = &["CARGO_PKG_", "CARGO_MANIFEST_"];

/// One command to run in the workspace's root, or where `directory` says.
pub(crate) struct Process {
    command: Command,
}

impl Process {
    /// A program with its arguments.
    pub(crate) fn new<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in env::vars_os().filter(|(name, _)| is_set_by_cargo_run(name)) {
            command.env_remove(name);
        }
        Self { command }
    }

    /// The cargo that runs xtask, with its arguments.
    pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
    }

    /// Adds arguments.
    pub(crate) fn arguments<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets the directory to run in.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Sets environment variables; they are part of what is printed.
    pub(crate) fn variables(mut self, variables: &[(&str, OsString)]) -> Self {
        self.command.envs(variables.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Runs the command with its output on ours.
    ///
    /// # Errors
    /// When it can't be started or does not exit with 0.
    pub(crate) fn run(mut self) -> Result<()> {
        let line = self.line();
        eprintln!("$ {line}");
        let began = Instant::now();
        let status = self.command.status().with_context(|| format!("cannot start `{line}`"))?;
        eprintln!("  ({:.1} s)", began.elapsed().as_secs_f64());
        if !status.success() {
            bail!("`{line}` ended with {status}");
        }
        Ok(())
    }

    /// Runs the command, prints its command line, and returns its standard output; standard error goes to ours.
    ///
    /// # Errors
    /// As `run`, and when the output is not UTF-8.
    pub(crate) fn run_for_output(self) -> Result<String> {
        eprintln!("$ {}", self.line());
        let began = Instant::now();
        let output = self.output();
        eprintln!("  ({:.1} s)", began.elapsed().as_secs_f64());
        output
    }

    /// Runs the command without printing it and returns its standard output: for questions, not for work.
    ///
    /// # Errors
    /// As `run`, and when the output is not UTF-8.
    pub(crate) fn output(mut self) -> Result<String> {
        let line = self.line();
        self.command.stderr(Stdio::inherit());
        let output = self.command.output().with_context(|| format!("cannot start `{line}`"))?;
        if !output.status.success() {
            bail!("`{line}` ended with {}", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is not UTF-8"))
    }

    /// Tells whether the command starts and exits with 0; prints nothing.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.command.status().is_ok_and(|status| status.success())
    }

    /// The command as one would type it in the workspace's root.
    fn line(&self) -> String {
        let set = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let variables = set.map(|(name, value)| format!("{}={}", name.display(), quoted(value)));
        // Cargo's full path says nothing that its name doesn't.
        let program = Path::new(self.command.get_program());
        let program = program.file_name().unwrap_or(program.as_os_str());
        let words = std::iter::once(program).chain(self.command.get_args()).map(quoted);
        variables.chain(words).collect::<Vec<_>>().join(" ")
    }
}

fn is_set_by_cargo_run(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        CARGO_RUN_NAMES.contains(&name) || CARGO_RUN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || "'\"$*?;&|<>()".contains(c)) {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests;
