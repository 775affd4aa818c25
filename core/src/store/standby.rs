//! Warm copies between stores: what a source tells of an agent in one piece, and what a standby keeps of it. Part of the contract of
//! `store`; what steps are made is said in `crate::standby`.
//!
//! An agent at home here with the label `crate::standby::LABEL` is guarded: its deletes leave tombstones, as while a migration is
//! open, so that a round carries them. Its rows are pruned all the same, without a trace: a copy may have more of what has ended.

use async_trait::async_trait;

use super::{AgentRow, RowFrame, StoreError};
use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, FencingToken, Generation, HostId, MigrationId, Revision};
use crate::standby::{Standing, Verdict};

/// All rows of an agent that have changed since, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Ascending by change number.
    pub frames: Vec<RowFrame>,
    /// The agent's last change number.
    pub change: u64,
    /// The agent's token.
    pub token: FencingToken,
    /// Its generation.
    pub generation: Generation,
    /// The head's revision.
    pub revision: Revision,
}

/// A round for a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Which session: a whole copy is one, with the rounds behind it.
    pub session: MigrationId,
    /// Which agent.
    pub agent: AgentId,
    /// By which host.
    pub source: HostId,
    /// The change number that it builds on.
    pub builds_on: u64,
    /// What has changed since.
    pub delta: Delta,
    /// Wall time in Unix milliseconds.
    pub at_ms: u64,
}

/// A complete copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyCopy {
    /// Which agent.
    pub agent: AgentId,
    /// What it is as of.
    pub standing: Standing,
    /// Wall time of the last round in Unix milliseconds.
    pub at_ms: u64,
}

/// What is told of a promotion: what may be lost is what the source did behind this.
pub fn promoted(copy: &StandbyCopy, raised: FencingToken, now_ms: u64) -> NewEvent {
    let standing = &copy.standing;
    NewEvent::of_agent(&copy.agent, EventKind::AgentPromoted, now_ms)
        .with("token", raised)
        .with("source", standing.source)
        .with("source_token", standing.token)
        .with("revision", standing.revision)
        .with("change", standing.change)
        .with("last_round_ms", copy.at_ms)
}

/// Copies for and of a store's agents.
#[async_trait]
pub trait StoreStandbys: Send + Sync + 'static {
    /// Rows of agents that have the label, with ids after `after`, ascending: of those that are here, on their way out, or bound
    /// and on their way in. **R**
    async fn guarded(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError>;

    /// All rows above a change number, as `export_rows` gives them; `None` when they are more than about `bytes_max` bytes. **R**
    ///
    /// # Errors
    /// `NotHome` in any home but `Here`; `NoAgent`.
    async fn delta(&self, agent: &AgentId, after: u64, bytes_max: usize)
    -> Result<Option<Delta>, StoreError>;

    /// Forgets deletes of a guarded agent up to a change number: no round builds on anything before. Nothing happens while a
    /// migration of the agent is open.
    async fn forget_deletes(&self, agent: &AgentId, up_to: u64) -> Result<(), StoreError>;

    /// Applies a round, as `crate::standby::judge` says: rows into the session's copy, which `receive_rows` has begun if it did not fit
    /// one round, and what it is as of. The copy of another session of the agent goes. Repeating it is `Known`.
    ///
    /// # Errors
    /// `Conflict` when the rows are another agent's, or do not bring the copy to what the round says.
    ///
    /// Crash: applied or not.
    async fn stand_by(&self, round: Round) -> Result<Verdict, StoreError>;

    /// The complete copies, by agent, behind `after`. **R**
    async fn standby_copies(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<StandbyCopy>, StoreError>;

    /// The complete copy of an agent. **R**
    async fn standby_copy(&self, agent: &AgentId) -> Result<Option<StandbyCopy>, StoreError>;

    /// Deletes a session's copy, complete or not, if it is this agent's: never one that a migration has bound, nor another agent's.
    async fn discard_standby(&self, agent: &AgentId, session: MigrationId) -> Result<(), StoreError>;

    /// Makes the complete copy of a session the agent: at home here, held by nobody, as it was, with its key, under the token of the
    /// copy or of a tombstone, whichever is higher, raised by one epoch. Numbers of its outputs and events jump above all that the source
    /// may have given since. Appends `AgentPromoted`. Repeating it answers the row as it stands.
    ///
    /// # Errors
    /// `Conflict` when there is no such copy, when the agent is here or had a later generation; when the token has no room above.
    /// `NoPlugin`.
    ///
    /// Crash: the agent, or the copy.
    async fn promote(&self, agent: &AgentId, session: MigrationId) -> Result<AgentRow, StoreError>;
}
