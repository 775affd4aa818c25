//! `godwit peer`.

use clap::Subcommand;
use godwit_core::id::HostId;
use serde_json::json;

use super::Session;
use super::error::CliError;
use super::output::Column;
use crate::config::parse_peer;

const PEER_COLUMNS: [Column; 6] = [
    Column::text("KEY", "/key"),
    Column::text("ADDRESS", "/address"),
    Column::text("CONNECTED", "/connected"),
    Column::text("PROTOCOL", "/protocol"),
    Column::text("LIMITED", "/limited"),
    Column::text("TROUBLE", "/trouble"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Peer {
    /// Let the running host talk to another.
    Add {
        /// The other host's key and the address of its mesh.
        #[arg(value_name = "KEY@IP:PORT", value_parser = check_peer)]
        peer: String,
    },
    /// List the peers: the protocol version spoken with each, how often it was at a limit, and why there is no connection.
    List,
    /// Read the configured peers again, as SIGHUP does.
    Reload,
    /// Stop talking to another host, at once and for good: its connections are closed and its key is refused.
    Remove {
        /// Its key.
        key: HostId,
    },
}

impl Peer {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Add { peer } => {
                let answer = session.client.post("/v1/peers", Some(&json!({"peer": peer}))).await?;
                session.output.done(&answer, "/key", &format!("peer {peer} added"))
            }
            Self::List => {
                let items = session.client.list("/v1/peers").await?;
                session.output.list(items, &PEER_COLUMNS, "/key")
            }
            Self::Reload => {
                let answer = session.client.post("/v1/peers/reload", None).await?;
                let count = |name: &str| answer[name].as_array().map_or(0, Vec::len);
                let said = format!("{} peers added, {} removed", count("added"), count("removed"));
                session.output.done(&answer, "/added", &said)
            }
            Self::Remove { key } => {
                session.client.delete(&format!("/v1/peers/{key}")).await?;
                let answer = json!({"key": key.to_string()});
                session.output.done(&answer, "/key", &format!("peer {key} removed"))
            }
        }
    }
}

fn check_peer(text: &str) -> Result<String, String> {
    parse_peer(text).map(|_| text.to_owned())
}
