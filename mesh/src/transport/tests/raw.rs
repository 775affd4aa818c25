//! Raw peers: frames and greetings of ours, and nothing that keeps them to the rules.

use godwit_core::digest::RunningDigest;
use godwit_core::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use iroh::endpoint::{Connection, RecvStream, SendStream};
use iroh::{EndpointAddr, PublicKey};

use super::*;
use crate::handshake::{ALPN, Purpose};
use crate::limits::{BULKS_OF_PEER_MAX, CONNECTIONS_MAX, GREETINGS_MAX};
use crate::transfer::{BulkOpen, BulkResume, TransferId};
use crate::wire::{self, Kind, Refusal, WireError};

/// A peer that says what it likes. Its process never changes.
struct Raw {
    endpoint: Endpoint,
    id: HostId,
}

impl Raw {
    async fn start(seed: u8) -> Self {
        let key = SecretKey::from_bytes(&[seed; 32]);
        let id = HostId(*key.public().as_bytes());
        let (endpoint, _) = endpoint::bind(key, ([127, 0, 0, 1], 0).into()).await.unwrap();
        Self { endpoint, id }
    }

    async fn connect(&self, host: &Host) -> Connection {
        let key = PublicKey::from_bytes(&host.id().0).unwrap();
        let address = EndpointAddr::new(key).with_ip_addr(host.mesh.local_address());
        self.endpoint.connect(address, ALPN).await.unwrap()
    }

    async fn greeted(&self, host: &Host) -> Connection {
        let connection = self.connect(host).await;
        let greeter = Greeter { protocols: 1..=1, instance: Instance([7; 16]) };
        greeter.greet(&connection, Purpose::Work).await.unwrap();
        connection
    }
}

async fn say(connection: &Connection, bytes: &[u8], expected: Kind) -> Result<Bytes, WireError> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    within(SOON, wire::read_frame(&mut recv, 1, expected)).await.expect("it answers in time")
}

#[tokio::test]
async fn damaged_and_foreign_frames_are_refused_and_never_reach_the_handler() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let connection = raw.greeted(&host).await;
    let good = wire::encode(1, Kind::Request, Bytes::from_static(b"good")).concat();

    let mut damaged = good.clone();
    damaged[wire::HEADER_BYTES] ^= 1;
    let refused = |refusal| Err(WireError::Refused(refusal));
    assert_eq!(say(&connection, &damaged, Kind::Answer).await, refused(Refusal::Damaged));

    let mut long = good.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let too_large = Refusal::TooLarge { size: u32::MAX.into(), max: FRAME_BYTES_MAX as u64 };
    assert_eq!(say(&connection, &long, Kind::Answer).await, refused(too_large));

    let newer = wire::encode(2, Kind::Request, Bytes::from_static(b"good")).concat();
    assert_eq!(say(&connection, &newer, Kind::Answer).await, refused(Refusal::Malformed));
    let chunk = wire::encode(1, Kind::BulkChunk, Bytes::from_static(b"good")).concat();
    assert_eq!(say(&connection, &chunk, Kind::Answer).await, refused(Refusal::Malformed));
    assert_eq!(say(&connection, &[0; 100], Kind::Answer).await, refused(Refusal::Malformed));
    assert_eq!(
        say(&connection, &good[..50.min(good.len() - 1)], Kind::Answer).await,
        Err(WireError::Truncated)
    );

    assert_eq!(host.echo.requests.load(SeqCst), 0);
    assert_eq!(say(&connection, &good, Kind::Answer).await.unwrap(), "good");
}

#[tokio::test]
async fn an_unlisted_key_gets_no_stream_served() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    let connection = raw.connect(&host).await;
    let closed = within(SOON, connection.closed()).await.unwrap();
    assert_eq!(DialError::from(&closed), DialError::Unlisted);
}

#[tokio::test]
async fn an_interrupted_transfer_is_resumed_over_another_connection() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let body: Vec<u8> = (0..3 * CHUNK_BYTES_MAX).map(|index| (index % 253) as u8).collect();
    let open = BulkOpen {
        transfer: TransferId::generate(),
        bytes: body.len() as u64,
        header: Bytes::from_static(b"head"),
        was_whole: false,
    };
    let opened = wire::encode_typed(1, Kind::BulkOpen, &open);
    let chunks = body
        .chunks(CHUNK_BYTES_MAX)
        .zip((0..).step_by(CHUNK_BYTES_MAX))
        .map(|(chunk, offset)| wire::encode_chunk(1, offset, Bytes::copy_from_slice(chunk)));
    let mut digest = RunningDigest::default();
    let chunks: Vec<_> =
        chunks.inspect(|(_, of_chunk)| digest.add(*of_chunk)).map(|(frame, _)| frame.concat()).collect();
    let resume = |bytes: &[u8]| wire::decode_typed::<BulkResume>(Kind::BulkResume, bytes).unwrap().offset;

    let first = raw.greeted(&host).await;
    let (mut send, mut recv) = first.open_bi().await.unwrap();
    send.write_all(&opened.concat()).await.unwrap();
    assert_eq!(resume(&wire::read_frame(&mut recv, 1, Kind::BulkResume).await.unwrap()), 0);
    send.write_all(&chunks[0]).await.unwrap();
    // Half a chunk is nothing.
    send.write_all(&chunks[1][..1000]).await.unwrap();
    until("the first chunk has arrived", || host.mesh.shared.arrivals.received_bytes() == CHUNK_BYTES_MAX)
        .await;
    first.close(0u32.into(), b"broken by the test");

    let second = raw.greeted(&host).await;
    let (mut send, mut recv) = second.open_bi().await.unwrap();
    send.write_all(&opened.concat()).await.unwrap();
    let offset = resume(&wire::read_frame(&mut recv, 1, Kind::BulkResume).await.unwrap());
    assert_eq!(offset, CHUNK_BYTES_MAX as u64);
    send.write_all(&chunks[1..].concat()).await.unwrap();
    let answer = wire::read_frame(&mut recv, 1, Kind::Answer).await.unwrap();
    assert_whole(Ok(Sent { answer, digest: digest.finish() }), b"head", &body);
    assert_eq!(host.echo.bulks.load(SeqCst), 1);
}

