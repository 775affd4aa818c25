//! Sending: requests, and bulk transfers that survive broken connections.
//!
//! What decides the error is whether the peer can have acted. It acts on whole frames only, so a request counts as sent
//! when its last byte was handed to the transport, and a transfer when its last chunk was. Before that a broken connection
//! is replaced and the work done over; afterwards a request is never repeated, and a transfer only towards the same process
//! of the peer, which knows what it has.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::id::HostId;
use godwit_core::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use godwit_core::mesh::{BULK_BYTES_MAX, MeshError, Sent};
use godwit_core::retry::Backoff;
use godwit_core::time::{Clock, SystemClock, sleep, within};
use iroh::endpoint::{RecvStream, SendStream, WriteError};
use tracing::debug;

use super::Shared;
use crate::handshake::DialError;
use crate::limits::{BULK_HEADER_BYTES_MAX, BUSY_FIRST, BUSY_MAX, RESUME_FIRST, RESUME_MAX};
use crate::peers::{Link, Peer, lock};
use crate::transfer::{BulkOpen, BulkResume, TransferId};
use crate::wire::{self, Kind, Refusal, WireError};

/// Bulk streams yield to requests on the same connection, whose priority is 0.
const BULK_PRIORITY: i32 = -1;

/// Why one try of a call failed.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection or the stream failed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl CallError {
    fn broken(err: impl Into<std::io::Error>) -> Self {
        Self::Wire(err.into().into())
    }

    /// Whether a transfer goes on after it: the peer knows what it has.
    fn is_passing(&self) -> bool {
        match self {
            Self::Dial(err) => matches!(err, DialError::Silent | DialError::Transport { .. }),
            Self::Wire(err) => matches!(
                err,
                WireError::Broken { .. }
                    | WireError::Truncated
                    | WireError::Digest
                    | WireError::Refused(Refusal::Busy | Refusal::Damaged)
            ),
        }
    }
}

/// How far a call has come, kept outside the future that its deadline may drop.
#[derive(Default)]
struct Course {
    has_begun: AtomicBool,
    is_sent: AtomicBool,
    /// Why the last try failed.
    setback: Mutex<Option<String>>,
}

impl Course {
    /// Whether this is the first time that something is sent. It is not afterwards.
    fn begins(&self) -> bool {
        !self.has_begun.swap(true, Ordering::Relaxed)
    }

    /// Everything was handed to the transport.
    fn set_sent(&self) {
        self.is_sent.store(true, Ordering::Relaxed);
    }

    /// The peer has said that it did nothing with it.
    fn set_unsent(&self) {
        self.is_sent.store(false, Ordering::Relaxed);
    }

    fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    fn set_back(&self, peer: HostId, err: &CallError) {
        debug!(peer = %peer, error = %err, "call is interrupted");
        *lock(&self.setback) = Some(err.to_string());
    }

    fn error(&self, peer: HostId, reason: String) -> MeshError {
        if self.is_sent() {
            MeshError::NoAnswer { peer, reason }
        } else {
            MeshError::Unreachable { peer, reason }
        }
    }

    /// Bounds the call, and judges its outcome.
    async fn run<T>(
        &self,
        peer: HostId,
        timeout: Duration,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, MeshError> {
        match within(timeout, work).await {
            Some(Err(CallError::Dial(DialError::Protocol(what)))) => {
                Err(MeshError::Incompatible { peer, reason: what.to_string() })
            }
            Some(outcome) => outcome.map_err(|err| self.error(peer, err.to_string())),
            None => {
                let setback = lock(&self.setback).take();
                let detail = setback.map(|reason| format!("; before that: {reason}")).unwrap_or_default();
                Err(self.error(peer, format!("nothing within {} ms{detail}", timeout.as_millis())))
            }
        }
    }
}

impl Shared {
    pub(super) async fn protocol(self: &Arc<Self>, host: HostId, timeout: Duration) -> Result<u8, MeshError> {
        let peer = self.peers.find(host).ok_or(MeshError::UnknownPeer { peer: host })?;
        let work = async { Ok(self.link(&peer).await?.protocol) };
        Course::default().run(host, timeout, work).await
    }

