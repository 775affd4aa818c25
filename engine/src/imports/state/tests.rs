//! The agent's rows, without a guest.

use std::sync::Arc;

use godwit_core::guest::GuestRequest;

use super::*;
use crate::bindings::godwit::agent::state::Host;
use crate::context::{GuestContext, Phase};
use crate::testing::{Rows, request, turn};

fn context(rows: Rows, phase: Phase) -> GuestContext {
    let request = GuestRequest { state: Arc::new(rows), ..request(Default::default()) };
    let mut context = GuestContext::new(request, &turn(1));
    context.begin_call(phase, &turn(1));
    context
}

fn list(context: &mut GuestContext, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    let listed = context.list_keys(prefix.into(), after.map(str::to_owned), limit);
    listed.expect("the store answers").expect("the prefix is valid")
}

fn set(context: &mut GuestContext, key: &str) {
    context.set(key.into(), b"written".to_vec()).expect("no trap").expect("set");
}

fn delete(context: &mut GuestContext, key: &str) {
    context.delete(key.into()).expect("no trap").expect("deleted");
}

#[test]
fn a_turn_reads_its_own_writes() {
    let mut context = context(Rows::of(&["a", "b"]), Phase::Handle);
    let get = |key: &str, context: &mut GuestContext| {
        let value = context.get(key.into()).expect("the store answers").expect("the key is valid");
        value.map(|value| String::from_utf8(value).expect("text"))
    };
    assert_eq!(get("a", &mut context).as_deref(), Some("committed a"));
    set(&mut context, "a");
    delete(&mut context, "b");
    assert_eq!(get("a", &mut context).as_deref(), Some("written"));
    assert_eq!(get("b", &mut context), None);
    assert_eq!(get("c", &mut context), None);
}

#[test]
fn a_listing_is_the_rows_under_the_writes() {
    let mut context = context(Rows::of(&["a1", "a2", "a3", "b1"]), Phase::Handle);
    set(&mut context, "a0");
    set(&mut context, "a25");
    set(&mut context, "b0");
    delete(&mut context, "a2");
    delete(&mut context, "zz");
    assert_eq!(list(&mut context, "a", None, 10), ["a0", "a1", "a25", "a3"]);
    assert_eq!(list(&mut context, "", None, 10), ["a0", "a1", "a25", "a3", "b0", "b1"]);
    assert_eq!(list(&mut context, "a", Some("a1"), 10), ["a25", "a3"]);
    assert_eq!(list(&mut context, "b", Some("a"), 10), ["b0", "b1"]);
    assert_eq!(list(&mut context, "a", None, 0), [""; 0]);
    assert_eq!(list(&mut context, "c", None, 10), [""; 0]);
}

/// Every prefix, start and limit over rows of which a third is removed and to which others are added.
#[test]
fn listings_page_without_gaps_or_repetitions() {
    let names: Vec<String> = (0..60).map(|number| format!("k{number:02}")).collect();
    let committed: Vec<&str> = names.iter().step_by(2).map(String::as_str).collect();
    let mut context = context(Rows::of(&committed), Phase::Handle);
    let mut expected: BTreeSet<String> = committed.iter().map(|key| key.to_string()).collect();
    for (index, name) in names.iter().enumerate() {
        match index % 3 {
            0 => {
                delete(&mut context, name);
                expected.remove(name);
            }
            1 if index % 5 == 0 => {
                set(&mut context, name);
                expected.insert(name.clone());
            }
            _ => {}
        }
    }
    for limit in 1..20 {
        let mut found = Vec::new();
        loop {
            let after = found.last().cloned();
            let page = list(&mut context, "k", after.as_deref(), limit);
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit as usize, "pages of {limit}");
            found.extend(page);
        }
        assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>(), "pages of {limit}");
    }
}

#[test]
fn keys_and_values_have_limits() {
    let mut context = context(Rows::default(), Phase::Handle);
    let longest = "k".repeat(STATE_KEY_BYTES_MAX);
    set(&mut context, &longest);
    for key in ["", "a\nb", "\u{7f}", &format!("{longest}k")] {
        let refused = context.set(key.into(), Vec::new()).expect("no trap");
        assert!(matches!(refused, Err(StateError::InvalidKey)), "{key:?}");
    }
    let refused = context.set("k".into(), vec![0; STATE_VALUE_BYTES_MAX + 1]).expect("no trap");
    assert!(matches!(refused, Err(StateError::TooLarge)));
}

#[test]
fn there_is_no_state_outside_turns() {
    for phase in [Phase::Start, Phase::Snapshot, Phase::Restore] {
        let mut context = context(Rows::of(&["a"]), phase);
        assert!(matches!(context.get("a".into()), Ok(Err(StateError::NotInTurn))));
        assert!(matches!(context.set("a".into(), Vec::new()), Ok(Err(StateError::NotInTurn))));
        assert!(matches!(context.delete("a".into()), Ok(Err(StateError::NotInTurn))));
        assert!(matches!(context.list_keys(String::new(), None, 1), Ok(Err(StateError::NotInTurn))));
    }
}

#[test]
fn a_store_that_does_not_answer_ends_the_call() {
    let rows = Rows { is_broken: true, ..Rows::default() };
    let mut context = context(rows, Phase::Handle);
    set(&mut context, "a");
    assert!(matches!(context.get("a".into()), Ok(Ok(Some(_)))), "its own writes need no store");
    let error = context.get("b".into()).expect_err("there is no answer");
    assert!(matches!(error.downcast_ref::<Stop>(), Some(Stop::StateRead(_))));
}
