//! Tokens: whose they are, how far they reach, and what is no token at all.

use super::*;
use crate::channel::{Access, Ask, Overflow};
use crate::id::{FencingToken, HostId, InputId};
use crate::input::{Input, Kind, Source};

const NOW_MS: u64 = 1_000;

fn key(number: u8) -> EntityKey {
    EntityKey::from_secret(&[number; 32])
}

fn owner() -> AgentId {
    AgentId::parse("owner").expect("an id")
}

fn news() -> ChannelName {
    "news".parse().expect("a name")
}

fn terms(bearer: u8, rights: Rights) -> Terms {
    Terms { bearer: key(bearer).public(), rights, expires_at_ms: 2_000 }
}

fn all() -> Rights {
    Rights::PUBLISH.with(Rights::SUBSCRIBE).with(Rights::ADMIN).with(Rights::DELEGATE)
}

/// A token of the owner, whose key is number 1.
fn issued(terms: Terms) -> Token {
    Token::issue(&key(1), (&owner(), &news()), (Generation(3), Revision(7)), terms)
}

fn channel(name: &str, tokens_from: u64) -> Channel {
    Channel {
        name: name.parse().expect("a name"),
        access: Access::ByToken,
        overflow: Overflow::Refuse,
        tokens_from: Revision(tokens_from),
        next_publication: 1,
        opened_at_ms: 0,
    }
}

fn check(token: &Token, right: Rights) -> Result<(), Refusal> {
    let owner = owner();
    let who = Owner { agent: &owner, generation: Generation(3), public_key: Some(key(1).public()) };
    token.verify()?.check(&who, &channel("news", 7), right, NOW_MS)
}

#[test]
fn a_token_gives_its_rights_on_its_channel_until_it_is_over() {
    let token = issued(terms(2, Rights::SUBSCRIBE));
    assert_eq!(check(&token, Rights::SUBSCRIBE), Ok(()));
    assert_eq!(check(&token, Rights::PUBLISH), Err(Refusal::NoRight));
    let credential = token.verify().expect("it is sound");
    let owner = owner();
    let who = Owner { agent: &owner, generation: Generation(3), public_key: Some(key(1).public()) };
    let refused = |who: &Owner<'_>, channel: &Channel, now_ms| {
        credential.check(who, channel, Rights::SUBSCRIBE, now_ms).expect_err("it is not let in")
    };
    assert_eq!(refused(&who, &channel("other", 7), NOW_MS), Refusal::TokenForAnother);
    assert_eq!(refused(&who, &channel("news", 8), NOW_MS), Refusal::TokenRevoked);
    assert_eq!(refused(&who, &channel("news", 7), 2_000), Refusal::TokenExpired);
    let reset = Owner { generation: Generation(4), ..who };
    assert_eq!(refused(&reset, &channel("news", 7), NOW_MS), Refusal::TokenRevoked);
    let namesake = Owner { public_key: Some(key(9).public()), ..who };
    assert_eq!(refused(&namesake, &channel("news", 7), NOW_MS), Refusal::TokenInvalid);
    let keyless = Owner { public_key: None, ..who };
    assert_eq!(refused(&keyless, &channel("news", 7), NOW_MS), Refusal::TokenInvalid);
}

#[test]
fn it_is_passed_on_within_what_it_gives_and_so_often() {
    let first = issued(terms(2, all()));
    let second = first.delegate(&key(2), terms(3, Rights::SUBSCRIBE.with(Rights::DELEGATE))).expect("it may");
    assert_eq!(check(&second, Rights::SUBSCRIBE), Ok(()));
    assert_eq!(check(&second, Rights::PUBLISH), Err(Refusal::NoRight));
    let wider = second.delegate(&key(3), terms(4, Rights::PUBLISH));
    assert_eq!(wider, Err(Refusal::NoRight), "more than it gives");
    let longer = Terms { expires_at_ms: 2_001, ..terms(4, Rights::SUBSCRIBE) };
    assert_eq!(second.delegate(&key(3), longer), Err(Refusal::NoRight), "for longer than it lasts");
    assert_eq!(second.delegate(&key(2), terms(4, Rights::SUBSCRIBE)), Err(Refusal::TokenOfAnother));
    let end = second.delegate(&key(3), terms(4, Rights::SUBSCRIBE)).expect("it may");
    assert_eq!(end.delegate(&key(4), terms(5, Rights::SUBSCRIBE)), Err(Refusal::NoRight), "no right to");
    let mut deep = issued(terms(2, all()));
    for number in 2..=4 {
        deep = deep.delegate(&key(number), terms(number + 1, all())).expect("it may");
    }
    assert_eq!(deep.delegate(&key(5), terms(6, all())), Err(Refusal::TooDeep));
    assert_eq!(check(&deep, all()), Ok(()));
}

/// A chain that `delegate` would not make, signed by whom it should be.
fn forced(token: &Token, signer: u8, change: impl FnOnce(&mut Link)) -> Token {
    let last = &token.0.last().expect("a link").link;
    let mut link =
        Link { issuer: key(signer).public(), bearer: key(9).public(), parent: last.digest(), ..last.clone() };
    change(&mut link);
    let mut links = token.0.clone();
    links.push(sign(&key(signer), link));
    Token(links)
}

