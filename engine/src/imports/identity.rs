//! `godwit:agent/identity`: the agent's public key, and signatures made on the host's side.
//!
//! The key is read when it is first asked for, and stays with the instance: nothing that gives an agent another key lets
//! its instance live. Answers are kept on the tape, since an agent whose history runs again may have another key.

use godwit_core::identity::EntityKey;
use godwit_core::limits::SIGN_MESSAGE_BYTES_MAX;

use crate::bindings::godwit::agent::identity::{self, IdentityError};
use crate::context::GuestContext;
use crate::fault::Stop;
use crate::tape::Answered;

impl identity::Host for GuestContext {
    fn public_key(&mut self) -> wasmtime::Result<Result<Vec<u8>, IdentityError>> {
        self.taped("identity.public-key", |context| {
            if !context.call.phase.may_read() {
                return Ok(Answered::Computed(Err(IdentityError::NotInTurn)));
            }
            let key = context.own_key()?;
            Ok(Answered::Fetched(key.map(|key| key.public().0.to_vec()).ok_or(IdentityError::NoKey)))
        })
    }

    fn sign(&mut self, message: Vec<u8>) -> wasmtime::Result<Result<Vec<u8>, IdentityError>> {
        self.taped("identity.sign", |context| {
            if !context.call.phase.may_read() {
                return Ok(Answered::Computed(Err(IdentityError::NotInTurn)));
            }
            if message.len() > SIGN_MESSAGE_BYTES_MAX {
                return Ok(Answered::Computed(Err(IdentityError::TooLarge)));
            }
            let agent = context.agent.clone();
            let key = context.own_key()?;
            let signature = key.map(|key| key.sign(&agent, &message).to_vec());
            Ok(Answered::Fetched(signature.ok_or(IdentityError::NoKey)))
        })
    }
}

impl GuestContext {
    pub(super) fn own_key(&mut self) -> Result<Option<&EntityKey>, Stop> {
        self.check_live()?;
        if self.entity_key.is_none() {
            self.entity_key = self.state.entity_key().map_err(Stop::StateRead)?;
        }
        Ok(self.entity_key.as_ref())
    }
}

#[cfg(test)]
mod tests;
