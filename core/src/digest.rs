//! BLAKE3 digests: the one hash of the system, 32 bytes raw, 64 lower-case hex digits as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::IdError;

/// A BLAKE3 digest, 32 bytes raw.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The parent of a first receipt.
    pub const ZERO: Self = Self([0; 32]);

    /// Digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of a sequence of parts, each prefixed by its length (u64, little endian), so that no two different
    /// sequences share an encoding.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// A digest of digests, in order, as they come: both ends of a transfer compare it.
#[derive(Debug, Clone, Default)]
pub struct RunningDigest(blake3::Hasher);

impl RunningDigest {
    /// Takes one more into account.
    pub fn add(&mut self, digest: Digest) {
        self.0.update(&digest.0);
    }

    /// The digest so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let is_lower_hex =
            text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let parsed = is_lower_hex.then(|| blake3::Hash::from_hex(text).ok()).flatten();
        parsed
            .map(|hash| Self(*hash.as_bytes()))
            .ok_or_else(|| IdError::Hex { what: "digest", text: text.chars().take(160).collect() })
    }
}
