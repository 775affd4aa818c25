//! Bundles of rows packed with zstd, where that saves: whoever packs has looked at samples first, and whoever unpacks gives no more
//! room than it would give to a bundle as it is.

use std::io::{Read, Write};

use godwit_core::limits::{CHUNK_BYTES_MAX, SNAPSHOT_BYTES_MAX};

/// Bytes of rows in one bundle; a larger row makes one by itself. A move has a handful of bundles in memory at each side, in one form
/// or another.
pub(super) const BUNDLE_BYTES: usize = 5 << 19;
/// Largest bundle that is unpacked: the largest row is a snapshot, with some words around it.
pub(super) const UNPACKED_BYTES_MAX: usize = BUNDLE_BYTES + SNAPSHOT_BYTES_MAX;
/// What is looked at before a bundle is packed: pieces from all over it, 16 KiB in all.
const SAMPLES: usize = 4;
const SAMPLE_BYTES: usize = 4 << 10;
/// Packed bytes of a hundred, above which packing is not worth its time.
const WORTH_PERCENT: usize = 80;
/// The fastest: a loopback or a local network takes hundreds of megabytes a second.
const LEVEL: i32 = 1;

/// What unpacking may keep in memory is two to this; `LEVEL` asks for less.
const WINDOW_LOG_MAX: u32 = 22;

/// The packed form of a bundle; `None` where that is not worth it. Lets other tasks run between chunks.
pub(super) async fn pack(bundle: &[u8]) -> Option<Vec<u8>> {
    if bundle.len() > UNPACKED_BYTES_MAX || !is_sample_small(bundle) {
        return None;
    }
    let room = Vec::with_capacity(bundle.len() / 2);
    let mut encoder = zstd::stream::write::Encoder::new(room, LEVEL).ok()?;
    for chunk in bundle.chunks(CHUNK_BYTES_MAX) {
        encoder.write_all(chunk).ok()?;
        tokio::task::yield_now().await;
    }
    let packed = encoder.finish().ok()?;
    is_worth(packed.len(), bundle.len()).then_some(packed)
}

fn is_sample_small(bundle: &[u8]) -> bool {
    // What is little is sent in no time.
    if bundle.len() < SAMPLES * SAMPLE_BYTES {
        return false;
    }
    let pieces = bundle.chunks(bundle.len() / SAMPLES).take(SAMPLES);
    let sample: Vec<u8> = pieces.flat_map(|piece| &piece[..SAMPLE_BYTES]).copied().collect();
    zstd::bulk::compress(&sample, LEVEL).is_ok_and(|packed| is_worth(packed.len(), sample.len()))
}

fn is_worth(packed: usize, plain: usize) -> bool {
    packed * 100 < plain * WORTH_PERCENT
}

/// The bundle in its packed form, which is to have so many bytes.
///
/// # Errors
/// A sentence that says what is wrong with it. No more than was announced is ever unpacked.
pub(super) async fn unpack(packed: &[u8], bytes: u64) -> Result<Vec<u8>, String> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= UNPACKED_BYTES_MAX);
    let bytes = bytes.ok_or_else(|| format!("a bundle has at most {UNPACKED_BYTES_MAX} bytes"))?;
    let broken = |error: std::io::Error| format!("the bundle does not unpack: {error}");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
    let mut bundle = Vec::new();
    // One byte more shows that there are more.
    while bundle.len() <= bytes {
        let room = CHUNK_BYTES_MAX.min(bytes + 1 - bundle.len());
        if decoder.by_ref().take(room as u64).read_to_end(&mut bundle).map_err(broken)? == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    if bundle.len() == bytes && decoder.finish().is_empty() {
        return Ok(bundle);
    }
    Err(format!("the bundle does not unpack to the {bytes} bytes that were announced"))
}

#[cfg(test)]
mod tests;
