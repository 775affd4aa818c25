//! Which suites a command line names.

use super::*;

fn names(words: &[&str]) -> Result<Vec<&'static str>> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    Ok(chosen(&words)?.into_iter().map(|suite| suite.name).collect())
}

#[test]
fn no_name_means_all_in_order() {
    assert_eq!(
        names(&[]).unwrap(),
        ["unit", "sdk", "support", "model", "sim", "fuzz", "it", "crash", "cluster"]
    );
}

#[test]
fn named_suites_run_in_the_usual_order() {
    assert_eq!(names(&["cluster", "unit"]).unwrap(), ["unit", "cluster"]);
}

#[test]
fn unknown_suite_is_refused_with_those_there_are() {
    let error = names(&["unit", "units"]).unwrap_err().to_string();
    assert!(error.contains("no suite `units`") && error.contains("unit, sdk"), "{error}");
}
