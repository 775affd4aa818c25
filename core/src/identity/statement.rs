//! Statements: an agent's entity key says which host sends for it under which token. A receiver on another store believes a
//! delivery by that, and by nothing that the sending host says itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{EntityKey, EntityPublicKey, is_signed, prefixed};
use crate::id::{AgentId, FencingToken, Generation, HostId};

/// What the signed bytes begin with; the statement's postcard bytes follow.
pub const STATEMENT_PREFIX: &[u8] = b"godwit sender statement v1\0";

/// That a host was granted an agent. Whoever has heard a higher token does not believe it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The agent.
    pub agent: AgentId,
    /// Its generation under this grant.
    pub generation: Generation,
    /// The token that was granted.
    pub token: FencingToken,
    /// To which host: the key with which it opens its connections.
    pub host: HostId,
}

/// A statement, and who stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatement {
    /// What is stated.
    pub statement: Statement,
    /// The agent's entity key.
    pub public_key: EntityPublicKey,
    /// 64 bytes.
    pub signature: Bytes,
}

impl SignedStatement {
    /// Signs a statement.
    pub fn new(key: &EntityKey, statement: Statement) -> Self {
        let signature = key.sign_raw(&prefixed(STATEMENT_PREFIX, &statement));
        Self { statement, public_key: key.public(), signature: Bytes::copy_from_slice(&signature) }
    }

    /// Whether the key that it names has signed it. Whose key that is, this does not say.
    pub fn is_sound(&self) -> bool {
        is_signed(self.public_key, &prefixed(STATEMENT_PREFIX, &self.statement), &self.signature)
    }
}
