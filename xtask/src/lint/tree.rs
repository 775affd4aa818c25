//! `Tree`: what the checks look at: the repository's text files and the workspace's packages.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::lint::code::blanked;
use crate::process::Process;
use crate::workspace::Workspace;

/// The repository as the checks see it.
pub(crate) struct Tree {
    pub(crate) workspace: Workspace,
    /// Text files that git tracks or would track, in git's order.
    pub(crate) files: Vec<File>,
}

/// One text file.
pub(crate) struct File {
    /// Below the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Of a `.rs` file: the text with comments and literals blanked, line by line the same. Else empty.
    pub(crate) code: String,
}

impl Tree {
    /// Reads the workspace that the current directory is in.
    pub(crate) fn load() -> Result<Self> {
        let workspace = Workspace::load()?;
        let files = files(&workspace.root)?;
        Ok(Self { workspace, files })
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

impl File {
    /// A file with this content.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = if path.ends_with(".rs") { blanked(&text) } else { String::new() };
        Self { path, text, code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it holds tests only: `tests.rs`, or anything in a folder `tests`.
    pub(crate) fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Whether it is the file `place`, or below the folder `place` when that ends with `/`.
    pub(crate) fn is_at(&self, place: &str) -> bool {
        if place.ends_with('/') { self.path.starts_with(place) } else { self.path == place }
    }

    /// A finding in this file.
    pub(crate) fn finding(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// Every text file that git tracks, and those it neither tracks nor ignores: a check that sees a new file only after
/// `git add` comes too late.
fn files(root: &Path) -> Result<Vec<File>> {
    let listed = Process::new("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .directory(root)
        .output()?;
    let mut files = Vec::new();
    for path in listed.split_terminator('\0') {
        let full = root.join(path);
        // A tracked file that was just deleted is still listed; links and submodules are not files.
        if !full.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            files.push(File::new(path, text));
        }
    }
    Ok(files)
}

#[cfg(test)]
pub(crate) mod tests;
