//! What an agent can ask of its host. On wasm32 the real one (`component.rs`), in tests `testing::TestHost`.
//!
//! Agents take `&mut impl Host`, not `dyn`: so a component imports just what its agent calls, and needs no other grants. A
//! query gets the half that only reads.

use crate::{
    Access, Administration, ChannelError, ChannelInfo, Headers, IdentityError, Overflow, PeerKind,
    PublishOptions, Rights, Subscription,
};

/// What an agent can ask of its host in any call, a query as well: all that changes nothing.
pub trait ReadHost {
    /// The circumstances of this call.
    fn turn(&self) -> TurnInfo;

    /// A value of the agent's configuration.
    ///
    /// # Errors
    /// `ConfigError` when the host can't read it now.
    fn config(&self, key: &str) -> Result<Option<String>, ConfigError>;

    /// Writes a line to the agent's log. At most 8 KiB a line and 1 MiB a call; the rest is cut.
    fn log(&mut self, level: Level, message: &str);

    /// The value of a key of the agent's rows, with this turn's writes.
    ///
    /// # Errors
    /// `InvalidKey`, `NotInTurn`, `Other`.
    fn state_get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError>;

    /// Up to `limit` keys (never more than 1,000) that begin with `prefix` and come behind `after`, in order.
    ///
    /// # Errors
    /// `InvalidKey`, `NotInTurn`, `Other`.
    fn state_keys(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StateError>;

    /// The ids of the operations that have not ended, in the order of their starts.
    ///
    /// # Errors
    /// `NotInTurn`, `Other`.
    fn operations_active(&mut self) -> Result<Vec<String>, OperationError>;

    /// The agent's channels by name, with what this turn has done to them. All on channels needs the grant `channels`.
    ///
    /// # Errors
    /// `NotInTurn`, `Other`.
    fn channel_list(&mut self) -> Result<Vec<ChannelInfo>, ChannelError>;

    /// The ids of those that subscribe to one of the agent's channels.
    ///
    /// # Errors
    /// `InvalidName`, `NoChannel`, `NotInTurn`, `Other`.
    fn channel_subscribers(&mut self, channel: &str) -> Result<Vec<String>, ChannelError>;

    /// The agent's subscriptions by owner and channel, with what this turn has asked for.
    ///
    /// # Errors
    /// `NotInTurn`, `Other`.
    fn subscriptions(&mut self) -> Result<Vec<Subscription>, ChannelError>;

    /// The agent's public key, ed25519. The manifest must ask for the grant `sign`.
    ///
    /// # Errors
    /// `NoKey`, `NotInTurn`, `Other`.
    fn public_key(&mut self) -> Result<Vec<u8>, IdentityError>;

    /// Signs a message with the agent's key: 64 bytes, the same for the same message, over
    /// [`signed_bytes`](crate::signed_bytes). The manifest must ask for the grant `sign`.
    ///
    /// # Errors
    /// Any `IdentityError`.
    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, IdentityError>;

    /// Writes a line of level `Info` to the agent's log.
    fn info(&mut self, message: &str) {
        self.log(Level::Info, message);
    }
}

/// The host of an agent, for one call.
///
/// All effects are collected: they happen if the turn is committed, and not at all if it is not.
pub trait Host: ReadHost {
    /// Sets the value of a key of the agent's rows.
    ///
    /// # Errors
    /// Any `StateError`; the row is then as it was.
    fn state_set(&mut self, key: &str, value: &[u8]) -> Result<(), StateError>;

    /// Removes a key of the agent's rows; does nothing if there is none.
    ///
    /// # Errors
    /// `InvalidKey`, `Quota`, `NotInTurn`, `Other`; the row is then as it was.
    fn state_delete(&mut self, key: &str) -> Result<(), StateError>;

    /// Sends a payload to another agent once the turn is committed. Gives the output's id, which is the correlation of
    /// an answer.
    ///
    /// # Errors
    /// Any `SendError`; nothing is sent then.
    fn send(&mut self, to_agent: &str, payload: &[u8], options: SendOptions) -> Result<String, SendError>;

    /// Wakes the agent at a time, in Unix milliseconds: it gets an input of kind [`crate::Kind::Timer`] then, once, or late if it could
    /// not be woken. A timer of that name that waits is replaced.
    ///
    /// # Errors
    /// Any `TimerError`; the timer is then as it was.
    fn timer_set(&mut self, name: &str, at_ms: u64, payload: &[u8]) -> Result<(), TimerError>;

    /// Cancels a timer; does nothing if there is none. One that has fired already arrives nevertheless.
    ///
    /// # Errors
    /// `InvalidName`, `Quota`, `NotInTurn`, `Other`; the timer is then as it was.
    fn timer_cancel(&mut self, name: &str) -> Result<(), TimerError>;

    /// Wakes the agent so many milliseconds after the time of this turn.
    ///
    /// # Errors
    /// As `timer_set`.
    fn timer_after(&mut self, name: &str, delay_ms: u64, payload: &[u8]) -> Result<(), TimerError> {
        let at_ms = self.turn().now_ms.saturating_add(delay_ms);
        self.timer_set(name, at_ms, payload)
    }

