//! `FaultyStore`: the shared store as one process reaches it, with the faults of the run's weather.
//!
//! ```text
//!   host --call--> FaultyStore --on its way: nobody stops it--> World (bugs, judge) --> MemoryStore
//!     <-- answer, `Busy` or `Unknown` --/
//! ```
//! A call that was sent is executed although its caller has died, was stopped, or has given up.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_core::store::{AcceptError, StoreError, UnitFailure, UnitOutcome};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cage::Cage;
use crate::weather::{Fate, Instead, Nature};
use crate::world::World;

mod documents;
mod port;

/// On which way a call travels. On each but that of reads nothing overtakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Read,
    Write,
    Keeper,
}

/// The store of one process.
pub struct FaultyStore {
    world: Arc<World>,
    host: usize,
    process: Arc<Cage>,
    /// When the last call on a way is executed.
    last: Mutex<BTreeMap<Way, Instant>>,
}

/// An answer that can be an error of the store.
trait Answer: Send + 'static {
    fn failed(error: StoreError) -> Self;
    /// For the trace.
    fn show(&self) -> String;
}

impl<T: Send + 'static> Answer for Result<T, StoreError> {
    fn failed(error: StoreError) -> Self {
        Err(error)
    }

    fn show(&self) -> String {
        show(self.as_ref().err())
    }
}

impl<T: Send + 'static> Answer for Result<T, AcceptError> {
    fn failed(error: StoreError) -> Self {
        Err(AcceptError::Store(error))
    }

    fn show(&self) -> String {
        show(self.as_ref().err())
    }
}

impl Answer for UnitOutcome {
    fn failed(error: StoreError) -> Self {
        Self { committed: 0, failure: Some(UnitFailure::Store(error)) }
    }

    fn show(&self) -> String {
        format!("{} {}", self.committed, show(self.failure.as_ref()))
    }
}

fn show(error: Option<&impl Debug>) -> String {
    error.map_or_else(|| "ok".to_owned(), |error| format!("{error:?}"))
}

impl FaultyStore {
    /// The store of a process of this host.
    pub fn new(world: Arc<World>, host: usize, process: Arc<Cage>) -> Self {
        Self { world, host, process, last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<Way, Instant>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a call that is sent now is executed.
    fn due(&self, way: Way, after: Duration) -> Instant {
        let at = Instant::now() + after;
        let mut last = self.last();
        if way == Way::Read {
            // Within a process, what was written before is read.
            let written = last.get(&Way::Write).filter(|_| self.world.is_apart());
            return written.map_or(at, |written| at.max(*written + Duration::from_millis(1)));
        }
        let at = last.get(&way).map_or(at, |last| at.max(*last + Duration::from_millis(1)));
        last.insert(way, at);
        at
    }

    /// Sends a call. `run` is told whether the caller will hear the answer.
    async fn call<R: Answer>(
        &self,
        name: &'static str,
        way: Way,
        run: impl FnOnce(&Arc<World>, bool) -> R + Send + 'static,
    ) -> R {
        let nature = if way == Way::Read { Nature::Read } else { Nature::Write };
        let Fate { executed_after, answer_takes, instead } =
            self.world.weather().fate(self.host, nature, Instant::now());
        // Nothing is on its way to a store of its own when its caller is told that nobody knows.
        let executed_after = match instead {
            Some(Instead::Unknown(after)) if self.world.is_apart() => executed_after.map(|at| at.min(after)),
            _ => executed_after,
        };
        let (answer, answered) = oneshot::channel();
        if let Some(after) = executed_after {
            let (at, world, host) = (self.due(way, after), self.world.clone(), self.host);
            let process = self.process.clone();
            self.world.outside.spawn(Box::pin(async move {
                if at > Instant::now() {
                    sleep_until(at).await;
                }
                if world.is_apart() && !process.is_alive() {
                    // It was in the process.
                    return;
                }
                let result = run(&world, instead.is_none());
                world.note(format_args!("h{host} {name}: {}", result.show()));
                if !answer_takes.is_zero() {
                    sleep(answer_takes).await;
                }
                // The caller may be gone.
                drop(answer.send(result));
            }));
        }
        let unknown = || R::failed(StoreError::Unknown { reason: "no answer".into() });
        match instead {
            None => answered.await.unwrap_or_else(|_| unknown()),
            Some(Instead::Busy) => {
                self.world.note(format_args!("h{} {name}: refused", self.host));
                sleep(answer_takes).await;
                R::failed(StoreError::Busy)
            }
            Some(Instead::Unknown(after)) => {
                sleep(after).await;
                self.world.note(format_args!("h{} {name}: given up", self.host));
                unknown()
            }
        }
    }
}
