//! Destinations that did not take their outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use godwit_core::id::AgentId;
use godwit_core::retry::Backoff;

/// First and longest pause of a destination that did not take its output.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Destinations that did not take their outputs, each with its own back-off.
#[derive(Default)]
pub(super) struct Resting(BTreeMap<AgentId, Rest>);

struct Rest {
    backoff: Backoff,
    /// Boot time of the next try; `None` while it is being tried.
    until: Option<Duration>,
}

impl Resting {
    pub(super) fn holds(&self, destination: &AgentId) -> bool {
        self.0.get(destination).is_some_and(|rest| rest.until.is_some())
    }

    pub(super) fn held(&self) -> BTreeSet<AgentId> {
        let held = self.0.iter().filter(|(_, rest)| rest.until.is_some());
        held.map(|(destination, _)| destination.clone()).collect()
    }

    pub(super) fn wake(&mut self, now: Duration) {
        for rest in self.0.values_mut() {
            rest.until = rest.until.filter(|until| *until > now);
        }
    }

    pub(super) fn rest(&mut self, destination: AgentId, now: Duration, random: u8) {
        let new = || Rest { backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), until: None };
        let rest = self.0.entry(destination).or_insert_with(new);
        rest.until = Some(now + rest.backoff.delay(random));
    }

    /// Lets none rest beyond `limit`.
    pub(super) fn cut(&mut self, limit: Duration) {
        for rest in self.0.values_mut() {
            rest.until = rest.until.map(|until| until.min(limit));
        }
    }

    pub(super) fn forget(&mut self, destination: &AgentId) {
        self.0.remove(destination);
    }

    /// Time until the first of them is tried again.
    pub(super) fn pause(&self, now: Duration) -> Option<Duration> {
        let first = self.0.values().filter_map(|rest| rest.until).min()?;
        Some(first.saturating_sub(now).max(Duration::from_millis(1)))
    }
}
