//! A host in memory, for one agent under test.

use ed25519_dalek::{Signer, SigningKey};

use super::channels::{Ask, Asked, Channel, Channels, Published};
use crate::limits::{
    OPERATION_REQUEST_BYTES_MAX, OPERATIONS_MAX, OUTPUT_BYTES_MAX, OUTPUTS_MAX, SIGN_MESSAGE_BYTES_MAX,
    STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX, STATE_WRITES_MAX, TIMER_AT_MS_MAX,
    TIMER_BYTES_MAX, TIMER_NAME_BYTES_MAX, TIMERS_MAX, TURN_EFFECT_BYTES_MAX,
};
use crate::{
    Access, Administration, ChannelError, ChannelInfo, Overflow, PublishOptions, Rights, Subscription,
};
use crate::{
    ConfigError, Host, HttpRequest, IdentityError, Input, Kind, Level, Map, OperationError, ReadHost,
    SendError, SendOptions, Source, StateError, TimerError, TurnInfo, signed_bytes,
};

/// One output of the agent under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// For whom.
    pub to: String,
    /// The bytes.
    pub payload: Vec<u8>,
    /// What goes with it.
    pub options: SendOptions,
}

impl Sent {
    /// The input that the receiver gets when agent `from` has sent this.
    pub fn into_input(self, from: &str) -> Input {
        let expects_reply = self.options.expects_reply_ms.is_some();
        Input {
            kind: Kind::Peer(self.options.kind),
            source: Source::Peer { agent: from.into(), expects_reply },
            content_type: self.options.content_type,
            headers: self.options.headers,
            correlation: self.options.correlation.or(expects_reply.then_some(self.id)),
            ..Input::message(self.payload)
        }
    }
}

/// A timer of the agent under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// When it is due, in Unix milliseconds.
    pub at_ms: u64,
    /// The payload of its input.
    pub payload: Vec<u8>,
}

/// An operation of the agent under test that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// What the agent wants.
    pub request: HttpRequest,
    /// Whether the agent wants it no more.
    pub is_cancelled: bool,
}

/// Stands in for the host: collects effects, enforces the limits of `crate::limits`.
pub struct TestHost {
    pub(super) turn: TurnInfo,
    config: Map<String, String>,
    log: Vec<(Level, String)>,
    state: Map<String, Vec<u8>>,
    sent: Vec<Sent>,
    timers: Map<String, Timer>,
    operations: Vec<Operation>,
    pub(super) channels: Channels,
    pub(super) effects: Effects,
}

/// What the current turn has done.
#[derive(Default)]
pub(super) struct Effects {
    state: Map<String, Option<Vec<u8>>>,
    sent: Vec<Sent>,
    timers: Map<String, Option<Timer>>,
    started: Vec<Operation>,
    cancelled: Vec<String>,
    /// What the agent's channels are after it, if it has looked at them.
    pub(super) channels: Option<Channels>,
    /// Copies of publications.
    pub(super) copies: usize,
    writes: usize,
    pub(super) bytes: usize,
}

impl TestHost {
    pub(super) fn new(agent: &str, config: &[(&str, &str)]) -> Self {
        assert!(is_agent_id(agent), "{agent:?} is an agent id");
        let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        Self {
            turn: TurnInfo {
                agent: agent.into(),
                generation: 1,
                token: 1,
                revision: 0,
                attempt: 0,
                now_ms: 0,
            },
            config: config.iter().map(owned).collect(),
            log: Vec::new(),
            state: Map::new(),
            sent: Vec::new(),
            timers: Map::new(),
            operations: Vec::new(),
            channels: Channels::default(),
            effects: Effects::default(),
        }
    }

    /// Sets the time of the turns to come, in Unix milliseconds. Time never goes back.
    pub fn set_now_ms(&mut self, now_ms: u64) {
        self.turn.now_ms = self.turn.now_ms.max(now_ms);
    }

