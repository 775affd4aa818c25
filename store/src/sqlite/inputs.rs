//! Inputs: the door and the rows. What readers ask of them is in `inputs/reading.rs`, what agents have heard from each other in
//! `inputs/deliveries.rs`.

use std::collections::BTreeSet;

use godwit_core::channel::token::{self, Credential};
use godwit_core::channel::{Ask, ChannelDelivery, ChannelMessage, Refusal};
use godwit_core::digest::Digest;
use godwit_core::event::NewEvent;
use godwit_core::id::{AgentId, Incarnation, InputId, Seq};
use godwit_core::input::{
    AbandonReason, Input, InputEvent, InputState, Kind, NewInput, Outcome, Placing, Reach, Scope, Source,
    TraceParent,
};
use godwit_core::reply;
use godwit_core::spec::Spec;
use godwit_core::store::rows::check_first;
use godwit_core::store::{AcceptError, Accepted, StoreError, StoredInput};
use rusqlite::{Connection, params};

use super::agents::{self, Head, Share};
use super::codec::{Int, input_state, input_state_code, lane_code, seal};
use super::error::{Fail, Fallible, conflict};
use super::events::append_of;
use super::leases::at_home;
use super::sql::{all, execute, first};
use super::writer::Tx;
use super::{channels, edges, timers};

mod deliveries;
mod parts;
mod reading;

pub(super) use deliveries::{Hearing, heard_of, receiver, write_receiver};
use deliveries::{judge, known_hash};
use reading::by_key;
#[cfg(test)]
pub(super) use reading::{BY_KEY, DEAD_LETTERS, OPEN};
pub(super) use reading::{Listed, by_id, by_seq, input, input_by_key, key_of, list};

/// The session that no store gives: inputs received from another store carry it.
const NO_INCARNATION: Incarnation = Incarnation(0);

/// An input whose body is sealed, so that the writer thread need not.
pub(super) struct Arrival {
    pub(super) new: NewInput,
    digest: Digest,
    body: Vec<u8>,
    /// What the token of a request to a channel comes to.
    pub(super) credential: Result<Option<Credential>, Refusal>,
}

impl Arrival {
    /// Seals an input. `accepted_at_ms` of the body is what the caller has set.
    pub(super) fn new(new: NewInput) -> Self {
        let credential = credential(&new);
        Self { digest: new.body_digest(), body: seal(&new.input), credential, new }
    }

    /// What it has to do with a channel.
    pub(super) fn channel(&self) -> Option<&ChannelDelivery> {
        self.new.delivery.as_ref().and_then(|stamp| stamp.channel.as_deref())
    }
}

fn credential(new: &NewInput) -> Result<Option<Credential>, Refusal> {
    let Some(stamp) = &new.delivery else { return Ok(None) };
    match stamp.channel.as_deref() {
        Some(ChannelDelivery { message: ChannelMessage::Request(request), proof }) => {
            token::credential(stamp, new, request, proof.as_ref())
        }
        _ => Ok(None),
    }
}

/// What of an input never changes.
pub(super) struct Content<'a> {
    pub(super) input: &'a Input,
    pub(super) digest: Digest,
    /// `input`, sealed.
    pub(super) body: &'a [u8],
    pub(super) key: Option<&'a str>,
    pub(super) placing: &'a Placing,
    pub(super) traceparent: Option<&'a TraceParent>,
}

impl Arrival {
    /// What is stored of it, once admission has placed it.
    pub(super) fn content<'a>(&'a self, placing: &'a Placing) -> Content<'a> {
        Content {
            input: &self.new.input,
            digest: self.digest,
            body: &self.body,
            key: self.new.idempotency_key.as_deref(),
            placing,
            traceparent: self.new.traceparent.as_ref(),
        }
    }

    /// What admission makes of it. Only requests of peers depend on the agent's spec.
    pub(super) fn placing(&self, conn: &Connection, agent: &AgentId) -> Fallible<Placing> {
        let nothing = BTreeSet::new();
        if !matches!(self.new.input.kind, Kind::PeerRequest { .. }) {
            return Ok(self.new.placing(&nothing));
        }
        let spec = agents::spec(conn, agent)?;
        Ok(self.new.placing(spec.as_ref().map_or(&nothing, |spec| &spec.silent_intents)))
    }
}

