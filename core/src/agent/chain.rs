//! Turns that wait for one commit: the guest has run them, nothing of them is visible yet but to the turns after them.
//!
//! A chain becomes one `Unit`. Its turns build on each other; the store commits a prefix of them, and only the replies and
//! outputs of that prefix are released. Each boundary carries its snapshot or its journal entry, so any prefix is a whole
//! state.

use std::sync::Arc;

use bytes::Bytes;

use crate::agent::{AskRequest, Overlay, sabotage};
use crate::digest::Digest;
use crate::event::{EventKind, NewEvent};
use crate::failpoint;
use crate::guest::TurnEffects;
use crate::id::{FencingToken, HostId, InputId, Revision, RunId, Seq, SpecRevision};
use crate::input::{DeadLetterReason, Input, InputState, Outcome};
use crate::journal::JournalEntry;
use crate::output::Output;
use crate::receipt::{BoundaryKind, Receipt};
use crate::reply;
use crate::snapshot::Snapshot;
use crate::spec::SpecChange;
use crate::store::{
    Attempt, Boundary, InputEnd, LifecycleCommit, Owner, Repair, RuntimeStore, Step, StoredInput, Unit,
    UnitOutcome, Upgrade,
};
use crate::time::Clock;

/// Turns that one commit takes at most: bounds what a refused commit throws away.
pub(crate) const CHAIN_TURNS_MAX: usize = 32;
/// Bytes of a chain after which no further turn joins it.
pub(crate) const CHAIN_BYTES_MAX: usize = 1 << 20;

/// Where the input of a turn came from.
pub(crate) enum Origin {
    /// A client waits, and the input is accepted by the turn's own commit.
    Direct(Box<AskRequest>),
    /// It is durable.
    Queued(Box<StoredInput>),
    /// Several that are durable, for one guest call.
    Batch(Vec<StoredInput>),
    /// No input: `init`.
    Init,
}

impl Origin {
    /// Durable inputs of one guest call.
    pub(crate) fn queued(mut inputs: Vec<StoredInput>) -> Self {
        match inputs.pop() {
            Some(only) if inputs.is_empty() => Self::Queued(Box::new(only)),
            last => {
                inputs.extend(last);
                Self::Batch(inputs)
            }
        }
    }

    /// The inputs, in the order in which the guest gets them.
    pub(crate) fn inputs(&self) -> Vec<&Input> {
        match self {
            Self::Direct(request) => vec![&request.input.input],
            Self::Queued(stored) => vec![&stored.input],
            Self::Batch(inputs) => inputs.iter().map(|stored| &stored.input).collect(),
            Self::Init => Vec::new(),
        }
    }

    /// The ask that nothing durable knows of, if it is one.
    pub(crate) fn into_direct(self) -> Option<Box<AskRequest>> {
        match self {
            Self::Direct(request) => Some(request),
            Self::Queued(_) | Self::Batch(_) | Self::Init => None,
        }
    }

    /// Whether nothing durable knows of it and its caller is gone: it is not served.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self, Self::Direct(request) if request.answer.is_closed())
    }
}

/// Who writes an agent's history: what all its receipts say alike while it is loaded.
pub(crate) struct Author {
    pub(crate) owner: Owner,
    pub(crate) host: HostId,
    pub(crate) plugin: Digest,
    pub(crate) plugin_version: String,
    pub(crate) spec_revision: SpecRevision,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Where an agent's history ends: what the next boundary builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) revision: Revision,
    pub(crate) digest: Digest,
    pub(crate) next_seq: Seq,
    /// Agent time: never goes back.
    pub(crate) time_ms: u64,
    /// Token of the last boundary.
    pub(crate) token: FencingToken,
}

/// One turn or attempt in the chain.
pub(crate) struct Pending {
    pub(crate) origin: Origin,
    pub(crate) seq: Seq,
    /// Steps of the chain up to and with this one's last.
    pub(crate) steps_end: usize,
    /// The ends of its inputs, in order; empty when they go on waiting.
    pub(crate) ends: Vec<InputEnd>,
    pub(crate) has_outputs: bool,
    pub(crate) has_timers: bool,
    pub(crate) has_operations: bool,
}

