//! `godwit apply`, `reconcile`, `roster`, `edge`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use godwit_core::id::AgentId;
use reqwest::{Method, header};
use serde_json::{Value, json};

use super::Session;
use super::client::REQUEST_MAX;
use super::error::{CliError, Exit};
use super::output::Column;

const EDGE_COLUMNS: [Column; 4] = [
    Column::text("AGENT", "/between/0"),
    Column::text("AGENT", "/between/1"),
    Column::text("MANAGED", "/managed"),
    Column::text("WHOLE", "/whole"),
];

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The roster: TOML, or JSON when it is called so.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let text =
            std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let is_json = self.file.extension().is_some_and(|extension| extension == "json");
        let content_type = if is_json { "application/json" } else { "application/toml" };
        let request = session.client.request(Method::PUT, "/v1/roster").query(&[("dry_run", self.dry_run)]);
        let request = request.header(header::CONTENT_TYPE, content_type).body(text);
        report(session, &session.client.json(request.timeout(REQUEST_MAX)).await?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Reconcile {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/reconcile?dry_run={}", self.dry_run);
        report(session, &session.client.post(&path, None).await?)
    }
}

/// Prints the roster as the host has it.
pub(super) async fn show(session: &Session) -> Result<(), CliError> {
    session.output.one(&session.client.get("/v1/roster").await?, "/revision")
}

/// One line for each agent and edge that something was done with or should have been, then the sums.
fn report(session: &Session, answer: &Value) -> Result<(), CliError> {
    let output = &session.output;
    let list = |member: &str| answer[member].as_array().cloned().unwrap_or_default();
    let (agents, edges) = (list("agents"), list("edges"));
    let mut failed = 0;
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for item in agents.iter().chain(&edges) {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let pair = item["between"].as_array();
        let pair = pair.map(|pair| pair.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" -- "));
        let (name, action) = (pair.unwrap_or_else(|| text("agent")), text("action"));
        *counts.entry(action.clone()).or_default() += 1;
        match item["error"].as_str() {
            Some(error) => {
                failed += 1;
                output.note(&format!("{name}: {action} failed: {error}"))?;
            }
            None if ["keep", "unmanaged", "elsewhere"].contains(&action.as_str()) => {}
            None => output.note(&format!("{name}: {action}"))?,
        }
    }
    let counts: Vec<_> = counts.iter().map(|(action, count)| format!("{count} {action}")).collect();
    let counts = if counts.is_empty() { String::from("nothing to do") } else { counts.join(", ") };
    let mode = if answer["dry_run"] == true { "would be done" } else { "done" };
    output.done(answer, "/revision", &format!("{mode}: {counts}; {failed} failed"))?;
    match failed {
        0 => Ok(()),
        _ => Err(CliError::Ended {
            exit: Exit::Failed,
            text: format!("{failed} agents or edges are not as the roster says"),
        }),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Edge {
    /// Make two agents neighbours.
    Add(Ends),
    /// List the edges of the agents at home on this host.
    List,
    /// Make two agents strangers.
    Remove(Ends),
}

#[derive(Debug, Args)]
pub(super) struct Ends {
    /// One of them.
    one: AgentId,
    /// The other.
    other: AgentId,
}

impl Edge {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let (ends, method, did) = match self {
            Self::List => {
                let items = session.client.list("/v1/edges").await?;
                return session.output.list(items, &EDGE_COLUMNS, "/between/0");
            }
            Self::Add(ends) => (ends, Method::PUT, "there"),
            Self::Remove(ends) => (ends, Method::DELETE, "gone"),
        };
        let body = json!({"between": [ends.one.as_str(), ends.other.as_str()]});
        let request = session.client.request(method, "/v1/edges").json(&body);
        let answer = session.client.json(request.timeout(REQUEST_MAX)).await?;
        let sentence = format!("the edge between {} and {} is {did}", ends.one, ends.other);
        session.output.done(&answer, "/between/0", &sentence)
    }
}
