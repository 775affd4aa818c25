//! The judge finds each planted mistake, and nothing in a good history.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::store_file::ReceiptBody;

const COUNT: u64 = 4;

/// A turn: key, sender, payload, reply.
type Turn<'a> = (Option<String>, Option<&'a str>, String, String);

fn id(agent: &str, seq: u64) -> String {
    let first = u64::from(agent.as_bytes()[0]);
    format!("{first:016x}{seq:016x}")
}

fn digest(revision: u64) -> [u8; 32] {
    [u8::try_from(revision).unwrap(); 32]
}

/// Rows and shown inputs of an agent with one turn for each (key, peer, payload, reply).
fn agent(id_of: &str, turns: &[Turn<'_>]) -> (AgentRows, Vec<Input>) {
    let receipt = |revision: u64| {
        let inputs = if revision == 1 { vec![] } else { vec![id(id_of, revision - 1)] };
        let kind = u64::from(revision > 1);
        let body = ReceiptBody {
            agent: id_of.into(),
            generation: 1,
            revision,
            kind,
            inputs,
            token: 1,
            host: [7; 32],
            incarnation: 3,
            has_state: false,
            parent: if revision == 1 { [0; 32] } else { digest(revision - 1) },
            has_from: false,
        };
        let (digest, computed) = (digest(revision), digest(revision));
        ReceiptRow { generation: 1, revision, kind, token: 1, incarnation: 3, digest, computed, body }
    };
    let last = turns.len() as u64 + 1;
    let row = |(seq, turn): (u64, &Turn<'_>)| InputRow {
        seq,
        state: CONSUMED,
        attempts: 0,
        revision: Some(seq + 1),
        id: id(id_of, seq),
        key: turn.0.clone(),
    };
    let shown = |(seq, turn): (u64, &Turn<'_>)| Input {
        id: id(id_of, seq),
        seq,
        state: "consumed".into(),
        key: turn.0.clone(),
        payload: turn.2.clone(),
        reply: Some(turn.3.clone()),
        body: json!({"source": {"agent": turn.1}, "reply": {"outcome": "ok", "body": turn.3}}),
    };
    let rows = AgentRows {
        generation: 1,
        revision: last,
        token: 1,
        head: digest(last),
        next_seq: last,
        receipts: (1..=last).map(receipt).collect(),
        inputs: (1..).zip(turns).map(row).collect(),
        ..AgentRows::default()
    };
    (rows, (1..).zip(turns).map(shown).collect())
}

/// A relay that was asked to send `add 1` up to `add 4` to a sink, which got them all.
fn good() -> Evidence {
    let forward = |number: u64| format!(r#"{{"to":"sink","payload":"add {number}"}}"#);
    let key = |number: u64| format!("k-{number}");
    let asked: Vec<_> = (1..=COUNT).map(|n| (Some(key(n)), None, forward(n), "ok".to_owned())).collect();
    let sums = (1..=COUNT).map(|n| n * (n + 1) / 2);
    let got: Vec<_> = (1..=COUNT)
        .zip(sums)
        .map(|(n, sum)| (None, Some("relay-0"), format!("add {n}"), sum.to_string()))
        .collect();
    let (mut relay, relay_shown) = agent("relay-0", &asked);
    let (mut sink, sink_shown) = agent("sink", &got);
    relay.destinations.insert(("sink".into(), 1), COUNT + 1);
    sink.receivers.insert("relay-0".into(), (1, 1, COUNT + 1));
    let operations = (1..=COUNT).map(|n| Operation {
        client: 0,
        index: n,
        agent: "relay-0".into(),
        key: key(n),
        payload: forward(n),
        fates: vec![Fate::Accepted(Answer {
            input_id: id("relay-0", n),
            revision: Some(n + 1),
            token: Some(1),
            end: End::Reply(b"ok".to_vec()),
        })],
        took: Duration::ZERO,
    });
    Evidence {
        files: vec![StoreFile {
            agents: BTreeMap::from([("relay-0".into(), relay), ("sink".into(), sink)]),
            living_sessions: 1,
        }],
        shown: BTreeMap::from([("relay-0".into(), relay_shown), ("sink".into(), sink_shown)]),
        operations: operations.collect(),
        created: BTreeSet::from(["relay-0".into()]),
        breakable: BTreeSet::new(),
        redriven: BTreeSet::new(),
        sights: vec![Sight { agent: "relay-0".into(), revision: 3, token: 1 }],
    }
}

fn rows<'a>(evidence: &'a mut Evidence, id: &str) -> &'a mut AgentRows {
    evidence.files[0].agents.get_mut(id).unwrap()
}

fn shown<'a>(evidence: &'a mut Evidence, id: &str) -> &'a mut Vec<Input> {
    evidence.shown.get_mut(id).unwrap()
}

