//! Secrets by name: how a request says where its host fills one in, and the grant for it. Values are the host's alone: they
//! are never in here.
//!
//! A header's value names a secret as `{{secret:NAME}}`, also within a longer text: `Bearer {{secret:NAME}}`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{OPERATION_SECRETS_MAX, SECRET_NAME_BYTES_MAX};

/// Before the name in a grant to use a secret: `secrets.NAME`.
pub const SECRET_GRANT_PREFIX: &str = "secrets.";

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const WORD: &str = "secret:";

/// The name of a secret: 1..=64 bytes of `[a-z0-9_-]`, starting with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(Arc<str>);

/// Why a text is no name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not the name of a secret: 1 to {SECRET_NAME_BYTES_MAX} lower-case letters, digits, dashes and underscores, a letter first"
)]
pub struct NotASecretName;

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The secret of a grant, if it is one to use a secret.
    pub fn of_grant(grant: &str) -> Option<Self> {
        grant.strip_prefix(SECRET_GRANT_PREFIX)?.parse().ok()
    }

    /// Whether one of a plugin's grants allows it.
    pub fn is_granted(&self, grants: &[String]) -> bool {
        grants.iter().any(|grant| grant.strip_prefix(SECRET_GRANT_PREFIX) == Some(self.as_str()))
    }
}

impl FromStr for SecretName {
    type Err = NotASecretName;

    fn from_str(text: &str) -> Result<Self, NotASecretName> {
        let alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if starts_well && text.len() <= SECRET_NAME_BYTES_MAX && text.bytes().all(alphabet) {
            Ok(Self(text.into()))
        } else {
            Err(NotASecretName)
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A piece of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Stands for itself.
    Text(&'a str),
    /// Stands for a secret's value.
    Secret(SecretName),
}

/// Why a header's value can't be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has {OPEN} that does not begin {OPEN}{WORD}NAME{CLOSE}: NAME {NotASecretName}")]
pub struct BadPlaceholder;

/// Takes a header's value apart. Every `{{` in it must begin a placeholder, so that a slip of the pen is not sent as it stands.
///
/// # Errors
/// `BadPlaceholder`.
pub fn pieces(value: &str) -> Result<Vec<Piece<'_>>, BadPlaceholder> {
    let mut pieces = Vec::new();
    let mut rest = value;
    while let Some((text, behind)) = rest.split_once(OPEN) {
        let (inside, behind) = behind.split_once(CLOSE).ok_or(BadPlaceholder)?;
        let name = inside.strip_prefix(WORD).ok_or(BadPlaceholder)?;
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        pieces.push(Piece::Secret(name.parse().map_err(|NotASecretName| BadPlaceholder)?));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// The secrets that headers name.
///
/// # Errors
/// What is wrong, behind the name of the header; or that there are too many.
pub(super) fn named(headers: &[(String, String)]) -> Result<BTreeSet<SecretName>, String> {
    let mut names = BTreeSet::new();
    let mut count = 0;
    for (header, value) in headers {
        let pieces = pieces(value).map_err(|error| format!("the value of the header {header} {error}"))?;
        for piece in pieces {
            if let Piece::Secret(name) = piece {
                names.insert(name);
                count += 1;
            }
        }
    }
    if count > OPERATION_SECRETS_MAX {
        return Err(format!("its headers name secrets {count} times, and may {OPERATION_SECRETS_MAX} times"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
