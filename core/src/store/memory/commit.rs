//! Accepting inputs, and committing chains of steps. Each step is checked whole before its first row is written.

use std::collections::BTreeSet;

use crate::channel::rules::{self, Copies};
use crate::channel::{ChannelDelivery, ChannelMessage, token};
use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, Incarnation, InputId, Revision, Seq};
use crate::identity::{EntityKeyRow, OriginHash};
use crate::input::{
    AbandonReason, DeliveryStamp, InputEvent, InputState, NewInput, Outcome, Placing, Reach, Scope, Source,
};
use crate::journal::JournalEntry;
use crate::lifecycle::Lifecycle;
use crate::limits::Quotas;
use crate::output::OutputState;
use crate::receipt::{BoundaryKind, Receipt};
use crate::reply;
use crate::snapshot::Snapshot;
use crate::spec::Addressability;
use crate::store::agent::StoredInput;
use crate::store::commit::{
    AcceptError, Accepted, Attempt, Boundary, InputEnd, Owner, Step, Unit, UnitFailure, UnitOutcome,
};
use crate::store::error::StoreError;
use crate::store::memory::channels::Table;
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::{Tables, conflict, stale};
use crate::store::memory::{operations, timers};
use crate::store::rows::{Receiver, Row, RowKey, Slot, check_first};
use crate::store::{OutputEnd, OutputKey};

impl Tables {
    pub(super) fn accept(
        &mut self,
        mut new: NewInput,
        by: Incarnation,
        copies: &mut Copies,
        now_ms: u64,
    ) -> Result<Accepted, AcceptError> {
        let quotas = self.quotas;
        let first = new.delivery.as_ref().map(|stamp| check_first(self.known_hash(&stamp.origin), stamp));
        let rows = self.at_home(&new.agent)?;
        new.input.accepted_at_ms = now_ms;
        let Some(stamp) = new.delivery.take() else {
            let (accepted, events) = let_in(rows, new, by, &quotas)?;
            self.append(events);
            return Ok(accepted);
        };
        let known = rows.receiver(&stamp.origin);
        if known.is_none() {
            first.unwrap_or(Ok(()))?;
        }
        let heard = judge(known, &stamp)?;
        let (accepted, events) = match (heard.is_next, stamp.channel.clone()) {
            (false, _) => (Accepted::AlreadyEnded, Vec::new()),
            (true, None) => let_in(rows, new, by, &quotas)?,
            (true, Some(channel)) => let_in_of_channel(rows, new, (&stamp, *channel), by, (&quotas, copies))?,
        };
        if rows.receiver(&stamp.origin) != Some(&heard.receiver) {
            rows.put(Row::Receiver(heard.receiver));
        }
        self.append(events);
        Ok(accepted)
    }

    pub(super) fn redrive(&mut self, agent: &AgentId, input: InputId) -> Result<(), StoreError> {
        let rows = self.at_home(agent)?;
        let known = rows.input_by_id(input).cloned();
        let mut input = known.ok_or_else(|| conflict(format!("input {input} is not here")))?;
        check_accepts(rows)?;
        input.state = moved(input.state, InputEvent::Redrive)?;
        input.attempts = 0;
        input.deaths = 0;
        input.placing.wakes = true;
        input.outcome = None;
        input.ended_at_ms = None;
        rows.put(Row::Input(input));
        Ok(())
    }

    pub(super) fn abandon(
        &mut self,
        agent: &AgentId,
        input: InputId,
        from: InputState,
        reason: AbandonReason,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let rows = self.at_home(agent)?;
        let known = rows.input_by_id(input).cloned();
        let mut input = known.ok_or_else(|| conflict(format!("input {input} is not here")))?;
        let outcome = Some(Outcome::Abandoned { reason });
        if input.outcome == outcome {
            return Ok(());
        }
        if input.state != from {
            let what = format!("input {} is {}, not {}", input.input.id, input.state.name(), from.name());
            return Err(conflict(what));
        }
        input.state = moved(input.state, InputEvent::Abandon)?;
        input.outcome = outcome;
        input.ended_at_ms = Some(now_ms);
        let event = NewEvent::input_abandoned(agent, input.input.id, reason, now_ms);
        rows.put(Row::Input(input));
        self.append([event]);
        Ok(())
    }

