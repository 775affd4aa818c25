//! Edges: which agents may be neighbours. An edge is a pair without direction; each of the two agents has its side of it as a
//! row of its own, so that it moves with the agent.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, StoreId};

/// One agent's side of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// The other agent.
    pub peer: AgentId,
    /// The store whose roster made it, and may remove it again; `None` for one that an operator made.
    pub managed_by: Option<StoreId>,
}

/// Two different agents, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    first: AgentId,
    second: AgentId,
}

/// An agent is no neighbour of itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an edge of agent {agent} with itself: name two agents")]
pub struct SelfEdge {
    /// Which.
    pub agent: AgentId,
}

impl Pair {
    /// The pair of two agents, whichever is named first.
    ///
    /// # Errors
    /// `SelfEdge` when they are one.
    pub fn new(one: AgentId, other: AgentId) -> Result<Self, SelfEdge> {
        match one.cmp(&other) {
            std::cmp::Ordering::Less => Ok(Self { first: one, second: other }),
            std::cmp::Ordering::Equal => Err(SelfEdge { agent: one }),
            std::cmp::Ordering::Greater => Ok(Self { first: other, second: one }),
        }
    }

    /// The agent whose id comes first.
    pub fn first(&self) -> &AgentId {
        &self.first
    }

    /// The other one.
    pub fn second(&self) -> &AgentId {
        &self.second
    }

    /// Both, each with the other.
    pub fn sides(&self) -> [(&AgentId, &AgentId); 2] {
        [(&self.first, &self.second), (&self.second, &self.first)]
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -- {}", self.first, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AgentId {
        text.parse().expect("an id")
    }

    #[test]
    fn a_pair_has_one_form() {
        let pair = Pair::new(id("b"), id("a")).unwrap();
        assert_eq!(pair, Pair::new(id("a"), id("b")).unwrap());
        assert_eq!(pair.to_string(), "a -- b");
        assert_eq!(Pair::new(id("a"), id("a")), Err(SelfEdge { agent: id("a") }));
    }
}
