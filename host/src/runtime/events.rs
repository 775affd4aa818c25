//! Reading the event log: pages after a cursor, with an explicit gap when the cursor fell off.

use godwit_core::event::{Event, EventKind};
use godwit_core::id::{AgentId, StoreId};

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

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
}
