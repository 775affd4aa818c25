//! The ready line is read as the interfaces say, and nothing else is.

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_ready_line_is_read() {
    let line = format!(
        "godwit ready name=a id={KEY} api=http://127.0.0.1:1 mesh=127.0.0.1:2 store=sqlite:/x/y.db?shared\n"
    );
    let ready = Ready::parse(&line).unwrap();
    assert_eq!(ready.name, "a");
    assert_eq!(ready.id, KEY);
    assert_eq!(ready.api.port(), 1);
    assert_eq!(ready.mesh.port(), 2);
    assert_eq!(ready.store_path(), PathBuf::from("/x/y.db"));
}

#[test]
fn other_lines_are_refused() {
    let no_api = format!("godwit ready name=a id={KEY} mesh=127.0.0.1:2 store=sqlite:/x");
    let bad_key = "godwit ready name=a id=AB api=http://127.0.0.1:1 mesh=127.0.0.1:2 store=sqlite:/x";
    for line in ["", "hello", no_api.as_str(), bad_key] {
        assert!(Ready::parse(line).is_err(), "{line}");
    }
}
