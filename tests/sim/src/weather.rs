//! `Weather`: what may go wrong between a host and the store, and how often in this run. The seed decides for each call.
//!
//! Allowed faults: a call comes late; it is refused (`Busy`) and not executed; its caller is told `Unknown`, and it is
//! executed before that, after it, or never; the store takes nothing from a host for a while. Messages between
//! hosts get lost, come late or twice, and a host is cut off from all others for a while. What a process sends on one way is executed
//! in the order in which it was sent, as the stores' writers do; reads may overtake.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit_core::id::HostId;
use tokio::time::Instant;

use crate::random::Random;

/// A delay that nobody expects of a store, at most: longer than a lease.
const SLOW_MAX_MS: u64 = 1_800;
/// How long a caller waits before it is told that nobody knows, at most.
const PATIENCE_MAX_MS: u64 = 300;
/// Messages of a run that come a second time, at most: each may make work for as long as a move takes.
const REPEATS_MAX: u64 = 50;

/// The faults of a run, each in calls of a thousand.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    slow: u64,
    refused: u64,
    unknown: u64,
    lost_messages: u64,
    slow_guests: u64,
    repeated_messages: u64,
}

/// Decides the fate of calls.
pub struct Weather {
    random: Random,
    rates: Rates,
    usual_max_ms: u64,
    repeats_left: u64,
    /// Hosts from which the store takes nothing until then.
    down: BTreeMap<usize, Instant>,
    /// Hosts that hear no other, and are heard by none, until then.
    cut_off: BTreeMap<HostId, Instant>,
}

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It only reads.
    Read,
    /// It writes.
    Write,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// When it is executed; `None`: never.
    pub executed_after: Option<Duration>,
    /// How long its answer takes.
    pub answer_takes: Duration,
    /// What the caller hears instead of the answer.
    pub instead: Option<Instead>,
}

/// What becomes of a message between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// How long it takes.
    pub there: Duration,
    /// How long its answer takes.
    pub back: Duration,
    /// Whether it gets lost.
    pub is_lost: bool,
    /// Whether its answer gets lost.
    pub is_unheard: bool,
    /// How much later it comes once more, if it does; nobody hears that answer.
    pub again: Option<Duration>,
}

/// What a caller hears instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// That it was not executed.
    Busy,
    /// That nobody knows, after so long.
    Unknown(Duration),
}

impl Weather {
    /// The weather of a run.
    pub fn new(mut random: Random) -> Self {
        let rates = Rates {
            slow: random.below(30),
            refused: random.below(40),
            unknown: random.below(40),
            lost_messages: random.below(100),
            slow_guests: random.below(60),
            repeated_messages: random.below(60),
        };
        let usual_max_ms = random.below(12);
        Self {
            random,
            rates,
            usual_max_ms,
            repeats_left: REPEATS_MAX,
            down: BTreeMap::new(),
            cut_off: BTreeMap::new(),
        }
    }

    /// No faults from here on.
    pub fn clear_up(&mut self) {
        self.rates = Rates::default();
        self.usual_max_ms = 2;
        self.down.clear();
        self.cut_off.clear();
    }

    /// Lets the store take nothing from a host until then.
    pub fn take_down(&mut self, host: usize, until: Instant) {
        self.down.insert(host, until);
    }

    /// Lets nothing pass between a host and all others until then.
    pub fn cut_off(&mut self, host: HostId, until: Instant) {
        self.cut_off.insert(host, until);
    }

    /// The stream of random numbers of what happens below the hosts.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn delay(&mut self) -> Duration {
        let most = if self.random.chance(self.rates.slow) { SLOW_MAX_MS } else { self.usual_max_ms };
        Duration::from_millis(self.random.below(most + 1))
    }

    /// The fate of a host's call.
    pub fn fate(&mut self, host: usize, nature: Nature, now: Instant) -> Fate {
        let (before, answer_takes) = (self.delay(), self.delay());
        let fine = Fate { executed_after: Some(before), answer_takes, instead: None };
        if self.down.get(&host).is_some_and(|until| *until > now) || self.random.chance(self.rates.refused) {
            return Fate { executed_after: None, instead: Some(Instead::Busy), ..fine };
        }
        if nature == Nature::Write && self.random.chance(self.rates.unknown) {
            let patience = Duration::from_millis(self.random.below(PATIENCE_MAX_MS));
            let executed_after = match self.random.below(4) {
                0 => None,
                1 => Some(patience + Duration::from_millis(self.random.below(SLOW_MAX_MS))),
                _ => Some(before.min(patience)),
            };
            return Fate { executed_after, instead: Some(Instead::Unknown(patience)), ..fine };
        }
        fine
    }

    /// Whether a commit may be made on the spot.
    pub fn is_idle(&mut self, host: usize, now: Instant) -> bool {
        let is_down = self.down.get(&host).is_some_and(|until| *until > now);
        !is_down && self.random.chance(500)
    }

    /// How long a guest takes before and behind its call.
    pub fn guest_takes(&mut self) -> Duration {
        let is_slow = self.random.chance(self.rates.slow_guests);
        Duration::from_millis(if is_slow { self.random.below(SLOW_MAX_MS) } else { 0 })
    }

    /// The fate of a message between two hosts.
    pub fn passage(&mut self, ends: [HostId; 2], now: Instant) -> Passage {
        let is_cut = ends.iter().any(|end| self.cut_off.get(end).is_some_and(|until| *until > now));
        let rate = self.rates.lost_messages;
        let (is_lost, is_unheard) = (self.random.chance(rate), self.random.chance(rate));
        let (there, back) = (self.delay(), self.delay());
        let is_repeated = self.repeats_left > 0 && self.random.chance(self.rates.repeated_messages);
        self.repeats_left -= u64::from(is_repeated);
        let again = is_repeated.then(|| Duration::from_millis(self.random.below(SLOW_MAX_MS)));
        Passage { there, back, is_lost: is_lost || is_cut, is_unheard, again: again.filter(|_| !is_cut) }
    }
}
