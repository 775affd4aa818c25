//! Each package has its suite, and one that has none is noticed.

use super::*;
use crate::workspace::tests::{package, workspace};

fn names(packages: Vec<&Package>) -> Vec<&str> {
    packages.into_iter().map(|package| package.name.as_str()).collect()
}

#[test]
fn packages_are_sorted_into_suites() {
    let workspace = workspace(vec![
        package("godwit-core", "core", &[]),
        package("godwit-guest", "guest-sdk", &[]),
        package("counter", "plugins/counter", &[]),
        package("godwit-it", "tests/it", &[]),
        package("guest-spin", "tests/guests/spin", &[]),
    ]);
    let of = |name: &str| {
        let suite = SUITES.iter().find(|suite| suite.name == name).unwrap();
        names(suite.packages(&workspace))
    };
    assert_eq!(of("unit"), ["godwit-core"]);
    assert_eq!(of("sdk"), ["godwit-guest", "counter"]);
    assert_eq!(of("it"), ["godwit-it"]);
    assert!(of("cluster").is_empty());
    assert!(forgotten(&workspace).is_empty());
}

#[test]
fn package_in_no_suite_is_noticed() {
    let workspace = workspace(vec![
        package("godwit-core", "core", &[]),
        package("godwit-new", "tests/new", &[]),
        package("godwit-bench", "tests/bench", &[]),
    ]);
    assert_eq!(names(forgotten(&workspace)), ["godwit-new"]);
}
