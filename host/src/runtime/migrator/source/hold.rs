//! Standing still: an agent that takes turns is held at a boundary by its driver. One at rest has none and needs none: nothing of
//! it runs, and the store refuses whoever would wake it from the moment at which it is handed off.

use godwit_core::agent::Frozen;
use godwit_core::id::Revision;
use godwit_core::migration::recovery::may_cut_over;
use godwit_core::migration::{Failure, Phase};
use godwit_core::store::{AgentRow, Lifecycle, Owner};
use godwit_core::time::{sleep, within};

use super::{FREEZE_MAX, STORE_RETRY, Source};
use crate::runtime::migrator::refused_by_store;

/// An agent that stands still.
pub(super) enum Held {
    /// By its driver; callers wait.
    AtBoundary(Frozen),
    /// By itself: nobody can be waiting for a turn of it.
    AtRest {
        /// Who may write.
        owner: Owner,
        /// Where it rests.
        revision: Revision,
    },
}

impl Held {
    pub(super) fn owner(&self) -> &Owner {
        match self {
            Self::AtBoundary(Frozen { owner, .. }) | Self::AtRest { owner, .. } => owner,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::AtBoundary(Frozen { revision, .. }) | Self::AtRest { revision, .. } => *revision,
        }
    }
}

impl Source {
    pub(super) async fn row(&self) -> Result<AgentRow, Failure> {
        let row = self.runtime.inner().store.agent(&self.record.agent).await;
        row.map_err(|error| refused_by_store(&error))?.ok_or(Failure::Fenced)
    }

    pub(super) async fn freeze(&mut self) -> Result<Held, Failure> {
        let timeout = Failure::Timeout { phase: Phase::Replay };
        let freezing = async {
            loop {
                if let Some(held) = self.try_to_hold().await? {
                    return Ok(held);
                }
                // Its driver ended meanwhile, or it can't be loaded now.
                sleep(STORE_RETRY).await;
            }
        };
        let held = within(FREEZE_MAX, freezing).await.unwrap_or(Err(timeout))?;
        if !may_cut_over(self.token, held.owner().token) {
            return Err(Failure::Fenced);
        }
        self.frozen_at = Some(self.runtime.inner().clock.boot());
        Ok(held)
    }

    /// Lets it go on, as if it had not been held.
    pub(super) fn thaw(&mut self, held: Held) {
        drop(held);
        self.frozen_at = None;
        self.laps.clear();
    }

    async fn try_to_hold(&self) -> Result<Option<Held>, Failure> {
        let agent = &self.record.agent;
        let row = self.row().await?;
        if row.lifecycle.rests() {
            let owned = self.runtime.own(agent).await.map_err(|error| refused_by_store(&error))?;
            // A driver may just be ending.
            if let Some(handle) = self.runtime.inner().directory.handle(agent) {
                handle.park().await;
            }
            // What that one did last is in its row now, and somebody may have woken or deleted it.
            let row = self.row().await?;
            if row.lifecycle == Lifecycle::Deleted {
                return Err(Failure::Fenced);
            }
            let held = Held::AtRest { owner: owned.owner(), revision: row.revision };
            return Ok(row.lifecycle.rests().then_some(held));
        }
        let handle = self.runtime.resident(agent).await.map_err(|error| refused_by_store(&error))?;
        Ok(handle.freeze().await.ok().map(Held::AtBoundary))
    }

    /// The agent is the target's, or must be loaded anew: its driver here ends, and waiting callers are routed again.
    pub(super) async fn let_go(&self, held: Held) {
        self.runtime.inner().directory.lose(&self.record.agent, held.owner().token);
        if let Held::AtBoundary(frozen) = held {
            frozen.moved().await;
        }
    }
}
