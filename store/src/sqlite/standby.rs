//! Warm copies: what is told of an agent in one piece, and the copies that stand by.
//!
//! A copy is a row of home 4, as of a migration that arrives; a row of `standby` says that it is complete, and what it is as of.

use async_trait::async_trait;
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, MigrationId, Revision};
use godwit_core::lease::GrantCause;
use godwit_core::limits::PAGE_MAX;
use godwit_core::standby::{Standing, Step, Verdict, judge};
use godwit_core::store::standby::{Delta, Round, StandbyCopy, promoted};
use godwit_core::store::{AgentRow, Home, Row, StoreError, StoreStandbys};
use rusqlite::{Connection, params};

use super::agents::{self, Head, set_standing};
use super::auth::Vault;
use super::codec::{Int, agent_id};
use super::error::{Fallible, conflict};
use super::events::append_of;
use super::handoff::{self, Arriving, copy_key, delete, settle_copy};
use super::import::{skip_events, skip_numbers};
use super::leases::at_home;
use super::sql::{all, execute, first};
use super::writer::Tx;
use super::{SqliteStore, export, plugins};

// --- the source's side

fn guarded(conn: &Connection, after: Option<&AgentId>, limit: usize) -> Fallible<Vec<AgentRow>> {
    let after = after.map_or("", AgentId::as_str);
    let agents = all(
        conn,
        "SELECT id FROM agent WHERE standby IS NOT NULL AND home < 3 AND id > ?1 ORDER BY id LIMIT ?2",
        params![after, limit as i64],
        |found| agent_id(&found.get::<_, String>(0)?),
    )?;
    agents.iter().filter_map(|agent| agents::row(conn, agent).transpose()).collect()
}

fn delta(
    conn: &Connection,
    agent: &AgentId,
    after: u64,
    bytes_max: usize,
    vault: Option<&Vault>,
) -> Fallible<Option<Delta>> {
    let head = at_home(conn, agent)?;
    let (mut frames, mut bytes, mut last) = (Vec::new(), 0, after);
    loop {
        let more = export::export(conn, agent, last, bytes_max, vault)?;
        let Some(end) = more.last() else { break };
        last = end.change;
        bytes += more.iter().map(export::encoded_len).sum::<usize>();
        if bytes > bytes_max {
            return Ok(None);
        }
        frames.extend(more);
    }
    let Head { change, token, generation, revision, .. } = head;
    Ok(Some(Delta { frames, change, token, generation, revision }))
}

fn forget_deletes(tx: &Tx<'_>, agent: &AgentId, up_to: u64) -> Fallible<()> {
    let Some(head) = Head::load(tx.conn, agent)?.filter(|head| !head.is_tracked) else { return Ok(()) };
    let up_to = Int(up_to.min(i64::MAX.unsigned_abs()));
    execute(tx.conn, "DELETE FROM tombstone WHERE agent = ?1 AND change <= ?2", params![head.key, up_to])
        .map(drop)
}

// --- the standby's side

const COPIES: &str = "
    SELECT agent, session, source, token, generation, revision, change, at_ms FROM standby
    WHERE agent > ?1 ORDER BY agent LIMIT ?2";
const COPY: &str = "
    SELECT agent, session, source, token, generation, revision, change, at_ms FROM standby WHERE agent = ?1";

fn read_copy(row: &rusqlite::Row<'_>) -> Fallible<StandbyCopy> {
    Ok(StandbyCopy {
        agent: agent_id(&row.get::<_, String>(0)?)?,
        standing: Standing {
            session: MigrationId(row.get(1)?),
            source: HostId(row.get(2)?),
            token: FencingToken(row.get::<_, Int>(3)?.0),
            generation: Generation(row.get::<_, Int>(4)?.0),
            revision: Revision(row.get::<_, Int>(5)?.0),
            change: row.get::<_, Int>(6)?.0,
        },
        at_ms: row.get::<_, Int>(7)?.0,
    })
}

fn copies(conn: &Connection, after: Option<&AgentId>, limit: usize) -> Fallible<Vec<StandbyCopy>> {
    all(conn, COPIES, params![after.map_or("", AgentId::as_str), limit as i64], read_copy)
}

fn copy(conn: &Connection, agent: &AgentId) -> Fallible<Option<StandbyCopy>> {
    first(conn, COPY, params![agent.as_str()], read_copy)
}

