//! The greeting: the first stream of each connection, before anything else is said.
//!
//! TLS has proven the keys; the greeting says which protocol versions a host speaks, and which process speaks. A process
//! that is new tells the peer that all older connections of the same key are dead, however alive they still look.
//! Its frames have version 0 and never change, so that hosts of any two versions can at least say why they don't talk.

use std::fmt;
use std::ops::RangeInclusive;

use godwit_core::time::{Clock, SystemClock};
use iroh::endpoint::{ApplicationClose, ConnectError, ConnectingError, Connection, ConnectionError};
use iroh::endpoint::{TransportErrorCode, VarInt};
use serde::{Deserialize, Serialize};

use crate::limits::HANDSHAKE_MAX;
use crate::wire::{self, GREETING_VERSION, Kind, Refusal, WireError};

/// Names the protocol family in TLS. Versions are negotiated by the greeting, which can say what is wrong.
pub(crate) const ALPN: &[u8] = b"godwit-mesh";

/// Alert of TLS: the certificate is not the one that was dialled.
const ALERT_UNKNOWN_CA: u8 = 48;
/// Alert of TLS: nobody there speaks this ALPN.
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// Why a host closed a connection, as the code on the wire. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// The host shuts down.
    Closing = 1,
    /// The peer's key is not listed, or not any more.
    Unlisted = 2,
    /// No common protocol, or bytes that are not one.
    Protocol = 3,
    /// The connection belongs to a process that is gone, or stayed silent.
    Dead = 4,
    /// The peer has opened too many.
    Surplus = 5,
    /// It was opened only to ask who is there.
    Done = 6,
}

impl CloseCode {
    /// Closes a connection for this reason.
    pub(crate) fn close(self, connection: &Connection) {
        connection.close(VarInt::from_u32(self as u32), format!("{self:?}").as_bytes());
    }

    /// Whether a peer closed a connection for this reason.
    fn is_in(self, close: &ApplicationClose) -> bool {
        close.error_code == VarInt::from_u32(self as u32)
    }
}

/// One process of a host: 16 random bytes, made when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance(pub(crate) [u8; 16]);

impl Instance {
    pub(crate) fn generate() -> Self {
        let mut bytes = [0; 16];
        SystemClock.fill_random(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Requests and transfers, both ways.
    Work,
    /// Only to learn which process answers.
    Probe,
}

/// What the host that dialled says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    protocol_min: u8,
    protocol_max: u8,
    instance: Instance,
    purpose: Purpose,
}

/// What the other one says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    protocol: u8,
    instance: Instance,
}

/// What a host says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Greeter {
    pub(crate) protocols: RangeInclusive<u8>,
    pub(crate) instance: Instance,
}

/// What two hosts agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) protocol: u8,
    /// The peer's process.
    pub(crate) instance: Instance,
}

