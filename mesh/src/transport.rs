//! `IrohMesh`: the `Mesh` port over an iroh endpoint.
//!
//! The parts are in `transport/`: the endpoint's settings, the pool of links, sending, receiving. All of them share
//! `Shared`; every task belongs to one group, so that closing joins them all.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::id::HostId;
use godwit_core::mesh::{Mesh, MeshError, MeshHandler, PROTOCOLS, Peer, Sent};
use godwit_core::task::TaskGroup;
use godwit_core::time::within;
use iroh::{Endpoint, SecretKey};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::handshake::{DialError, Greeter, Instance};
use crate::limits::{BULKS_MAX, CLOSE_MAX};
use crate::peers::{PeerBook, lock};
use crate::transfer::Arrivals;

mod call;
mod endpoint;
mod handshakes;
mod pool;
mod serve;

use handshakes::Handshakes;

/// What a host needs to take part in a mesh.
#[derive(Clone)]
pub struct MeshConfig {
    /// The host's ed25519 secret key, 32 bytes, raw. Its public key is the host's id.
    pub secret_key: [u8; 32],
    /// Where to listen for UDP; port 0 takes any free one. Must be reachable from the peers.
    pub listen: SocketAddr,
    /// The peers known from the start: key and address of each.
    pub peers: Vec<(HostId, SocketAddr)>,
}

/// Why a mesh did not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshStartError {
    /// The address can't be listened at: taken, or not of this machine.
    #[error("cannot listen for the mesh at {address}: {reason}")]
    Bind {
        /// The address given.
        address: SocketAddr,
        /// What the transport said.
        reason: String,
    },
}

/// Those that this process speaks: all, but up to `GODWIT_PROTOCOL` in the failpoints build, so that hosts of two releases can be
/// seen to work together.
pub fn protocols() -> RangeInclusive<u8> {
    static SPOKEN: OnceLock<u8> = OnceLock::new();
    let newest = || {
        let told = if cfg!(feature = "test-util") { std::env::var("GODWIT_PROTOCOL").ok() } else { None };
        told.and_then(|told| told.parse().ok()).unwrap_or(*PROTOCOLS.end())
    };
    *PROTOCOLS.start()..=*SPOKEN.get_or_init(newest)
}

/// A host's place in the mesh.
///
/// Dropping it without `close` ends its tasks too, but peers may then only notice by silence.
pub struct IrohMesh {
    shared: Arc<Shared>,
}

/// What all tasks of a mesh share.
pub(crate) struct Shared {
    host: HostId,
    address: SocketAddr,
    greeter: Greeter,
    peers: PeerBook,
    handler: Arc<dyn MeshHandler>,
    arrivals: Arrivals,
    /// Taken out on close: the socket is freed when nobody holds the endpoint any more.
    endpoint: Mutex<Option<Endpoint>>,
    handshakes: Handshakes,
    bulks_in: Semaphore,
    bulks_out: Semaphore,
    tasks: TaskGroup,
}

impl IrohMesh {
    /// Starts listening. The handler may be called before this returns.
    ///
    /// # Errors
    /// `MeshStartError::Bind`; nothing runs then.
    pub async fn start(
        config: MeshConfig,
        handler: Arc<dyn MeshHandler>,
    ) -> Result<Arc<Self>, MeshStartError> {
        let greeter = Greeter { protocols: protocols(), instance: Instance::generate() };
        Self::start_as(greeter, config, handler).await
    }

    async fn start_as(
        greeter: Greeter,
        config: MeshConfig,
        handler: Arc<dyn MeshHandler>,
    ) -> Result<Arc<Self>, MeshStartError> {
        let secret_key = SecretKey::from_bytes(&config.secret_key);
        let host = HostId(*secret_key.public().as_bytes());
        let (endpoint, address) = endpoint::bind(secret_key, config.listen).await?;
        let peers = PeerBook::default();
        for (peer, address) in config.peers {
            peers.add(peer, address);
        }
        let shared = Arc::new(Shared {
            host,
            address,
            greeter,
            peers,
            handler,
            arrivals: Arrivals::default(),
            endpoint: Mutex::new(Some(endpoint.clone())),
            handshakes: Handshakes::default(),
            bulks_in: Semaphore::new(BULKS_MAX),
            bulks_out: Semaphore::new(BULKS_MAX),
            tasks: TaskGroup::default(),
        });
        shared.tasks.spawn(shared.clone().accept_connections(endpoint));
        shared.tasks.spawn(shared.clone().sweep_arrivals());
        info!(host = %host, %address, "mesh listens");
        Ok(Arc::new(Self { shared }))
    }
}

impl Shared {
    fn endpoint(&self) -> Result<Endpoint, DialError> {
        lock(&self.endpoint).clone().ok_or(DialError::Closed)
    }

    async fn close(&self) {
        self.tasks.shutdown().cancel();
        self.peers.retire_all();
        let endpoint = lock(&self.endpoint).take();
        if let Some(endpoint) = endpoint
            && within(CLOSE_MAX, endpoint.close()).await.is_none()
        {
            warn!(host = %self.host, "some peers did not acknowledge that the mesh closed");
        }
        self.tasks.close().await;
    }
}

#[async_trait]
impl Mesh for IrohMesh {
    fn local(&self) -> HostId {
        self.shared.host
    }

    fn local_address(&self) -> SocketAddr {
        self.shared.address
    }

    fn add_peer(&self, peer: HostId, address: SocketAddr) {
        self.shared.peers.add(peer, address);
    }

    fn remove_peer(&self, peer: HostId) -> bool {
        let was_listed = self.shared.peers.remove(peer);
        self.shared.arrivals.forget(peer);
        was_listed
    }

    fn peers(&self) -> Vec<Peer> {
        self.shared.peers.list()
    }

    async fn protocol(&self, peer: HostId, timeout: Duration) -> Result<u8, MeshError> {
        self.shared.protocol(peer, timeout).await
    }

    async fn request(&self, peer: HostId, body: Bytes, timeout: Duration) -> Result<Bytes, MeshError> {
        self.shared.request(peer, body, timeout).await
    }

    async fn send_bulk(
        &self,
        peer: HostId,
        header: Bytes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Sent, MeshError> {
        self.shared.send_bulk(peer, header, body, timeout).await
    }

    async fn close(&self) {
        self.shared.close().await;
    }
}

impl Drop for IrohMesh {
    fn drop(&mut self) {
        self.shared.tasks.shutdown().cancel();
        self.shared.peers.retire_all();
        drop(lock(&self.shared.endpoint).take());
    }
}

#[cfg(test)]
mod tests;
