//! Tests of sealing.

use super::*;

const CONTEXT: &[u8] = b"here";

fn key(number: u8) -> SealKey {
    SealKey::new([number; 32])
}

#[test]
fn what_is_sealed_opens_under_the_same_key_and_context_only() {
    let sealed = key(1).seal(b"secret", CONTEXT, [7; NONCE_LEN]).unwrap();
    assert!(!sealed.windows(6).any(|window| window == b"secret"));
    assert_eq!(key(1).open(&sealed, CONTEXT, "it"), Ok(b"secret".to_vec()));
    assert!(matches!(key(1).open(&sealed, b"there", "it"), Err(StoreError::Corrupt { .. })));
    assert!(matches!(key(2).open(&sealed, CONTEXT, "it"), Err(StoreError::Conflict { .. })));
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let sealed = key(1).seal(b"secret", CONTEXT, [7; NONCE_LEN]).unwrap();
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        assert!(key(1).open(&flipped, CONTEXT, "it").is_err(), "byte {at}");
        assert!(key(1).open(&sealed[..at], CONTEXT, "it").is_err(), "cut at {at}");
    }
}
