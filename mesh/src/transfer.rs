//! Bulk transfers that are arriving: chunks into whole bodies, over as many connections as it takes.
//!
//! `Arrivals` is the table of all of them, by peer and transfer id; `Arrival` is one. A sender whose connection broke
//! opens the same transfer again and is told from which offset to go on. The whole body is given out once; the answer is
//! then kept for a while, so that a sender that lost it hears it again instead of making the handler act twice.
//!
//! ```text
//! Receiving --(the last byte)--> Handling --> Answered
//!     |  ^                           \--> Failed (the handler died)
//!     +--+ chunk, or another stream takes over
//! ```
//! A chunk is appended when its frame's digest is right and it belongs where the body ends: nothing is doubled or left out.
//! The digest of a transfer runs over those of its chunks' frames, which say where their bytes belong: nobody hashes the bytes
//! once more.
//! Nothing here waits or reads a stream. What a peer may hold is bounded in number and in announced bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::id::HostId;
use godwit_core::mesh::BULK_BYTES_MAX;
use godwit_core::time::{Clock, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::{BULK_HEADER_BYTES_MAX, TRANSFER_BYTES_MAX, TRANSFER_KEPT, TRANSFERS_MAX};
use crate::peers::lock;
use crate::wire::{Chunk, Refusal};

/// Names one transfer of one sender: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TransferId([u8; 16]);

impl TransferId {
    pub(crate) fn generate() -> Self {
        let mut bytes = [0; 16];
        SystemClock.fill_random(&mut bytes);
        Self(bytes)
    }
}

/// Announces a transfer, or takes it up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BulkOpen {
    pub(crate) transfer: TransferId,
    pub(crate) bytes: u64,
    pub(crate) header: Bytes,
    /// The sender has sent every byte before: a receiver that knows nothing of it must say so.
    pub(crate) was_whole: bool,
}

/// From where the sender goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BulkResume {
    pub(crate) offset: u64,
}

/// All transfers that are arriving or were answered lately.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// How long one is kept that nobody works on.
    kept: Duration,
    table: Mutex<BTreeMap<(HostId, TransferId), Arc<Arrival>>>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { kept: TRANSFER_KEPT, table: Mutex::default() }
    }
}

impl Arrivals {
    /// Finds or begins a transfer.
    ///
    /// # Errors
    /// `TooLarge`, `Busy`, `Malformed` when it contradicts what was announced before, `Forgotten`.
    pub(crate) fn open(&self, from: HostId, open: BulkOpen) -> Result<Arc<Arrival>, Refusal> {
        let too_large = |size: u64, max: usize| Refusal::TooLarge { size, max: max as u64 };
        let bytes = match usize::try_from(open.bytes) {
            Ok(bytes) if bytes <= BULK_BYTES_MAX => bytes,
            _ => return Err(too_large(open.bytes, BULK_BYTES_MAX)),
        };
        if open.header.len() > BULK_HEADER_BYTES_MAX {
            return Err(too_large(open.header.len() as u64, BULK_HEADER_BYTES_MAX));
        }
        let mut table = lock(&self.table);
        let key = (from, open.transfer);
        if let Some(known) = table.get(&key) {
            let is_same = known.header == open.header && known.bytes == bytes;
            return if is_same { Ok(known.clone()) } else { Err(Refusal::Malformed) };
        }
        if open.was_whole {
            return Err(Refusal::Forgotten);
        }
        table.retain(|_, arrival| !arrival.is_expired(self.kept));
        make_room(&mut table, from, bytes)?;
        let arrival = Arc::new(Arrival::new(bytes, open.header));
        table.insert(key, arrival.clone());
        Ok(arrival)
    }

    /// Drops all transfers of a peer; those that arrive now end with their streams.
    pub(crate) fn forget(&self, from: HostId) {
        lock(&self.table).retain(|(host, _), _| *host != from);
    }

    /// Bytes that have arrived of bodies that are not whole yet.
    #[cfg(test)]
    pub(crate) fn received_bytes(&self) -> usize {
        let table = lock(&self.table);
        let received = table.values().map(|arrival| match &lock(&arrival.progress).stage {
            Stage::Receiving { body, .. } => body.len(),
            Stage::Whole(_) => 0,
        });
        received.sum()
    }

    /// Drops what was kept too long.
    pub(crate) fn sweep(&self) {
        lock(&self.table).retain(|_, arrival| !arrival.is_expired(self.kept));
    }
}

/// Makes room for one more transfer of a peer by dropping, oldest first, what nobody works on.
fn make_room(
    table: &mut BTreeMap<(HostId, TransferId), Arc<Arrival>>,
    from: HostId,
    bytes: usize,
) -> Result<(), Refusal> {
    loop {
        let of_peer = || table.iter().filter(|((host, _), _)| *host == from);
        let held: usize = of_peer().map(|(_, arrival)| arrival.held_bytes()).sum();
        if of_peer().count() < TRANSFERS_MAX && held + bytes <= TRANSFER_BYTES_MAX {
            return Ok(());
        }
        let idle = of_peer().filter_map(|(key, arrival)| Some((arrival.idle_since()?, *key)));
        let (_, oldest) = idle.min().ok_or(Refusal::Busy)?;
        table.remove(&oldest);
    }
}

