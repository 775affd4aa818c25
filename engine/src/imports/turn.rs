//! `godwit:agent/turn`: what a guest may know of its call.

use godwit_core::guest::TurnContext;

use crate::bindings::godwit::agent::types::TurnInfo;
use crate::bindings::godwit::agent::{turn, types};
use crate::context::GuestContext;

impl types::Host for GuestContext {}

impl turn::Host for GuestContext {
    fn current(&mut self) -> wasmtime::Result<TurnInfo> {
        let TurnContext { generation, token, revision, attempt, now_ms, .. } = self.call.turn;
        Ok(TurnInfo {
            agent: self.agent.as_str().to_owned(),
            generation: generation.0,
            token: token.0,
            revision: revision.0,
            attempt: if self.call.phase.is_turn() { attempt } else { 0 },
            now_ms,
        })
    }
}
