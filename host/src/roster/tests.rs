//! What a roster says, and what is wrong with one.

use super::*;

fn id(text: &str) -> AgentId {
    text.parse().expect("an id")
}

const TOML: &str = r#"
[[agents]]
id = "b"
plugin = "counter@1"
labels = { team = "x" }
context = { region = "eu" }
instructions = ["be quick"]

[[agents]]
id = "a"
plugin = "ledger"
host = "left"
policy = "journal"

[[edges]]
between = ["b", "a"]

[[edges]]
between = ["a", "b"]
"#;

#[test]
fn toml_and_json_say_the_same() {
    let roster = Roster::from_toml(TOML).unwrap();
    assert_eq!(roster.agents.keys().map(AgentId::as_str).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(roster.agents[&id("a")].host.as_deref(), Some("left"));
    let patch = roster.agents[&id("b")].doc.patch().unwrap();
    assert_eq!(patch.context.as_deref(), Some(r#"{"region":"eu"}"#), "what is no text becomes JSON");
    assert_eq!(roster.edges.len(), 1, "an edge has no direction");
    let json = roster.to_json();
    assert_eq!(Roster::from_json(json.as_bytes()).unwrap(), roster);
    assert_eq!(Roster::from_json(json.as_bytes()).unwrap().to_json(), json);
}

#[test]
fn what_is_wrong_is_said_with_its_agent() {
    let reason = |text: &str| Roster::from_toml(text).unwrap_err().to_string();
    let twice = "[[agents]]\nid='a'\nplugin='p'\n[[agents]]\nid='a'\nplugin='q'";
    assert_eq!(Roster::from_toml(twice), Err(RosterError::Duplicate { agent: id("a") }));
    for (text, says) in [
        ("[[agents]]\nplugin='p'", "missing field `id`"),
        ("[[agents]]\nid='A'\nplugin='p'", "id"),
        ("[[agents]]\nid='a'", "agent a: missing field `plugin`"),
        ("[[agents]]\nid='a'\nplugin='p'\nplugn='q'", "agent a: unknown field `plugn`"),
        ("[[edges]]\nbetween=['a','a']", "an edge of agent a with itself"),
        ("[[edges]]\nbetween=['a']", "between"),
        ("agent = []", "unknown field `agent`"),
        ("[[agents]", "can't be read"),
    ] {
        assert!(reason(text).contains(says), "{text:?}: {}", reason(text));
    }
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.toml");
    let file = RosterFile::new(&path);
    assert!(matches!(file.roster().await, Err(RosterError::Unavailable { .. })), "it is not there yet");
    std::fs::write(&path, TOML).unwrap();
    file.changed().await;
    assert_eq!(file.roster().await.unwrap().agents.len(), 2);
    std::fs::write(&path, "").unwrap();
    file.changed().await;
    assert_eq!(file.roster().await.unwrap(), Roster::default());
}
