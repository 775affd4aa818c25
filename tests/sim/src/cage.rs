//! `Cage`: all tasks of one simulated process, so that it can be stopped, continued and killed at any await point.
//!
//! A stopped process is not polled, whatever wakes it; timers that end meanwhile have ended when it goes on. A killed one is
//! dropped where it is. Now and then, as the seed says, a task is polled a little later than it could be.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::AbortHandle;

use crate::random::Random;

/// How many polls of a thousand come later.
const LATER: u64 = 30;
/// Tasks after which those that have ended are forgotten.
const TASKS_SWEEP: usize = 256;

/// The tasks of a process.
pub struct Cage {
    inside: Mutex<Inside>,
    /// Told when a task panics.
    on_panic: Box<dyn Fn(String) + Send + Sync>,
}

struct Inside {
    is_dead: bool,
    is_stopped: bool,
    /// Wake them when it goes on.
    held: Vec<Waker>,
    tasks: Vec<AbortHandle>,
    random: Random,
}

impl Cage {
    /// A process without tasks.
    pub fn new(random: Random, on_panic: impl Fn(String) + Send + Sync + 'static) -> Arc<Self> {
        let inside =
            Inside { is_dead: false, is_stopped: false, held: Vec::new(), tasks: Vec::new(), random };
        Arc::new(Self { inside: Mutex::new(inside), on_panic: Box::new(on_panic) })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task of the process; nothing, when it is dead.
    pub fn spawn(self: &Arc<Self>, task: BoxFuture<'static, ()>) {
        if self.lock().is_dead {
            return;
        }
        let handle = tokio::spawn(Caged { cage: self.clone(), task }).abort_handle();
        let mut inside = self.lock();
        if inside.tasks.len() >= TASKS_SWEEP {
            inside.tasks.retain(|task| !task.is_finished());
        }
        inside.tasks.push(handle);
    }

    /// Kills it: no task of it is polled again.
    pub fn kill(&self) {
        let tasks = {
            let mut inside = self.lock();
            inside.is_dead = true;
            inside.held.clear();
            std::mem::take(&mut inside.tasks)
        };
        for task in tasks {
            task.abort();
        }
    }

    /// Stops it.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        let held = {
            let mut inside = self.lock();
            inside.is_stopped = false;
            std::mem::take(&mut inside.held)
        };
        for waker in held {
            waker.wake();
        }
    }

    /// Whether it is alive.
    pub fn is_alive(&self) -> bool {
        !self.lock().is_dead
    }

    /// Whether it is alive and stopped.
    pub fn is_stopped(&self) -> bool {
        let inside = self.lock();
        inside.is_stopped && !inside.is_dead
    }
}

struct Caged {
    cage: Arc<Cage>,
    task: BoxFuture<'static, ()>,
}

impl Future for Caged {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut inside = self.cage.lock();
            if inside.is_dead {
                return Poll::Ready(());
            }
            if inside.is_stopped {
                inside.held.push(context.waker().clone());
                return Poll::Pending;
            }
            if inside.random.chance(LATER) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let mut guarded = std::panic::AssertUnwindSafe(&mut self.task).catch_unwind();
        match guarded.poll_unpin(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(panic)) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                (self.cage.on_panic)(text.unwrap_or_default());
                Poll::Ready(())
            }
        }
    }
}
