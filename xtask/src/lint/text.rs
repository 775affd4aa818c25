//! Rules for every text file: no open marks, no paths of somebody's machine, no registries.
//!
//! The patterns are put together at compile time, so that this file keeps the rules itself.

use anyhow::Result;

use crate::lint::tree::{File, Tree};

/// Where a pattern counts.
#[derive(Clone, Copy)]
enum Edges {
    /// Only as a whole word.
    Word,
    /// Only at the start of a path or word: not after a letter, digit, `.`, `_` or `-`.
    Start,
    /// Anywhere.
    Any,
}

struct Pattern {
    text: &'static str,
    edges: Edges,
    what: &'static str,
}

const fn pattern(text: &'static str, edges: Edges, what: &'static str) -> Pattern {
    Pattern { text, edges, what }
}

const OPEN: &str = "an open mark: state the limit in the documentation instead";
const MACHINE: &str = "a path of somebody's machine";
const REGISTRY: &str = "a registry's host: which one is used is the machine's configuration";

const PATTERNS: &[Pattern] = &[
    pattern(concat!("TO", "DO"), Edges::Word, OPEN),
    pattern(concat!("FIX", "ME"), Edges::Word, OPEN),
    pattern(concat!("/ro", "ot/"), Edges::Start, MACHINE),
    pattern(concat!("/wo", "rk/"), Edges::Start, MACHINE),
    pattern(concat!("/ho", "me/"), Edges::Start, MACHINE),
    pattern(concat!("/Use", "rs/"), Edges::Start, MACHINE),
    pattern(concat!("crates", ".io"), Edges::Any, REGISTRY),
    pattern(concat!("registry.", "npmjs"), Edges::Any, REGISTRY),
    pattern(concat!("pypi", ".org"), Edges::Any, REGISTRY),
    pattern(concat!("proxy.", "golang"), Edges::Any, REGISTRY),
    pattern(concat!("replace", "-with"), Edges::Any, REGISTRY),
    pattern(concat!("[regi", "stries"), Edges::Any, REGISTRY),
];

/// Files that others wrote: lock files, and the interfaces that are copied verbatim.
const NOT_OURS: &[&str] = &["Cargo.lock", "wit/deps/"];

/// Runs the check.
pub(crate) fn check(tree: &Tree) -> Result<Vec<String>> {
    let ours = tree.files.iter().filter(|file| !NOT_OURS.iter().any(|place| file.is_at(place)));
    Ok(ours.flat_map(findings).collect())
}

fn findings(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    for (line, text) in file.text.lines().enumerate() {
        for Pattern { text: sought, what, .. } in PATTERNS.iter().filter(|pattern| pattern.is_in(text)) {
            findings.push(file.finding(line + 1, format!("`{sought}`: {what}")));
        }
    }
    findings
}

impl Pattern {
    fn is_in(&self, line: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let is_path = |c: char| is_word(c) || c == '.' || c == '-';
        line.match_indices(self.text).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + self.text.len()..].chars().next();
            match self.edges {
                Edges::Any => true,
                Edges::Start => !before.is_some_and(is_path),
                Edges::Word => !before.is_some_and(is_word) && !after.is_some_and(is_word),
            }
        })
    }
}

#[cfg(test)]
mod tests;
