//! A guest that wants to read a file: it imports `wasi:filesystem`, which is never served. Only for wasm32, only for tests.
//!
//! The payload is a path; the reply would be the file.

#![cfg(target_arch = "wasm32")]
#![deny(unsafe_code)]

use godwit_guest::{Agent, AgentError, Host, Input, Reply};
use serde::{Deserialize, Serialize};

/// It remembers nothing.
#[derive(Default, Serialize, Deserialize)]
pub struct FileReader {}

impl Agent for FileReader {
    fn handle(&mut self, input: &Input, _host: &mut impl Host) -> Result<Reply, AgentError> {
        match std::fs::read(input.text().unwrap_or_default()) {
            Ok(bytes) => Ok(Reply::bytes(bytes)),
            Err(error) => Ok(Reply::refused(error.to_string())),
        }
    }
}

godwit_guest::export!(FileReader);
