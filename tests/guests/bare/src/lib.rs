//! A guest written straight from `wit/`, without the SDK: it adds up the numbers that it is sent, as text, and replies the sum.
//! Anything else is echoed. Only for wasm32, only for tests.

#![cfg(target_arch = "wasm32")]
#![deny(unsafe_code)]

use std::cell::Cell;

/// Generated from `wit/`.
#[expect(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ world: "agent", path: "../../../wit", generate_all });
    export!(Bare with_types_in self);
    use super::Bare;
}

use bindings::exports::godwit::agent::guest::{AgentError, Guest, Input, Reply};
use bindings::godwit::agent::types::Outcome;

thread_local! {
    static SUM: Cell<u64> = const { Cell::new(0) };
}

struct Bare;

impl Guest for Bare {
    fn init() -> Result<(), AgentError> {
        Ok(())
    }

    fn handle(inputs: Vec<Input>) -> Result<Vec<Reply>, AgentError> {
        Ok(inputs.into_iter().map(answer).collect())
    }

    fn snapshot() -> Result<Vec<u8>, AgentError> {
        Ok(SUM.get().to_le_bytes().to_vec())
    }

    fn restore(state: Vec<u8>, _from_version: String) -> Result<(), AgentError> {
        let bytes = state.try_into().map_err(|_| AgentError::Fatal("a snapshot has 8 bytes".into()))?;
        SUM.set(u64::from_le_bytes(bytes));
        Ok(())
    }
}

fn answer(input: Input) -> Reply {
    let number = std::str::from_utf8(&input.payload).ok().and_then(|text| text.parse::<u64>().ok());
    let body = match number {
        Some(number) => {
            SUM.set(SUM.get().wrapping_add(number));
            SUM.get().to_string().into_bytes()
        }
        None => input.payload,
    };
    Reply { outcome: Outcome::Ok(body), content_type: input.content_type, headers: Vec::new() }
}