/// One transfer.
#[derive(Debug)]
pub(crate) struct Arrival {
    bytes: usize,
    pub(crate) header: Bytes,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// Which stream may append: each that attaches displaces the one before.
    attachment: u64,
    is_attached: bool,
    touched: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Receiving { body: Vec<u8>, digest: Box<RunningDigest> },
    Whole(watch::Receiver<Handled>),
}

/// What became of a whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handled {
    /// The handler works on it.
    NotYet,
    /// Its answer.
    Answer(Bytes),
    /// The handler died, or its answer is over the limit.
    Failed,
}

/// A whole body, given out once, and where to put what became of it.
#[derive(Debug)]
pub(crate) struct WholeBody {
    pub(crate) body: Bytes,
    pub(crate) digest: Digest,
    pub(crate) handled: watch::Sender<Handled>,
}

impl Arrival {
    fn new(bytes: usize, header: Bytes) -> Self {
        let stage = Stage::Receiving { body: Vec::new(), digest: Box::default() };
        let progress = Progress { attachment: 0, is_attached: false, touched: Instant::now(), stage };
        Self { bytes, header, progress: Mutex::new(progress) }
    }

    /// Lets a stream append, displacing an older one.
    pub(crate) fn attach(self: &Arc<Self>) -> Attachment {
        let mut progress = lock(&self.progress);
        progress.attachment += 1;
        progress.is_attached = true;
        progress.touched = Instant::now();
        Attachment { arrival: self.clone(), number: progress.attachment }
    }

    /// Waits until the handler is done with the whole body. `None` while it has not arrived.
    pub(crate) fn handled(&self) -> Option<watch::Receiver<Handled>> {
        match &lock(&self.progress).stage {
            Stage::Receiving { .. } => None,
            Stage::Whole(handled) => Some(handled.clone()),
        }
    }

    /// Bytes that have still to arrive.
    pub(crate) fn missing_bytes(&self) -> u64 {
        match &lock(&self.progress).stage {
            Stage::Receiving { body, .. } => (self.bytes - body.len()) as u64,
            Stage::Whole(_) => 0,
        }
    }

    /// Bytes that it holds or may come to hold.
    fn held_bytes(&self) -> usize {
        match &lock(&self.progress).stage {
            Stage::Receiving { .. } => self.bytes,
            Stage::Whole(handled) => match &*handled.borrow() {
                Handled::NotYet => self.bytes,
                Handled::Answer(answer) => answer.len(),
                Handled::Failed => 0,
            },
        }
    }

    /// Since when no stream and no handler has worked on it.
    fn idle_since(&self) -> Option<Instant> {
        let progress = lock(&self.progress);
        let is_handled = match &progress.stage {
            Stage::Receiving { .. } => true,
            Stage::Whole(handled) => *handled.borrow() != Handled::NotYet || handled.has_changed().is_err(),
        };
        (is_handled && !progress.is_attached).then_some(progress.touched)
    }

    fn is_expired(&self, kept: Duration) -> bool {
        self.idle_since().is_some_and(|since| since.elapsed() >= kept)
    }
}

/// The right of one stream to append to an arrival; given back when dropped.
#[derive(Debug)]
pub(crate) struct Attachment {
    arrival: Arc<Arrival>,
    number: u64,
}

impl Attachment {
    /// From where the sender goes on.
    pub(crate) fn offset(&self) -> u64 {
        match &lock(&self.arrival.progress).stage {
            Stage::Receiving { body, .. } => body.len() as u64,
            Stage::Whole(_) => self.arrival.bytes as u64,
        }
    }

    /// Appends a chunk that is whole in itself. An empty one only asks whether the body is whole already, which a body of
    /// no bytes is from the start.
    ///
    /// # Errors
    /// `Displaced` when another stream has taken over, `Malformed` past the end, or where the body does not end.
    pub(crate) fn append(&self, chunk: &Chunk) -> Result<Option<WholeBody>, Refusal> {
        let mut progress = lock(&self.arrival.progress);
        if progress.attachment != self.number {
            return Err(Refusal::Displaced);
        }
        progress.touched = Instant::now();
        let Chunk { offset, bytes, digest: of_chunk } = chunk;
        let Stage::Receiving { body, digest } = &mut progress.stage else {
            return if bytes.is_empty() { Ok(None) } else { Err(Refusal::Malformed) };
        };
        if *offset != body.len() as u64 || bytes.len() > self.arrival.bytes - body.len() {
            return Err(Refusal::Malformed);
        }
        // Reserved at once, filled as bytes arrive: what is announced and never sent takes no memory.
        body.reserve_exact(self.arrival.bytes - body.len());
        body.extend_from_slice(bytes);
        if !bytes.is_empty() {
            digest.add(*of_chunk);
        }
        if body.len() < self.arrival.bytes {
            return Ok(None);
        }
        let (body, digest) = (Bytes::from(std::mem::take(body)), digest.finish());
        let (handled, receiver) = watch::channel(Handled::NotYet);
        progress.stage = Stage::Whole(receiver);
        Ok(Some(WholeBody { body, digest, handled }))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut progress = lock(&self.arrival.progress);
        if progress.attachment == self.number {
            progress.is_attached = false;
            progress.touched = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests;
