//! Receipts: the record that a boundary committed, chained by digest to the one before.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{
    AgentId, FencingToken, Generation, HostId, Incarnation, InputId, Revision, RunId, SpecRevision,
};

mod checkpoint;

pub use checkpoint::{Checkpoint, ReceiptCheckpoint};

/// What kind of boundary committed. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BoundaryKind {
    /// The guest's `init`, once per generation.
    Init,
    /// A turn.
    Turn,
    /// An input given up; no guest call counted.
    DeadLetter,
    /// The plugin was exchanged.
    Upgrade,
    /// An operator accepted another state.
    Repair,
}

impl BoundaryKind {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Turn => "turn",
            Self::DeadLetter => "dead-letter",
            Self::Upgrade => "upgrade",
            Self::Repair => "repair",
        }
    }
}

/// The record of one boundary. Immutable; key (agent, generation, revision).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose boundary.
    pub agent: AgentId,
    /// In which generation.
    pub generation: Generation,
    /// The revision that this boundary made; the first is 1.
    pub revision: Revision,
    /// For tracing.
    pub run: RunId,
    /// Position within the run, 0...
    pub sequence: u32,
    /// What happened.
    pub kind: BoundaryKind,
    /// The inputs that ended here, in the order in which the guest got them.
    pub inputs: Vec<InputId>,
    /// Token of the committing owner.
    pub token: FencingToken,
    /// The committing host.
    pub host: HostId,
    /// Its incarnation in the store that committed.
    pub incarnation: Incarnation,
    /// Code that ran.
    pub plugin: Digest,
    /// Spec that applied.
    pub spec_revision: SpecRevision,
    /// Digest of replies, state writes and outputs.
    pub effects: Digest,
    /// Digest of the snapshot, when one is stored with this boundary.
    pub state: Option<Digest>,
    /// Digest of the journal entry, when one is stored with this boundary.
    pub journal: Option<Digest>,
    /// Digest of the receipt before; `Digest::ZERO` for the first of a generation.
    pub parent: Digest,
    /// Time in the guest, microseconds.
    pub elapsed_us: u64,
    /// Fuel used, when metered.
    pub fuel: Option<u64>,
    /// Wall time of the turn in Unix milliseconds; never goes back within an agent.
    pub committed_at_ms: u64,
    /// What was given up: by an upgrade the digest of the plugin before, by a repair the digest that the history names where it
    /// first does not fit what was found: of a state, or of the effects of a turn.
    pub from: Option<Digest>,
}

impl Receipt {
    /// The canonical bytes: postcard, fields in the order above.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a receipt has no type that postcard can't write")
    }

    /// Reads canonical bytes; nothing may follow them.
    ///
    /// # Errors
    /// When the bytes are not exactly one receipt.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        match postcard::take_from_bytes(bytes)? {
            (receipt, []) => Ok(receipt),
            _ => Err(postcard::Error::DeserializeBadEncoding),
        }
    }

    /// Digest of the canonical bytes: what the next receipt names as its parent.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}
