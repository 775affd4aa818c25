//! `godwit serve`: a host from a configuration, until a signal.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::HostConfig;
use crate::host::{Failure, Host, HostBuilder};
use crate::peer_book::ReadPeers;

/// The store can't say whether a write happened: start again, and it reads the truth from the disk.
const EXIT_RESTART: u8 = 75;

/// Runs a host until SIGTERM, SIGINT, or a failure that it can't survive. At SIGHUP it reads its configured peers again.
///
/// # Errors
/// When a stage of the start fails; what was started is taken down again.
pub async fn serve(
    config: HostConfig,
    is_restoring: bool,
    read_peers: ReadPeers,
) -> anyhow::Result<ExitCode> {
    let host = HostBuilder::new(config).restoring(is_restoring).read_peers(read_peers).start().await?;
    // Whoever reads the ready line may end the host at once, and in order.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    println!("{}", host.ready_line());
    let reloading = async {
        while hangup.recv().await.is_some() {
            if let Err(error) = host.runtime().reload_peers() {
                tracing::error!(%error, "peers are as before");
            }
        }
    };
    // Cancel safe: the first to resolve ends the host, the others are not needed any more.
    let exit = tokio::select! {
        () = reloading => ExitCode::FAILURE,
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        failure = host.failed() => match failure {
            Failure::Host { reason } => {
                tracing::error!(reason, "stopping");
                ExitCode::FAILURE
            }
            Failure::Store { reason } => return Ok(restart(host, &reason).await),
        }
    };
    // Cancel safe: a second signal gives up waiting, and everything durable is durable already.
    tokio::select! {
        _ = host.stop() => Ok(exit),
        _ = terminate.recv() => Ok(ExitCode::FAILURE),
        _ = interrupt.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn restart(host: Host, reason: &str) -> ExitCode {
    tracing::error!(reason, "the store can't go on: exit 75, start again");
    host.abandon().await;
    ExitCode::from(EXIT_RESTART)
}