/// What of an input's row changes.
pub(super) struct Fate<'a> {
    pub(super) state: InputState,
    pub(super) attempts: u32,
    pub(super) deaths: u32,
    pub(super) accepted_by: Incarnation,
    pub(super) end: Option<End<'a>>,
}

/// The end of an input, with its outcome sealed.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) outcome: &'a Outcome,
    pub(super) sealed: &'a [u8],
    /// By the wall clock of the store that it happened in.
    pub(super) at_ms: u64,
}

impl End<'_> {
    fn revision(&self) -> Option<Int> {
        match self.outcome {
            Outcome::Committed { revision, .. } | Outcome::DeadLettered { revision, .. } => {
                Some(Int(revision.0))
            }
            Outcome::Replaced { .. } | Outcome::Abandoned { .. } => None,
        }
    }

    fn token(&self) -> Option<Int> {
        match self.outcome {
            Outcome::Committed { token, .. } => Some(Int(token.0)),
            _ => None,
        }
    }
}

/// Writes the row of an input that is not here yet.
pub(super) fn insert(
    tx: &Tx<'_>,
    (agent, seq, change): (i64, Seq, Int),
    content: &Content<'_>,
    fate: &Fate<'_>,
) -> Fallible<()> {
    let is_inline = content.body.len() <= parts::INLINE_MAX;
    execute(
        tx.conn,
        "INSERT INTO input (agent, seq, change, state, attempts, accepted_by, revision, token, kind, id, key, digest,
             outcome_sealed, ended_at_ms, body, deaths, lane, wakes, scope, traceparent, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
        params![
            agent,
            Int(seq.0),
            change,
            input_state_code(fate.state),
            fate.attempts,
            Int(fate.accepted_by.0),
            fate.end.and_then(|end| end.revision()),
            fate.end.and_then(|end| end.token()),
            content.input.kind.name(),
            content.input.id.0,
            content.key,
            content.digest.0,
            fate.end.map(|end| parts::column(end.sealed)),
            fate.end.map(|end| Int(end.at_ms)),
            is_inline.then_some(content.body),
            fate.deaths,
            lane_code(content.placing.lane),
            content.placing.wakes,
            content.placing.scope.as_ref().map(|scope| &scope.0),
            content.traceparent.map(TraceParent::as_str),
            Int(content.input.bytes()),
        ],
    )?;
    parts::put_large(tx, (agent, seq), parts::Part::Body, content.body)?;
    fate.end.map_or(Ok(()), |end| parts::put_large(tx, (agent, seq), parts::Part::Outcome, end.sealed))
}

/// Ends an open input.
pub(super) fn end(tx: &Tx<'_>, (agent, seq, change): (i64, Seq, Int), end: &End<'_>) -> Fallible<()> {
    end_run(tx, (agent, seq, change), 1, end)
}

/// Ends so many open inputs, from one on, alike. Their change numbers follow on each other, too.
pub(super) fn end_run(
    tx: &Tx<'_>,
    (agent, first, change): (i64, Seq, Int),
    count: u64,
    end: &End<'_>,
) -> Fallible<()> {
    let last = first.0.saturating_add(count - 1);
    execute(
        tx.conn,
        "UPDATE input SET change = ?3 + (seq - ?2), state = ?4, revision = ?5, token = ?6, outcome_sealed = ?7,
             ended_at_ms = ?8
         WHERE agent = ?1 AND seq BETWEEN ?2 AND ?9",
        params![
            agent,
            Int(first.0),
            change,
            input_state_code(ended_state(end.outcome)),
            end.revision(),
            end.token(),
            parts::column(end.sealed),
            Int(end.at_ms),
            Int(last),
        ],
    )?;
    (first.0..=last)
        .try_for_each(|seq| parts::put_large(tx, (agent, Seq(seq)), parts::Part::Outcome, end.sealed))
}

/// The state that an outcome leaves an input in.
pub(super) fn ended_state(outcome: &Outcome) -> InputState {
    match outcome {
        Outcome::Committed { .. } => InputState::Consumed,
        Outcome::DeadLettered { .. } => InputState::DeadLettered,
        Outcome::Replaced { .. } => InputState::Replaced,
        Outcome::Abandoned { .. } => InputState::Abandoned,
    }
}

/// What a step must know of an input that it acts on.
pub(super) struct Standing {
    pub(super) seq: Seq,
    pub(super) id: InputId,
    pub(super) state: InputState,
    pub(super) share: Share,
}

