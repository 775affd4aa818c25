//! Outputs: what a turn sends to other agents, committed with the turn and delivered afterwards.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Generation, Revision};
use crate::input::Kind;

/// One output as the guest gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// For whom.
    pub destination: AgentId,
    /// What the receiver's input will be.
    pub kind: Kind,
    /// MIME type.
    pub content_type: String,
    /// At most `OUTPUT_BYTES_MAX` bytes.
    pub payload: Bytes,
    /// Header pairs.
    pub headers: Vec<(String, String)>,
    /// Ties an answer to its question.
    pub correlation: Option<String>,
    /// Whether it asks for a reply, or is one.
    pub reply: ReplyRole,
}

/// What an output has to do with a request that is answered by the host. The variants' order is part of the stored encoding:
/// append only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyRole {
    /// Nothing.
    #[default]
    None,
    /// The receiver's reply comes back as an input; `correlation` is the output's id.
    Expected,
    /// It is that reply, made by the host when the input ended; `correlation` is the request's id.
    Given,
}

/// A committed output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    /// The sender.
    pub agent: AgentId,
    /// The sender's generation when it committed.
    pub generation: Generation,
    /// 1.., no gaps per (agent, generation, destination).
    pub number: u64,
    /// The boundary it committed with.
    pub revision: Revision,
    /// Position among all outputs of the agent: commit order.
    pub position: u64,
    /// Wall time of the commit in Unix milliseconds.
    pub committed_at_ms: u64,
    /// What is sent.
    pub output: Output,
    /// Whether it still waits, or how it ended.
    pub state: OutputState,
}

/// Whether an output still waits, or how it ended. Acknowledged outputs are deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputState {
    /// To be delivered.
    Pending,
    /// It will never arrive.
    Undeliverable {
        /// Why.
        reason: UndeliverableReason,
    },
}

/// Why an output will never arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UndeliverableReason {
    /// No host knows the destination.
    NotFound,
    /// The destination was deleted.
    Deleted,
    /// The destination is retired.
    Retired,
    /// The destination does not take messages from this sender.
    Forbidden,
    /// No answer within `OUTPUT_LIFETIME`.
    Expired,
    /// The destination refuses this message for its size or form.
    Rejected,
    /// The destination has heard another agent of the sender's name.
    Namesake,
}

impl UndeliverableReason {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Deleted => "deleted",
            Self::Retired => "retired",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Namesake => "namesake",
        }
    }
}