    /// Has the host make an HTTP request once the turn is committed. Gives the operation's id; its end comes back as an
    /// input of kind [`crate::Kind::Operation`], which [`crate::Input::operation`] reads. The manifest must name where it goes.
    ///
    /// # Errors
    /// Any `OperationError`; nothing is started then.
    fn http_start(&mut self, request: HttpRequest) -> Result<String, OperationError>;

    /// Asks that an operation ends soon; does nothing if it has ended.
    ///
    /// # Errors
    /// `InvalidRequest`, `Quota`, `NotInTurn`, `Other`.
    fn operation_cancel(&mut self, id: &str) -> Result<(), OperationError>;

    /// Opens a channel, or says anew of one that is open who may subscribe and what becomes of slow subscribers.
    ///
    /// # Errors
    /// `InvalidName`, `Quota`, `NotInTurn`, `Other`.
    fn channel_open(&mut self, channel: &str, access: Access, overflow: Overflow)
    -> Result<(), ChannelError>;

    /// Ends all subscriptions to a channel, and removes it.
    ///
    /// # Errors
    /// `InvalidName`, `NoChannel`, `Quota`, `NotInTurn`, `Other`.
    fn channel_close(&mut self, channel: &str) -> Result<(), ChannelError>;

    /// Publishes once the turn is committed: each subscriber gets an input that [`crate::Input::publication`] reads. Gives the
    /// publication's id.
    ///
    /// # Errors
    /// `Backlogged` when a subscriber has not kept up: try again with a timer. Any but `Token` and `NoKey`.
    fn publish(
        &mut self,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
    ) -> Result<String, ChannelError>;

    /// Ends a subscription to one of the agent's channels; does nothing if there is none.
    ///
    /// # Errors
    /// `InvalidName`, `NoChannel`, `Quota`, `NotInTurn`, `Other`.
    fn subscriber_remove(&mut self, channel: &str, agent: &str) -> Result<(), ChannelError>;

    /// A token for one of the agent's channels, good for the agent with this public key alone, until a time in Unix
    /// milliseconds, and until [`Host::tokens_revoke`], the channel's end or a reset.
    ///
    /// # Errors
    /// `InvalidName`, `NoChannel`, `Token`, `NoKey`, `NotInTurn`, `Other`.
    fn token_issue(
        &mut self,
        channel: &str,
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError>;

    /// A token that passes on what this one lets the agent do, or less of it, and not for longer.
    ///
    /// # Errors
    /// `Token`, `NoKey`, `NotInTurn`, `Other`.
    fn token_delegate(
        &mut self,
        token: &[u8],
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError>;

    /// Makes all tokens for a channel worthless that earlier turns have issued.
    ///
    /// # Errors
    /// `InvalidName`, `NoChannel`, `Quota`, `NotInTurn`, `Other`.
    fn tokens_revoke(&mut self, channel: &str) -> Result<(), ChannelError>;

    /// Asks to subscribe to a channel. Gives the request's id; the answer is an input that [`crate::Input::channel_answer`] reads.
    ///
    /// # Errors
    /// `InvalidName`, `TooLarge`, `Quota`, `NotInTurn`, `Other`.
    fn subscribe(&mut self, owner: &str, channel: &str, token: Option<&[u8]>)
    -> Result<String, ChannelError>;

    /// Asks that a subscription ends. Behind the answer nothing more comes.
    ///
    /// # Errors
    /// `InvalidName`, `Quota`, `NotInTurn`, `Other`.
    fn unsubscribe(&mut self, owner: &str, channel: &str) -> Result<String, ChannelError>;

    /// Asks to publish on a channel of another agent, with a token that lets it.
    ///
    /// # Errors
    /// `InvalidName`, `TooLarge`, `Quota`, `NotInTurn`, `Other`.
    fn publish_to(
        &mut self,
        owner: &str,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
        token: &[u8],
    ) -> Result<String, ChannelError>;

    /// Asks something of a channel of another agent, with a token that lets it.
    ///
    /// # Errors
    /// `InvalidName`, `TooLarge`, `Quota`, `NotInTurn`, `Other`.
    fn administer(
        &mut self,
        owner: &str,
        channel: &str,
        what: Administration,
        token: &[u8],
    ) -> Result<String, ChannelError>;

    /// Sends a message that stands for itself.
    ///
    /// # Errors
    /// As `send`.
    fn send_message(&mut self, to_agent: &str, payload: &[u8]) -> Result<String, SendError> {
        self.send(to_agent, payload, SendOptions::default())
    }
}

/// The circumstances of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnInfo {
    /// The agent's id.
    pub agent: String,
    /// Counts the lives of the agent, from 1.
    pub generation: u64,
    /// The fencing token of the host's ownership; grows with every change of owner. No part of the state.
    pub token: u64,
    /// The committed revision on which this turn builds; 0 in `init`.
    pub revision: u64,
    /// Which attempt at its first input this turn is, from 1.
    pub attempt: u32,
    /// The time of this turn in Unix milliseconds. It stands still within the turn.
    pub now_ms: u64,
}

/// What goes with an output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendOptions {
    /// What the receiver's input will be.
    pub kind: PeerKind,
    /// MIME type of the payload; may be empty.
    pub content_type: String,
    /// Header pairs.
    pub headers: Headers,
    /// For a response, the request's correlation.
    pub correlation: Option<String>,
    /// Asks for the receiver's reply, or word that none came, within this many milliseconds.
    pub expects_reply_ms: Option<u64>,
}

/// How important a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Values and the flow of control.
    Trace,
    /// For the agent's author.
    Debug,
    /// For whoever watches the agent.
    Info,
    /// Odd, but handled.
    Warn,
    /// Something failed.
    Error,
    /// The agent can't do its work.
    Critical,
}

