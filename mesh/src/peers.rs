//! The allow list: which keys are peers, where each is dialled, and what is open to it.
//!
//! `PeerBook` is the list, `Peer` one entry, `Link` one open connection. Locks are held for a few lines, never across a
//! wait. Who dials and when a link counts as dead is in `transport/pool.rs`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_core::id::HostId;
use godwit_core::mesh;
use iroh::endpoint::Connection;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::handshake::{Agreement, CloseCode, DialError, Instance};
use crate::limits::{
    BULKS_OF_PEER_MAX, CONNECTIONS_MAX, FRESH_MAX, GREETINGS_MAX, REQUEST_BYTES_MAX, STREAMS_MAX,
};

/// A poisoned lock is taken all the same: each section leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All listed peers, by key.
#[derive(Debug, Default)]
pub(crate) struct PeerBook {
    peers: Mutex<BTreeMap<HostId, Arc<Peer>>>,
}

impl PeerBook {
    /// Lists a peer, or gives a listed one another address. Open links stay: they lead to the right key.
    pub(crate) fn add(&self, host: HostId, address: SocketAddr) {
        let mut peers = lock(&self.peers);
        match peers.get(&host) {
            Some(peer) => lock(&peer.state).address = address,
            None => drop(peers.insert(host, Arc::new(Peer::new(host, address)))),
        }
    }

    /// Forgets a peer and closes its links. Answers whether it was listed.
    pub(crate) fn remove(&self, host: HostId) -> bool {
        let removed = lock(&self.peers).remove(&host);
        removed.inspect(|peer| peer.retire(CloseCode::Unlisted)).is_some()
    }

    /// A listed peer.
    pub(crate) fn find(&self, host: HostId) -> Option<Arc<Peer>> {
        lock(&self.peers).get(&host).cloned()
    }

    /// All listed peers as the port shows them.
    pub(crate) fn list(&self) -> Vec<mesh::Peer> {
        let show = |peer: &Arc<Peer>| mesh::Peer {
            host: peer.host,
            address: peer.address(),
            is_connected: peer.best().is_some(),
            protocol: peer.best().map(|link| link.protocol),
            limited: peer.limited.load(Ordering::Relaxed),
            trouble: peer.trouble(),
        };
        lock(&self.peers).values().map(show).collect()
    }

    /// Closes every link of every peer and lets none open again. The list stays.
    pub(crate) fn retire_all(&self) {
        for peer in lock(&self.peers).values() {
            peer.retire(CloseCode::Closing);
        }
    }
}

/// A listed peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) host: HostId,
    state: Mutex<PeerState>,
    /// Held by whoever dials it or asks whether it lives: one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Requests to it that are under way.
    pub(crate) requests_out: Semaphore,
    /// Requests of it that are being handled, over all its connections.
    pub(crate) requests_in: Semaphore,
    /// Bytes of those requests' bodies, in KiB.
    pub(crate) request_kib: Semaphore,
    /// Transfers that arrive from it.
    pub(crate) bulks_in: Semaphore,
    /// Greetings of it that are under way.
    pub(crate) greetings: Semaphore,
    /// Set when it was taken off the list or the mesh closes: nothing that it has asked is begun or gone on with.
    pub(crate) retired: CancellationToken,
    /// How often it was over a limit.
    limited: AtomicU64,
}

#[derive(Debug)]
struct PeerState {
    address: SocketAddr,
    links: Vec<Arc<Link>>,
    /// Why no link opens any more.
    retired: Option<CloseCode>,
    /// When the last dial failed, and why.
    failure: Option<(Instant, DialError)>,
    /// What an operator should know, until a connection comes up.
    trouble: Option<String>,
}

impl Peer {
    fn new(host: HostId, address: SocketAddr) -> Self {
        Self {
            host,
            state: Mutex::new(PeerState {
                address,
                links: Vec::new(),
                retired: None,
                failure: None,
                trouble: None,
            }),
            turn: tokio::sync::Mutex::new(()),
            requests_out: Semaphore::new(STREAMS_MAX),
            requests_in: Semaphore::new(STREAMS_MAX),
            request_kib: Semaphore::new(REQUEST_BYTES_MAX / 1024),
            bulks_in: Semaphore::new(BULKS_OF_PEER_MAX),
            greetings: Semaphore::new(GREETINGS_MAX),
            retired: CancellationToken::new(),
            limited: AtomicU64::new(0),
        }
    }

    /// Where it is dialled.
    pub(crate) fn address(&self) -> SocketAddr {
        lock(&self.state).address
    }

