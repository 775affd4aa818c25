//! Operations: rows started with boundaries, who must look after them, beginning and ending one.

use godwit_core::id::{AgentId, FencingToken, Generation, Incarnation, InputId, OperationId, Revision, Seq};
use godwit_core::input::NewInput;
use godwit_core::operation::{
    After, NewOperation, OperationChange, OperationEnd, OperationEvent, OperationState, StoredOperation,
};
use godwit_core::receipt::Receipt;
use godwit_core::store::{AcceptError, Owner, RowKey};
use rusqlite::{Connection, Row, params};

use super::agents::Head;
use super::codec::{Int, agent_id, seal, unseal};
use super::error::{Fallible, conflict};
use super::inputs::{self, Arrival, admit, door, key_of};
use super::leases::own;
use super::sql::{all, execute, first};
use super::state::bury;
use super::writer::Tx;

/// Starts or cancels an operation with the boundary of a receipt.
pub(super) fn write(
    tx: &Tx<'_>,
    head: &mut Head,
    receipt: &Receipt,
    changed: &OperationChange,
) -> Fallible<()> {
    match changed {
        OperationChange::Start(operation) => {
            let change = head.change();
            let stored = StoredOperation {
                operation: operation.clone(),
                generation: head.generation,
                revision: receipt.revision,
                state: OperationState::Wanted,
                since_ms: receipt.committed_at_ms,
                is_cancelled: false,
            };
            put(tx, head.key, change, &stored)
        }
        OperationChange::Cancel(operation) => {
            let change = Int(head.change + 1);
            let cancelled = execute(
                tx.conn,
                "UPDATE operation SET cancelled = 1, change = ?3 WHERE agent = ?1 AND id = ?2 AND cancelled = 0",
                params![head.key, operation.0, change],
            )?;
            if cancelled > 0 {
                head.change();
            }
            Ok(())
        }
    }
}

/// Writes an operation, unless one with a higher change number is here.
pub(super) fn put(tx: &Tx<'_>, agent: i64, change: Int, stored: &StoredOperation) -> Fallible<()> {
    let token = match stored.state {
        OperationState::Wanted => None,
        OperationState::Begun(token) => Some(Int(token.0)),
    };
    execute(
        tx.conn,
        "INSERT INTO operation (agent, id, change, generation, revision, position, token, since_ms, cancelled, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (agent, id) DO UPDATE SET change = excluded.change, token = excluded.token,
             since_ms = excluded.since_ms, cancelled = excluded.cancelled
         WHERE excluded.change > operation.change",
        params![
            agent,
            stored.operation.id.0,
            change,
            Int(stored.generation.0),
            Int(stored.revision.0),
            stored.operation.index,
            token,
            Int(stored.since_ms),
            stored.is_cancelled,
            seal(&stored.operation.request),
        ],
    )
    .map(drop)
}

/// Takes a delete from another store.
pub(super) fn receive_delete(tx: &Tx<'_>, agent: i64, change: Int, id: OperationId) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM operation WHERE agent = ?1 AND id = ?2 AND change < ?3",
        params![agent, id.0, change],
    )
    .map(drop)
}

fn after(stored: &StoredOperation, event: OperationEvent) -> Fallible<After> {
    let class = stored.operation.request.class();
    stored.state.on(event, class).map_err(|error| conflict(error.to_string()))
}

pub(super) fn begin(tx: &Tx<'_>, owner: &Owner, id: OperationId) -> Fallible<Option<StoredOperation>> {
    let mut head = own(tx, owner)?;
    let Some(mut stored) = operation(tx.conn, head.key, &head.agent, id)? else { return Ok(None) };
    match after(&stored, OperationEvent::Begin(owner.token))? {
        After::Goes(state) if state != stored.state => {
            (stored.state, stored.since_ms) = (state, tx.env.clock.wall_ms());
            let change = head.change();
            put(tx, head.key, change, &stored)?;
            head.save(tx)?;
        }
        After::Goes(_) | After::Ended(_) => {}
    }
    Ok(Some(stored))
}

/// An end, with the input that it becomes, so that the writer thread need not make it again.
pub(super) struct Ending {
    pub(super) id: OperationId,
    pub(super) event: OperationEvent,
    pub(super) arrival: Arrival,
}

