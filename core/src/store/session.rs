//! Host sessions: one join of a host to a store.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{HostId, Incarnation};

/// How many processes may have a store open at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One: having it open is the session, which never expires.
    Exclusive,
    /// Several: sessions expire without heartbeats.
    Shared,
}

/// A host that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// Its key.
    pub host: HostId,
    /// For people.
    pub name: String,
    /// Where its HTTP API listens.
    pub api: SocketAddr,
    /// Where its mesh listens.
    pub mesh: SocketAddr,
    /// Life of the session without a heartbeat, in a shared store. An exclusive store ignores it.
    pub ttl: Duration,
    /// Wall time of the join in Unix milliseconds.
    pub now_ms: u64,
}

/// An open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Given by the store, never reused there.
    pub incarnation: Incarnation,
    /// `None` when holding the store's lock is the session: no heartbeat, no expiry.
    pub ttl: Option<Duration>,
}

/// A session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Whose.
    pub host: HostId,
    /// For people.
    pub name: String,
    /// Which join.
    pub incarnation: Incarnation,
    /// Where its HTTP API listens.
    pub api: SocketAddr,
    /// Where its mesh listens.
    pub mesh: SocketAddr,
    /// Time left, by the store's clock; `None` without expiry.
    pub remaining: Option<Duration>,
}
