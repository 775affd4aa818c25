//! Moving an agent along the table of lifecycles, and making a deleted one anew.

use godwit_core::digest::Digest;
use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{Revision, Seq, SpecRevision};
use godwit_core::input::{AbandonReason, Outcome};
use godwit_core::lease::GrantCause;
use godwit_core::lifecycle::{OpenInputs, TokenMove, Verb};
use godwit_core::store::{Home, Lifecycle, LifecycleCommit, NewAgent, Owner, Standing, StoreError};
use rusqlite::{Connection, params};

use super::agents::{self, Head, Share, set_standing, use_spec, write_lifecycle, write_spec};
use super::codec::{Int, seal};
use super::error::{Fallible, conflict};
use super::events::append_of;
use super::inputs::{End, admit_initial, end};
use super::leases::{at_home, grant, lease_of};
use super::migrations::close;
use super::sql::{all, execute};
use super::writer::Tx;
use super::{channels, entity_keys, plugins};

pub(super) fn commit(tx: &Tx<'_>, owner: &Owner, commit: &LifecycleCommit) -> Fallible<Standing> {
    let mut head = at_home(tx.conn, &owner.agent)?;
    if is_raised_already(&head, owner, commit) {
        return Ok(standing(&head, 0));
    }
    head.fence().check(&owner.claim()).map_err(|refusal| head.refused(refusal))?;
    if head.lifecycle != *commit.from() {
        if commit.is_done(&head.lifecycle, head.open_inputs) {
            return Ok(standing(&head, 0));
        }
        return Err(StoreError::Lifecycle { state: head.lifecycle }.into());
    }
    let before = head.change;
    let abandoned = abandon(tx, &mut head, commit.inputs())?;
    if commit.next().is_terminal() && head.open_inputs > 0 {
        return Err(conflict(format!("{} inputs are open", head.open_inputs)));
    }
    raise(tx, &mut head, owner, commit.token())?;
    if commit.is_state_cleared() {
        clear_state(tx, &mut head)?;
    }
    if *commit.next() == Lifecycle::Deleted {
        execute(tx.conn, "DELETE FROM edge WHERE agent = ?1", params![head.key])?;
        channels::delete_all(tx, &mut head)?;
    }
    let is_moved = *commit.from() != *commit.next() || commit.is_generation_raised();
    if is_moved {
        write_lifecycle(tx, head.key, commit.next())?;
    }
    if commit.is_generation_raised() {
        raise_generation(tx, &mut head)?;
        channels::reset(tx, &mut head)?;
        let spec = agents::spec(tx.conn, &owner.agent)?.ok_or(StoreError::NoAgent)?;
        admit_initial(tx, &mut head, &spec)?;
    }
    if commit.is_start_fresh() {
        head.failed_starts = 0;
    }
    // What it has sent is still to be proven its own.
    if is_moved && *commit.next() == Lifecycle::Deleted && head.pending_outputs == 0 {
        entity_keys::erase_secret(tx, &mut head)?;
    }
    if is_moved || head.change != before {
        head.save(tx)?;
    }
    append_of(tx, &mut head, commit.events())?;
    // What was raised above is in the row only.
    let head = at_home(tx.conn, &owner.agent)?;
    Ok(standing(&head, abandoned))
}

/// Moves an agent that a boundary of the same step has repaired; the caller saves the head.
pub(super) fn recovered(tx: &Tx<'_>, head: &mut Head, commit: &LifecycleCommit) -> Fallible<()> {
    if head.lifecycle != *commit.from() {
        return Err(StoreError::Lifecycle { state: head.lifecycle.clone() }.into());
    }
    write_lifecycle(tx, head.key, commit.next())?;
    head.lifecycle = commit.next().clone();
    append_of(tx, head, commit.events())
}

/// Whether the commit was made before: the token is the one that it raised.
fn is_raised_already(head: &Head, owner: &Owner, commit: &LifecycleCommit) -> bool {
    let generation = match commit.is_generation_raised() {
        true => owner.generation.next(),
        false => owner.generation,
    };
    let holder = match commit.token() {
        TokenMove::Keep => return false,
        TokenMove::Raise => Some(owner.incarnation),
        TokenMove::RaiseAndFree => None,
    };
    head.token == owner.token.next()
        && head.generation == generation
        && head.lifecycle == *commit.next()
        && head.holder.map(|holder| holder.incarnation) == holder
}

fn standing(head: &Head, inputs_abandoned: u64) -> Standing {
    Standing {
        lifecycle: head.lifecycle.clone(),
        generation: head.generation,
        revision: head.revision,
        token: head.token,
        lease: lease_of(head),
        inputs_abandoned,
        inputs_open: head.open_inputs,
    }
}