impl Pending {
    /// One that nobody but its callers hears of.
    fn quiet(origin: Origin, seq: Seq, steps_end: usize, ends: Vec<InputEnd>) -> Self {
        Self { origin, seq, steps_end, ends, has_outputs: false, has_timers: false, has_operations: false }
    }
}

/// A chain under construction.
pub(crate) struct Chain {
    author: Arc<Author>,
    /// Told when it has committed.
    pub(crate) rows: Arc<Overlay>,
    /// Where the history ends if all of it commits.
    pub(crate) head: Head,
    pub(crate) pending: Vec<Pending>,
    base: Revision,
    steps: Vec<Step>,
    bytes: usize,
}

impl Chain {
    pub(crate) fn new(author: Arc<Author>, head: &Head, rows: Arc<Overlay>) -> Self {
        let base = head.revision;
        Self { author, rows, head: head.clone(), pending: Vec::new(), base, steps: Vec::new(), bytes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= CHAIN_TURNS_MAX || self.bytes >= CHAIN_BYTES_MAX
    }

    /// The unit to commit.
    pub(crate) fn unit(&mut self) -> Unit {
        Unit { owner: self.author.owner.clone(), base: self.base, steps: std::mem::take(&mut self.steps) }
    }

    /// Whether an input ends here.
    pub(crate) fn ends(&self, seq: Seq) -> bool {
        self.pending.iter().flat_map(|pending| &pending.ends).any(|end| end.seq == seq)
    }

    /// Commits. The unit is handed over with the first poll.
    pub(crate) fn commit(
        &mut self,
        store: Arc<dyn RuntimeStore>,
    ) -> impl Future<Output = UnitOutcome> + Send + 'static {
        sabotage::release_early(&mut self.pending);
        let unit = self.unit();
        async move {
            failpoint::hit("turn.before-commit-queued");
            let outcome = store.commit_turns(unit).await;
            failpoint::hit("turn.after-commit");
            outcome
        }
    }

    /// Commits on this thread if the store does that now; `None` leaves the chain as it is.
    pub(crate) fn commit_here(&mut self, store: &dyn RuntimeStore) -> Option<UnitOutcome> {
        sabotage::release_early(&mut self.pending);
        match store.commit_turns_here(self.unit()) {
            Ok(outcome) => {
                failpoint::hit("turn.after-commit");
                Some(outcome)
            }
            Err(unit) => {
                self.steps = unit.steps;
                None
            }
        }
    }

    /// The seq of an origin: its own when it is durable, otherwise the next.
    fn seq_of(&self, origin: &Origin) -> Seq {
        match origin {
            Origin::Queued(stored) => stored.seq,
            Origin::Batch(inputs) => inputs.first().map_or(self.head.next_seq, |stored| stored.seq),
            Origin::Direct(_) | Origin::Init => self.head.next_seq,
        }
    }

    /// The seqs of an origin's inputs, in order.
    fn seqs_of(&self, origin: &Origin) -> Vec<Seq> {
        match origin {
            Origin::Init => Vec::new(),
            Origin::Batch(inputs) => inputs.iter().map(|stored| stored.seq).collect(),
            Origin::Direct(_) | Origin::Queued(_) => vec![self.seq_of(origin)],
        }
    }

    /// Accepts a direct input in front of what happens to it.
    fn accept(&mut self, origin: &Origin) {
        if let Origin::Direct(request) = origin {
            let seq = self.head.next_seq;
            self.steps.push(Step::Accept { input: Box::new(request.input.clone()), seq });
            self.head.next_seq = seq.next();
        }
    }