    /// The link to use: one that this host dialled, else one that the peer did.
    pub(crate) fn best(&self) -> Option<Arc<Link>> {
        let mut state = lock(&self.state);
        state.links.retain(|link| link.is_open());
        let dialled = state.links.iter().find(|link| link.is_dialled);
        dialled.or(state.links.first()).cloned()
    }

    /// Takes up a new connection. Links to an older process of the peer are closed: it is gone.
    ///
    /// # Errors
    /// `Removed` when the peer was taken off the list or the mesh closed meanwhile; so is the connection.
    pub(crate) fn adopt(
        &self,
        connection: Connection,
        agreement: Agreement,
        is_dialled: bool,
    ) -> Result<Arc<Link>, DialError> {
        self.supersede(agreement.instance);
        let mut state = lock(&self.state);
        if let Some(code) = state.retired {
            code.close(&connection);
            return Err(DialError::Removed);
        }
        let accepted = state.links.iter().filter(|link| !link.is_dialled).count();
        if !is_dialled
            && accepted >= CONNECTIONS_MAX
            && let Some(oldest) = state.links.iter().position(|link| !link.is_dialled)
        {
            CloseCode::Surplus.close(&state.links.remove(oldest).connection);
        }
        let link = Arc::new(Link {
            connection,
            protocol: agreement.protocol,
            instance: agreement.instance,
            address: state.address,
            is_dialled,
            heard: Mutex::new(Instant::now()),
        });
        state.links.push(link.clone());
        (state.failure, state.trouble) = (None, None);
        Ok(link)
    }

    /// Closes all links to processes of the peer other than this one.
    pub(crate) fn supersede(&self, living: Instance) {
        self.close_where(CloseCode::Dead, |link| link.instance != living);
    }

    /// Closes all links to this process of the peer.
    pub(crate) fn bury(&self, dead: Instance) {
        self.close_where(CloseCode::Dead, |link| link.instance == dead);
    }

    /// Forgets one link.
    pub(crate) fn forget(&self, link: &Arc<Link>) {
        lock(&self.state).links.retain(|other| !Arc::ptr_eq(other, link));
    }

    /// Remembers why a dial failed, for those who waited for it.
    pub(crate) fn fail(&self, failure: &DialError) {
        let mut state = lock(&self.state);
        state.failure = Some((Instant::now(), failure.clone()));
        state.trouble = Some(failure.to_string());
    }

    /// Remembers why there is no connection, for an operator.
    pub(crate) fn note(&self, trouble: &dyn Display) {
        lock(&self.state).trouble = Some(trouble.to_string());
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    /// Counts that the peer was over a limit. The log hears of the 1st, 2nd, 4th, 8th...: it can't be flooded so.
    pub(crate) fn count_limited(&self, limit: &'static str) {
        let times = 1 + self.limited.fetch_add(1, Ordering::Relaxed);
        if times.is_power_of_two() {
            warn!(peer = %self.host, limit, times, "a peer is at a limit");
        }
    }

    /// Why the last dial failed, if that was after `since`.
    pub(crate) fn failure_since(&self, since: Instant) -> Option<DialError> {
        let state = lock(&self.state);
        state.failure.as_ref().filter(|(at, _)| *at >= since).map(|(_, failure)| failure.clone())
    }

    fn retire(&self, code: CloseCode) {
        lock(&self.state).retired = Some(code);
        self.retired.cancel();
        self.close_where(code, |_| true);
    }

    fn close_where(&self, code: CloseCode, is_over: impl Fn(&Link) -> bool) {
        let mut state = lock(&self.state);
        state.links.retain(|link| {
            let is_kept = !is_over(link);
            if !is_kept {
                code.close(&link.connection);
            }
            is_kept
        });
    }
}

/// One open connection to a peer. Either side opens streams on it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) protocol: u8,
    /// The peer's process.
    pub(crate) instance: Instance,
    /// Where the peer was listed when the link opened.
    pub(crate) address: SocketAddr,
    is_dialled: bool,
    heard: Mutex<Instant>,
}

impl Link {
    /// Whether it is not closed, as far as this side knows.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Notes that the peer has just been heard of here.
    pub(crate) fn touch(&self) {
        *lock(&self.heard) = Instant::now();
    }

    /// Whether it is open and the peer has been heard of lately.
    pub(crate) fn is_fresh(&self) -> bool {
        self.silence() < FRESH_MAX && self.is_open()
    }

    /// How long the peer has not been heard of here.
    pub(crate) fn silence(&self) -> Duration {
        lock(&self.heard).elapsed()
    }
}
