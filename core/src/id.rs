//! Names and counters: every identity in the system has a type of its own here, parsed once and canonical.
//!
//! 64-bit counters travel as JSON strings (`#[serde(with)]` is not needed: the API layer formats them), because a
//! JavaScript number holds only 53 bits.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::digest::Digest;

/// Longest agent id, in bytes.
pub const AGENT_ID_BYTES_MAX: usize = 128;

/// The name of an agent: 1..=128 bytes of `[a-z0-9._:-]`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(Arc<str>);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not a canonical agent id.
    #[error("agent id {text:?} is not 1..=128 bytes of [a-z0-9._:-] starting with a letter or digit")]
    Agent {
        /// The refused text, shortened to 160 characters.
        text: String,
    },
    /// The text is not 64 lower-case hex digits.
    #[error("{what} {text:?} is not 64 lower-case hex digits")]
    Hex {
        /// What was expected: `host id`, `digest`.
        what: &'static str,
        /// The refused text, shortened to 160 characters.
        text: String,
    },
    /// The text is not a UUID.
    #[error("{what} {text:?} is not a uuid")]
    Uuid {
        /// What was expected: `input id`, `migration id`, `run id`.
        what: &'static str,
        /// The refused text, shortened to 160 characters.
        text: String,
    },
}

fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

impl AgentId {
    /// Parses a canonical agent id.
    ///
    /// # Errors
    /// `IdError::Agent` when a byte or the length is outside the alphabet.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._:-".contains(&b);
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if starts_well && text.len() <= AGENT_ID_BYTES_MAX && text.bytes().all(alphabet) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Agent { text: shortened(text) })
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl FromStr for AgentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> String {
        id.0.as_ref().to_owned()
    }
}

/// A host: its ed25519 public key, 32 bytes raw, 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostId(pub [u8; 32]);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest(self.0), f)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HostId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Digest::from_str(text)
            .map(|digest| Self(digest.0))
            .map_err(|_| IdError::Hex { what: "host id", text: shortened(text) })
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The counter after this one.
            ///
            /// # Panics
            /// When 2^64 - 1 is passed, which no counter reaches by counting.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a counter never passes 2^64 - 1"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter!(
    /// One join of a host to a store. Given by the store, never reused there.
    Incarnation
);
counter!(
    /// Raised only by a destructive reset or re-creation of an agent; the first is 1.
    Generation
);
counter!(
    /// Count of boundaries of an agent within a generation; 0 before `init` has committed.
    Revision
);
counter!(
    /// The right to act for an agent: strictly increasing per agent over all time, hosts and stores.
    ///
    /// 16 bits of epoch above 48 bits of counter, both the agent's own.
    FencingToken
);
counter!(
    /// Admission order of the inputs of one agent: 1.., no gaps.
    Seq
);
counter!(
    /// Number of an agent's immutable spec; the first is 1.
    SpecRevision
);

counter!(
    /// How often a store was restored from a backup; 0 for one that never was.
    StoreEpoch
);

/// Bits of a token's counter; its epoch is above them.
const TOKEN_COUNTER_BITS: u32 = 48;

impl FencingToken {
    /// Numbers that outputs of one epoch may use to one destination, more than any agent sends: those of the next epoch
    /// begin above them.
    pub const NUMBERS_PER_EPOCH: u64 = 1 << 32;

    /// How often a store that held the agent was restored, or the agent imported.
    pub fn epoch(self) -> u64 {
        self.0 >> TOKEN_COUNTER_BITS
    }

    /// The first number of this epoch: above all of the epochs before.
    pub fn first_number(self) -> u64 {
        self.epoch() * Self::NUMBERS_PER_EPOCH + 1
    }

    /// The token `by` epochs above this one, with the same counter: above every token that can be reached by counting.
    /// `None` when there is no room for it above: stores hold 63 bits.
    pub fn raised(self, by: u64) -> Option<Self> {
        let epoch = self.epoch().checked_add(by).filter(|epoch| *epoch < 1 << 15)?;
        let counter = self.0 & ((1 << TOKEN_COUNTER_BITS) - 1);
        Some(Self(epoch << TOKEN_COUNTER_BITS | counter))
    }

