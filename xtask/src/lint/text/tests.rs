//! Planted texts are found, similar ones are not.

use super::*;
use crate::lint::tree::tests::tree;

fn check_line(path: &str, line: &str) -> Vec<String> {
    check(&tree(&[(path, &format!("first\n{line}\n"))])).unwrap()
}

#[test]
fn each_pattern_is_found_where_it_counts() {
    for Pattern { text, .. } in PATTERNS {
        let findings = check_line("docs/a.md", &format!("see {text} x"));
        assert_eq!(findings.len(), 1, "{text}");
        assert!(findings[0].starts_with(&format!("docs/a.md:2: `{text}`")), "{findings:?}");
    }
}

#[test]
fn similar_text_is_not_found() {
    let lines = [
        concat!("masTO", "DOnt and TO", "DO_LIST"),
        concat!("https://example.com/ho", "me/page"),
        concat!("target/wo", "rk/x and ../ro", "ot/y"),
        "todo lists are agents too",
    ];
    for line in lines {
        assert!(check_line("a.rs", line).is_empty(), "{line}");
    }
}

#[test]
fn files_of_others_are_left_alone() {
    for path in NOT_OURS {
        let path = if path.ends_with('/') { format!("{path}x.wit") } else { (*path).to_owned() };
        assert!(check_line(&path, concat!("crates", ".io TO", "DO")).is_empty(), "{path}");
    }
}
