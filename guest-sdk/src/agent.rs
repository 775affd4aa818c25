//! The traits that an agent implements, and the error that undoes a turn.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::{ConfigError, OperationError, SendError, StateError, TimerError};
use crate::{ChannelError, Host, IdentityError, Input, ReadHost, Reply, snapshot};

/// An agent: its fields are its state, its methods are its turns.
///
/// `Default` is the state before `init`. `Serialize` and `Deserialize` are the snapshot: a change of the fields is a
/// change of its format, which an own [`Agent::restore`] can bridge.
pub trait Agent: Default + Serialize + DeserializeOwned {
    /// Prepares a new agent. Called once per generation, before its first turn; it may write state and send.
    ///
    /// # Errors
    /// An `AgentError` undoes it. After `Fatal`, or when the attempts are used up, the agent is broken.
    fn init(&mut self, host: &mut impl Host) -> Result<(), AgentError> {
        let _ = host;
        Ok(())
    }

    /// Takes a turn over one input.
    ///
    /// # Errors
    /// An `AgentError` undoes the turn. To say no, return [`Reply::refused`] instead.
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError>;

    /// Takes a turn over several inputs, in order: one reply per input, at the same position.
    ///
    /// # Errors
    /// As `handle`; all the inputs are undone.
    fn handle_batch(&mut self, inputs: &[Input], host: &mut impl Host) -> Result<Vec<Reply>, AgentError> {
        inputs.iter().map(|input| self.handle(input, host)).collect()
    }

    /// Gives the state as bytes. Same state, same bytes.
    ///
    /// # Errors
    /// An `AgentError` keeps the turn before it from being committed.
    fn snapshot(&self) -> Result<Vec<u8>, AgentError> {
        snapshot::encode(self)
    }

    /// Makes an agent of the bytes of a snapshot, which version `from_version` of the plugin took.
    ///
    /// # Errors
    /// `AgentError::Fatal` when the bytes can't be used. The host has no others.
    fn restore(state: &[u8], from_version: &str) -> Result<Self, AgentError> {
        snapshot::decode(state, from_version)
    }
}

/// An agent that also answers queries: questions about its committed state that change nothing.
///
/// A query runs in an instance of its own that is thrown away, so it may come while a turn runs, and while the agent is
/// paused. Export it with `export!(Counter: Query)`.
pub trait Query: Agent {
    /// Answers a question. Rows are read as they were committed; time and token are those of the last turn.
    ///
    /// # Errors
    /// An `AgentError` is told to whoever asked; nothing is tried again. To say no, return [`Reply::refused`].
    fn query(&self, payload: &[u8], host: &mut impl ReadHost) -> Result<Reply, AgentError>;
}

/// Why a turn must not count. All that it did is undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// It may work later: the host tries again, a bounded number of times.
    #[error("retry later: {0}")]
    Retryable(String),
    /// It can never work: the inputs of the turn become dead letters.
    #[error("fatal: {0}")]
    Fatal(String),
}

impl AgentError {
    /// An error that may go away.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable(reason.into())
    }

    /// An error that stays.
    pub fn fatal(reason: impl Into<String>) -> Self {
        Self::Fatal(reason.into())
    }
}

impl From<StateError> for AgentError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Other(_) => Self::Retryable(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl From<SendError> for AgentError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Other(_) => Self::Retryable(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl From<OperationError> for AgentError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Other(_) => Self::Retryable(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl From<ChannelError> for AgentError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Other(_) | ChannelError::Backlogged => Self::Retryable(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl From<IdentityError> for AgentError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Other(_) => Self::Retryable(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl From<TimerError> for AgentError {
    fn from(error: TimerError) -> Self {
        match error {
            TimerError::Other(_) => Self::Retryable(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl From<ConfigError> for AgentError {
    fn from(error: ConfigError) -> Self {
        Self::Retryable(error.to_string())
    }
}
