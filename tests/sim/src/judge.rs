//! The judge: decides from what passes between hosts and store, and from what clients were told, whether the invariants hold.
//!
//! It sees each call with its answer at the moment in which the store executes it, below all faults, and above all bugs that
//! are planted in the store. It shares no code with stores, drivers or hosts: only the plain values in which calls are
//! written, and their digests.
//!
//! `leases.rs` watches sessions, tokens and owners (I4, I7), `inputs.rs` inputs, boundaries and outputs (I1 to I3, I5, I6, I9),
//! `clients.rs` what clients were told, `end.rs` what must be true when all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, HostId, Incarnation, InputId, Seq};
use godwit_core::input::{Kind, Outcome};

mod clients;
mod end;
mod inputs;
mod leases;

/// More than a store gives in a run.
const INCARNATIONS_MAX: u64 = 1_000_000;

/// What the judge knows.
#[derive(Default)]
pub struct Judge {
    violation: Option<String>,
    /// Which store it is told of: incarnations are counted by each.
    place: u64,
    sessions: BTreeMap<Incarnation, Seen>,
    agents: BTreeMap<AgentId, Agent>,
    /// Submissions that clients were told are not accepted.
    refused: BTreeMap<InputId, String>,
    counts: Counts,
}

/// How much has happened: a run in which nothing did proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Boundaries that have committed.
    pub boundaries: u64,
    /// Writes that were refused as fenced.
    pub fenced: u64,
    /// Agents taken from a session that had died of its expiry.
    pub takeovers: u64,
    /// Deliveries that were accepted.
    pub deliveries: u64,
    /// Timers that have fired.
    pub timers: u64,
    /// Answers that clients got.
    pub told: u64,
    /// Agents that moved by a planned migration.
    pub moves: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            boundaries: self.boundaries + other.boundaries,
            fenced: self.fenced + other.fenced,
            takeovers: self.takeovers + other.takeovers,
            deliveries: self.deliveries + other.deliveries,
            timers: self.timers + other.timers,
            told: self.told + other.told,
            moves: self.moves + other.moves,
        }
    }
}

/// A session.
struct Seen {
    host: HostId,
    ttl: Duration,
    /// When it joined or was renewed last.
    renewed: Duration,
    death: Option<Death>,
}

/// How a session died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Buried,
    Replaced,
    Left,
}

/// An agent.
struct Agent {
    token: FencingToken,
    holder: Option<Incarnation>,
    /// Its source has passed the commit point of a move, and nobody has taken it up yet.
    is_let_go: bool,
    /// Whose each token was.
    grants: BTreeMap<FencingToken, Incarnation>,
    revision: u64,
    head: Digest,
    next_seq: Seq,
    inputs: BTreeMap<InputId, Known>,
    keys: BTreeMap<String, InputId>,
    /// Inputs without an end, in admission order.
    open: BTreeMap<Seq, InputId>,
    receipts: BTreeSet<Digest>,
    /// The sum at each revision.
    sums: BTreeMap<u64, i64>,
    /// Committed outputs by destination, in order: number 1 first.
    sent: BTreeMap<AgentId, Vec<Sent>>,
    /// By origin: the highest number and token heard.
    heard: BTreeMap<AgentId, (u64, FencingToken)>,
    /// Requests that have ended, by their correlation.
    answered: BTreeMap<String, InputId>,
}

struct Sent {
    payload: Vec<u8>,
    is_heard: bool,
    is_undeliverable: bool,
}

/// An accepted input.
struct Known {
    kind: Kind,
    text: String,
    outcome: Option<Outcome>,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            token: FencingToken(0),
            holder: None,
            is_let_go: false,
            grants: BTreeMap::new(),
            revision: 0,
            head: Digest::ZERO,
            next_seq: Seq(1),
            inputs: BTreeMap::new(),
            keys: BTreeMap::new(),
            open: BTreeMap::new(),
            receipts: BTreeSet::new(),
            sums: BTreeMap::from([(0, 0)]),
            sent: BTreeMap::new(),
            heard: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }
}

impl Agent {
    fn sum(&self) -> i64 {
        self.sums.last_key_value().map_or(0, |(_, sum)| *sum)
    }
}

impl Judge {
    /// What comes next is of this store.
    pub fn look_at(&mut self, place: u64) {
        self.place = place;
    }

    /// An incarnation of the store that is looked at, told apart from those of others.
    fn of_here(&self, incarnation: Incarnation) -> Incarnation {
        Incarnation(self.place * INCARNATIONS_MAX + incarnation.0)
    }

    /// The first violation, in words.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Notes a violation; the first one counts.
    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn agent(&mut self, agent: &AgentId) -> &mut Agent {
        self.agents.entry(agent.clone()).or_default()
    }

    /// A migration's commit point has moved an agent.
    pub fn count_move(&mut self) {
        self.counts.moves += 1;
    }

    /// A write was refused as fenced.
    pub fn count_fenced(&mut self) {
        self.counts.fenced += 1;
    }
}
