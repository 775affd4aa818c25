//! The roster that a host has by itself: made true when the host starts, and followed from then on.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use godwit_core::failpoint;
use godwit_core::time::sleep;

use super::ReconcileReport;
use crate::runtime::Runtime;
use crate::runtime::boot::{BootMode, BootReport};
use crate::runtime::call::CallError;

/// Shortest and longest pause before what a reconcile has left undone is tried again: a peer that was silent, a roster that
/// could not be had, an agent that another host is about to create.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

impl Runtime {
    /// Follows the roster: reconciles whenever the provider says that it may have changed, and again, with growing pauses,
    /// while something is left undone. Ends at shutdown.
    pub(crate) async fn follow_roster(self) {
        let (shutdown, reconciler) = (self.inner().tasks.shutdown(), &self.inner().reconciler);
        let provider = reconciler.sources.roster.clone();
        let changed = || async {
            match &provider {
                Some(provider) => {
                    if AssertUnwindSafe(provider.changed()).catch_unwind().await.is_err() {
                        tracing::error!("the roster's provider panicked; the roster is read again later");
                        sleep(RETRY_PAUSE_MAX).await;
                    }
                }
                // What is applied is reconciled by whoever applies it.
                None => std::future::pending().await,
            }
        };
        let mut pause = RETRY_PAUSE;
        loop {
            let retry = async {
                reconciler.unfinished.notified().await;
                sleep(pause).await;
            };
            // Cancel safe: a change that is not seen now is seen when it is asked again; what is dropped with a retry is
            // tried at once, for the change's sake.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = changed() => pause = RETRY_PAUSE,
                () = retry => pause = (pause * 2).min(RETRY_PAUSE_MAX),
            }
            match self.reconcile(false).await {
                Ok(report) if report.is_complete() => pause = RETRY_PAUSE,
                Ok(_) | Err(CallError::NoSuch { .. }) => {}
                Err(error) => self.not_followed(&error),
            }
        }
    }

    fn not_followed(&self, error: &CallError) {
        tracing::error!(%error, "the roster is not followed for now; agents and edges stay as they are");
        self.inner().reconciler.unfinished.notify_one();
    }

    /// What a host does once it runs: makes its agents those of the roster, if it has one, and brings them up. A roster that
    /// can't be had is an error in the log, and the agents that are here come up all the same.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn bring_up_all(
        &self,
        mode: BootMode,
        concurrency: usize,
    ) -> Result<(Option<ReconcileReport>, BootReport), CallError> {
        let reconciled = match self.reconcile(false).await {
            Ok(report) => Some(report),
            Err(CallError::NoSuch { .. }) => None,
            Err(error) => {
                self.not_followed(&error);
                None
            }
        };
        failpoint::hit("boot.after-reconcile");
        self.inner().tasks.spawn(self.clone().follow_roster());
        if mode == BootMode::Warm {
            let warming = self.clone();
            self.inner().tasks.spawn(async move {
                if let Err(error) = warming.boot(BootMode::Warm, concurrency).await {
                    tracing::warn!(%error, "agents are not warmed up: each starts when it is needed");
                }
            });
            return Ok((reconciled, self.boot(BootMode::Lazy, concurrency).await?));
        }
        Ok((reconciled, self.boot(mode, concurrency).await?))
    }
}
