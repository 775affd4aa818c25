//! The event log: numbered in one order, and for each agent that is at home here in its own.

use std::collections::{BTreeMap, VecDeque};

use crate::event::{Event, EventPlace, NewEvent};
use crate::id::AgentId;
use crate::store::memory::tables::Tables;
use crate::store::rows::AgentPortable;

impl Tables {
    pub(super) fn append(&mut self, events: impl IntoIterator<Item = NewEvent>) {
        let before = self.events_appended;
        for event in events {
            self.events_appended += 1;
            let counted = event.agent.as_ref().and_then(|agent| self.count_event(agent));
            let (place, labels) = counted.unzip();
            let labels = labels.unwrap_or_default();
            self.events.push_back(Event { store: self.id, seq: self.events_appended, place, labels, event });
        }
        while self.events.len() as u64 > self.quotas.events_kept {
            self.events.pop_front();
        }
        if self.events_appended > before {
            self.newest_event.send_replace(self.events_appended);
        }
    }

    /// Counts an event of an agent that is at home here; its place and what is stamped on it.
    fn count_event(&mut self, agent: &AgentId) -> Option<(EventPlace, BTreeMap<String, String>)> {
        let rows = self.at_home(agent).ok()?;
        let AgentPortable { generation, next_event, labels, .. } = rows.portable().clone();
        rows.update(|portable| portable.next_event = next_event + 1);
        Some((EventPlace { generation, number: next_event }, labels))
    }

    pub(super) fn events(&self) -> &VecDeque<Event> {
        &self.events
    }
}