    /// Whether a store may have granted it, with room above it to go on. A peer's token is a claim, and one for which this is
    /// false is no mistake: taken up, it would leave the agent without a next token for ever.
    pub fn is_plausible(self) -> bool {
        let counter = self.0 & ((1 << TOKEN_COUNTER_BITS) - 1);
        self.0 > 0 && counter < 1 << (TOKEN_COUNTER_BITS - 1) && self.raised(1).is_some()
    }
}

/// How far `adopt --force` raises a token, so that no token the lost owner could still be granted reaches it.
pub const TOKEN_ADOPT_STEP: u64 = 1 << 20;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Makes a time-ordered id (UUIDv7) from wall time and random bytes.
            pub fn generate(now_ms: u64, random: [u8; 10]) -> Self {
                Self(*uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid().as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Uuid::from_bytes(self.0).hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(|id| Self(*id.as_bytes()))
                    .map_err(|_| IdError::Uuid { what: $what, text: shortened(text) })
            }
        }
    };
}

uuid_id!(
    /// One input: a UUIDv7, or a UUIDv8 derived by hash for timers, deliveries and completions.
    InputId,
    "input id"
);
uuid_id!(
    /// One turn, for tracing.
    RunId,
    "run id"
);
uuid_id!(
    /// One operation: a UUIDv8 derived by hash, the same at each attempt of the turn that starts it.
    OperationId,
    "operation id"
);
uuid_id!(
    /// One planned move of an agent.
    MigrationId,
    "migration id"
);
uuid_id!(
    /// One attempt to create an agent under an id that no other host may use meanwhile.
    ClaimId,
    "claim id"
);
uuid_id!(
    /// One sign-in that obtains a secret.
    AuthFlowId,
    "auth flow id"
);
uuid_id!(
    /// One store, made when its file is created; the first half of an event id.
    StoreId,
    "store id"
);

/// The bytes of a UUIDv8 from a hash over parts, each with its length before it.
fn derived<'a>(context: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut bytes = [0u8; 16];
    hasher.finalize_xof().fill(&mut bytes);
    *uuid::Builder::from_custom_bytes(bytes).into_uuid().as_bytes()
}

impl OperationId {
    /// Derives the id of the operation that a turn on top of `revision` starts as its `index`-th.
    pub fn of(agent: &AgentId, generation: Generation, revision: Revision, index: u32) -> Self {
        let numbers = [generation.0, revision.0, u64::from(index)].map(u64::to_be_bytes);
        let [generation, revision, index] = &numbers;
        Self(derived("godwit 2026 operation id", [agent.as_str().as_bytes(), generation, revision, index]))
    }
}

impl InputId {
    /// Derives the id of a timer that fires, so that it fires once: `revision` is the boundary that set it.
    pub fn of_timer(agent: &AgentId, generation: Generation, name: &str, revision: Revision) -> Self {
        let numbers = [generation.0, revision.0].map(u64::to_be_bytes);
        let [generation, revision] = &numbers;
        Self(derived(
            "godwit 2026 input id of a timer",
            [agent.as_str().as_bytes(), generation, name.as_bytes(), revision],
        ))
    }

    /// Derives the id of the input that ends an operation.
    pub fn of_operation_end(agent: &AgentId, operation: OperationId) -> Self {
        Self(derived("godwit 2026 input id of an operation's end", [agent.as_str().as_bytes(), &operation.0]))
    }

    /// Derives the id of the end of a request, answer or not, so that each request ends once at its asker.
    pub fn of_reply(asker: &AgentId, output_id: &str) -> Self {
        let parts = [asker.as_str().as_bytes(), output_id.as_bytes()];
        Self(derived("godwit 2026 input id of a reply", parts))
    }

    /// Derives the id of an agent's initial message: one in each generation.
    pub fn of_initial(agent: &AgentId, generation: Generation) -> Self {
        let parts = [agent.as_str().as_bytes(), &generation.0.to_be_bytes()];
        Self(derived("godwit 2026 input id of an initial message", parts))
    }

    /// Derives the id of a delivery, so that the same output is the same input wherever it is accepted.
    pub fn of_delivery(origin: &AgentId, generation: Generation, target: &AgentId, number: u64) -> Self {
        let numbers = [generation.0, number].map(u64::to_be_bytes);
        let [generation, number] = &numbers;
        Self(derived(
            "godwit 2026 input id of a delivery",
            [origin.as_str().as_bytes(), generation, target.as_str().as_bytes(), number],
        ))
    }
}

#[cfg(test)]
mod tests;
