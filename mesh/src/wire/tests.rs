//! Frames: whole ones come through, and no other bytes do.

use super::*;

fn bytes_of(frame: [Bytes; 2]) -> Vec<u8> {
    frame.concat()
}

fn request(body: &'static [u8]) -> Vec<u8> {
    bytes_of(encode(1, Kind::Request, Bytes::from_static(body)))
}

async fn read(bytes: &[u8], version: u8, kind: Kind) -> Result<Bytes, WireError> {
    read_frame(&mut &bytes[..], version, kind).await
}

#[tokio::test]
async fn every_kind_of_frame_is_read_as_it_was_written() {
    for kind in Kind::ALL {
        for length in [0, 1, kind.body_bytes_max()] {
            let length = length.min(kind.body_bytes_max());
            let body = Bytes::from(vec![7; length]);
            let bytes = bytes_of(encode(3, kind, body.clone()));
            if kind != Kind::Refused {
                assert_eq!(read(&bytes, 3, kind).await, Ok(body), "{kind:?} of {length}");
            }
        }
    }
}

#[test]
fn the_bytes_of_a_frame_are_fixed() {
    let bytes = request(b"hello");
    assert_eq!(bytes[..12], *b"gdwm\x01\x06\x00\x00\x05\x00\x00\x00");
    assert_eq!(bytes[12..44], *blake3::hash(b"gdwm\x01\x06\x00\x00\x05\x00\x00\x00hello").as_bytes());
    assert_eq!(bytes[44..], *b"hello");
}

#[tokio::test]
async fn a_frame_damaged_anywhere_is_refused() {
    let whole = request(b"payload");
    for position in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[position] ^= 1 << bit;
            assert!(read(&bytes, 1, Kind::Request).await.is_err(), "byte {position}, bit {bit}");
        }
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_refused_by_its_digest() {
    let good = bytes_of(encode_chunk(1, 7, vec![1; CHUNK_BYTES_MAX].into()).0);
    for place in [HEADER_BYTES, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[place] ^= 0x80;
        assert_eq!(read(&bytes, 1, Kind::BulkChunk).await, Err(WireError::Digest));
    }
    let body = read(&good, 1, Kind::BulkChunk).await.unwrap();
    assert_eq!(decode_chunk(body).unwrap(), (7, vec![1; CHUNK_BYTES_MAX].into()));
    assert_eq!(decode_chunk(Bytes::from_static(b"1234567")), Err(WireError::Body { kind: Kind::BulkChunk }));
}

#[tokio::test]
async fn a_frame_cut_anywhere_is_truncated() {
    let whole = request(b"payload");
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length], 1, Kind::Request).await, Err(WireError::Truncated), "{length}");
    }
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body() {
    for kind in Kind::ALL {
        let mut bytes = bytes_of(encode(1, kind, Bytes::new()));
        let length = u32::try_from(kind.body_bytes_max() + 1).unwrap();
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        let expected = WireError::Length { length: length.into(), max: kind.body_bytes_max() };
        // Nothing follows the header: reading on would be `Truncated`.
        assert_eq!(read(&bytes[..HEADER_BYTES], 1, kind).await, Err(expected));
    }
}

#[tokio::test]
async fn another_version_or_kind_is_named() {
    let bytes = request(b"x");
    assert_eq!(read(&bytes, 2, Kind::Request).await, Err(WireError::Version { found: 1, expected: 2 }));
    assert_eq!(read(&bytes, 1, Kind::Answer).await, Err(WireError::OutOfPlace { found: Kind::Request }));
    let mut bytes = request(b"x");
    bytes[5] = 200;
    assert_eq!(read(&bytes, 1, Kind::Request).await, Err(WireError::Kind { found: 200 }));
}

#[tokio::test]
async fn a_refusal_comes_through_in_place_of_an_answer() {
    let bytes = bytes_of(encode_typed(1, Kind::Refused, &Refusal::TooLarge { size: 9, max: 8 }));
    let expected = Err(WireError::Refused(Refusal::TooLarge { size: 9, max: 8 }));
    assert_eq!(read(&bytes, 1, Kind::Answer).await, expected);
}

#[test]
fn a_typed_body_with_bytes_left_over_is_refused() {
    let mut body = postcard::to_stdvec(&Refusal::Busy).unwrap();
    assert_eq!(decode_typed(Kind::Refused, &body), Ok(Refusal::Busy));
    body.push(0);
    assert_eq!(decode_typed::<Refusal>(Kind::Refused, &body), Err(WireError::Body { kind: Kind::Refused }));
}

/// Random bytes, the same in every run. One BLAKE3 stream per seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn random_bytes_never_panic_and_never_pass() {
    for seed in 0..20_000 {
        let noise = noise(seed, 96);
        let mut bytes = noise[1..].to_vec();
        // Half of them get past the magic, and half of those past version and kind, so that all branches are met.
        if noise[0] & 1 == 0 {
            bytes[..4].copy_from_slice(&MAGIC);
            if noise[0] & 2 == 0 {
                bytes[4] = 1;
                bytes[5] = 1 + noise[0] / 4 % 10;
                bytes[6..8].fill(0);
                bytes[9..12].fill(0);
            }
        }
        for kind in [Kind::Request, Kind::BulkOpen] {
            assert!(read(&bytes, 1, kind).await.is_err(), "seed {seed}");
        }
        drop(decode_typed::<Refusal>(Kind::Refused, &noise));
        drop(decode_typed::<crate::transfer::BulkOpen>(Kind::BulkOpen, &noise));
    }
}
