//! Signals to processes that this program started, and what the kernel says about them.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// What a process is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// Die at once.
    Kill,
    /// Stop: nothing of it runs until `Continue`.
    Stop,
    /// Go on.
    Continue,
    /// Please end.
    Terminate,
    /// Read your configuration again.
    Hangup,
}

/// Sends a signal.
///
/// # Errors
/// When the process is gone.
pub fn send(pid: u32, what: Send) -> Result<()> {
    let signal = match what {
        Send::Kill => Signal::KILL,
        Send::Stop => Signal::STOP,
        Send::Continue => Signal::CONT,
        Send::Terminate => Signal::TERM,
        Send::Hangup => Signal::HUP,
    };
    let raw = i32::try_from(pid).context("a process id is an i32")?;
    let pid = Pid::from_raw(raw).context("a process id is not 0")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {raw}"))
}

/// Whether every thread of the process is stopped.
///
/// # Errors
/// When the process is gone.
pub fn is_stopped(pid: u32) -> Result<bool> {
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    for task in tasks {
        let stat = std::fs::read_to_string(task?.path().join("stat"));
        // A thread that ended between the listing and the look is not running.
        if stat.is_ok_and(|stat| field(&stat, 0) != Some("T")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Processor time that the process has used, user and system.
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    let ticks = |at| field(&stat, at).and_then(|text| text.parse::<u64>().ok());
    let (user, system) = (ticks(11), ticks(12));
    let ticks = user.unwrap_or(0) + system.unwrap_or(0);
    // The kernel counts these in hundredths of a second on every platform that is supported.
    Ok(Duration::from_millis(ticks * 10))
}

/// A field of `/proc/PID/stat` after the name, which may hold anything: field 0 is the state.
fn field(stat: &str, at: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(at)
}