    /// All lines logged so far, also by turns that failed.
    pub fn log_lines(&self) -> &[(Level, String)] {
        &self.log
    }

    pub(super) fn state(&self) -> &Map<String, Vec<u8>> {
        &self.state
    }

    pub(super) fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn take_published(&mut self) -> Vec<Published> {
        std::mem::take(&mut self.channels.published)
    }

    pub(super) fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.channels.asked)
    }

    pub(super) fn channels(&mut self) -> &mut Map<String, Channel> {
        &mut self.channels.own
    }

    pub(super) fn timers(&self) -> &Map<String, Timer> {
        &self.timers
    }

    pub(super) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Takes an operation that has not ended.
    pub(super) fn take_operation(&mut self, id: &str) -> Option<Operation> {
        let place = self.operations.iter().position(|operation| operation.id == id)?;
        Some(self.operations.remove(place))
    }

    /// Takes the earliest timer that is due by a time.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Input> {
        let due = self.timers.iter().filter(|(_, timer)| timer.at_ms <= now_ms);
        let name = due.min_by_key(|(_, timer)| timer.at_ms)?.0.clone();
        let timer = self.timers.remove(&name)?;
        Some(Input::timer(&name, timer.at_ms, timer.payload))
    }

    pub(super) fn begin(&mut self) {
        self.turn.attempt += 1;
    }

    pub(super) fn commit(&mut self) {
        let effects = std::mem::take(&mut self.effects);
        for (key, value) in effects.state {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        for (name, timer) in effects.timers {
            match timer {
                Some(timer) => self.timers.insert(name, timer),
                None => self.timers.remove(&name),
            };
        }
        self.operations.extend(effects.started);
        for operation in &mut self.operations {
            operation.is_cancelled |= effects.cancelled.contains(&operation.id);
        }
        self.sent.extend(effects.sent);
        if let Some(Channels { own, subscriptions, published, asked }) = effects.channels {
            (self.channels.own, self.channels.subscriptions) = (own, subscriptions);
            self.channels.published.extend(published);
            self.channels.asked.extend(asked);
        }
        self.turn.revision += 1;
        self.turn.attempt = 0;
    }

    pub(super) fn roll_back(&mut self) {
        self.effects = Effects::default();
    }

    /// The agent's key: no secret, but another one for each id.
    fn key(&self) -> SigningKey {
        let mut secret = [0; 32];
        for (place, byte) in self.turn.agent.bytes().enumerate() {
            secret[place % 32] ^= byte.rotate_left((place / 32) as u32);
        }
        SigningKey::from_bytes(&secret)
    }

    fn write(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), StateError> {
        check_key(key)?;
        let bytes = value.map_or(0, <[u8]>::len);
        if bytes > STATE_VALUE_BYTES_MAX {
            return Err(StateError::TooLarge);
        }
        if !self.effects.has_spent(bytes + key.len()) {
            return Err(StateError::Quota);
        }
        self.effects.state.insert(key.into(), value.map(<[u8]>::to_vec));
        Ok(())
    }

    fn set_timer(&mut self, name: &str, timer: Option<Timer>) -> Result<(), TimerError> {
        let is_valid =
            (1..=TIMER_NAME_BYTES_MAX).contains(&name.len()) && !name.bytes().any(|b| b.is_ascii_control());
        if !is_valid {
            return Err(TimerError::InvalidName);
        }
        let bytes = timer.as_ref().map_or(0, |timer| timer.payload.len());
        if timer.as_ref().is_some_and(|timer| timer.at_ms > TIMER_AT_MS_MAX) {
            return Err(TimerError::InvalidTime);
        }
        if bytes > TIMER_BYTES_MAX {
            return Err(TimerError::TooLarge);
        }
        let mut names: crate::Set<&str> = self.timers.keys().map(String::as_str).collect();
        for (changed, timer) in &self.effects.timers {
            match timer {
                Some(_) => names.insert(changed),
                None => names.remove(changed.as_str()),
            };
        }
        let is_new = timer.is_some() && !names.contains(name);
        if is_new && names.len() >= TIMERS_MAX || !self.effects.has_spent(bytes + name.len()) {
            return Err(TimerError::Quota);
        }
        self.effects.timers.insert(name.into(), timer);
        Ok(())
    }
}