/// Why a call on the agent's rows did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The key is empty, longer than 1,024 bytes, or has a control character.
    #[error("the key is not 1 to 1,024 bytes without control characters")]
    InvalidKey,
    /// The value is longer than 256 KiB.
    #[error("the value is longer than 256 KiB")]
    TooLarge,
    /// The turn has written all that one turn may.
    #[error("the turn has written all that it may")]
    Quota,
    /// There is no turn.
    #[error("there is no turn")]
    NotInTurn,
    /// Another reason; a retry may help.
    #[error("{0}")]
    Other(String),
}

/// Why a call on a timer did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimerError {
    /// The name is empty, longer than 256 bytes, or has a control character.
    #[error("the name is not 1 to 256 bytes without control characters")]
    InvalidName,
    /// The time is after the year 9999.
    #[error("the time is after the year 9999")]
    InvalidTime,
    /// The payload is longer than 32 KiB.
    #[error("the payload is longer than 32 KiB")]
    TooLarge,
    /// The agent has 64 timers, or the turn has written all that one turn may.
    #[error("the agent has 64 timers or the turn has written all that it may")]
    Quota,
    /// There is no turn.
    #[error("there is no turn")]
    NotInTurn,
    /// Another reason; a retry may help.
    #[error("{0}")]
    Other(String),
}

/// An HTTP request that the host makes for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE` or `OPTIONS`.
    pub method: String,
    /// `http://` or `https://`, a host name in lower case, perhaps a port, path and query.
    pub url: String,
    /// Names in lower case. `{{secret:NAME}}` in a value stands for a secret of the host, which fills it in when it sends the
    /// request: the manifest needs the grant `secrets.NAME`, and nothing of the value ever gets here.
    pub headers: Headers,
    /// At most 256 KiB.
    pub body: Vec<u8>,
    /// From its beginning to the last byte of the answer, in milliseconds: 1 to 600,000.
    pub timeout_ms: u32,
    /// Whether it may be made again, under the same idempotency key, when the host that made it has died. If not, it ends
    /// as unknown then.
    pub is_repeatable: bool,
}

impl HttpRequest {
    /// A `GET` that may be repeated, with 30 s of time.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: "GET".into(),
            url: url.into(),
            headers: Headers::new(),
            body: Vec::new(),
            timeout_ms: 30_000,
            is_repeatable: true,
        }
    }

    /// A `POST` that is made once at most, with 30 s of time.
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST".into(), body: body.into(), is_repeatable: false, ..Self::get(url) }
    }
}

/// Why a call on operations did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// The component has no grant for where it goes, or for a secret that it names.
    #[error("the component has no grant for it")]
    NotGranted,
    /// A part of the request, or the id, is not what it must be.
    #[error("{0}")]
    InvalidRequest(String),
    /// A part of the request is larger than it may be.
    #[error("a part of the request is larger than it may be")]
    TooLarge,
    /// The agent has 16 operations that have not ended, or the turn has written all that one turn may.
    #[error("the agent has 16 operations or the turn has written all that it may")]
    Quota,
    /// There is no turn.
    #[error("there is no turn")]
    NotInTurn,
    /// Another reason; a retry may help.
    #[error("{0}")]
    Other(String),
}

/// Why nothing will be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver's id is no agent id.
    #[error("the receiver is not 1 to 128 bytes of [a-z0-9._:-] beginning with a letter or digit")]
    BadAgentId,
    /// The payload is longer than 256 KiB, or an option longer than it may be.
    #[error("the payload is longer than 256 KiB or an option is too long")]
    TooLarge,
    /// The turn has sent all that one turn may.
    #[error("the turn has sent all that it may")]
    Quota,
    /// There is no turn.
    #[error("there is no turn")]
    NotInTurn,
    /// The host does not serve this option.
    #[error("the host does not serve {0}")]
    Unsupported(String),
    /// Another reason; a retry may help.
    #[error("{0}")]
    Other(String),
}

/// The host can't read the configuration now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the configuration: {0}")]
pub struct ConfigError(pub String);
