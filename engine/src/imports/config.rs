//! `wasi:config/store`: the configuration of the agent's spec, and what else the agent is told.

use godwit_core::spec::RESERVED_CONFIG;

use crate::bindings::wasi::config::store::{self, Error};
use crate::context::GuestContext;

impl store::Host for GuestContext {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(Ok(if key.starts_with(RESERVED_CONFIG) {
            self.spec.guest_config().remove(&key)
        } else {
            self.spec.config.get(&key).cloned()
        }))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        Ok(Ok(self.spec.guest_config().into_iter().collect()))
    }
}
