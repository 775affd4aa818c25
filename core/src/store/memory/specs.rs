//! What an agent is made of, changing: configurations, upgrades, labels.

use std::collections::BTreeMap;

use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, Revision};
use crate::receipt::BoundaryKind;
use crate::spec::SpecChange;
use crate::store::commit::{Owner, Upgrade};
use crate::store::error::StoreError;
use crate::store::memory::commit::{check_boundary, check_lives, write_boundary};
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::{Tables, conflict};
use crate::store::rows::Row;

impl Tables {
    pub(super) fn set_labels(
        &mut self,
        agent: &AgentId,
        labels: BTreeMap<String, String>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let rows = self.at_home(agent)?;
        check_lives(rows)?;
        if rows.portable().labels != labels {
            rows.update(|portable| portable.labels = labels);
            rows.settle_deletes();
            self.append([NewEvent::of_agent(agent, EventKind::LabelsChanged, now_ms)]);
        }
        Ok(())
    }

    pub(super) fn configure(
        &mut self,
        owner: &Owner,
        change: SpecChange,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.check_plugin(&change)?;
        let rows = self.at_home(&owner.agent)?;
        if is_current(rows, &change) {
            return Ok(());
        }
        check_next(rows, &change)?;
        let is_other = rows.spec().is_some_and(|spec| spec.plugin != change.spec.plugin);
        if is_other && rows.portable().revision > Revision(0) {
            return Err(conflict("another plugin is an upgrade"));
        }
        let event = NewEvent::of_agent(&owner.agent, EventKind::SpecChanged, now_ms)
            .with("spec_revision", change.revision);
        write(rows, change);
        self.append([event]);
        Ok(())
    }

    pub(super) fn upgrade(&mut self, owner: &Owner, upgrade: Upgrade, now_ms: u64) -> Result<(), StoreError> {
        let Upgrade { boundary, change } = upgrade;
        self.check_plugin(&change)?;
        let rows = self.at_home(&owner.agent)?;
        check_boundary(rows, owner, &boundary)?;
        check_next(rows, &change)?;
        let receipt = &boundary.receipt;
        let before = rows.spec().map(|spec| spec.plugin);
        let fits = receipt.kind == BoundaryKind::Upgrade
            && receipt.from == before
            && (receipt.plugin, receipt.spec_revision) == (change.spec.plugin, change.revision)
            && boundary.ends.is_empty();
        if !fits {
            return Err(conflict("the receipt is not that of this upgrade"));
        }
        write(rows, change);
        let events = write_boundary(rows, boundary, now_ms);
        self.append(events);
        Ok(())
    }

    fn check_plugin(&self, change: &SpecChange) -> Result<(), StoreError> {
        let plugin = change.spec.plugin;
        if self.has_plugin(plugin) { Ok(()) } else { Err(StoreError::NoPlugin { plugin }) }
    }
}

fn is_current(rows: &AgentRows, change: &SpecChange) -> bool {
    rows.portable().spec_revision == change.revision && rows.spec() == Some(&change.spec)
}

fn check_next(rows: &AgentRows, change: &SpecChange) -> Result<(), StoreError> {
    let current = rows.portable().spec_revision;
    if change.revision == current.next() {
        Ok(())
    } else {
        Err(conflict(format!("spec revision {} does not follow {current}", change.revision)))
    }
}

fn write(rows: &mut AgentRows, change: SpecChange) {
    let SpecChange { revision, spec } = change;
    rows.put(Row::Spec { revision, spec });
    rows.update(|portable| {
        portable.spec_revision = revision;
        portable.failed_starts = 0;
    });
}
