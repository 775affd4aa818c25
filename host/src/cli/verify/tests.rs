//! Tests of what a verification says.

use serde_json::json;

use super::*;

#[test]
fn the_first_break_is_named() {
    let good = json!({"agent": "a", "breaks": []});
    let bad = json!({"agent": "b", "breaks": ["receipt 3 is damaged", "input 4 is missing"]});
    assert_eq!(first_break(&[]), None);
    assert_eq!(first_break(std::slice::from_ref(&good)), None);
    assert_eq!(
        first_break(&[good, bad]).as_deref(),
        Some("agent b: receipt 3 is damaged (and 1 more)")
    );
}
