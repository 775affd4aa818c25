//! A mesh inside one process: hosts find each other in a shared table. Delivers whole, in order, without delay unless a test
//! asks for one; a host that was cut off is unreachable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::Digest;
use crate::id::HostId;
use crate::mesh::{Bulk, Mesh, MeshError, MeshHandler, Peer, Sent};
use crate::time::{sleep, within};

/// The network that all hosts of a test share.
#[derive(Clone, Default)]
pub struct SimNetwork(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    handlers: BTreeMap<HostId, Arc<dyn MeshHandler>>,
    cut: BTreeSet<HostId>,
    /// Hosts that hear nothing, and whom nobody can tell from slow ones.
    silent: BTreeSet<HostId>,
    /// Hosts that do what they are asked, and whose answers get lost.
    unheard: BTreeSet<HostId>,
    /// Hosts whose next answer gets lost.
    unheard_once: BTreeSet<HostId>,
    bulk_delay: Duration,
    /// What was sent since somebody asked for it.
    tapped: Option<Vec<Bytes>>,
}

impl SimNetwork {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a host that knows all others.
    pub fn host(&self, host: HostId, handler: Arc<dyn MeshHandler>) -> Arc<SimMesh> {
        self.lock().handlers.insert(host, handler);
        Arc::new(SimMesh { network: self.clone(), host })
    }

    /// Cuts a host off, or joins it again.
    pub fn set_cut(&self, host: HostId, is_cut: bool) {
        let mut table = self.lock();
        if is_cut {
            table.cut.insert(host);
        } else {
            table.cut.remove(&host);
        }
    }

    /// Lets a host hear nothing from now on: whoever asks it waits until the time is over.
    pub fn silence(&self, host: HostId) {
        self.lock().silent.insert(host);
    }

    /// Loses the answers of a host from now on: it does what it is asked.
    pub fn lose_answers(&self, host: HostId) {
        self.lock().unheard.insert(host);
    }

    /// Loses the next answer of a host.
    pub fn lose_answer(&self, host: HostId) {
        self.lock().unheard_once.insert(host);
    }

    /// Whether the answer that a host has given now gets lost.
    fn loses_answer(&self, host: HostId) -> bool {
        let mut table = self.lock();
        table.unheard_once.remove(&host) || table.unheard.contains(&host)
    }

    /// Keeps what hosts send to each other from now on.
    pub fn tap(&self) {
        self.lock().tapped = Some(Vec::new());
    }

    /// What was sent since the tap.
    pub fn tapped(&self) -> Vec<Bytes> {
        self.lock().tapped.clone().unwrap_or_default()
    }

    fn hear(&self, body: &Bytes) {
        if let Some(tapped) = &mut self.lock().tapped {
            tapped.push(body.clone());
        }
    }

    /// Lets each bulk transfer take this long.
    pub fn set_bulk_delay(&self, delay: Duration) {
        self.lock().bulk_delay = delay;
    }

    fn reach(&self, from: HostId, to: HostId) -> Result<Arc<dyn MeshHandler>, MeshError> {
        let table = self.lock();
        let is_cut = table.cut.contains(&from) || table.cut.contains(&to);
        let handler = table.handlers.get(&to).cloned().ok_or(MeshError::UnknownPeer { peer: to })?;
        if is_cut { Err(MeshError::Unreachable { peer: to, reason: "cut off".into() }) } else { Ok(handler) }
    }
}

/// One host's end of the network.
pub struct SimMesh {
    network: SimNetwork,
    host: HostId,
}

impl SimMesh {
    async fn bounded(
        &self,
        peer: HostId,
        timeout: Duration,
        work: impl Future<Output = Bytes>,
    ) -> Result<Bytes, MeshError> {
        within(timeout, work).await.ok_or(MeshError::NoAnswer { peer, reason: "time is over".into() })
    }
}

#[async_trait]
impl Mesh for SimMesh {
    fn local(&self) -> HostId {
        self.host
    }

    fn local_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn add_peer(&self, _peer: HostId, _address: SocketAddr) {}

    fn remove_peer(&self, _peer: HostId) -> bool {
        false
    }

    fn peers(&self) -> Vec<Peer> {
        let table = self.network.lock();
        let others = table.handlers.keys().filter(|host| **host != self.host);
        others.map(|host| Peer::connected(*host, self.local_address())).collect()
    }

    async fn request(&self, peer: HostId, body: Bytes, timeout: Duration) -> Result<Bytes, MeshError> {
        let handler = self.network.reach(self.host, peer)?;
        self.network.hear(&body);
        if self.network.lock().silent.contains(&peer) {
            sleep(timeout).await;
            return Err(MeshError::NoAnswer { peer, reason: "time is over".into() });
        }
        let answer = self.bounded(peer, timeout, handler.on_request(self.host, body)).await;
        if self.network.loses_answer(peer) {
            return Err(MeshError::NoAnswer { peer, reason: "the answer got lost".into() });
        }
        answer
    }

    async fn send_bulk(
        &self,
        peer: HostId,
        header: Bytes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Sent, MeshError> {
        let handler = self.network.reach(self.host, peer)?;
        self.network.hear(&body);
        let (delay, digest) = (self.network.lock().bulk_delay, Digest::of(&body));
        let arriving = async {
            sleep(delay).await;
            handler.on_bulk(self.host, Bulk { header, body, digest }).await
        };
        let answer = self.bounded(peer, timeout, arriving).await?;
        Ok(Sent { answer, digest })
    }

    async fn close(&self) {
        self.network.lock().handlers.remove(&self.host);
    }
}
