//! Sealing secrets at rest: ChaCha20-Poly1305 under a key that is not in the database.
//!
//! A sealed secret is `[format u8][key name 8 bytes][nonce 12 bytes][ciphertext and tag]`. The context says what it is and
//! where; bytes that were put somewhere else don't open.

use godwit_core::digest::Digest;
use godwit_core::store::StoreError;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const NAME_BYTES: usize = 8;

/// What secrets in a store are sealed under. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SealKey {
    /// Tells one key from another.
    name: [u8; NAME_BYTES],
    secret: [u8; 32],
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// A key of 32 secret bytes that are used for nothing else.
    pub fn new(secret: [u8; 32]) -> Self {
        let digest = Digest::of_parts([b"godwit name of a seal key".as_slice(), &secret]);
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&digest.0[..NAME_BYTES]);
        Self { name, secret }
    }

    fn cipher(&self) -> Result<LessSafeKey, StoreError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.secret);
        key.map(LessSafeKey::new).map_err(|_| StoreError::Unsupported { what: "sealing with this key" })
    }

    /// Seals bytes under a nonce that was never used before: fresh random bytes.
    pub(super) fn seal(
        &self,
        plain: &[u8],
        context: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, StoreError> {
        let mut bytes = plain.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut bytes)
            .map_err(|_| StoreError::Full)?;
        Ok([&[FORMAT][..], &self.name, &nonce, &bytes].concat())
    }

    /// Opens sealed bytes; `what` names them when they don't open.
    pub(super) fn open(&self, sealed: &[u8], context: &[u8], what: &str) -> Result<Vec<u8>, StoreError> {
        let corrupt = || StoreError::Corrupt { what: format!("{what}: the seal does not open") };
        let (format, rest) = sealed.split_first().ok_or_else(corrupt)?;
        let (name, rest) = rest.split_first_chunk::<NAME_BYTES>().ok_or_else(corrupt)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(corrupt)?;
        if *format != FORMAT {
            return Err(corrupt());
        }
        if *name != self.name {
            return Err(StoreError::Conflict { what: format!("{what}: another host's key seals it") });
        }
        // Holds the secret in plain once it is open.
        let mut bytes = Zeroizing::new(rest.to_vec());
        let cipher = self.cipher()?;
        let opened = cipher.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(context),
            bytes.as_mut_slice(),
        );
        opened.map(|plain| plain.to_vec()).map_err(|_| corrupt())
    }
}

#[cfg(test)]
mod tests;
