//! Running the command line as a person would: arguments in; exit code and text out.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

/// Longest that a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// What a command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The output of a command that went well.
    ///
    /// # Errors
    /// When its exit code is not 0.
    pub fn ok(self) -> Result<Self> {
        self.expect_code(0)
    }

    /// The output of a command that ended with this exit code.
    ///
    /// # Errors
    /// When it ended with another.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.code != code {
            let Self { command, stdout, stderr, .. } = &self;
            bail!("`{command}` ended with exit code {}, not {code}\n{stdout}{stderr}", self.code);
        }
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("`{}` did not print JSON: {:?}", self.command, self.stdout))
    }
}

/// Runs `program` with arguments and nothing on standard input.
///
/// # Errors
/// When it can't be started or does not end.
pub async fn run(program: &Path, arguments: &[&str]) -> Result<Output> {
    let command = format!("godwit {}", arguments.join(" "));
    let running = Command::new(program)
        .args(arguments)
        .env_remove("GODWIT_URL")
        .env_remove("GODWIT_API_TOKEN")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(COMMAND_MAX, running).await {
        Ok(output) => output.with_context(|| format!("cannot run `{command}`"))?,
        Err(_) => bail!("`{command}` does not end"),
    };
    Ok(Output {
        command,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
