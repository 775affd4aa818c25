//! How commands are printed, what children inherit, and what a failing one says.

use super::*;

#[test]
fn command_line_is_printed_as_typed() {
    let process = Process::new("/usr/bin/echo", ["a b", "c", ""]).variables(&[("GODWIT_X", "1 2".into())]);
    assert_eq!(process.line(), "GODWIT_X='1 2' echo 'a b' c ''");
}

#[test]
fn children_do_not_see_what_cargo_run_set_for_xtask() {
    // Under `cargo test` cargo sets these for this very process.
    assert!(env::var_os("CARGO_PKG_NAME").is_some());
    let seen = Process::new("env", [""; 0]).output().unwrap();
    assert!(!seen.contains("CARGO_PKG_"), "{seen}");
    assert!(!seen.contains("CARGO_MANIFEST_"), "{seen}");
}

#[test]
fn cargo_home_and_the_like_are_passed_on() {
    assert!(!is_set_by_cargo_run(OsStr::new("CARGO_HOME")));
    assert!(!is_set_by_cargo_run(OsStr::new("CARGO_TARGET_DIR")));
    assert!(is_set_by_cargo_run(OsStr::new("CARGO_PKG_VERSION")));
}

#[test]
fn failing_command_is_an_error_that_names_it() {
    let error = Process::new("false", ["--why"]).run().unwrap_err();
    assert!(format!("{error:#}").contains("`false --why` ended with"), "{error:#}");
    let error = Process::new("godwit-no-such-program", [""; 0]).run().unwrap_err();
    assert!(format!("{error:#}").contains("cannot start"), "{error:#}");
}
