//! The models do what the plugins' own documentation says.

use super::*;

fn given<'a>(peer: Option<&'a str>, payload: &'a str) -> Given<'a> {
    Given { agent: "own", peer, kind: "message", payload }
}

fn replies(kind: Kind, inputs: &[(Option<&str>, &str)]) -> Vec<Said> {
    let mut model = Model::new(kind);
    inputs.iter().map(|(peer, payload)| model.step(given(*peer, payload)).reply).collect()
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

#[test]
fn counters_count() {
    let said = replies(Kind::Counter, &[(None, "add 2"), (Some("p"), "add 3"), (None, "get"), (None, "x")]);
    assert_eq!(said, [text("2"), text("5"), text("5"), Said::Refused("malformed".into())]);
}

#[test]
fn ledgers_take_what_they_send_and_refuse_what_they_lack() {
    let mut model = Model::new(Kind::Ledger);
    assert_eq!(model.step(given(None, r#"{"deposit": 5}"#)).reply, text(r#"{"balance":5}"#));
    let step = model.step(given(None, r#"{"transfer": {"to": "other", "amount": 3}}"#));
    assert_eq!(step.reply, text(r#"{"balance":2}"#));
    assert_eq!(step.outputs, [("other".into(), r#"{"credit":3}"#.into())]);
    let step = model.step(given(None, r#"{"transfer": {"to": "other", "amount": 3}}"#));
    assert_eq!((step.reply, step.outputs), (Said::Refused("insufficient".into()), vec![]));
    assert_eq!(model.step(given(None, r#"{"credit":1}"#)).reply, Said::Refused("forbidden".into()));
    assert_eq!(model.step(given(Some("p"), r#"{"credit":1}"#)).reply, text(r#"{"balance":3}"#));
    assert_eq!(model.step(given(None, r#"{"balance": null}"#)).reply, text(r#"{"balance":3}"#));
    assert_eq!(model.step(given(None, "{}")).reply, Said::Refused("malformed".into()));
}

#[test]
fn relays_pass_on() {
    let step = Model::new(Kind::Relay).step(given(None, r#"{"to": "sink", "payload": "add 1"}"#));
    assert_eq!(step.outputs, [("sink".into(), "add 1".into())]);
}

#[test]
fn names_say_which_plugin() {
    assert_eq!(Kind::of("counter-1"), Some(Kind::Counter));
    assert_eq!(Kind::of("sink"), Some(Kind::Counter));
    assert_eq!(Kind::of("broken-1"), None);
}

#[test]
fn tickers_tick_no_more_often_than_they_were_told() {
    let mut model = Model::new(Kind::Ticker);
    let tick = Given { agent: "own", peer: None, kind: "timer", payload: "" };
    assert_eq!(model.step(given(None, "once 5")).reply, text("ok"));
    assert_eq!(model.step(tick).reply, Said::Nothing);
    assert_eq!(model.step(given(None, "get")).reply, text("1"));
    assert_ne!(model.step(tick).reply, Said::Nothing);
}
