//! What is told of a statement.

use super::*;

#[test]
fn a_statement_is_its_verb_and_table() {
    assert_eq!(brief("SELECT a.key, b\n FROM agent a LEFT JOIN session s"), Some("SELECT agent".into()));
    assert_eq!(brief("INSERT INTO input (agent, seq) VALUES (1, 2)"), Some("INSERT input".into()));
    assert_eq!(brief("UPDATE agent SET revision = 1"), Some("UPDATE agent".into()));
    assert_eq!(brief("BEGIN IMMEDIATE"), Some("BEGIN".into()));
    assert_eq!(brief("-- DELETE FROM journal"), None, "a statement's own");
}
