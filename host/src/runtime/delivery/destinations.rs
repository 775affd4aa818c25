//! Destinations to which nothing goes now: they did not take their outputs and rest, or outputs are on their way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use godwit_core::id::AgentId;
use godwit_core::retry::Backoff;

/// First and longest pause of a destination that did not take its output.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a publisher knows of its destinations.
#[derive(Default)]
pub(super) struct Destinations {
    /// Those that did not take their outputs, each with its own back-off.
    rests: BTreeMap<AgentId, Rest>,
    /// Those to which something is on its way.
    away: BTreeSet<AgentId>,
}

struct Rest {
    backoff: Backoff,
    /// Boot time of the next try; `None` while it is being tried.
    until: Option<Duration>,
}

impl Destinations {
    /// Whether something may go to a destination.
    pub(super) fn takes(&self, destination: &AgentId) -> bool {
        let rests = self.rests.get(destination).is_some_and(|rest| rest.until.is_some());
        !rests && !self.away.contains(destination)
    }

    /// Those to which nothing may go.
    pub(super) fn not_now(&self) -> BTreeSet<AgentId> {
        let resting = self.rests.iter().filter(|(_, rest)| rest.until.is_some());
        resting.map(|(destination, _)| destination).chain(&self.away).cloned().collect()
    }

    pub(super) fn wake(&mut self, now: Duration) {
        for rest in self.rests.values_mut() {
            rest.until = rest.until.filter(|until| *until > now);
        }
    }

    /// Something goes to a destination.
    pub(super) fn went(&mut self, destination: &AgentId) {
        self.away.insert(destination.clone());
    }

    /// A destination has taken what went to it.
    pub(super) fn took(&mut self, destination: &AgentId) {
        self.away.remove(destination);
        self.rests.remove(destination);
    }

    /// A destination has not taken what went to it.
    pub(super) fn rest(&mut self, destination: AgentId, now: Duration, random: u8) {
        self.away.remove(&destination);
        let new = || Rest { backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), until: None };
        let rest = self.rests.entry(destination).or_insert_with(new);
        rest.until = Some(now + rest.backoff.delay(random));
    }

    /// Lets none rest beyond `limit`.
    pub(super) fn cut(&mut self, limit: Duration) {
        for rest in self.rests.values_mut() {
            rest.until = rest.until.map(|until| until.min(limit));
        }
    }

    /// Time until the first of them is tried again.
    pub(super) fn pause(&self, now: Duration) -> Option<Duration> {
        let first = self.rests.values().filter_map(|rest| rest.until).min()?;
        Some(first.saturating_sub(now).max(Duration::from_millis(1)))
    }
}
