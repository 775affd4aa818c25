//! Recomputing an agent's history: chain, digests, tokens, inputs. Pure, so that it is the same online and offline.

use std::collections::BTreeMap;

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Generation, InputId, Revision};
use godwit_core::receipt::Receipt;
use serde::{Deserialize, Serialize};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whose history.
    pub agent: AgentId,
    /// Receipts read.
    pub receipts: u64,
    /// The revision of the last receipt.
    pub revision: Revision,
    /// The highest token seen.
    pub token: FencingToken,
    /// What does not fit, in the order of the history; empty when all is well.
    pub breaks: Vec<String>,
}

/// Checks one receipt after the other. Feed all receipts of one generation in ascending order.
#[derive(Debug)]
pub struct ChainCheck {
    agent: AgentId,
    generation: Generation,
    next: Revision,
    parent: Digest,
    token: FencingToken,
    receipts: u64,
    inputs: BTreeMap<InputId, Revision>,
    /// State digest of each revision that names one: only the newest is needed.
    state: Option<(Revision, Digest)>,
    breaks: Vec<String>,
}

impl ChainCheck {
    /// A check from the first revision of a generation on.
    pub fn new(agent: AgentId, generation: Generation) -> Self {
        Self {
            agent,
            generation,
            next: Revision(1),
            parent: Digest::ZERO,
            token: FencingToken(0),
            receipts: 0,
            inputs: BTreeMap::new(),
            state: None,
            breaks: Vec::new(),
        }
    }

    /// Takes the next receipt.
    pub fn push(&mut self, receipt: &Receipt) {
        let revision = receipt.revision;
        self.receipts += 1;
        if revision != self.next {
            self.note(format!("receipt {} is missing: {revision} follows", self.next));
        } else if receipt.parent != self.parent {
            let before = revision.0.saturating_sub(1);
            self.note(format!(
                "receipt {before} is damaged: receipt {revision} names another digest as its parent"
            ));
        }
        if receipt.agent != self.agent || receipt.generation != self.generation {
            self.note(format!("receipt {revision} belongs to {} of another history", receipt.agent));
        }
        if receipt.token < self.token {
            self.note(format!(
                "receipt {revision} has token {}, lower than {} before it",
                receipt.token, self.token
            ));
        }
        for input in &receipt.inputs {
            if let Some(first) = self.inputs.insert(*input, revision) {
                self.note(format!("input {input} is named by receipts {first} and {revision}"));
            }
        }
        self.token = self.token.max(receipt.token);
        if let Some(state) = receipt.state {
            self.state = Some((revision, state));
        }
        self.parent = receipt.digest();
        self.next = revision.next();
    }

    /// Adds something that does not fit.
    pub fn note(&mut self, text: String) {
        self.breaks.push(text);
    }

    /// The revision whose receipt names an input.
    pub fn revision_of(&self, input: InputId) -> Option<Revision> {
        self.inputs.get(&input).copied()
    }

    /// The newest state that a receipt names.
    pub fn state(&self) -> Option<(Revision, Digest)> {
        self.state
    }

    /// Compares the end of the chain with the agent's row.
    pub fn finish(mut self, revision: Revision, head: Digest, token: FencingToken) -> VerifyReport {
        let last = Revision(self.next.0 - 1);
        if last != revision {
            self.note(format!("the row is at revision {revision}, the last receipt at {last}"));
        } else if self.parent != head {
            self.note(format!("receipt {last} is damaged: the row names another digest as its head"));
        }
        if self.token > token {
            self.note(format!("a receipt has token {}, the row only {token}", self.token));
        }
        let Self { agent, token, receipts, breaks, .. } = self;
        VerifyReport { agent, receipts, revision: last, token, breaks }
    }
}

#[cfg(test)]
mod tests;
