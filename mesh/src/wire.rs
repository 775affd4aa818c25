//! Frames: the only thing ever written to a stream.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "gdwm"
//!      4      1  protocol version; 0 in greetings, whose form never changes
//!      5      1  kind
//!      6      2  zero
//!      8      4  length of the body in bytes, u32, little endian, at most the kind's maximum
//!     12     32  BLAKE3 of bytes 0..12 and the body
//!     44      -  body
//! ```
//! The length is judged before the body is read. Nothing here waits for anything but the next bytes.

use bytes::{BufMut, Bytes};
use godwit_core::digest::Digest;
use godwit_core::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::handshake::NoCommon;
use crate::limits::BULK_HEADER_BYTES_MAX;

/// The version of greetings: before two hosts have agreed on one.
pub(crate) const GREETING_VERSION: u8 = 0;
/// Bytes of a frame before its body.
pub(crate) const HEADER_BYTES: usize = 44;

const MAGIC: [u8; 4] = *b"gdwm";
const CHECKED_BYTES: usize = 12;
/// Where in its transfer a chunk belongs.
const OFFSET_BYTES: usize = 8;
/// Room for the fields of a typed body beside its payload.
const FIELDS_BYTES_MAX: usize = 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Greeting of the host that dialled.
    Hello = 1,
    /// Greeting of the host that accepted.
    Welcome = 2,
    /// A typed no, in place of an answer.
    Refused = 3,
    /// Are you there?
    Ping = 4,
    /// I am.
    Pong = 5,
    /// A request's body.
    Request = 6,
    /// The answer to a request or a transfer.
    Answer = 7,
    /// Announces or resumes a transfer.
    BulkOpen = 8,
    /// From where the transfer goes on.
    BulkResume = 9,
    /// The next bytes of the transfer, behind their offset in it (u64, little endian).
    BulkChunk = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Ping,
        Self::Pong,
        Self::Request,
        Self::Answer,
        Self::BulkOpen,
        Self::BulkResume,
        Self::BulkChunk,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    fn body_bytes_max(self) -> usize {
        match self {
            Self::Hello | Self::Welcome | Self::Refused | Self::BulkResume => FIELDS_BYTES_MAX,
            Self::Ping | Self::Pong => 0,
            Self::Request | Self::Answer => FRAME_BYTES_MAX,
            Self::BulkOpen => BULK_HEADER_BYTES_MAX + FIELDS_BYTES_MAX,
            Self::BulkChunk => OFFSET_BYTES + CHUNK_BYTES_MAX,
        }
    }
}

/// Why bytes are not the frame that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the bytes do not start with the magic of a frame")]
    Magic,
    #[error("a frame of protocol {found} on a stream of protocol {expected}")]
    Version { found: u8, expected: u8 },
    #[error("no frame has kind {found}")]
    Kind { found: u8 },
    #[error("the reserved bytes of a frame are not zero")]
    Reserved,
    #[error("a body of {length} bytes is over the limit of {max}")]
    Length { length: u64, max: usize },
    #[error("the body does not match its digest")]
    Digest,
    #[error("the body of a {kind:?} frame cannot be read")]
    Body { kind: Kind },
    #[error("a {found:?} frame is out of place")]
    OutOfPlace { found: Kind },
    #[error("the stream ended inside a frame")]
    Truncated,
    #[error("the stream broke: {reason}")]
    Broken { reason: String },
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    NoCommon(NoCommon),
}

impl From<std::io::Error> for WireError {
    fn from(err: std::io::Error) -> Self {
        match err.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Broken { reason: err.to_string() },
        }
    }
}

/// A typed no. Variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it speaks protocol {min} to {max} only")]
    Protocol { min: u8, max: u8 },
    #[error("it is busy with what this host has asked of it already")]
    Busy,
    #[error("{size} bytes are over its limit of {max}")]
    TooLarge { size: u64, max: u64 },
    #[error("the bytes make no sense to it")]
    Malformed,
    #[error("the bytes arrived damaged")]
    Damaged,
    #[error("it knows nothing of a transfer that it had received")]
    Forgotten,
    #[error("the transfer goes on over another stream")]
    Displaced,
    #[error("its handler failed")]
    Failed,
    #[error("it is shutting down, or has taken this host off its list")]
    Closing,
}

/// A frame's header: everything known before the body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) length: usize,
    checked: [u8; CHECKED_BYTES],
    /// Of the fields before it and the body.
    pub(crate) digest: Digest,
}

impl Header {
    /// Judges a header on a stream of protocol `version`.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], version: u8) -> Result<Self, WireError> {
        let (fields, digest) = bytes.split_at(CHECKED_BYTES);
        let fields: [u8; CHECKED_BYTES] = fields.try_into().map_err(|_| WireError::Truncated)?;
        let digest = Digest(digest.try_into().map_err(|_| WireError::Truncated)?);
        let [m0, m1, m2, m3, found, kind, r0, r1, l0, l1, l2, l3] = fields;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(WireError::Magic);
        }
        if found != version {
            return Err(WireError::Version { found, expected: version });
        }
        let kind = Kind::from_byte(kind).ok_or(WireError::Kind { found: kind })?;
        if [r0, r1] != [0, 0] {
            return Err(WireError::Reserved);
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let max = kind.body_bytes_max();
        match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Self { kind, length, checked: fields, digest }),
            _ => Err(WireError::Length { length: length.into(), max }),
        }
    }

    /// Judges the body that belongs to this header.
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), WireError> {
        if digest(&self.checked, &[], body) == self.digest { Ok(()) } else { Err(WireError::Digest) }
    }
}

