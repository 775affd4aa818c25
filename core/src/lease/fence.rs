//! The fence: who may write for an agent, and who may take or free it. Every store decides with this, inside the
//! transaction of the write.
//!
//! ```text
//!   Claim (what a writer says)          Fence (what the store knows)
//!   generation, incarnation, token  ->  token, generation, revision, living holder
//!
//!   check     is it the current owner?                    Fenced
//!   check_at  and does it build on the head?              Fenced, Stale
//!   acquire   whose is it?                                Held, Free (under the next token), Fenced
//!   release   may it be freed, or was it freed already?   Done, Freed, Fenced
//! ```
//! It decides and changes nothing. Whether an agent is at home, and whether a session lives, is the store's to know: a
//! holder whose session is dead is no holder here.

use crate::id::{FencingToken, Generation, Incarnation, Revision};

/// What a store knows of an agent when somebody wants to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The token that was granted last.
    pub token: FencingToken,
    /// The agent's generation.
    pub generation: Generation,
    /// The head's revision.
    pub revision: Revision,
    /// Whose the agent is; `None` when it is free, released, or its holder's session is dead.
    pub holder: Option<Incarnation>,
}

/// Who says to be the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// In which generation.
    pub generation: Generation,
    /// Under which session.
    pub incarnation: Incarnation,
    /// With which token.
    pub token: FencingToken,
}

/// Why a write does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The writer is not the owner, for ever.
    Fenced,
    /// The writer is the owner and builds on another revision than the head's.
    Stale,
}

/// What an acquire comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acquire {
    /// The agent is the asking session's already: its lease stands as it is.
    Held,
    /// The agent is free: it is granted under this token.
    Free(FencingToken),
    /// The agent is another living session's.
    Fenced,
}

/// What a release comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Release {
    /// The owner frees it now.
    Freed,
    /// It was freed before, and nobody has taken it since.
    Done,
    /// The agent is not the claimant's to free.
    Fenced,
}

impl Fence {
    /// Lets the current owner pass and nobody else.
    ///
    /// # Errors
    /// `Fenced`.
    #[inline]
    pub fn check(&self, claim: &Claim) -> Result<(), Refusal> {
        let is_owner = self.is_of(claim) && self.holder == Some(claim.incarnation);
        if is_owner { Ok(()) } else { Err(Refusal::Fenced) }
    }

    /// Lets pass what builds on the head, whoever writes it.
    ///
    /// # Errors
    /// `Stale`.
    #[inline]
    pub fn check_base(&self, base: Revision) -> Result<(), Refusal> {
        if self.revision == base { Ok(()) } else { Err(Refusal::Stale) }
    }

    /// Lets the current owner pass with what builds on the head. A stranger is told `Fenced`, whatever it builds on.
    ///
    /// # Errors
    /// `Fenced`, `Stale`.
    #[inline]
    pub fn check_at(&self, claim: &Claim, base: Revision) -> Result<(), Refusal> {
        self.check(claim)?;
        self.check_base(base)
    }

    /// Decides what a living session gets that asks for the agent.
    pub fn acquire(&self, incarnation: Incarnation) -> Acquire {
        match self.holder {
            Some(holder) if holder == incarnation => Acquire::Held,
            Some(_) => Acquire::Fenced,
            None => Acquire::Free(self.token.next()),
        }
    }

    /// Decides whether a claimant frees the agent. The token stays, so a repeated release is known by it.
    pub fn release(&self, claim: &Claim) -> Release {
        match self.holder {
            None if self.is_of(claim) => Release::Done,
            _ if self.check(claim).is_ok() => Release::Freed,
            _ => Release::Fenced,
        }
    }

    /// Whether the claim is of the grant that was made last.
    fn is_of(&self, claim: &Claim) -> bool {
        self.token == claim.token && self.generation == claim.generation
    }
}

#[cfg(test)]
mod tests;