impl Greeter {
    /// Greets the host that was dialled.
    ///
    /// # Cancel safety
    /// The connection is of no use afterwards.
    pub(crate) async fn greet(
        &self,
        connection: &Connection,
        purpose: Purpose,
    ) -> Result<Agreement, DialError> {
        let hello = Hello {
            protocol_min: *self.protocols.start(),
            protocol_max: *self.protocols.end(),
            instance: self.instance,
            purpose,
        };
        let exchange = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(std::io::Error::from)?;
            let mut frame = wire::encode_typed(GREETING_VERSION, Kind::Hello, &hello);
            send.write_all_chunks(&mut frame).await.map_err(std::io::Error::from)?;
            let body = wire::read_frame(&mut recv, GREETING_VERSION, Kind::Welcome).await?;
            wire::decode_typed::<Welcome>(Kind::Welcome, &body)
        };
        match exchange.await {
            Ok(welcome) if self.protocols.contains(&welcome.protocol) => {
                Ok(Agreement { protocol: welcome.protocol, instance: welcome.instance })
            }
            Ok(welcome) => Err(self.no_common(welcome.protocol, welcome.protocol).into()),
            Err(WireError::Refused(Refusal::Protocol { min, max })) => Err(self.no_common(min, max).into()),
            // The connection's own end says more than the stream's.
            Err(err) => Err(match connection.close_reason() {
                Some(reason) => DialError::from(&reason),
                None => DialError::Transport { reason: err.to_string() },
            }),
        }
    }

    /// Answers the greeting of a listed host.
    pub(crate) async fn welcome(&self, connection: &Connection) -> Result<(Agreement, Purpose), WireError> {
        let (mut send, mut recv) = connection.accept_bi().await.map_err(std::io::Error::from)?;
        let body = wire::read_frame(&mut recv, GREETING_VERSION, Kind::Hello).await?;
        let hello: Hello = wire::decode_typed(Kind::Hello, &body)?;
        let theirs = hello.protocol_min..=hello.protocol_max;
        let Some(protocol) = newest_common(&self.protocols, &theirs) else {
            let refusal = Refusal::Protocol { min: *self.protocols.start(), max: *self.protocols.end() };
            let mut frame = wire::encode_typed(GREETING_VERSION, Kind::Refused, &refusal);
            send.write_all_chunks(&mut frame).await.map_err(std::io::Error::from)?;
            // The dialler closes once it has read why; closing first could overtake the reason.
            connection.closed().await;
            return Err(WireError::NoCommon(self.no_common(hello.protocol_min, hello.protocol_max)));
        };
        let welcome = Welcome { protocol, instance: self.instance };
        let mut frame = wire::encode_typed(GREETING_VERSION, Kind::Welcome, &welcome);
        send.write_all_chunks(&mut frame).await.map_err(std::io::Error::from)?;
        Ok((Agreement { protocol, instance: hello.instance }, hello.purpose))
    }

    fn no_common(&self, min: u8, max: u8) -> NoCommon {
        NoCommon { min, max, own_min: *self.protocols.start(), own_max: *self.protocols.end() }
    }
}

fn newest_common(ours: &RangeInclusive<u8>, theirs: &RangeInclusive<u8>) -> Option<u8> {
    let newest = *ours.end().min(theirs.end());
    (newest >= *ours.start().max(theirs.start())).then_some(newest)
}

/// Two hosts that speak no version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it speaks protocol {min} to {max}, this host {own_min} to {own_max}: upgrade the older one")]
pub(crate) struct NoCommon {
    min: u8,
    max: u8,
    own_min: u8,
    own_max: u8,
}

/// Why no connection came up. Nothing was sent but greetings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("its key is not an ed25519 public key")]
    InvalidKey,
    #[error("another key answers at its address")]
    OtherKey,
    #[error("no host of the mesh answers at its address")]
    OtherProtocol,
    #[error("it does not list this host")]
    Unlisted,
    #[error("it has too many connections of this host's key: is the key used twice?")]
    Surplus,
    #[error("it was taken off the list, or this host's mesh closed, meanwhile")]
    Removed,
    #[error(transparent)]
    Protocol(#[from] NoCommon),
    #[error("it did not answer within {} s", HANDSHAKE_MAX.as_secs())]
    Silent,
    #[error("this host's mesh is closed")]
    Closed,
    #[error("{reason}")]
    Transport { reason: String },
}

impl From<&ConnectionError> for DialError {
    fn from(err: &ConnectionError) -> Self {
        let is_alert = |code, alert| code == TransportErrorCode::crypto(alert);
        match err {
            ConnectionError::ApplicationClosed(close) if CloseCode::Unlisted.is_in(close) => Self::Unlisted,
            ConnectionError::ApplicationClosed(close) if CloseCode::Surplus.is_in(close) => Self::Surplus,
            ConnectionError::TransportError(err) if is_alert(err.code, ALERT_UNKNOWN_CA) => Self::OtherKey,
            ConnectionError::ConnectionClosed(close)
                if is_alert(close.error_code, ALERT_NO_APPLICATION_PROTOCOL) =>
            {
                Self::OtherProtocol
            }
            ConnectionError::TimedOut => Self::Silent,
            other => Self::Transport { reason: other.to_string() },
        }
    }
}

impl From<ConnectError> for DialError {
    fn from(err: ConnectError) -> Self {
        match &err {
            ConnectError::Connection { source, .. }
            | ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. } => {
                Self::from(source)
            }
            other => Self::Transport { reason: format!("{other:#}") },
        }
    }
}

#[cfg(test)]
mod tests;