/// What a copy is at: its last change number, generation and revision.
fn place(conn: &Connection, session: MigrationId) -> Fallible<Option<(u64, Generation, Revision)>> {
    first(
        conn,
        "SELECT change, generation, revision FROM agent WHERE migration = ?1 AND home = 4",
        params![session.0],
        |row| {
            let (generation, revision) = (row.get::<_, Int>(1)?, row.get::<_, Int>(2)?);
            Ok((row.get::<_, Int>(0)?.0, Generation(generation.0), Revision(revision.0)))
        },
    )
}

/// `rows` are the round's frames.
fn stand_by(tx: &Tx<'_>, round: &Round, rows: &[Arriving]) -> Fallible<Verdict> {
    let Round { session, agent, source, builds_on, delta, at_ms } = round;
    let Delta { change, token, generation, revision, .. } = *delta;
    let known = copy(tx.conn, agent)?.map(|copy| copy.standing);
    let head = Head::load(tx.conn, agent)?;
    let row = head.as_ref().map(|head| (&head.home, head.token));
    let arrived = place(tx.conn, *session)?.map_or(0, |(change, ..)| change);
    let step = Step { session: *session, source: *source, token, builds_on: *builds_on, change };
    let verdict = judge(&step, row, known.as_ref(), arrived);
    if verdict != Verdict::Applies {
        return Ok(verdict);
    }
    if let Some(key) = copy_key(tx.conn, *session, agent)? {
        make_room(tx, key, rows)?;
    }
    let key = handoff::receive_copy(tx, *session, agent, rows)?;
    if place(tx.conn, *session)? != Some((change, generation, revision)) {
        return Err(conflict(format!(
            "the round does not bring the copy of agent {agent} to change {change}"
        )));
    }
    // Rounds come in order: nothing that is older can arrive any more.
    execute(tx.conn, "DELETE FROM tombstone WHERE agent = ?1", params![key])?;
    if let Some(before) = known.map(|known| known.session).filter(|before| before != session) {
        discard_copy(tx, agent, before)?;
    }
    execute(
        tx.conn,
        "INSERT INTO standby (agent, session, source, token, generation, revision, change, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (agent) DO UPDATE SET session = excluded.session, source = excluded.source, token = excluded.token,
             generation = excluded.generation, revision = excluded.revision, change = excluded.change, at_ms = excluded.at_ms",
        params![
            agent.as_str(),
            session.0,
            source.0,
            Int(token.0),
            Int(generation.0),
            Int(revision.0),
            Int(change),
            Int(*at_ms),
        ],
    )?;
    Ok(Verdict::Applies)
}

/// Ids and keys of inputs that the source has pruned may be given again there.
fn make_room(tx: &Tx<'_>, key: i64, rows: &[Arriving]) -> Fallible<()> {
    for arriving in rows {
        let Row::Input(input) = arriving.row() else { continue };
        execute(
            tx.conn,
            "DELETE FROM input WHERE agent = ?1 AND seq <> ?2 AND id = ?3",
            params![key, Int(input.seq.0), input.input.id.0],
        )?;
        if let Some(idempotency_key) = &input.idempotency_key {
            execute(
                tx.conn,
                "DELETE FROM input WHERE agent = ?1 AND seq <> ?2 AND key = ?3",
                params![key, Int(input.seq.0), idempotency_key],
            )?;
        }
    }
    Ok(())
}

fn discard(tx: &Tx<'_>, agent: &AgentId, session: MigrationId) -> Fallible<()> {
    let sql = "DELETE FROM standby WHERE agent = ?1 AND session = ?2";
    execute(tx.conn, sql, params![agent.as_str(), session.0])?;
    discard_copy(tx, agent, session)
}

/// A session's id is a peer's word: it may be that of a migration, whose bound copy is no concern of this, or of another agent.
fn discard_copy(tx: &Tx<'_>, agent: &AgentId, session: MigrationId) -> Fallible<()> {
    match copy_key(tx.conn, session, agent)? {
        Some(key) => delete(tx, key),
        None => Ok(()),
    }
}

