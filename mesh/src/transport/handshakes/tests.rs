//! How many handshakes are let in.

use super::*;

#[test]
fn one_address_leaves_room_for_others() {
    let handshakes = Handshakes::default();
    let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let mut held: Vec<_> =
        (0..HANDSHAKES_OF_ADDRESS_MAX).map(|_| handshakes.try_begin(one).unwrap()).collect();
    assert!(handshakes.try_begin(one).is_none());
    held.push(handshakes.try_begin(other).unwrap());
    assert!(handshakes.are_pressed());
    held.remove(0);
    assert!(handshakes.try_begin(one).is_some(), "one has ended");
    held.clear();
    assert!(!handshakes.are_pressed());
    assert!(lock(&handshakes.0).is_empty(), "nothing is kept of addresses that are gone");
}
