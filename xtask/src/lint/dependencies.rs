//! What may be in the dependency graph: licences and bans, by the rules in `deny.toml`.
//!
//! That file is cargo-deny's; of its sections `[licenses] allow` and `[bans] deny` are read here, so that there is one
//! list and checking it needs nothing but cargo.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::lint::spdx;
use crate::lint::tree::Tree;
use crate::workspace::Locked;

/// Where the rules are.
const RULES_FILE: &str = "deny.toml";

#[derive(Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// One version may be there, two may not. Else none may.
    #[serde(default)]
    deny_multiple_versions: bool,
    reason: String,
}

/// Every dependency is allowed by its licence.
pub(crate) fn licences(tree: &Tree) -> Result<Vec<String>> {
    Ok(unlicensed(&rules(tree)?.licenses.allow, &tree.workspace.locked_packages()?))
}

/// Nothing banned is there, and nothing twice that must not be.
pub(crate) fn bans(tree: &Tree) -> Result<Vec<String>> {
    Ok(banned(&rules(tree)?.bans.deny, &tree.workspace.locked_packages()?))
}

fn rules(tree: &Tree) -> Result<Rules> {
    let file = tree.files.iter().find(|file| file.path == RULES_FILE);
    let file = file.with_context(|| format!("{RULES_FILE} is missing"))?;
    toml::from_str(&file.text).with_context(|| format!("cannot read {RULES_FILE}"))
}

fn unlicensed(allowed: &[String], packages: &[Locked]) -> Vec<String> {
    let mut findings = Vec::new();
    for Locked { name, version, license, .. } in packages.iter().filter(|package| package.source.is_some()) {
        let problem = match license {
            None => Some("states no licence".to_owned()),
            Some(expression) => match spdx::is_allowed(expression, allowed) {
                Some(true) => None,
                Some(false) => Some(format!("`{expression}` is not met by what {RULES_FILE} allows")),
                None => Some(format!("`{expression}` is not a licence expression")),
            },
        };
        findings.extend(problem.map(|problem| format!("{name} {version}: {problem}")));
    }
    findings
}

fn banned(bans: &[Ban], packages: &[Locked]) -> Vec<String> {
    let mut findings = Vec::new();
    for Ban { name, deny_multiple_versions, reason } in bans {
        let same_name = packages.iter().filter(|package| package.name == *name);
        let versions: BTreeSet<&str> = same_name.map(|package| package.version.as_str()).collect();
        let versions_max = usize::from(*deny_multiple_versions);
        if versions.len() > versions_max {
            let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
            let asking = format!("`cargo tree -i {name}` shows who asks for it");
            findings.push(format!("{name} {versions}: at most {versions_max} allowed: {reason}; {asking}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
