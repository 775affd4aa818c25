//! What an agent is made of, changing: configurations, upgrades, labels.

use std::collections::BTreeMap;

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::id::{AgentId, Revision};
use godwit_core::receipt::BoundaryKind;
use godwit_core::spec::{Spec, SpecChange};
use godwit_core::store::{AgentRow, Boundary, Lifecycle, StoreError};

use super::agents::{self, Head, use_spec, write_spec};
use super::error::{Fallible, conflict, corrupt};
use super::events::append_of;
use super::leases::at_home;
use super::plugins;
use super::writer::Tx;

pub(super) fn set_labels(tx: &Tx<'_>, agent: &AgentId, labels: &BTreeMap<String, String>) -> Fallible<()> {
    let mut head = at_home(tx.conn, agent)?;
    if head.lifecycle == Lifecycle::Deleted {
        return Err(StoreError::Lifecycle { state: head.lifecycle }.into());
    }
    let known = agents::row(tx.conn, agent)?.ok_or(StoreError::NoAgent)?;
    if known.labels == *labels {
        return Ok(());
    }
    agents::write_labels(tx, &mut head, labels)?;
    head.save(tx)?;
    append_of(tx, &mut head, &[NewEvent::of_agent(agent, EventKind::LabelsChanged, tx.now_ms())])
}

/// The current row and spec of an agent.
fn current(tx: &Tx<'_>, agent: &AgentId) -> Fallible<(AgentRow, Spec)> {
    let row = agents::row(tx.conn, agent)?.ok_or(StoreError::NoAgent)?;
    let spec = agents::spec(tx.conn, agent)?;
    let spec =
        spec.ok_or_else(|| corrupt(format!("spec {} of agent {agent}: it is missing", row.spec_revision)))?;
    Ok((row, spec))
}

/// Another configuration of the same plugin.
pub(super) fn configure(tx: &Tx<'_>, head: &mut Head, change: &SpecChange) -> Fallible<()> {
    check_plugin(tx, change)?;
    let (row, spec) = current(tx, &head.agent)?;
    if row.spec_revision == change.revision && spec == change.spec {
        return Ok(());
    }
    check_next(&row, change)?;
    if spec.plugin != change.spec.plugin && head.revision > Revision(0) {
        return Err(conflict("another plugin is an upgrade"));
    }
    write(tx, head, change)?;
    let event = NewEvent::of_agent(&head.agent, EventKind::SpecChanged, tx.now_ms())
        .with("spec_revision", change.revision);
    append_of(tx, head, &[event])
}

/// The spec of an upgrade whose boundary fits the head; the boundary is written by the caller.
pub(super) fn upgrade(
    tx: &Tx<'_>,
    head: &mut Head,
    boundary: &Boundary,
    change: &SpecChange,
) -> Fallible<()> {
    check_plugin(tx, change)?;
    let (row, spec) = current(tx, &head.agent)?;
    check_next(&row, change)?;
    let receipt = &boundary.receipt;
    let fits = receipt.kind == BoundaryKind::Upgrade
        && receipt.from == Some(spec.plugin)
        && (receipt.plugin, receipt.spec_revision) == (change.spec.plugin, change.revision)
        && boundary.ends.is_empty();
    if !fits {
        return Err(conflict("the receipt is not that of this upgrade"));
    }
    write(tx, head, change)
}

fn check_plugin(tx: &Tx<'_>, change: &SpecChange) -> Fallible<()> {
    let plugin = change.spec.plugin;
    if plugins::is_stored(tx.conn, plugin)? { Ok(()) } else { Err(StoreError::NoPlugin { plugin }.into()) }
}

fn check_next(row: &AgentRow, change: &SpecChange) -> Fallible<()> {
    if change.revision == row.spec_revision.next() {
        Ok(())
    } else {
        Err(conflict(format!("spec revision {} does not follow {}", change.revision, row.spec_revision)))
    }
}

fn write(tx: &Tx<'_>, head: &mut Head, change: &SpecChange) -> Fallible<()> {
    write_spec(tx, head.key, head.change(), change.revision, &change.spec)?;
    head.failed_starts = 0;
    use_spec(tx, head, change.revision, &change.spec)
}