    pub(super) fn commit_turns(&mut self, unit: Unit, now_ms: u64) -> UnitOutcome {
        let Unit { owner, base, steps } = unit;
        let length = steps.len();
        let begun = self.fenced_at(&owner, base).map(|_| ());
        if let Err(error) = begun {
            let is_stale = matches!(error, StoreError::Stale { .. });
            return if is_stale && self.has_all_boundaries(&owner, base, &steps) {
                outcome(length, None)
            } else {
                outcome(0, Some(error.into()))
            };
        }
        for (committed, step) in steps.into_iter().enumerate() {
            if let Err(failure) = self.step(&owner, step, now_ms) {
                return outcome(committed, Some(failure));
            }
        }
        outcome(length, None)
    }

    /// Whether a unit that builds on an older revision has been committed before, whole.
    fn has_all_boundaries(&self, owner: &Owner, base: Revision, steps: &[Step]) -> bool {
        let rows = &self.agents[&owner.agent];
        let mut boundaries = 0;
        let are_stored = steps.iter().filter_map(Step::boundary).all(|boundary| {
            boundaries += 1;
            let receipt = &boundary.receipt;
            rows.receipt(receipt.generation, receipt.revision) == Some(receipt)
        });
        base < rows.portable().revision && boundaries > 0 && are_stored
    }

    fn step(&mut self, owner: &Owner, step: Step, now_ms: u64) -> Result<(), UnitFailure> {
        let quotas = self.quotas;
        let rows = self.at_home(&owner.agent)?;
        match step {
            Step::Accept { input, seq } => accept_in_unit(rows, *input, seq, owner.incarnation, &quotas),
            Step::Attempts(attempts) => Ok(write_attempts(rows, &attempts)?),
            Step::FailedStarts(failed) => {
                rows.update(|portable| portable.failed_starts = failed);
                Ok(())
            }
            Step::Checkpoint(snapshot) => Ok(write_checkpoint(rows, snapshot)?),
            Step::Configure(change) => Ok(self.configure(owner, change, now_ms)?),
            Step::Upgrade(upgrade) => Ok(self.upgrade(owner, *upgrade, now_ms)?),
            Step::Repair(repair) => Ok(self.repair(owner, *repair, now_ms)?),
            Step::Boundary(boundary) if boundary.receipt.kind == BoundaryKind::Upgrade => {
                Err(conflict("an upgrade takes a spec with it").into())
            }
            Step::Boundary(boundary) if boundary.receipt.kind == BoundaryKind::Repair => {
                Err(conflict("a repair takes a recovery with it").into())
            }
            Step::Boundary(boundary) => {
                check_boundary(rows, owner, &boundary)?;
                let (before, after) = (rows.state_size(), rows.state_size_after(&boundary.state));
                if let Some(what) = quotas.state_problem(before, after) {
                    return Err(UnitFailure::Quota { what });
                }
                self.flag(&boundary, now_ms);
                let rows = self.at_home(&owner.agent)?;
                let events = write_boundary(rows, *boundary, now_ms);
                self.append(events);
                Ok(())
            }
        }
    }

    /// By which hash an agent is known here to somebody who has heard nothing from it.
    fn known_hash(&self, origin: &AgentId) -> Option<OriginHash> {
        let own = self.agents.get(origin).and_then(AgentRows::entity_key);
        let own = own.map(|key| key.public().origin_hash());
        let mut heard = self.agents.values().filter_map(|rows| rows.receiver(origin)?.origin_hash);
        own.or_else(|| heard.next())
    }

