//! A guest's random numbers: a stream of bytes that is a pure function of a seed, so that a turn can be repeated.

use godwit_core::guest::TurnContext;
use godwit_core::id::AgentId;

const TURN_DOMAIN: &str = "godwit 2026 random numbers of a turn";
const OUTSIDE_DOMAIN: &str = "godwit 2026 random numbers outside a turn";

/// A stream of random bytes: BLAKE3 in its extendable-output mode.
#[derive(Debug)]
pub(crate) struct Random(blake3::OutputReader);

impl Random {
    /// The stream of a turn, from its seed.
    pub(crate) fn of_turn(context: &TurnContext) -> Self {
        Self::derive(TURN_DOMAIN, &[&context.seed])
    }

    /// The stream outside turns: the same whenever the agent is at the same revision, and another one per kind of call.
    pub(crate) fn outside(agent: &AgentId, context: &TurnContext, call: &str) -> Self {
        let generation = context.generation.0.to_be_bytes();
        let revision = context.revision.0.to_be_bytes();
        Self::derive(OUTSIDE_DOMAIN, &[agent.as_str().as_bytes(), &generation, &revision, call.as_bytes()])
    }

    fn derive(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize_xof())
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    /// The next 8 bytes as a number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests;
