//! Logs: where they go and which are shown. stdout belongs to the ready line.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Which logs to show, as `tracing` directives: `debug`, `godwit=trace,info`.
const VARIABLE: &str = "GODWIT_LOG";
/// The transport speaks up about things that are normal in a mesh, such as a peer that is down.
const DEFAULT: &str = "info,iroh=error,noq=error,noq_proto=error,noq_udp=error,wasmtime=warn";

/// Sends logs to stderr, filtered by `GODWIT_LOG`.
///
/// # Errors
/// When `GODWIT_LOG` can't be parsed, or logs go somewhere already.
pub fn start() -> anyhow::Result<()> {
    let directives = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .with_context(|| format!("{VARIABLE}: {directives:?} is not a list of log directives"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
