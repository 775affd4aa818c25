//! Reading the event log: pages of all of it after a cursor, and the events of one agent in their own count.
//!
//! A reader has a cursor and reads the store from there. What wakes it is a hint, so nothing can be lost on the way; what is
//! not there any more, or happened in another store, is said as a gap (`Told::Gap`).

use std::collections::VecDeque;
use std::time::Duration;

use godwit_core::event::{Event, EventKind, EventPlace};
use godwit_core::id::{AgentId, HostId, StoreId};
use godwit_core::store::{AgentRow, Home};
use godwit_core::time::sleep;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

/// Those who may follow agents, or wait for what they say, at the same time.
pub const WATCHERS_MAX: usize = 1_024;
/// Longest pause between looks at a log that had nothing new: other processes on the file give no hints.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Events that a subscription reads at once.
const READ_AT_ONCE: usize = 256;

/// Events after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// The store whose log it is.
    pub store: StoreId,
    /// Ascending.
    pub events: Vec<Event>,
    /// The first seq that is missing and the first that is kept, when the cursor is below what is kept.
    pub gap: Option<(u64, u64)>,
    /// The highest seq there is.
    pub newest: u64,
}

/// What a subscriber is told, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The next event.
    Event(Box<Event>),
    /// Events that can't be told.
    Gap(Gap),
    /// The agent is at home elsewhere from here on. The last thing that is told.
    Moved {
        /// Where: go on there, from the same place.
        host: HostId,
    },
}

/// Events that are missing: everything behind `after` and up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The last place that was told, or the cursor that was given.
    pub after: EventPlace,
    /// Where the subscriber is from here on.
    pub to: EventPlace,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// They have been removed, or have happened in another store.
    NotHere,
    /// The agent has not come so far: the cursor is of another agent, or of what a backup does not know. It begins anew.
    Ahead,
}

impl GapReason {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotHere => "not-here",
            Self::Ahead => "ahead",
        }
    }
}

/// Events of one agent behind a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEvents {
    /// Events and gaps.
    pub told: Vec<Told>,
    /// Whether there are more by now.
    pub has_more: bool,
}

/// Follows the events of one agent that is at home in this host's store.
pub struct Subscription {
    runtime: Runtime,
    agent: AgentId,
    after: EventPlace,
    ready: VecDeque<Told>,
    is_over: bool,
    hints: watch::Receiver<u64>,
    _room: OwnedSemaphorePermit,
}

impl Runtime {
    /// Events after a seq, of one agent or kind or all.
    ///
    /// # Errors
    /// As the store's.
    pub async fn events(
        &self,
        after: u64,
        agent: Option<&AgentId>,
        kind: Option<EventKind>,
        limit: usize,
    ) -> Result<EventPage, CallError> {
        let store = &self.inner().store;
        let events = store.events(after, agent, kind, limit).await.map_err(store_error)?;
        // The range is read after the events: what was pruned in between can't hide behind it.
        let (oldest, newest) = store.event_range().await.map_err(store_error)?;
        let gap = (oldest > after.saturating_add(1)).then_some((after.saturating_add(1), oldest));
        Ok(EventPage { store: store.id(), events, gap, newest })
    }

    /// Changes when this process has appended events: a hint to read on.
    pub fn event_hints(&self) -> watch::Receiver<u64> {
        self.inner().store.event_hints()
    }

    /// Follows an agent from behind a place, or from its first event: everything that happens to it, in order and once, and a
    /// gap where something is missing. Drop it to end it.
    ///
    /// # Errors
    /// `Misdirected` names the host to ask; `NotFound`, `PeersSilent`; `TooManyWatch`.
    pub async fn subscribe(
        &self,
        agent: &AgentId,
        after: Option<EventPlace>,
    ) -> Result<Subscription, CallError> {
        let room = self.watcher()?;
        let hints = self.event_hints();
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        let elsewhere = match row.map(|row| row.home) {
            Some(Home::Here | Home::HandingOff { .. }) => None,
            Some(Home::Prepared { source, .. }) => Some(source),
            Some(Home::Moved(tombstone)) => Some(self.inner().hints.get(agent).unwrap_or(tombstone.target)),
            None => Some(self.who_is_home(agent).await?),
        };
        match elsewhere {
            Some(host) => Err(CallError::Misdirected { agent: agent.clone(), host }),
            None => Ok(Subscription {
                runtime: self.clone(),
                agent: agent.clone(),
                after: after.unwrap_or(EventPlace::START),
                ready: VecDeque::new(),
                is_over: false,
                hints,
                _room: room,
            }),
        }
    }

    /// Room for one more who follows or waits.
    ///
    /// # Errors
    /// `TooManyWatch`.
    pub(crate) fn watcher(&self) -> Result<OwnedSemaphorePermit, CallError> {
        let room = self.inner().watchers.clone().try_acquire_owned();
        room.map_err(|_| CallError::TooManyWatch { most: WATCHERS_MAX as u64 })
    }