/// An input that a step of a unit acts on. One that somebody else ended meanwhile makes the unit `Stale`: its owner looks
/// again.
pub(super) fn open_input(conn: &Connection, head: &Head, seq: Seq) -> Fallible<Standing> {
    open_inputs(conn, head, (seq, seq))?.pop().ok_or_else(|| not_open(seq))
}

/// As `open_input`, all from one to another.
pub(super) fn open_inputs(
    conn: &Connection,
    head: &Head,
    (first, last): (Seq, Seq),
) -> Fallible<Vec<Standing>> {
    let sql = "SELECT seq, id, state, wakes, bytes FROM input WHERE agent = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq";
    all(conn, sql, params![head.key, Int(first.0), Int(last.0)], |row| {
        let seq = Seq(row.get::<_, Int>(0)?.0);
        let share = Share { wakes: row.get(3)?, bytes: row.get::<_, Int>(4)?.0 };
        let known = Standing { seq, id: InputId(row.get(1)?), state: input_state(row.get(2)?)?, share };
        match known.state {
            state if state.is_open() => Ok(known),
            InputState::Replaced | InputState::Abandoned => Err(head.stale().into()),
            _ => Err(not_open(seq)),
        }
    })
}

pub(super) fn not_open(seq: Seq) -> Fail {
    conflict(format!("input {seq} is not open"))
}

/// The state after an event, or `Conflict`.
pub(super) fn moved(from: InputState, event: InputEvent) -> Fallible<InputState> {
    from.on(event).map_err(|error| conflict(error.to_string()))
}

// --- acceptance

/// What a door answers.
pub(super) type Door = Result<Option<Box<StoredInput>>, AcceptError>;

/// Whether an input is here already; otherwise, whether there is room for it.
pub(super) fn door(tx: &Tx<'_>, head: &Head, arrival: &Arrival) -> Fallible<Door> {
    match known(tx.conn, head, arrival)? {
        Ok(None) => room(tx, head, arrival),
        told => Ok(told),
    }
}

/// As `door`, but what is nearly always so is found out by failing: an input that is here already breaks a unique index,
/// and the group runs once more.
pub(super) fn quick_door(tx: &Tx<'_>, head: &Head, arrival: &Arrival) -> Fallible<Door> {
    if tx.is_blind()
        && let Ok(None) = room(tx, head, arrival)?
    {
        return Ok(Ok(None));
    }
    door(tx, head, arrival)
}

/// Whether an input is here already.
fn known(conn: &Connection, head: &Head, arrival: &Arrival) -> Fallible<Door> {
    let known = match &arrival.new.idempotency_key {
        Some(key) => by_key(conn, head.key, &head.agent, key)?,
        None => None,
    };
    if let Some(known) = known {
        let is_same = known.body_digest == arrival.digest;
        return Ok(if is_same { Ok(Some(Box::new(known))) } else { Err(AcceptError::KeyReused) });
    }
    let id = arrival.new.input.id;
    if let Some(known) = by_id(conn, head.key, &head.agent, id)? {
        // A request ends once, whatever comes later.
        let is_end_of_request = reply::timer_ended_by(&head.agent, &arrival.new.input).is_some();
        if known.body_digest == arrival.digest || is_end_of_request {
            return Ok(Ok(Some(Box::new(known))));
        }
        return Err(conflict(format!("input {id} has another body")));
    }
    Ok(Ok(None))
}

/// Why the agent takes nothing, or nothing from there, if so.
fn unwelcome(tx: &Tx<'_>, head: &Head, arrival: &Arrival) -> Fallible<Option<AcceptError>> {
    if !head.lifecycle.accepts() {
        return Ok(Some(StoreError::Lifecycle { state: head.lifecycle.clone() }.into()));
    }
    unreached(tx.conn, head, &arrival.new)
}

/// Whether the agent takes the input, and there is room for it.
pub(super) fn room(tx: &Tx<'_>, head: &Head, arrival: &Arrival) -> Fallible<Door> {
    if let Some(refused) = unwelcome(tx, head, arrival)? {
        return Ok(Err(refused));
    }
    let (depth, bytes) = (head.open_inputs, head.open_bytes);
    if !tx.env.quotas.has_inbox_room(depth, bytes) {
        return Ok(Err(AcceptError::Busy { depth, bytes }));
    }
    if is_full(tx)? { Ok(Err(StoreError::Full.into())) } else { Ok(Ok(None)) }
}

