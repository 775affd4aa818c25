//! Tests of peer messages.

mod shapes;

use super::*;

/// What hosts of version 1 have said, byte for byte: it is never made anew.
const RECORDED: &str = include_str!("tests/version1.txt");

fn agent() -> AgentId {
    AgentId::parse("a").unwrap()
}

fn of_migration(message: MigrationMessage) -> PeerRequest {
    PeerRequest::Migration { id: MigrationId([7; 16]), agent: agent(), message }
}

fn api() -> SocketAddr {
    ([127, 0, 0, 1], 7700).into()
}

fn request(name: &str) -> PeerRequest {
    match name {
        "Hello" => PeerRequest::Hello,
        "WhoIsHome" => PeerRequest::WhoIsHome { agent: agent() },
        "Claim" => PeerRequest::Claim { agent: agent() },
        "Offer" => PeerRequest::Offer,
        "Activate" => of_migration(MigrationMessage::Activate { token: FencingToken(5) }),
        "Abort" => of_migration(MigrationMessage::Abort),
        "WhatHaveYou" => of_migration(MigrationMessage::WhatHaveYou),
        "WhatBecame" => of_migration(MigrationMessage::WhatBecame),
        other => panic!("no request {other}"),
    }
}

fn answer(name: &str) -> PeerAnswer {
    match name {
        "Hello" => PeerAnswer::Hello { name: "b".into(), api: api() },
        "Here" => PeerAnswer::Home(HomeAnswer::Here { token: FencingToken(5) }),
        "Unknown" => PeerAnswer::Home(HomeAnswer::Unknown),
        "Acknowledged" => PeerAnswer::Delivered(vec![Delivered::Acknowledged]),
        "Pending" => PeerAnswer::Migration(MigrationAnswer::Pending),
        "NotReady" => PeerAnswer::Migration(MigrationAnswer::NotReady { reason: "x".into() }),
        "Malformed" => PeerAnswer::Malformed { reason: "x".into() },
        "Free" => PeerAnswer::Claim(ClaimAnswer::Free),
        other => panic!("no answer {other}"),
    }
}

#[test]
fn what_version_1_has_said_is_still_read_and_written() {
    let mut lines = 0;
    for line in RECORDED.lines() {
        let [kind, name, hex] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(version_of(&bytes), 1);
        match kind {
            "request" => {
                assert_eq!(decode(&bytes), Ok(request(name)), "{name}");
                assert_eq!(encode_in(1, &request(name)), bytes, "{name}");
            }
            _ => {
                assert_eq!(decode(&bytes), Ok(answer(name)), "{name}");
                assert_eq!(encode_in(1, &answer(name).in_version(1)), bytes, "{name}");
            }
        }
        lines += 1;
    }
    assert_eq!(lines, 16);
}

#[test]
fn what_version_1_does_not_know_is_said_in_its_words() {
    let not_now = PeerAnswer::NotNow { reason: "x".into(), retry_after_ms: 200 };
    let introduction = PeerAnswer::Introduction { name: "b".into(), api: api(), release: "0.1.0".into() };
    assert_eq!(not_now.clone().in_version(1), answer("Malformed"));
    assert_eq!(introduction.clone().in_version(1), answer("Hello"));
    let here = PeerAnswer::Home(HomeAnswer::HereAs {
        token: FencingToken(5),
        origin_hash: OriginHash(6),
        is_gone: false,
    });
    assert_eq!(here.clone().in_version(1), answer("Here"));
    for newest in [not_now, introduction, here] {
        assert_eq!(newest.clone().in_version(2), newest);
        assert!(decode::<PeerAnswer>(&encode_in(1, &newest)).unwrap_err().contains("since version 2"));
        assert_eq!(decode(&encode(&newest)), Ok(newest));
    }
}

#[test]
fn messages_round_trip_and_damage_is_refused() {
    let request = PeerRequest::WhoIsHome { agent: agent() };
    let bytes = encode(&request);
    assert_eq!(decode::<PeerRequest>(&bytes), Ok(request));
    assert!(decode::<PeerRequest>(&[]).is_err());
    assert!(decode::<PeerRequest>(&bytes[..bytes.len() - 1]).is_err());
    assert!(decode::<PeerRequest>(&[&bytes[..], b"x"].concat()).is_err());
    let other = [&[9], &bytes[1..]].concat();
    assert!(decode::<PeerRequest>(&other).unwrap_err().contains("version 9, this host speaks 1 to 2"));
}

#[test]
fn a_list_is_read_in_parts_and_ends_where_it_says() {
    let bytes = encode(&vec![1_u16, 2, 3]);
    let mut list = decode_list::<u16>(&bytes).unwrap();
    assert_eq!(list.next_up_to(2), Ok(vec![1, 2]));
    assert_eq!(list.next_up_to(2), Ok(vec![3]));
    assert_eq!(list.next_up_to(2), Ok(vec![]));
    let followed = [&bytes[..], b"x"].concat();
    assert!(decode_list::<u16>(&followed).unwrap().next_up_to(9).is_err());
    let mut cut = decode_list::<u16>(&bytes[..bytes.len() - 1]).unwrap();
    assert!(cut.next_up_to(9).is_err());
}

#[test]
fn more_rows_than_go_with_a_preparation_are_not_even_read() {
    let row = |number: usize| {
        let key = godwit_core::store::RowKey::State(String::new());
        RowFrame { change: number as u64, row: godwit_core::store::Row::Deleted(key) }
    };
    for (count, is_read) in [(PREPARE_FRAMES_MAX, true), (PREPARE_FRAMES_MAX + 1, false)] {
        let preparation = Preparation {
            granted: FencingToken(2),
            generation: Generation(1),
            revision: Revision(1),
            frames: (0..count).map(row).collect(),
            bundle: Digest::ZERO,
        };
        let bytes = encode(&of_migration(MigrationMessage::Prepare(Box::new(preparation))));
        assert_eq!(decode::<PeerRequest>(&bytes).is_ok(), is_read, "{count}");
    }
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
        for version in PROTOCOLS {
            let message = [&[version], &bytes[..]].concat();
            drop(decode::<PeerRequest>(&message));
            drop(decode::<PeerAnswer>(&message));
        }
    }
}