    /// One look at the events of an agent that is at home here.
    pub(crate) async fn agent_events_here(
        &self,
        row: &AgentRow,
        after: EventPlace,
        limit: usize,
    ) -> Result<AgentEvents, CallError> {
        let (begin, mut told) = match is_ahead(row, after) {
            true => (
                EventPlace::START,
                vec![Told::Gap(Gap { reason: GapReason::Ahead, after, to: EventPlace::START })],
            ),
            false => (after, Vec::new()),
        };
        let store = &self.inner().store;
        let mut events = store
            .agent_events(&row.agent, begin.number, limit.saturating_add(1))
            .await
            .map_err(store_error)?;
        let has_more = events.len() > limit;
        events.truncate(limit);
        // The row was read before: up to its count, what is not among the events is nowhere here.
        let end = (!has_more)
            .then_some(EventPlace { generation: row.generation, number: row.next_event.saturating_sub(1) });
        told.extend(in_order(begin, events, end));
        Ok(AgentEvents { told, has_more })
    }
}

/// Whether the agent has never been where a cursor is.
fn is_ahead(row: &AgentRow, after: EventPlace) -> bool {
    after.number >= row.next_event || after.generation > row.generation
}

/// Events behind a place, with a gap wherever a number is missing; `end` is a place up to which there are no others.
fn in_order(after: EventPlace, events: Vec<Event>, end: Option<EventPlace>) -> Vec<Told> {
    let mut told = Vec::with_capacity(events.len());
    let mut at = after;
    let missing = |at: EventPlace, next: EventPlace| {
        let to = EventPlace { number: next.number - 1, ..next };
        (to.number > at.number).then_some(Told::Gap(Gap { reason: GapReason::NotHere, after: at, to }))
    };
    for event in events {
        let Some(place) = event.place else { continue };
        told.extend(missing(at, place));
        told.push(Told::Event(Box::new(event)));
        at = place;
    }
    told.extend(end.and_then(|end| missing(at, EventPlace { number: end.number + 1, ..end })));
    told
}

impl Told {
    /// Where a subscriber is after it; `None` says: where it was.
    pub fn place(&self) -> Option<EventPlace> {
        match self {
            Self::Event(event) => event.place,
            Self::Gap(gap) => Some(gap.to),
            Self::Moved { .. } => None,
        }
    }
}

impl Subscription {
    /// Whom it follows.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// The place of what was told last: where to go on from.
    pub fn after(&self) -> EventPlace {
        self.after
    }

    /// The next thing that happens to the agent; waits for it. `None` after `Told::Moved`, when the agent is gone, and at
    /// shutdown.
    ///
    /// # Errors
    /// As the store's; ask again, nothing was passed over.
    ///
    /// # Cancel safety
    /// Dropped before it returns, nothing was passed over.
    pub async fn next(&mut self) -> Result<Option<Told>, CallError> {
        let shutdown = self.runtime.shutdown_token();
        loop {
            if let Some(told) = self.ready.pop_front() {
                self.after = told.place().unwrap_or(self.after);
                return Ok(Some(told));
            }
            if self.is_over {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                looked = self.look() => looked?,
            }
        }
    }

    /// Reads on; waits when there is nothing. Dropped before it returns, it has moved nothing.
    async fn look(&mut self) -> Result<(), CallError> {
        // Seen before the store is read: what is appended after that wakes it.
        self.hints.mark_unchanged();
        let row = self.runtime.inner().store.agent(&self.agent).await.map_err(store_error)?;
        let Some(row) = row else {
            self.is_over = true;
            return Ok(());
        };
        let moved = match row.home {
            Home::Moved(tombstone) => Some(tombstone.target),
            Home::Prepared { source, .. } => Some(source),
            Home::Here | Home::HandingOff { .. } => None,
        };
        // A bare tombstone has no count: what is still here is told, and the rest where the agent is.
        let row = AgentRow {
            generation: row.generation.max(self.after.generation),
            next_event: if moved.is_some() {
                row.next_event.max(self.after.number + 1)
            } else {
                row.next_event
            },
            ..row
        };
        let found = self.runtime.agent_events_here(&row, self.after, READ_AT_ONCE).await?;
        self.ready.extend(found.told);
        if let Some(host) = moved.filter(|_| !found.has_more) {
            self.ready.push_back(Told::Moved { host });
            self.is_over = true;
        }
        if self.ready.is_empty() {
            // Cancel safe: nothing is held while waiting.
            tokio::select! {
                changed = self.hints.changed() => if changed.is_err() { sleep(LOOK_AGAIN).await },
                () = sleep(LOOK_AGAIN) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