    pub(super) async fn request(
        self: &Arc<Self>,
        host: HostId,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, MeshError> {
        bounded(body.len(), FRAME_BYTES_MAX)?;
        let peer = self.peers.find(host).ok_or(MeshError::UnknownPeer { peer: host })?;
        let course = Course::default();
        let work = async {
            // The semaphore is never closed.
            let _turn = peer.requests_out.acquire().await;
            self.ask(&peer, body, &course).await
        };
        course.run(host, timeout, work).await
    }

    /// Sends a request over a pooled link; over a new one if that breaks before the request was whole.
    async fn ask(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        body: Bytes,
        course: &Course,
    ) -> Result<Bytes, CallError> {
        let mut is_second = false;
        let mut busy = Backoff::new(BUSY_FIRST, BUSY_MAX);
        loop {
            let link = self.link(peer).await?;
            let asked = self.watched(peer, &link, ask_over(&link, body.clone(), course)).await;
            match asked {
                // Nobody has acted on it.
                Err(err @ CallError::Wire(WireError::Refused(Refusal::Busy))) => {
                    course.set_unsent();
                    course.set_back(peer.host, &err);
                    pause(&mut busy).await;
                }
                Err(err) if !course.is_sent() && !link.is_open() && !is_second => {
                    course.set_back(peer.host, &err);
                    is_second = true;
                }
                done => return done,
            }
        }
    }

    pub(super) async fn send_bulk(
        self: &Arc<Self>,
        host: HostId,
        header: Bytes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Sent, MeshError> {
        bounded(header.len(), BULK_HEADER_BYTES_MAX)?;
        bounded(body.len(), BULK_BYTES_MAX)?;
        let peer = self.peers.find(host).ok_or(MeshError::UnknownPeer { peer: host })?;
        let course = Course::default();
        let work = async {
            // The semaphore is never closed.
            let _slot = self.bulks_out.acquire().await;
            let open = BulkOpen {
                transfer: TransferId::generate(),
                bytes: body.len() as u64,
                header,
                was_whole: false,
            };
            let mut digests = vec![Digest::ZERO; body.len().div_ceil(CHUNK_BYTES_MAX)];
            let answer = self.transfer(&peer, open, (&body, &mut digests), &course).await?;
            let mut digest = RunningDigest::default();
            digests.into_iter().for_each(|chunk| digest.add(chunk));
            Ok(Sent { answer, digest: digest.finish() })
        };
        course.run(host, timeout, work).await
    }

    /// Sends a transfer. Once it has begun it goes on after broken connections, and while the peer is away or busy.
    async fn transfer(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        mut open: BulkOpen,
        (body, digests): (&Bytes, &mut [Digest]),
        course: &Course,
    ) -> Result<Bytes, CallError> {
        let mut backoff = Backoff::new(RESUME_FIRST, RESUME_MAX);
        let mut link = self.link(peer).await?;
        loop {
            open.was_whole = course.is_sent();
            let err = match self.watched(peer, &link, send_over(&link, &open, (body, digests), course)).await
            {
                Err(err) if err.is_passing() => err,
                done => return done,
            };
            course.set_back(peer.host, &err);
            let next = self.next_link(peer, &mut backoff, course).await?;
            // A process that has never heard of the transfer cannot say whether the one before it acted.
            if course.is_sent() && next.instance != link.instance {
                return Err(err);
            }
            link = next;
        }
    }

    /// Waits for a link to a peer that was there a moment ago.
    async fn next_link(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        backoff: &mut Backoff,
        course: &Course,
    ) -> Result<Arc<Link>, CallError> {
        loop {
            pause(backoff).await;
            match self.link(peer).await.map_err(CallError::from) {
                Err(err) if err.is_passing() => course.set_back(peer.host, &err),
                done => return done,
            }
        }
    }
}

async fn pause(backoff: &mut Backoff) {
    let mut random = [0];
    SystemClock.fill_random(&mut random);
    let [random] = random;
    sleep(backoff.delay(random)).await;
}

/// One request over one stream.
async fn ask_over(link: &Link, body: Bytes, course: &Course) -> Result<Bytes, CallError> {
    let (mut send, mut recv) = link.connection.open_bi().await.map_err(CallError::broken)?;
    let mut frame = wire::encode(link.protocol, Kind::Request, body);
    send.write_all_chunks(&mut frame).await.map_err(CallError::broken)?;
    course.set_sent();
    answer(link, &mut recv).await
}

/// One try of a transfer. The first one begins at once, since nobody has anything of it, and its last chunk waits for the
/// peer's word: whoever has the whole body has been heard of. Later ones go on from where the peer says. Notes the digest of each
/// chunk: one that is sent again is the same again.
async fn send_over(
    link: &Link,
    open: &BulkOpen,
    (body, digests): (&Bytes, &mut [Digest]),
    course: &Course,
) -> Result<Bytes, CallError> {
    let (mut send, mut recv) = link.connection.open_bi().await.map_err(CallError::broken)?;
    // Fails only on a stream that is closed, which the next write notices.
    drop(send.set_priority(BULK_PRIORITY));
    let mut frame = wire::encode_typed(link.protocol, Kind::BulkOpen, open);
    send.write_all_chunks(&mut frame).await.map_err(CallError::broken)?;
    let mut ahead = 0;
    if course.begins() {
        let last = body.len().saturating_sub(1) / CHUNK_BYTES_MAX * CHUNK_BYTES_MAX;
        ahead = write_chunks(&mut send, link.protocol, (body, digests), 0..last).await?;
    }
    if body.is_empty() {
        // It is whole with its announcement.
        course.set_sent();
    }
    let resumed = resume(link, &mut recv, body.len()).await;
    if matches!(resumed, Err(CallError::Wire(WireError::Refused(_)))) && !open.was_whole {
        course.set_unsent();
    }
    let offset = resumed?;
    debug!(offset, bytes = body.len(), "transfer goes on");
    let rest = offset.max(ahead)..body.len();
    if write_chunks(&mut send, link.protocol, (body, digests), rest).await? == body.len() {
        course.set_sent();
    }
    answer(link, &mut recv).await
}

/// From where the peer wants a transfer to go on: not from behind `most`, nor from within a chunk.
async fn resume(link: &Link, recv: &mut RecvStream, most: usize) -> Result<usize, CallError> {
    let resume = wire::read_frame(recv, link.protocol, Kind::BulkResume).await?;
    link.touch();
    let BulkResume { offset } = wire::decode_typed(Kind::BulkResume, &resume)?;
    let is_between =
        |offset: &usize| *offset == most || *offset < most && offset.is_multiple_of(CHUNK_BYTES_MAX);
    let offset = usize::try_from(offset).ok().filter(is_between);
    Ok(offset.ok_or(WireError::Body { kind: Kind::BulkResume })?)
}

/// Writes a part of a body, which begins with a chunk. Answers where it has come to: not to the end when the peer has stopped
/// reading, which says why.
async fn write_chunks(
    send: &mut SendStream,
    protocol: u8,
    (body, digests): (&Bytes, &mut [Digest]),
    part: Range<usize>,
) -> Result<usize, CallError> {
    let mut offset = part.start;
    while offset < part.end {
        let end = part.end.min(offset + CHUNK_BYTES_MAX);
        let (mut frame, digest) = wire::encode_chunk(protocol, offset as u64, body.slice(offset..end));
        digests[offset / CHUNK_BYTES_MAX] = digest;
        match send.write_all_chunks(&mut frame).await {
            Ok(()) => offset = end,
            Err(WriteError::Stopped(_)) => break,
            Err(err) => return Err(CallError::broken(err)),
        }
    }
    Ok(offset)
}

async fn answer(link: &Link, recv: &mut RecvStream) -> Result<Bytes, CallError> {
    let answer = wire::read_frame(recv, link.protocol, Kind::Answer).await?;
    link.touch();
    Ok(answer)
}

fn bounded(size: usize, max: usize) -> Result<(), MeshError> {
    if size <= max { Ok(()) } else { Err(MeshError::TooLarge { size, max }) }
}
