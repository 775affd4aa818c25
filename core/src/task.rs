//! Task groups: every task of a host is spawned through one, so that shutdown can end and join them all.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one shutdown token. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl TaskGroup {
    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Resolves when shutdown begins. Tasks select on it, first.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Begins shutdown and waits until every task has ended.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
