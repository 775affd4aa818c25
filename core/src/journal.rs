//! Journal entries: what is needed, beside a turn's receipt and inputs, to run the turn again and see the same world.
//!
//! The receipt holds the header (token, plugin, spec revision, inputs, agent time, digest of the effects); the entry adds
//! the attempt, the seed of the guest's random numbers, and the answers of those import calls that are no pure function of
//! the header and of earlier calls of the turn: reads of `state`, and every error. All other answers come out the same by
//! themselves.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::input::Input;

/// One turn of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// 1.. for the first input of the call.
    pub attempt: u32,
    /// Seed of the guest's random numbers.
    pub seed: [u8; 32],
    /// In the order of the calls.
    pub answers: Vec<RecordedAnswer>,
}

/// What an import call answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAnswer {
    /// Which of the turn's calls of the host's own imports it was: 0...
    pub call: u32,
    /// The answer in the engine's own encoding.
    pub answer: Bytes,
}

/// A journal entry with the payloads of the inputs that its receipt names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournaledTurn {
    /// The entry.
    pub entry: JournalEntry,
    /// In the order in which the guest got them.
    pub inputs: Vec<Input>,
}

impl JournalEntry {
    /// Digest of the entry: what the receipt of its turn names.
    pub fn digest(&self) -> Digest {
        let bytes = postcard::to_stdvec(self).expect("an entry has no type that postcard can't write");
        Digest::of(&bytes)
    }

    /// About how many bytes the entry takes.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.answers.iter().map(|recorded| recorded.answer.len() + 8).sum::<usize>()
    }
}
