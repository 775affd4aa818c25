//! Signatures and what they cover.

use super::*;
use crate::id::HostId;

fn agent(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

fn key(number: u8) -> EntityKey {
    EntityKey::from_secret(&[number; 32])
}

#[test]
fn a_signature_is_of_one_agent_key_and_message() {
    let signature = key(1).sign(&agent("alice"), b"pay 5");
    assert_eq!(signature, key(1).sign(&agent("alice"), b"pay 5"), "the same once more");
    assert!(verify(&agent("alice"), key(1).public(), b"pay 5", &signature));
    assert!(!verify(&agent("alice"), key(1).public(), b"pay 6", &signature));
    assert!(!verify(&agent("bob"), key(1).public(), b"pay 5", &signature));
    assert!(!verify(&agent("alice"), key(2).public(), b"pay 5", &signature));
    assert!(!verify(&agent("alice"), key(1).public(), b"pay 5", &signature[..63]));
    let mut damaged = signature;
    damaged[0] ^= 1;
    assert!(!verify(&agent("alice"), key(1).public(), b"pay 5", &damaged));
}

/// A stranger verifies from these words: another order of the parts would break every signature that was ever given.
#[test]
fn what_is_signed_is_what_the_contract_says() {
    let message = b"hello";
    assert_eq!(signed_bytes(&agent("a-1"), message), b"godwit agent signature v1\0a-1\0hello");
    let public = VerifyingKey::from_bytes(&key(7).public().0).unwrap();
    let signature = Signature::from_bytes(&key(7).sign(&agent("a-1"), message));
    public.verify_strict(b"godwit agent signature v1\0a-1\0hello", &signature).unwrap();
}

/// A point of order 8 as a key makes one signature fit many messages.
#[test]
fn a_weak_key_has_signed_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let signature = [identity, [0; 32]].concat();
    assert!(!verify(&agent("alice"), EntityPublicKey(identity), b"anything", &signature));
}

#[test]
fn the_secret_is_not_shown() {
    let whole = EntityKeyRow::Whole(key(3));
    let shown = format!("{whole:?}");
    assert!(!shown.contains(&Digest([3; 32]).to_string()), "{shown}");
    assert!(!shown.contains("3, 3, 3"), "{shown}");
    assert!(shown.contains(&key(3).public().to_string()), "{shown}");
}

#[test]
fn rows_keep_what_they_carry() {
    for row in [EntityKeyRow::Whole(key(4)), EntityKeyRow::Whole(key(4)).without_secret()] {
        let bytes = postcard::to_stdvec(&row).unwrap();
        let back: EntityKeyRow = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, row);
        let has_secret = bytes.windows(32).any(|window| window == [4; 32]);
        assert_eq!(has_secret, row.key().is_some());
    }
}

#[test]
fn public_keys_are_texts() {
    let public = key(5).public();
    assert_eq!(public.to_string().parse::<EntityPublicKey>().unwrap(), public);
    assert!("5".repeat(63).parse::<EntityPublicKey>().is_err());
    assert_ne!(public.origin_hash(), key(6).public().origin_hash());
}

#[test]
fn a_statement_is_of_one_key_agent_grant_and_host() {
    let (generation, token, host) = (Generation(2), FencingToken(3), HostId([4; 32]));
    let stated = SignedStatement::new(&key(1), Statement { agent: agent("alice"), generation, token, host });
    assert!(stated.is_sound());
    let of = |change: fn(&mut SignedStatement)| {
        let mut changed = stated.clone();
        change(&mut changed);
        assert_ne!(changed, stated);
        changed.is_sound()
    };
    assert!(!of(|stated| stated.statement.agent = agent("bob")));
    assert!(!of(|stated| stated.statement.generation = Generation(3)));
    assert!(!of(|stated| stated.statement.token = FencingToken(4)));
    assert!(!of(|stated| stated.statement.host = HostId([5; 32])));
    assert!(!of(|stated| stated.public_key = key(2).public()));
    assert!(!of(|stated| stated.signature = Bytes::new()));
    // What the agent itself may be made to sign is never a statement.
    let bytes = postcard::to_stdvec(&stated.statement).unwrap();
    let signature = Bytes::copy_from_slice(&key(1).sign(&agent("alice"), &bytes));
    assert!(!SignedStatement { signature, ..stated }.is_sound());
}
