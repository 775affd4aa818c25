//! Recomputing an agent's history: chain, digests, tokens, inputs. Pure, so that it is the same online and offline.

use std::collections::{BTreeMap, BTreeSet};

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, InputId, Revision, SpecRevision};
use godwit_core::receipt::{BoundaryKind, Checkpoint, Receipt, ReceiptCheckpoint};
use serde::{Deserialize, Serialize};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whose history.
    pub agent: AgentId,
    /// Receipts read, of all generations.
    pub receipts: u64,
    /// Receipts for which a signed checkpoint stands.
    pub checkpointed: u64,
    /// Hosts that signed those checkpoints.
    pub signers: Vec<HostId>,
    /// The current generation.
    pub generation: Generation,
    /// The revision of its last receipt.
    pub revision: Revision,
    /// The highest token seen.
    pub token: FencingToken,
    /// Boundaries among them at which an operator accepted another state than the history named.
    pub repairs: u64,
    /// What does not fit, in the order of the history; empty when all is well.
    pub breaks: Vec<String>,
}

/// Checks one receipt after the other: `begin` each generation, ascending, and feed all its receipts in ascending order.
#[derive(Debug)]
pub struct HistoryCheck {
    /// The chain of the generation so far: what the next receipt must follow.
    chain: Checkpoint,
    spec_revision: SpecRevision,
    /// The highest token of all generations.
    token: FencingToken,
    receipts: u64,
    repairs: u64,
    checkpointed: u64,
    signers: BTreeSet<HostId>,
    /// The revision to which a checkpoint reaches, by generation.
    reach: BTreeMap<Generation, Revision>,
    inputs: BTreeMap<InputId, Named>,
    breaks: Vec<String>,
}

/// The last receipt that names an input.
#[derive(Debug, Clone, Copy)]
struct Named {
    generation: Generation,
    revision: Revision,
    /// A dead letter may be driven again: whatever else names an input is its last receipt.
    is_dead_letter: bool,
}

impl HistoryCheck {
    /// A check of nothing yet.
    pub fn new(agent: AgentId) -> Self {
        Self {
            chain: Checkpoint::start(&agent, Generation(0)),
            spec_revision: SpecRevision(0),
            token: FencingToken(0),
            receipts: 0,
            repairs: 0,
            checkpointed: 0,
            signers: BTreeSet::new(),
            reach: BTreeMap::new(),
            inputs: BTreeMap::new(),
            breaks: Vec::new(),
        }
    }

    /// Goes on with a generation, behind its checkpoint if it has one.
    pub fn begin(&mut self, generation: Generation, checkpoint: Option<&ReceiptCheckpoint>) {
        self.chain = Checkpoint::start(&self.chain.agent, generation);
        self.spec_revision = SpecRevision(0);
        let Some(signed) = checkpoint else { return };
        let checkpoint = &signed.checkpoint;
        if !signed.is_signed() || checkpoint.agent != self.chain.agent || checkpoint.generation != generation
        {
            self.note(format!(
                "checkpoint at revision {} is damaged: host {} has not signed it",
                checkpoint.revision, signed.host
            ));
        }
        if checkpoint.token < self.token {
            self.note(format!(
                "checkpoint at revision {} has a token below {}",
                checkpoint.revision, self.token
            ));
        }
        self.token = self.token.max(checkpoint.token);
        self.checkpointed += checkpoint.revision.0;
        self.signers.insert(signed.host);
        self.reach.insert(generation, checkpoint.revision);
        self.chain = checkpoint.clone();
    }

