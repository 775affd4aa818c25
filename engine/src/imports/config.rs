//! `wasi:config/store`: the configuration of the agent's spec.

use crate::bindings::wasi::config::store::{self, Error};
use crate::context::GuestContext;

impl store::Host for GuestContext {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(Ok(self.spec.config.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        let pairs = self.spec.config.iter();
        Ok(Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}
