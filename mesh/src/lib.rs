//! The `Mesh` port over iroh: QUIC between hosts that are dialled and recognised by their ed25519 keys.
//!
//! It moves bytes and knows nothing of what they mean. Relays, discovery, hole punching help and port mapping are off: a
//! peer is a key and an address, both given.
//!
//! ```text
//! transport.rs            IrohMesh: start, peers, close
//!   transport/endpoint.rs   the QUIC endpoint and its settings
//!   transport/pool.rs       links to peers: dial, reuse, find out that one is dead
//!   transport/call.rs       sending: requests and bulk transfers
//!   transport/serve.rs      receiving: connections, streams, the handler
//! handshake.rs            who speaks which protocol version, as which process
//! peers.rs                the allow list, and what is open to each peer
//! transfer.rs             bulk transfers that are arriving
//! wire.rs                 frames
//! limits.rs               every bound, with its reason
//! fuzzing.rs              doors for the fuzz targets, in test builds only
//! ```
//!
//! Deliberately not here: membership, routing, retries of requests, and any reading of a body.

#![forbid(unsafe_code)]

#[cfg(feature = "test-util")]
pub mod fuzzing;
mod handshake;
mod limits;
mod peers;
mod transfer;
mod transport;
mod wire;

pub use transport::{IrohMesh, MeshConfig, MeshStartError, protocols};
