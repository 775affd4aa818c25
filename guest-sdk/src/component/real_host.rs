//! The host behind the component's imports.

use super::bindings::godwit::agent::{channels, identity, operations, outbox, state, timers, turn};
use super::bindings::wasi::config::store;
use super::bindings::wasi::logging::logging;
use crate::{
    Access, Administration, ChannelError, ChannelInfo, Overflow, PublishOptions, Rights, Subscription,
};
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

    fn channel_list(&mut self) -> Result<Vec<ChannelInfo>, ChannelError> {
        Ok(channels::list_channels()?.into_iter().map(Into::into).collect())
    }

    fn channel_subscribers(&mut self, channel: &str) -> Result<Vec<String>, ChannelError> {
        Ok(channels::list_subscribers(channel)?)
    }

    fn subscriptions(&mut self) -> Result<Vec<Subscription>, ChannelError> {
        Ok(channels::list_subscriptions()?.into_iter().map(Into::into).collect())
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

    fn channel_open(
        &mut self,
        channel: &str,
        access: Access,
        overflow: Overflow,
    ) -> Result<(), ChannelError> {
        Ok(channels::open(channel, access.into(), overflow.into())?)
    }

    fn channel_close(&mut self, channel: &str) -> Result<(), ChannelError> {
        Ok(channels::close(channel)?)
    }

    fn publish(
        &mut self,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
    ) -> Result<String, ChannelError> {
        Ok(channels::publish(channel, payload, &options.into())?)
    }

    fn subscriber_remove(&mut self, channel: &str, agent: &str) -> Result<(), ChannelError> {
        Ok(channels::remove_subscriber(channel, agent)?)
    }

    fn token_issue(
        &mut self,
        channel: &str,
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError> {
        Ok(channels::issue(channel, bearer, rights.into(), expires_at_ms)?)
    }

    fn token_delegate(
        &mut self,
        token: &[u8],
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError> {
        Ok(channels::delegate(token, bearer, rights.into(), expires_at_ms)?)
    }

    fn tokens_revoke(&mut self, channel: &str) -> Result<(), ChannelError> {
        Ok(channels::revoke(channel)?)
    }

    fn subscribe(
        &mut self,
        owner: &str,
        channel: &str,
        token: Option<&[u8]>,
    ) -> Result<String, ChannelError> {
        Ok(channels::subscribe(owner, channel, token)?)
    }

    fn unsubscribe(&mut self, owner: &str, channel: &str) -> Result<String, ChannelError> {
        Ok(channels::unsubscribe(owner, channel)?)
    }

    fn publish_to(
        &mut self,
        owner: &str,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
        token: &[u8],
    ) -> Result<String, ChannelError> {
        Ok(channels::publish_to(owner, channel, payload, &options.into(), token)?)
    }

    fn administer(
        &mut self,
        owner: &str,
        channel: &str,
        what: Administration,
        token: &[u8],
    ) -> Result<String, ChannelError> {
        Ok(channels::administer(owner, channel, &what.into(), token)?)
    }

    fn http_start(&mut self, request: HttpRequest) -> Result<String, OperationError> {
        Ok(operations::start(&request.into())?)
    }

    fn operation_cancel(&mut self, id: &str) -> Result<(), OperationError> {
        Ok(operations::cancel(id)?)
    }
}
