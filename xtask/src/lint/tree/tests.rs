//! `tree` makes repositories for the tests of the checks.

use super::*;
use crate::workspace::tests::workspace;

/// A repository of these files and no packages.
pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
    Tree {
        workspace: workspace(Vec::new()),
        files: files.iter().map(|(path, text)| File::new(*path, *text)).collect(),
    }
}

#[test]
fn places_are_files_or_folders() {
    let file = File::new("core/src/input/policy.rs", "");
    assert!(file.is_at("core/src/input/"));
    assert!(file.is_at("core/src/input/policy.rs"));
    assert!(!file.is_at("core/src/input"));
    assert!(!file.is_test());
    assert!(File::new("core/src/input/tests.rs", "").is_test());
    assert!(File::new("tests/it/src/main.rs", "").is_test());
}

#[test]
fn new_files_are_seen_and_ignored_ones_are_not() {
    let root =
        Process::cargo(["locate-project", "--workspace", "--message-format", "plain"]).output().unwrap();
    let root = Path::new(root.trim()).parent().unwrap().to_owned();
    let files = files(&root).unwrap();
    assert!(files.iter().any(|file| file.path == "xtask/src/lint/tree.rs" && file.is_rust()));
    assert!(!files.iter().any(|file| file.path.starts_with("target/")));
}
