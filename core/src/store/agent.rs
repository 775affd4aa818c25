//! Agents as rows: where they are at home, whether they may run, and the image that an owner loads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{
    AgentId, ClaimId, FencingToken, Generation, HostId, Incarnation, MigrationId, Revision, Seq, SpecRevision,
};
use crate::identity::{EntityPublicKey, KnownAs};
use crate::input::{Input, InputState, Outcome, Placing, TraceParent};
use crate::journal::JournaledTurn;
use crate::lease::{GrantCause, Holder};
use crate::lifecycle::Lifecycle;
use crate::migration::handoff::Seat;
use crate::receipt::{BoundaryKind, Receipt};
use crate::snapshot::Snapshot;
use crate::spec::{PluginInfo, Spec};

/// Where an agent's authoritative rows are. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Home {
    /// In this store.
    Here,
    /// In this store, and about to leave: nothing is written.
    HandingOff {
        /// Which migration.
        migration: MigrationId,
        /// To which host.
        target: HostId,
        /// The token that the target will hold.
        granted: FencingToken,
    },
    /// A whole copy that may not run before the source has let go.
    Prepared {
        /// Which migration.
        migration: MigrationId,
        /// From which host.
        source: HostId,
        /// The token that this host will hold.
        token: FencingToken,
        /// The tombstone that the copy replaced.
        before: Option<Tombstone>,
    },
    /// Elsewhere: a tombstone and forwarding address.
    Moved(Tombstone),
}

/// What stays where an agent left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tombstone {
    /// Which migration took it away.
    pub migration: MigrationId,
    /// To which host.
    pub target: HostId,
    /// The token that the target holds.
    pub token: FencingToken,
    /// The agent's generation when it left.
    pub generation: Generation,
}

/// An agent to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// Its name.
    pub agent: AgentId,
    /// What it runs.
    pub spec: Spec,
    /// For people and selections.
    pub labels: BTreeMap<String, String>,
    /// Wall time in Unix milliseconds.
    pub now_ms: u64,
    /// The claim of the id that must stand, when other stores may have an agent of that id.
    pub claim: Option<ClaimId>,
}

/// An agent's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its name.
    pub agent: AgentId,
    /// Where its authoritative rows are.
    pub home: Home,
    /// Whether it may run.
    pub lifecycle: Lifecycle,
    /// Raised only by reset.
    pub generation: Generation,
    /// Boundaries in this generation.
    pub revision: Revision,
    /// The highest token ever granted; in `HandingOff` the granted one.
    pub token: FencingToken,
    /// Who holds the lease, when its session is not dead.
    pub holder: Option<Holder>,
    /// Why its token was raised last.
    pub cause: GrantCause,
    /// Digest of the last receipt, `Digest::ZERO` at revision 0.
    pub head: Digest,
    /// The seq that the next input gets.
    pub next_seq: Seq,
    /// The current spec.
    pub spec_revision: SpecRevision,
    /// The plugin that the current spec names.
    pub plugin: Digest,
    /// The public half of its entity key, where there is one.
    pub public_key: Option<EntityPublicKey>,
    /// For people and selections.
    pub labels: BTreeMap<String, String>,
    /// Inputs that wait for an end.
    pub open_inputs: u64,
    /// Those of them that wake: with one, the agent is runnable.
    pub waking_inputs: u64,
    /// Payloads and headers of the open inputs in bytes.
    pub open_bytes: u64,
    /// Outputs that their receivers do not have yet.
    pub pending_outputs: u64,
    /// Rows of the guest's `state`.
    pub state_keys: u64,
    /// Their keys and values in bytes.
    pub state_bytes: u64,
    /// Ended inputs whose rows retention has removed.
    pub inputs_pruned: u64,
    /// Starts of the agent that have failed in a row: a host's process died while it loaded the agent or ran `init`, or `init`
    /// gave an error. 0 again with a boundary, another spec, and a lifecycle commit that `LifecycleCommit::is_start_fresh`.
    pub failed_starts: u32,
    /// The number that the agent's next event gets.
    pub next_event: u64,
    /// Agent time: wall time of the last boundary in Unix milliseconds, never goes back.
    pub time_ms: u64,
    /// Wall time of creation in Unix milliseconds.
    pub created_at_ms: u64,
    /// Number of the last change to any row of the agent.
    pub change: u64,
}

impl AgentRow {
    /// Where the agent is and whose it is.
    pub fn seat(&self) -> Seat {
        let Self { token, generation, revision, holder, .. } = *self;
        Seat { home: self.home.clone(), token, generation, revision, holder, cause: self.cause.clone() }
    }

    /// Which agent of its name it is.
    pub fn known_as(&self) -> KnownAs {
        let Self { generation, token, .. } = *self;
        KnownAs { hash: self.public_key.map(EntityPublicKey::origin_hash), generation, token }
    }
}

