//! Every bound of the mesh, with its unit and reason. Those that the port promises are in `godwit_core`.

use std::time::Duration;

use godwit_core::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use godwit_core::mesh::BULK_BYTES_MAX;

/// From the first packet to the end of our own handshake.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes of others under way; more are refused before any key is computed.
pub(crate) const HANDSHAKES_MAX: usize = 64;
/// Those of one network address: half, so that no machine alone keeps all others out.
pub(crate) const HANDSHAKES_OF_ADDRESS_MAX: usize = HANDSHAKES_MAX / 2;
/// With fewer than these left, an address must first prove that it receives what is sent to it.
pub(crate) const HANDSHAKES_SPARE: usize = 32;
/// A connection that hears nothing for this long is over.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(10);
/// Keeps pooled connections open; several fit into `IDLE_MAX`, so that a lost one does no harm.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Assumed before the first measurement: a lost first packet is repeated after three of these.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);

/// A connection that was heard of within this time is used without asking whether it lives.
pub(crate) const FRESH_MAX: Duration = Duration::from_millis(500);
/// How often whoever waits for an answer looks whether the connection still lives.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long a ping alone is waited for before a second connection asks who lives there now.
pub(crate) const PING_ALONE: Duration = Duration::from_millis(100);
/// A peer that answers neither ping nor dial for this long is given up. Longer than a busy machine stalls.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The same when the peer has got another address since: it has most likely gone there.
pub(crate) const SILENCE_MOVED_MAX: Duration = Duration::from_millis(500);

/// How long a request of a peer that is at a limit waits for room before it is told "busy". Its sender counts its own requests,
/// so that this happens only when an answer was given up there and is still being worked on here.
pub(crate) const QUEUE_MAX: Duration = Duration::from_secs(2);
/// First and longest pause of a sender that was told "busy".
pub(crate) const BUSY_FIRST: Duration = Duration::from_millis(20);
pub(crate) const BUSY_MAX: Duration = Duration::from_secs(1);
/// Requests to or from one peer at a time.
pub(crate) const STREAMS_MAX: usize = 64;
/// Streams beyond those and `BULKS_MAX`, so that pings are never queued behind slow handlers.
pub(crate) const PING_STREAMS_MAX: usize = 8;
/// Connections accepted from one peer. A peer keeps one, and opens another for a moment when that seems dead.
pub(crate) const CONNECTIONS_MAX: usize = 4;
/// Greetings of one peer under way: as many as it may have connections.
pub(crate) const GREETINGS_MAX: usize = CONNECTIONS_MAX;
/// Unread bytes of one stream: more than any LAN holds in flight, and several chunks. Few enough that the gaps which lost packets
/// leave in them stay below what QUIC keeps for a stream (`GAPS_MAX`): above that it ends the connection, and all streams on it.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Gaps in a stream that `noq-proto` 1.4 keeps (`assembler::MAX_CHUNKS`), and the least that a full packet carries of a stream.
const GAPS_MAX: u32 = 1024;
const PACKET_BYTES_MIN: u32 = 1100;
/// Unread or unacknowledged bytes of one connection, in each direction. Transfers that begin together may fill all of it until
/// those that are one too many are refused.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;
/// Bodies of requests of one peer that are being received or handled, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 32 << 20;
/// A whole request or answer frame arrives within this time once it has begun: 64 KiB/s at least.
pub(crate) const FRAME_TIME_MAX: Duration = Duration::from_secs(16);

/// Bulk transfers at a time: to all peers, and from all peers.
pub(crate) const BULKS_MAX: usize = 8;
/// Those from one peer: half, so that none alone keeps all others waiting.
pub(crate) const BULKS_OF_PEER_MAX: usize = BULKS_MAX / 2;
/// A transfer arrives at this rate at least, however small its chunks: bytes a second.
pub(crate) const BULK_RATE_MIN: u64 = 64 << 10;
/// The header of a bulk transfer in bytes.
pub(crate) const BULK_HEADER_BYTES_MAX: usize = 64 << 10;
/// One chunk arrives within this time: 64 KiB/s at least.
pub(crate) const CHUNK_TIME_MAX: Duration = Duration::from_secs(4);
/// Transfers of one peer that are remembered: under way, interrupted or answered.
pub(crate) const TRANSFERS_MAX: usize = 16;
/// Bytes of one peer's transfers, counted as announced, before they arrive.
pub(crate) const TRANSFER_BYTES_MAX: usize = 2 * BULK_BYTES_MAX;
/// How long an interrupted transfer, or the answer to a whole one, is kept for its sender to come back.
pub(crate) const TRANSFER_KEPT: Duration = Duration::from_secs(60);
/// How often what was kept too long is dropped.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// First and longest delay before an interrupted transfer goes on.
pub(crate) const RESUME_FIRST: Duration = Duration::from_millis(50);
pub(crate) const RESUME_MAX: Duration = Duration::from_secs(1);

/// How long closing waits for peers to hear of it.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(CHUNK_BYTES_MAX <= STREAM_WINDOW_BYTES as usize);
const _: () = assert!(STREAM_WINDOW_BYTES <= WINDOW_BYTES);
// Every other packet lost makes the most gaps.
const _: () = assert!(STREAM_WINDOW_BYTES / PACKET_BYTES_MIN / 2 < GAPS_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= REQUEST_BYTES_MAX);
const _: () = assert!(BULK_HEADER_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(KEEP_ALIVE.as_secs() * 3 < IDLE_MAX.as_secs());
