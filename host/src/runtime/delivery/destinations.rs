//! Destinations to which nothing goes now: they did not take their outputs and rest, outputs are on their way to them, or the way
//! to them has no room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use godwit_core::id::{AgentId, HostId};
use godwit_core::retry::Backoff;

/// First and longest pause of a destination that did not take its output.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A destination that has taken nothing for so long is told of.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// Requests of one publisher to one host at once: the next one is there when the first is answered. More would only wait there,
/// for the same transactions, and before whatever else goes to that host.
const REQUESTS_MAX: usize = 2;

/// Where a run goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Into this host's store.
    Here,
    /// To a host that should have the destination.
    To(HostId),
    /// To wherever the peers say.
    Unknown,
}

/// What a publisher knows of its destinations.
#[derive(Default)]
pub(super) struct Destinations {
    /// Those that did not take their outputs, each with its own back-off.
    rests: BTreeMap<AgentId, Rest>,
    /// Those to which something is on its way, or is held.
    away: BTreeSet<AgentId>,
    ways: BTreeMap<Way, Traffic>,
    /// Somebody has taken nothing since the last look.
    is_in_doubt: bool,
}

/// What is on one way.
#[derive(Default)]
struct Traffic {
    requests: usize,
    /// Destinations for which it had no room, by request. Held so, they do not stand before those of other ways.
    held: VecDeque<Vec<AgentId>>,
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

    /// Before a look: who has rested enough may get something, and of who is held as many as there is room for.
    pub(super) fn wake(&mut self, now: Duration) {
        for rest in self.rests.values_mut() {
            rest.until = rest.until.filter(|until| *until > now);
        }
        for traffic in self.ways.values_mut() {
            let room = REQUESTS_MAX.saturating_sub(traffic.requests).min(traffic.held.len());
            for destination in traffic.held.drain(..room).flatten() {
                self.away.remove(&destination);
            }
        }
        self.ways.retain(|_, traffic| traffic.requests > 0 || !traffic.held.is_empty());
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
        self.doubt();
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

    /// Whether one more request may go a way; it does then. Questions to the peers have bounds of their own.
    pub(super) fn departs(&mut self, way: Way) -> bool {
        let traffic = self.ways.entry(way).or_default();
        let has_room = way == Way::Unknown || traffic.requests < REQUESTS_MAX;
        traffic.requests += usize::from(has_room);
        has_room
    }

    /// What was to go to these destinations in one request is read again when there is room on the way.
    pub(super) fn hold(&mut self, way: Way, destinations: Vec<AgentId>) {
        self.ways.entry(way).or_default().held.push_back(destinations);
    }

    /// A request is answered, or given up.
    pub(super) fn landed(&mut self, way: Way) {
        if let Some(traffic) = self.ways.get_mut(&way) {
            traffic.requests = traffic.requests.saturating_sub(1);
        }
    }

    /// Somebody takes nothing, or does not answer.
    pub(super) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Whether that was so since it was asked last.
    pub(super) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.is_in_doubt)
    }

    /// Lets none rest beyond `limit`.
    pub(super) fn cut(&mut self, limit: Duration) {
        for rest in self.rests.values_mut() {
            rest.until = rest.until.map(|until| until.min(limit));
        }
    }

    /// Time until the first of them is tried again: of those that rest, or are held though there is room.
    pub(super) fn pause(&self, now: Duration) -> Option<Duration> {
        let is_free = |traffic: &Traffic| !traffic.held.is_empty() && traffic.requests < REQUESTS_MAX;
        let held = self.ways.values().any(is_free).then_some(now + RETRY_FIRST);
        let first = self.rests.values().filter_map(|rest| rest.until).chain(held).min()?;
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
        assert!(known.take_doubt() && !known.take_doubt(), "others are not kept waiting for it");
        known.took(&agent);
        assert!(!known.rest(agent, false, at(60), 0));
    }

    #[test]
    fn what_a_full_way_has_no_room_for_goes_in_turn_when_something_has_landed_on_it() {
        let names = ["a", "b", "c", "d"].map(|name| AgentId::parse(name).unwrap());
        let (now, host) = (Duration::from_secs(1), Way::To(HostId([1; 32])));
        let mut known = Destinations::default();
        let take = |known: &mut Destinations| {
            known.wake(now);
            names.iter().map(|name| known.takes(name)).collect::<Vec<_>>()
        };
        names.iter().for_each(|name| known.went(name));
        assert!(known.departs(host) && known.departs(host) && !known.departs(host));
        assert!(known.departs(Way::Here), "another way");
        known.hold(host, vec![names[1].clone(), names[2].clone()]);
        known.hold(host, vec![names[3].clone()]);
        known.landed(Way::Here);
        assert_eq!(take(&mut known), [false; 4]);
        assert_eq!(known.pause(now), None, "an answer is still to come");
        known.landed(host);
        assert_eq!(take(&mut known), [false, true, true, false], "as many as there is room for");
        // Of those nothing goes after all: the next are not forgotten.
        known.landed(host);
        assert!(known.pause(now).is_some());
        assert_eq!(take(&mut known), [false, true, true, true]);
        assert_eq!(known.pause(now), None);
        assert!(known.departs(host) && known.departs(host) && !known.departs(host));
        for _ in 0..9 {
            assert!(known.departs(Way::Unknown), "the peers are asked whatever is on its way");
        }
    }
}
