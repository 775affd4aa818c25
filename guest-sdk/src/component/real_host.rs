//! The host behind the component's imports.

use super::bindings::godwit::agent::{identity, operations, outbox, state, timers, turn};
use super::bindings::wasi::config::store;
use super::bindings::wasi::logging::logging;
use crate::{
    ConfigError, Host, HttpRequest, IdentityError, Level, OperationError, ReadHost, SendError, SendOptions,
    StateError, TimerError, TurnInfo,
};

/// The host that runs this component.
pub struct RealHost;

impl ReadHost for RealHost {
    fn turn(&self) -> TurnInfo {
        turn::current().into()
    }

    fn config(&self, key: &str) -> Result<Option<String>, ConfigError> {
        store::get(key).map_err(|error| match error {
            store::Error::Upstream(reason) | store::Error::Io(reason) => ConfigError(reason),
        })
    }

    fn log(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Trace => logging::Level::Trace,
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
            Level::Critical => logging::Level::Critical,
        };
        logging::log(level, "", message);
    }

    fn state_get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(state::get(key)?)
    }

    fn state_keys(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StateError> {
        Ok(state::list_keys(prefix, after, limit)?)
    }

    fn operations_active(&mut self) -> Result<Vec<String>, OperationError> {
        Ok(operations::list_active()?)
    }

    fn public_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        Ok(identity::public_key()?)
    }

    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        Ok(identity::sign(message)?)
    }
}

impl Host for RealHost {
    fn state_set(&mut self, key: &str, value: &[u8]) -> Result<(), StateError> {
        Ok(state::set(key, value)?)
    }

    fn state_delete(&mut self, key: &str) -> Result<(), StateError> {
        Ok(state::delete(key)?)
    }

    fn send(&mut self, to_agent: &str, payload: &[u8], options: SendOptions) -> Result<String, SendError> {
        Ok(outbox::send(to_agent, payload, &options.into())?)
    }

    fn timer_set(&mut self, name: &str, at_ms: u64, payload: &[u8]) -> Result<(), TimerError> {
        Ok(timers::set(name, at_ms, payload)?)
    }

    fn timer_cancel(&mut self, name: &str) -> Result<(), TimerError> {
        Ok(timers::cancel(name)?)
    }

    fn http_start(&mut self, request: HttpRequest) -> Result<String, OperationError> {
        Ok(operations::start(&request.into())?)
    }

    fn operation_cancel(&mut self, id: &str) -> Result<(), OperationError> {
        Ok(operations::cancel(id)?)
    }
}