/// Whether the store takes nothing more: what was accepted must find room for its turns.
fn is_full(tx: &Tx<'_>) -> Fallible<bool> {
    match tx.env.quotas.store_bytes_max {
        Some(max) => Ok(used_bytes(tx.conn)? > max / 16 * 15),
        None => Ok(false),
    }
}

/// Why the door that an input came through does not lead to the agent, if it doesn't.
fn unreached(conn: &Connection, head: &Head, new: &NewInput) -> Fallible<Option<AcceptError>> {
    match (new.reach, &new.input.source) {
        (Reach::Addressable, _) => Ok(head.is_internal.then_some(AcceptError::NotAddressable)),
        (Reach::Neighbours, Source::Peer { agent: origin, .. }) => {
            let is_neighbour = *origin == head.agent || edges::edge(conn, head.key, origin)?.is_some();
            Ok((!is_neighbour).then(|| AcceptError::NoEdge { origin: origin.clone() }))
        }
        (Reach::Any | Reach::Neighbours, _) => Ok(None),
    }
}

/// Bytes of the file that hold something.
fn used_bytes(conn: &Connection) -> Fallible<u64> {
    let sql = "SELECT (page_count - freelist_count) * page_size
               FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    Ok(first(conn, sql, [], |row| Ok(row.get::<_, Int>(0)?.0))?.unwrap_or(0))
}

pub(super) fn accept(
    tx: &Tx<'_>,
    arrival: &mut Arrival,
    by: Incarnation,
) -> Fallible<Result<Accepted, AcceptError>> {
    let mut hearing = Hearing::default();
    let accepted = accept_next(tx, arrival, by, &mut hearing)?;
    hearing.write(tx)?;
    Ok(accepted)
}

/// Accepts one of several inputs. `hearing` is written by whoever has it, behind the last one.
pub(super) fn accept_next(
    tx: &Tx<'_>,
    arrival: &mut Arrival,
    by: Incarnation,
    hearing: &mut Hearing,
) -> Fallible<Result<Accepted, AcceptError>> {
    let agent = arrival.new.agent.clone();
    tx.with_head(&agent, |head| accept_at(tx, head, arrival, by, hearing))
}

fn accept_at(
    tx: &Tx<'_>,
    head: &mut Head,
    arrival: &mut Arrival,
    by: Incarnation,
    hearing: &mut Hearing,
) -> Fallible<Result<Accepted, AcceptError>> {
    if tx.env.faults.skips_dedup() {
        return accept_blindly(tx, head, arrival, by).map(Ok);
    }
    let heard = match arrival.new.delivery.as_ref() {
        None => None,
        Some(stamp) => {
            let known = hearing.of(tx, head, &stamp.origin)?;
            let first = match &known {
                None => check_first(known_hash(tx.conn, &stamp.origin)?, stamp),
                Some(_) => Ok(()),
            };
            match first.and_then(|()| judge(known, stamp)) {
                Ok(heard) => Some(heard),
                Err(refused) => return Ok(Err(refused)),
            }
        }
    };
    let is_due = heard.as_ref().is_none_or(|heard| heard.is_next);
    let accepted = if is_due {
        match let_in(tx, head, arrival, by, hearing)? {
            Ok(accepted) => accepted,
            Err(refused) => return Ok(Err(refused)),
        }
    } else {
        Accepted::AlreadyEnded
    };
    if let Some(heard) = heard.filter(|heard| !heard.is_known) {
        hearing.note(tx, head.change(), heard.receiver)?;
    }
    Ok(Ok(accepted))
}

/// Accepts an input whose turn it is, as far as deliveries go.
fn let_in(
    tx: &Tx<'_>,
    head: &mut Head,
    arrival: &Arrival,
    by: Incarnation,
    hearing: &mut Hearing,
) -> Fallible<Result<Accepted, AcceptError>> {
    let of_channel = arrival.new.delivery.as_ref().filter(|stamp| stamp.channel.is_some());
    if let Some(stamp) = of_channel {
        if let Some(ChannelDelivery { message: ChannelMessage::Request(request), .. }) = arrival.channel() {
            if let Some(refused) = unwelcome(tx, head, arrival)? {
                return Ok(Err(refused));
            }
            // Who leaves makes room.
            if request.ask != Ask::Unsubscribe && is_full(tx)? {
                return Ok(Err(StoreError::Full.into()));
            }
            let heard = channels::hear(tx, head, arrival, &stamp.origin, &mut hearing.copies)?;
            return Ok(heard.map(|()| Accepted::Answered));
        }
        if let Some(unwanted) = channels::unwanted(tx, head, arrival, stamp, hearing)? {
            return Ok(Err(unwanted));
        }
    }
    match quick_door(tx, head, arrival)? {
        Ok(Some(mut known)) => {
            rouse(tx, head, arrival, &mut known)?;
            Ok(Ok(Accepted::Duplicate(known)))
        }
        Ok(None) => {
            let seq = admit(tx, head, arrival, by)?;
            if let Some(stamp) = of_channel {
                channels::told(tx, head, arrival, &stamp.origin)?;
            }
            Ok(Ok(Accepted::New { seq }))
        }
        Err(refused) => Ok(Err(refused)),
    }
}

