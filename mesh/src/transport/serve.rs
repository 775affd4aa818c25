//! Receiving: connections of listed peers, their streams, and the handler behind them.
//!
//! One task per connection, one per stream. A handler that has begun is let finish even when its connection is gone; only
//! closing the mesh ends it early.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::id::HostId;
use godwit_core::limits::FRAME_BYTES_MAX;
use godwit_core::time::{sleep, within};
use iroh::Endpoint;
use iroh::endpoint::{Incoming, RecvStream, SendStream};
use tokio::sync::watch;
use tracing::{debug, info};

use super::Shared;
use crate::handshake::{CloseCode, Purpose};
use crate::limits::{CHUNK_TIME_MAX, FRAME_TIME_MAX, HANDSHAKE_MAX, HANDSHAKES_SPARE, SWEEP_EVERY};
use crate::peers::{Link, Peer};
use crate::transfer::{Arrival, Attachment, BulkOpen, BulkResume, Handled, WholeBody};
use crate::wire::{self, Header, Kind, Refusal, WireError};

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
            let is_pressed = self.handshakes.available_permits() < HANDSHAKES_SPARE;
            if is_pressed && !incoming.remote_addr_validated() {
                // Fails only for validated addresses.
                drop(incoming.retry());
                continue;
            }
            match self.handshakes.clone().try_acquire_owned() {
                Ok(permit) => {
                    let shared = self.clone();
                    self.tasks.spawn(async move {
                        let accepted = within(HANDSHAKE_MAX, shared.accept(incoming)).await;
                        drop(permit);
                        if let Some(Some((peer, link))) = accepted {
                            shared.serve_link(peer, link).await;
                        }
                    });
                }
                Err(_) => incoming.refuse(),
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
    async fn accept(&self, incoming: Incoming) -> Option<(Arc<Peer>, Arc<Link>)> {
        let connection = incoming.await.inspect_err(|err| debug!(error = %err, "handshake failed")).ok()?;
        let host = HostId(*connection.remote_id().as_bytes());
        let Some(peer) = self.peers.find(host) else {
            // Not louder: anyone can make this happen, as often as they like.
            debug!(peer = %host, "refused a connection of an unlisted key");
            CloseCode::Unlisted.close(&connection);
            return None;
        };
        let (agreement, purpose) = match self.greeter.welcome(&connection).await {
            Ok(greeted) => greeted,
            Err(err) => {
                info!(peer = %host, error = %err, "refused a connection");
                CloseCode::Protocol.close(&connection);
                return None;
            }
        };
        if purpose == Purpose::Probe {
            peer.supersede(agreement.instance);
            // The peer closes it when it has read the answer.
            connection.closed().await;
            return None;
        }
        let link = peer.adopt(connection, agreement, false).ok()?;
        debug!(peer = %host, "accepted");
        Some((peer, link))
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
                self.serve_bulk(peer.host, stream, wire::decode_typed(header.kind, &body)?).await
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
        let shutdown = self.tasks.shutdown();
        let work = async {
            let kib = u32::try_from(header.length.div_ceil(1024)).unwrap_or(u32::MAX);
            // Neither semaphore is ever closed.
            let _memory = peer.request_kib.acquire_many(kib).await;
            let body = stream.read_body(header).await?;
            let _turn = peer.requests_in.acquire().await;
            Ok::<_, WireError>(self.handler.on_request(peer.host, body).await)
        };
        let answer = shutdown.run_until_cancelled(work).await.ok_or(closing)??;
        stream.answer(answer).await
    }

    async fn serve_bulk(&self, from: HostId, stream: &mut Stream, open: BulkOpen) -> Result<(), WireError> {
        let _slot = self.bulks_in.try_acquire().map_err(|_| WireError::Refused(Refusal::Busy))?;
        let arrival = self.arrivals.open(from, open).map_err(WireError::Refused)?;
        let attachment = arrival.attach();
        let resume = BulkResume { offset: attachment.offset() };
        stream.write(wire::encode_typed(stream.protocol, Kind::BulkResume, &resume)).await?;
        let handled = self.receive(from, stream, &arrival, &attachment).await?;
        let shutdown = self.tasks.shutdown();
        match shutdown.run_until_cancelled(outcome(handled)).await {
            Some(Handled::Answer(answer)) => stream.answer(answer).await,
            Some(Handled::Failed | Handled::NotYet) => Err(WireError::Refused(Refusal::Failed)),
            None => Err(WireError::Refused(Refusal::Closing)),
        }
    }

    /// Receives chunks until the body is whole, and sees to it that the handler gets it once.
    async fn receive(
        &self,
        from: HostId,
        stream: &mut Stream,
        arrival: &Arc<Arrival>,
        attachment: &Attachment,
    ) -> Result<watch::Receiver<Handled>, WireError> {
        let mut chunk = Bytes::new();
        loop {
            if let Some(whole) = attachment.append(&chunk).map_err(WireError::Refused)? {
                self.handle_bulk(from, arrival.header.clone(), whole);
            }
            if let Some(handled) = arrival.handled() {
                return Ok(handled);
            }
            let next = wire::read_frame(&mut stream.recv, stream.protocol, Kind::BulkChunk);
            chunk = in_time(CHUNK_TIME_MAX, next).await?;
            if chunk.is_empty() {
                return Err(WireError::Refused(Refusal::Malformed));
            }
        }
    }

    /// Runs the handler apart from the stream, so that a resumed transfer finds its answer.
    fn handle_bulk(&self, from: HostId, header: Bytes, whole: WholeBody) {
        let WholeBody { body, handled } = whole;
        let handler = self.handler.clone();
        let shutdown = self.tasks.shutdown();
        self.tasks.spawn(async move {
            let answer = shutdown.run_until_cancelled(handler.on_bulk(from, header, body)).await;
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

async fn in_time<T>(
    limit: std::time::Duration,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let slow = || WireError::Broken { reason: format!("nothing whole within {} s", limit.as_secs()) };
    within(limit, work).await.unwrap_or_else(|| Err(slow()))
}
