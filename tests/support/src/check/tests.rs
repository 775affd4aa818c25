//! Each checker finds the mistake that it is there for, and nothing else.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::fate::{Answer, Fate};

/// A history of one init and `count` additions under keys `k-0-0` and up, all by client 0.
fn good(count: u64) -> (Vec<Operation>, History) {
    let digest = |revision: u64| format!("{revision:064}");
    let receipts = (1..=count + 1).map(|revision| Receipt {
        generation: 1,
        revision,
        kind: "turn".into(),
        token: 1,
        inputs: if revision == 1 { vec![] } else { vec![format!("i{}", revision - 1)] },
        digest: digest(revision),
        parent: digest(revision - 1),
    });
    let inputs = (1..=count).map(|seq| Input {
        id: format!("i{seq}"),
        seq,
        state: "consumed".into(),
        key: Some(format!("k-0-{}", seq - 1)),
        payload: PAYLOAD.into(),
        reply: Some(seq.to_string()),
        body: Value::Null,
    });
    let operations = (1..=count).map(|seq| Operation {
        client: 0,
        index: seq - 1,
        agent: "c".into(),
        key: format!("k-0-{}", seq - 1),
        payload: PAYLOAD.into(),
        fates: vec![Fate::Accepted(Answer {
            input_id: format!("i{seq}"),
            revision: Some(seq + 1),
            token: Some(1),
            end: End::Reply(seq.to_string().into_bytes()),
        })],
        took: Duration::ZERO,
    });
    let agent = Agent {
        state: "active".into(),
        home: "h".into(),
        host: None,
        token: 1,
        revision: count + 1,
        queue_depth: 0,
        last_receipt: digest(count + 1),
        body: Value::Null,
    };
    let history = History { agent, receipts: receipts.collect(), inputs: inputs.collect() };
    (operations.collect(), history)
}

fn all(operations: &[Operation], history: &History, count: u64) -> Vec<String> {
    let mut found = chain(history);
    found.extend(counter(operations, history, count));
    found
}

#[test]
fn a_good_history_has_no_violation() {
    let (operations, history) = good(5);
    assert_eq!(all(&operations, &history, 5), Vec::<String>::new());
}

#[test]
fn an_unknown_operation_may_have_run_or_not() {
    for ran in [false, true] {
        let (mut operations, history) = good(if ran { 6 } else { 5 });
        operations.truncate(5);
        operations.push(Operation {
            fates: vec![Fate::Unknown("timed out".into())],
            index: 5,
            key: "k-0-5".into(),
            ..operations[0].clone()
        });
        let count = history.inputs.len() as u64;
        assert_eq!(all(&operations, &history, count), Vec::<String>::new());
    }
}

#[test]
fn each_planted_mistake_is_found() {
    type Plant = fn(&mut Vec<Operation>, &mut History, &mut u64);
    let plants: [(&str, Plant); 13] = [
        ("lost from the state", |_, _, count| *count -= 1),
        ("run twice in the state", |_, _, count| *count += 1),
        ("lost from the inputs", |_, history, _| drop(history.inputs.remove(2))),
        ("still queued", |_, history, _| history.inputs[4].state = "queued".into()),
        ("a key in two inputs", |_, history, _| history.inputs[3].key = history.inputs[2].key.clone()),
        ("one position twice", |_, history, _| history.inputs[3].reply = Some("3".into())),
        ("another answer than stored", |operations, _, _| {
            if let Fate::Accepted(answer) = &mut operations[1].fates[0] {
                answer.end = End::Reply(b"77".to_vec());
            }
        }),
        ("out of order", |_, history, _| {
            let seq = history.inputs[2].seq;
            history.inputs[2].seq = history.inputs[3].seq;
            history.inputs[3].seq = seq;
        }),
        ("a missing receipt", |_, history, _| drop(history.receipts.remove(2))),
        ("another parent", |_, history, _| history.receipts[3].parent = "f".repeat(64)),
        ("a falling token", |_, history, _| history.receipts[2].token = 9),
        ("an input in two receipts", |_, history, _| {
            let inputs = history.receipts[2].inputs.clone();
            history.receipts[3].inputs.extend(inputs);
        }),
        ("a cut tail", |_, history, _| drop(history.receipts.pop())),
    ];
    for (what, plant) in plants {
        let (mut operations, mut history) = good(5);
        let mut count = 5;
        plant(&mut operations, &mut history, &mut count);
        assert!(!all(&operations, &history, count).is_empty(), "{what} was not found");
    }
}

#[test]
fn a_commit_under_an_old_token_is_found() {
    let (_, history) = good(5);
    let fresh = Sight { revision: 6, token: 2 };
    assert!(tokens(&history, &[fresh]).is_empty());
    let stale = Sight { revision: 4, token: 2 };
    assert_eq!(tokens(&history, &[stale]).len(), 2);
}
