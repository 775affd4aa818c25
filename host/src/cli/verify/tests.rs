//! Tests of what a verification says.

use serde_json::json;

use super::*;

#[test]
fn each_broken_agent_is_named_with_its_first_break() {
    let good = json!({"agent": "a", "breaks": []});
    let bad = json!({"agent": "b", "breaks": ["receipt 3 is damaged", "input 4 is missing"]});
    let worse = json!({"agent": "c", "breaks": ["the snapshot is missing"]});
    assert_eq!(broken_agents(&[]), None);
    assert_eq!(broken_agents(std::slice::from_ref(&good)), None);
    assert_eq!(
        broken_agents(&[good, bad, worse]).as_deref(),
        Some("agent b: receipt 3 is damaged (and 1 more)\nagent c: the snapshot is missing")
    );
}
