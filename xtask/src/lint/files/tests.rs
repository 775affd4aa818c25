//! Each rule on a file that keeps it and one that breaks it.

use super::*;
use crate::lint::tree::tests::tree;

/// Runs `rule` on one file and returns its findings, one a line.
fn check(rule: fn(&Tree) -> Result<Vec<String>>, path: &str, text: &str) -> String {
    rule(&tree(&[(path, text)])).unwrap().join("\n")
}

#[test]
fn header_must_be_the_first_line() {
    assert_eq!(check(headers, "a.rs", "//! A.\nfn a() {}"), "");
    assert_eq!(check(headers, "a.toml", "x = 1"), "");
    for text in ["", "\n//! A.", "// A.", "#![forbid(unsafe_code)]\n//! A."] {
        assert_eq!(check(headers, "a.rs", text), "a.rs:1: does not open with a `//!` header", "{text:?}");
    }
}

#[test]
fn long_file_is_found() {
    assert_eq!(check(length, "a.rs", &"\n".repeat(700)), "");
    assert_eq!(check(length, "a.md", &"\n".repeat(701)), "");
    assert_eq!(check(length, "a.rs", &"\n".repeat(701)), "a.rs:701: 701 lines, at most 700");
}

#[test]
fn long_function_is_found() {
    let function = |lines: usize| format!("//! A.\nfn f() {{{}}}\n", "\n".repeat(lines - 1));
    assert_eq!(check(function_length, "a.rs", &function(70)), "");
    assert_eq!(
        check(function_length, "a.rs", &function(71)),
        "a.rs:2: function `f` has 71 lines, at most 70"
    );
}

#[test]
fn mod_rs_is_found() {
    assert_eq!(check(no_mod_rs, "a/src/b.rs", ""), "");
    assert!(check(no_mod_rs, "a/src/b/mod.rs", "").starts_with("a/src/b/mod.rs:1:"));
}

#[test]
fn allow_is_found_in_every_form() {
    let kept =
        "#[expect(dead_code, reason = \"allow(x)\")]\n#[serde(allow = 1)] // #[allow(x)]\nfn allow() {}";
    assert_eq!(check(no_allow, "a.rs", kept), "");
    for text in ["#[allow(x)]", "#![allow(x, y)]", "#[cfg_attr(test, allow(x))]", "# [ allow (x)]"] {
        assert!(check(no_allow, "a.rs", text).starts_with("a.rs:1:"), "{text}");
    }
}

#[test]
fn placeholders_and_switched_off_tests_are_found() {
    let kept = "// todo!()\nlet todo = \"unimplemented!()\"; #[arg(ignore_case)] fn ignore() {}";
    assert_eq!(check(no_unfinished, "a.rs", kept), "");
    for text in ["\ntodo!()", "\nunimplemented!(\"x\")", "\n#[ignore]", "\n#[ignore = \"slow\"]"] {
        assert!(check(no_unfinished, "a.rs", text).starts_with("a.rs:2:"), "{text}");
    }
    assert!(!check(no_unfinished, "a.rs", "#[cfg_attr(windows, ignore)]").is_empty());
}
