//! What fills a request: the values that its headers name, read for this request alone.

use std::collections::BTreeMap;

use godwit_core::operation::OperationEnd;
use godwit_core::operation::secret::{Piece, SecretName, pieces};
use reqwest::header::HeaderValue;

use super::SecretText;
use super::redact::{cover, cover_text};

/// Values of secrets, for one request.
#[derive(Debug, Default)]
pub struct Filling(BTreeMap<SecretName, SecretText>);

impl Filling {
    /// Adds a value.
    pub fn insert(&mut self, name: SecretName, value: SecretText) {
        self.0.insert(name, value);
    }

    /// The value of a header with every placeholder filled in; `None` when one has no value, or it is no header's value.
    pub fn fill(&self, value: &str) -> Option<HeaderValue> {
        let mut filled = zeroize::Zeroizing::new(String::new());
        let mut is_sensitive = false;
        for piece in pieces(value).ok()? {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Secret(name) => {
                    filled.push_str(self.0.get(&name)?.expose());
                    is_sensitive = true;
                }
            }
        }
        let mut header = HeaderValue::from_str(&filled).ok()?;
        // So that no log of the client's shows it.
        header.set_sensitive(is_sensitive);
        Some(header)
    }

    /// Covers every value in what came back.
    pub fn redact(&self, mut end: OperationEnd) -> OperationEnd {
        let values: Vec<_> = self.0.values().map(|value| value.expose().as_bytes()).collect();
        if values.is_empty() {
            return end;
        }
        let mut has_changed =
            cover_text(&mut end.reason, &values) | cover_text(&mut end.content_type, &values);
        for (name, value) in &mut end.headers {
            has_changed |= cover_text(name, &values) | cover_text(value, &values);
        }
        let mut body = Vec::from(end.body);
        has_changed |= cover(&mut body, &values);
        end.body = body.into();
        if has_changed {
            tracing::info!(secrets = ?self.0.keys().map(SecretName::as_str).collect::<Vec<_>>(), "an answer had values of secrets");
        }
        end
    }
}

#[cfg(test)]
mod tests;
