//! `init`: a few tries, each of which the agent's row counts before it starts.
//!
//! ```text
//! row: n --raise--> n + 1 --init--> its boundary: 0
//!                               \-> an error: n + 1 stands, the last one breaks the agent
//!                               \-> not counted (fence, interrupt, no room, refused commit): n again
//! ```
//! A try in which the process died stands as well; the next incarnation finds it. So does one that could not be taken back:
//! the agent was lost, or the store gave no answer before the driver ended.

use super::work::Picked;
use super::{Driver, Flow};
use crate::agent::chain::Origin;
use crate::agent::turn::{self, Verdict};
use crate::agent::{End, Notice};
use crate::failpoint;
use crate::guest::GuestError;
use crate::id::Revision;
use crate::input::FaultKind;
use crate::limits::{ATTEMPTS_MAX, DEATHS_MAX};
use crate::store::{BrokenReason, Step, Unit, UnitFailure};

/// What a driver knows of the tries that the row counts.
#[derive(Default)]
pub(super) struct InitTries {
    /// The tries that count, while the row may hold one more: one is under way, or was not taken back.
    before: Option<u32>,
    /// How the tries that this driver has made have failed, in order.
    errors: Vec<String>,
}

impl InitTries {
    /// The tries that count, of those in the row.
    fn counted(&mut self, in_row: u32) -> u32 {
        let counted = self.before.map_or(in_row, |before| before.min(in_row));
        // After a fresh start the errors are those of another count.
        self.errors.truncate(counted as usize);
        counted
    }

    /// Those of the counted tries whose end nobody here has seen: the process may have died in them.
    fn unseen(&self, counted: u32) -> u32 {
        counted.saturating_sub(u32::try_from(self.errors.len()).unwrap_or(u32::MAX))
    }

    /// Why there is no further try.
    fn exhausted(&self, counted: u32) -> String {
        let why = match self.errors.last().filter(|_| self.unseen(counted) == 0) {
            Some(error) => error,
            None => "the host's process ended, or lost the agent, while init ran",
        };
        format!("{counted} attempts are used up: {why}")
    }
}

impl Driver {
    /// Counts a try in the agent's row and picks it; `None` when none can be made now. After two tries that nobody saw the
    /// end of it runs alone.
    pub(super) async fn pick_init(&mut self, mut picked: Picked) -> Result<Option<Picked>, End> {
        let Some(loaded) = &self.loaded else { return Ok(None) };
        let before = self.init.counted(loaded.init_attempts);
        if before >= ATTEMPTS_MAX {
            let message = self.init.exhausted(before);
            self.break_down(BrokenReason::Init { message }).await?;
            return Ok(None);
        }
        if self.init.unseen(before) >= DEATHS_MAX {
            picked.alone = Some(self.env.pool.alone().await);
        }
        self.init.before = Some(before);
        if let Some(failure) = self.write_init_attempts(before + 1).await {
            self.on_init_unwritten(failure).await?;
            return Ok(None);
        }
        failpoint::hit("init.after-raise");
        picked.turns.push_back((Origin::Init, before + 1));
        Ok(Some(picked))
    }

    /// `init` gave nothing, and nobody has interrupted it.
    pub(super) async fn on_init_failure(&mut self, attempt: u32, error: GuestError) -> Flow {
        self.loaded = None;
        if matches!(&error, GuestError::Fault(fault) if fault.kind == FaultKind::Start) {
            self.take_back_init().await;
            (self.env.notify)(Notice::NoRoom(self.agent.clone()));
            self.pause_longer();
            return Ok(());
        }
        let verdict = turn::after_failure(&error, attempt);
        if verdict == Verdict::Uncounted {
            self.take_back_init().await;
            return self.on_uncounted(&error).await;
        }
        tracing::info!(agent = %self.agent, attempt, %error, "init failed");
        self.init.before = None;
        self.init.errors.push(error.to_string());
        match verdict {
            Verdict::DeadLetter(_) => {
                let message = match error {
                    GuestError::Fatal { .. } => error.to_string(),
                    _ => self.init.exhausted(attempt),
                };
                self.break_down(BrokenReason::Init { message }).await
            }
            Verdict::Again { .. } | Verdict::Uncounted => {
                self.pause_longer();
                Ok(())
            }
        }
    }

    /// `init` ran, and its boundary was handed to the store: unless it is there, the try does not count.
    pub(super) async fn after_init(&mut self) {
        if self.loaded.is_some() {
            self.init = InitTries::default();
        } else {
            self.take_back_init().await;
        }
    }

    /// Lets the row count what counts. Where the store does not take that, the next try by this driver does not count the
    /// one before.
    pub(super) async fn take_back_init(&mut self) {
        let Some(before) = self.init.before else { return };
        match self.write_init_attempts(before).await {
            None => self.init.before = None,
            Some(failure) => {
                tracing::warn!(agent = %self.agent, ?failure, "a try of init stays counted for now");
            }
        }
    }

    async fn write_init_attempts(&mut self, attempts: u32) -> Option<UnitFailure> {
        let steps = vec![Step::InitAttempts(attempts)];
        let unit = Unit { owner: self.owner(), base: Revision(0), steps };
        self.env.store.commit_turns(unit).await.failure
    }

    async fn on_init_unwritten(&mut self, failure: UnitFailure) -> Flow {
        match failure {
            UnitFailure::Store(error) => self.on_store_error("init", error).await,
            // Of steps that this unit does not have.
            UnitFailure::Duplicate(_) | UnitFailure::Refused(_) | UnitFailure::Quota { .. } => {
                self.loaded = None;
                self.pause_longer();
                Ok(())
            }
        }
    }
}
