//! Who may mention what inside a crate, where manifests can't tell: pure machines, the HTTP API, the command line.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::lint::code::{Word, words};
use crate::lint::tree::{File, Tree};

/// The parts of core that decide and do nothing else, with what each decides. A folder ends with `/`.
///
/// A part that is not written yet matches no file; a new machine gets a line here.
const PURE: &[(&str, &str)] = &[
    ("core/src/id.rs", "names are values"),
    ("core/src/digest.rs", "digests are values"),
    ("core/src/limits.rs", "limits are constants"),
    ("core/src/retry.rs", "delays follow from the attempt; the caller waits"),
    ("core/src/input.rs", "which input is admitted"),
    ("core/src/input/", "which input is admitted"),
    ("core/src/receipt.rs", "the receipt chain"),
    ("core/src/lifecycle.rs", "which verb is legal in which state, and what it changes"),
    ("core/src/snapshot.rs", "the snapshot's envelope"),
    ("core/src/snapshot/", "the snapshot's envelope"),
    ("core/src/journal.rs", "the journal's entries"),
    ("core/src/output.rs", "what a turn sends"),
    ("core/src/operation.rs", "the states of an operation"),
    ("core/src/event.rs", "events are values"),
    ("core/src/spec.rs", "what an agent should be"),
    ("core/src/edge.rs", "who may send to whom"),
    ("core/src/lease/deadline.rs", "until when a holder acts by itself"),
    ("core/src/lease/fence.rs", "who may write, take and free"),
    ("core/src/lease/keeper.rs", "what keeps a session"),
    ("core/src/agent/turn.rs", "may a turn start, what does its failure mean"),
    ("core/src/store/rows.rs", "the portable form of rows"),
    ("core/src/migration.rs", "phases and failures"),
    ("host/src/runtime/verify.rs", "what a history must look like"),
    ("core/src/migration/handoff.rs", "where an agent is, and each step that moves it"),
    ("core/src/migration/recovery.rs", "what hosts make of rows, answers and time"),
    ("core/src/roster.rs", "who should exist"),
    ("core/src/reconcile.rs", "what to do about the difference"),
];

/// What a pure part may not mention. Tests beside it may.
const IMPURE: &[&str] = &[
    "async",
    "async_trait",
    "await",
    "tokio",
    "tokio_util",
    "futures",
    "Arc",
    "Mutex",
    "RwLock",
    "SystemTime",
    "Instant",
    "rand",
    "getrandom",
    "now_v7",
    "new_v4",
];

/// What a pure part may mention all the same, with the reason.
const PURE_EXCEPTIONS: &[(&str, &str, &str)] =
    &[("core/src/id.rs", "Arc", "an agent's id is immutable text that is cloned into every event")];

/// Where the HTTP API is, and what it may not mention.
const API: &[&str] = &["host/src/api.rs", "host/src/api/"];
const API_NEVER: &[&str] = &["godwit_store", "RuntimeStore"];

/// Where the command line is, which modules of the crate it may name, and which crates not.
const CLI: &[&str] = &["host/src/cli.rs", "host/src/cli/"];
/// `config` parses what an operator types, for flags and verbs alike.
const CLI_MODULES: &[&str] = &["cli", "client", "config"];
const CLI_NEVER: &[&str] = &["godwit_store", "godwit_engine", "godwit_mesh", "RuntimeStore"];
/// Verbs that do not talk to a running host.
const CLI_EXCEPTIONS: &[&str] = &[
    "host/src/cli/host.rs",   // serve, key, version: this program, not a running host
    "host/src/cli/verify.rs", // offline verify opens the store itself
];

/// Pure parts mention no tasks, locks, clocks or random sources.
pub(crate) fn pure(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test()) {
        let Some((_, decides)) = PURE.iter().find(|(place, _)| file.is_at(place)) else {
            continue;
        };
        let is_excepted =
            |word: &str| PURE_EXCEPTIONS.iter().any(|(place, name, _)| file.is_at(place) && *name == word);
        let what = |word: &str| format!("`{word}` in a pure part ({decides})");
        findings.extend(mentions(file, |word| IMPURE.contains(&word) && !is_excepted(word), what));
    }
    Ok(findings)
}

/// The HTTP API does not reach around `Runtime`.
pub(crate) fn api(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| is_in(file, API)) {
        let what = |word: &str| format!("`{word}` in the HTTP API: call `Runtime`");
        findings.extend(mentions(file, |word| API_NEVER.contains(&word), what));
    }
    Ok(findings)
}

/// The command line does nothing that the public HTTP API can't.
pub(crate) fn cli(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| is_in(file, CLI) && !is_in(file, CLI_EXCEPTIONS)) {
        let what = |word: &str| format!("`{word}` in the command line: go through the public HTTP API");
        findings.extend(mentions(file, |word| CLI_NEVER.contains(&word), what));
        for (line, module) in crate_modules(file) {
            if !CLI_MODULES.contains(&module) {
                findings.push(file.finding(line, what(&format!("crate::{module}"))));
            }
        }
    }
    Ok(findings)
}

fn is_in(file: &File, places: &[&str]) -> bool {
    places.iter().any(|place| file.is_at(place))
}

/// A finding for each word of the file's code that is `sought`, once a line.
fn mentions(file: &File, sought: impl Fn(&str) -> bool, what: impl Fn(&str) -> String) -> Vec<String> {
    let found: BTreeSet<(usize, &str)> =
        words(&file.code).filter(|word| sought(word.text)).map(|word| (word.line, word.text)).collect();
    found.into_iter().map(|(line, word)| file.finding(line, what(word))).collect()
}

/// The modules of its own crate that a file names as `crate::MODULE`, `crate::{MODULE, ..}` or, from the binary,
/// `godwit::MODULE`.
fn crate_modules(file: &File) -> Vec<(usize, &str)> {
    let roots = words(&file.code).filter(|word| matches!(word.text, "crate" | "godwit"));
    roots.flat_map(|root| first_segments(root).into_iter().map(move |module| (root.line, module))).collect()
}

/// The path segments right after `root::`.
fn first_segments(root: Word<'_>) -> Vec<&str> {
    let Some(path) = root.rest.trim_start().strip_prefix("::") else {
        return Vec::new();
    };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return words(path).next().map(|word| word.text).into_iter().collect();
    };
    // Split at the commas of this group; those of an inner group are one level down.
    let mut depth = 1_usize;
    let mut segments = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (depth == 1 && c == ',') || depth == 0 {
            segments.extend(words(&group[start..at]).next().map(|word| word.text));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    segments
}

#[cfg(test)]
mod tests;
