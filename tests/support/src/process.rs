//! One `godwit serve` process: started, watched, signalled, ended. What it is for is in `host.rs`.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::ready::Ready;
use crate::signal::{self, Send};
use crate::wait::until;

/// Longest wait for the ready line: a start may recover migrations and rewrite a WAL.
const READY_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a signalled process.
const SIGNAL_MAX: Duration = Duration::from_secs(20);

/// A started process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a host, a program with its arguments, and waits for its ready line. Standard error is appended to `log`.
    ///
    /// # Errors
    /// When it can't be started or ends before it is ready; the message holds the end of its log.
    pub async fn start(
        command: &[OsString],
        variables: &[(String, String)],
        log: &Path,
    ) -> Result<(Self, Ready)> {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let (program, arguments) = command.split_first().context("a command has a program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("a process that was just started has an id")?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let process = Self { child, pid, log: log.to_path_buf() };
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY_MAX, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            return Err(process.unready(Path::new(program)).await);
        };
        let ready = Ready::parse(&line)?;
        // Whatever else it prints must not block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((process, ready))
    }

    /// Why a process that printed no ready line did not.
    async fn unready(mut self, program: &Path) -> anyhow::Error {
        let status = match tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            _ => "it still runs".to_owned(),
        };
        anyhow!("{} did not get ready: {status}\n{}", program.display(), self.log_end(20))
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as by `kill -9` and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&mut self) -> Result<()> {
        if self.is_running() {
            signal::send(self.pid, Send::Kill)?;
        }
        self.exit().await?;
        Ok(())
    }

    /// Asks it to end and waits until it has. Answers the exit code.
    ///
    /// # Errors
    /// When it does not end, or by a signal.
    pub async fn terminate(&mut self) -> Result<i32> {
        signal::send(self.pid, Send::Terminate)?;
        let status = self.exit().await?;
        status.code().context("it died of a signal")
    }

    /// Stops it, and waits until no thread of it runs.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn stop(&self) -> Result<()> {
        signal::send(self.pid, Send::Stop)?;
        self.stopped(SIGNAL_MAX).await
    }

    /// Waits until it is stopped, by whomever.
    ///
    /// # Errors
    /// When it is not in time, or gone.
    pub async fn stopped(&self, limit: Duration) -> Result<()> {
        let look = || async { Ok(signal::is_stopped(self.pid)?.then_some(())) };
        until("the process to stop", limit, look).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        signal::send(self.pid, Send::Continue)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn exit(&mut self) -> Result<ExitStatus> {
        match tokio::time::timeout(SIGNAL_MAX, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("process {} does not end:\n{}", self.pid, self.log_end(20)),
        }
    }

    /// The last lines of its log.
    pub fn log_end(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