/// Writes an input that was let in.
pub(super) fn admit(tx: &Tx<'_>, head: &mut Head, arrival: &Arrival, by: Incarnation) -> Fallible<Seq> {
    let placing = arrival.placing(tx.conn, &head.agent)?;
    if let Some(scope) = &placing.scope {
        replace(tx, head, &arrival.new.input, scope)?;
    }
    if let Some(timer) = reply::timer_ended_by(&head.agent, &arrival.new.input) {
        timers::delete(tx, head, &timer)?;
    }
    let seq = head.next_seq;
    let fate = Fate { state: InputState::Queued, attempts: 0, deaths: 0, accepted_by: by, end: None };
    let place = (head.key, seq, head.change());
    tx.unique(insert(tx, place, &arrival.content(&placing), &fate))?;
    head.next_seq = seq.next();
    head.opened(Share { wakes: placing.wakes, bytes: arrival.new.input.bytes() });
    Ok(seq)
}

/// Writes the first input of a new generation, when the spec has one.
pub(super) fn admit_initial(tx: &Tx<'_>, head: &mut Head, spec: &Spec) -> Fallible<()> {
    match NewInput::initial(&head.agent, head.generation, spec, tx.now_ms()) {
        // No session has accepted it.
        Some(initial) => admit(tx, head, &Arrival::new(initial), NO_INCARNATION).map(drop),
        None => Ok(()),
    }
}

/// A stored input that is open and silent wakes from now on, if this repetition of it would.
fn rouse(tx: &Tx<'_>, head: &mut Head, arrival: &Arrival, known: &mut StoredInput) -> Fallible<()> {
    let can_be_roused = known.state.is_open() && !known.placing.wakes;
    if !can_be_roused || !arrival.placing(tx.conn, &head.agent)?.wakes {
        return Ok(());
    }
    known.placing.wakes = true;
    head.waking_inputs += 1;
    let change = head.change();
    execute(
        tx.conn,
        "UPDATE input SET change = ?3, wakes = 1 WHERE agent = ?1 AND seq = ?2",
        params![head.key, Int(known.seq.0), change],
    )
    .map(drop)
}

/// The queued inputs that a newer one of a kind and scope replaces.
pub(super) const IN_SCOPE: &str = "SELECT seq, state, wakes, bytes, id FROM input INDEXED BY input_scope
     WHERE agent = ?1 AND kind = ?2 AND scope = ?3 AND scope IS NOT NULL AND state = 0 ORDER BY seq";

/// Ends the queued inputs that a new one takes the place of.
fn replace(tx: &Tx<'_>, head: &mut Head, by: &Input, scope: &Scope) -> Fallible<()> {
    let older = all(tx.conn, IN_SCOPE, params![head.key, by.kind.name(), scope.0], |row| {
        let share = Share { wakes: row.get(2)?, bytes: row.get::<_, Int>(3)?.0 };
        Ok((Seq(row.get::<_, Int>(0)?.0), input_state(row.get(1)?)?, share, InputId(row.get(4)?)))
    })?;
    let mut events = Vec::with_capacity(older.len());
    let outcome = Outcome::Replaced { by: by.id };
    let sealed = seal(&outcome);
    for (seq, state, share, id) in older {
        moved(state, InputEvent::Replace)?;
        let place = (head.key, seq, head.change());
        end(tx, place, &End { outcome: &outcome, sealed: &sealed, at_ms: tx.now_ms() })?;
        head.closed(share);
        events.push(NewEvent::input_replaced(&head.agent, id, by.id, tx.now_ms()));
    }
    append_of(tx, head, &events)
}

