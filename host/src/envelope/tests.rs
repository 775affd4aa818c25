//! Only the target opens an envelope, only for what it was sealed for, and only whole.

use super::*;

const SECRET: [u8; 32] = [7; 32];

fn host(number: u8) -> (SigningKey, HostId) {
    let key = SigningKey::from_bytes(&[number; 32]);
    let id = HostId(key.verifying_key().to_bytes());
    (key, id)
}

fn sealed(target: HostId) -> Vec<u8> {
    seal(target, b"agent a", &SECRET, &[9; 32]).unwrap()
}

#[test]
fn the_target_opens_it() {
    let (key, id) = host(1);
    let envelope = sealed(id);
    assert_eq!(envelope.len(), ENVELOPE_BYTES);
    assert!(!envelope.windows(SECRET.len()).any(|window| window == SECRET));
    assert_eq!(open(&key, b"agent a", &envelope).as_deref(), Some(&SECRET));
    assert_ne!(envelope, seal(id, b"agent a", &SECRET, &[8; 32]).unwrap());
}

#[test]
fn nobody_else_does_and_not_for_anything_else() {
    let ((key, id), (other, _)) = (host(1), host(2));
    let envelope = sealed(id);
    assert!(open(&other, b"agent a", &envelope).is_none());
    assert!(open(&key, b"agent b", &envelope).is_none());
    for place in 0..envelope.len() {
        let mut damaged = envelope.clone();
        damaged[place] ^= 1;
        assert!(open(&key, b"agent a", &damaged).is_none(), "byte {place}");
    }
    for length in 0..envelope.len() {
        assert!(open(&key, b"agent a", &envelope[..length]).is_none(), "{length} bytes");
    }
    assert!(open(&key, b"agent a", &[&envelope[..], &[0]].concat()).is_none());
}

#[test]
fn keys_of_small_order_are_refused() {
    // The neutral element, and a point of order 4.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for weak in [neutral, [0; 32]] {
        assert!(seal(HostId(weak), b"agent a", &SECRET, &[9; 32]).is_none());
    }
    let (key, id) = host(1);
    let mut envelope = sealed(id);
    envelope[1..33].copy_from_slice(&neutral);
    assert!(open(&key, b"agent a", &envelope).is_none());
}
