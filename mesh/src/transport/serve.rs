//! Receiving: connections of listed peers, their streams, and the handler behind them.
//!
//! One task per connection, one per stream. A handler that has begun is let finish even when its connection is gone; closing
//! the mesh ends it early, and so does taking the peer off the list. What a peer asks for beyond its limits waits a moment, is
//! told "busy", and is counted; it holds up nobody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_core::id::HostId;
use godwit_core::limits::FRAME_BYTES_MAX;
use godwit_core::mesh::Bulk;
use godwit_core::time::{sleep, within};
use iroh::Endpoint;
use iroh::endpoint::{Connection, Incoming, IncomingAddr, RecvStream, SendStream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Shared;
use super::handshakes::Handshake;
use crate::handshake::{Agreement, CloseCode, DialError, Purpose};
use crate::limits::{BULK_RATE_MIN, CHUNK_TIME_MAX, FRAME_TIME_MAX, HANDSHAKE_MAX, QUEUE_MAX, SWEEP_EVERY};
use crate::peers::{Link, Peer};
use crate::transfer::{Arrival, Attachment, BulkOpen, BulkResume, Handled, WholeBody};
use crate::wire::{self, Chunk, Header, Kind, Refusal, WireError};

/// Both ends of a stream that a peer opened.
struct Stream {
    send: SendStream,
    recv: RecvStream,
    protocol: u8,
}

impl Shared {
    /// Accepts connections until the mesh closes.
    pub(super) async fn accept_connections(self: Arc<Self>, endpoint: Endpoint) {
        let shutdown = self.tasks.shutdown();
        loop {
            // Cancel-safe: accepting takes nothing until it is done.
            let incoming = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            if self.handshakes.are_pressed() && !incoming.remote_addr_validated() {
                // Fails only for validated addresses.
                drop(incoming.retry());
                continue;
            }
            match self.handshakes.try_begin(address_of(&incoming)) {
                Some(handshake) => {
                    let shared = self.clone();
                    self.tasks.spawn(async move {
                        let accepted = within(HANDSHAKE_MAX, shared.accept(incoming, handshake)).await;
                        if let Some(Some((peer, link))) = accepted {
                            shared.serve_link(peer, link).await;
                        }
                    });
                }
                None => incoming.refuse(),
            }
        }
    }

    /// Drops kept transfers in time, until the mesh closes.
    pub(super) async fn sweep_arrivals(self: Arc<Self>) {
        let shutdown = self.tasks.shutdown();
        while shutdown.run_until_cancelled(sleep(SWEEP_EVERY)).await.is_some() {
            self.arrivals.sweep();
        }
    }

    /// Completes the handshakes. `None` when the other side is no peer, or only asked who is here.
    async fn accept(&self, incoming: Incoming, handshake: Handshake) -> Option<(Arc<Peer>, Arc<Link>)> {
        let connection = incoming.await.inspect_err(|err| debug!(error = %err, "handshake failed")).ok()?;
        // From here on it is known whose it is, and its own limits count.
        drop(handshake);
        let host = HostId(*connection.remote_id().as_bytes());
        let Some(peer) = self.peers.find(host) else {
            // Not louder: anyone can make this happen, as often as they like.
            debug!(peer = %host, "refused a connection of an unlisted key");
            CloseCode::Unlisted.close(&connection);
            return None;
        };
        let agreement = self.greeted(&peer, &connection).await?;
        let link = peer.adopt(connection, agreement, false).ok()?;
        debug!(peer = %host, "accepted");
        Some((peer, link))
    }

    /// Answers a peer's greeting. `None` when it gets no link.
    async fn greeted(&self, peer: &Peer, connection: &Connection) -> Option<Agreement> {
        let host = peer.host;
        let Ok(_greeting) = peer.greetings.try_acquire() else {
            peer.count_limited("greetings");
            CloseCode::Surplus.close(connection);
            return None;
        };
        let (agreement, purpose) = match self.greeter.welcome(connection).await {
            Ok(greeted) => greeted,
            Err(err) => {
                info!(peer = %host, error = %err, "refused a connection");
                if let WireError::NoCommon(what) = &err {
                    peer.note(what);
                }
                CloseCode::Protocol.close(connection);
                return None;
            }
        };
        if purpose == Purpose::Probe {
            peer.supersede(agreement.instance);
            // The peer closes it when it has read the answer.
            connection.closed().await;
            return None;
        }
        Some(agreement)
    }

    /// Serves the streams that the peer opens on a link, until it closes.
    pub(super) async fn serve_link(self: Arc<Self>, peer: Arc<Peer>, link: Arc<Link>) {
        while let Ok((send, recv)) = link.connection.accept_bi().await {
            // Nothing here is sent or wanted before the handshake has proven who speaks.
            if recv.is_0rtt() {
                CloseCode::Protocol.close(&link.connection);
                break;
            }
            link.touch();
            let stream = Stream { send, recv, protocol: link.protocol };
            self.tasks.spawn(self.clone().serve_stream(peer.clone(), stream));
        }
        peer.forget(&link);
        let reason = link.connection.close_reason();
        debug!(peer = %peer.host, error = ?reason, "connection ended");
        if let Some(reason) = reason.as_ref().map(DialError::from).filter(|why| *why == DialError::Unlisted) {
            warn!(peer = %peer.host, "a peer has taken this host off its list");
            peer.note(&reason);
        }
    }

    async fn serve_stream(self: Arc<Self>, peer: Arc<Peer>, mut stream: Stream) {
        let served = self.serve_frame(&peer, &mut stream).await;
        let Err(err) = served else { return };
        debug!(peer = %peer.host, error = %err, "stream failed");
        let refusal = match err {
            WireError::Refused(refusal) => refusal,
            WireError::Digest => Refusal::Damaged,
            WireError::Length { length, max } => Refusal::TooLarge { size: length, max: max as u64 },
            // Nobody is there to read it.
            WireError::Broken { .. } | WireError::Truncated => return,
            _ => Refusal::Malformed,
        };
        let frame = wire::encode_typed(stream.protocol, Kind::Refused, &refusal);
        // Whoever does not read the refusal meets the end of the stream.
        drop(stream.write(frame).await);
    }

    async fn serve_frame(&self, peer: &Arc<Peer>, stream: &mut Stream) -> Result<(), WireError> {
        let header = in_time(FRAME_TIME_MAX, wire::read_header(&mut stream.recv, stream.protocol)).await?;
        match header.kind {
            Kind::Ping => {
                stream.read_body(&header).await?;
                stream.write(wire::encode(stream.protocol, Kind::Pong, Bytes::new())).await
            }
            Kind::Request => self.serve_request(peer, stream, &header).await,
            Kind::BulkOpen => {
                let body = stream.read_body(&header).await?;
                self.serve_bulk(peer, stream, wire::decode_typed(header.kind, &body)?).await
            }
            found => Err(WireError::OutOfPlace { found }),
        }
    }

    async fn serve_request(
        &self,
        peer: &Peer,
        stream: &mut Stream,
        header: &Header,
    ) -> Result<(), WireError> {
        let closing = WireError::Refused(Refusal::Closing);
        let busy = |limit| {
            peer.count_limited(limit);
            WireError::Refused(Refusal::Busy)
        };
        let work = async {
            let kib = u32::try_from(header.length.div_ceil(1024)).unwrap_or(u32::MAX);
            // Neither semaphore is ever closed.
            let memory = within(QUEUE_MAX, peer.request_kib.acquire_many(kib)).await;
            let _memory = memory.ok_or_else(|| busy("bytes of requests"))?;
            let body = stream.read_body(header).await?;
            let turn = within(QUEUE_MAX, peer.requests_in.acquire()).await;
            let turn = turn.ok_or_else(|| busy("requests"))?;
            Ok::<_, WireError>((self.handler.on_request(peer.host, body).await, turn))
        };
        // Retired when the mesh closes, too. An answer that is not read takes the place of a request.
        let (answer, _turn) = peer.retired.run_until_cancelled(work).await.ok_or(closing)??;
        stream.answer(answer).await
    }

    async fn serve_bulk(&self, peer: &Peer, stream: &mut Stream, open: BulkOpen) -> Result<(), WireError> {
        let busy = |limit| {
            peer.count_limited(limit);
            WireError::Refused(Refusal::Busy)
        };
        let _own = peer.bulks_in.try_acquire().map_err(|_| busy("transfers"))?;
        // Not this peer's doing.
        let _slot = self.bulks_in.try_acquire().map_err(|_| WireError::Refused(Refusal::Busy))?;
        let arrival = self.arrivals.open(peer.host, open).map_err(|refusal| match refusal {
            Refusal::Busy => busy("bytes of transfers"),
            refusal => WireError::Refused(refusal),
        })?;
        let attachment = arrival.attach();
        let resume = BulkResume { offset: attachment.offset() };
        stream.write(wire::encode_typed(stream.protocol, Kind::BulkResume, &resume)).await?;
        let limit = CHUNK_TIME_MAX + Duration::from_secs(arrival.missing_bytes() / BULK_RATE_MIN);
        let received = in_time(limit, self.receive(peer, stream, &arrival, &attachment));
        let received = peer.retired.run_until_cancelled(received).await;
        let handled = received.unwrap_or(Err(WireError::Refused(Refusal::Closing)))?;
        match peer.retired.run_until_cancelled(outcome(handled)).await {
            Some(Handled::Answer(answer)) => stream.answer(answer).await,
            Some(Handled::Failed | Handled::NotYet) => Err(WireError::Refused(Refusal::Failed)),
            None => Err(WireError::Refused(Refusal::Closing)),
        }
    }

    /// Receives chunks until the body is whole, and sees to it that the handler gets it once.
    async fn receive(
        &self,
        peer: &Peer,
        stream: &mut Stream,
        arrival: &Arc<Arrival>,
        attachment: &Attachment,
    ) -> Result<watch::Receiver<Handled>, WireError> {
        let mut chunk = Chunk { offset: attachment.offset(), ..Chunk::default() };
        loop {
            if let Some(whole) = attachment.append(&chunk).map_err(WireError::Refused)? {
                self.handle_bulk(peer, arrival.header.clone(), whole);
            }
            if let Some(handled) = arrival.handled() {
                return Ok(handled);
            }
            chunk = in_time(CHUNK_TIME_MAX, wire::read_chunk(&mut stream.recv, stream.protocol)).await?;
            if chunk.bytes.is_empty() {
                return Err(WireError::Refused(Refusal::Malformed));
            }
        }
    }

    /// Runs the handler apart from the stream, so that a resumed transfer finds its answer.
    fn handle_bulk(&self, peer: &Peer, header: Bytes, whole: WholeBody) {
        let WholeBody { body, digest, handled } = whole;
        let bulk = Bulk { header, body, digest };
        let handler = self.handler.clone();
        let (from, retired) = (peer.host, peer.retired.clone());
        self.tasks.spawn(async move {
            let answer = retired.run_until_cancelled(handler.on_bulk(from, bulk)).await;
            let outcome = match answer {
                Some(answer) if answer.len() <= FRAME_BYTES_MAX => Handled::Answer(answer),
                _ => Handled::Failed,
            };
            handled.send_replace(outcome);
        });
    }
}

impl Stream {
    async fn read_body(&mut self, header: &Header) -> Result<Bytes, WireError> {
        in_time(FRAME_TIME_MAX, wire::read_body(&mut self.recv, header)).await
    }

    async fn write(&mut self, mut frame: [Bytes; 2]) -> Result<(), WireError> {
        let written = async { self.send.write_all_chunks(&mut frame).await.map_err(std::io::Error::from) };
        in_time(FRAME_TIME_MAX, async { Ok(written.await?) }).await
    }

    async fn answer(&mut self, answer: Bytes) -> Result<(), WireError> {
        if answer.len() > FRAME_BYTES_MAX {
            return Err(WireError::Refused(Refusal::Failed));
        }
        self.write(wire::encode(self.protocol, Kind::Answer, answer)).await
    }
}

/// Waits for the handler of a bulk transfer. A handler that died says nothing more.
async fn outcome(mut handled: watch::Receiver<Handled>) -> Handled {
    match handled.wait_for(|handled| *handled != Handled::NotYet).await {
        Ok(handled) => handled.clone(),
        Err(_) => Handled::Failed,
    }
}

fn address_of(incoming: &Incoming) -> IpAddr {
    match incoming.remote_addr() {
        IncomingAddr::Ip(address) => address.ip(),
        // There are no others here.
        _ => IpAddr::from([0, 0, 0, 0]),
    }
}

async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let slow = || WireError::Broken { reason: format!("nothing whole within {} s", limit.as_secs()) };
    within(limit, work).await.unwrap_or_else(|| Err(slow()))
}