impl Effects {
    /// How many outputs there are: those of channels are among them.
    pub(super) fn outputs(&self) -> usize {
        let of_channels = self.channels.as_ref().map_or(0, |now| now.published.len() + now.asked.len());
        self.sent.len() + of_channels
    }

    /// Takes room for a write of so many bytes, if there is any.
    pub(super) fn has_spent(&mut self, bytes: usize) -> bool {
        let has_room = self.writes < STATE_WRITES_MAX && self.bytes + bytes <= TURN_EFFECT_BYTES_MAX;
        if has_room {
            self.writes += 1;
            self.bytes += bytes;
        }
        has_room
    }
}

impl ReadHost for TestHost {
    fn turn(&self) -> TurnInfo {
        self.turn.clone()
    }

    fn config(&self, key: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.config.get(key).cloned())
    }

    fn log(&mut self, level: Level, message: &str) {
        self.log.push((level, message.into()));
    }

    fn state_get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        check_key(key)?;
        match self.effects.state.get(key) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.state.get(key).cloned()),
        }
    }

    fn state_keys(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StateError> {
        if !prefix.is_empty() {
            check_key(prefix)?;
        }
        let mut rows = self.state.clone();
        for (key, written) in &self.effects.state {
            match written {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        let listed = |key: &String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let limit = limit.min(STATE_KEYS_MAX) as usize;
        Ok(rows.into_keys().filter(listed).take(limit).collect())
    }

    fn operations_active(&mut self) -> Result<Vec<String>, OperationError> {
        let active = self.operations.iter().chain(&self.effects.started);
        Ok(active.map(|operation| operation.id.clone()).collect())
    }

    fn channel_list(&mut self) -> Result<Vec<ChannelInfo>, ChannelError> {
        Ok(self.infos())
    }

    fn channel_subscribers(&mut self, channel: &str) -> Result<Vec<String>, ChannelError> {
        self.subscribers(channel)
    }

    fn subscriptions(&mut self) -> Result<Vec<Subscription>, ChannelError> {
        Ok(self.subscriptions_now())
    }

    fn public_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        Ok(self.key().verifying_key().to_bytes().to_vec())
    }

    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        if message.len() > SIGN_MESSAGE_BYTES_MAX {
            return Err(IdentityError::TooLarge);
        }
        Ok(self.key().sign(&signed_bytes(&self.turn.agent, message)).to_bytes().to_vec())
    }
}

impl Host for TestHost {
    fn state_set(&mut self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.write(key, Some(value))
    }

    fn state_delete(&mut self, key: &str) -> Result<(), StateError> {
        self.write(key, None)
    }

    fn send(&mut self, to_agent: &str, payload: &[u8], options: SendOptions) -> Result<String, SendError> {
        if !is_agent_id(to_agent) {
            return Err(SendError::BadAgentId);
        }
        if payload.len() > OUTPUT_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let effects = &mut self.effects;
        let index = effects.outputs();
        let is_full = index >= OUTPUTS_MAX;
        if is_full || effects.bytes + payload.len() > TURN_EFFECT_BYTES_MAX {
            return Err(SendError::Quota);
        }
        effects.bytes += payload.len();
        let id = format!("{:016x}{index:016x}", self.turn.revision);
        effects.sent.push(Sent { id: id.clone(), to: to_agent.into(), payload: payload.to_vec(), options });
        Ok(id)
    }

