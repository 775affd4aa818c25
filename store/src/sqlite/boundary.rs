//! Committing units: chains of steps of one agent.
//!
//! A unit is prepared by its caller (everything encoded, hashed and packed) and written by whoever writes then. The agent's
//! row is read once before the first step, if the writer does not keep it, and stored once after the last, or with those of
//! other units of its group. An input that is accepted and ended in the same unit is written once, as ended, and of small
//! snapshots only the last one is, after the last step. Each step checks everything before it writes anything.

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, Generation, InputId, Revision, Seq};
use godwit_core::input::{InputEvent, InputState, Outcome, Placing};
use godwit_core::journal::JournalEntry;
use godwit_core::lease::fence::Refusal;
use godwit_core::receipt::{BoundaryKind, Receipt};
use godwit_core::spec::SpecChange;
use godwit_core::store::{
    Attempt, Boundary, InputEnd, LifecycleCommit, Owner, Repair, Slot, Step, StoreError, Unit, UnitFailure,
    UnitOutcome, Upgrade,
};
use rusqlite::{Connection, Row, params};

use super::agents::{Head, Share};
use super::codec::{Int, PackedSnapshot, input_state_code, seal, seal_bytes};
use super::error::{Fail, Fallible, conflict, corrupt};
use super::events::append_of;
use super::inputs::{
    Arrival, End, Fate, door, end_run, ended_state, insert, moved, not_open, open_input, open_inputs, room,
};
use super::sql::{all, execute, first};
use super::writer::{NestedError, Tx};
use super::{channels, journal, lifecycle, operations, plugins, snapshots, specs, state, timers};

/// A unit whose rows are encoded.
pub(super) struct Prepared {
    owner: Owner,
    base: Revision,
    steps: Vec<PreparedStep>,
}

enum PreparedStep {
    Accept {
        arrival: Box<Arrival>,
        seq: Seq,
    },
    Attempts(Vec<Attempt>),
    FailedStarts(u32),
    Boundary(Box<PreparedBoundary>),
    Checkpoint(PackedSnapshot),
    Configure(SpecChange),
    Upgrade(Box<PreparedBoundary>, SpecChange),
    /// `None` when the unit's repair is not what a repair may be.
    Repair(Box<PreparedBoundary>, Option<LifecycleCommit>),
}

struct PreparedBoundary {
    boundary: Boundary,
    receipt: Vec<u8>,
    digest: Digest,
    state_digest: Option<Digest>,
    snapshot: Option<PackedSnapshot>,
    journal: Option<Vec<u8>>,
    /// One per end.
    outcomes: Vec<Vec<u8>>,
    /// One per state write.
    values: Vec<Option<Vec<u8>>>,
    /// One per output.
    outputs: Vec<Vec<u8>>,
}

impl Prepared {
    /// Encodes a unit.
    ///
    /// # Errors
    /// `Unsupported` when a snapshot is above its limit.
    pub(super) fn new(unit: Unit) -> Result<Self, StoreError> {
        let steps = unit.steps.into_iter().map(PreparedStep::new);
        Ok(Self { owner: unit.owner, base: unit.base, steps: steps.collect::<Result<_, _>>()? })
    }

    /// The snapshots of its steps.
    pub(super) fn snapshots_mut(&mut self) -> impl Iterator<Item = &mut PackedSnapshot> {
        self.steps.iter_mut().filter_map(|step| match step {
            PreparedStep::Checkpoint(snapshot) => Some(snapshot),
            PreparedStep::Boundary(boundary)
            | PreparedStep::Upgrade(boundary, _)
            | PreparedStep::Repair(boundary, _) => boundary.snapshot.as_mut(),
            _ => None,
        })
    }

    /// Whether it leaves its agent's row to whoever keeps it. The other steps store it, or write parts of it, by themselves.
    fn is_plain(&self) -> bool {
        use PreparedStep::{Accept, Attempts, Boundary, Checkpoint};
        let is_plain = |step| matches!(step, &Accept { .. } | &Attempts(_) | &Boundary(_) | &Checkpoint(_));
        self.steps.iter().all(is_plain)
    }

