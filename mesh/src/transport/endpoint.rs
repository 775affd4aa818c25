//! The QUIC endpoint: one UDP socket, and nothing that would talk to anyone but the peers.

use std::net::SocketAddr;

use iroh::endpoint::{NetReportConfig, PortmapperConfig, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, RelayMode, SecretKey};

use super::MeshStartError;
use crate::handshake::ALPN;
use crate::limits::{
    BULKS_MAX, IDLE_MAX, INITIAL_RTT, KEEP_ALIVE, PING_STREAMS_MAX, STREAM_WINDOW_BYTES, STREAMS_MAX,
    WINDOW_BYTES,
};

/// Opens the socket. Answers the endpoint and the address it got.
///
/// Never `online()`: it waits for a relay. Never an `N0` preset: it publishes addresses to public servers. 0-RTT is only
/// used by those who ask for it, and nobody here does.
pub(super) async fn bind(
    secret_key: SecretKey,
    listen: SocketAddr,
) -> Result<(Endpoint, SocketAddr), MeshStartError> {
    let failed = |reason: String| MeshStartError::Bind { address: listen, reason };
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(secret_key)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .clear_ip_transports()
        .bind_addr(listen)
        .map_err(|err| failed(format!("{err:#}")))?
        .transport_config(transport_config())
        .alpns(vec![ALPN.to_vec()])
        .bind()
        .await
        .map_err(|err| failed(format!("{err:#}")))?;
    let bound = endpoint.bound_sockets().into_iter().next();
    let address = bound.ok_or_else(|| failed("the endpoint has no socket".into()))?;
    Ok((endpoint, address))
}

fn transport_config() -> QuicTransportConfig {
    let streams = u32::try_from(STREAMS_MAX + BULKS_MAX + PING_STREAMS_MAX).unwrap_or(u32::MAX);
    let idle = IDLE_MAX.try_into().expect("ten seconds fit a QUIC timeout");
    // Without `ack_frequency_config`: noq-proto 1.4 then panics where a peer says that its smallest delay is above 25 ms.
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_max_idle_timeout(IDLE_MAX)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into())
        .build()
}
