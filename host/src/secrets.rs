//! Secrets of the host: where their values come from, and where they may go.
//!
//! A guest knows a secret by name only (`core::operation::secret`). Its value is read when a request is sent and not before
//! (`filling.rs`), so that it is in nothing that is stored; and it is taken out of the answer (`redact.rs`). A secret of
//! kind `oauth` is obtained by a sign-in (`flows.rs`, `book.rs`, `oauth.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use godwit_core::limits::SECRET_BYTES_MAX;
use godwit_core::operation::request::{Target, TargetPattern};
use godwit_core::operation::secret::SecretName;
use zeroize::Zeroizing;

pub mod book;
pub mod filling;
pub mod flows;
pub mod oauth;
mod redact;

use self::oauth::OAuthConfig;

/// The secrets of a host, by name.
pub type SecretsConfig = BTreeMap<SecretName, SecretConfig>;

/// A secret's text. Nothing shows it, and its memory is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a text, whatever it says.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for whoever sends or seals it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same text, if a header can carry it.
    ///
    /// # Errors
    /// Why not, without it.
    pub fn checked(self) -> Result<Self, String> {
        let is_visible = |byte: u8| (b' '..=b'~').contains(&byte);
        match self.expose() {
            "" => Err("it is empty".into()),
            text if text.len() > SECRET_BYTES_MAX => {
                Err(format!("it has more than {SECRET_BYTES_MAX} bytes"))
            }
            text if !text.bytes().all(is_visible) => {
                Err("it has bytes that are not visible ASCII, which a header can't carry".into())
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

/// One secret, as its operator configures it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretConfig {
    /// Where its value may be sent; never empty.
    pub hosts: Vec<AllowedHost>,
    /// Where its value comes from.
    pub origin: Origin,
}

/// How a host comes by a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Its operator gives it.
    Given(Source),
    /// A sign-in obtains it, and it is refreshed.
    SignIn(Box<OAuthConfig>),
}

impl Origin {
    /// The name in the HTTP API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Given(Source::File(_)) => "file",
            Self::Given(Source::Env { .. }) => "env",
            Self::Given(Source::Value(_)) => "value",
            Self::SignIn(_) => "oauth",
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file is read each time, so that a new value needs no restart.
    File(PathBuf),
    /// From the environment of the host's process.
    Env {
        /// The variable.
        name: String,
        /// What it held at the start.
        value: Option<SecretText>,
    },
    /// Stands in the configuration file.
    Value(SecretText),
}

impl Source {
    /// The value now.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn read(&self) -> Result<SecretText, String> {
        match self {
            Self::Value(value) => value.clone().checked(),
            Self::Env { name, value: None } => {
                Err(format!("the variable {name} was not set when the host started"))
            }
            Self::Env { name, value: Some(value) } => {
                value.clone().checked().map_err(|reason| format!("the variable {name}: {reason}"))
            }
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path));
                read.await.unwrap_or_else(|_| Err("the file could not be read".into()))
            }
        }
    }
}

/// Reads a file that holds a value and perhaps one line's end.
fn read_file(path: &Path) -> Result<SecretText, String> {
    let failed = |reason: &dyn fmt::Display| format!("the file {}: {reason}", path.display());
    // More than a value and its line's end is too much, however large the file is.
    let limit = SECRET_BYTES_MAX as u64 + 3;
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX + 3));
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(limit).read_to_string(&mut text).map_err(|error| failed(&error))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    SecretText::new(line.to_owned()).checked().map_err(|reason| failed(&reason))
}

/// A target that a secret may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    text: String,
    pattern: TargetPattern,
    /// Whether unencrypted requests may carry it there.
    is_plain: bool,
}

const PLAIN_PREFIX: &str = "http://";

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_plain, target) = match text.strip_prefix(PLAIN_PREFIX) {
            Some(target) => (true, target),
            None => (false, text),
        };
        let pattern = target.parse().ok().filter(|_| !target.contains('*'));
        let pattern = pattern.ok_or_else(|| {
            format!("{text:?} is not HOST:PORT (or {PLAIN_PREFIX}HOST:PORT, to allow it unencrypted): one host in lower case and one port, without *")
        })?;
        Ok(Self { text: text.to_owned(), pattern, is_plain })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a request can't be filled in. The text is for the agent and its operator; it never has a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not configured.
    #[error("the host has no secret {name}: its operator adds [secrets.{name}] to the configuration")]
    Unknown {
        /// Which.
        name: SecretName,
    },
    /// The plugin has not asked for it.
    #[error("the plugin has no grant secrets.{name}: its manifest must ask for it")]
    NotGranted {
        /// Which.
        name: SecretName,
    },
    /// The operator does not let it go there.
    #[error(
        "secret {name} may not be sent to {target}: its operator has not listed that in secrets.{name}.hosts"
    )]
    NotForTarget {
        /// Which.
        name: SecretName,
        /// Where it should have gone.
        target: Target,
    },
    /// Everybody on the way could read it.
    #[error(
        "secret {name} is not sent unencrypted: use https, or list http://{target} in secrets.{name}.hosts"
    )]
    Unencrypted {
        /// Which.
        name: SecretName,
        /// Where it should have gone.
        target: Target,
    },
    /// There is none now.
    #[error("secret {name} has no value: {reason}")]
    NoValue {
        /// Which.
        name: SecretName,
        /// Why, without any value.
        reason: String,
    },
}

impl SecretConfig {
    /// Whether the secret `name`, which this is, may be sent to a target.
    ///
    /// # Errors
    /// `NotForTarget`, `Unencrypted`.
    pub fn check(&self, name: &SecretName, target: &Target) -> Result<(), SecretError> {
        let mut hosts = self.hosts.iter().filter(|host| host.pattern.allows(target)).peekable();
        if hosts.peek().is_none() {
            return Err(SecretError::NotForTarget { name: name.clone(), target: target.clone() });
        }
        // What does not leave this machine needs no encryption.
        if target.is_tls || is_loopback(&target.host) || hosts.any(|host| host.is_plain) {
            Ok(())
        } else {
            Err(SecretError::Unencrypted { name: name.clone(), target: target.clone() })
        }
    }
}

/// Whether a host of a url is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
