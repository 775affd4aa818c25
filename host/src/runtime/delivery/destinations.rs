//! Destinations to which nothing goes now: they did not take their outputs and rest, or outputs are on their way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use godwit_core::id::AgentId;
use godwit_core::retry::Backoff;

/// First and longest pause of a destination that did not take its output.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A destination that has taken nothing for so long is told of.
const TELL_AFTER: Duration = Duration::from_secs(10);

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
    /// Boot time since which it has taken nothing, and whether somebody was told.
    since: Duration,
    is_told: bool,
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

    /// A destination has not taken all that went to it, perhaps some. Answers, once, that it has taken nothing for long.
    pub(super) fn rest(&mut self, destination: AgentId, has_taken: bool, now: Duration, random: u8) -> bool {
        self.away.remove(&destination);
        let backoff = || Backoff::new(RETRY_FIRST, RETRY_MAX);
        let new = || Rest { backoff: backoff(), until: None, since: now, is_told: false };
        let rest = self.rests.entry(destination).or_insert_with(new);
        rest.until = Some(now + rest.backoff.delay(random));
        if has_taken {
            (rest.since, rest.is_told) = (now, false);
        }
        let is_long = !rest.is_told && now.saturating_sub(rest.since) >= TELL_AFTER;
        rest.is_told |= is_long;
        is_long
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_destination_takes_nothing_for_long_is_told_once() {
        let at = Duration::from_secs;
        let agent = AgentId::parse("a").unwrap();
        let mut known = Destinations::default();
        let mut told = |has_taken, now| known.rest(agent.clone(), has_taken, at(now), 0);
        assert_eq!(
            [0, 4, 9, 10, 15, 30].map(|now| told(false, now)),
            [false, false, false, true, false, false]
        );
        assert_eq!(
            [(true, 31), (false, 40), (false, 41)].map(|(some, now)| told(some, now)),
            [false, false, true]
        );
        known.took(&agent);
        assert!(!known.rest(agent, false, at(60), 0));
    }
}
