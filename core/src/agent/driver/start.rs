//! Starting an agent: loading it (instance, restore, replay) and, when it is new, `init`. What fails is counted in its row.
//!
//! ```text
//!                        row: n
//! a process died in it ----------> n + 1, committed before it is loaded again
//! `init` gave an error ----------> n + 1, committed after it
//! it is loaded, and has state ---> 0; otherwise its first boundary says so
//! ```
//! At `ATTEMPTS_MAX` the agent is broken. A start that goes well writes nothing, and neither does one that says nothing of the
//! guest: fence, interrupt, want of room, refused commit.
//!
//! That a process died is known from the load notes of the former one (`load_notes.rs`). Others may have been loaded at the
//! same moment: after `DEATHS_MAX` starts that nobody here saw the end of the next one runs alone, so that only the culprit
//! can use up the last.
//!
//! Being loaded ends the count, and not the boundary after it: there may never be one (a paused agent, one that moves), and
//! deaths that have nothing to do with each other would add up over months.

use super::work::Picked;
use super::{Driver, Flow};
use crate::agent::chain::Origin;
use crate::agent::loading::{self, LoadFailure, Loaded};
use crate::agent::pool::Alone;
use crate::agent::turn::{self, Verdict};
use crate::agent::{Grant, Notice};
use crate::failpoint;
use crate::guest::GuestError;
use crate::id::Revision;
use crate::input::FaultKind;
use crate::limits::{ATTEMPTS_MAX, DEATHS_MAX};
use crate::store::{AgentRow, BrokenReason, Step, StoreError, Unit, UnitFailure};

/// What a driver knows of the failed starts that the row counts.
#[derive(Default)]
pub(super) struct Starts {
    /// How `init` has failed here, in order.
    errors: Vec<String>,
}

impl Starts {
    /// Those of the failed starts whose end nobody here has seen: the process may have died in them.
    fn unseen(&self, failed: u32) -> u32 {
        failed.saturating_sub(u32::try_from(self.errors.len()).unwrap_or(u32::MAX))
    }

    /// Why `init` is not tried again.
    fn why_no_init(&self, failed: u32) -> String {
        let last = self.errors.last().map(String::as_str);
        let unseen = self.unseen(failed);
        let why = match last {
            Some(error) if unseen == 0 => error.to_owned(),
            _ => {
                let last = last.map_or(String::new(), |error| format!("; the last error: {error}"));
                format!(
                    "in {unseen} of them the host's process died while it started the agent, or an earlier one saw the error\
                     {last}"
                )
            }
        };
        format!(
            "{failed} attempts are used up: {why}. Recover the agent when the cause is gone, or give it another plugin or \
             configuration and recover it"
        )
    }
}

fn why_not_loaded(failed: u32) -> String {
    format!(
        "the host's process died {failed} times while it loaded the agent, the last time while no other guest ran. Recover the \
         agent when the cause is gone, and then upgrade it if its plugin was the cause"
    )
}

impl Driver {
    /// Loads the agent; counts before that what the last process may have died of.
    pub(super) async fn start(&mut self, grant: Grant) -> Result<Loaded, LoadFailure> {
        let began = self.env.clock.boot();
        let mut opened = loading::open(&self.env, grant).await?;
        let read = self.env.clock.boot().saturating_sub(began);
        let alone = self.admit_start(&mut opened.image.row).await?;
        let mut loaded = opened.load(&self.env, alone).await?;
        let took = self.env.clock.boot().saturating_sub(began);
        tracing::debug!(agent = %self.agent, ?read, ?took, tail = ?loaded.tail, "loaded");
        if loaded.failed_starts > 0 && loaded.head.revision > Revision(0) {
            match self.write_failed_starts(loaded.head.revision, 0).await {
                None => {
                    failpoint::hit("load.after-forgiven");
                    loaded.failed_starts = 0;
                }
                // The next boundary ends the count as well.
                Some(failure) => {
                    tracing::warn!(agent = %self.agent, ?failure, "deaths stay counted for now");
                }
            }
        }
        Ok(loaded)
    }

    /// Counts a death of which the agent is suspected, and decides whether and how it is loaded.
    async fn admit_start(&mut self, row: &mut AgentRow) -> Result<Option<Alone>, LoadFailure> {
        // After a fresh start the errors are those of another count.
        self.starts.errors.truncate(row.failed_starts as usize);
        if self.env.load_notes.is_suspect(&self.agent) {
            let failed = row.failed_starts + 1;
            if let Some(failure) = self.write_failed_starts(row.revision, failed).await {
                return Err(uncounted(failure).into());
            }
            failpoint::hit("load.after-counted");
            row.failed_starts = failed;
            self.env.load_notes.acquit(&self.agent);
            tracing::warn!(agent = %self.agent, failed, "the host's process died while it loaded the agent");
        }
        let failed = row.failed_starts;
        if failed >= ATTEMPTS_MAX {
            return Err(LoadFailure::UsedUp(match row.revision {
                Revision(0) => BrokenReason::Init { message: self.starts.why_no_init(failed) },
                _ => BrokenReason::Restore { message: why_not_loaded(failed) },
            }));
        }
        Ok(self.seclude(failed).await)
    }

    /// Holds all others back for a start that is suspected of killing the process.
    async fn seclude(&mut self, failed: u32) -> Option<Alone> {
        if self.starts.unseen(failed) < DEATHS_MAX {
            return None;
        }
        Some(self.env.pool.alone().await)
    }

    /// Picks `init`.
    pub(super) async fn pick_init(&mut self, mut picked: Picked, failed: u32) -> Picked {
        picked.alone = self.seclude(failed).await;
        picked.turns.push_back((Origin::Init, failed + 1));
        picked
    }

    /// `init` gave nothing, and nobody has interrupted it.
    pub(super) async fn on_init_failure(&mut self, attempt: u32, error: GuestError) -> Flow {
        self.loaded = None;
        if matches!(&error, GuestError::Fault(fault) if fault.kind == FaultKind::Start) {
            (self.env.notify)(Notice::NoRoom(self.agent.clone()));
            self.pause_longer();
            return Ok(());
        }
        match turn::after_failure(&error, attempt) {
            Verdict::Uncounted => self.on_uncounted(&error).await,
            Verdict::Again { attempts } => {
                tracing::info!(agent = %self.agent, attempt, %error, "init failed");
                if let Some(failure) = self.write_failed_starts(Revision(0), attempts).await {
                    return self.on_store_error("init", uncounted(failure)).await;
                }
                failpoint::hit("init.after-counted");
                self.starts.errors.push(error.to_string());
                self.pause_longer();
                Ok(())
            }
            Verdict::DeadLetter(_) => {
                self.starts.errors.push(error.to_string());
                let message = match error {
                    GuestError::Fatal { .. } => error.to_string(),
                    _ => self.starts.why_no_init(attempt),
                };
                self.break_down(BrokenReason::Init { message }).await
            }
        }
    }

    async fn write_failed_starts(&mut self, base: Revision, failed: u32) -> Option<UnitFailure> {
        let steps = vec![Step::FailedStarts(failed)];
        self.env.store.commit_turns(Unit { owner: self.owner(), base, steps }).await.failure
    }
}

/// Why a count is not in the row.
fn uncounted(failure: UnitFailure) -> StoreError {
    match failure {
        UnitFailure::Store(error) => error,
        // Of steps that this unit does not have.
        other => StoreError::Conflict { what: format!("store refused: {other:?}") },
    }
}
