//! Moving a home between stores: a durable two-step handoff.
//!
//! ```text
//!        source store                                   target store
//!   0    Here, token t                                  (invisible copy, fed by receive_rows)
//!   1    begin_handoff   -> HandingOff, grants t+1
//!   2                                                   prepare -> Prepared, not runnable
//!   3    finish_handoff  -> Moved        THE COMMIT POINT
//!   4                                                   adopt   -> Here, token t+1
//!   back out before 3:  abort_handoff -> Here, t+2      discard_copy (on the source's word)
//! ```

use serde::{Deserialize, Serialize};

use crate::id::{
    AgentId, ClaimId, FencingToken, Generation, HostId, MigrationId, Revision, TOKEN_ADOPT_STEP,
};
use crate::migration::handoff::Binding;
use crate::migration::{Failure, Phase, Role};
use crate::store::agent::AgentRow;
use crate::store::rows::RowFrame;

/// What step 1 granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handoff {
    /// The token that the target will hold.
    pub granted: FencingToken,
    /// The last change number of the agent: the bundle ends here.
    pub change: u64,
}

/// Step 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareRequest {
    /// Which migration.
    pub migration: MigrationId,
    /// Which agent.
    pub agent: AgentId,
    /// From which host.
    pub source: HostId,
    /// The token that this host will hold.
    pub token: FencingToken,
    /// The agent's generation.
    pub generation: Generation,
    /// The revision that moves: the imported agent row must be at it.
    pub revision: Revision,
    /// The last rows.
    pub frames: Vec<RowFrame>,
}

impl PrepareRequest {
    /// What is to be bound.
    pub fn binding(&self) -> Binding {
        Binding {
            migration: self.migration,
            source: self.source,
            token: self.token,
            generation: self.generation,
            revision: self.revision,
        }
    }
}

/// Takes rows of an agent, in batches, with the agent's row of the same moment; `false` ends it.
pub type RowSink = Box<dyn FnMut(&AgentRow, Vec<RowFrame>) -> bool + Send>;

/// Binds a copy that came from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// The id under which `receive_rows` got the copy.
    pub copy: MigrationId,
    /// Which agent.
    pub agent: AgentId,
    /// Its generation.
    pub generation: Generation,
    /// Its revision.
    pub revision: Revision,
    /// The highest token that it had when it was exported.
    pub token: FencingToken,
    /// Whether it waits for an operator's word.
    pub is_suspended: bool,
    /// Whether a tombstone is replaced: the agent that went there is lost.
    pub replaces_moved: bool,
    /// The claim of the id that must stand, as for a new agent.
    pub claim: Option<ClaimId>,
}

/// A migration as one side remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// Which migration.
    pub id: MigrationId,
    /// Which agent.
    pub agent: AgentId,
    /// Which side this record is.
    pub role: Role,
    /// From which host.
    pub source: HostId,
    /// To which host.
    pub target: HostId,
    /// How far it is.
    pub phase: Phase,
    /// Why it ended without moving; see `is_forced`.
    pub failure: Option<Failure>,
    /// Rounds of rows sent or received.
    pub rounds: u32,
    /// Bytes of rows sent or received.
    pub bytes: u64,
    /// Time between the last turn at the source and `Activated`, microseconds; known at the source once complete.
    pub pause_us: Option<u64>,
    /// Wall time of the start in Unix milliseconds.
    pub started_at_ms: u64,
    /// Wall time after which it is aborted in this phase, unless its commit point has passed.
    pub deadline_ms: u64,
}

impl MigrationRecord {
    /// Whether an operator has forced the copy here, and its source has not heard of it. Such a record stays open, whatever becomes of the
    /// agent, and keeps it from no other migration.
    pub fn is_forced(&self) -> bool {
        self.role == Role::Target && !self.phase.is_terminal() && self.failure == Some(Failure::Forked)
    }
}

/// On whose word a copy becomes the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Adoption {
    /// The source's: the copy takes up the token that it was granted.
    Granted,
    /// An operator's: the source is lost for good.
    Forced,
}

impl Adoption {
    /// The token under which the agent goes on.
    pub fn token(self, granted: FencingToken) -> FencingToken {
        match self {
            Self::Granted => granted,
            Self::Forced => FencingToken(granted.0 + TOKEN_ADOPT_STEP),
        }
    }
}
