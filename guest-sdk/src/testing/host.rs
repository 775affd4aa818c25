//! A host in memory, for one agent under test.

use crate::limits::{
    OUTPUT_BYTES_MAX, OUTPUTS_MAX, STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX,
    STATE_WRITES_MAX, TURN_EFFECT_BYTES_MAX,
};
use crate::{
    ConfigError, Host, Input, Kind, Level, Map, SendError, SendOptions, Source, StateError, TurnInfo,
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

/// Stands in for the host: collects effects, enforces the limits of `crate::limits`.
pub struct TestHost {
    turn: TurnInfo,
    config: Map<String, String>,
    log: Vec<(Level, String)>,
    state: Map<String, Vec<u8>>,
    sent: Vec<Sent>,
    effects: Effects,
}

/// What the current turn has done.
#[derive(Default)]
struct Effects {
    state: Map<String, Option<Vec<u8>>>,
    sent: Vec<Sent>,
    writes: usize,
    bytes: usize,
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
        self.sent.extend(effects.sent);
        self.turn.revision += 1;
        self.turn.attempt = 0;
    }

    pub(super) fn roll_back(&mut self) {
        self.effects = Effects::default();
    }

    fn write(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), StateError> {
        check_key(key)?;
        let bytes = value.map_or(0, <[u8]>::len);
        if bytes > STATE_VALUE_BYTES_MAX {
            return Err(StateError::TooLarge);
        }
        let effects = &mut self.effects;
        let bytes = bytes + key.len();
        if effects.writes == STATE_WRITES_MAX || effects.bytes + bytes > TURN_EFFECT_BYTES_MAX {
            return Err(StateError::Quota);
        }
        effects.writes += 1;
        effects.bytes += bytes;
        effects.state.insert(key.into(), value.map(<[u8]>::to_vec));
        Ok(())
    }
}

impl Host for TestHost {
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

    fn state_set(&mut self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.write(key, Some(value))
    }

    fn state_delete(&mut self, key: &str) -> Result<(), StateError> {
        self.write(key, None)
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

    fn send(&mut self, to_agent: &str, payload: &[u8], options: SendOptions) -> Result<String, SendError> {
        if !is_agent_id(to_agent) {
            return Err(SendError::BadAgentId);
        }
        if payload.len() > OUTPUT_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let effects = &mut self.effects;
        let is_full = effects.sent.len() == OUTPUTS_MAX;
        if is_full || effects.bytes + payload.len() > TURN_EFFECT_BYTES_MAX {
            return Err(SendError::Quota);
        }
        effects.bytes += payload.len();
        let id = format!("{:016x}{:016x}", self.turn.revision, effects.sent.len());
        effects.sent.push(Sent { id: id.clone(), to: to_agent.into(), payload: payload.to_vec(), options });
        Ok(id)
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    let is_valid =
        (1..=STATE_KEY_BYTES_MAX).contains(&key.len()) && !key.bytes().any(|b| b.is_ascii_control());
    if is_valid { Ok(()) } else { Err(StateError::InvalidKey) }
}

fn is_agent_id(text: &str) -> bool {
    let is_start = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_inner = |b: u8| is_start(b) || b"._:-".contains(&b);
    (1..=128).contains(&text.len()) && is_start(text.as_bytes()[0]) && text.bytes().all(is_inner)
}
