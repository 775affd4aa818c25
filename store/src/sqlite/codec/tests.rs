//! Sealed values give back what was sealed, or say that they are damaged.

use super::*;

fn what() -> String {
    "thing".to_owned()
}

#[test]
fn sealed_values_come_back() {
    let value = ("text".to_owned(), 7_u64);
    let sealed = seal(&value);
    assert_eq!(unseal::<(String, u64)>(&sealed, what).unwrap(), value);
    assert_eq!(unseal_bytes(&seal_bytes(b""), what).unwrap(), b"");
}

#[test]
fn any_flipped_bit_and_any_cut_is_found() {
    let sealed = seal(&("text".to_owned(), 7_u64));
    for place in 0..sealed.len() {
        for bit in 0..8 {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1 << bit;
            assert!(unseal::<(String, u64)>(&damaged, what).is_err());
        }
        assert!(unseal::<(String, u64)>(&sealed[..place], what).is_err());
    }
    let mut longer = sealed;
    longer.push(0);
    assert!(unseal::<(String, u64)>(&longer, what).is_err());
}

#[test]
fn nothing_may_follow_a_value() {
    let mut payload = postcard::to_stdvec(&7_u64).unwrap();
    payload.push(0);
    assert!(unseal::<u64>(&seal_bytes(&payload), what).is_err());
}

#[test]
fn codes_are_the_places_in_the_stored_lists() {
    for code in 0..6 {
        assert_eq!(input_state_code(input_state(code).unwrap()), code);
    }
    for code in 0..8 {
        assert_eq!(reason_code(reason(code).unwrap()), code);
    }
    for (code, kind) in (0..).zip(EventKind::ALL) {
        assert_eq!((event_code(kind), event_kind(code).unwrap()), (code, kind));
    }
    assert!(input_state(6).is_err());
    assert!(reason(8).is_err());
    assert!(event_kind(EventKind::ALL.len() as i64).is_err());
}
