//! Which protocol two hosts agree on. The greeting itself is tested over real connections in `transport/tests.rs`.

use super::*;

#[test]
fn hosts_agree_on_the_newest_protocol_that_both_speak() {
    let cases = [
        (1..=1, 1..=1, Some(1)),
        (1..=3, 2..=5, Some(3)),
        (2..=5, 1..=3, Some(3)),
        (1..=9, 4..=4, Some(4)),
        (1..=1, 2..=3, None),
        (4..=6, 1..=3, None),
        // Nonsense of a peer.
        (1..=3, RangeInclusive::new(3, 1), None),
        (1..=1, 0..=255, Some(1)),
    ];
    for (ours, theirs, expected) in cases {
        assert_eq!(newest_common(&ours, &theirs), expected, "{ours:?} and {theirs:?}");
    }
}