    pub(super) fn end_outputs(
        &mut self,
        owner: &Owner,
        ends: &[(OutputKey, OutputEnd)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let rows = self.fenced(owner)?;
        let mut events = Vec::new();
        for (key, end) in ends {
            let Some(output) = rows.output(&key.destination, key.generation, key.number) else {
                continue;
            };
            match end {
                OutputEnd::Acknowledged => {
                    rows.delete(RowKey::Output(key.destination.clone(), key.generation, key.number))
                }
                OutputEnd::Undeliverable(reason) if output.state == OutputState::Pending => {
                    let mut output = output.clone();
                    output.state = OutputState::Undeliverable { reason: *reason };
                    rows.put(Row::Output(output.clone()));
                    let event = NewEvent::of_agent(&owner.agent, EventKind::OutputUndeliverable, now_ms)
                        .with("destination", &key.destination)
                        .with("number", key.number)
                        .with("reason", reason.name());
                    events.push(event);
                    let mut table = Table::between(rows, now_ms);
                    let Ok(answer) = rules::undeliverable(&mut table, &owner.agent, &output, now_ms);
                    events.append(&mut table.events);
                    if let Some(answer) = answer.filter(|new| is_welcome(rows, new)) {
                        admit(rows, answer, owner.incarnation);
                    }
                }
                OutputEnd::Undeliverable(_) => {}
            }
        }
        if rows.portable().lifecycle == Lifecycle::Deleted && rows.pending_outputs() == 0 {
            rows.erase_secret();
        }
        self.append(events);
        Ok(())
    }
}

impl From<StoreError> for UnitFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn outcome(committed: usize, failure: Option<UnitFailure>) -> UnitOutcome {
    UnitOutcome { committed, failure }
}

/// What a receiver makes of a delivery.
struct Heard {
    /// Its row afterwards.
    receiver: Receiver,
    /// Whether the delivery is the one that it waits for.
    is_next: bool,
}

/// Decides about a delivery by what was heard from its origin before.
fn judge(known: Option<&Receiver>, stamp: &DeliveryStamp) -> Result<Heard, AcceptError> {
    if let Some(known) = known {
        known.check_origin(stamp)?;
        if stamp.token < known.token {
            return Err(AcceptError::StalePublisher { highest: known.token });
        }
        if stamp.generation < known.generation {
            let origin_hash = known.hash_after(stamp);
            let receiver = Receiver { token: stamp.token, origin_hash, ..known.clone() };
            return Ok(Heard { receiver, is_next: false });
        }
    }
    let known_next = known.filter(|known| known.generation == stamp.generation).map_or(1, |known| known.next);
    let next = known_next.max(stamp.lowest_open);
    if stamp.number > next {
        return Err(AcceptError::Gap { next });
    }
    let is_next = stamp.number == next;
    let receiver = Receiver {
        origin: stamp.origin.clone(),
        generation: stamp.generation,
        token: stamp.token,
        next: if is_next { next + 1 } else { next },
        origin_hash: known.map_or(stamp.origin_hash, |known| known.hash_after(stamp)),
    };
    Ok(Heard { receiver, is_next })
}

/// Whether an input is here already; otherwise, whether there is room for it.
pub(super) fn door(
    rows: &AgentRows,
    new: &NewInput,
    quotas: &Quotas,
) -> Result<Option<Box<StoredInput>>, AcceptError> {
    let body = new.body_digest();
    let by_key = new.idempotency_key.as_ref().and_then(|key| rows.input_by_key(key));
    if let Some(known) = by_key {
        return if known.body_digest == body {
            Ok(Some(Box::new(known.clone())))
        } else {
            Err(AcceptError::KeyReused)
        };
    }
    if let Some(known) = rows.input_by_id(new.input.id) {
        // A request ends once, whatever comes later.
        let is_end_of_request = reply::timer_ended_by(&new.agent, &new.input).is_some();
        return if known.body_digest == body || is_end_of_request {
            Ok(Some(Box::new(known.clone())))
        } else {
            Err(conflict(format!("input {} has another body", new.input.id)).into())
        };
    }
    check_accepts(rows)?;
    check_reach(rows, new)?;
    let (depth, bytes) = (rows.open_inputs(), rows.open_bytes());
    if quotas.has_inbox_room(depth, bytes) { Ok(None) } else { Err(AcceptError::Busy { depth, bytes }) }
}

/// The state after an event, or `Conflict`.
fn moved(from: InputState, event: InputEvent) -> Result<InputState, StoreError> {
    from.on(event).map_err(|error| conflict(error.to_string()))
}

/// Accepts an input that came through the door by itself; answers what is to be known of those that it replaces.
fn let_in(
    rows: &mut AgentRows,
    new: NewInput,
    by: Incarnation,
    quotas: &Quotas,
) -> Result<(Accepted, Vec<NewEvent>), AcceptError> {
    let Some(mut known) = door(rows, &new, quotas)? else {
        let replaced = match placing(rows, &new).scope {
            Some(scope) => replace(rows, &new, &scope),
            None => Vec::new(),
        };
        return Ok((Accepted::New { seq: admit(rows, new, by) }, replaced));
    };
    if known.state.is_open() && !known.placing.wakes && placing(rows, &new).wakes {
        known.placing.wakes = true;
        rows.put(Row::Input((*known).clone()));
    }
    Ok((Accepted::Duplicate(known), Vec::new()))
}

/// Accepts a delivery that has to do with a channel.
fn let_in_of_channel(
    rows: &mut AgentRows,
    new: NewInput,
    (stamp, delivery): (&DeliveryStamp, ChannelDelivery),
    by: Incarnation,
    (quotas, copies): (&Quotas, &mut Copies),
) -> Result<(Accepted, Vec<NewEvent>), AcceptError> {
    let (origin, now_ms) = (&stamp.origin, new.input.accepted_at_ms);
    let table = |rows| Table::between(rows, now_ms);
    let ChannelDelivery { message, proof } = delivery;
    match &message {
        ChannelMessage::Request(request) => {
            check_accepts(rows)?;
            check_reach(rows, &new)?;
            let credential = &token::credential(stamp, &new, request, proof.as_ref());
            let portable = rows.portable();
            let (agent, generation) = (&portable.agent.clone(), portable.generation);
            let public_key = rows.entity_key().map(EntityKeyRow::public);
            let owner = token::Owner { agent, generation, public_key };
            let delivered = rules::Delivered { origin, request, credential, input: &new.input };
            let mut table = table(rows);
            let Ok(heard) = rules::hear(&mut table, &owner, &delivered, copies, now_ms);
            let events = table.events;
            match heard {
                rules::Heard::Answered => Ok((Accepted::Answered, events)),
                rules::Heard::Busy => {
                    Err(AcceptError::Busy { depth: rows.open_inputs(), bytes: rows.open_bytes() })
                }
            }
        }
        ChannelMessage::Event { channel } => {
            let Ok(is_taken) = rules::takes_events(&mut table(rows), origin, channel);
            if !is_taken {
                return Err(AcceptError::NotSubscribed { origin: origin.clone(), channel: channel.clone() });
            }
            let_in(rows, new, by, quotas)
        }
        ChannelMessage::Answer(_) | ChannelMessage::Ended { .. } | ChannelMessage::Publish { .. } => {
            let input = new.input.clone();
            let accepted = let_in(rows, new, by, quotas)?;
            if let (Accepted::New { .. }, _) = &accepted {
                let Ok(()) = rules::told(&mut table(rows), origin, &input, &message);
            }
            Ok(accepted)
        }
    }
}

fn placing(rows: &AgentRows, new: &NewInput) -> Placing {
    let nothing = BTreeSet::new();
    new.placing(rows.spec().map_or(&nothing, |spec| &spec.silent_intents))
}

/// Ends the queued inputs that a new one takes the place of; an event for each.
fn replace(rows: &mut AgentRows, new: &NewInput, scope: &Scope) -> Vec<NewEvent> {
    let NewInput { agent, input: by, .. } = new;
    let older: Vec<StoredInput> = rows.queued_in(&by.kind, scope).cloned().collect();
    let mut events = Vec::with_capacity(older.len());
    for mut input in older {
        events.push(NewEvent::input_replaced(agent, input.input.id, by.id, by.accepted_at_ms));
        input.state = moved(input.state, InputEvent::Replace).expect("it is queued");
        input.outcome = Some(Outcome::Replaced { by: by.id });
        input.ended_at_ms = Some(by.accepted_at_ms);
        rows.put(Row::Input(input));
    }
    events
}

/// Whether the door that an input came through leads to the agent.
fn check_reach(rows: &AgentRows, new: &NewInput) -> Result<(), AcceptError> {
    match (new.reach, &new.input.source) {
        (Reach::Addressable, _) => {
            let is_internal = rows.spec().is_some_and(|spec| spec.addressability == Addressability::Internal);
            if is_internal { Err(AcceptError::NotAddressable) } else { Ok(()) }
        }
        (Reach::Neighbours, Source::Peer { agent: origin, .. }) => {
            let is_neighbour = *origin == new.agent || rows.edges().contains_key(origin);
            if is_neighbour { Ok(()) } else { Err(AcceptError::NoEdge { origin: origin.clone() }) }
        }
        (Reach::Any | Reach::Neighbours, _) => Ok(()),
    }
}

/// Whether the agent was not deleted.
pub(super) fn check_lives(rows: &AgentRows) -> Result<(), StoreError> {
    let state = &rows.portable().lifecycle;
    if *state == Lifecycle::Deleted { Err(StoreError::Lifecycle { state: state.clone() }) } else { Ok(()) }
}

/// Whether the host may tell the agent something, also into a full inbox.
fn is_welcome(rows: &AgentRows, new: &NewInput) -> bool {
    rows.portable().lifecycle.accepts() && rows.input_by_id(new.input.id).is_none()
}

fn check_accepts(rows: &AgentRows) -> Result<(), StoreError> {
    let state = &rows.portable().lifecycle;
    if state.accepts() { Ok(()) } else { Err(StoreError::Lifecycle { state: state.clone() }) }
}

/// Writes the first input of a new generation, when the spec has one.
pub(super) fn admit_initial(rows: &mut AgentRows, now_ms: u64) {
    let portable = rows.portable();
    let (agent, generation) = (portable.agent.clone(), portable.generation);
    let initial = rows.spec().and_then(|spec| NewInput::initial(&agent, generation, spec, now_ms));
    if let Some(initial) = initial {
        // No session has accepted it.
        admit(rows, initial, Incarnation(0));
    }
}

/// Writes an input that was let in.
pub(super) fn admit(rows: &mut AgentRows, new: NewInput, by: Incarnation) -> Seq {
    let seq = rows.portable().next_seq;
    let body_digest = new.body_digest();
    let placing = placing(rows, &new);
    if let Some(timer) = reply::timer_ended_by(&new.agent, &new.input) {
        rows.delete(RowKey::Timer(timer));
    }
    rows.put(Row::Input(StoredInput {
        seq,
        input: new.input,
        state: InputState::Queued,
        attempts: 0,
        deaths: 0,
        accepted_by: by,
        idempotency_key: new.idempotency_key,
        body_digest,
        placing,
        traceparent: new.traceparent,
        outcome: None,
        ended_at_ms: None,
    }));
    rows.update(|portable| portable.next_seq = seq.next());
    seq
}

fn accept_in_unit(
    rows: &mut AgentRows,
    new: NewInput,
    expected: Seq,
    by: Incarnation,
    quotas: &Quotas,
) -> Result<(), UnitFailure> {
    if new.delivery.is_some() || new.supersedes.is_some() {
        let what = "deliveries and superseding inputs inside a unit";
        return Err(StoreError::Unsupported { what }.into());
    }
    match door(rows, &new, quotas) {
        Ok(None) if rows.portable().next_seq != expected => Err(stale(rows).into()),
        Ok(None) => {
            admit(rows, new, by);
            Ok(())
        }
        Ok(Some(known)) => Err(UnitFailure::Duplicate(known)),
        Err(refused) => Err(UnitFailure::Refused(refused)),
    }
}

/// An input that a step acts on. One that somebody else ended meanwhile makes the unit `Stale`: its owner looks again.
fn open_input(rows: &AgentRows, seq: Seq) -> Result<&StoredInput, StoreError> {
    match rows.input(seq) {
        Some(input) if input.state.is_open() => Ok(input),
        Some(StoredInput { state: InputState::Replaced | InputState::Abandoned, .. }) => Err(stale(rows)),
        Some(_) | None => Err(conflict(format!("input {seq} is not open"))),
    }
}

/// The state that an attempt leaves an input in; a repeated attempt changes nothing.
fn attempted(input: &StoredInput, attempt: &Attempt) -> Result<InputState, StoreError> {
    match attempt.state {
        state if state == input.state => Ok(state),
        InputState::Staged => moved(input.state, InputEvent::Stage),
        InputState::Queued => moved(input.state, InputEvent::Requeue),
        _ => Err(conflict(format!("an attempt can't leave input {} ended", attempt.seq))),
    }
}

fn write_attempts(rows: &mut AgentRows, attempts: &[Attempt]) -> Result<(), StoreError> {
    for attempt in attempts {
        attempted(open_input(rows, attempt.seq)?, attempt)?;
    }
    for attempt in attempts {
        let mut input = open_input(rows, attempt.seq)?.clone();
        input.state = attempted(&input, attempt)?;
        input.attempts = attempt.attempts;
        input.deaths = attempt.deaths;
        rows.put(Row::Input(input));
    }
    Ok(())
}

fn write_checkpoint(rows: &mut AgentRows, snapshot: Snapshot) -> Result<(), StoreError> {
    let at = |snapshot: &Snapshot| (snapshot.generation, snapshot.revision);
    match rows.snapshots().into_iter().find(|stored| at(stored) == at(&snapshot)) {
        Some(stored) if *stored == snapshot => Ok(()),
        Some(_) => Err(conflict(format!("another snapshot of revision {} is stored", snapshot.revision))),
        None if at(&snapshot) == (rows.portable().generation, rows.portable().revision) => {
            keep_snapshot(rows, snapshot);
            Ok(())
        }
        None => Err(stale(rows)),
    }
}

/// Writes a snapshot beside the newest one, and drops the journal entries that neither needs.
fn keep_snapshot(rows: &mut AgentRows, snapshot: Snapshot) {
    let slot = rows.newest_snapshot().map_or(Slot::First, |(newest, _)| newest.other());
    rows.put(Row::Snapshot { slot, snapshot });
    rows.prune_journal();
}

pub(super) fn check_boundary(rows: &AgentRows, owner: &Owner, boundary: &Boundary) -> Result<(), StoreError> {
    let receipt = &boundary.receipt;
    let portable = rows.portable();
    if !portable.lifecycle.takes_boundary(receipt.kind) {
        return Err(StoreError::Lifecycle { state: portable.lifecycle.clone() });
    }
    if receipt.agent != owner.agent || receipt.generation != owner.generation {
        return Err(conflict("the receipt is another agent's or generation's"));
    }
    if receipt.revision != portable.revision.next() {
        return Err(stale(rows));
    }
    if receipt.parent != portable.head {
        return Err(conflict(format!("receipt {} has another parent than the head", receipt.revision)));
    }
    if receipt.token != owner.token || receipt.incarnation != owner.incarnation {
        return Err(conflict("the receipt names another token or incarnation than its owner's"));
    }
    let mut ids = Vec::new();
    for end in &boundary.ends {
        ids.push(open_input(rows, end.seq)?.input.id);
        if !fits(&end.outcome, boundary) {
            return Err(conflict(format!("the end of input {} is not of this boundary", end.seq)));
        }
    }
    let distinct: BTreeSet<&InputId> = ids.iter().collect();
    if ids != receipt.inputs || distinct.len() != ids.len() {
        return Err(conflict("the receipt names other inputs than those that end"));
    }
    let state = boundary.snapshot.as_ref().map(Snapshot::state_digest);
    let is_of_revision = boundary.snapshot.as_ref().is_none_or(|snapshot| {
        (snapshot.generation, snapshot.revision) == (receipt.generation, receipt.revision)
    });
    if state != receipt.state || !is_of_revision {
        return Err(conflict("the receipt names another state than the snapshot"));
    }
    if boundary.journal.as_ref().map(JournalEntry::digest) != receipt.journal {
        return Err(conflict("the receipt names another journal entry"));
    }
    Ok(())
}

fn fits(outcome: &Outcome, boundary: &Boundary) -> bool {
    let receipt = &boundary.receipt;
    match outcome {
        Outcome::Committed { revision, token, .. } => {
            *revision == receipt.revision && *token == receipt.token
        }
        Outcome::DeadLettered { revision, .. } => *revision == receipt.revision,
        Outcome::Replaced { .. } | Outcome::Abandoned { .. } => false,
    }
}

/// Writes a boundary that was checked, and answers its events.
pub(super) fn write_boundary(rows: &mut AgentRows, boundary: Boundary, now_ms: u64) -> Vec<NewEvent> {
    let Boundary {
        receipt,
        ends,
        snapshot,
        journal,
        state,
        outputs,
        channels,
        timers,
        operations,
        mut events,
    } = boundary;
    for InputEnd { seq, outcome } in ends {
        let mut input = rows.input(seq).expect("checked").clone();
        let event = match outcome {
            Outcome::Committed { .. } => InputEvent::Commit,
            _ => InputEvent::DeadLetter,
        };
        input.state = input.state.on(event).expect("an open input takes both");
        input.outcome = Some(outcome);
        input.ended_at_ms = Some(now_ms);
        rows.put(Row::Input(input));
    }
    for (key, value) in state {
        match value {
            Some(value) => rows.put(Row::State { key, value }),
            None => rows.delete(RowKey::State(key)),
        }
    }
    let (agent, generation) = (&receipt.agent, receipt.generation);
    let mut table = Table::new(rows, receipt.revision, receipt.committed_at_ms);
    let owner = token::Owner { agent, generation, public_key: None };
    let Ok(()) = rules::commit(&mut table, &owner, receipt.revision, (&outputs, &channels), now_ms);
    events.extend(table.events);
    for (name, timer) in timers {
        timers::write(rows, name, timer, receipt.revision);
    }
    for change in operations {
        operations::write(rows, change, &receipt);
    }
    match (snapshot, journal) {
        (None, None) => {}
        (Some(snapshot), None) if receipt.kind == BoundaryKind::Repair => keep_snapshot(rows, snapshot),
        (Some(snapshot), None) => rows.put(Row::Snapshot { slot: Slot::First, snapshot }),
        (snapshot, Some(entry)) => {
            let Receipt { generation, revision, .. } = receipt;
            rows.put(Row::Journal { generation, revision, entry });
            if let Some(snapshot) = snapshot {
                keep_snapshot(rows, snapshot);
            }
        }
    }
    rows.update(|portable| {
        portable.revision = receipt.revision;
        portable.failed_starts = 0;
        portable.head = receipt.digest();
        portable.time_ms = portable.time_ms.max(receipt.committed_at_ms);
    });
    rows.put(Row::Receipt(receipt));
    events
}
