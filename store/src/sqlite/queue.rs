//! A bounded queue between async callers and one or more threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use godwit_core::store::StoreError;
use tokio::sync::Semaphore;

/// Jobs that wait for a thread.
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    ready: Condvar,
    room: Semaphore,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// How many of them were added without room.
    without_room: usize,
    /// Threads that wait for jobs: where there are none, telling them costs a system call for nothing.
    waiting: usize,
    closed: Option<String>,
}

impl<J> Queue<J> {
    pub(super) fn new(jobs_max: usize) -> Self {
        let state = State { jobs: VecDeque::new(), without_room: 0, waiting: 0, closed: None };
        Self { state: Mutex::new(state), ready: Condvar::new(), room: Semaphore::new(jobs_max) }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; waits while the queue is full.
    ///
    /// # Errors
    /// `Closed`; the job was dropped.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the job was not added.
    pub(super) async fn push(&self, job: J) -> Result<(), StoreError> {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
        self.add(|state| state.jobs.push_back(job))
    }

    /// Adds a job in front of all others, at once.
    ///
    /// # Errors
    /// `Closed`; the job was dropped.
    pub(super) fn push_first(&self, job: J) -> Result<(), StoreError> {
        let has_room = self.room.try_acquire().map(|permit| permit.forget()).is_ok();
        self.add(|state| {
            state.without_room += usize::from(!has_room);
            state.jobs.push_front(job);
        })
    }

    fn add(&self, place: impl FnOnce(&mut State<J>)) -> Result<(), StoreError> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(StoreError::Closed { reason: reason.clone() });
        }
        place(&mut state);
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for jobs. False once the queue is closed and drained.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() && state.closed.is_none() {
            state.waiting += 1;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        !state.jobs.is_empty()
    }

    /// Whether it is open and nothing waits in it.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.jobs.is_empty() && state.closed.is_none()
    }

    /// Takes up to `max` of the jobs that wait, in order, as long as they fit.
    pub(super) fn take(&self, max: usize, mut fits: impl FnMut(&J) -> bool) -> Vec<J> {
        let mut state = self.lock();
        let count = state.jobs.iter().take(max).take_while(|job| fits(job)).count();
        let jobs: Vec<J> = state.jobs.drain(..count).collect();
        let without_room = state.without_room.min(count);
        state.without_room -= without_room;
        drop(state);
        self.room.add_permits(count - without_room);
        jobs
    }

    /// Takes no more jobs; those that wait are still worked on.
    pub(super) fn close(&self, reason: &str) {
        self.lock().closed.get_or_insert_with(|| reason.to_owned());
        self.room.close();
        self.ready.notify_all();
    }
}
