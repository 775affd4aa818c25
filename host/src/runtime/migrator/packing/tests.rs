//! What is packed, what is not, and what nobody unpacks.

use super::*;

/// Bytes that no packing makes smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let digest = godwit_core::digest::Digest::of(&bytes.len().to_le_bytes());
        bytes.extend_from_slice(&digest.0);
    }
    bytes.truncate(count);
    bytes
}

#[tokio::test]
async fn what_packs_well_is_packed_and_comes_back() {
    let text = b"a line that is repeated often\n".repeat(50_000);
    let packed = pack(&text).await.expect("it packs well");
    assert!(packed.len() < text.len() / 10);
    assert_eq!(unpack(&packed, text.len() as u64).await.as_deref(), Ok(&text[..]));
}

#[tokio::test]
async fn what_does_not_pack_or_is_little_stays_as_it_is() {
    assert_eq!(pack(&noise(1 << 20)).await, None);
    assert_eq!(pack(&[0; 1_000]).await, None);
    assert_eq!(pack(b"").await, None);
    // The samples promise what the rest does not keep.
    let mut mixed = noise(1 << 20);
    for piece in mixed.chunks_mut((1 << 20) / SAMPLES) {
        piece[..SAMPLE_BYTES].fill(0);
    }
    assert_eq!(pack(&mixed).await, None);
}

#[tokio::test]
async fn nothing_unpacks_to_more_than_was_announced_or_is_allowed() {
    let zeros = vec![0; UNPACKED_BYTES_MAX + 1];
    let bomb = zstd::bulk::compress(&zeros, LEVEL).unwrap();
    assert!(bomb.len() < 10_000);
    for announced in [0, 1, 1_000, UNPACKED_BYTES_MAX as u64] {
        let error = unpack(&bomb, announced).await.unwrap_err();
        assert!(error.contains("were announced"), "{announced}: {error}");
    }
    for announced in [zeros.len() as u64, u64::MAX] {
        let error = unpack(&bomb, announced).await.unwrap_err();
        assert!(error.contains("at most"), "{announced}: {error}");
    }
}

#[tokio::test]
async fn what_is_not_whole_does_not_unpack() {
    let text = b"text ".repeat(100_000);
    let (packed, bytes) = (pack(&text).await.unwrap(), text.len() as u64);
    assert!(unpack(&packed[..packed.len() - 1], bytes).await.is_err());
    assert!(unpack(&[&packed[..], b"x"].concat(), bytes).await.is_err());
    assert!(unpack(&[&packed[..], &packed[..]].concat(), 2 * bytes).await.is_err(), "one frame, not two");
    assert!(unpack(&text, bytes).await.is_err());
    assert!(unpack(b"", bytes).await.is_err());
}
