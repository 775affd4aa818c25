//! A secret on its way to one host: sealed to that host's key, and to what it is meant for.
//!
//! Ephemeral Diffie-Hellman on Curve25519 between a fresh key and the host's, whose ed25519 key serves as an X25519 key as
//! `ed25519-dalek` documents it; a key derived from the shared secret, both public keys and the context (BLAKE3); then
//! ChaCha20-Poly1305. The form of RFC 9180's base mode, with the primitives that are here already. Each envelope has a key of
//! its own, so its nonce is zero.
//!
//! ```text
//! version 1 | fresh public key, 32 bytes | sealed secret, 32 bytes | tag, 16 bytes
//! ```

use ed25519_dalek::{SigningKey, VerifyingKey};
use godwit_core::id::HostId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Bytes of an envelope.
pub(crate) const ENVELOPE_BYTES: usize = 1 + KEY_BYTES + SECRET_BYTES + TAG_BYTES;
const DERIVED_FOR: &str = "godwit 2026 envelope of a secret for one host";

/// Seals a secret so that only `target` opens it, and only for `context`. `random` must not be used again. `None` when the
/// target's key is not one to which anything can be sealed.
pub(crate) fn seal(
    target: HostId,
    context: &[u8],
    secret: &[u8; SECRET_BYTES],
    random: &[u8; KEY_BYTES],
) -> Option<Vec<u8>> {
    let target = public(&target.0)?;
    let fresh = SigningKey::from_bytes(random);
    let key = derive(&fresh, &target, &fresh.verifying_key(), &target, context)?;
    let mut sealed = secret.to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::from(context), &mut sealed).ok()?;
    Some([&[VERSION][..], fresh.verifying_key().as_bytes(), &sealed].concat())
}

/// Opens what was sealed to this key for this context; `None` for anything else.
pub(crate) fn open(
    own: &SigningKey,
    context: &[u8],
    envelope: &[u8],
) -> Option<Zeroizing<[u8; SECRET_BYTES]>> {
    let (version, rest) = envelope.split_first().filter(|_| envelope.len() == ENVELOPE_BYTES)?;
    if *version != VERSION {
        return None;
    }
    let (fresh, sealed) = rest.split_first_chunk::<KEY_BYTES>()?;
    let fresh = public(fresh)?;
    let key = derive(own, &fresh, &fresh, &own.verifying_key(), context)?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let secret = key.open_in_place(nonce(), Aad::from(context), &mut sealed).ok()?;
    let mut opened = Zeroizing::new([0; SECRET_BYTES]);
    opened.copy_from_slice(secret);
    Some(opened)
}

/// A public key that is none of the few with which a shared secret would be no secret.
fn public(bytes: &[u8; KEY_BYTES]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

fn derive(
    secret: &SigningKey,
    other: &VerifyingKey,
    fresh: &VerifyingKey,
    target: &VerifyingKey,
    context: &[u8],
) -> Option<LessSafeKey> {
    let scalar = Zeroizing::new(secret.to_scalar_bytes());
    let shared = Zeroizing::new(other.to_montgomery().mul_clamped(*scalar).to_bytes());
    if *shared == [0; KEY_BYTES] {
        return None;
    }
    let mut hasher = blake3::Hasher::new_derive_key(DERIVED_FOR);
    for part in [&shared[..], fresh.as_bytes(), target.as_bytes(), context] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    UnboundKey::new(&CHACHA20_POLY1305, &key[..]).ok().map(LessSafeKey::new)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests;
