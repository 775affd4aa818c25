//! Signed checkpoints: what stands for receipts that retention has removed.
//!
//! A host that removes the oldest receipts of a generation has checked that they chain, and says so under its key. Whoever
//! verifies the history later goes on from the checkpoint: its digest is the parent of the first receipt that is left.

use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgentId, FencingToken, Generation, HostId, InputId, Revision};
use crate::receipt::Receipt;

/// What a signature covers begins with these words, so that it can't be taken for anything else.
const PURPOSE: &[u8] = b"godwit 2026 checkpoint of receipts\0";

/// The receipts of one generation from the first to a revision, in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whose receipts.
    pub agent: AgentId,
    /// Of which generation.
    pub generation: Generation,
    /// The last of them: they are 1 to this, without a gap.
    pub revision: Revision,
    /// The last one's digest.
    pub head: Digest,
    /// The highest token that they name.
    pub token: FencingToken,
    /// The plugin of the last one.
    pub plugin: Digest,
    /// How many inputs they name, all of them different.
    pub inputs: u64,
    /// BLAKE3 chain over the ids of those inputs in order: `H(digest so far, id)`, from `Digest::ZERO`.
    pub inputs_digest: Digest,
}

impl Checkpoint {
    /// The checkpoint before the first receipt of a generation.
    pub fn start(agent: &AgentId, generation: Generation) -> Self {
        Self {
            agent: agent.clone(),
            generation,
            revision: Revision(0),
            head: Digest::ZERO,
            token: FencingToken(0),
            plugin: Digest::ZERO,
            inputs: 0,
            inputs_digest: Digest::ZERO,
        }
    }

    /// Takes the next receipt in.
    ///
    /// # Errors
    /// Why it is not the next one; the checkpoint is as it was.
    pub fn push(&mut self, receipt: &Receipt) -> Result<(), String> {
        let revision = receipt.revision;
        if receipt.agent != self.agent || receipt.generation != self.generation {
            return Err(format!("receipt {revision} is of another history"));
        }
        if revision != self.revision.next() || receipt.parent != self.head {
            return Err(format!("receipt {revision} does not follow receipt {}", self.revision));
        }
        if receipt.token < self.token {
            return Err(format!("receipt {revision} has a lower token than one before it"));
        }
        self.revision = revision;
        self.head = receipt.digest();
        self.token = receipt.token;
        self.plugin = receipt.plugin;
        self.inputs += receipt.inputs.len() as u64;
        for InputId(id) in &receipt.inputs {
            self.inputs_digest = Digest::of_parts([&self.inputs_digest.0[..], id]);
        }
        Ok(())
    }

    /// Signs it: `sign` is the host's, and signs whatever bytes it is given.
    pub fn sign(self, host: HostId, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> ReceiptCheckpoint {
        let signature = sign(&self.to_bytes(host)).to_vec();
        ReceiptCheckpoint { checkpoint: self, host, signature }
    }

    /// What is signed.
    fn to_bytes(&self, host: HostId) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a checkpoint has no type that postcard can't write");
        [PURPOSE, &host.0, &body].concat()
    }
}

/// A checkpoint with the word of the host that removed the receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Who says so.
    pub host: HostId,
    /// ed25519, 64 bytes.
    pub signature: Vec<u8>,
}

impl ReceiptCheckpoint {
    /// Whether the host that it names has signed it.
    pub fn is_signed(&self) -> bool {
        let key = VerifyingKey::from_bytes(&self.host.0);
        let signature = Signature::from_slice(&self.signature);
        let bytes = self.checkpoint.to_bytes(self.host);
        key.ok().zip(signature.ok()).is_some_and(|(key, signature)| key.verify(&bytes, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests;
