//! Operations: background work that an agent asks its host for, and that comes back as an input.
//!
//! ```text
//!            begin                       end
//!   wanted ---------> begun(token) -----------------> ended {completed | failed | unknown | cancelled}
//!      |                 |   ^                          its row is gone, its input is accepted
//!      |                 +---+ begin, by a later owner, if it may be done more than once
//!      +--- end: failed or cancelled, before anything has left
//! ```
//! `begun` is written under the fence before the first byte leaves. So the next owner knows: what is wanted has not been
//! tried; what is begun may have been. The state machine and the rules are here, doing it is the host's. What may be asked
//! for is in `operation/request.rs`, which addresses may be reached in `operation/address.rs`, secrets by name in
//! `operation/secret.rs`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FencingToken, Generation, InputId, OperationId, Revision};
use crate::input::{Input, Kind, Source};
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, TEXT_BYTES_MAX};

pub mod address;
pub mod request;
pub mod secret;

pub use request::{Class, HttpRequest, Request};

/// The header of an operation's input that says how it ended: a name of `Outcome`.
pub const OUTCOME_HEADER: &str = "godwit-operation-outcome";
/// The header of an operation's input with the status of the HTTP answer, decimal.
pub const STATUS_HEADER: &str = "godwit-operation-status";
/// The header of an operation's input that says, for people, why it did not complete.
pub const REASON_HEADER: &str = "godwit-operation-reason";
/// Headers of an HTTP answer have this before their names.
pub const HTTP_HEADER_PREFIX: &str = "http-";

/// An operation as a turn starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOperation {
    /// Minted by the host: see `OperationId::of`.
    pub id: OperationId,
    /// Its place among those that the turn starts.
    pub index: u32,
    /// What is to be done.
    pub request: Request,
}

/// What a turn does about operations. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationChange {
    /// Starts one.
    Start(NewOperation),
    /// Asks that one ends; one that has ended is left alone.
    Cancel(OperationId),
}

/// An operation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOperation {
    /// What the turn said.
    pub operation: NewOperation,
    /// The agent's generation when it was started.
    pub generation: Generation,
    /// The boundary that started it.
    pub revision: Revision,
    /// How far it has come.
    pub state: OperationState,
    /// Unix milliseconds of the store's clock: since when. Shown, and nothing else.
    pub since_ms: u64,
    /// Whether the agent has asked that it ends.
    pub is_cancelled: bool,
}

/// How far an operation has come. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperationState {
    /// Nothing has been done.
    Wanted,
    /// It may have been done, wholly or in part, by the owner with this token.
    Begun(FencingToken),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// An answer came, whatever it says.
    Completed,
    /// No answer came, and for sure nothing was done; or the answer could not be taken, and the reason says so.
    Failed,
    /// No answer came, and whether something was done is not known.
    Unknown,
    /// The agent did not want it any more. What had begun may have been done.
    Cancelled,
}

/// The end of an operation: what its input says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// Status of the HTTP answer.
    pub status: Option<u16>,
    /// Why it did not complete; empty when it did.
    pub reason: String,
    /// MIME type of the answer.
    pub content_type: String,
    /// Headers of the answer; those that an input has no room for are left out.
    pub headers: Vec<(String, String)>,
    /// Body of the answer, at most `OPERATION_ANSWER_BYTES_MAX`.
    pub body: Bytes,
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationEvent {
    /// Its owner, with this token, is about to do it.
    Begin(FencingToken),
    /// It is over.
    End(Outcome),
}

/// What an operation is after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum After {
    /// It goes on.
    Goes(OperationState),
    /// It is over: its row goes.
    Ended(Outcome),
}

/// An event that can't happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operation that is {state:?} can't take {event:?}")]
pub struct IllegalOperation {
    /// Before.
    pub state: OperationState,
    /// What was tried.
    pub event: OperationEvent,
}

impl OperationState {
    /// The one transition table.
    ///
    /// # Errors
    /// `IllegalOperation`; the state is as it was.
    pub fn on(self, event: OperationEvent, class: Class) -> Result<After, IllegalOperation> {
        use OperationEvent::{Begin, End};
        match (self, event) {
            (Self::Wanted, Begin(token)) => Ok(After::Goes(Self::Begun(token))),
            // The same owner says it again, or a later one does again what may be done again.
            (Self::Begun(before), Begin(token)) if before == token => Ok(After::Goes(self)),
            (Self::Begun(before), Begin(token)) if before < token && class == Class::AtLeastOnce => {
                Ok(After::Goes(Self::Begun(token)))
            }
            (Self::Wanted, End(outcome @ (Outcome::Failed | Outcome::Cancelled))) => {
                Ok(After::Ended(outcome))
            }
            (Self::Begun(_), End(outcome)) => Ok(After::Ended(outcome)),
            (Self::Wanted | Self::Begun(_), _) => Err(IllegalOperation { state: self, event }),
        }
    }
}

/// What an owner that is not at work on an operation must do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Begin it, for the first time or again under the same key.
    Begin,
    /// End it without trying.
    End(Outcome),
}

impl StoredOperation {
    /// Decides what an owner that is not at work on it must do about it. Whoever has begun it is gone, then: another
    /// owner, or a task of this one that could not say how it ended.
    pub fn next_step(&self) -> NextStep {
        match (self.state, self.operation.request.class()) {
            _ if self.is_cancelled => NextStep::End(Outcome::Cancelled),
            (OperationState::Wanted, _) | (OperationState::Begun(_), Class::AtLeastOnce) => NextStep::Begin,
            (OperationState::Begun(_), Class::AtMostOnce) => NextStep::End(Outcome::Unknown),
        }
    }

    /// Its id.
    pub fn id(&self) -> OperationId {
        self.operation.id
    }
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Unknown, Self::Cancelled];

    /// The name in headers and in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

impl OperationEnd {
    /// An end without an answer.
    pub fn without_answer(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            status: None,
            reason: reason.into(),
            content_type: String::new(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// The input that it becomes. Acceptance dates it.
    pub fn input(self, agent: &AgentId, operation: OperationId) -> Input {
        let mut headers = vec![(OUTCOME_HEADER.to_owned(), self.outcome.name().to_owned())];
        headers.extend(self.status.map(|status| (STATUS_HEADER.to_owned(), status.to_string())));
        if !self.reason.is_empty() {
            headers.push((REASON_HEADER.to_owned(), cut(&self.reason).to_owned()));
        }
        let size = |(name, value): &(String, String)| name.len() + value.len();
        let mut bytes: usize = headers.iter().map(size).sum();
        for (name, value) in self.headers {
            let header = (format!("{HTTP_HEADER_PREFIX}{name}"), value);
            if headers.len() < HEADERS_MAX && bytes + size(&header) <= HEADER_BYTES_MAX {
                bytes += size(&header);
                headers.push(header);
            }
        }
        let fits = self.content_type.len() <= TEXT_BYTES_MAX;
        Input {
            id: InputId::of_operation_end(agent, operation),
            kind: Kind::Operation,
            source: Source::System,
            content_type: if fits { self.content_type } else { String::new() },
            payload: self.body,
            headers,
            correlation: Some(operation.to_string()),
            accepted_at_ms: 0,
        }
    }
}

/// The beginning of a text, as much as a header of ours has.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests;
