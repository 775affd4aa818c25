//! Trace context: the W3C `traceparent` that came with an input. Kept with it, for whoever follows a request through hosts.

use serde::{Deserialize, Serialize};

/// A `traceparent` in the form of version 00: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, ids not all zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(String);

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent of version 00")]
pub struct TraceParentError;

impl TraceParent {
    /// Parses a header's value.
    ///
    /// # Errors
    /// When a part is missing, of another length, not lower-case hex, or an id is zero. A later version of the standard is
    /// no error there; it is one here, because only what is understood is passed on.
    pub fn parse(text: &str) -> Result<Self, TraceParentError> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, parent, flags] = parts[..] else {
            return Err(TraceParentError);
        };
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |part: &str, digits| is_hex(part, digits) && part.bytes().any(|byte| byte != b'0');
        if version == "00" && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TraceParentError)
        }
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TraceParent {
    type Error = TraceParentError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.0
    }
}

#[cfg(test)]
mod tests;