impl Ending {
    /// Seals an end at a time.
    pub(super) fn new(agent: &AgentId, id: OperationId, end: OperationEnd, now_ms: u64) -> Self {
        let event = OperationEvent::End(end.outcome);
        let mut input = end.input(agent, id);
        input.accepted_at_ms = now_ms;
        Self { id, event, arrival: Arrival::new(NewInput::of_host(agent, input)) }
    }
}

pub(super) fn end(tx: &Tx<'_>, owner: &Owner, ending: &Ending) -> Fallible<Result<Option<Seq>, AcceptError>> {
    let mut head = own(tx, owner)?;
    let Some(stored) = operation(tx.conn, head.key, &head.agent, ending.id)? else {
        let ended = InputId::of_operation_end(&owner.agent, ending.id);
        let known = inputs::by_id(tx.conn, head.key, &head.agent, ended)?;
        return Ok(Ok(known.map(|input| input.seq)));
    };
    after(&stored, ending.event)?;
    let known = match door(tx, &head, &ending.arrival)? {
        Ok(known) => known,
        // There is always room for ends: an agent has few operations.
        Err(AcceptError::Busy { .. }) => None,
        Err(refused) => return Ok(Err(refused)),
    };
    execute(tx.conn, "DELETE FROM operation WHERE agent = ?1 AND id = ?2", params![head.key, ending.id.0])?;
    if head.keeps_deletes() {
        let change = head.change();
        bury(tx, head.key, change, &RowKey::Operation(ending.id))?;
    }
    let seq = match known {
        Some(known) => known.seq,
        None => admit(tx, &mut head, &ending.arrival, owner.incarnation)?,
    };
    head.save(tx)?;
    Ok(Ok(Some(seq)))
}

// --- reading

/// What `stored` reads.
macro_rules! select_operation {
    ($rest:literal) => {
        concat!(
            "SELECT id, generation, revision, position, token, cancelled, sealed, since_ms FROM operation WHERE agent = ?1 ",
            $rest
        )
    };
}

fn stored(row: &Row<'_>, agent: &AgentId) -> Fallible<StoredOperation> {
    let id = OperationId(row.get(0)?);
    let sealed: Vec<u8> = row.get(6)?;
    let token: Option<Int> = row.get(4)?;
    Ok(StoredOperation {
        operation: NewOperation {
            id,
            index: row.get(3)?,
            request: unseal(&sealed, || format!("operation {id} of agent {agent}"))?,
        },
        generation: Generation(row.get::<_, Int>(1)?.0),
        revision: Revision(row.get::<_, Int>(2)?.0),
        state: token.map_or(OperationState::Wanted, |token| OperationState::Begun(FencingToken(token.0))),
        since_ms: row.get::<_, Int>(7)?.0,
        is_cancelled: row.get(5)?,
    })
}

pub(super) fn operation(
    conn: &Connection,
    key: i64,
    agent: &AgentId,
    id: OperationId,
) -> Fallible<Option<StoredOperation>> {
    first(conn, select_operation!("AND id = ?2"), params![key, id.0], |row| stored(row, agent))
}

/// The operations of an agent, in the order of their starts.
pub(super) fn list(conn: &Connection, agent: &AgentId) -> Fallible<Vec<StoredOperation>> {
    match key_of(conn, agent)? {
        Some(key) => all(conn, select_operation!("ORDER BY revision, position"), params![key], |row| {
            stored(row, agent)
        }),
        None => Ok(Vec::new()),
    }
}

/// Agents with operations that an incarnation should look after, behind an id.
pub(super) fn operating(
    conn: &Connection,
    incarnation: Option<Incarnation>,
    after: Option<&AgentId>,
    limit: usize,
) -> Fallible<Vec<AgentId>> {
    all(
        conn,
        "SELECT a.id FROM (SELECT DISTINCT agent FROM operation) o JOIN agent a ON a.key = o.agent
         LEFT JOIN session s ON s.incarnation = a.holder AND s.dead = 0
         WHERE a.id > ?2 AND a.home = 0
         AND (?1 IS NULL OR a.lifecycle = 0 AND (s.incarnation IS NULL OR s.incarnation = ?1))
         ORDER BY a.id LIMIT ?3",
        params![
            incarnation.map(|incarnation| Int(incarnation.0)),
            after.map_or("", AgentId::as_str),
            limit as i64
        ],
        |row| agent_id(&row.get::<_, String>(0)?),
    )
}