fn promote(tx: &Tx<'_>, agent: &AgentId, session: MigrationId) -> Fallible<AgentRow> {
    let known = Head::load(tx.conn, agent)?;
    let is_done = |head: &Head| head.home == Home::Here && head.seat().is_caused_by(session);
    if known.as_ref().is_some_and(is_done) {
        return agents::row(tx.conn, agent)?.ok_or_else(|| StoreError::NoAgent.into());
    }
    let copy = copy(tx.conn, agent)?.filter(|copy| copy.standing.session == session);
    let copy = copy.ok_or_else(|| conflict(format!("no copy of agent {agent} stands by here")))?;
    let highest = match known.as_ref().map(|head| &head.home) {
        None => copy.standing.token,
        Some(Home::Moved(tombstone)) if tombstone.generation > copy.standing.generation => {
            return Err(conflict(format!("agent {agent} had a later generation here")));
        }
        Some(Home::Moved(tombstone)) => tombstone.token.max(copy.standing.token),
        Some(_) => return Err(conflict(format!("agent {agent} is here"))),
    };
    let raised = highest.raised(1);
    let raised = raised.ok_or_else(|| conflict(format!("the token {highest} has no room above")))?;
    let key = copy_key(tx.conn, session, agent)?.ok_or_else(|| conflict("the copy is missing"))?;
    if let Some(replaced) = known {
        delete(tx, replaced.key)?;
    }
    settle_copy(tx, key)?;
    settle_removed(tx, key)?;
    let cause = GrantCause::Transferred { migration: session, revision: copy.standing.revision };
    set_standing(tx, key, &Home::Here, raised, None, &cause)?;
    execute(tx.conn, "DELETE FROM standby WHERE agent = ?1", params![agent.as_str()])?;
    let mut head = at_home(tx.conn, agent)?;
    let spec = agents::spec(tx.conn, agent)?.ok_or_else(|| conflict("the copy has no spec"))?;
    if !plugins::is_stored(tx.conn, spec.plugin)? {
        return Err(StoreError::NoPlugin { plugin: spec.plugin }.into());
    }
    skip_numbers(tx, &mut head, 1)?;
    skip_events(tx, &head, raised)?;
    append_of(tx, &mut head, &[promoted(&copy, raised, tx.now_ms())])?;
    head.save(tx)?;
    agents::row(tx.conn, agent)?.ok_or_else(|| conflict("the agent's row is missing"))
}

/// What the source has removed without a trace: receipts behind a checkpoint go, and inputs that are not here are counted.
fn settle_removed(tx: &Tx<'_>, key: i64) -> Fallible<()> {
    execute(
        tx.conn,
        "DELETE FROM receipt WHERE agent = ?1 AND EXISTS (SELECT 1 FROM receipt_checkpoint c
             WHERE c.agent = ?1 AND c.generation = receipt.generation AND receipt.revision <= c.revision)",
        params![key],
    )?;
    execute(
        tx.conn,
        "UPDATE agent SET inputs_pruned = next_seq - 1 - (SELECT count(*) FROM input WHERE agent = ?1) WHERE key = ?1",
        params![key],
    )
    .map(drop)
}

#[async_trait]
impl StoreStandbys for SqliteStore {
    async fn guarded(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        let after = after.cloned();
        self.read(move |conn| guarded(conn, after.as_ref(), limit.min(PAGE_MAX))).await
    }

    async fn delta(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Option<Delta>, StoreError> {
        let (agent, vault) = (agent.clone(), self.env.vault.clone());
        self.read(move |conn| delta(conn, &agent, after, bytes_max, vault.as_deref())).await
    }

    async fn forget_deletes(&self, agent: &AgentId, up_to: u64) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| forget_deletes(tx, &agent, up_to)).await
    }

    async fn stand_by(&self, mut round: Round) -> Result<Verdict, StoreError> {
        let (rows, bodies) = self.arriving(std::mem::take(&mut round.delta.frames)).await?;
        let applied = self.write(move |tx| stand_by(tx, &round, &rows)).await;
        self.drop_bodies(bodies).await;
        applied
    }

    async fn standby_copies(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<StandbyCopy>, StoreError> {
        let after = after.cloned();
        self.read(move |conn| copies(conn, after.as_ref(), limit.min(PAGE_MAX))).await
    }

    async fn standby_copy(&self, agent: &AgentId) -> Result<Option<StandbyCopy>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| copy(conn, &agent)).await
    }

    async fn discard_standby(&self, agent: &AgentId, session: MigrationId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| discard(tx, &agent, session)).await
    }

    async fn promote(&self, agent: &AgentId, session: MigrationId) -> Result<AgentRow, StoreError> {
        let agent = agent.clone();
        self.write(move |tx| promote(tx, &agent, session)).await
    }
}
