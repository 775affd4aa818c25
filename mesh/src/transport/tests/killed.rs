//! Real processes that are killed and started again: how soon the others notice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

const CHILD_VARIABLE: &str = "GODWIT_MESH_TEST_CHILD";

/// Not a test of its own: the process that the tests below start and kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_serves_until_it_is_killed() {
    let Ok(settings) = std::env::var(CHILD_VARIABLE) else {
        return;
    };
    let settings: BTreeMap<&str, &str> =
        settings.split(' ').filter_map(|pair| pair.split_once('=')).collect();
    let host = Host::start_at(9, settings["listen"].parse().unwrap(), 1..=1).await;
    host.mesh.add_peer(settings["peer"].parse().unwrap(), settings["address"].parse().unwrap());
    println!("\nlistens {}", host.mesh.local_address());
    loop {
        host.echo.began.notified().await;
        println!("\nhandles");
    }
}

struct ChildHost {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl ChildHost {
    fn start(listen: SocketAddr, peer: &Host) -> Self {
        let settings = format!("listen={listen} peer={} address={}", peer.id(), peer.mesh.local_address());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transport::tests::killed::child_serves_until_it_is_killed", "--nocapture"])
            .env(CHILD_VARIABLE, settings)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = line_after(&mut lines, "listens ").parse().unwrap();
        Self { child, lines, address }
    }

    /// Waits until its handler works on a request.
    fn handles(&mut self) {
        line_after(&mut self.lines, "handles");
    }

    fn id() -> HostId {
        HostId(*SecretKey::from_bytes(&[9; 32]).public().as_bytes())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn line_after(lines: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> String {
    lines.find_map(|line| line.unwrap().strip_prefix(prefix).map(str::to_owned)).expect("the child says so")
}

impl Drop for ChildHost {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_killed_and_restarted_answers_the_first_request_soon() {
    let host = Host::start(1).await;
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut child = ChildHost::start(any, &host);
    host.mesh.add_peer(ChildHost::id(), child.address);
    assert_eq!(host.ask(ChildHost::id(), "x").await.unwrap(), "x");

    for is_same_port in [true, true, false] {
        child.kill();
        child = ChildHost::start(if is_same_port { child.address } else { any }, &host);
        host.mesh.add_peer(ChildHost::id(), child.address);
        // Before that a request would trust the link, be sent into the void, and be answered by nobody.
        let link = host.link(ChildHost::id());
        until("the link is not trusted any more", || !link.is_fresh()).await;
        let began = Instant::now();
        assert_eq!(host.ask(ChildHost::id(), "x").await.unwrap(), "x");
        let elapsed = began.elapsed();
        println!("first request after kill and restart, same port {is_same_port}: {elapsed:?}");
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_peer_that_is_killed_and_restarted_ends_soon() {
    let host = Host::start(1).await;
    let mut child = ChildHost::start(([127, 0, 0, 1], 0).into(), &host);
    host.mesh.add_peer(ChildHost::id(), child.address);
    host.ask(ChildHost::id(), "x").await.unwrap();
    let mesh = host.mesh.clone();
    let waiting = tokio::spawn(async move {
        mesh.request(ChildHost::id(), Bytes::from_static(b"wait"), Duration::from_secs(60)).await
    });
    child.handles();
    child.kill();
    let began = Instant::now();
    child = ChildHost::start(child.address, &host);
    let restarted = began.elapsed();
    no_answer_reason(within(SOON, waiting).await.expect("it ends long before its timeout").unwrap());
    println!("restarted after {restarted:?}, request in flight ended after {:?}", began.elapsed());
    assert_eq!(host.ask(ChildHost::id(), "x").await.unwrap(), "x");
    drop(child);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_peer_that_is_killed_for_good_ends_in_seconds() {
    let host = Host::start(1).await;
    let mut child = ChildHost::start(([127, 0, 0, 1], 0).into(), &host);
    host.mesh.add_peer(ChildHost::id(), child.address);
    let mesh = host.mesh.clone();
    host.ask(ChildHost::id(), "x").await.unwrap();
    let waiting = tokio::spawn(async move {
        mesh.request(ChildHost::id(), Bytes::from_static(b"wait"), Duration::from_secs(60)).await
    });
    child.handles();
    child.kill();
    let began = Instant::now();
    no_answer_reason(within(SOON, waiting).await.expect("it ends long before its timeout").unwrap());
    println!("killed for good: request in flight ended after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_to_a_peer_that_is_killed_midway_goes_on_with_its_successor() {
    let host = Host::start(1).await;
    let mut child = ChildHost::start(([127, 0, 0, 1], 0).into(), &host);
    host.mesh.add_peer(ChildHost::id(), child.address);
    host.ask(ChildHost::id(), "x").await.unwrap();
    let link = host.link(ChildHost::id());
    let (mesh, body) = (host.mesh.clone(), Bytes::from(vec![1; BULK_BYTES_MAX]));
    let sent = body.clone();
    let bulk = tokio::spawn(async move { mesh.send_bulk(ChildHost::id(), Bytes::new(), sent, SOON).await });
    // No more than the window is ever ahead of what the peer has read, so the last byte is far.
    until("some of it was sent", || link.connection.stats().udp_tx.bytes > 4 << 20).await;
    child.kill();
    child = ChildHost::start(child.address, &host);
    assert_whole(bulk.await.unwrap(), b"", &body);
    drop(child);
}