fn digest(checked: &[u8; CHECKED_BYTES], fields: &[u8], body: &[u8]) -> Digest {
    Digest(*blake3::Hasher::new().update(checked).update(fields).update(body).finalize().as_bytes())
}

/// Makes a frame, as the pieces to write one after the other.
///
/// # Panics
/// When the body is over the kind's limit: the caller has judged it.
pub(crate) fn encode(version: u8, kind: Kind, body: Bytes) -> [Bytes; 2] {
    encode_behind(version, kind, &[], body).0
}

/// Makes the frame of a chunk that belongs at an offset of its transfer, and answers its digest, too.
///
/// # Panics
/// As `encode`.
pub(crate) fn encode_chunk(version: u8, offset: u64, chunk: Bytes) -> ([Bytes; 2], Digest) {
    encode_behind(version, Kind::BulkChunk, &offset.to_le_bytes(), chunk)
}

/// The body is what stands in `fields`, and then `rest`.
fn encode_behind(version: u8, kind: Kind, fields: &[u8], rest: Bytes) -> ([Bytes; 2], Digest) {
    let length = fields.len() + rest.len();
    assert!(length <= kind.body_bytes_max(), "a body is judged before it is framed");
    let length = u32::try_from(length).expect("every kind's limit is below 4 GiB");
    let mut checked = [0; CHECKED_BYTES];
    checked[..4].copy_from_slice(&MAGIC);
    checked[4] = version;
    checked[5] = kind as u8;
    checked[8..].copy_from_slice(&length.to_le_bytes());
    let digest = digest(&checked, fields, &rest);
    let mut header = Vec::with_capacity(HEADER_BYTES + fields.len());
    header.extend_from_slice(&checked);
    header.extend_from_slice(&digest.0);
    header.extend_from_slice(fields);
    ([header.into(), rest], digest)
}

/// A part of a transfer as it came.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Where in the transfer it belongs.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// Its frame's.
    pub(crate) digest: Digest,
}

/// Reads the next frame, which must be a chunk.
///
/// # Errors
/// As `read_frame`; `Body` when there is no offset.
pub(crate) async fn read_chunk(from: &mut (impl AsyncRead + Unpin), version: u8) -> Result<Chunk, WireError> {
    let (digest, body) = read_checked(from, version, Kind::BulkChunk).await?;
    let (offset, bytes) = decode_chunk(body)?;
    Ok(Chunk { offset, bytes, digest })
}

/// Where in its transfer a chunk belongs, and its bytes.
///
/// # Errors
/// `Body` when there is no offset.
pub(crate) fn decode_chunk(mut body: Bytes) -> Result<(u64, Bytes), WireError> {
    let offset = body.first_chunk::<OFFSET_BYTES>().copied();
    let offset = offset.map(u64::from_le_bytes).ok_or(WireError::Body { kind: Kind::BulkChunk })?;
    Ok((offset, body.split_off(OFFSET_BYTES)))
}

/// Makes a frame with a typed body.
pub(crate) fn encode_typed(version: u8, kind: Kind, body: &impl Serialize) -> [Bytes; 2] {
    let body = postcard::to_stdvec(body).expect("plain structs always encode");
    encode(version, kind, body.into())
}

/// Reads a typed body.
pub(crate) fn decode_typed<T: DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Body { kind }),
    }
}

/// Reads and judges the next header.
pub(crate) async fn read_header(
    from: &mut (impl AsyncRead + Unpin),
    version: u8,
) -> Result<Header, WireError> {
    let mut bytes = [0; HEADER_BYTES];
    from.read_exact(&mut bytes).await?;
    Header::decode(&bytes, version)
}

/// Reads and judges the body of a header.
pub(crate) async fn read_body(
    from: &mut (impl AsyncRead + Unpin),
    header: &Header,
) -> Result<Bytes, WireError> {
    // Room that nobody fills with zeros first.
    let mut body = Vec::with_capacity(header.length).limit(header.length);
    while body.has_remaining_mut() {
        if from.read_buf(&mut body).await? == 0 {
            return Err(WireError::Truncated);
        }
    }
    let body = body.into_inner();
    header.check(&body)?;
    Ok(body.into())
}

/// Reads the next frame, which must be of one kind. A refusal in its place is an error of its own.
pub(crate) async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
    version: u8,
    kind: Kind,
) -> Result<Bytes, WireError> {
    read_checked(from, version, kind).await.map(|(_, body)| body)
}

/// As `read_frame`; answers the frame's digest, too.
async fn read_checked(
    from: &mut (impl AsyncRead + Unpin),
    version: u8,
    kind: Kind,
) -> Result<(Digest, Bytes), WireError> {
    let header = read_header(from, version).await?;
    let is_refusal = header.kind == Kind::Refused;
    if header.kind != kind && !is_refusal {
        return Err(WireError::OutOfPlace { found: header.kind });
    }
    let body = read_body(from, &header).await?;
    if is_refusal {
        return Err(WireError::Refused(decode_typed(Kind::Refused, &body)?));
    }
    Ok((header.digest, body))
}

#[cfg(test)]
mod tests;
