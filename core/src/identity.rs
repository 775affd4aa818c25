//! Entity keys: the ed25519 key pair that an agent has from its creation, and the signatures made with it.
//!
//! What an agent signs is `SIGNATURE_PREFIX`, its id, a zero byte, and the message. No id has a zero byte in it, so that no
//! two agents or messages share these bytes, and nothing else that a host or peer signs begins with them. `verify` is all
//! that somebody else needs: the agent's id, its public key, the message and the 64 bytes of the signature.
//!
//! Where the key is kept, and when it is another one, is said by the store's contract.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::id::{AgentId, FencingToken, Generation, IdError};

mod statement;

pub use statement::{STATEMENT_PREFIX, SignedStatement, Statement};

/// What the signed bytes begin with, so that they can't be taken for anything else.
pub const SIGNATURE_PREFIX: &[u8] = b"godwit agent signature v1\0";
/// A signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// The public half of an entity key: 32 bytes raw, 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntityPublicKey(pub [u8; 32]);

impl EntityPublicKey {
    /// The short name of the agent that has this key.
    pub fn origin_hash(self) -> OriginHash {
        let hash = blake3::derive_key("godwit 2026 origin hash of an entity key", &self.0);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        OriginHash(u64::from_le_bytes(first))
    }
}

impl fmt::Display for EntityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest(self.0), f)
    }
}

impl fmt::Debug for EntityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntityPublicKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.parse::<Digest>() {
            Ok(Digest(bytes)) => Ok(Self(bytes)),
            Err(_) => Err(IdError::Hex { what: "public key", text: text.chars().take(160).collect() }),
        }
    }
}

/// Tells two agents of one name apart: the first 8 bytes, little endian, of a BLAKE3 key derived from the public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OriginHash(pub u64);

impl fmt::Display for OriginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which agent of a name somebody is, as far as that is known, and as of when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAs {
    /// Of its key.
    pub hash: Option<OriginHash>,
    /// Its generation then.
    pub generation: Generation,
    /// Its token then.
    pub token: FencingToken,
}

impl KnownAs {
    /// Whether who says to be this agent is another one of its name. One that was made anew has another key and a higher
    /// generation; one that came from an archive has another key and a higher epoch.
    pub fn is_namesake(&self, given: &Self) -> bool {
        let differs = self.hash.zip(given.hash).is_some_and(|(known, given)| known != given);
        differs && given.generation <= self.generation && given.token.epoch() == self.token.epoch()
    }
}

/// An agent's key pair. Its `Debug` shows the public half only; the secret is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct EntityKey(SigningKey);

impl EntityKey {
    /// The key of 32 secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret bytes, for a store to seal.
    pub fn secret(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> EntityPublicKey {
        EntityPublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message as an agent. The same bytes for the same agent and message.
    pub fn sign(&self, agent: &AgentId, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(&signed_bytes(agent, message)).to_bytes()
    }

    /// Signs bytes as they are. They must begin with a prefix that nothing else begins with that this key signs.
    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityKey({})", self.public())
    }
}

impl Serialize for EntityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.secret().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EntityKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secret = Zeroizing::new(<[u8; 32]>::deserialize(deserializer)?);
        Ok(Self::from_secret(&secret))
    }
}

/// An entity key as a row that travels with its agent. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntityKeyRow {
    /// The secret stays behind, or is lost: whoever has this row can't sign.
    Public(EntityPublicKey),
    /// The whole key. For stores; never for a file or another host.
    Whole(EntityKey),
    /// On its way: only the target of one migration opens the envelope. A store that is handed it keeps the public half.
    Sealed {
        /// The public half.
        public: EntityPublicKey,
        /// The secret half, sealed.
        envelope: Bytes,
    },
}

impl EntityKeyRow {
    /// The public half.
    pub fn public(&self) -> EntityPublicKey {
        match self {
            Self::Public(public) | Self::Sealed { public, .. } => *public,
            Self::Whole(key) => key.public(),
        }
    }

    /// The row without the secret.
    #[must_use]
    pub fn without_secret(&self) -> Self {
        Self::Public(self.public())
    }

    /// The whole key, if it is here.
    pub fn key(&self) -> Option<&EntityKey> {
        match self {
            Self::Public(_) | Self::Sealed { .. } => None,
            Self::Whole(key) => Some(key),
        }
    }
}

/// What an agent signs when it signs a message.
pub fn signed_bytes(agent: &AgentId, message: &[u8]) -> Vec<u8> {
    [SIGNATURE_PREFIX, agent.as_str().as_bytes(), &[0], message].concat()
}

/// Whether an agent with this public key has signed a message. Strict: weak keys and second forms of a signature are refused.
pub fn verify(agent: &AgentId, public: EntityPublicKey, message: &[u8], signature: &[u8]) -> bool {
    is_signed(public, &signed_bytes(agent, message), signature)
}

/// Whether the holder of a key has signed bytes as they are. As strict as `verify`.
pub(crate) fn is_signed(public: EntityPublicKey, bytes: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::from_bytes(&public.0);
    let signature = Signature::from_slice(signature);
    key.ok().zip(signature.ok()).is_some_and(|(key, signature)| key.verify_strict(bytes, &signature).is_ok())
}

/// The bytes to sign of a value that has a prefix of its own.
pub(crate) fn prefixed<T: Serialize>(prefix: &[u8], what: &T) -> Vec<u8> {
    postcard::to_extend(what, prefix.to_vec()).expect("what is signed has no type that postcard can't write")
}

#[cfg(test)]
mod tests;
