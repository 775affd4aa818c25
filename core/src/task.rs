//! Task groups: every task of a host is spawned through one, so that shutdown can end and join them all.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Starts a task, in a simulation.
pub type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// A group of tasks with one shutdown token. Cheap to clone.
#[derive(Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    /// `None`: the current runtime of tokio.
    spawn: Option<Spawn>,
}

impl TaskGroup {
    /// A group whose tasks `spawn` starts.
    pub fn on(spawn: Spawn) -> Self {
        Self { spawn: Some(spawn), ..Self::default() }
    }

    /// Another group, whose tasks are started as those of this one are, and end by themselves.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self { spawn: self.spawn.clone(), ..Self::default() }
    }

    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.spawn {
            Some(spawn) => spawn(Box::pin(self.tracker.track_future(task))),
            None => drop(self.tracker.spawn(task)),
        }
    }

    /// Counts whoever holds the token as a task of the group: work that somebody else drives.
    pub fn enter(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Whether shutdown has begun.
    pub fn is_ending(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Resolves when shutdown begins. Tasks select on it, first.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Waits until every task has ended by itself; nobody is asked to.
    pub async fn ended(&self) {
        // Closing is what lets the wait end; it keeps nobody out.
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Begins shutdown and waits until every task has ended.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.ended().await;
    }
}
