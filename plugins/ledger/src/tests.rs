//! Ledgers through the harness, alone and together.

use godwit_guest::testing::Harness;
use serde_json::{Value, json};

use super::*;

fn ask(ledger: &mut Harness<Ledger>, request: Value) -> Result<u64, String> {
    match ledger.ask(request.to_string()).outcome {
        godwit_guest::Outcome::Ok(body) => {
            let reply: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(reply.as_object().unwrap().len(), 1);
            Ok(reply["balance"].as_u64().unwrap())
        }
        godwit_guest::Outcome::Refused { code, .. } => Err(code),
        godwit_guest::Outcome::None => panic!("a ledger always answers"),
    }
}

fn ledger(id: &str) -> Harness<Ledger> {
    Harness::create(id, &[]).unwrap()
}

#[test]
fn deposits_add_up() {
    let mut here = ledger("here");
    assert_eq!(ask(&mut here, json!({"balance": null})), Ok(0));
    assert_eq!(ask(&mut here, json!({"deposit": 70})), Ok(70));
    assert_eq!(ask(&mut here, json!({"deposit": 30})), Ok(100));
    assert_eq!(ask(&mut here, json!({"balance": null})), Ok(100));
}

#[test]
fn a_transfer_moves_money_to_another_ledger() {
    let (mut here, mut there) = (ledger("here"), ledger("there"));
    ask(&mut here, json!({"deposit": 100})).unwrap();
    assert_eq!(ask(&mut here, json!({"transfer": {"to": "there", "amount": 30}})), Ok(70));
    let sent = here.take_sent();
    assert_eq!((sent.len(), sent[0].to.as_str()), (1, "there"));
    for output in sent {
        there.handle(output.into_input("here")).unwrap();
    }
    assert_eq!(ask(&mut there, json!({"balance": null})), Ok(30));
}

#[test]
fn a_transfer_that_cannot_be_made_changes_nothing() {
    let mut here = ledger("here");
    ask(&mut here, json!({"deposit": 10})).unwrap();
    let cases = [
        (json!({"transfer": {"to": "there", "amount": 11}}), Err("insufficient")),
        (json!({"transfer": {"to": "here", "amount": 11}}), Err("insufficient")),
        (json!({"transfer": {"to": "here", "amount": 10}}), Ok(10)),
        (json!({"transfer": {"to": "there", "amount": 0}}), Ok(10)),
        (json!({"transfer": {"to": "there", "amount": -1}}), Err("malformed")),
        (json!({"transfer": {"to": "there", "amount": 1.5}}), Err("malformed")),
        (json!({"transfer": {"to": "NOBODY", "amount": 1}}), Err("malformed")),
        (json!({"transfer": {"to": "there"}}), Err("malformed")),
    ];
    for (request, expected) in cases {
        assert_eq!(ask(&mut here, request.clone()), expected.map_err(String::from), "{request}");
        assert!(here.take_sent().is_empty(), "{request}");
    }
    assert_eq!(ask(&mut here, json!({"balance": null})), Ok(10));
}

#[test]
fn refuses_what_it_cannot_read() {
    let mut here = ledger("here");
    for request in
        [json!({"deposit": -1}), json!({"deposit": "1"}), json!({}), json!([1]), json!({"other": 1})]
    {
        assert_eq!(ask(&mut here, request.clone()), Err("malformed".into()), "{request}");
    }
    let two = json!({"deposit": 1, "balance": null});
    assert_eq!(ask(&mut here, two), Err("malformed".into()));
    assert_eq!(here.ask("not json"), Reply::refused("malformed"));
}

#[test]
fn credit_from_outside_is_forbidden() {
    let mut here = ledger("here");
    assert_eq!(ask(&mut here, json!({"credit": 5})), Err("forbidden".into()));
    assert_eq!(ask(&mut here, json!({"balance": null})), Ok(0));
}

#[test]
fn the_largest_amounts_add_up_and_pass_on() {
    let (mut here, mut there) = (ledger("here"), ledger("there"));
    let most = json!({"deposit": u64::MAX}).to_string();
    here.ask(&most);
    assert_eq!(here.ask_text(&most), format!("{{\"balance\":{}}}", u128::from(u64::MAX) * 2));
    there.ask(&most);
    here.ask(json!({"transfer": {"to": "there", "amount": u64::MAX}}).to_string());
    for output in here.take_sent() {
        there.handle(output.into_input("here")).unwrap();
    }
    let doubled = format!("{{\"balance\":{}}}", u128::from(u64::MAX) * 2);
    assert_eq!(there.ask_text(r#"{"balance": null}"#), doubled);
}

#[test]
fn money_is_conserved_over_many_transfers() {
    let mut ledgers: Vec<_> = (0..5).map(|index| ledger(&format!("l{index}"))).collect();
    for one in &mut ledgers {
        ask(one, json!({"deposit": 100})).unwrap();
    }
    for round in 0..500_usize {
        let (from, to, amount) = (round * 7 % 5, round * 11 % 5, round * 13 % 70);
        let request = json!({"transfer": {"to": format!("l{to}"), "amount": amount}});
        let _ = ask(&mut ledgers[from], request);
        for output in ledgers[from].take_sent() {
            ledgers[to].handle(output.into_input(&format!("l{from}"))).unwrap();
        }
    }
    let balances = ledgers.iter_mut().map(|one| ask(one, json!({"balance": null})).unwrap());
    assert_eq!(balances.sum::<u64>(), 500);
}
