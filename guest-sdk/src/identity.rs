//! The agent's own key: why there may be no answer, and what a signature covers.

/// Why a call on the agent's key did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The message is longer than 64 KiB.
    #[error("the message is longer than 64 KiB")]
    TooLarge,
    /// The agent can't sign here: its secret did not come with it, or its host can't open it.
    #[error("the agent can't sign here")]
    NoKey,
    /// There is no turn and no query.
    #[error("there is no turn")]
    NotInTurn,
    /// Another reason; a retry may help.
    #[error("{0}")]
    Other(String),
}

/// The bytes that the signature of an agent over a message covers: to verify it with the public key, pure ed25519.
pub fn signed_bytes(agent: &str, message: &[u8]) -> Vec<u8> {
    [b"godwit agent signature v1\0", agent.as_bytes(), b"\0", message].concat()
}
