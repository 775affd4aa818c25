//! Snapshots: guest state at a revision, and the envelope it is stored and sent in.
//!
//! The store keeps a snapshot as columns and bytes; the envelope is for files and archives: magic `GWSN`, format version (u8),
//! BLAKE3 of the rest (32 bytes), then postcard of the header and the state bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{FencingToken, Generation, Revision};

/// Guest state at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The generation whose state it is.
    pub generation: Generation,
    /// The boundary after which it was taken.
    pub revision: Revision,
    /// Token of that boundary: with `time_ms` it makes the circumstances under which the state is taken over again.
    pub token: FencingToken,
    /// Agent time of that boundary in Unix milliseconds.
    pub time_ms: u64,
    /// The plugin version that wrote the bytes.
    pub plugin_version: String,
    /// What the guest's `snapshot` returned.
    pub state: Bytes,
}

impl Snapshot {
    /// Digest of the state bytes: what the receipt of its boundary names.
    pub fn state_digest(&self) -> Digest {
        Digest::of(&self.state)
    }

    /// Digest of the whole snapshot: its header, and the digest of its state, which the caller has.
    pub fn digest(&self, state: Digest) -> Digest {
        Digest::of_parts([
            &self.generation.0.to_le_bytes()[..],
            &self.revision.0.to_le_bytes(),
            &self.token.0.to_le_bytes(),
            &self.time_ms.to_le_bytes(),
            self.plugin_version.as_bytes(),
            &state.0,
        ])
    }
}

const MAGIC: [u8; 4] = *b"GWSN";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1 + 32;

/// Why bytes are not a snapshot envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than the reader allows.
    #[error("snapshot envelope of {size} bytes is over the limit of {max}")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not an envelope at all, or cut off.
    #[error("not a snapshot envelope")]
    Magic,
    /// Written by another format.
    #[error("snapshot envelope has format {found}, this build reads {FORMAT}")]
    Format {
        /// Its format.
        found: u8,
    },
    /// The bytes are damaged.
    #[error("snapshot envelope is damaged: its digest does not match")]
    Digest,
    /// The digest matches and the content is not a snapshot: written by a faulty program.
    #[error("snapshot envelope holds something else")]
    Content,
}

impl Snapshot {
    /// Writes the envelope.
    pub fn to_envelope(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a snapshot has no type that postcard can't write");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&Digest::of(&body).0);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads an envelope of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// `EnvelopeError`; nothing is served from bytes that fail any check.
    pub fn from_envelope(bytes: &[u8], bytes_max: usize) -> Result<Self, EnvelopeError> {
        if bytes.len() > bytes_max {
            return Err(EnvelopeError::TooLarge { size: bytes.len(), max: bytes_max });
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(EnvelopeError::Magic)?;
        let (format, rest) = rest.split_first().ok_or(EnvelopeError::Magic)?;
        if *format != FORMAT {
            return Err(EnvelopeError::Format { found: *format });
        }
        let (digest, body) = rest.split_first_chunk::<32>().ok_or(EnvelopeError::Magic)?;
        if Digest::of(body) != Digest(*digest) {
            return Err(EnvelopeError::Digest);
        }
        match postcard::take_from_bytes(body) {
            Ok((snapshot, [])) => Ok(snapshot),
            _ => Err(EnvelopeError::Content),
        }
    }
}

#[cfg(test)]
mod tests;