    /// Takes the next receipt of the generation.
    pub fn push(&mut self, receipt: &Receipt) {
        let (revision, next) = (receipt.revision, self.chain.revision.next());
        self.receipts += 1;
        if revision != next {
            self.note(format!("receipt {next} is missing: {revision} follows"));
        } else if receipt.parent != self.chain.head {
            let before = revision.0.saturating_sub(1);
            self.note(format!(
                "receipt {before} is damaged: receipt {revision} names another digest as its parent"
            ));
        }
        if receipt.agent != self.chain.agent || receipt.generation != self.chain.generation {
            self.note(format!("receipt {revision} belongs to {} of another history", receipt.agent));
        }
        if receipt.token < self.token {
            self.note(format!(
                "receipt {revision} has token {}, lower than {} before it",
                receipt.token, self.token
            ));
        }
        self.check_code(receipt);
        self.check_repair(receipt);
        for input in &receipt.inputs {
            let generation = receipt.generation;
            let is_dead_letter = receipt.kind == BoundaryKind::DeadLetter;
            let before = self.inputs.insert(*input, Named { generation, revision, is_dead_letter });
            let before = before.filter(|before| !before.is_dead_letter);
            if let Some(Named { generation, revision: first, .. }) = before {
                self.note(match generation == receipt.generation {
                    true => format!("input {input} is named by receipts {first} and {revision}"),
                    false => format!(
                        "input {input} is named by receipts {first} of generation {generation} and {revision}"
                    ),
                });
            }
        }
        self.token = self.token.max(receipt.token);
        self.chain.token = self.chain.token.max(receipt.token);
        self.chain.plugin = receipt.plugin;
        self.chain.head = receipt.digest();
        self.chain.revision = revision;
    }

    /// Code and spec change at boundaries of their own.
    fn check_code(&mut self, receipt: &Receipt) {
        let revision = receipt.revision;
        let is_first = self.chain.revision == Revision(0);
        let may_change = receipt.kind == BoundaryKind::Upgrade;
        if !is_first && !may_change && receipt.plugin != self.chain.plugin {
            self.note(format!("receipt {revision} ran another plugin without an upgrade before it"));
        }
        if receipt.spec_revision < self.spec_revision {
            self.note(format!("receipt {revision} has an older spec than the one before it"));
        }
        self.spec_revision = self.spec_revision.max(receipt.spec_revision);
    }

    /// Another state is taken at a boundary of its own, which says which and instead of what, and does nothing else.
    fn check_repair(&mut self, receipt: &Receipt) {
        if receipt.kind != BoundaryKind::Repair {
            return;
        }
        self.repairs += 1;
        if receipt.from.is_none() || receipt.state.is_none() || !receipt.inputs.is_empty() {
            self.note(format!(
                "repair {} names no state, nothing that it was taken for, or inputs",
                receipt.revision
            ));
        }
    }

    /// Adds something that does not fit.
    pub fn note(&mut self, text: String) {
        self.breaks.push(text);
    }

    /// Whether an input that ended at a revision may have: a receipt of that revision names it, or a checkpoint stands for
    /// the receipt that did.
    pub fn is_accounted(&self, input: InputId, ended_at: Revision) -> bool {
        match self.inputs.get(&input) {
            Some(named) => named.revision == ended_at,
            None => self.reach.values().any(|reach| ended_at <= *reach),
        }
    }

    /// The revision of the turn that an input was applied in.
    pub fn turn_of(&self, input: InputId) -> Option<Revision> {
        self.inputs.get(&input).filter(|named| !named.is_dead_letter).map(|named| named.revision)
    }

    /// Compares the end of the chain with the agent's row.
    pub fn finish(mut self, revision: Revision, head: Digest, token: FencingToken) -> VerifyReport {
        let last = self.chain.revision;
        if last != revision {
            self.note(format!("the row is at revision {revision}, the last receipt at {last}"));
        } else if self.chain.head != head {
            self.note(format!("receipt {last} is damaged: the row names another digest as its head"));
        }
        if self.token > token {
            self.note(format!("a receipt has token {}, the row only {token}", self.token));
        }
        VerifyReport {
            agent: self.chain.agent,
            receipts: self.receipts,
            repairs: self.repairs,
            checkpointed: self.checkpointed,
            signers: self.signers.into_iter().collect(),
            generation: self.chain.generation,
            revision: last,
            token: self.token,
            breaks: self.breaks,
        }
    }
}

#[cfg(test)]
mod tests;
