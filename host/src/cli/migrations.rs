//! `godwit migrate`, `migrations`, `migration`.

use std::time::Duration;

use clap::{Args, Subcommand};
use godwit_core::id::{AgentId, MigrationId};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Session;
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{Column, Format, size};

/// Pause between looks at a running migration.
const POLL: Duration = Duration::from_millis(20);
/// How long `--wait` waits: the host gives a migration up before.
const WAIT_MAX: Duration = Duration::from_secs(180);

const COLUMNS: [Column; 9] = [
    Column::text("ID", "/id"),
    Column::text("AGENT", "/agent"),
    Column::text("PHASE", "/phase"),
    Column::short("SOURCE", "/source"),
    Column::short("TARGET", "/target"),
    Column::text("ROUNDS", "/rounds"),
    Column::size("BYTES", "/bytes"),
    Column::text("PAUSE_MS", "/pause_ms"),
    Column::text("FAILURE", "/failure/code"),
];

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Which agent.
    id: AgentId,
    /// A host's name, key, or unique prefix of a key.
    #[arg(long, value_name = "HOST")]
    to: String,
    /// Print each phase and return when it is over.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Migration {
    /// Show one migration.
    Show {
        /// Which migration.
        id: MigrationId,
    },
    /// End a migration that has not passed its commit point. Asked at the source.
    Abort {
        /// Which migration.
        id: MigrationId,
    },
}

impl Migration {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Show { id } => {
                let migration = session.client.get(&format!("/v1/migrations/{id}")).await?;
                session.output.one(&migration, "/id")
            }
            Self::Abort { id } => {
                let migration = session.client.post(&format!("/v1/migrations/{id}/abort"), None).await?;
                session.output.done(&migration, "/id", &format!("migration {id} is told to end"))
            }
        }
    }
}

pub(super) async fn list(session: &Session) -> Result<(), CliError> {
    let items = session.client.list("/v1/migrations").await?;
    session.output.list(items, &COLUMNS, "/id")
}

impl Migrate {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/migrate", self.id);
        let started = session.client.post(&path, Some(&json!({"to": self.to}))).await?;
        let text = |name: &str| started[name].as_str().unwrap_or_default();
        let id = text("migration_id");
        if !self.wait {
            let sentence = format!("migration {id} started");
            return session.output.done(&started, "/migration_id", &sentence);
        }
        let source = client_of(session, text("source")).await?;
        let ended = wait(session, &source, id).await?;
        let summary = summary(&ended);
        match ended["phase"].as_str() {
            Some("complete") => session.output.done(&ended, "/id", &summary),
            _ => {
                if session.output.format != Format::Table {
                    session.output.value(&ended)?;
                }
                let exit = exit_of_failure(&ended);
                Err(CliError::Ended { exit, text: summary })
            }
        }
    }
}

/// A client of the host that coordinates the migration.
async fn client_of(session: &Session, source: &str) -> Result<Client, CliError> {
    let hosts = session.client.list("/v1/hosts").await?;
    let host = hosts.iter().find(|host| host["id"] == source);
    match host {
        Some(host) if host["self"] == true => Ok(session.client.clone()),
        Some(Value::Object(host)) if host["api"].is_string() => {
            Ok(session.client.at(host["api"].as_str().unwrap_or_default()))
        }
        _ => Err(CliError::NoAnswer(format!(
            "the migration started on host {source}, whose API is not known here: look at `godwit migrations` there"
        ))),
    }
}

/// Prints each phase that is seen, until the last.
async fn wait(session: &Session, source: &Client, id: &str) -> Result<Value, CliError> {
    let until = Instant::now() + WAIT_MAX;
    let mut shown = String::new();
    loop {
        let migration = source.get(&format!("/v1/migrations/{id}")).await?;
        let phase = migration["phase"].as_str().unwrap_or_default();
        if phase != shown && session.output.format == Format::Table {
            session.output.note(&format!("{phase}: {}", progress(&migration)))?;
            phase.clone_into(&mut shown);
        }
        if ["complete", "failed", "aborted"].contains(&phase) {
            return Ok(migration);
        }
        if Instant::now() >= until {
            return Err(CliError::NoAnswer(format!("migration {id} is still in phase {phase}")));
        }
        sleep(POLL).await;
    }
}

fn progress(migration: &Value) -> String {
    let rounds = migration["rounds"].as_u64().unwrap_or(0);
    let bytes = migration["bytes"].as_u64().unwrap_or(0);
    let s = if rounds == 1 { "" } else { "s" };
    format!("{rounds} round{s}, {}", size(bytes))
}

fn summary(migration: &Value) -> String {
    let text = |pointer: &str| migration.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (agent, phase, progress) = (text("/agent"), text("/phase"), progress(migration));
    match (phase, migration["pause_ms"].as_f64()) {
        ("complete", Some(pause_ms)) => {
            format!("agent {agent} moved to host {}: {progress}, paused {pause_ms:.1} ms", text("/target"))
        }
        ("complete", None) => format!("agent {agent} moved to host {}: {progress}", text("/target")),
        _ => {
            let helps = if migration["failure"]["retryable"] == true { "may" } else { "will not" };
            let why = text("/failure/message");
            format!("agent {agent} did not move: {phase}: {why} (trying again {helps} help)")
        }
    }
}

fn exit_of_failure(migration: &Value) -> Exit {
    match migration.pointer("/failure/code").and_then(Value::as_str) {
        Some("refused" | "fenced" | "plugin_unavailable") => Exit::Refused,
        Some("peer_unreachable") => Exit::Unreachable,
        Some("timeout") => Exit::Unknown,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests;
