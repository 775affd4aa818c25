//! The index through the harness, against a plain search over the same texts.

use godwit_guest::testing::Harness;
use serde_json::{Value, json};

use super::*;

fn put(index: &mut Harness<Index>, doc: &str, text: &str) -> u64 {
    let reply = index.ask_text(json!({"put": {"doc": doc, "text": text}}).to_string());
    let reply: Value = serde_json::from_str(&reply).unwrap();
    reply["docs"].as_u64().unwrap()
}

fn query(index: &mut Harness<Index>, words: &str) -> Vec<String> {
    let reply = index.ask_text(json!({"query": words}).to_string());
    let mut reply: Value = serde_json::from_str(&reply).unwrap();
    serde_json::from_value(reply["docs"].take()).unwrap()
}

#[test]
fn finds_documents_that_hold_all_words() {
    let mut index = Harness::<Index>::new();
    assert_eq!(put(&mut index, "b", "The quick, brown fox."), 1);
    assert_eq!(put(&mut index, "a", "A QUICK-witted fox2 and Äpfel"), 2);
    let cases: [(&str, &[&str]); 8] = [
        ("quick", &["a", "b"]),
        ("Fox quick", &["b"]),
        ("fox2", &["a"]),
        ("fo", &[]),
        ("äpfel", &["a"]),
        ("quick nowhere", &[]),
        ("", &["a", "b"]),
        (" -- ", &["a", "b"]),
    ];
    for (words, expected) in cases {
        assert_eq!(query(&mut index, words), expected, "{words:?}");
    }
}

#[test]
fn a_query_finds_what_a_turn_finds_and_puts_nothing() {
    let mut index = Harness::<Index>::new();
    put(&mut index, "a", "one two");
    let turn = index.ask(json!({"query": "two"}).to_string());
    assert_eq!(index.query(json!({"query": "two"}).to_string()), Ok(turn));
    let put = json!({"put": {"doc": "b", "text": "two"}}).to_string();
    assert_eq!(index.query(put), Ok(Reply::refused("read-only")));
    assert_eq!(index.query("{}"), Ok(Reply::refused("malformed")));
    assert_eq!(query(&mut index, "two"), ["a"]);
}

#[test]
fn a_document_put_again_is_replaced() {
    let mut index = Harness::<Index>::new();
    put(&mut index, "a", "one two");
    put(&mut index, "b", "two three");
    assert_eq!(put(&mut index, "a", "three four"), 2);
    assert_eq!(query(&mut index, "one"), [""; 0]);
    assert_eq!(query(&mut index, "two"), ["b"]);
    assert_eq!(query(&mut index, "three"), ["a", "b"]);
    assert!(!index.agent().words.contains_key("one"));
}

#[test]
fn refuses_what_it_cannot_read() {
    let mut index = Harness::<Index>::new();
    let requests = [
        json!({}),
        json!({"put": {"doc": "a"}}),
        json!({"put": {"doc": "a", "text": 1}}),
        json!({"query": ["a"]}),
        json!({"query": "a", "put": {"doc": "a", "text": ""}}),
    ];
    for request in requests {
        assert_eq!(index.ask(request.to_string()), Reply::refused("malformed"), "{request}");
    }
    assert_eq!(index.ask(b"\xff"), Reply::refused("malformed"));
}

#[test]
fn agrees_with_a_plain_search_over_many_documents() {
    let mut index = Harness::<Index>::new();
    let text = |n: usize| (0..40).map(|k| format!("w{} ", (n * 31 + k * k * 17) % 97)).collect::<String>();
    let texts: Map<String, String> = (0..300).map(|n| (format!("doc-{n:03}"), text(n))).collect();
    for (name, text) in &texts {
        put(&mut index, name, text);
    }
    for n in 0..97 {
        let wanted = [format!("w{n}"), format!("w{}", (n * 5 + 3) % 97)];
        let holds = |text: &str| wanted.iter().all(|word| text.split_whitespace().any(|held| held == word));
        let expected: Vec<String> =
            texts.iter().filter(|(_, text)| holds(text)).map(|(name, _)| name.clone()).collect();
        assert_eq!(query(&mut index, &wanted.join(" ")), expected, "{wanted:?}");
    }
}

#[test]
fn postings_hold_any_ascending_numbers() {
    let numbers = [1, 2, 127, 128, 255, 256, 16_511, 16_512, 1 << 35, u64::MAX];
    let mut postings = Postings::default();
    numbers.iter().for_each(|number| postings.push(*number));
    assert_eq!(postings.iter().collect::<Vec<_>>(), numbers);
    postings.remove(255);
    postings.remove(300);
    assert_eq!(postings.iter().count(), numbers.len() - 1);
    numbers.iter().for_each(|number| postings.remove(*number));
    assert!(postings.is_empty());
}
