//! The mesh between simulated hosts. A request is handled by tasks of the process that gets it, so that it stops and dies with
//! it. Messages take time, and they or their answers get lost, as the weather says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use godwit_core::id::HostId;
use godwit_core::mesh::{Mesh, MeshError, MeshHandler, Peer};
use godwit_core::time::within;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::cage::Cage;
use crate::weather::Passage;
use crate::world::World;

/// Who listens under a key.
struct Station {
    cage: Arc<Cage>,
    handler: Arc<dyn MeshHandler>,
    address: SocketAddr,
}

/// The network of a run.
pub struct Network {
    world: Arc<World>,
    stations: Mutex<BTreeMap<HostId, Station>>,
}

impl Network {
    /// A network without hosts.
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, stations: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostId, Station>> {
        self.stations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a process. It takes the place of an older one under the same key.
    pub fn join(
        self: &Arc<Self>,
        (host, address): (HostId, SocketAddr),
        cage: &Arc<Cage>,
        handler: Arc<dyn MeshHandler>,
    ) -> Arc<SimMesh> {
        self.lock().insert(host, Station { cage: cage.clone(), handler, address });
        Arc::new(SimMesh { network: self.clone(), host, address })
    }

    /// Lets go of all processes.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

/// One process's end of the network.
pub struct SimMesh {
    network: Arc<Network>,
    host: HostId,
    address: SocketAddr,
}

impl SimMesh {
    async fn carry(
        &self,
        peer: HostId,
        timeout: Duration,
        handle: impl FnOnce(Arc<dyn MeshHandler>) -> BoxFuture<'static, Bytes> + Send,
    ) -> Result<Bytes, MeshError> {
        let world = &self.network.world;
        let silent = || MeshError::NoAnswer { peer, reason: "lost".into() };
        let Passage { there, back, is_lost, is_unheard } = world.weather().passage();
        let work = async {
            sleep(there).await;
            if is_lost {
                return Err(silent());
            }
            let station =
                self.network.lock().get(&peer).map(|there| (there.cage.clone(), there.handler.clone()));
            let (cage, handler) = station.ok_or(MeshError::UnknownPeer { peer })?;
            if !cage.is_alive() {
                return Err(MeshError::Unreachable { peer, reason: "its process is dead".into() });
            }
            let (answer, answered) = oneshot::channel();
            let handling = handle(handler);
            cage.spawn(Box::pin(async move { drop(answer.send(handling.await)) }));
            let bytes = answered.await.map_err(|_| silent())?;
            sleep(back).await;
            if is_unheard { Err(silent()) } else { Ok(bytes) }
        };
        within(timeout, work).await.unwrap_or_else(|| Err(silent()))
    }
}

#[async_trait]
impl Mesh for SimMesh {
    fn local(&self) -> HostId {
        self.host
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn add_peer(&self, _: HostId, _: SocketAddr) {}

    fn remove_peer(&self, _: HostId) -> bool {
        false
    }

    fn peers(&self) -> Vec<Peer> {
        let stations = self.network.lock();
        let others = stations.iter().filter(|(host, _)| **host != self.host);
        others.map(|(host, there)| Peer::connected(*host, there.address)).collect()
    }

    async fn request(&self, peer: HostId, body: Bytes, timeout: Duration) -> Result<Bytes, MeshError> {
        let from = self.host;
        self.carry(peer, timeout, move |handler| {
            Box::pin(async move { handler.on_request(from, body).await })
        })
        .await
    }

    async fn send_bulk(
        &self,
        peer: HostId,
        header: Bytes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, MeshError> {
        let from = self.host;
        let handle = move |handler: Arc<dyn MeshHandler>| -> BoxFuture<'static, Bytes> {
            Box::pin(async move { handler.on_bulk(from, header, body).await })
        };
        self.carry(peer, timeout, handle).await
    }

    async fn close(&self) {
        let mut stations = self.network.lock();
        if stations.get(&self.host).is_some_and(|station| station.address == self.address) {
            stations.remove(&self.host);
        }
    }
}
