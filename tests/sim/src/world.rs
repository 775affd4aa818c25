//! `World`: what all hosts and clients of one run share, and what is below the hosts: the store, the judge, the trace.

use std::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use godwit_core::lease::LeaseProfile;
use godwit_core::store::memory::MemoryStore;
use tokio::time::Instant;

use crate::bug::Bug;
use crate::cage::Cage;
use crate::clock::SimClock;
use crate::judge::Judge;
use crate::planted::Past;
use crate::random::Random;
use crate::trace::Trace;
use crate::weather::Weather;

/// Leases in a run: short, so that much happens in few polls.
pub const PROFILE: LeaseProfile = LeaseProfile {
    ttl: Duration::from_millis(900),
    heartbeat: Duration::from_millis(300),
    margin: Duration::from_millis(150),
};

/// What a run shares.
pub struct World {
    /// What is wrong on purpose.
    pub bug: Option<Bug>,
    /// The store of all hosts; or, of hosts with stores of their own, of one of them.
    pub memory: MemoryStore,
    /// Which of several stores this is, counted from 1; 0 for the store of all.
    pub place: u64,
    /// Runs what is on its way between hosts, clients and store: nobody stops or kills it.
    pub outside: Arc<Cage>,
    start: Instant,
    trace: Arc<Mutex<Trace>>,
    judge: Arc<Mutex<Judge>>,
    weather: Arc<Mutex<Weather>>,
    past: Mutex<Past>,
}

/// A lock that nobody holds when a run ends.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value of a future of the memory store, which never waits.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the memory store answers at once")
}

impl World {
    /// An empty world.
    pub fn new(random: &mut Random, bug: Option<Bug>, is_printed: bool) -> Arc<Self> {
        let start = Instant::now();
        let judge: Arc<Mutex<Judge>> = Arc::default();
        let outside = Self::cage(&judge, random);
        Arc::new(Self {
            bug,
            memory: MemoryStore::shared(Arc::new(SimClock::new(start, random.fork()))),
            place: 0,
            outside,
            start,
            trace: Arc::new(Mutex::new(Trace::new(is_printed))),
            judge,
            weather: Arc::new(Mutex::new(Weather::new(random.fork()))),
            past: Mutex::default(),
        })
    }

    /// The same world around an empty store that only one host has.
    pub fn apart(&self, place: u64, clock: Arc<SimClock>) -> Arc<Self> {
        Arc::new(Self {
            bug: self.bug,
            memory: MemoryStore::exclusive(clock),
            place,
            outside: self.outside.clone(),
            start: self.start,
            trace: self.trace.clone(),
            judge: self.judge.clone(),
            weather: self.weather.clone(),
            past: Mutex::default(),
        })
    }

    /// Whether hosts have stores of their own here.
    pub fn is_apart(&self) -> bool {
        self.place > 0
    }

    fn cage(judge: &Arc<Mutex<Judge>>, random: &mut Random) -> Arc<Cage> {
        let judge = judge.clone();
        Cage::new(random.fork(), move |panic| lock(&judge).fail(format!("a task panicked: {panic}")))
    }

    /// A process, whose panics are violations.
    pub fn process(&self) -> Arc<Cage> {
        Self::cage(&self.judge, self.weather().random())
    }

    /// The clock of a machine.
    pub fn machine_clock(&self) -> Arc<SimClock> {
        Arc::new(SimClock::new(self.start, self.weather().random().fork()))
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes down what happened.
    pub fn note(&self, what: Arguments<'_>) {
        lock(&self.trace).note(self.elapsed(), what);
    }

    /// The trace.
    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    /// The judge, who is told of this store.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        let mut judge = lock(&self.judge);
        judge.look_at(self.place);
        judge
    }

    /// The weather.
    pub fn weather(&self) -> MutexGuard<'_, Weather> {
        lock(&self.weather)
    }

    /// What planted bugs remember.
    pub fn past(&self) -> MutexGuard<'_, Past> {
        lock(&self.past)
    }

    /// A chance of so many in a thousand.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.weather().random().chance(per_mille)
    }
}
