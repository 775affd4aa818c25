//! Bytes in JSON: as text when they are UTF-8, else in base64 under another name.

use serde_json::{Map, Value};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The member that shows `bytes`: `NAME` with text, or `NAME_base64` when they are not UTF-8.
pub(super) fn member(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), Value::from(text)),
        Err(_) => (format!("{name}_base64"), Value::from(base64(bytes))),
    }
}

/// An object of that one member, to be flattened into another.
pub(super) fn members(name: &str, bytes: &[u8]) -> Map<String, Value> {
    Map::from_iter([member(name, bytes)])
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = (bits >> (18 - 6 * digit)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
