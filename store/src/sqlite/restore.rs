//! Making a restored backup usable: above everything that was ever given, and with nobody running.

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, FencingToken, HostId, Incarnation, StoreEpoch, StoreId};
use godwit_core::lease::GrantCause;
use godwit_core::lifecycle::{LifecycleCommit, SuspendReason, Verb};
use godwit_core::store::{Home, Restored, StoreMark};
use rusqlite::params;

use super::agents::{Head, set_standing, write_lifecycle};
use super::codec::{Int, agent_id};
use super::error::{Fallible, conflict};
use super::events::{append, append_of};
use super::import::{skip_events, skip_numbers};
use super::migrations::close;
use super::sessions::mark;
use super::sql::{all, execute, first};
use super::writer::Tx;

/// Agents read at once.
const PAGE: i64 = 1_000;

pub(super) fn restore(tx: &Tx<'_>, store: StoreId, above: StoreMark) -> Fallible<Restored> {
    check_alone(tx)?;
    let found = mark(tx.conn, store)?;
    let epoch = StoreEpoch(found.epoch.max(above.epoch).0 + 1);
    execute(tx.conn, "UPDATE session SET dead = 1 WHERE dead = 0", [])?;
    if above.incarnation > found.incarnation {
        reserve_session(tx, above.incarnation)?;
    }
    execute(tx.conn, "UPDATE meta SET epoch = ?1, is_backup = 0", params![Int(epoch.0)])?;
    execute(tx.conn, "DELETE FROM agent WHERE home = 4", [])?;
    execute(tx.conn, "DELETE FROM standby", [])?;
    let event =
        NewEvent { agent: None, kind: EventKind::StoreRestored, at_ms: tx.now_ms(), data: Vec::new() };
    append(tx, &[event.with("epoch", epoch)])?;
    let highest = above.event.max(found.event);
    execute(
        tx.conn,
        "UPDATE event SET seq = max(seq, ?1) WHERE seq = (SELECT max(seq) FROM event)",
        params![Int(highest + 1)],
    )?;
    let mut agents = 0;
    let mut after = String::new();
    loop {
        let page = all(
            tx.conn,
            "SELECT id FROM agent WHERE home < 3 AND id > ?1 ORDER BY id LIMIT ?2",
            params![after, PAGE],
            |row| agent_id(&row.get::<_, String>(0)?),
        )?;
        let Some(last) = page.last() else { break };
        after = last.as_str().to_owned();
        for agent in &page {
            restore_agent(tx, agent, epoch.0 - found.epoch.0)?;
            agents += 1;
        }
    }
    Ok(Restored { epoch, agents })
}

/// A session without expiry can't be another process's: that one would hold the lock.
fn check_alone(tx: &Tx<'_>) -> Fallible<()> {
    let other = first(
        tx.conn,
        "SELECT name FROM session WHERE dead = 0 AND boot = ?1 AND expires_ns > ?2",
        params![tx.env.boot, Int(tx.boot_ns())],
        |row| Ok(row.get::<_, String>(0)?),
    )?;
    match other {
        Some(name) => {
            Err(conflict(format!("host {name} uses the store: stop it, and wait until its lease ends")))
        }
        None => Ok(()),
    }
}

/// Leaves a dead session behind, so that no incarnation is given again.
fn reserve_session(tx: &Tx<'_>, incarnation: Incarnation) -> Fallible<()> {
    execute(
        tx.conn,
        "INSERT INTO session (incarnation, dead, host, name, api, mesh, joined_at_ms)
         VALUES (?1, 1, ?2, 'restored', '127.0.0.1:0', '127.0.0.1:0', ?3)",
        params![Int(incarnation.0), HostId([0; 32]).0, Int(tx.now_ms())],
    )
    .map(drop)
}

fn restore_agent(tx: &Tx<'_>, agent: &AgentId, epochs: u64) -> Fallible<()> {
    let Some(mut head) = Head::load(tx.conn, agent)? else {
        return Ok(());
    };
    let raise = |token: FencingToken| {
        token
            .raised(epochs)
            .ok_or_else(|| conflict(format!("the token {token} of agent {agent} has no room above")))
    };
    let (home, token) = match head.home.clone() {
        Home::Prepared { migration, source, token, before } => {
            let token = raise(token)?;
            (Home::Prepared { migration, source, token, before }, token)
        }
        _ => (Home::Here, raise(head.token)?),
    };
    set_standing(tx, head.key, &home, token, None, &GrantCause::Acquired)?;
    skip_numbers(tx, &mut head, epochs)?;
    skip_events(tx, &head, token)?;
    if home == Home::Here {
        close(tx, &mut head, None)?;
    }
    let verb = Verb::Suspend(SuspendReason::Restored);
    // Retired and deleted agents run nothing as they are.
    if let Ok(commit) = LifecycleCommit::plan(agent, &head.lifecycle, &verb, tx.now_ms()) {
        write_lifecycle(tx, head.key, commit.next())?;
        append_of(tx, &mut head, commit.events())?;
    }
    Ok(head.save(tx)?)
}
