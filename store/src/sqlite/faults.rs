//! Switches that break the store on purpose, so that checkers can be seen to notice. The product has none: without the
//! feature `test-util` every switch is constantly off.

use godwit_core::id::Incarnation;
use godwit_core::store::{AcceptError, Accepted, RuntimeStore as _, StoreError};

use super::SqliteStore;
use super::inputs::{self, Arrival};
use super::writer::Work;

/// Whether this build can be broken at all.
const IS_BREAKABLE: bool = cfg!(any(test, feature = "test-util"));

/// How long a group waits under `ack-before-commit`, so that a kill finds answers that are not durable.
const COMMIT_DELAY: std::time::Duration = std::time::Duration::from_millis(50);

/// Which rules are broken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) no_token_check: bool,
    pub(super) no_dedup: bool,
    pub(super) ack_before_commit: bool,
}

impl Faults {
    /// Reads `GODWIT_BREAK`, once, when a store is opened.
    #[cfg(feature = "test-util")]
    pub(super) fn from_environment() -> Self {
        let broken = std::env::var("GODWIT_BREAK").unwrap_or_default();
        let is_broken = |name: &str| broken.split(',').any(|part| part.trim() == name);
        Self {
            no_token_check: is_broken("no-token-check"),
            no_dedup: is_broken("no-dedup"),
            ack_before_commit: is_broken("ack-before-commit"),
        }
    }

    /// Nothing is broken.
    #[cfg(not(feature = "test-util"))]
    pub(super) fn from_environment() -> Self {
        Self::default()
    }

    /// `no-token-check`: commits don't compare the owner.
    pub(super) fn skips_token_check(self) -> bool {
        IS_BREAKABLE && self.no_token_check
    }

    /// `no-dedup`: acceptance ignores keys and delivery numbers.
    pub(super) fn skips_dedup(self) -> bool {
        IS_BREAKABLE && self.no_dedup
    }

    /// `ack-before-commit`: inputs and units are answered when they are queued.
    pub(super) fn acks_before_commit(self) -> bool {
        IS_BREAKABLE && self.ack_before_commit
    }

    /// Widens the gap between answer and commit.
    pub(super) fn delay_commit(self) {
        if self.acks_before_commit() {
            std::thread::sleep(COMMIT_DELAY);
        }
    }
}

impl SqliteStore {
    /// `ack-before-commit`: answers with what is expected to become durable.
    pub(super) async fn accept_unsafely(
        &self,
        arrival: Arrival,
        by: Incarnation,
    ) -> Result<Accepted, AcceptError> {
        let agent = arrival.new.agent.clone();
        let row = self.agent(&agent).await?.ok_or(StoreError::NoAgent)?;
        let mut arrival = arrival;
        let (mut job, _) = Work::boxed(move |tx| inputs::accept(tx, &mut arrival, by), false);
        job.shares_heads = true;
        self.queue(job).await?;
        Ok(Accepted::New { seq: row.next_seq })
    }
}