/// Ends the inputs that a commit names and that are open; answers how many.
fn abandon(tx: &Tx<'_>, head: &mut Head, inputs: &OpenInputs) -> Fallible<u64> {
    let (reason, only) = match inputs {
        OpenInputs::Keep => return Ok(0),
        OpenInputs::Abandon(reason) => (*reason, None),
        OpenInputs::AbandonThese { inputs, reason } => (*reason, Some(inputs)),
    };
    let mut ending = open_inputs(tx.conn, head.key)?;
    ending.retain(|(seq, _)| only.is_none_or(|only| only.contains(seq)));
    let outcome = Outcome::Abandoned { reason };
    let sealed = seal(&outcome);
    let at_ms = tx.now_ms();
    for (seq, share) in &ending {
        head.closed(*share);
        let place = (head.key, *seq, head.change());
        end(tx, place, &End { outcome: &outcome, sealed: &sealed, at_ms })?;
    }
    let count = ending.len() as u64;
    if count > 0 {
        let event = abandoned_event(tx, head, count, reason);
        append_of(tx, head, &[event])?;
    }
    Ok(count)
}

fn abandoned_event(tx: &Tx<'_>, head: &Head, count: u64, reason: AbandonReason) -> NewEvent {
    NewEvent::of_agent(&head.agent, EventKind::InputsAbandoned, tx.now_ms())
        .with("inputs", count)
        .with("reason", reason.name())
}

/// Open inputs by seq, and what each counts for.
fn open_inputs(conn: &Connection, key: i64) -> Fallible<Vec<(Seq, Share)>> {
    all(
        conn,
        "SELECT seq, wakes, bytes FROM input INDEXED BY input_open WHERE agent = ?1 AND state < 2 ORDER BY seq",
        params![key],
        |row| {
            let share = Share { wakes: row.get(1)?, bytes: row.get::<_, Int>(2)?.0 };
            Ok((Seq(row.get::<_, Int>(0)?.0), share))
        },
    )
}

fn raise(tx: &Tx<'_>, head: &mut Head, owner: &Owner, token: TokenMove) -> Fallible<()> {
    let raised = head.token.next();
    match token {
        TokenMove::Keep => Ok(()),
        TokenMove::Raise => grant(tx, head, raised, owner.incarnation, GrantCause::Acquired, None).map(drop),
        TokenMove::RaiseAndFree => free_under(tx, head),
    }
}

/// Raises the token; nobody holds the agent afterwards.
fn free_under(tx: &Tx<'_>, head: &mut Head) -> Fallible<()> {
    set_standing(tx, head.key, &Home::Here, head.token.next(), None, &GrantCause::Acquired)?;
    close(tx, head, None)
}

/// Lets go of what only the guest's own history explains. The raised token has closed the migrations, so that nobody
/// waits to hear of the deletes.
fn clear_state(tx: &Tx<'_>, head: &mut Head) -> Fallible<()> {
    head.state_size = (0, 0);
    let deletes = [
        "DELETE FROM snapshot WHERE agent = ?1",
        "DELETE FROM snapshot_beside WHERE agent = ?1",
        "DELETE FROM journal WHERE agent = ?1",
        "DELETE FROM state WHERE agent = ?1",
        "DELETE FROM timer WHERE agent = ?1",
        "DELETE FROM operation WHERE agent = ?1",
    ];
    deletes.into_iter().try_for_each(|delete| execute(tx.conn, delete, params![head.key]).map(drop))
}

fn raise_generation(tx: &Tx<'_>, head: &mut Head) -> Fallible<()> {
    head.generation = head.generation.next();
    head.revision = Revision(0);
    head.digest = Digest::ZERO;
    let generation = Int(head.generation.0);
    execute(tx.conn, "UPDATE agent SET generation = ?2 WHERE key = ?1", params![head.key, generation])
        .map(drop)
}

pub(super) fn recreate(tx: &Tx<'_>, new: &NewAgent) -> Fallible<bool> {
    let mut head = at_home(tx.conn, &new.agent)?;
    if head.lifecycle == Lifecycle::Active {
        let known = agents::row(tx.conn, &new.agent)?.zip(agents::spec(tx.conn, &new.agent)?);
        return match known {
            Some((row, spec)) if spec == new.spec && row.labels == new.labels => Ok(false),
            _ => Err(conflict(format!("agent {} exists with another spec or other labels", new.agent))),
        };
    }
    let state = head.lifecycle.clone();
    let commit = LifecycleCommit::plan(&new.agent, &state, &Verb::Recreate, new.now_ms);
    let commit = commit.map_err(|_| StoreError::Lifecycle { state })?;
    let plugin = new.spec.plugin;
    if !plugins::is_stored(tx.conn, plugin)? {
        return Err(StoreError::NoPlugin { plugin }.into());
    }
    let known = agents::row(tx.conn, &new.agent)?.ok_or(StoreError::NoAgent)?;
    let revision: SpecRevision = known.spec_revision.next();
    write_spec(tx, head.key, head.change(), revision, &new.spec)?;
    entity_keys::renew(tx, head.key, &new.agent, || head.change())?;
    free_under(tx, &mut head)?;
    write_lifecycle(tx, head.key, commit.next())?;
    raise_generation(tx, &mut head)?;
    head.failed_starts = 0;
    admit_initial(tx, &mut head, &new.spec)?;
    use_spec(tx, &mut head, revision, &new.spec)?;
    agents::write_labels(tx, &mut head, &new.labels)?;
    head.save(tx)?;
    append_of(tx, &mut head, commit.events())?;
    Ok(true)
}