    /// Steps of the unit.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Takes the unit as committed: what `ack-before-commit` answers.
    pub(super) fn outcome_if_committed(&self) -> UnitOutcome {
        outcome(self.len(), None)
    }
}

impl PreparedStep {
    fn new(step: Step) -> Result<Self, StoreError> {
        Ok(match step {
            Step::Accept { input, seq } => Self::Accept { arrival: Box::new(Arrival::new(*input)), seq },
            Step::Attempts(attempts) => Self::Attempts(attempts),
            Step::FailedStarts(failed) => Self::FailedStarts(failed),
            Step::Checkpoint(snapshot) => {
                Self::Checkpoint(PackedSnapshot::new(&snapshot, snapshot.state_digest())?)
            }
            Step::Boundary(boundary) => Self::Boundary(Box::new(PreparedBoundary::new(*boundary)?)),
            Step::Configure(change) => Self::Configure(change),
            Step::Upgrade(upgrade) => {
                let Upgrade { boundary, change } = *upgrade;
                Self::Upgrade(Box::new(PreparedBoundary::new(boundary)?), change)
            }
            Step::Repair(repair) => {
                let is_sound = repair.is_sound();
                let Repair { boundary, commit } = *repair;
                Self::Repair(Box::new(PreparedBoundary::new(boundary)?), is_sound.then_some(commit))
            }
        })
    }
}

impl PreparedBoundary {
    fn new(boundary: Boundary) -> Result<Self, StoreError> {
        let receipt = boundary.receipt.to_bytes();
        let hashed = boundary.snapshot.as_ref().map(|snapshot| (snapshot, snapshot.state_digest()));
        Ok(Self {
            digest: Digest::of(&receipt),
            receipt,
            state_digest: hashed.map(|(_, digest)| digest),
            snapshot: hashed.map(|(snapshot, digest)| PackedSnapshot::new(snapshot, digest)).transpose()?,
            journal: boundary.journal.as_ref().map(seal),
            outcomes: boundary.ends.iter().map(|end| seal(&end.outcome)).collect(),
            values: boundary
                .state
                .iter()
                .map(|(_, value)| value.as_ref().map(|value| seal_bytes(value)))
                .collect(),
            outputs: boundary.outputs.iter().map(seal).collect(),
            boundary,
        })
    }
}

/// Why a step was not written.
enum StepError {
    Failure(UnitFailure),
    Fail(Fail),
}

impl<E: Into<Fail>> From<E> for StepError {
    fn from(error: E) -> Self {
        match error.into() {
            Fail::Store(error) => Self::Failure(UnitFailure::Store(error)),
            engine => Self::Fail(engine),
        }
    }
}

impl NestedError for StepError {
    fn spares_transaction(&self) -> bool {
        match self {
            Self::Failure(_) => true,
            Self::Fail(fail) => fail.spares_transaction(),
        }
    }
}

/// Commits a prefix of a unit.
pub(super) fn commit(tx: &Tx<'_>, unit: &Prepared) -> Fallible<UnitOutcome> {
    if !unit.is_plain() {
        tx.drop_heads()?;
    }
    let committed = tx.with_head(&unit.owner.agent, |head| commit_at(tx, head, unit));
    if !unit.is_plain() {
        tx.drop_heads()?;
    }
    match committed {
        Err(Fail::Store(error)) => Ok(outcome(0, Some(error))),
        committed => committed,
    }
}

fn commit_at(tx: &Tx<'_>, head: &mut Head, unit: &Prepared) -> Fallible<UnitOutcome> {
    let checked = match tx.env.faults.skips_token_check() {
        false => head.fence().check_at(&unit.owner.claim(), unit.base),
        true => head.fence().check_base(unit.base),
    };
    if let Err(refusal) = checked {
        let may_be_repeated = refusal == Refusal::Stale && unit.base < head.revision;
        let is_repeated = may_be_repeated && has_all_boundaries(tx.conn, head, unit)?;
        return Ok(if is_repeated {
            outcome(unit.len(), None)
        } else {
            outcome(0, Some(head.refused(refusal)))
        });
    }
    let mut chain = Chain { owner: &unit.owner, head, waiting: None, snapshot: None };
    let mut committed = 0;
    let mut failure = None;
    for step in &unit.steps {
        match chain.step(tx, step)? {
            Ok(()) => committed += 1,
            Err(reason) => {
                failure = Some(reason);
                break;
            }
        }
    }
    chain.finish(tx)?;
    Ok(UnitOutcome { committed, failure })
}