/// The next transfer that a host begins, or takes up again.
async fn opened_by_host(connection: &Connection) -> (BulkOpen, SendStream, RecvStream) {
    loop {
        let (send, mut recv) = connection.accept_bi().await.unwrap();
        // It may look whether this peer is still there.
        let Ok(opened) = wire::read_frame(&mut recv, 1, Kind::BulkOpen).await else { continue };
        return (wire::decode_typed(Kind::BulkOpen, &opened).unwrap(), send, recv);
    }
}

async fn next_offset(recv: &mut RecvStream) -> u64 {
    let chunk = wire::read_frame(recv, 1, Kind::BulkChunk).await.unwrap();
    wire::decode_chunk(chunk).unwrap().0
}

#[tokio::test]
async fn a_transfer_begins_at_once_and_ends_when_the_peer_has_said_from_where() {
    const CHUNK: u64 = CHUNK_BYTES_MAX as u64;
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let connection = raw.greeted(&host).await;
    let resume = |offset| wire::encode_typed(1, Kind::BulkResume, &BulkResume { offset }).concat();
    let peer = async {
        let (first, mut send, mut recv) = opened_by_host(&connection).await;
        assert_eq!([next_offset(&mut recv).await, next_offset(&mut recv).await], [0, CHUNK]);
        let third = within(Duration::from_millis(200), next_offset(&mut recv)).await;
        assert_eq!(third, None, "a peer that nobody has heard of has all");
        send.write_all(&wire::encode_typed(1, Kind::Refused, &Refusal::Busy).concat()).await.unwrap();
        let (second, mut send, mut recv) = opened_by_host(&connection).await;
        assert_eq!((second.transfer, second.was_whole), (first.transfer, false));
        assert_eq!(within(Duration::from_millis(200), next_offset(&mut recv)).await, None);
        send.write_all(&resume(CHUNK)).await.unwrap();
        assert_eq!([next_offset(&mut recv).await, next_offset(&mut recv).await], [CHUNK, 2 * CHUNK]);
        send.write_all(&wire::encode(1, Kind::Answer, Bytes::from_static(b"taken")).concat()).await.unwrap();
        std::future::pending::<()>().await;
    };
    let body = Bytes::from(vec![3; 3 * CHUNK_BYTES_MAX]);
    let answer = tokio::select! {
        answer = host.mesh.send_bulk(raw.id, Bytes::new(), body, SOON) => answer,
        () = peer => unreachable!("it never ends"),
    };
    assert_eq!(answer.unwrap().answer, "taken");
}

#[tokio::test]
async fn a_damaged_chunk_is_refused_and_what_came_before_is_kept() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let connection = raw.greeted(&host).await;
    let open =
        BulkOpen { transfer: TransferId::generate(), bytes: 200, header: Bytes::new(), was_whole: false };
    let mut bytes = wire::encode_typed(1, Kind::BulkOpen, &open).concat();
    for offset in [0, 100] {
        bytes.extend_from_slice(&wire::encode_chunk(1, offset, vec![5; 100].into()).0.concat());
    }
    *bytes.last_mut().unwrap() ^= 1;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    wire::read_frame(&mut recv, 1, Kind::BulkResume).await.unwrap();
    let refused = wire::read_frame(&mut recv, 1, Kind::Answer).await;
    assert_eq!(refused, Err(WireError::Refused(Refusal::Damaged)));
    assert_eq!(host.mesh.shared.arrivals.received_bytes(), 100);
    assert_eq!(host.echo.bulks.load(SeqCst), 0);
}

#[tokio::test]
async fn a_peer_that_opens_many_connections_keeps_the_newest() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 1 {
        connections.push(raw.greeted(&host).await);
    }
    within(SOON, connections[0].closed()).await.expect("the oldest is closed");
    assert!(connections[1..].iter().all(|connection| connection.close_reason().is_none()));
}

