//! What `cargo metadata` says: the workspace's packages (`Workspace`) and the whole graph (`Graph`).
//!
//! Verbs decide from this what exists, never from a list of their own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::Process;

/// The workspace's own packages and where things are.
pub(crate) struct Workspace {
    /// The directory of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds; `target` below the root unless configured otherwise.
    pub(crate) target: PathBuf,
    /// Every member, in the order of the metadata.
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// Cargo's id, as it stands in the messages of a build.
    pub(crate) id: String,
    /// The package's name.
    pub(crate) name: String,
    /// Its folder below the root, with `/` between the parts: `plugins/counter`.
    pub(crate) folder: String,
    /// Whether it builds a `cdylib`: a component.
    pub(crate) is_component: bool,
    /// Whether it has a library whose documented examples can be run.
    pub(crate) has_doc_tests: bool,
    /// Whether plain `cargo test` in the root includes it.
    pub(crate) is_default_member: bool,
    /// The packages it names as dependencies, of every kind.
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as written in a manifest.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    /// The package's name, also where the manifest renames it.
    pub(crate) name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// One package of the whole dependency graph.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Locked {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SPDX expression.
    pub(crate) license: Option<String>,
    /// `None` for packages in this repository.
    pub(crate) source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_default_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    id: String,
    name: String,
    manifest_path: PathBuf,
    targets: Vec<MetadataTarget>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct MetadataTarget {
    crate_types: Vec<String>,
    doctest: bool,
}

#[derive(Deserialize)]
struct Graph {
    packages: Vec<Locked>,
}

impl Workspace {
    /// Asks cargo about the workspace that the current directory is in.
    pub(crate) fn load() -> Result<Self> {
        let text = Process::cargo(["metadata", "--format-version", "1", "--no-deps"]).output()?;
        let metadata: Metadata =
            serde_json::from_str(&text).context("cannot read what `cargo metadata` printed")?;
        Self::from_metadata(metadata)
    }

    fn from_metadata(metadata: Metadata) -> Result<Self> {
        let root = metadata.workspace_root;
        let mut packages = Vec::with_capacity(metadata.packages.len());
        for package in metadata.packages {
            let folder = package.manifest_path.parent().unwrap_or(&root);
            let folder = folder
                .strip_prefix(&root)
                .with_context(|| format!("package {} is outside the workspace's root", package.name))?;
            packages.push(Package {
                folder: slashed(folder),
                is_component: package.targets.iter().any(|t| t.crate_types.iter().any(|c| c == "cdylib")),
                has_doc_tests: package.targets.iter().any(|target| target.doctest),
                is_default_member: metadata.workspace_default_members.contains(&package.id),
                id: package.id,
                name: package.name,
                dependencies: package.dependencies,
            });
        }
        Ok(Self { root, target: metadata.target_directory, packages })
    }

    /// The package of this name.
    ///
    /// # Errors
    /// When the workspace has none.
    pub(crate) fn package(&self, name: &str) -> Result<&Package> {
        let package = self.packages.iter().find(|package| package.name == name);
        package.with_context(|| format!("no package {name} in the workspace"))
    }

    /// The components below `folder`, such as `plugins`.
    pub(crate) fn components_below(&self, folder: &str) -> Vec<&Package> {
        self.packages.iter().filter(|package| package.is_component && package.is_below(folder)).collect()
    }

    /// The packages that compile for this machine: what misbehaves on purpose exists for wasm only.
    pub(crate) fn native(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| !package.is_below("tests/guests"))
    }

    /// Where the built components are: `NAME.wasm`, and `test/NAME.wasm` for those of the tests.
    pub(crate) fn guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// Every package that a build for this machine uses, with licences and versions.
    ///
    /// Other platforms' packages are left out: they would have to be downloaded first.
    pub(crate) fn locked_packages(&self) -> Result<Vec<Locked>> {
        let version = Process::new("rustc", ["-vV"]).output()?;
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("`rustc -vV` names no host")?;
        let text = Process::cargo(["metadata", "--format-version", "1", "--filter-platform", host])
            .directory(&self.root)
            .output()?;
        let graph: Graph =
            serde_json::from_str(&text).context("cannot read what `cargo metadata` printed")?;
        Ok(graph.packages)
    }
}

impl Package {
    /// Whether the package is one of these folders or below one.
    pub(crate) fn is_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.folder == *folder || self.is_below(folder))
    }

    /// Whether the package's folder is somewhere below `folder`.
    pub(crate) fn is_below(&self, folder: &str) -> bool {
        self.folder.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The last part of its folder: what a component is called.
    pub(crate) fn folder_name(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(&self.folder)
    }
}

/// A relative path with `/` between the parts.
pub(crate) fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
pub(crate) mod tests;
