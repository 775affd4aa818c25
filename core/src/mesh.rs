//! The mesh port: requests and bulk transfers between hosts that know each other's keys.
//!
//! Contract of an implementation:
//! 1. A peer is its ed25519 key. Only listed peers are dialled or heard; `from` is the key the connection proved.
//! 2. A request or bulk transfer reaches the handler whole and undamaged (BLAKE3), or not at all.
//! 3. `Err` after sending means unknown: the peer may have acted. Callers make requests repeatable.
//! 4. Bodies are opaque here; requests are at most `FRAME_BYTES_MAX`, bulk at most `BULK_BYTES_MAX`.
//! 5. Both ends of a bulk transfer get one digest of what was sent, so that nobody has to hash it again.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::Digest;
use crate::id::HostId;

/// Largest bulk transfer in bytes: one batch of rows, with room for a snapshot of the largest size.
pub const BULK_BYTES_MAX: usize = 64 << 20;

/// Versions of what hosts say to each other that this build speaks, frames and messages alike. Two hosts use the newest that
/// both speak; the one before the newest is always among them, so that hosts can be upgraded one after the other.
///
/// 1: the first. 2: a host that answers "not now" says so with a time, and its greeting names its release.
pub const PROTOCOLS: RangeInclusive<u8> = 1..=2;

/// Talks to other hosts.
#[async_trait]
pub trait Mesh: Send + Sync + 'static {
    /// This host's key.
    fn local(&self) -> HostId;

    /// The address this host listens at.
    fn local_address(&self) -> SocketAddr;

    /// Lists a peer, or gives a listed one another address.
    fn add_peer(&self, peer: HostId, address: SocketAddr);

    /// Forgets a peer and closes its connections. Answers whether it was listed.
    fn remove_peer(&self, peer: HostId) -> bool;

    /// All listed peers, by key.
    fn peers(&self) -> Vec<Peer>;

    /// The protocol version that a peer and this host have agreed on; connects when no connection is open. A mesh inside one
    /// process speaks the newest.
    ///
    /// # Errors
    /// `UnknownPeer`, `Unreachable`.
    async fn protocol(&self, peer: HostId, timeout: Duration) -> Result<u8, MeshError> {
        let (_, _) = (peer, timeout);
        Ok(*PROTOCOLS.end())
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// `MeshError`; see rule 3 of the contract.
    async fn request(&self, peer: HostId, body: Bytes, timeout: Duration) -> Result<Bytes, MeshError>;

    /// Sends bulk bytes in chunks under a small header, on a stream of its own so that requests don't queue behind it,
    /// and waits for the handler's answer. An interrupted transfer is resumed by offset within `timeout`.
    ///
    /// # Errors
    /// `MeshError`; see rule 3 of the contract.
    async fn send_bulk(
        &self,
        peer: HostId,
        header: Bytes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Sent, MeshError>;

    /// Closes all connections and stops listening.
    async fn close(&self);
}

/// What came of a bulk transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The handler's.
    pub answer: Bytes,
    /// Of all that was sent: the handler got the same.
    pub digest: Digest,
}

/// A bulk transfer that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulk {
    /// What it is about.
    pub header: Bytes,
    /// What was sent.
    pub body: Bytes,
    /// Of the body, as the sender has it. Only the two ends of one transfer can compare it: how it is made is the mesh's.
    pub digest: Digest,
}

/// A listed peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its key.
    pub host: HostId,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Whether a connection is open now: a hint.
    pub is_connected: bool,
    /// The protocol version spoken on it.
    pub protocol: Option<u8>,
    /// How often it was told "busy" or cut off because it was at one of its limits.
    pub limited: u64,
    /// Why no connection came up, or why the peer closed the last one, if none has come up since.
    pub trouble: Option<String>,
}

impl Peer {
    /// A peer that is connected and never was in trouble.
    pub fn connected(host: HostId, address: SocketAddr) -> Self {
        let protocol = Some(*PROTOCOLS.end());
        Self { host, address, is_connected: true, protocol, limited: 0, trouble: None }
    }
}

/// Serves what peers send.
#[async_trait]
pub trait MeshHandler: Send + Sync + 'static {
    /// Answers a request of a listed peer.
    async fn on_request(&self, from: HostId, body: Bytes) -> Bytes;

    /// Takes a whole bulk transfer of a listed peer.
    async fn on_bulk(&self, from: HostId, bulk: Bulk) -> Bytes;
}

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// The key is not listed. Nothing was sent.
    #[error("peer {peer} is not listed")]
    UnknownPeer {
        /// The key.
        peer: HostId,
    },
    /// No connection came up. Nothing was sent.
    #[error("peer {peer} is unreachable: {reason}")]
    Unreachable {
        /// The key.
        peer: HostId,
        /// What the transport said.
        reason: String,
    },
    /// The two hosts speak no common version of the protocol. Nothing was sent.
    #[error("peer {peer} speaks no version that this host speaks: {reason}")]
    Incompatible {
        /// The key.
        peer: HostId,
        /// What each speaks.
        reason: String,
    },
    /// The bytes are over the limit. Nothing was sent.
    #[error("message of {size} bytes is over the limit of {max}")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It was sent, and no answer came. The peer may have acted.
    #[error("no answer from peer {peer}: {reason}")]
    NoAnswer {
        /// The key.
        peer: HostId,
        /// What the transport said.
        reason: String,
    },
}