/// `no-dedup`: every arrival is new, under an id of its own where its own is taken.
fn accept_blindly(
    tx: &Tx<'_>,
    head: &mut Head,
    arrival: &mut Arrival,
    by: Incarnation,
) -> Fallible<Accepted> {
    if by_id(tx.conn, head.key, &head.agent, arrival.new.input.id)?.is_some() {
        arrival.new.input.id = InputId(tx.env.clock.random());
        arrival.body = seal(&arrival.new.input);
    }
    arrival.new.idempotency_key = None;
    Ok(Accepted::New { seq: admit(tx, head, arrival, by)? })
}

pub(super) fn redrive(tx: &Tx<'_>, agent: &AgentId, input: InputId) -> Fallible<()> {
    let mut head = at_home(tx.conn, agent)?;
    let known = by_id(tx.conn, head.key, agent, input)?;
    let known = known.ok_or_else(|| conflict(format!("input {input} is not here")))?;
    if !head.lifecycle.accepts() {
        return Err(StoreError::Lifecycle { state: head.lifecycle }.into());
    }
    let state = moved(known.state, InputEvent::Redrive)?;
    let change = head.change();
    execute(
        tx.conn,
        "UPDATE input SET change = ?3, state = ?4, attempts = 0, deaths = 0, wakes = 1, revision = NULL, token = NULL,
             outcome_sealed = NULL, ended_at_ms = NULL
         WHERE agent = ?1 AND seq = ?2",
        params![head.key, Int(known.seq.0), change, input_state_code(state)],
    )?;
    parts::drop_outcome(tx, head.key, known.seq)?;
    head.opened(Share { wakes: true, bytes: known.input.bytes() });
    Ok(head.save(tx)?)
}

pub(super) fn abandon(
    tx: &Tx<'_>,
    agent: &AgentId,
    input: InputId,
    from: InputState,
    reason: AbandonReason,
) -> Fallible<()> {
    let mut head = at_home(tx.conn, agent)?;
    let known = by_id(tx.conn, head.key, agent, input)?;
    let known = known.ok_or_else(|| conflict(format!("input {input} is not here")))?;
    let outcome = Outcome::Abandoned { reason };
    if known.outcome.as_ref() == Some(&outcome) {
        return Ok(());
    }
    if known.state != from {
        return Err(conflict(format!("input {input} is {}, not {}", known.state.name(), from.name())));
    }
    moved(from, InputEvent::Abandon)?;
    parts::drop_outcome(tx, head.key, known.seq)?;
    let place = (head.key, known.seq, head.change());
    end(tx, place, &End { outcome: &outcome, sealed: &seal(&outcome), at_ms: tx.now_ms() })?;
    if from.is_open() {
        head.closed(Share { wakes: known.placing.wakes, bytes: known.input.bytes() });
    }
    let event = NewEvent::input_abandoned(agent, input, reason, tx.now_ms());
    append_of(tx, &mut head, &[event])?;
    Ok(head.save(tx)?)
}

/// Takes an input from another store; of two rows of one seq the one with the higher change number stays.
pub(super) fn receive(tx: &Tx<'_>, agent: i64, change: Int, input: &StoredInput) -> Fallible<()> {
    let known = first(
        tx.conn,
        "SELECT change FROM input WHERE agent = ?1 AND seq = ?2",
        params![agent, Int(input.seq.0)],
        |row| Ok(row.get::<_, Int>(0)?),
    )?;
    match known {
        Some(known) if known.0 >= change.0 => return Ok(()),
        Some(_) => {
            let delete = "DELETE FROM input WHERE agent = ?1 AND seq = ?2";
            execute(tx.conn, delete, params![agent, Int(input.seq.0)])?;
        }
        None => {}
    }
    let sealed = input.outcome.as_ref().map(seal);
    let fate = Fate {
        state: input.state,
        attempts: input.attempts,
        deaths: input.deaths,
        accepted_by: NO_INCARNATION,
        end: input.outcome.as_ref().zip(sealed.as_deref()).map(|(outcome, sealed)| End {
            outcome,
            sealed,
            at_ms: input.ended_at_ms.unwrap_or(0),
        }),
    };
    let body = seal(&input.input);
    let content = Content {
        input: &input.input,
        digest: input.body_digest,
        body: &body,
        key: input.idempotency_key.as_deref(),
        placing: &input.placing,
        traceparent: input.traceparent.as_ref(),
    };
    insert(tx, (agent, input.seq, change), &content, &fate)
}
