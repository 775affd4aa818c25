//! Doors for the fuzz targets, in test builds only: a stream's bytes in, and the frames that were read of them out.

use std::fmt::Debug;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handshake::{Hello, Welcome};
use crate::transfer::{BulkOpen, BulkResume};
use crate::wire::{self, HEADER_BYTES, Header, Kind, Refusal, WireError};

/// Sees what was read.
pub type Look<'a> = &'a mut dyn FnMut(&dyn Debug);

/// Reads frames until there are no more. Answers them written again, one after the other, and what ended it.
pub fn frames(bytes: &[u8], look: Look<'_>) -> (Vec<u8>, String) {
    let mut rest = bytes;
    let mut again = Vec::new();
    loop {
        let version = rest.get(4).copied().unwrap_or_default();
        match next(&mut rest, version) {
            Ok((header, body)) => {
                look(&header.kind);
                if let Err(error) = typed(header.kind, &body, look) {
                    return (again, error.to_string());
                }
                again.extend(wire::encode(version, header.kind, body).concat());
            }
            Err(error) => return (again, error.to_string()),
        }
    }
}

fn next(rest: &mut &[u8], version: u8) -> Result<(Header, Bytes), WireError> {
    let read = async {
        let header = wire::read_header(rest, version).await?;
        let body = wire::read_body(rest, &header).await?;
        Ok((header, body))
    };
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => Err(WireError::Truncated),
    }
}

fn typed(kind: Kind, body: &[u8], look: Look<'_>) -> Result<(), WireError> {
    match kind {
        Kind::Hello => again::<Hello>(kind, body, look),
        Kind::Welcome => again::<Welcome>(kind, body, look),
        Kind::Refused => again::<Refusal>(kind, body, look),
        Kind::BulkOpen => again::<BulkOpen>(kind, body, look),
        Kind::BulkResume => again::<BulkResume>(kind, body, look),
        Kind::BulkChunk => {
            let (offset, chunk) = wire::decode_chunk(Bytes::copy_from_slice(body))?;
            let ([fields, rest], _) = wire::encode_chunk(0, offset, chunk);
            assert_eq!([&fields[HEADER_BYTES..], &rest].concat(), body, "what was written is read as it was");
            Ok(())
        }
        Kind::Ping | Kind::Pong | Kind::Request | Kind::Answer => Ok(()),
    }
}

fn again<T: DeserializeOwned + Serialize + Debug>(
    kind: Kind,
    body: &[u8],
    look: Look<'_>,
) -> Result<(), WireError> {
    let value: T = wire::decode_typed(kind, body)?;
    look(&value);
    let [_, once] = wire::encode_typed(0, kind, &value);
    let [_, twice] = wire::encode_typed(0, kind, &wire::decode_typed::<T>(kind, &once)?);
    assert_eq!(once, twice, "what was written is read as it was");
    Ok(())
}

/// Makes the digests of frames right, so that damage elsewhere gets past them.
pub fn reseal(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some((header, behind)) = rest.split_at_mut_checked(HEADER_BYTES) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((body, next)) = behind.split_at_mut_checked(length) else { return };
        let digest = blake3::Hasher::new().update(&header[..12]).update(body).finalize();
        header[12..].copy_from_slice(digest.as_bytes());
        rest = next;
    }
}
