//! Rules for each Rust file on its own: header, lengths, attributes, nothing unfinished.

use anyhow::Result;

use crate::lint::code::{attributes, functions, words};
use crate::lint::tree::Tree;

/// A longer file holds more than one idea.
const FILE_LINES_MAX: usize = 700;
/// A longer function does not fit a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Every file says first what it is.
pub(crate) fn headers(tree: &Tree) -> Result<Vec<String>> {
    let without = tree.rust().filter(|file| !file.text.starts_with("//!"));
    Ok(without.map(|file| file.finding(1, "does not open with a `//!` header")).collect())
}

/// No file is too long.
pub(crate) fn length(tree: &Tree) -> Result<Vec<String>> {
    let lengths = tree.rust().map(|file| (file, file.text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > FILE_LINES_MAX);
    Ok(long
        .map(|(file, lines)| file.finding(lines, format!("{lines} lines, at most {FILE_LINES_MAX}")))
        .collect())
}

/// No function is too long.
pub(crate) fn function_length(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for function in functions(&file.code).iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            let (name, lines) = (function.name, function.lines);
            let what = format!("function `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}");
            findings.push(file.finding(function.line, what));
        }
    }
    Ok(findings)
}

/// A module `foo` with parts is `foo.rs` beside `foo/`.
pub(crate) fn no_mod_rs(tree: &Tree) -> Result<Vec<String>> {
    let named = tree.rust().filter(|file| file.path.ends_with("/mod.rs") || file.path == "mod.rs");
    Ok(named.map(|file| file.finding(1, "name it after its folder, beside the folder")).collect())
}

/// A lint that is switched off says why, and fails when it is no longer needed.
pub(crate) fn no_allow(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (line, attribute) in attributes(&file.code) {
            if words(attribute).any(|word| word.text == "allow" && word.rest.trim_start().starts_with('(')) {
                findings.push(file.finding(line, "`allow`: use `#[expect(lint, reason = \"..\")]`"));
            }
        }
    }
    Ok(findings)
}

/// No placeholder, and no test that is switched off.
pub(crate) fn no_unfinished(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for word in words(&file.code) {
            if matches!(word.text, "todo" | "unimplemented") && word.rest.starts_with('!') {
                findings.push(file.finding(word.line, format!("`{}!`", word.text)));
            }
        }
        for (line, attribute) in attributes(&file.code) {
            let mut names = words(attribute).map(|word| word.text);
            let switches_off = match names.next() {
                Some("ignore") => true,
                Some("cfg_attr") => names.any(|name| name == "ignore"),
                _ => false,
            };
            if switches_off {
                findings.push(file.finding(line, "`ignore`: assert what the code does today and explain it"));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests;
