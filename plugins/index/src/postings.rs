//! The documents that hold one word: ascending numbers, kept as the gaps between them in LEB128, mostly one byte each.
//!
//! A snapshot copies the bytes as they are, which is what makes it fast.

use godwit_guest::Bytes;
use serde::{Deserialize, Serialize};

/// A list of ascending numbers, 1.. each.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Postings {
    last: u64,
    gaps: Bytes,
}

impl Postings {
    /// Appends a number, which is larger than all before it.
    pub(crate) fn push(&mut self, number: u64) {
        debug_assert!(number > self.last);
        let mut gap = number - self.last;
        while gap >= 0x80 {
            self.gaps.push(gap as u8 | 0x80);
            gap >>= 7;
        }
        self.gaps.push(gap as u8);
        self.last = number;
    }

    /// Takes a number out, if it is there.
    pub(crate) fn remove(&mut self, number: u64) {
        if self.iter().any(|held| held == number) {
            let mut rest = Self::default();
            self.iter().filter(|held| *held != number).for_each(|held| rest.push(held));
            *self = rest;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// The numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let mut bytes = self.gaps.iter();
        let mut number = 0;
        std::iter::from_fn(move || {
            let mut shift = 0;
            loop {
                let byte = *bytes.next()?;
                number += u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return Some(number);
                }
                shift += 7;
            }
        })
    }
}
