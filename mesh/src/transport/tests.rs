//! Meshes on loopback, in one process. Peers that break the rules are in `tests/raw.rs`, real processes that are killed in
//! `tests/killed.rs`.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use godwit_core::digest::Digest;
use godwit_core::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use godwit_core::mesh::{BULK_BYTES_MAX, Bulk, Sent};
use godwit_core::time::sleep;
use iroh::PublicKey;
use tokio::sync::Notify;

use super::*;
use crate::limits::{FRESH_MAX, STREAMS_MAX};
use crate::peers::Link;

mod killed;
mod raw;

const SOON: Duration = Duration::from_secs(20);

/// Answers requests by what their text says, and bulk transfers with their digest.
#[derive(Default)]
struct Echo {
    requests: AtomicUsize,
    bulks: AtomicUsize,
    /// Requests that waited and were not let finish.
    dropped: AtomicUsize,
    began: Notify,
    release: Notify,
}

#[async_trait]
impl MeshHandler for Echo {
    async fn on_request(&self, from: HostId, body: Bytes) -> Bytes {
        self.requests.fetch_add(1, SeqCst);
        match &body[..] {
            b"who am I" => Bytes::copy_from_slice(&from.0),
            b"wait" => {
                let mut unfinished = Unfinished { count: &self.dropped, is_finished: false };
                self.began.notify_one();
                self.release.notified().await;
                unfinished.is_finished = true;
                Bytes::from_static(b"waited")
            }
            b"panic" => panic!("asked to"),
            b"much" => vec![0; FRAME_BYTES_MAX].into(),
            b"too much" => vec![0; FRAME_BYTES_MAX + 1].into(),
            _ => body,
        }
    }

    async fn on_bulk(&self, from: HostId, bulk: Bulk) -> Bytes {
        self.bulks.fetch_add(1, SeqCst);
        assert_ne!(from, HostId([0; 32]));
        let Bulk { header, body, digest } = bulk;
        [&header[..], &Digest::of(&body).0, &digest.0].concat().into()
    }
}

/// Whether the answer to a transfer says that its body came whole, and under the digest that its sender has.
#[track_caller]
fn assert_whole(sent: Result<Sent, MeshError>, header: &[u8], body: &[u8]) {
    let Sent { answer, digest } = sent.unwrap();
    assert_eq!(answer, [header, &Digest::of(body).0, &digest.0].concat(), "{} bytes", body.len());
}

/// Counts itself unless it is finished.
struct Unfinished<'a> {
    count: &'a AtomicUsize,
    is_finished: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.count.fetch_add(usize::from(!self.is_finished), SeqCst);
    }
}

struct Host {
    mesh: Arc<IrohMesh>,
    echo: Arc<Echo>,
}

impl Host {
    async fn start(seed: u8) -> Self {
        Self::start_at(seed, ([127, 0, 0, 1], 0).into(), PROTOCOLS).await
    }

