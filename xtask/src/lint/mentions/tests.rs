//! Planted mentions are found; comments, strings, tests and excepted files are not.

use super::*;
use crate::lint::tree::tests::tree;

fn check(rule: fn(&Tree) -> Result<Vec<String>>, path: &str, text: &str) -> usize {
    rule(&tree(&[(path, text)])).unwrap().len()
}

#[test]
fn pure_part_may_not_mention_the_world() {
    for word in IMPURE {
        let text = format!("//! A.\nuse x::{word};");
        assert_eq!(check(pure, "core/src/retry.rs", &text), 1, "{word}");
        assert_eq!(check(pure, "core/src/input/policy.rs", &text), 1, "{word}");
        assert_eq!(check(pure, "core/src/agent/driver.rs", &text), 0, "{word}");
    }
}

#[test]
fn pure_part_may_talk_about_the_world() {
    let text = "//! No tokio.\n// Arc, Instant\nlet s = \"async\"; let instantaneous = Arcade;";
    assert_eq!(check(pure, "core/src/retry.rs", text), 0);
    assert_eq!(check(pure, "core/src/input/tests.rs", "use rand::Rng;"), 0);
    assert_eq!(check(pure, "core/src/id.rs", "use std::sync::Arc;"), 0);
    assert_eq!(check(pure, "core/src/id.rs", "use std::sync::Mutex;"), 1);
}

#[test]
fn api_may_not_mention_the_store() {
    assert_eq!(check(api, "host/src/api/agents.rs", "use crate::runtime::Runtime;"), 0);
    assert_eq!(check(api, "host/src/api/agents.rs", "use godwit_store::Sqlite;"), 1);
    assert_eq!(check(api, "host/src/api.rs", "fn f(store: &dyn RuntimeStore) {}"), 1);
    assert_eq!(check(api, "host/src/runtime.rs", "use godwit_store::Sqlite;"), 0);
}

#[test]
fn cli_may_name_only_the_client() {
    let kept = [
        "use crate::cli::client::Client;",
        "use crate::{cli::table, client};",
        "pub(crate) fn f() {}",
        "use godwit_core::AgentId;",
    ];
    for text in kept {
        assert_eq!(check(cli, "host/src/cli/agent.rs", text), 0, "{text}");
    }
    let broken = [
        "use crate::runtime::Runtime;",
        "use crate::{cli::{a, b}, runtime};",
        "fn f() { godwit::runtime::start() }",
        "use godwit_store::Sqlite;",
    ];
    for text in broken {
        assert_eq!(check(cli, "host/src/cli/agent.rs", text), 1, "{text}");
        assert_eq!(check(cli, "host/src/cli.rs", text), 1, "{text}");
        assert_eq!(check(cli, "host/src/cli/host.rs", text), 0, "{text}");
    }
}

#[test]
fn every_entry_of_the_tables_can_match() {
    for (place, _) in PURE {
        assert!(
            (place.starts_with("core/src/") || place.starts_with("host/src/runtime/"))
                && (place.ends_with(".rs") || place.ends_with('/')),
            "{place}"
        );
    }
    for (place, word, _) in PURE_EXCEPTIONS {
        assert!(PURE.iter().any(|(pure, _)| pure == place) && IMPURE.contains(word), "{place} {word}");
    }
}
