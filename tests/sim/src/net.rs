//! The mesh between simulated hosts. A request is handled by tasks of the process that gets it, so that it stops and dies with
//! it. Messages take time, they or their answers get lost, and some come a second time, late, as the weather says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use godwit_core::digest::Digest;
use godwit_core::id::HostId;
use godwit_core::mesh::{Bulk, Mesh, MeshError, MeshHandler, Peer, Sent};
use godwit_core::time::within;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

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

/// What whoever gets a message does with it.
type Handle = Arc<dyn Fn(Arc<dyn MeshHandler>) -> BoxFuture<'static, Bytes> + Send + Sync>;

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
        may_repeat: bool,
        handle: Handle,
    ) -> Result<Bytes, MeshError> {
        let world = &self.network.world;
        let silent = || MeshError::NoAnswer { peer, reason: "lost".into() };
        let Passage { there, back, is_lost, is_unheard, again } =
            world.weather().passage([self.host, peer], Instant::now());
        if let Some(later) = again.filter(|_| may_repeat) {
            self.once_more(peer, there + later, handle.clone());
        }
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

impl SimMesh {
    /// Lets a message come a second time, whatever has become of the first one and of who sent it.
    fn once_more(&self, peer: HostId, later: Duration, handle: Handle) {
        let network = self.network.clone();
        self.network.world.outside.spawn(Box::pin(async move {
            sleep(later).await;
            let station = network.lock().get(&peer).map(|there| (there.cage.clone(), there.handler.clone()));
            if let Some((cage, handler)) = station.filter(|(cage, _)| cage.is_alive()) {
                network.world.note(format_args!("a message comes once more"));
                let handling = handle(handler);
                cage.spawn(Box::pin(async move { drop(handling.await) }));
            }
        }));
    }
}

/// The place of `PeerRequest::Call` and `PeerRequest::Host` among the variants of a request, behind its version: what they ask for
/// is done once for each time that it is asked.
const CALLS: [u8; 2] = [2, 7];

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
        let may_repeat = !body.get(1).is_some_and(|variant| CALLS.contains(variant));
        let handle: Handle = Arc::new(move |handler| {
            let body = body.clone();
            Box::pin(async move { handler.on_request(from, body).await })
        });
        self.carry(peer, timeout, may_repeat, handle).await
    }

    async fn send_bulk(
        &self,
        peer: HostId,
        header: Bytes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Sent, MeshError> {
        let from = self.host;
        let digest = Digest::of(&body);
        let handle: Handle = Arc::new(move |handler| {
            let bulk = Bulk { header: header.clone(), body: body.clone(), digest };
            Box::pin(async move { handler.on_bulk(from, bulk).await })
        });
        let answer = self.carry(peer, timeout, true, handle).await?;
        Ok(Sent { answer, digest })
    }

    async fn close(&self) {
        let mut stations = self.network.lock();
        if stations.get(&self.host).is_some_and(|station| station.address == self.address) {
            stations.remove(&self.host);
        }
    }
}
