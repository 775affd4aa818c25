//! The floor of a move's total time: the same number of bytes over one bare QUIC stream on loopback, with the windows of the
//! product's mesh, from the first byte written to the peer's word that it has the last. The receiver is a process's worth of
//! its own: a runtime in another thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use iroh::endpoint::{Connection, NetReportConfig, PortmapperConfig, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, SecretKey};

const ALPN: &[u8] = b"godwit-bench";
/// As the mesh has them.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of one write, and of one read.
const CHUNK_BYTES: usize = 256 << 10;

/// A connection to a receiver in another thread.
pub(crate) struct BareQuic {
    connection: Connection,
    /// Dropped last: closing it ends the receiver.
    _endpoint: Endpoint,
}

impl BareQuic {
    /// Starts both ends.
    ///
    /// # Errors
    /// When there is no socket to have.
    pub(crate) async fn start() -> Result<Self> {
        let (said, heard) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(receive(said))
        });
        let address: EndpointAddr = heard.await.context("the receiver has no socket")?;
        let endpoint = bind(SecretKey::from_bytes(&[1; 32])).await?;
        let connection = endpoint.connect(address, ALPN).await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Sends so many bytes, and waits for the receiver's word that it has them.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn send(&self, bytes: usize) -> Result<Duration> {
        let chunk = vec![7; CHUNK_BYTES];
        let started = Instant::now();
        let (mut send, mut receive) = self.connection.open_bi().await?;
        let mut left = bytes;
        while left > 0 {
            let now = left.min(CHUNK_BYTES);
            send.write_all(&chunk[..now]).await?;
            left -= now;
        }
        send.finish()?;
        let word = receive.read_to_end(8).await?;
        ensure!(word == (bytes as u64).to_le_bytes(), "the receiver has other bytes");
        Ok(started.elapsed())
    }
}

async fn receive(said: tokio::sync::oneshot::Sender<EndpointAddr>) -> Result<()> {
    let key = SecretKey::from_bytes(&[2; 32]);
    let endpoint = bind(key.clone()).await?;
    let socket = endpoint.bound_sockets().into_iter().next().context("a socket")?;
    // Whoever wanted to know may be gone.
    drop(said.send(EndpointAddr::new(key.public()).with_ip_addr(socket)));
    let connection = endpoint.accept().await.context("nobody came")?.await?;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let mut received = 0_u64;
        while let Some(chunk) = receive.read_chunk(CHUNK_BYTES).await? {
            received += chunk.len() as u64;
        }
        send.write_all(&received.to_le_bytes()).await?;
        send.finish()?;
    }
    Ok(())
}

async fn bind(key: SecretKey) -> Result<Endpoint> {
    let windows = QuicTransportConfig::builder()
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into())
        .build();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .clear_ip_transports()
        .bind_addr(loopback)?
        .transport_config(windows)
        .alpns(vec![ALPN.to_vec()])
        .bind()
        .await?;
    Ok(endpoint)
}
