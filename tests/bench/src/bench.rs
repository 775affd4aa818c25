//! What all figures share: where their data lies, how long they measure, the hosts and guests they use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use godwit_support::client::Client;
use godwit_support::host::{Host, HostOptions};
use godwit_support::random::Random;
use godwit_support::{binaries, signal};
use tempfile::TempDir;

/// Bytes of the state that the figures' agents have: small, as most are.
pub(crate) const STATE_BYTES: usize = 1 << 10;
/// With `--quick`, so many times fewer measurements.
const QUICK: u64 = 10;
/// Connections that set agents up at the same time.
const POPULATE_LANES: usize = 16;

/// How the figures are measured.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    /// On the disk that is measured.
    directory: PathBuf,
    is_quick: bool,
}

impl Bench {
    /// Figures with their data below `directory`, which is made.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn new(directory: &Path, is_quick: bool) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        Ok(Self { directory, is_quick })
    }

    /// Where the data lies.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many of `full` measurements to take.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        if self.is_quick { full.div_ceil(QUICK) } else { full }
    }

    /// A fresh directory, deleted when dropped.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn scratch(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.directory)?)
    }

    /// Starts a host of the release build with its data in `scratch`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub(crate) async fn host(&self, scratch: &Path, name: &str) -> Result<Host> {
        let options = HostOptions::new(&binaries::product()?, &scratch.join(name), name);
        options.start().await
    }
}

/// The file of a guest's component, from `plugins/` or `tests/guests/`.
///
/// # Errors
/// When it has not been built.
pub(crate) fn guest_file(name: &str) -> Result<PathBuf> {
    binaries::plugin(name).or_else(|_| binaries::test_guest(name))
}

/// The component of a guest.
///
/// # Errors
/// When it has not been built.
pub(crate) fn component(name: &str) -> Result<Vec<u8>> {
    Ok(std::fs::read(guest_file(name)?)?)
}

/// Creates agents, and asks each once when there is something to ask.
///
/// # Errors
/// When the host refuses one.
pub(crate) async fn populate(
    api: &Client,
    plugin: &str,
    agents: &[String],
    first: Option<&str>,
) -> Result<()> {
    let lanes = agents.chunks(agents.len().div_ceil(POPULATE_LANES).max(1));
    let work = lanes.map(|lane| async move {
        for agent in lane {
            api.create(agent, plugin).await?;
            if let Some(first) = first {
                api.reply(agent, first).await?;
            }
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(work).await?;
    Ok(())
}

/// Processor time that a host has used.
///
/// # Errors
/// When it does not run.
pub(crate) fn host_cpu(host: &mut Host) -> Result<Duration> {
    signal::cpu_time(host.process()?.pid())
}

/// The command that gives the guest `hostile` a state of `STATE_BYTES` that doesn't shrink to nothing when packed.
pub(crate) fn note() -> String {
    let mut random = Random::from_seed(1);
    let letters = (0..STATE_BYTES).map(|_| char::from(b'a' + (random.below(26) as u8)));
    format!("note {}", letters.collect::<String>())
}
