//! Takes values of secrets out of what came back: every place where one stands as it was sent is covered with asterisks,
//! so many as it has bytes.
//!
//! What it can't see: a value that the other side has encoded, encrypted, compressed, cut up or turned round. Who may be
//! sent a secret is decided by its `hosts`; this is for servers that echo what they were sent, as debugging pages do.

use memchr::memmem;

/// What stands in the place of a value's byte.
const COVER: u8 = b'*';

/// Covers all values in bytes. Answers whether there were any.
pub(super) fn cover(bytes: &mut [u8], values: &[&[u8]]) -> bool {
    let mut places = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let finder = memmem::Finder::new(value);
        let mut from = 0;
        // They may overlap, with others and with themselves: each is looked for in what came, uncovered.
        while let Some(at) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
            places.push(from + at..from + at + value.len());
            from += at + 1;
        }
    }
    for place in &places {
        bytes[place.clone()].fill(COVER);
    }
    !places.is_empty()
}

/// Covers all values in a text.
pub(super) fn cover_text(text: &mut String, values: &[&[u8]]) -> bool {
    let mut bytes = std::mem::take(text).into_bytes();
    let has_changed = cover(&mut bytes, values);
    // A value is ASCII, so that no character is left cut in two.
    *text = String::from_utf8(bytes).unwrap_or_default();
    has_changed
}

#[cfg(test)]
mod tests;