fn outcome(committed: usize, failure: Option<StoreError>) -> UnitOutcome {
    UnitOutcome { committed, failure: failure.map(UnitFailure::Store) }
}

/// Whether a unit that builds on an older revision has been committed before, whole.
fn has_all_boundaries(conn: &Connection, head: &Head, unit: &Prepared) -> Fallible<bool> {
    let mut boundaries = unit
        .steps
        .iter()
        .filter_map(|step| match step {
            PreparedStep::Boundary(boundary)
            | PreparedStep::Upgrade(boundary, _)
            | PreparedStep::Repair(boundary, _) => Some(boundary),
            _ => None,
        })
        .peekable();
    if boundaries.peek().is_none() {
        return Ok(false);
    }
    for boundary in boundaries {
        let receipt = &boundary.boundary.receipt;
        let stored = first(
            conn,
            "SELECT digest FROM receipt WHERE agent = ?1 AND generation = ?2 AND revision = ?3",
            params![head.key, Int(receipt.generation.0), Int(receipt.revision.0)],
            |row| Ok(Digest(row.get(0)?)),
        )?;
        if stored != Some(boundary.digest) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A unit on its way into the store.
struct Chain<'a> {
    owner: &'a Owner,
    /// The agent's row after the steps so far.
    head: &'a mut Head,
    /// An input that was accepted and not yet written: the next step may end it.
    waiting: Option<Waiting<'a>>,
    /// A snapshot that is not yet written, and its change number: that of the next boundary takes its place.
    snapshot: Option<(&'a PackedSnapshot, Int)>,
}

/// An input that was accepted by a unit and not yet written.
#[derive(Clone)]
struct Waiting<'a> {
    seq: Seq,
    arrival: &'a Arrival,
    placing: Placing,
}

impl<'a> Chain<'a> {
    /// Takes one step, or leaves everything as it was.
    fn step(&mut self, tx: &Tx<'_>, step: &'a PreparedStep) -> Fallible<Result<(), UnitFailure>> {
        let before = (self.head.clone(), self.waiting.clone(), self.snapshot);
        let result = match step {
            // Accepting writes nothing yet.
            PreparedStep::Accept { arrival, seq } if self.waiting.is_none() => self.accept(tx, arrival, *seq),
            _ => tx.nested(|| self.write_step(tx, step))?,
        };
        let failure = match result {
            Ok(()) => return Ok(Ok(())),
            Err(StepError::Failure(failure)) => failure,
            Err(StepError::Fail(fail)) if fail.spares_transaction() => UnitFailure::Store(fail.into()),
            Err(StepError::Fail(fail)) => return Err(fail),
        };
        (*self.head, self.waiting, self.snapshot) = before;
        Ok(Err(failure))
    }

    fn write_step(&mut self, tx: &Tx<'_>, step: &'a PreparedStep) -> Result<(), StepError> {
        match step {
            PreparedStep::Accept { arrival, seq } => self.accept(tx, arrival, *seq),
            PreparedStep::Attempts(attempts) => self.attempts(tx, attempts),
            PreparedStep::FailedStarts(failed) => {
                self.head.failed_starts = *failed;
                Ok(self.head.save(tx)?)
            }
            PreparedStep::Boundary(boundary) => match boundary.boundary.receipt.kind {
                BoundaryKind::Upgrade => Err(conflict("an upgrade takes a spec with it").into()),
                BoundaryKind::Repair => Err(conflict("a repair takes a recovery with it").into()),
                BoundaryKind::Init | BoundaryKind::Turn | BoundaryKind::DeadLetter => {
                    self.boundary(tx, boundary)
                }
            },
            PreparedStep::Configure(change) => {
                self.write_waiting(tx)?;
                Ok(specs::configure(tx, self.head, change)?)
            }
            PreparedStep::Upgrade(boundary, change) => {
                self.write_waiting(tx)?;
                self.check_boundary(tx, boundary)?;
                specs::upgrade(tx, self.head, &boundary.boundary, change)?;
                self.boundary(tx, boundary)
            }
            PreparedStep::Repair(boundary, commit) => {
                self.write_waiting(tx)?;
                self.check_boundary(tx, boundary)?;
                let commit = commit.as_ref().ok_or_else(|| {
                    conflict("the boundary is not a repair, or what moves the agent no recovery")
                })?;
                self.boundary(tx, boundary)?;
                Ok(lifecycle::recovered(tx, self.head, commit)?)
            }
            PreparedStep::Checkpoint(snapshot) => self.checkpoint(tx, snapshot),
        }
    }

    /// Writes what is left: an accepted input that nothing ended, and the newest snapshot.
    fn finish(mut self, tx: &Tx<'_>) -> Fallible<()> {
        self.write_waiting(tx)?;
        self.write_snapshot(tx)
    }

    fn write_snapshot(&mut self, tx: &Tx<'_>) -> Fallible<()> {
        match self.snapshot.take() {
            Some((snapshot, change)) => snapshots::write(tx, (self.head.key, Slot::First, change), snapshot),
            None => Ok(()),
        }
    }

    fn write_waiting(&mut self, tx: &Tx<'_>) -> Fallible<()> {
        let Some(Waiting { seq, arrival, placing }) = self.waiting.take() else {
            return Ok(());
        };
        let accepted_by = self.owner.incarnation;
        let fate = Fate { state: InputState::Queued, attempts: 0, deaths: 0, accepted_by, end: None };
        let place = (self.head.key, seq, self.head.change());
        tx.unique(insert(tx, place, &arrival.content(&placing), &fate))
    }

    fn accept(&mut self, tx: &Tx<'_>, arrival: &'a Arrival, expected: Seq) -> Result<(), StepError> {
        if arrival.new.delivery.is_some() || arrival.new.supersedes.is_some() {
            let what = "deliveries and superseding inputs inside a unit";
            return Err(StoreError::Unsupported { what }.into());
        }
        if arrival.new.agent != self.owner.agent {
            return Err(conflict("the input is another agent's").into());
        }
        self.write_waiting(tx)?;
        let is_checked = !tx.env.faults.skips_dedup();
        // Nearly all that would be taken are new. One that is not breaks a unique index, and is looked up then.
        let seems_new =
            tx.is_blind() && self.head.next_seq == expected && room(tx, self.head, arrival)?.is_ok();
        match (is_checked && !seems_new).then(|| door(tx, self.head, arrival)).transpose()? {
            Some(Ok(Some(known))) => return Err(StepError::Failure(UnitFailure::Duplicate(known))),
            Some(Err(refused)) => return Err(StepError::Failure(UnitFailure::Refused(refused))),
            Some(Ok(None)) | None => {}
        }
        if self.head.next_seq != expected {
            return Err(self.head.stale().into());
        }
        let placing = arrival.placing(tx.conn, &self.head.agent)?;
        self.head.next_seq = expected.next();
        self.head.opened(Share { wakes: placing.wakes, bytes: arrival.new.input.bytes() });
        self.waiting = Some(Waiting { seq: expected, arrival, placing });
        Ok(())
    }

    fn attempts(&mut self, tx: &Tx<'_>, attempts: &[Attempt]) -> Result<(), StepError> {
        self.write_waiting(tx)?;
        for attempt in attempts {
            let known = open_input(tx.conn, self.head, attempt.seq)?;
            let state = attempted(known.state, attempt)?;
            let change = self.head.change();
            execute(
                tx.conn,
                "UPDATE input SET change = ?3, state = ?4, attempts = ?5, deaths = ?6 WHERE agent = ?1 AND seq = ?2",
                params![
                    self.head.key,
                    Int(attempt.seq.0),
                    change,
                    input_state_code(state),
                    attempt.attempts,
                    attempt.deaths,
                ],
            )?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, tx: &Tx<'_>, snapshot: &PackedSnapshot) -> Result<(), StepError> {
        self.write_snapshot(tx)?;
        let at = (snapshot.generation, snapshot.revision);
        let Some((slot, digest)) = snapshots::of_boundary(tx.conn, self.head.key, at)? else {
            return match at == (self.head.generation.0, self.head.revision.0) {
                true => Ok(snapshots::write_beside(tx, self.head, snapshot)?),
                false => Err(self.head.stale().into()),
            };
        };
        let is_same = digest == snapshot.digest;
        // The pieces of a large one need not be read to be replaced by the same.
        if !(is_same && snapshot.body.is_some()) && snapshots::is_sound(tx.conn, self.head, slot)? {
            let what = format!("another snapshot of revision {} is stored", snapshot.revision);
            return if is_same { Ok(()) } else { Err(conflict(what).into()) };
        }
        // What is stored may be damaged, and whoever writes it once more has it from elsewhere.
        let place = (self.head.key, slot, self.head.change());
        Ok(snapshots::write(tx, place, snapshot)?)
    }

    fn boundary(&mut self, tx: &Tx<'_>, prepared: &'a PreparedBoundary) -> Result<(), StepError> {
        let shares = self.check_boundary(tx, prepared)?;
        let boundary = &prepared.boundary;
        shares.into_iter().for_each(|share| self.head.closed(share));
        let ends: Vec<(&InputEnd, &[u8])> =
            boundary.ends.iter().zip(prepared.outcomes.iter().map(Vec::as_slice)).collect();
        let waiting = self.waiting.as_ref().map(|waiting| waiting.seq);
        let is_alike = |one: &(&InputEnd, &[u8]), next: &(&InputEnd, &[u8])| {
            one.1 == next.1 && follows(one.0, next.0, waiting)
        };
        for run in ends.chunk_by(is_alike) {
            self.end(tx, run)?;
        }
        let size = self.head.state_size;
        for ((key, _), value) in boundary.state.iter().zip(&prepared.values) {
            state::write(tx, self.head, key, value.as_deref())?;
        }
        if let Some(what) = tx.env.quotas.state_problem(size, self.head.state_size) {
            return Err(StepError::Failure(UnitFailure::Quota { what }));
        }
        let outputs = (boundary.outputs.as_slice(), prepared.outputs.as_slice());
        channels::commit(tx, self.head, &boundary.receipt, outputs, &boundary.channels)?;
        for (name, timer) in &boundary.timers {
            timers::write(tx, self.head, boundary.receipt.revision, name, timer.as_ref())?;
        }
        for change in &boundary.operations {
            operations::write(tx, self.head, &boundary.receipt, change)?;
        }
        self.state(tx, prepared)?;
        let place = (self.head.key, self.head.change());
        write_receipt(tx, place, &boundary.receipt, prepared.digest, &prepared.receipt)?;
        append_of(tx, self.head, &boundary.events)?;
        plugins::flag(tx, self.head, boundary)?;
        self.head.revision = boundary.receipt.revision;
        self.head.failed_starts = 0;
        self.head.digest = prepared.digest;
        self.head.time_ms = self.head.time_ms.max(boundary.receipt.committed_at_ms);
        Ok(())
    }

    /// Writes the state after a boundary: the snapshot, what running the turn again needs, or both.
    fn state(&mut self, tx: &Tx<'_>, prepared: &'a PreparedBoundary) -> Fallible<()> {
        let Receipt { generation, revision, kind, .. } = prepared.boundary.receipt;
        let is_repair = kind == BoundaryKind::Repair;
        if let Some(snapshot) = &prepared.snapshot
            && (snapshot.body, &prepared.journal, is_repair) == (None, &None, false)
        {
            self.snapshot = Some((snapshot, self.head.change()));
            return Ok(());
        }
        self.write_snapshot(tx)?;
        if let Some(entry) = &prepared.journal {
            let place = (self.head.key, self.head.change());
            journal::write(tx, place, generation, revision, entry)?;
        }
        match &prepared.snapshot {
            None => Ok(()),
            Some(snapshot) if is_repair => snapshots::write_over_damage(tx, self.head, snapshot),
            Some(snapshot) if prepared.journal.is_some() => snapshots::write_beside(tx, self.head, snapshot),
            Some(snapshot) => {
                let place = (self.head.key, Slot::First, self.head.change());
                snapshots::write(tx, place, snapshot)
            }
        }
    }

    /// Answers what the inputs that it ends count for.
    fn check_boundary(&self, tx: &Tx<'_>, prepared: &PreparedBoundary) -> Result<Vec<Share>, StepError> {
        let boundary = &prepared.boundary;
        let receipt = &boundary.receipt;
        if !self.head.lifecycle.takes_boundary(receipt.kind) {
            return Err(StoreError::Lifecycle { state: self.head.lifecycle.clone() }.into());
        }
        if receipt.agent != self.owner.agent || receipt.generation != self.owner.generation {
            return Err(conflict("the receipt is another agent's or generation's").into());
        }
        if receipt.revision != self.head.revision.next() {
            return Err(self.head.stale().into());
        }
        if receipt.parent != self.head.digest {
            let what = format!("receipt {} has another parent than the head", receipt.revision);
            return Err(conflict(what).into());
        }
        if receipt.token != self.owner.token || receipt.incarnation != self.owner.incarnation {
            return Err(conflict("the receipt names another token or incarnation than its owner's").into());
        }
        if boundary.ends.len() != receipt.inputs.len() {
            return Err(conflict("the receipt names other inputs than those that end").into());
        }
        let mut shares = Vec::with_capacity(boundary.ends.len());
        let waiting = self.waiting.as_ref().map(|waiting| waiting.seq);
        for run in boundary.ends.chunk_by(|one, next| follows(one, next, waiting)) {
            for ((id, share), ended) in self.standing(tx, run)?.into_iter().zip(run) {
                let named = &receipt.inputs[..=shares.len()];
                if named.iter().position(|named| *named == id) != Some(shares.len()) {
                    return Err(conflict("the receipt names other inputs than those that end").into());
                }
                if !fits(&ended.outcome, receipt) {
                    let what = format!("the end of input {} is not of this boundary", ended.seq);
                    return Err(conflict(what).into());
                }
                shares.push(share);
            }
        }
        let is_of_revision = boundary.snapshot.as_ref().is_none_or(|snapshot| {
            (snapshot.generation, snapshot.revision) == (receipt.generation, receipt.revision)
        });
        if prepared.state_digest != receipt.state || !is_of_revision {
            return Err(conflict("the receipt names another state than the snapshot").into());
        }
        if boundary.journal.as_ref().map(JournalEntry::digest) != receipt.journal {
            return Err(conflict("the receipt names another journal entry").into());
        }
        Ok(shares)
    }

    /// What inputs that follow on each other are, and what they count for.
    fn standing(&self, tx: &Tx<'_>, run: &[InputEnd]) -> Result<Vec<(InputId, Share)>, StepError> {
        let [first, .., last] = run else {
            let Some(ended) = run.first() else { return Ok(Vec::new()) };
            return Ok(vec![self.standing_of(tx, ended.seq)?]);
        };
        let known = open_inputs(tx.conn, self.head, (first.seq, last.seq))?;
        match run.iter().zip(&known).find(|(ended, known)| ended.seq != known.seq) {
            Some((missing, _)) => Err(not_open(missing.seq).into()),
            None if known.len() < run.len() => Err(not_open(last.seq).into()),
            None => Ok(known.into_iter().map(|known| (known.id, known.share)).collect()),
        }
    }

    fn standing_of(&self, tx: &Tx<'_>, seq: Seq) -> Result<(InputId, Share), StepError> {
        match &self.waiting {
            Some(waiting) if waiting.seq == seq => {
                let input = &waiting.arrival.new.input;
                Ok((input.id, Share { wakes: waiting.placing.wakes, bytes: input.bytes() }))
            }
            _ => {
                let known = open_input(tx.conn, self.head, seq)?;
                Ok((known.id, known.share))
            }
        }
    }

    /// Ends inputs that follow on each other, and end alike.
    fn end(&mut self, tx: &Tx<'_>, run: &[(&InputEnd, &[u8])]) -> Fallible<()> {
        let [(ended, sealed), behind @ ..] = run else { return Ok(()) };
        let place = (self.head.key, ended.seq, self.head.change());
        for _ in behind {
            self.head.change();
        }
        let outcome = End { outcome: &ended.outcome, sealed, at_ms: tx.now_ms() };
        match self.waiting.take_if(|waiting| waiting.seq == ended.seq) {
            Some(Waiting { arrival, placing, .. }) => {
                let fate = Fate {
                    state: ended_state(&ended.outcome),
                    attempts: 0,
                    deaths: 0,
                    accepted_by: self.owner.incarnation,
                    end: Some(outcome),
                };
                tx.unique(insert(tx, place, &arrival.content(&placing), &fate))
            }
            None => end_run(tx, place, run.len() as u64, &outcome),
        }
    }
}

/// Whether two inputs that end lie beside each other in the store, where the one that waits does not.
fn follows(one: &InputEnd, next: &InputEnd, waiting: Option<Seq>) -> bool {
    next.seq == one.seq.next() && ![one.seq, next.seq].map(Some).contains(&waiting)
}

/// The state that an attempt leaves an input in; a repeated attempt changes nothing.
fn attempted(from: InputState, attempt: &Attempt) -> Fallible<InputState> {
    match attempt.state {
        state if state == from => Ok(state),
        InputState::Staged => moved(from, InputEvent::Stage),
        InputState::Queued => moved(from, InputEvent::Requeue),
        _ => Err(conflict(format!("an attempt can't leave input {} ended", attempt.seq))),
    }
}

fn fits(outcome: &Outcome, receipt: &Receipt) -> bool {
    match outcome {
        Outcome::Committed { revision, token, .. } => {
            *revision == receipt.revision && *token == receipt.token
        }
        Outcome::DeadLettered { revision, .. } => *revision == receipt.revision,
        Outcome::Replaced { .. } | Outcome::Abandoned { .. } => false,
    }
}

/// Writes a receipt. Receipts are never changed: one that is here already must be the same.
pub(super) fn write_receipt(
    tx: &Tx<'_>,
    (agent, change): (i64, Int),
    receipt: &Receipt,
    digest: Digest,
    bytes: &[u8],
) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO receipt (agent, generation, revision, change, kind, token, incarnation, committed_at_ms, digest, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            agent,
            Int(receipt.generation.0),
            Int(receipt.revision.0),
            change,
            receipt.kind as i64,
            Int(receipt.token.0),
            Int(receipt.incarnation.0),
            Int(receipt.committed_at_ms),
            digest.0,
            bytes,
        ],
    )
    .map(drop)
}

