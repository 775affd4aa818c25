//! A real component that signs.

use godwit_core::guest::Answers;
use godwit_core::identity::{EntityKey, EntityPublicKey, verify};

use super::*;

fn signer(test: &TestEngine, secret: u8) -> GuestRequest {
    let entity_key = Some(EntityKey::from_secret(&[secret; 32]));
    let state = Arc::new(Rows { entity_key, ..Rows::default() });
    GuestRequest { state, ..request(test.load("signer")) }
}

/// The two values of a reply to `sign`.
fn parts(reply: &str) -> (EntityPublicKey, Vec<u8>) {
    let values: Vec<_> = reply.split('"').collect();
    let (key, signature) = (values[3], values[7]);
    let bytes = (0..signature.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(&signature[at..at + 2], 16).expect("hex"));
    (key.parse().expect("a key"), bytes.collect())
}

#[test]
fn a_component_signs_in_turns_and_queries_and_never_sees_the_secret() {
    let test = TestEngine::new();
    let mut guest = test.start(signer(&test, 0xA7));
    let key = EntityKey::from_secret(&[0xA7; 32]).public();
    let said = ask(guest.as_mut(), "sign a text").expect("it signs");
    let (shown, signature) = parts(&said);
    assert_eq!(shown, key);
    assert!(verify(&request(Default::default()).agent, key, b"a text", &signature));
    let state = guest.snapshot(&turn(1)).expect("a snapshot");
    assert!(!state.windows(8).any(|window| window == [0xA7; 8]));

    let mut asked = test.engine.start(signer(&test, 0xA7)).expect("it is loaded");
    asked.restore(&turn(1), &state, "0.1.0").expect("a good state");
    let reply = asked.query(&turn(1), b"sign a text").expect("an answer");
    assert_eq!(reply.outcome, ReplyOutcome::Ok(said.into()));
}

#[test]
fn a_turn_of_a_component_runs_again_under_another_key() {
    let test = TestEngine::new();
    let mut first = test.start(signer(&test, 1));
    let recorded = TurnContext { answers: Answers::Record, ..turn(1) };
    let effects = first.handle(&recorded, &[message("sign a text")]).expect("it signs");
    let kept = effects.answers.clone().expect("little was kept");
    let mut again = test.start(signer(&test, 2));
    let replayed = TurnContext { answers: Answers::Replay(kept.into()), ..turn(1) };
    let repeated = again.handle(&replayed, &[message("sign a text")]).expect("it runs again");
    assert_eq!(repeated.digest(), effects.digest());
    // Without what was kept it would be another turn.
    let mut other = test.start(signer(&test, 2));
    let signed = other.handle(&recorded, &[message("sign a text")]).expect("it signs");
    assert_ne!(signed.digest(), effects.digest());
}

#[test]
fn without_a_key_the_component_is_told_so() {
    let test = TestEngine::new();
    let mut guest = test.start(request(test.load("signer")));
    assert_eq!(ask(guest.as_mut(), "sign a text").as_deref(), Ok("refused: no_key"));
    assert_eq!(ask(guest.as_mut(), "count").as_deref(), Ok("0"));
}
