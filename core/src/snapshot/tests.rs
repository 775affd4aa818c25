//! Tests of the envelope.

use super::*;

fn snapshot() -> Snapshot {
    Snapshot {
        token: crate::id::FencingToken(3),
        time_ms: 9,
        generation: Generation(2),
        revision: Revision(7),
        plugin_version: "1.0.0".into(),
        state: Bytes::from_static(b"state"),
    }
}

#[test]
fn an_envelope_round_trips() {
    assert_eq!(Snapshot::from_envelope(&snapshot().to_envelope(), 1 << 20), Ok(snapshot()));
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let good = snapshot().to_envelope();
    let with = |index: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[index] = byte;
        bytes
    };
    let cases = [
        (with(0, b'X'), EnvelopeError::Magic),
        (with(4, 9), EnvelopeError::Format { found: 9 }),
        (with(8, good[8] ^ 1), EnvelopeError::Digest),
        (with(good.len() - 1, 0), EnvelopeError::Digest),
        (good[..good.len() - 1].to_vec(), EnvelopeError::Digest),
        (good[..20].to_vec(), EnvelopeError::Magic),
        (Vec::new(), EnvelopeError::Magic),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Snapshot::from_envelope(&bytes, 1 << 20), Err(expected));
    }
    assert_eq!(
        Snapshot::from_envelope(&good, 10),
        Err(EnvelopeError::TooLarge { size: good.len(), max: 10 })
    );
}
