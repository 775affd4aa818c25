//! Tests of peer messages.

use super::*;

#[test]
fn messages_round_trip_and_damage_is_refused() {
    let request = PeerRequest::WhoIsHome { agent: AgentId::parse("a").unwrap() };
    let bytes = encode(&request);
    assert_eq!(decode::<PeerRequest>(&bytes), Ok(request));
    assert!(decode::<PeerRequest>(&[]).is_err());
    assert!(decode::<PeerRequest>(&bytes[..bytes.len() - 1]).is_err());
    assert!(decode::<PeerRequest>(&[&bytes[..], b"x"].concat()).is_err());
    let other = [&[2], &bytes[1..]].concat();
    assert!(decode::<PeerRequest>(&other).unwrap_err().contains("version 2"));
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for length in 0..400usize {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        let message = [&[VERSION], &bytes[..]].concat();
        drop(decode::<PeerRequest>(&message));
        drop(decode::<PeerAnswer>(&message));
    }
}