    fn timer_set(&mut self, name: &str, at_ms: u64, payload: &[u8]) -> Result<(), TimerError> {
        self.set_timer(name, Some(Timer { at_ms, payload: payload.to_vec() }))
    }

    fn timer_cancel(&mut self, name: &str) -> Result<(), TimerError> {
        self.set_timer(name, None)
    }

    fn channel_open(
        &mut self,
        channel: &str,
        access: Access,
        overflow: Overflow,
    ) -> Result<(), ChannelError> {
        self.open(channel, access, overflow)
    }

    fn channel_close(&mut self, channel: &str) -> Result<(), ChannelError> {
        self.close(channel)
    }

    fn publish(
        &mut self,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
    ) -> Result<String, ChannelError> {
        self.publish_own(channel, payload, options)
    }

    fn subscriber_remove(&mut self, channel: &str, agent: &str) -> Result<(), ChannelError> {
        self.remove(channel, agent)
    }

    fn token_issue(
        &mut self,
        channel: &str,
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError> {
        self.issued(channel, bearer, rights, expires_at_ms)
    }

    fn token_delegate(
        &mut self,
        token: &[u8],
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError> {
        self.delegated(token, bearer, rights, expires_at_ms)
    }

    fn tokens_revoke(&mut self, channel: &str) -> Result<(), ChannelError> {
        self.revoke(channel)
    }

    fn subscribe(
        &mut self,
        owner: &str,
        channel: &str,
        token: Option<&[u8]>,
    ) -> Result<String, ChannelError> {
        self.ask(owner, channel, Ask::Subscribe, token)
    }

    fn unsubscribe(&mut self, owner: &str, channel: &str) -> Result<String, ChannelError> {
        self.ask(owner, channel, Ask::Unsubscribe, None)
    }

    fn publish_to(
        &mut self,
        owner: &str,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
        token: &[u8],
    ) -> Result<String, ChannelError> {
        self.ask(owner, channel, Ask::Publish(payload.to_vec(), options), Some(token))
    }

    fn administer(
        &mut self,
        owner: &str,
        channel: &str,
        what: Administration,
        token: &[u8],
    ) -> Result<String, ChannelError> {
        self.ask(owner, channel, Ask::Administer(what), Some(token))
    }

    fn http_start(&mut self, request: HttpRequest) -> Result<String, OperationError> {
        let is_url = request.url.starts_with("http://") || request.url.starts_with("https://");
        if !is_url || request.method.is_empty() || !(1..=600_000).contains(&request.timeout_ms) {
            return Err(OperationError::InvalidRequest("the url, the method or the timeout is none".into()));
        }
        if request.body.len() > OPERATION_REQUEST_BYTES_MAX {
            return Err(OperationError::TooLarge);
        }
        let started = self.effects.started.len();
        let is_full = self.operations.len() + started >= OPERATIONS_MAX;
        if is_full || !self.effects.has_spent(request.url.len() + request.body.len()) {
            return Err(OperationError::Quota);
        }
        let id = format!("{:08x}-0000-8000-8000-{started:012x}", self.turn.revision);
        self.effects.started.push(Operation { id: id.clone(), request, is_cancelled: false });
        Ok(id)
    }

    fn operation_cancel(&mut self, id: &str) -> Result<(), OperationError> {
        if !self.effects.has_spent(id.len()) {
            return Err(OperationError::Quota);
        }
        self.effects.cancelled.push(id.into());
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    let is_valid =
        (1..=STATE_KEY_BYTES_MAX).contains(&key.len()) && !key.bytes().any(|b| b.is_ascii_control());
    if is_valid { Ok(()) } else { Err(StateError::InvalidKey) }
}

pub(super) fn is_agent_id(text: &str) -> bool {
    let is_start = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_inner = |b: u8| is_start(b) || b"._:-".contains(&b);
    (1..=128).contains(&text.len()) && is_start(text.as_bytes()[0]) && text.bytes().all(is_inner)
}
