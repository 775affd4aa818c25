//! Doors for the fuzz targets, in test builds only: bytes of a peer in; what was read is shown and written again.

use std::fmt::Debug;

use crate::runtime::wire;

/// Sees what was read.
pub type Look<'a> = &'a mut dyn FnMut(&dyn Debug);

fn again<T: wire::Message + Debug>(bytes: &[u8], look: Look<'_>) -> Result<Vec<u8>, String> {
    let message = wire::decode::<T>(bytes)?;
    look(&message);
    Ok(wire::encode_in(wire::version_of(bytes), &message).into())
}

/// A request of a peer.
///
/// # Errors
/// What the peer is told.
pub fn request(bytes: &[u8], look: Look<'_>) -> Result<Vec<u8>, String> {
    again::<wire::PeerRequest>(bytes, look)
}

/// An answer of a peer.
///
/// # Errors
/// What the log is told.
pub fn answer(bytes: &[u8], look: Look<'_>) -> Result<Vec<u8>, String> {
    again::<wire::PeerAnswer>(bytes, look)
}

/// What heads a transfer.
///
/// # Errors
/// What the peer is told.
pub fn bulk_header(bytes: &[u8], look: Look<'_>) -> Result<Vec<u8>, String> {
    again::<wire::BulkHeader>(bytes, look)
}

/// A bundle of rows, read in parts as the target of a migration does.
///
/// # Errors
/// What the peer is told.
pub fn rows(bytes: &[u8], look: Look<'_>) -> Result<Vec<u8>, String> {
    let mut rows = wire::decode_list::<godwit_core::store::RowFrame>(bytes)?;
    let mut frames = Vec::new();
    loop {
        let mut some = rows.next_up_to(1_024)?;
        if some.is_empty() {
            break;
        }
        look(&some);
        frames.append(&mut some);
    }
    Ok(wire::encode_in(wire::version_of(bytes), &frames).into())
}