/// An accepted input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredInput {
    /// Admission order.
    pub seq: Seq,
    /// What the guest sees.
    pub input: Input,
    /// Where it is.
    pub state: InputState,
    /// Turns of it that started durably or failed.
    pub attempts: u32,
    /// Times that it was found staged: its host's process had died, or was fenced, in its turn.
    pub deaths: u32,
    /// The session that accepted it: only that one may run it the first time without staging it.
    pub accepted_by: Incarnation,
    /// The client's key.
    pub idempotency_key: Option<String>,
    /// What must be equal under one key.
    pub body_digest: Digest,
    /// Lane, whether it wakes, what it replaces.
    pub placing: Placing,
    /// The trace that it is part of.
    pub traceparent: Option<TraceParent>,
    /// Its end, once it has one.
    pub outcome: Option<Outcome>,
    /// When it ended, by the wall clock of the store that it ended in, Unix milliseconds: there with the outcome.
    pub ended_at_ms: Option<u64>,
}

/// A snapshot that the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSnapshot {
    /// The generation whose state it is.
    pub generation: Generation,
    /// The boundary after which it was taken.
    pub revision: Revision,
    /// Size of the state.
    pub bytes: u64,
    /// `Snapshot::digest` as it was recorded. Listing does not look whether the snapshot still has it.
    pub digest: Digest,
}

impl KeptSnapshot {
    /// What a list says of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { generation, revision, state, .. } = snapshot;
        let digest = snapshot.digest(snapshot.state_digest());
        Self { generation: *generation, revision: *revision, bytes: state.len() as u64, digest }
    }
}

/// All that an owner loads to run an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentImage {
    /// The row.
    pub row: AgentRow,
    /// The current spec.
    pub spec: Spec,
    /// The plugin that it names, when it is stored.
    pub plugin: Option<PluginInfo>,
    /// The newest snapshot of this generation, or the kept one that was asked for.
    pub snapshot: Option<Snapshot>,
    /// Receipts of this generation from the snapshot's revision on (from 1 without a snapshot), ascending.
    pub receipts: Vec<Receipt>,
    /// The journal entries behind the snapshot, with their inputs, by revision.
    pub journal: BTreeMap<Revision, JournaledTurn>,
    /// What is wrong with those that are damaged, or have a damaged input: they are not in `journal`.
    pub damaged: BTreeMap<Revision, String>,
}

impl AgentImage {
    /// Checks the digests since the snapshot: the receipts chain up to the row's head, the snapshot is the state that its
    /// receipt names, and behind it each turn has the journal entry and the inputs that its receipt names. And that no input
    /// is open in a terminal state.
    ///
    /// # Errors
    /// Which row does not fit.
    pub fn check(&self) -> Result<(), String> {
        self.check_to(self.row.revision)
    }

    /// As `check`, but asks of turns no further than a revision whether they can be run again.
    ///
    /// # Errors
    /// Which row does not fit.
    pub fn check_to(&self, to: Revision) -> Result<(), String> {
        self.check_chain()?;
        // A deleted agent has let go of what its turns would need.
        if self.row.lifecycle != Lifecycle::Deleted {
            self.behind(self.base(), to).try_for_each(|receipt| self.check_turn(receipt))?;
        }
        match self.state_named_otherwise() {
            Some(_) => {
                Err(format!("snapshot of revision {} is not the state its receipt names", self.base()))
            }
            None => Ok(()),
        }
    }

    /// Checks what running turns again can't mend: that the receipts chain from the snapshot up to the row's head, and that no
    /// input is open in a terminal state.
    ///
    /// # Errors
    /// Which row does not fit.
    pub fn check_chain(&self) -> Result<(), String> {
        let row = &self.row;
        if row.lifecycle.is_terminal() && row.open_inputs > 0 {
            let Self { row: AgentRow { lifecycle, open_inputs, .. }, .. } = self;
            return Err(format!("the agent is {} and {open_inputs} inputs are open", lifecycle.name()));
        }
        let base = self.base();
        if base > row.revision {
            return Err(format!("snapshot of revision {base} is ahead of the head {}", row.revision));
        }
        let mut parent = None;
        for (receipt, revision) in self.receipts.iter().zip(base.0.max(1)..) {
            if receipt.revision.0 != revision
                || receipt.generation != row.generation
                || receipt.agent != row.agent
            {
                return Err(format!("receipt {revision} is missing or another agent's"));
            }
            if parent.is_some_and(|parent| parent != receipt.parent) {
                return Err(format!("receipt {revision} does not name the digest of the receipt before"));
            }
            parent = Some(receipt.digest());
        }
        let last = self.receipts.last().map_or(Revision(0), |receipt| receipt.revision);
        if last != row.revision || parent.unwrap_or(Digest::ZERO) != row.head {
            return Err(format!(
                "receipt {} is damaged or missing: the head names another digest",
                row.revision
            ));
        }
        Ok(())
    }