async fn opened(
    connection: &Connection,
    bytes: &[u8],
) -> (iroh::endpoint::SendStream, iroh::endpoint::RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, recv)
}

fn announced(bytes: u64) -> Vec<u8> {
    let open = BulkOpen { transfer: TransferId::generate(), bytes, header: Bytes::new(), was_whole: false };
    wire::encode_typed(1, Kind::BulkOpen, &open).concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_at_its_limits_is_told_so_and_does_not_starve_another() {
    let (host, raw, honest) = (Host::start(1).await, Raw::start(2).await, Host::start(3).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    host.lists(&honest);
    honest.lists(&host);
    let mut held = Vec::new();
    let mut connections = Vec::new();
    // Transfers that never go on, as many as it may have, on each connection.
    for _ in 0..CONNECTIONS_MAX {
        let connection = raw.greeted(&host).await;
        for _ in 0..4 {
            held.push(opened(&connection, &announced(1 << 20)).await);
        }
        connections.push(connection);
    }
    let mut answers = Vec::new();
    for (_, recv) in &mut held {
        answers.push(within(SOON, wire::read_frame(recv, 1, Kind::BulkResume)).await.unwrap().is_ok());
    }
    assert_eq!(answers.iter().filter(|is_taken| **is_taken).count(), BULKS_OF_PEER_MAX);
    // And requests that keep handlers busy, more than it may have.
    let wait = wire::encode(1, Kind::Request, Bytes::from_static(b"wait")).concat();
    let mut asked = Vec::new();
    for number in 0..STREAMS_MAX + 8 {
        asked.push(opened(&connections[number % CONNECTIONS_MAX], &wait).await);
    }
    until("its requests are handled", || host.echo.requests.load(SeqCst) == STREAMS_MAX).await;
    let began = Instant::now();
    assert_eq!(honest.ask(host.id(), "x").await.unwrap(), "x");
    let body = Bytes::from(vec![7; 2 * CHUNK_BYTES_MAX]);
    assert_whole(honest.mesh.send_bulk(host.id(), Bytes::new(), body.clone(), SOON).await, b"", &body);
    assert!(began.elapsed() < Duration::from_secs(10), "another peer waited {:?}", began.elapsed());
    let mut answers = tokio::task::JoinSet::new();
    for (send, mut recv) in asked {
        answers.spawn(async move { (send, wire::read_frame(&mut recv, 1, Kind::Answer).await) });
    }
    for _ in 0..8 {
        let (_, refused) = within(SOON, answers.join_next()).await.expect("it is told").unwrap().unwrap();
        assert_eq!(refused, Err(WireError::Refused(Refusal::Busy)));
    }
    assert!(host.limited(raw.id) >= 8 + (CONNECTIONS_MAX * 4 - BULKS_OF_PEER_MAX) as u64);
    assert_eq!(host.limited(honest.id()), 0);
    host.echo.release.notify_waiters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_a_peer_does_not_read_count_as_its_requests() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let much = wire::encode(1, Kind::Request, Bytes::from_static(b"much")).concat();
    // More than it may have, and than buffers hold on the way.
    let (mut connections, mut unread) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let connection = raw.greeted(&host).await;
        for _ in 0..STREAMS_MAX + 8 {
            unread.push(opened(&connection, &much).await);
        }
        connections.push(connection);
    }
    until("it is told that it has too many", || host.limited(raw.id) > 8).await;
    assert!(host.echo.requests.load(SeqCst) < unread.len());
}

#[tokio::test]
async fn a_transfer_that_trickles_is_given_up() {
    let (host, raw) = (Host::start(1).await, Raw::start(2).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    let connection = raw.greeted(&host).await;
    let (mut send, mut recv) = opened(&connection, &announced(4096)).await;
    wire::read_frame(&mut recv, 1, Kind::BulkResume).await.unwrap();
    let byte = |offset| wire::encode_chunk(1, offset, Bytes::from_static(b"x")).0.concat();
    let trickle = async {
        // Each chunk is in time, and the whole never would be.
        let mut offset = 0;
        while send.write_all(&byte(offset)).await.is_ok() {
            offset += 1;
            sleep(Duration::from_millis(500)).await;
        }
    };
    within(SOON, trickle).await.expect("the stream is closed in time");
}

#[tokio::test]
async fn silent_greetings_of_a_peer_are_bounded_and_leave_room_for_others() {
    let (host, raw, honest) = (Host::start(1).await, Raw::start(2).await, Host::start(3).await);
    host.mesh.add_peer(raw.id, ([127, 0, 0, 1], 1).into());
    host.lists(&honest);
    honest.lists(&host);
    let mut silent = Vec::new();
    for _ in 0..3 * GREETINGS_MAX {
        silent.push(raw.connect(&host).await);
    }
    until("the surplus is closed", || host.limited(raw.id) == 2 * GREETINGS_MAX as u64).await;
    let surplus = silent.iter().filter_map(|connection| connection.close_reason());
    assert!(surplus.map(|reason| DialError::from(&reason)).all(|reason| reason == DialError::Surplus));
    assert_eq!(honest.ask(host.id(), "x").await.unwrap(), "x");
}