    /// Adds a turn that the guest has run.
    pub(crate) fn push_turn(&mut self, origin: Origin, turn: RanTurn) {
        let RanTurn { effects, state, entry, now_ms } = turn;
        let (seq, seqs) = (self.seq_of(&origin), self.seqs_of(&origin));
        self.accept(&origin);
        let kind = if matches!(origin, Origin::Init) { BoundaryKind::Init } else { BoundaryKind::Turn };
        let snapshot = state.map(|state| Snapshot {
            generation: self.author.owner.generation,
            revision: self.head.revision.next(),
            token: self.author.owner.token,
            time_ms: now_ms,
            plugin_version: self.author.plugin_version.clone(),
            state,
        });
        let inputs = origin.inputs();
        let written = effects.bytes();
        let bytes: usize = inputs.iter().map(|input| input.payload.len()).sum();
        let mut receipt = self.receipt(kind, inputs.iter().map(|input| input.id).collect(), now_ms);
        receipt.effects = effects.digest();
        receipt.state = snapshot.as_ref().map(Snapshot::state_digest);
        receipt.journal = entry.as_ref().map(JournalEntry::digest);
        receipt.elapsed_us = u64::try_from(effects.elapsed.as_micros()).unwrap_or(u64::MAX);
        // Not of the guest: they follow from its replies, and its effects' digest leaves them out.
        let answers: Vec<Output> = inputs
            .iter()
            .zip(&effects.replies)
            .filter_map(|(input, said)| reply::of_turn(input, said))
            .collect();
        let (revision, token) = (receipt.revision, receipt.token);
        let committed =
            |(seq, reply)| InputEnd { seq, outcome: Outcome::Committed { revision, token, reply } };
        let ends: Vec<InputEnd> = seqs.into_iter().zip(effects.replies).map(committed).collect();
        self.bytes += written
            + snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len())
            + entry.as_ref().map_or(0, JournalEntry::weight)
            + bytes;
        let boundary = Boundary {
            ends: ends.clone(),
            snapshot,
            journal: entry,
            state: effects.state,
            outputs: effects.outputs.into_iter().chain(answers).collect(),
            channels: effects.channels,
            timers: effects.timers,
            operations: effects.operations,
            events: Vec::new(),
            receipt,
        };
        // What becomes of channels is told to their subscribers.
        let has_outputs = !boundary.outputs.is_empty() || !boundary.channels.is_empty();
        let has_timers = !boundary.timers.is_empty();
        let has_operations = !boundary.operations.is_empty();
        let pending = Pending { origin, seq, steps_end: 0, ends, has_outputs, has_timers, has_operations };
        self.push_boundary(boundary, pending);
    }

    /// Adds the end of an input that is given up.
    pub(crate) fn push_dead_letter(&mut self, origin: Origin, reason: DeadLetterReason) {
        let seq = self.seq_of(&origin);
        self.accept(&origin);
        let now_ms = self.author.clock.wall_ms().max(self.head.time_ms);
        let id = origin.inputs().first().map(|input| input.id);
        let mut event = NewEvent::of_agent(&self.author.owner.agent, EventKind::InputDeadLettered, now_ms);
        if let Some(id) = id {
            event = event.with("input", id);
        }
        let receipt = self.receipt(BoundaryKind::DeadLetter, id.into_iter().collect(), now_ms);
        let answer = origin.inputs().first().and_then(|input| reply::of_dead_letter(input, &reason));
        let outputs = Vec::from_iter(answer);
        let has_outputs = !outputs.is_empty();
        let outcome = Outcome::DeadLettered { revision: receipt.revision, reason };
        let ends = vec![InputEnd { seq, outcome }];
        let boundary = Boundary {
            receipt,
            ends: ends.clone(),
            snapshot: None,
            journal: None,
            state: Vec::new(),
            outputs,
            channels: Vec::new(),
            timers: Vec::new(),
            operations: Vec::new(),
            events: vec![event],
        };
        let pending = Pending { has_outputs, ..Pending::quiet(origin, seq, 0, ends) };
        self.push_boundary(boundary, pending);
    }

    /// Adds the boundary of an upgrade: this chain's author runs the new plugin, which has given `state` back.
    pub(crate) fn push_upgrade(
        &mut self,
        change: SpecChange,
        from: Digest,
        state: Bytes,
        now_ms: u64,
        event: NewEvent,
    ) {
        let made = (state, self.author.plugin_version.clone());
        let boundary = self.taken_over(BoundaryKind::Upgrade, from, made, now_ms, event);
        self.steps.push(Step::Upgrade(Box::new(Upgrade { boundary, change })));
    }

    /// Adds the boundary at which the state of `end` is accepted, another than the history names, which is `from`.
    pub(crate) fn push_repair(
        &mut self,
        commit: LifecycleCommit,
        from: Digest,
        end: Snapshot,
        now_ms: u64,
        event: NewEvent,
    ) {
        // The plugin that wrote it may be the one before an upgrade.
        let made = (end.state, end.plugin_version);
        let boundary = self.taken_over(BoundaryKind::Repair, from, made, now_ms, event);
        self.steps.push(Step::Repair(Box::new(Repair { boundary, commit })));
    }

    /// A boundary at which the state comes from elsewhere than a turn; with it goes the plugin version that wrote it.
    fn taken_over(
        &self,
        kind: BoundaryKind,
        from: Digest,
        (state, plugin_version): (Bytes, String),
        now_ms: u64,
        event: NewEvent,
    ) -> Boundary {
        let snapshot = Snapshot {
            generation: self.author.owner.generation,
            revision: self.head.revision.next(),
            token: self.author.owner.token,
            time_ms: now_ms,
            plugin_version,
            state,
        };
        let mut receipt = self.receipt(kind, Vec::new(), now_ms);
        receipt.from = Some(from);
        receipt.effects = TurnEffects::default().digest();
        receipt.state = Some(snapshot.state_digest());
        Boundary {
            receipt,
            ends: Vec::new(),
            snapshot: Some(snapshot),
            journal: None,
            state: Vec::new(),
            outputs: Vec::new(),
            channels: Vec::new(),
            timers: Vec::new(),
            operations: Vec::new(),
            events: vec![event],
        }
    }

    /// Adds an attempt at each input of an origin: they go on waiting. `attempts` and `deaths` count so far.
    pub(crate) fn push_attempts(&mut self, origin: Origin, state: InputState, attempts: u32, deaths: u32) {
        let seq = self.seq_of(&origin);
        let seqs = self.seqs_of(&origin).into_iter();
        let made = seqs.map(|seq| Attempt { seq, state, attempts, deaths }).collect();
        self.accept(&origin);
        self.steps.push(Step::Attempts(made));
        let steps_end = self.steps.len();
        let ends = Vec::new();
        self.pending.push(Pending::quiet(origin, seq, steps_end, ends));
    }

    fn push_boundary(&mut self, boundary: Boundary, pending: Pending) {
        self.head.revision = boundary.receipt.revision;
        self.head.digest = boundary.receipt.digest();
        self.head.time_ms = boundary.receipt.committed_at_ms;
        self.head.token = boundary.receipt.token;
        self.steps.push(Step::Boundary(Box::new(boundary)));
        self.pending.push(Pending { steps_end: self.steps.len(), ..pending });
    }

    fn receipt(&self, kind: BoundaryKind, inputs: Vec<InputId>, now_ms: u64) -> Receipt {
        let Author { owner, host, plugin, spec_revision, clock, .. } = &*self.author;
        Receipt {
            agent: owner.agent.clone(),
            generation: owner.generation,
            revision: self.head.revision.next(),
            run: RunId::generate(now_ms, clock.random()),
            sequence: 0,
            kind,
            inputs,
            token: owner.token,
            host: *host,
            incarnation: owner.incarnation,
            plugin: *plugin,
            spec_revision: *spec_revision,
            effects: Digest::ZERO,
            state: None,
            journal: None,
            parent: self.head.digest,
            elapsed_us: 0,
            fuel: None,
            committed_at_ms: now_ms,
            from: None,
        }
    }
}

/// A turn that the guest has run.
pub(crate) struct RanTurn {
    pub(crate) effects: TurnEffects,
    /// The state after it, when its boundary stores that.
    pub(crate) state: Option<Bytes>,
    /// What running it again needs, when its boundary stores that.
    pub(crate) entry: Option<JournalEntry>,
    pub(crate) now_ms: u64,
}

#[cfg(test)]
mod tests;