    /// The revision of the snapshot; 0 without one.
    pub fn base(&self) -> Revision {
        self.snapshot.as_ref().map_or(Revision(0), |snapshot| snapshot.revision)
    }

    /// The receipt of a boundary, from the snapshot's on.
    pub fn receipt(&self, revision: Revision) -> Option<&Receipt> {
        let place = self.receipts.binary_search_by_key(&revision, |receipt| receipt.revision);
        place.ok().and_then(|place| self.receipts.get(place))
    }

    /// The digest of the state that the snapshot's receipt names, where the snapshot is another. A checkpoint's state is not
    /// named by a receipt; the store has checked it against its own digest.
    pub fn state_named_otherwise(&self) -> Option<Digest> {
        let snapshot = self.snapshot.as_ref()?;
        let named = self.receipt(snapshot.revision).and_then(|receipt| receipt.state);
        named.filter(|named| *named != snapshot.state_digest())
    }

    /// The first boundary behind the snapshot that can't be run again, and why.
    pub fn first_obstacle(&self) -> Option<(&Receipt, String)> {
        self.behind(self.base(), self.row.revision)
            .find_map(|receipt| self.check_turn(receipt).err().map(|what| (receipt, what)))
    }

    /// Whether the history from the snapshot to a revision was journaled, all of it under the current spec. What was not
    /// can't be run again, and need not be: a newer snapshot holds it.
    pub fn is_journaled_to(&self, to: Revision) -> bool {
        self.behind(self.base(), to).all(|receipt| {
            let spec = (receipt.plugin, receipt.spec_revision);
            receipt.kind == BoundaryKind::DeadLetter
                || (receipt.journal.is_some() && spec == (self.spec.plugin, self.row.spec_revision))
        })
    }

    fn behind(&self, snapshot: Revision, to: Revision) -> impl Iterator<Item = &Receipt> {
        self.receipts.iter().filter(move |receipt| receipt.revision > snapshot && receipt.revision <= to)
    }

    /// What is damaged of an older kept snapshot and of the journal behind it, up to a revision. What was not journaled, or
    /// ran under another spec, is no damage: a newer snapshot holds it. Nor is what lies before a repair: that has dealt with
    /// it.
    pub fn damage_to(&self, to: Revision) -> Vec<String> {
        let named = self
            .state_named_otherwise()
            .map(|_| format!("snapshot of revision {} is not the state its receipt names", self.base()));
        let repairs = self.receipts.iter().filter(|receipt| receipt.kind == BoundaryKind::Repair);
        let repaired = repairs.map(|receipt| receipt.revision).max().unwrap_or(self.base());
        let journaled = self.behind(repaired, to).filter(|receipt| receipt.journal.is_some());
        let of_turns = journaled.filter_map(|receipt| {
            let revision = receipt.revision;
            match (self.damaged.get(&revision), self.journal.get(&revision)) {
                (Some(what), _) => Some(what.clone()),
                (None, Some(turn)) => check_entry(receipt, turn).err(),
                (None, None) => Some(format!("journal entry {revision} is missing")),
            }
        });
        named.into_iter().chain(of_turns).collect()
    }

    /// Whether a boundary behind the snapshot can be run again, or need not be.
    fn check_turn(&self, receipt: &Receipt) -> Result<(), String> {
        let revision = receipt.revision;
        if let Some(what) = self.damaged.get(&revision) {
            return Err(what.clone());
        }
        let turn = match (receipt.kind, self.journal.get(&revision)) {
            (BoundaryKind::DeadLetter, _) => return Ok(()),
            (BoundaryKind::Init | BoundaryKind::Turn, Some(turn)) => turn,
            (kind, _) => {
                let kind = kind.name();
                return Err(format!("{kind} {revision} has neither a snapshot nor a journal entry"));
            }
        };
        if (receipt.plugin, receipt.spec_revision) != (self.spec.plugin, self.row.spec_revision) {
            return Err(format!("journal entry {revision} is of another plugin or spec than the head"));
        }
        check_entry(receipt, turn)
    }
}

/// Whether a turn is the one that its receipt names, with its inputs.
fn check_entry(receipt: &Receipt, turn: &JournaledTurn) -> Result<(), String> {
    let revision = receipt.revision;
    if receipt.journal != Some(turn.entry.digest()) {
        return Err(format!("journal entry {revision} is not the one its receipt names"));
    }
    if !turn.inputs.iter().map(|input| &input.id).eq(&receipt.inputs) {
        return Err(format!("journal entry {revision}: inputs that its receipt names are missing"));
    }
    Ok(())
}