/// Receipts of a generation after a revision, ascending.
pub(super) fn receipts(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    generation: Generation,
    after: Revision,
    limit: usize,
) -> Fallible<Vec<Receipt>> {
    let after = Int(after.0.min(i64::MAX.unsigned_abs()));
    let generation = Int(generation.0.min(i64::MAX.unsigned_abs()));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(
        conn,
        "SELECT generation, revision, digest, body FROM receipt
         WHERE agent = ?1 AND generation = ?2 AND revision > ?3 ORDER BY revision LIMIT ?4",
        params![key, generation, after, limit],
        |row| receipt(row, agent),
    )
}

/// Reads a receipt and checks it against its digest and its key.
pub(super) fn receipt(row: &Row<'_>, agent: &AgentId) -> Fallible<Receipt> {
    let generation = Generation(row.get::<_, Int>(0)?.0);
    let revision = Revision(row.get::<_, Int>(1)?.0);
    let digest = Digest(row.get(2)?);
    let bytes: Vec<u8> = row.get(3)?;
    let what = || format!("receipt {revision} of agent {agent} in generation {generation}");
    if Digest::of(&bytes) != digest {
        return Err(corrupt(format!("{}: its digest does not match", what())));
    }
    match Receipt::from_bytes(&bytes) {
        Ok(receipt) if (receipt.generation, receipt.revision) == (generation, revision) => Ok(receipt),
        _ => Err(corrupt(format!("{}: it holds something else", what()))),
    }
}
