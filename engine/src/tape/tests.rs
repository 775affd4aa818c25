//! Recording and giving back, without a guest.

use godwit_core::guest::{GuestRequest, TurnContext};
use godwit_core::limits::{STATE_VALUE_BYTES_MAX, STATE_WRITES_MAX};

use super::*;
use crate::bindings::godwit::agent::outbox::Host as _;
use crate::bindings::godwit::agent::state::{Host as _, StateError};
use crate::bindings::godwit::agent::types::{PeerKind, SendOptions};
use crate::context::Phase;
use crate::testing::{Rows, request, turn};

fn context(rows: Rows, answers: Answers) -> GuestContext {
    let turn = TurnContext { answers, ..turn(1) };
    let mut context =
        GuestContext::new(GuestRequest { state: Arc::new(rows), ..request(Default::default()) }, &turn);
    context.begin_call(Phase::Handle, &turn);
    context
}

/// What each call of a scripted turn answers, in its debug form; a replay that diverges says so instead.
fn run(context: &mut GuestContext, script: &str) -> Vec<String> {
    let call = |context: &mut GuestContext, line: &str| {
        let (verb, key) = line.split_once(' ').unwrap_or((line, ""));
        let (key, value) = (key.to_owned(), b"written".to_vec());
        let options = SendOptions {
            kind: PeerKind::Message,
            content_type: String::new(),
            headers: Vec::new(),
            correlation: None,
            expects_reply: None,
        };
        match verb {
            "get" => context.get(key).map(|answer| format!("{answer:?}")),
            "set" => context.set(key, value).map(|answer| format!("{answer:?}")),
            "delete" => context.delete(key).map(|answer| format!("{answer:?}")),
            "list" => context.list_keys(key, None, 10).map(|answer| format!("{answer:?}")),
            "send" => context.send(key, value, options).map(|answer| format!("{answer:?}")),
            other => panic!("{other}"),
        }
    };
    let mut said: Vec<String> = script
        .split(", ")
        .map(|line| call(context, line).unwrap_or_else(|error| format!("diverged: {error}")))
        .collect();
    said.extend(context.call.tape.left_over().map(|what| format!("left over: {what}")));
    said
}

const SCRIPT: &str =
    "get a, set a, get a, get nothing, set , delete b, list , send x, send NOT AN ID, list zz";

fn recorded(script: &str) -> (Vec<String>, Vec<RecordedAnswer>) {
    let mut live = context(Rows::of(&["a", "b"]), Answers::Record);
    let said = run(&mut live, script);
    (said, live.call.tape.take().expect("recorded"))
}

fn replayed(script: &str, answers: &[RecordedAnswer]) -> Vec<String> {
    // Were it read, it would not answer.
    let broken = Rows { is_broken: true, ..Rows::default() };
    run(&mut context(broken, Answers::Replay(answers.into())), script)
}

#[test]
fn a_replay_gives_every_answer_again_and_reads_nothing() {
    let (said, answers) = recorded(SCRIPT);
    assert_eq!(replayed(SCRIPT, &answers), said);
    let calls: Vec<u32> = answers.iter().map(|answer| answer.call).collect();
    assert_eq!(calls, [0, 3, 4, 6, 8, 9], "what came from outside, and errors");
}

#[test]
fn a_replayed_turn_has_the_effects_of_the_first_run() {
    let (_, answers) = recorded(SCRIPT);
    let mut live = context(Rows::of(&["a", "b"]), Answers::Record);
    run(&mut live, SCRIPT);
    let mut again = context(Rows::default(), Answers::Replay(answers.into()));
    run(&mut again, SCRIPT);
    let finish = |context: &mut GuestContext| {
        let effects = std::mem::take(&mut context.effects);
        effects.finish(Vec::new(), Default::default()).expect("within limits").digest()
    };
    assert_eq!(finish(&mut live), finish(&mut again));
}

#[test]
fn calls_that_do_not_fit_the_tape_diverge() {
    let (_, answers) = recorded("get a, set a, list ");
    let cases = [
        ("set a, get a, list ", "another order"),
        ("get a, set a, get a, get b", "a read that was not made"),
        ("get a", "reads that are not made"),
        ("get a, set , list ", "an error that was none"),
        ("list , set a, list ", "an answer of another kind"),
    ];
    for (script, what) in cases {
        let said = replayed(script, &answers);
        let is_noticed = said.iter().any(|said| said.contains("diverged") || said.contains("left over"));
        assert!(is_noticed, "{what}: {said:?}");
    }
}

#[test]
fn errors_are_given_again_though_limits_would_now_allow_it() {
    let mut live = context(Rows::default(), Answers::Record);
    for number in 0..STATE_WRITES_MAX {
        live.set(format!("key {number}"), Vec::new()).unwrap().unwrap();
    }
    assert!(matches!(live.set("one more".into(), Vec::new()).unwrap(), Err(StateError::Quota)));
    let answers = live.call.tape.take().expect("recorded");
    assert_eq!(answers.len(), 1);
    let mut again = context(Rows::default(), Answers::Replay(answers.into()));
    again.call.tape.calls = STATE_WRITES_MAX as u32;
    assert!(matches!(again.set("one more".into(), Vec::new()).unwrap(), Err(StateError::Quota)));
}

#[test]
fn a_turn_that_reads_too_much_is_not_recorded() {
    let value = Bytes::from(vec![0; STATE_VALUE_BYTES_MAX]);
    let rows = Rows { rows: [("large".to_owned(), value)].into(), ..Rows::default() };
    let mut live = context(rows, Answers::Record);
    for _ in 0..=ANSWER_BYTES_MAX / STATE_VALUE_BYTES_MAX {
        live.get("large".into()).unwrap().unwrap();
    }
    assert_eq!(live.call.tape.take(), None);
}

#[test]
fn nothing_is_recorded_unasked() {
    let mut live = context(Rows::of(&["a"]), Answers::Forget);
    run(&mut live, "get a, set ");
    assert_eq!(live.call.tape.take(), None);
}