fn answer(evidence: &mut Evidence) -> &mut Answer {
    match &mut evidence.operations[1].fates[0] {
        Fate::Accepted(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_history_has_no_violation() {
    assert_eq!(judge(&good()), Vec::<String>::new());
}

#[test]
fn what_a_client_does_not_know_may_have_happened_or_not() {
    let mut evidence = good();
    evidence.operations[3].fates = vec![Fate::Unknown("timed out".into())];
    let mut other = evidence.operations[3].clone();
    (other.index, other.key) = (9, "never".into());
    evidence.operations.push(other);
    assert_eq!(judge(&evidence), Vec::<String>::new());
}

#[test]
fn a_broken_agent_may_keep_its_inputs_waiting() {
    let mut evidence = good();
    let relay = rows(&mut evidence, "relay-0");
    relay.next_seq += 1;
    relay.open_inputs = 1;
    relay.inputs.push(InputRow {
        seq: COUNT + 1,
        state: 0,
        attempts: 0,
        revision: None,
        id: id("relay-0", COUNT + 1),
        key: None,
    });
    assert_eq!(judge(&evidence).len(), 1);
    evidence.breakable.insert("relay-0".into());
    assert_eq!(judge(&evidence), Vec::<String>::new());
}

/// As `good`, but the relay gave the last input up.
fn given_up() -> Evidence {
    let mut evidence = good();
    shown(&mut evidence, "sink").pop();
    let sink = rows(&mut evidence, "sink");
    sink.inputs.pop();
    sink.receipts.pop();
    (sink.revision, sink.head, sink.next_seq) = (COUNT, digest(COUNT), COUNT);
    sink.receivers.insert("relay-0".into(), (1, 1, COUNT));
    let relay = rows(&mut evidence, "relay-0");
    relay.destinations.insert(("sink".into(), 1), COUNT);
    (relay.receipts[4].kind, relay.receipts[4].body.kind) = (DEAD_LETTER, DEAD_LETTER);
    relay.inputs[3].state = DEAD_LETTERED;
    let problem = crate::fate::Problem { status: 422, code: "agent_error".into(), body: json!({}) };
    let Fate::Accepted(answer) = &mut evidence.operations[3].fates[0] else { panic!("it was accepted") };
    (answer.token, answer.end) = (None, End::AgentError(problem));
    evidence
}

#[test]
fn who_was_told_of_a_dead_letter_finds_one() {
    assert_eq!(judge(&given_up()), Vec::<String>::new());
    let problem = crate::fate::Problem { status: 500, code: "agent_fault".into(), body: json!({}) };
    for end in [End::AgentError(problem.clone()), End::AgentFault(problem)] {
        let mut evidence = good();
        answer(&mut evidence).end = end;
        let found = judge(&evidence);
        assert!(found.len() == 1 && found[0].contains("its dead letters are []"), "{found:?}");
    }
    let mut evidence = given_up();
    let Fate::Accepted(told) = &mut evidence.operations[3].fates[0] else { panic!("it was accepted") };
    told.revision = Some(4);
    let found = judge(&evidence);
    assert!(found.len() == 1 && found[0].contains("its dead letters are [5]"), "{found:?}");
}

#[test]
fn a_dead_letter_stays_one_unless_somebody_gave_it_another_chance() {
    const ABANDONED: u64 = 5;
    let mut evidence = given_up();
    rows(&mut evidence, "relay-0").inputs[3].state = ABANDONED;
    let found = judge(&evidence);
    assert!(found.len() == 1 && found[0].contains("given up for good"), "{found:?}");
    evidence.redriven.insert(id("relay-0", COUNT));
    assert_eq!(judge(&evidence), Vec::<String>::new());
}

type Plant = (&'static str, fn(&mut Evidence));

const PLANTS: &[Plant] = &[
    ("an agent that is gone", |e| drop(e.files[0].agents.remove("sink"))),
    ("an agent in two stores", |e| e.files.push(e.files[0].clone())),
    ("a created agent that is nowhere", |e| e.created.extend(["made-9".into()])),
    ("a lost input", |e| {
        rows(e, "relay-0").inputs.remove(1);
        shown(e, "relay-0").remove(1);
    }),
    ("an input that waits in silence", |e| {
        let relay = rows(e, "relay-0");
        (relay.inputs[3].state, relay.inputs[3].revision, relay.open_inputs) = (0, None, 1);
        relay.receipts.pop();
        (relay.revision, relay.head) = (4, digest(4));
    }),
    ("an output that waits in silence", |e| {
        (rows(e, "relay-0").outputs, rows(e, "relay-0").pending_outputs) = (1, 1);
    }),
    ("a state row that nobody counted", |e| rows(e, "relay-0").counted = [0, 1, 10]),
    ("a turn without its input's end", |e| rows(e, "relay-0").inputs[3].state = 0),
    ("an input in two receipts", |e| {
        let inputs = rows(e, "relay-0").receipts[2].body.inputs.clone();
        rows(e, "relay-0").receipts[3].body.inputs.extend(inputs);
    }),
    ("an input without receipt", |e| rows(e, "relay-0").receipts[2].body.inputs.clear()),
    ("a receipt that names what is not there", |e| {
        rows(e, "relay-0").receipts[0].body.inputs.push("0".repeat(32));
    }),
    ("a missing receipt", |e| drop(rows(e, "relay-0").receipts.remove(2))),
    ("another parent", |e| rows(e, "relay-0").receipts[2].body.parent = [9; 32]),
    ("bytes that are not those of the digest", |e| rows(e, "relay-0").receipts[2].computed = [9; 32]),
    ("a row that says otherwise than its bytes", |e| rows(e, "relay-0").receipts[2].body.revision = 9),
    ("a turn's inputs under another kind of receipt", |e| {
        let receipt = &mut rows(e, "relay-0").receipts[2];
        (receipt.kind, receipt.body.kind) = (3, 3);
    }),
    ("a repair that does not say what it took", |e| {
        let receipt = &mut rows(e, "relay-0").receipts[0];
        (receipt.kind, receipt.body.kind, receipt.body.has_state) = (4, 4, true);
    }),
    ("a falling token", |e| {
        let receipt = &mut rows(e, "relay-0").receipts[1];
        (receipt.token, receipt.body.token) = (5, 5);
    }),
    ("a token of two owners", |e| {
        let receipt = &mut rows(e, "relay-0").receipts[1];
        (receipt.incarnation, receipt.body.incarnation) = (5, 5);
    }),
    ("a commit of an owner that was succeeded", |e| {
        rows(e, "relay-0").token = 2;
        e.sights.push(Sight { agent: "relay-0".into(), revision: 3, token: 2 });
    }),
    ("a cut tail", |e| drop(rows(e, "relay-0").receipts.pop())),
    ("a row that is behind", |e| rows(e, "relay-0").revision -= 1),
    ("a row with an old token", |e| rows(e, "relay-0").token = 0),
    ("a gap between inputs", |e| rows(e, "relay-0").inputs[3].seq = 9),
    ("a counter of places that is behind", |e| rows(e, "relay-0").next_seq -= 1),
    ("a state that lost a turn", |e| {
        shown(e, "sink")[3].body =
            json!({"source": {"agent": "relay-0"}, "reply": {"outcome": "ok", "body": "6"}});
    }),
    ("a key that is two inputs", |e| {
        let mut again = answer(e).clone();
        again.input_id = id("relay-0", 3);
        e.operations[1].fates.push(Fate::Accepted(again));
    }),
    ("another input than was sent", |e| e.operations[1].payload = "other".into()),
    ("another answer than is stored", |e| answer(e).end = End::Reply(b"no".to_vec())),
    ("an answer of another revision", |e| answer(e).revision = Some(2)),
    ("an answer of another token", |e| answer(e).token = Some(2)),
    ("a refused input that is there", |e| {
        let body = json!({});
        let problem = crate::fate::Problem { status: 409, code: "conflict".into(), body };
        e.operations[1].fates = vec![Fate::Refused(problem)];
    }),
    ("a client's operations out of order", |e| {
        (e.operations[1].index, e.operations[2].index) = (e.operations[2].index, e.operations[1].index);
    }),
    ("an input that nobody sent", |e| drop(e.operations.remove(2))),
    ("a message that was lost", |e| {
        shown(e, "sink").remove(3);
        let sink = rows(e, "sink");
        sink.inputs.pop();
        sink.receipts.pop();
        (sink.revision, sink.head, sink.next_seq) = (4, digest(4), 4);
    }),
    ("messages out of order", |e| {
        let got = shown(e, "sink");
        (got[0].seq, got[1].seq) = (got[1].seq, got[0].seq);
    }),
    ("a message that nobody committed", |e| {
        shown(e, "relay-0")[3].payload = r#"{"to":"other","payload":"x"}"#.into();
        e.operations[3].payload = r#"{"to":"other","payload":"x"}"#.into();
    }),
    ("a receiver that has heard of more", |e| {
        rows(e, "sink").receivers.insert("relay-0".into(), (1, 1, COUNT + 2));
    }),
];

#[test]
fn each_planted_mistake_is_found() {
    for (what, plant) in PLANTS {
        let mut evidence = good();
        plant(&mut evidence);
        assert!(!judge(&evidence).is_empty(), "{what} was not found");
    }
}
