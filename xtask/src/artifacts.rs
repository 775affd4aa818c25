//! What cargo says that it has built: the messages of `--message-format=json`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A target of a package that is up to date now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// The package's id, as in `workspace::Package`.
    pub(crate) package: String,
    /// Everything that was built.
    pub(crate) files: Vec<PathBuf>,
    /// The one of them that can be started.
    pub(crate) executable: Option<PathBuf>,
    /// Whether it is a test program.
    pub(crate) is_test: bool,
}

/// A message, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

/// The artifacts in cargo's messages, in the order in which they were ready. Other lines are passed by.
pub(crate) fn artifacts(messages: &str) -> Result<Vec<Artifact>> {
    let mut built = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("cannot read cargo's build messages")?;
        let Message { reason, package_id, filenames, executable, profile } = message;
        if reason == "compiler-artifact" {
            let is_test = profile.test && executable.is_some();
            built.push(Artifact { package: package_id, files: filenames, executable, is_test });
        }
    }
    Ok(built)
}

#[cfg(test)]
mod tests;
