//! The portable form of every row of an agent: what travels between stores, whatever engine they are.
//!
//! Each row carries the agent's change number of its last write, unique and ascending per agent, so that a later round of a
//! transfer sends only what changed. Encoded with postcard; variants are appended, never reordered.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::channel::{Channel, ChannelName, Subscriber, Subscription};
use crate::digest::Digest;
use crate::edge::Edge;
use crate::id::{AgentId, FencingToken, Generation, OperationId, Revision, Seq, SpecRevision};
use crate::identity::{EntityKeyRow, KnownAs, OriginHash};
use crate::input::DeliveryStamp;
use crate::journal::JournalEntry;
use crate::lifecycle::Lifecycle;
use crate::operation::StoredOperation;
use crate::output::StoredOutput;
use crate::receipt::{Receipt, ReceiptCheckpoint};
use crate::snapshot::Snapshot;
use crate::spec::Spec;
use crate::store::agent::StoredInput;
use crate::store::commit::AcceptError;
use crate::timer::StoredTimer;

/// A row and its change number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFrame {
    /// Change number of the row's last write.
    pub change: u64,
    /// The row.
    pub row: Row,
}

impl RowFrame {
    /// The frame as it may be written into a file: without the secret half of an entity key.
    #[must_use]
    pub fn without_secret(self) -> Self {
        match self.row {
            Row::EntityKey(key) => Self { row: Row::EntityKey(key.without_secret()), ..self },
            _ => self,
        }
    }

    /// Digest of the frame as it is sent.
    pub fn digest(&self) -> Digest {
        Digest::of(&postcard::to_stdvec(self).expect("a row has no type that postcard can't write"))
    }
}

/// A row of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// The agent's own row, without what belongs to the store it is in (home, holder).
    Agent(AgentPortable),
    /// One spec revision.
    Spec {
        /// Which.
        revision: SpecRevision,
        /// The spec.
        spec: Spec,
    },
    /// An input.
    Input(StoredInput),
    /// A receipt.
    Receipt(Receipt),
    /// One of the two kept snapshots; see `RuntimeStore::commit_turns`.
    Snapshot {
        /// Its place: 0 or 1.
        slot: Slot,
        /// The snapshot.
        snapshot: Snapshot,
    },
    /// A `state` row of the guest.
    State {
        /// Its key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// An output that has not been acknowledged.
    Output(StoredOutput),
    /// The number that the next output to a destination gets.
    Destination {
        /// For whom.
        destination: AgentId,
        /// In which generation of this agent.
        generation: Generation,
        /// The next number.
        next_number: u64,
    },
    /// What was heard from an origin.
    Receiver(Receiver),
    /// A row that was deleted since the migration was recorded.
    Deleted(RowKey),
    /// A timer that waits.
    Timer(StoredTimer),
    /// What stands for the oldest receipts of a generation, which were removed.
    ReceiptCheckpoint(ReceiptCheckpoint),
    /// The journal entry of a turn. Those that no kept snapshot needs are pruned without a trace.
    Journal {
        /// The generation of the turn.
        generation: Generation,
        /// The revision that the turn made.
        revision: Revision,
        /// The entry.
        entry: JournalEntry,
    },
    /// An operation that has not ended.
    Operation(StoredOperation),
    /// The agent's side of an edge.
    Edge(Edge),
    /// The agent's entity key.
    EntityKey(EntityKeyRow),
    /// One of its channels.
    Channel(Channel),
    /// Who subscribes to one of its channels.
    Subscriber(Subscriber),
    /// What it subscribes to.
    Subscription(Subscription),
}

impl Row {
    /// The agent whose row it says that it is, where it says so.
    pub fn owner(&self) -> Option<&AgentId> {
        match self {
            Self::Agent(portable) => Some(&portable.agent),
            Self::Receipt(receipt) => Some(&receipt.agent),
            Self::Output(output) => Some(&output.agent),
            Self::ReceiptCheckpoint(signed) => Some(&signed.checkpoint.agent),
            _ => None,
        }
    }
}

