//! What a host takes of memory, as Linux counts it for its process.

use anyhow::{Context, Result};

use crate::host::Host;

/// What a process had resident when this was taken; its highest mark is counted anew from there.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    pid: u32,
    before_kib: u64,
}

impl Mark {
    /// Marks a running host.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of(host: &Host) -> Result<Self> {
        let pid = host.pid()?;
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("counting memory anew")?;
        Ok(Self { pid, before_kib: kib(pid, "VmRSS:")? })
    }

    /// How far it has risen above that since, at most, in KiB.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn extra_kib(&self) -> Result<u64> {
        Ok(kib(self.pid, "VmHWM:")?.saturating_sub(self.before_kib))
    }
}

/// A figure of a process's status.
fn kib(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    Ok(line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?)
}