#[test]
fn a_chain_that_says_more_than_its_links_give_is_refused_where_it_is_used() {
    let narrow = issued(terms(2, Rights::SUBSCRIBE.with(Rights::DELEGATE)));
    let only = issued(terms(2, Rights::SUBSCRIBE));
    let cases = [
        (forced(&narrow, 2, |link| link.rights = Rights::PUBLISH), Refusal::NoRight),
        (forced(&narrow, 2, |link| link.expires_at_ms += 1), Refusal::NoRight),
        (forced(&only, 2, |_| {}), Refusal::NoRight),
        (forced(&narrow, 3, |_| {}), Refusal::TokenInvalid),
        (forced(&narrow, 2, |link| link.channel = "other".parse().expect("a name")), Refusal::TokenInvalid),
        (forced(&narrow, 2, |link| link.issued_at = Revision(8)), Refusal::TokenInvalid),
        (forced(&narrow, 2, |link| link.generation = Generation(4)), Refusal::TokenInvalid),
        (forced(&narrow, 2, |link| link.parent = Digest::ZERO), Refusal::TokenInvalid),
    ];
    for (token, expected) in cases {
        assert_eq!(token.verify(), Err(expected), "{token:?}");
    }
    // A link alone is no token, and one too many is refused whatever it says.
    let tail = Token(forced(&narrow, 2, |link| link.rights = Rights::SUBSCRIBE).0[1..].to_vec());
    assert_eq!(tail.verify(), Err(Refusal::TokenInvalid));
    let mut deep = issued(terms(2, all()));
    for number in 2..=5 {
        deep = forced(&deep, number, |link| link.bearer = key(number + 1).public());
    }
    assert_eq!(deep.verify(), Err(Refusal::TooDeep));
    assert_eq!(Token::from_bytes(&deep.to_bytes()), Err(Refusal::TooDeep));
}

#[test]
fn damaged_bytes_are_no_token() {
    let token = issued(terms(2, all())).delegate(&key(2), terms(3, all())).expect("it may");
    let bytes = token.to_bytes();
    assert!(bytes.len() <= TOKEN_BYTES_MAX / 2);
    assert_eq!(Token::from_bytes(&bytes), Ok(token));
    for end in 0..bytes.len() {
        assert!(Token::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[place] ^= 1;
        let read = Token::from_bytes(&damaged).and_then(|token| token.verify());
        assert!(read.is_err(), "byte {place} is not covered");
    }
    let long = [bytes.to_vec(), vec![0; TOKEN_BYTES_MAX]].concat();
    assert_eq!(Token::from_bytes(&long), Err(Refusal::TokenInvalid));
    assert_eq!(Token::from_bytes(&[0]), Err(Refusal::TokenInvalid), "without a link");
}

#[test]
fn a_proof_is_good_for_one_request_of_one_agent() {
    let token = issued(terms(2, Rights::PUBLISH));
    let request = ChannelRequest { channel: news(), ask: Ask::Publish, token: Some(token.to_bytes()) };
    let input = Input {
        id: InputId([1; 16]),
        kind: Kind::Event,
        source: Source::System,
        content_type: String::new(),
        payload: Bytes::from("text"),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 0,
    };
    let new = NewInput::of_host(&owner(), input);
    let stamp = DeliveryStamp {
        origin: AgentId::parse("bearer").expect("an id"),
        generation: Generation(1),
        number: 5,
        lowest_open: 5,
        token: FencingToken(1),
        host: HostId([0; 32]),
        origin_hash: None,
        origin_generation: Generation(1),
        is_vouched_for: true,
        channel: None,
    };
    let proof = Proof::new(&key(2), &stamp, &new, &request);
    let used = |stamp: &DeliveryStamp, new: &NewInput, request: &ChannelRequest, proof: &Proof| {
        credential(stamp, new, request, Some(proof)).map(|credential| credential.is_some())
    };
    assert_eq!(used(&stamp, &new, &request, &proof), Ok(true));
    // Another place of the sender, and another host that it is sent from, change nothing.
    let moved =
        DeliveryStamp { token: FencingToken(2), host: HostId([9; 32]), lowest_open: 1, ..stamp.clone() };
    assert_eq!(used(&moved, &new, &request, &proof), Ok(true));
    let mut other = new.clone();
    other.input.payload = Bytes::from("another text");
    let mut elsewhere = new.clone();
    elsewhere.agent = AgentId::parse("elsewhere").expect("an id");
    let list = ChannelRequest { ask: Ask::List, ..request.clone() };
    let later = DeliveryStamp { number: 6, ..stamp.clone() };
    let stranger = DeliveryStamp { origin: AgentId::parse("thief").expect("an id"), ..stamp.clone() };
    let by_another = Proof::new(&key(3), &stamp, &new, &request);
    let refused = [
        used(&stamp, &other, &request, &proof),
        used(&stamp, &elsewhere, &request, &proof),
        used(&stamp, &new, &list, &proof),
        used(&later, &new, &request, &proof),
        used(&stranger, &new, &request, &proof),
        used(&stamp, &new, &request, &by_another),
        credential(&stamp, &new, &request, None).map(|credential| credential.is_some()),
    ];
    assert_eq!(refused, [Err(Refusal::TokenOfAnother); 7]);
    let without = ChannelRequest { token: None, ..request };
    assert_eq!(credential(&stamp, &new, &without, None), Ok(None));
}
