//! `godwit peer`.

use clap::Subcommand;
use godwit_core::id::HostId;
use serde_json::json;

use super::Session;
use super::error::CliError;
use super::output::Column;
use crate::config::parse_peer;

const PEER_COLUMNS: [Column; 3] = [
    Column::text("KEY", "/key"),
    Column::text("ADDRESS", "/address"),
    Column::text("CONNECTED", "/connected"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Peer {
    /// Let the running host talk to another.
    Add {
        /// The other host's key and the address of its mesh.
        #[arg(value_name = "KEY@IP:PORT", value_parser = check_peer)]
        peer: String,
    },
    /// List the peers.
    List,
    /// Stop talking to another host.
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
