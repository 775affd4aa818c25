//! Signing, without a guest.

use std::sync::Arc;

use godwit_core::guest::{Answers, GuestRequest, TurnContext};
use godwit_core::identity::verify;

use super::*;
use crate::bindings::godwit::agent::identity::Host;
use crate::context::Phase;
use crate::testing::{Rows, request, turn};

fn key(number: u8) -> EntityKey {
    EntityKey::from_secret(&[number; 32])
}

fn context(entity_key: Option<EntityKey>, phase: Phase, answers: Answers) -> GuestContext {
    let rows = Rows { entity_key, ..Rows::default() };
    let turn = TurnContext { answers, ..turn(1) };
    let mut context =
        GuestContext::new(GuestRequest { state: Arc::new(rows), ..request(Default::default()) }, &turn);
    context.begin_call(phase, &turn);
    context
}

fn signed(context: &mut GuestContext, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
    context.sign(message.to_vec()).expect("no trap")
}

#[test]
fn signatures_are_those_of_the_agent() {
    for phase in [Phase::Init, Phase::Handle, Phase::Query] {
        let mut context = context(Some(key(1)), phase, Answers::Forget);
        let public = context.public_key().expect("no trap").expect("it has a key");
        assert_eq!(public, key(1).public().0);
        let signature = signed(&mut context, b"message").expect("it has a key");
        assert!(verify(&context.agent, key(1).public(), b"message", &signature));
    }
}

#[test]
fn nothing_is_signed_outside_of_turns_and_queries() {
    for phase in [Phase::Start, Phase::Snapshot, Phase::Restore] {
        let mut context = context(Some(key(1)), phase, Answers::Forget);
        assert!(matches!(signed(&mut context, b"message"), Err(IdentityError::NotInTurn)));
        assert!(matches!(context.public_key().expect("no trap"), Err(IdentityError::NotInTurn)));
        assert!(context.entity_key.is_none(), "the secret was not even read");
    }
}

#[test]
fn long_messages_and_agents_without_a_key_are_refused() {
    let mut whole = context(Some(key(1)), Phase::Handle, Answers::Forget);
    assert!(signed(&mut whole, &[0; SIGN_MESSAGE_BYTES_MAX]).is_ok());
    assert!(matches!(signed(&mut whole, &[0; SIGN_MESSAGE_BYTES_MAX + 1]), Err(IdentityError::TooLarge)));
    let mut none = context(None, Phase::Handle, Answers::Forget);
    assert!(matches!(signed(&mut none, b"message"), Err(IdentityError::NoKey)));
    assert!(matches!(none.public_key().expect("no trap"), Err(IdentityError::NoKey)));
}

/// An agent from an archive has another key than the one that its journal was written under.
#[test]
fn a_turn_that_runs_again_gets_the_signature_of_the_first_time() {
    let mut first = context(Some(key(1)), Phase::Handle, Answers::Record);
    let (public, signature) = (first.public_key().expect("no trap"), signed(&mut first, b"message"));
    let kept = first.call.tape.take().expect("little was kept");
    assert_eq!(kept.len(), 2);
    let mut again = context(Some(key(2)), Phase::Handle, Answers::Replay(kept.into()));
    assert_eq!(again.public_key().expect("no trap").ok(), public.ok());
    assert_eq!(signed(&mut again, b"message").ok(), signature.ok());
    assert!(again.sign(b"more".to_vec()).is_err(), "it did not sign this before");
    assert!(again.entity_key.is_none(), "no secret was read");
}
