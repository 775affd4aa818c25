//! What an agent may ask for, and where it may go: requests, their targets, and the grants that name targets.
//!
//! A url is read here, strictly, once; whoever carries the request out compares what its own reader makes of it, so that
//! no two readers see two hosts.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::secret::{self, SecretName};
use crate::limits::{
    HEADER_BYTES_MAX, OPERATION_HEADERS_MAX, OPERATION_REQUEST_BYTES_MAX, OPERATION_TIMEOUT_MS_MAX,
    URL_BYTES_MAX,
};

/// What is to be done. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// An HTTP request.
    Http(HttpRequest),
}

impl Request {
    /// How often it may be done.
    pub fn class(&self) -> Class {
        match self {
            Self::Http(request) => request.class,
        }
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Http(HttpRequest { method, url, headers, body, .. }) => {
                let headers = headers.iter().map(|(name, value)| name.len() + value.len());
                method.len() + url.len() + headers.sum::<usize>() + body.len()
            }
        }
    }
}

/// How often something may be done when nobody knows whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Again, under the same key.
    AtLeastOnce,
    /// Never again: its outcome is unknown then.
    AtMostOnce,
}

impl Class {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::AtMostOnce => "at-most-once",
        }
    }
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// One of `METHODS`.
    pub method: String,
    /// `http` or `https`, a host, perhaps a port, a path; see `Target::of_url`.
    pub url: String,
    /// Names in lower case, none of `HEADERS_OF_HOST`; secrets in values as their names, see `secret.rs`.
    pub headers: Vec<(String, String)>,
    /// At most `OPERATION_REQUEST_BYTES_MAX` bytes.
    pub body: Bytes,
    /// From its beginning to the last byte of the answer, milliseconds: 1..=`OPERATION_TIMEOUT_MS_MAX`.
    pub timeout_ms: u32,
    /// How often it may be done.
    pub class: Class,
}

/// Methods that may be used.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Headers that only the host sets: they say where a message goes, where it ends, and which operation it is.
pub const HEADERS_OF_HOST: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Why a request is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A part of it is not what it must be; the text says which.
    #[error("{0}")]
    Invalid(String),
    /// A part of it is larger than it may be.
    #[error("the {0} is larger than it may be")]
    TooLarge(&'static str),
}

impl HttpRequest {
    /// Checks all of it, and says where it goes.
    ///
    /// # Errors
    /// The first part that is not what it must be.
    pub fn check(&self) -> Result<Target, RequestError> {
        let invalid = |what: String| Err(RequestError::Invalid(what));
        if !METHODS.contains(&self.method.as_str()) {
            return invalid(format!("the method is not one of {}", METHODS.join(", ")));
        }
        if !(1..=OPERATION_TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return invalid(format!("the timeout is not 1 to {OPERATION_TIMEOUT_MS_MAX} ms"));
        }
        if self.url.len() > URL_BYTES_MAX {
            return Err(RequestError::TooLarge("url"));
        }
        if self.body.len() > OPERATION_REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge("body"));
        }
        let header_bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.headers.len() > OPERATION_HEADERS_MAX || header_bytes > HEADER_BYTES_MAX {
            return Err(RequestError::TooLarge("headers"));
        }
        for (name, value) in &self.headers {
            if name.is_empty() || !name.bytes().all(is_name_byte) {
                return invalid(format!(
                    "the header name {:?} is not a token in lower case",
                    shortened(name)
                ));
            }
            if HEADERS_OF_HOST.contains(&name.as_str()) {
                return invalid(format!("the header {name} is the host's to set"));
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                return invalid(format!("the value of the header {name} is not visible ASCII"));
            }
        }
        secret::named(&self.headers).map_err(RequestError::Invalid)?;
        Target::of_url(&self.url).ok_or_else(|| {
            let what = "the url is not http:// or https://, a host in lower case, perhaps a port, and a path in visible \
                        ASCII; without user, password and fragment";
            RequestError::Invalid(what.into())
        })
    }

    /// The secrets that its headers name; none of a request that `check` refuses.
    pub fn secrets(&self) -> BTreeSet<SecretName> {
        secret::named(&self.headers).unwrap_or_default()
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// A name in lower case, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The port, of the scheme if the url names none.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
}

impl Target {
    /// Reads where a url goes; `None` when it is not of the one plain form that is taken.
    pub fn of_url(url: &str) -> Option<Self> {
        let (is_tls, rest) = match url.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let is_plain = |byte: u8| (b'!'..=b'~').contains(&byte) && !b"\\\"<>^`{|}#".contains(&byte);
        if !rest.bytes().all(is_plain) {
            return None;
        }
        let authority = rest.split(['/', '?']).next()?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']')?;
                let address: std::net::Ipv6Addr = host.parse().ok()?;
                (address.to_string(), port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (host, port) = authority.split_at(end);
                (is_host_name(host).then(|| host.to_owned())?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0)?
            }
            _ => return None,
        };
        Some(Self { host, port, is_tls })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A name as the internet has them, in lower case, or an IPv4 address in its usual form. What looks like a number but is
/// none would be read in more than one way.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_numeric = last.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let is_named = text.len() <= 253 && text.split('.').all(is_label);
    is_named && (!is_numeric || text.parse::<std::net::Ipv4Addr>().is_ok())
}

/// Before the target of a grant to make HTTP requests: `operations.http:HOST:PORT`.
pub const HTTP_GRANT_PREFIX: &str = "operations.http:";

/// Targets that may be reached: `HOST:PORT`, each of which may be `*` for any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetPattern {
    host: Option<String>,
    port: Option<u16>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not HOST:PORT: a host name in lower case or an address (IPv6 in brackets), and a port; either may be *"
)]
pub struct NotAPattern;

impl FromStr for TargetPattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAPattern)?;
        let port = match port {
            "*" => None,
            digits => Some(digits.parse().ok().filter(|port| *port > 0).ok_or(NotAPattern)?),
        };
        let host = match (host, host.strip_prefix('[').and_then(|host| host.strip_suffix(']'))) {
            ("*", _) => None,
            (_, Some(address)) => {
                let address: std::net::Ipv6Addr = address.parse().map_err(|_| NotAPattern)?;
                Some(address.to_string())
            }
            (name, None) => Some(is_host_name(name).then(|| name.to_owned()).ok_or(NotAPattern)?),
        };
        Ok(Self { host, port })
    }
}

impl TargetPattern {
    /// Whether a target is among them.
    pub fn allows(&self, target: &Target) -> bool {
        self.host.as_ref().is_none_or(|host| *host == target.host)
            && self.port.is_none_or(|port| port == target.port)
    }

    /// The targets of a grant, if it is one to make HTTP requests.
    pub fn of_grant(grant: &str) -> Option<Self> {
        grant.strip_prefix(HTTP_GRANT_PREFIX)?.parse().ok()
    }
}

/// Whether one of a plugin's grants allows a target.
pub fn is_granted(grants: &[String], target: &Target) -> bool {
    grants.iter().filter_map(|grant| TargetPattern::of_grant(grant)).any(|pattern| pattern.allows(target))
}