/// The places for kept snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Where a snapshot goes that builds on no journal.
    First,
    /// Where one goes beside the newest.
    Second,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Names a row that can be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RowKey {
    /// A `state` row.
    State(String),
    /// An output: destination, generation, number.
    Output(AgentId, Generation, u64),
    /// A timer, by name.
    Timer(String),
    /// An operation.
    Operation(OperationId),
    /// An edge, by the other agent.
    Edge(AgentId),
    /// A channel.
    Channel(ChannelName),
    /// A subscriber: channel, agent.
    Subscriber(ChannelName, AgentId),
    /// A subscription: owner, channel.
    Subscription(AgentId, ChannelName),
}

/// The portable part of an agent's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPortable {
    /// Its name.
    pub agent: AgentId,
    /// Whether it may run.
    pub lifecycle: Lifecycle,
    /// Raised only by reset.
    pub generation: Generation,
    /// Boundaries in this generation.
    pub revision: Revision,
    /// Digest of the last receipt.
    pub head: Digest,
    /// The seq that the next input gets.
    pub next_seq: Seq,
    /// The current spec.
    pub spec_revision: SpecRevision,
    /// For people and selections.
    pub labels: BTreeMap<String, String>,
    /// Agent time in Unix milliseconds.
    pub time_ms: u64,
    /// Wall time of creation in Unix milliseconds.
    pub created_at_ms: u64,
    /// Position that the next output gets.
    pub next_output: u64,
    /// Ended inputs whose rows retention has removed: with the rows that are there they are all seqs ever given.
    pub inputs_pruned: u64,
    /// As in `AgentRow`.
    pub failed_starts: u32,
    /// As in `AgentRow`.
    pub next_event: u64,
}

/// What a receiving agent has heard from one origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// The sending agent.
    pub origin: AgentId,
    /// Its highest generation heard.
    pub generation: Generation,
    /// Its highest token heard.
    pub token: FencingToken,
    /// The number that is accepted next.
    pub next: u64,
    /// The agent of that name that has sent in this generation.
    pub origin_hash: Option<OriginHash>,
}

impl Receiver {
    /// What is known of the origin from its deliveries.
    pub fn known_as(&self) -> KnownAs {
        KnownAs { hash: self.origin_hash, generation: self.generation, token: self.token }
    }

    /// Whether a delivery is from the agent that was heard before, as far as that is known.
    ///
    /// # Errors
    /// `Namesake`, `AnotherKey`, `Unproven`.
    pub fn check_origin(&self, stamp: &DeliveryStamp) -> Result<(), AcceptError> {
        let DeliveryStamp { origin_hash: hash, origin_generation: generation, token, .. } = *stamp;
        if let (Some(known), Some(given)) = (self.origin_hash, hash)
            && self.known_as().is_namesake(&KnownAs { hash, generation, token })
        {
            return Err(AcceptError::Namesake { origin: self.origin.clone(), known, given });
        }
        check_first(self.origin_hash, stamp)
    }

    /// The hash to remember behind a delivery that is not stale.
    pub fn hash_after(&self, stamp: &DeliveryStamp) -> Option<OriginHash> {
        let is_later = stamp.generation >= self.generation;
        let given = stamp.origin_hash.filter(|given| is_later || self.origin_hash == Some(*given));
        let is_renewed = stamp.generation > self.generation || stamp.token.epoch() > self.token.epoch();
        if is_renewed { given } else { self.origin_hash.or(given) }
    }
}

/// Whether a delivery is from the agent that is known under the origin's name, by what others in the store have heard from it or
/// by its own row: for an agent that has heard nothing yet.
///
/// # Errors
/// `AnotherKey`, `Unproven`.
pub fn check_first(known: Option<OriginHash>, stamp: &DeliveryStamp) -> Result<(), AcceptError> {
    let origin = || stamp.origin.clone();
    match (known, stamp.origin_hash) {
        (Some(known), None) => Err(AcceptError::Unproven { origin: origin(), known }),
        (Some(known), Some(given)) if known != given && !stamp.is_vouched_for => {
            Err(AcceptError::AnotherKey { origin: origin(), known, given })
        }
        _ => Ok(()),
    }
}