    async fn start_at(seed: u8, listen: SocketAddr, protocols: std::ops::RangeInclusive<u8>) -> Self {
        let echo = Arc::new(Echo::default());
        let config = MeshConfig { secret_key: [seed; 32], listen, peers: Vec::new() };
        let greeter = Greeter { protocols, instance: Instance::generate() };
        let start = async || IrohMesh::start_as(greeter.clone(), config.clone(), echo.clone()).await;
        let started = async {
            loop {
                match start().await {
                    Ok(mesh) => break mesh,
                    // The transport's own tasks let go of a closed socket a moment after they were told to.
                    Err(MeshStartError::Bind { .. }) => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        Self { mesh: within(SOON, started).await.expect("the port is free soon"), echo }
    }

    fn id(&self) -> HostId {
        self.mesh.local()
    }

    fn lists(&self, other: &Self) {
        self.mesh.add_peer(other.id(), other.mesh.local_address());
    }

    async fn ask(&self, peer: HostId, text: &'static str) -> Result<Bytes, MeshError> {
        self.mesh.request(peer, Bytes::from_static(text.as_bytes()), SOON).await
    }

    fn link(&self, peer: HostId) -> Arc<Link> {
        self.mesh.shared.peers.find(peer).unwrap().best().expect("there is a link")
    }

    fn trouble(&self, peer: HostId) -> Option<String> {
        self.mesh.peers().into_iter().find(|listed| listed.host == peer).and_then(|listed| listed.trouble)
    }

    fn limited(&self, peer: HostId) -> u64 {
        self.mesh.peers().iter().filter(|listed| listed.host == peer).map(|listed| listed.limited).sum()
    }

    fn is_connected(&self, peer: HostId) -> bool {
        self.mesh.peers().iter().any(|listed| listed.host == peer && listed.is_connected)
    }
}

async fn two() -> (Host, Host) {
    let (a, b) = (Host::start(1).await, Host::start(2).await);
    a.lists(&b);
    b.lists(&a);
    (a, b)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(SOON, waited).await.unwrap_or_else(|| panic!("never: {what}"));
}

fn unreachable_reason(outcome: Result<Bytes, MeshError>) -> String {
    match outcome {
        Err(MeshError::Unreachable { reason, .. }) => reason,
        other => panic!("expected Unreachable, got {other:?}"),
    }
}

fn incompatible_reason(outcome: Result<Bytes, MeshError>) -> String {
    match outcome {
        Err(MeshError::Incompatible { reason, .. }) => reason,
        other => panic!("expected Incompatible, got {other:?}"),
    }
}

fn no_answer_reason(outcome: Result<Bytes, MeshError>) -> String {
    match outcome {
        Err(MeshError::NoAnswer { reason, .. }) => reason,
        other => panic!("expected NoAnswer, got {other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_answered_and_the_sender_is_the_key_that_was_proven() {
    let (a, b) = two().await;
    assert_eq!(a.ask(b.id(), "hello").await.unwrap(), "hello");
    assert_eq!(a.ask(b.id(), "who am I").await.unwrap(), &a.id().0[..]);
    assert!(a.is_connected(b.id()));
    // Over the connection that was accepted.
    assert_eq!(b.ask(a.id(), "who am I").await.unwrap(), &b.id().0[..]);
    let largest = Bytes::from(vec![3; FRAME_BYTES_MAX]);
    assert_eq!(a.mesh.request(b.id(), largest.clone(), SOON).await.unwrap(), largest);
    a.mesh.close().await;
    b.mesh.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_dial_each_other_at_once_both_get_answers() {
    let (a, b) = two().await;
    for _ in 0..50 {
        let (there, back) = tokio::join!(a.ask(b.id(), "there"), b.ask(a.id(), "back"));
        assert_eq!((there.unwrap(), back.unwrap()), (Bytes::from("there"), Bytes::from("back")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_share_one_connection() {
    let (a, b) = two().await;
    let asks = (0..500).map(|_| {
        let (mesh, peer) = (a.mesh.clone(), b.id());
        tokio::spawn(async move { mesh.request(peer, Bytes::from_static(b"x"), SOON).await })
    });
    for ask in asks.collect::<Vec<_>>() {
        assert_eq!(ask.await.unwrap().unwrap(), "x");
    }
    let link = a.link(b.id());
    a.ask(b.id(), "x").await.unwrap();
    let same = a.link(b.id());
    assert!(Arc::ptr_eq(&link, &same));
}

#[tokio::test]
async fn three_hosts_know_each_other() {
    let hosts = [Host::start(1).await, Host::start(2).await, Host::start(3).await];
    for from in &hosts {
        for to in hosts.iter().filter(|to| to.id() != from.id()) {
            from.lists(to);
        }
    }
    for from in &hosts {
        for to in hosts.iter().filter(|to| to.id() != from.id()) {
            assert_eq!(from.ask(to.id(), "who am I").await.unwrap(), &from.id().0[..]);
        }
        assert_eq!(from.mesh.peers().len(), 2);
    }
}

#[tokio::test]
async fn a_bulk_transfer_arrives_whole() {
    let (a, b) = two().await;
    for length in [0, 1, CHUNK_BYTES_MAX, 5 << 20, BULK_BYTES_MAX] {
        let body = Bytes::from((0..length).map(|index| (index % 249) as u8).collect::<Vec<_>>());
        let sent = a.mesh.send_bulk(b.id(), Bytes::from_static(b"head"), body.clone(), SOON).await;
        assert_whole(sent, b"head", &body);
    }
    assert_eq!(b.echo.bulks.load(SeqCst), 5);
}

#[tokio::test]
async fn requests_do_not_queue_behind_a_transfer() {
    let (a, b) = two().await;
    let (mesh, peer) = (a.mesh.clone(), b.id());
    let bulk = tokio::spawn(async move {
        mesh.send_bulk(peer, Bytes::new(), vec![1; BULK_BYTES_MAX].into(), SOON).await
    });
    let mut answered = 0;
    while !bulk.is_finished() {
        assert_eq!(a.ask(b.id(), "x").await.unwrap(), "x");
        answered += 1;
    }
    bulk.await.unwrap().unwrap();
    assert!(answered > 1, "only {answered}");
}

#[tokio::test]
async fn only_listed_peers_are_dialled_and_heard() {
    let (a, b) = (Host::start(1).await, Host::start(2).await);
    assert_eq!(a.ask(b.id(), "x").await, Err(MeshError::UnknownPeer { peer: b.id() }));
    a.lists(&b);
    assert_eq!(unreachable_reason(a.ask(b.id(), "x").await), "it does not list this host");
    assert_eq!(b.echo.requests.load(SeqCst), 0);
    b.lists(&a);
    assert_eq!(a.ask(b.id(), "x").await.unwrap(), "x");
}

#[tokio::test]
async fn another_key_at_the_address_is_refused() {
    let (a, b, c) = (Host::start(1).await, Host::start(2).await, Host::start(3).await);
    b.lists(&a);
    c.lists(&a);
    a.mesh.add_peer(c.id(), b.mesh.local_address());
    assert_eq!(unreachable_reason(a.ask(c.id(), "x").await), "another key answers at its address");
    // Bytes that are no key at all.
    let is_no_key = |bytes: &[u8; 32]| PublicKey::from_bytes(bytes).is_err();
    let nonsense = HostId((0..=255).map(|byte| [byte; 32]).find(is_no_key).unwrap());
    a.mesh.add_peer(nonsense, b.mesh.local_address());
    assert_eq!(unreachable_reason(a.ask(nonsense, "x").await), "its key is not an ed25519 public key");
    assert_eq!(b.echo.requests.load(SeqCst) + c.echo.requests.load(SeqCst), 0);
}

#[tokio::test]
async fn hosts_without_a_common_protocol_say_so() {
    let any = ([127, 0, 0, 1], 0).into();
    let (a, b) = (Host::start(1).await, Host::start_at(2, any, 7..=9).await);
    a.lists(&b);
    b.lists(&a);
    let reason = incompatible_reason(a.ask(b.id(), "x").await);
    let seen_by_a = "it speaks protocol 7 to 9, this host 1 to 2: upgrade the older one";
    assert_eq!(reason, seen_by_a);
    let reason = incompatible_reason(b.ask(a.id(), "x").await);
    let seen_by_b = "it speaks protocol 1 to 2, this host 7 to 9: upgrade the older one";
    assert_eq!(reason, seen_by_b);
    // Whoever was dialled knows it, too, and both operators read it where they look at their peers.
    let (c, d) = (Host::start(3).await, Host::start_at(4, any, 7..=9).await);
    c.lists(&d);
    d.lists(&c);
    incompatible_reason(c.ask(d.id(), "x").await);
    assert_eq!(c.trouble(d.id()).as_deref(), Some(seen_by_a));
    until("the dialled one has noted it", || d.trouble(c.id()).as_deref() == Some(seen_by_b)).await;
}

#[tokio::test]
async fn the_newest_common_protocol_is_spoken_and_the_one_before_is_accepted() {
    let any = ([127, 0, 0, 1], 0).into();
    let (new, old) = (Host::start(1).await, Host::start_at(2, any, 1..=1).await);
    for (one, other) in [(&new, &old), (&old, &new)] {
        one.lists(other);
    }
    assert_eq!(new.mesh.protocol(old.id(), SOON).await, Ok(1));
    assert_eq!(new.ask(old.id(), "x").await.unwrap(), "x");
    assert_eq!(old.ask(new.id(), "y").await.unwrap(), "y");
    assert_eq!(new.mesh.peers()[0].protocol, Some(1));
    let body = Bytes::from(vec![7; 3 * CHUNK_BYTES_MAX]);
    assert_whole(new.mesh.send_bulk(old.id(), Bytes::new(), body.clone(), SOON).await, b"", &body);
    // Upgraded: from the next connection on they speak the newer one.
    let address = old.mesh.local_address();
    old.mesh.close().await;
    let upgraded = Host::start_at(2, address, 1..=3).await;
    upgraded.lists(&new);
    assert_eq!(new.mesh.protocol(upgraded.id(), SOON).await, Ok(2));
    assert_eq!(new.ask(upgraded.id(), "x").await.unwrap(), "x");
}

#[tokio::test]
async fn nothing_over_the_limits_is_sent() {
    let (a, b) = two().await;
    let outcome = a.mesh.request(b.id(), vec![0; FRAME_BYTES_MAX + 1].into(), SOON).await;
    assert_eq!(outcome, Err(MeshError::TooLarge { size: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX }));
    let outcome = a.mesh.send_bulk(b.id(), Bytes::new(), vec![0; BULK_BYTES_MAX + 1].into(), SOON).await;
    assert_eq!(outcome, Err(MeshError::TooLarge { size: BULK_BYTES_MAX + 1, max: BULK_BYTES_MAX }));
    let outcome = a.mesh.send_bulk(b.id(), vec![0; (64 << 10) + 1].into(), Bytes::new(), SOON).await;
    assert_eq!(outcome, Err(MeshError::TooLarge { size: (64 << 10) + 1, max: 64 << 10 }));
    assert!(!a.is_connected(b.id()));
}

#[tokio::test]
async fn a_slow_handler_ends_in_no_answer_and_does_not_cost_the_connection() {
    let (a, b) = two().await;
    a.ask(b.id(), "x").await.unwrap();
    let link = a.link(b.id());
    let outcome = a.mesh.request(b.id(), Bytes::from_static(b"wait"), Duration::from_millis(300)).await;
    assert_eq!(no_answer_reason(outcome), "nothing within 300 ms");
    assert_eq!(a.ask(b.id(), "x").await.unwrap(), "x");
    // Longer than a link counts as fresh: the watch sees that the peer lives.
    let began = Instant::now();
    let (mesh, peer) = (a.mesh.clone(), b.id());
    let waiting = tokio::spawn(async move { mesh.request(peer, Bytes::from_static(b"wait"), SOON).await });
    until("it was pinged again and again", || began.elapsed() > link.silence() + 2 * FRESH_MAX).await;
    b.echo.release.notify_waiters();
    assert_eq!(waiting.await.unwrap().unwrap(), "waited");
    assert!(link.is_open());
}

#[tokio::test]
async fn a_handler_that_fails_ends_in_no_answer() {
    let (a, b) = two().await;
    assert_eq!(no_answer_reason(a.ask(b.id(), "panic").await), "the stream ended inside a frame");
    assert_eq!(no_answer_reason(a.ask(b.id(), "too much").await), "the peer refused: its handler failed");
    assert_eq!(a.ask(b.id(), "x").await.unwrap(), "x");
}

#[tokio::test]
async fn slow_handlers_hold_up_neither_pings_nor_each_other_beyond_the_limit() {
    let (a, b) = two().await;
    let waiting: Vec<_> = (0..STREAMS_MAX)
        .map(|_| {
            let (mesh, peer) = (a.mesh.clone(), b.id());
            tokio::spawn(async move { mesh.request(peer, Bytes::from_static(b"wait"), SOON).await })
        })
        .collect();
    let began = Instant::now();
    until("all are being handled", || b.echo.requests.load(SeqCst) == waiting.len()).await;
    let link = a.link(b.id());
    until("pings got through", || began.elapsed() > link.silence() + 2 * FRESH_MAX).await;
    assert!(link.is_open());
    // One more waits for its turn, and nothing of it was sent.
    let outcome = a.mesh.request(b.id(), Bytes::from_static(b"x"), Duration::from_millis(50)).await;
    assert_eq!(unreachable_reason(outcome), "nothing within 50 ms");
    b.echo.release.notify_waiters();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap(), "waited");
    }
}

#[tokio::test]
async fn removing_a_peer_closes_its_connections() {
    let (a, b) = two().await;
    let (mesh, peer) = (a.mesh.clone(), b.id());
    let waiting = tokio::spawn(async move { mesh.request(peer, Bytes::from_static(b"wait"), SOON).await });
    b.echo.began.notified().await;
    assert!(b.mesh.remove_peer(a.id()));
    assert!(!b.mesh.remove_peer(a.id()));
    no_answer_reason(waiting.await.unwrap());
    until("the connection is gone", || !a.is_connected(b.id())).await;
    assert_eq!(a.trouble(b.id()).as_deref(), Some("it does not list this host"));
    assert_eq!(unreachable_reason(a.ask(b.id(), "x").await), "it does not list this host");
    assert_eq!(b.ask(a.id(), "x").await, Err(MeshError::UnknownPeer { peer: a.id() }));
    // What it had asked for is not gone on with: it would have been answered, here, too.
    until("its request was dropped", || b.echo.dropped.load(SeqCst) == 1).await;
    b.lists(&a);
    assert_eq!(a.ask(b.id(), "x").await.unwrap(), "x");
    assert_eq!(a.trouble(b.id()), None);
}

#[tokio::test]
async fn closing_ends_waiting_requests_and_frees_the_port() {
    let (a, b) = two().await;
    let (mesh, peer) = (a.mesh.clone(), b.id());
    let waiting = tokio::spawn(async move { mesh.request(peer, Bytes::from_static(b"wait"), SOON).await });
    b.echo.began.notified().await;
    let address = b.mesh.local_address();
    b.mesh.close().await;
    b.mesh.close().await;
    no_answer_reason(waiting.await.unwrap());
    assert_eq!(unreachable_reason(b.ask(a.id(), "x").await), "this host's mesh is closed");

    let again = Host::start_at(2, address, 1..=1).await;
    again.lists(&a);
    assert_eq!(a.ask(again.id(), "x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_mesh_that_is_dropped_lets_go_of_its_peers() {
    let (a, b) = two().await;
    a.ask(b.id(), "x").await.unwrap();
    let shared = Arc::downgrade(&b.mesh.shared);
    drop(b);
    until("nothing holds it any more", || shared.strong_count() == 0).await;
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unreachable_in_time() {
    let (a, b) = two().await;
    b.mesh.close().await;
    let began = Instant::now();
    let outcome = a.mesh.request(b.id(), Bytes::from_static(b"x"), Duration::from_millis(400)).await;
    assert_eq!(unreachable_reason(outcome), "nothing within 400 ms");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_peer_at_a_new_address_is_found() {
    let (a, b) = two().await;
    a.ask(b.id(), "x").await.unwrap();
    b.mesh.close().await;
    let moved = Host::start(2).await;
    moved.lists(&a);
    a.lists(&moved);
    assert_eq!(a.ask(moved.id(), "x").await.unwrap(), "x");
    assert_eq!(moved.echo.requests.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_when_its_connection_breaks() {
    let (a, b) = two().await;
    let body = Bytes::from((0..BULK_BYTES_MAX).map(|index| (index % 247) as u8).collect::<Vec<_>>());
    let (mesh, peer, sent) = (a.mesh.clone(), b.id(), body.clone());
    let bulk = tokio::spawn(async move { mesh.send_bulk(peer, Bytes::new(), sent, SOON).await });
    let arrived = || b.mesh.shared.arrivals.received_bytes();
    let mut breaks = 0;
    for share in [8, 4, 2] {
        until("a share of it has arrived", || arrived() > BULK_BYTES_MAX / share || bulk.is_finished()).await;
        if let Some(link) = a.mesh.shared.peers.find(b.id()).unwrap().best().filter(|_| !bulk.is_finished()) {
            link.connection.close(0u32.into(), b"broken by the test");
            breaks += 1;
        }
    }
    assert_whole(bulk.await.unwrap(), b"", &body);
    assert_eq!(b.echo.bulks.load(SeqCst), 1);
    assert!(breaks > 0, "it was broken while under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trips_and_transfers_are_fast() {
    let (a, b) = two().await;
    a.ask(b.id(), "x").await.unwrap();
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let began = Instant::now();
        a.ask(b.id(), "x").await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("round trip p50 {:?} p99 {:?}", times[1_000], times[1_980]);
    let body = Bytes::from(vec![1; 1 << 20]);
    let mut transfers = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        a.mesh.send_bulk(b.id(), Bytes::new(), body.clone(), SOON).await.unwrap();
        transfers.push(began.elapsed());
    }
    transfers.sort();
    println!("1 MiB p50 {:?} worst {:?}", transfers[10], transfers[19]);
    let began = Instant::now();
    a.mesh.send_bulk(b.id(), Bytes::new(), vec![1; BULK_BYTES_MAX].into(), SOON).await.unwrap();
    println!("64 MiB {:?}", began.elapsed());
    // Far above what is expected: it must also hold on a machine that is busy with other things.
    assert!(times[1_000] < Duration::from_millis(20), "{:?}", times[1_000]);
    assert!(transfers[10] < Duration::from_millis(500), "{:?}", transfers[10]);
}
