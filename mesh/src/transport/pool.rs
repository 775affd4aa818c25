//! Links to peers: dialled when needed, reused, and found out when they are dead.
//!
//! A host that was killed says nothing, and one that was started again in its place knows nothing of old connections; QUIC
//! alone would notice after its idle timeout. So a link that was not heard of lately is pinged before use, and while an
//! answer is awaited; when the ping is not answered at once, a second connection asks which process lives there now:
//!
//! ```text
//! ping answered                           the link lives
//! the same process answers the dial       the link lives; it is only slow
//! another process answers the dial        the link is dead: certain
//! neither is answered for SILENCE_MAX     the link is given up
//! ```
//! One task at a time dials or asks about a peer; the others wait and use what it found.

use std::pin::pin;
use std::sync::Arc;

use godwit_core::time::{sleep, within};
use iroh::endpoint::Connection;
use iroh::{EndpointAddr, PublicKey};
use tokio::time::Instant;
use tracing::{debug, info};

use super::Shared;
use crate::handshake::{ALPN, Agreement, CloseCode, DialError, Purpose};
use crate::limits::{HANDSHAKE_MAX, PING_ALONE, SILENCE_MAX, SILENCE_MOVED_MAX, WATCH_EVERY};
use crate::peers::{Link, Peer};
use crate::wire::{self, Kind, WireError};

impl Shared {
    /// A link to the peer that is alive: a pooled one, else a new one.
    pub(super) async fn link(self: &Arc<Self>, peer: &Arc<Peer>) -> Result<Arc<Link>, DialError> {
        let since = Instant::now();
        if let Some(link) = peer.best()
            && link.is_fresh()
        {
            return Ok(link);
        }
        let _turn = peer.turn.lock().await;
        while let Some(link) = peer.best() {
            if link.is_fresh() || self.is_alive(peer, &link).await {
                return Ok(link);
            }
        }
        if let Some(failure) = peer.failure_since(since) {
            return Err(failure);
        }
        self.dial(peer).await.inspect_err(|failure| {
            debug!(peer = %peer.host, error = %failure, "dial failed");
            peer.fail(failure);
        })
    }

    /// Does work that waits for the peer, and meanwhile looks whether the link still lives. A dead one is closed, which ends
    /// the work.
    pub(super) async fn watched<T>(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        link: &Arc<Link>,
        work: impl Future<Output = T>,
    ) -> T {
        let watch = async {
            loop {
                sleep(WATCH_EVERY).await;
                if !link.is_fresh() && link.is_open() {
                    let _turn = peer.turn.lock().await;
                    if !link.is_fresh() && link.is_open() {
                        self.is_alive(peer, link).await;
                    }
                }
            }
        };
        // Both branches are cancel-safe: the watch holds nothing, and the work goes on where it was.
        tokio::select! {
            biased;
            done = work => done,
            never = watch => never,
        }
    }

    /// Finds out whether the peer's process behind a link lives. If not, its links are closed. Called by one at a time.
    async fn is_alive(self: &Arc<Self>, peer: &Arc<Peer>, link: &Arc<Link>) -> bool {
        let mut pinged = pin!(ping(link));
        let mut verdict = within(PING_ALONE, &mut pinged).await;
        if verdict.is_none() {
            let patience = if link.address == peer.address() { SILENCE_MAX } else { SILENCE_MOVED_MAX };
            verdict = within(patience - PING_ALONE, async {
                tokio::select! {
                    biased;
                    is_answered = &mut pinged => is_answered,
                    is_same = self.is_same_process(peer, link) => is_same,
                }
            })
            .await;
        }
        let is_alive = verdict.unwrap_or(false);
        if is_alive {
            link.touch();
        } else if link.is_open() {
            info!(peer = %peer.host, "peer's process is gone or silent");
            peer.bury(link.instance);
        } else {
            // It closed while it was asked. That says nothing of the peer's other links.
            peer.forget(link);
        }
        is_alive
    }

    /// Asks over a connection of its own which process of the peer lives. Does not end while none answers.
    async fn is_same_process(self: &Arc<Self>, peer: &Arc<Peer>, link: &Link) -> bool {
        match within(HANDSHAKE_MAX, self.greet(peer, Purpose::Probe)).await {
            Some(Ok((connection, agreement))) => {
                CloseCode::Done.close(&connection);
                agreement.instance == link.instance
            }
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    async fn dial(self: &Arc<Self>, peer: &Arc<Peer>) -> Result<Arc<Link>, DialError> {
        let greeted = within(HANDSHAKE_MAX, self.greet(peer, Purpose::Work)).await;
        let (connection, agreement) = greeted.ok_or(DialError::Silent)??;
        let link = peer.adopt(connection, agreement, true)?;
        debug!(peer = %peer.host, "connected");
        // The peer may use this connection for its own requests.
        self.tasks.spawn(self.clone().serve_link(peer.clone(), link.clone()));
        Ok(link)
    }

    /// Connects and greets. The peer has accepted this host once this is `Ok`.
    ///
    /// While a link to the peer is open the transport dials where that leads, and for a minute after that also to addresses
    /// the peer had before: a peer that moved is only found once its old links are closed.
    async fn greet(&self, peer: &Peer, purpose: Purpose) -> Result<(Connection, Agreement), DialError> {
        let key = PublicKey::from_bytes(&peer.host.0).map_err(|_| DialError::InvalidKey)?;
        let address = EndpointAddr::new(key).with_ip_addr(peer.address());
        let connection = self.endpoint()?.connect(address, ALPN).await?;
        let agreement = self.greeter.greet(&connection, purpose).await;
        let agreement = agreement.inspect_err(|_| CloseCode::Protocol.close(&connection))?;
        Ok((connection, agreement))
    }
}

/// Whether the peer answers on this link. Does not end while it is silent.
async fn ping(link: &Link) -> bool {
    let exchange = async {
        let (mut send, mut recv) = link.connection.open_bi().await.map_err(std::io::Error::from)?;
        let mut frame = wire::encode(link.protocol, Kind::Ping, bytes::Bytes::new());
        send.write_all_chunks(&mut frame).await.map_err(std::io::Error::from)?;
        wire::read_frame(&mut recv, link.protocol, Kind::Pong).await
    };
    let answered: Result<_, WireError> = exchange.await;
    answered.is_ok()
}
