//! `godwit events` and `godwit agent events`: what happened, and what happens while we watch.

use std::time::Duration;

use clap::Args;
use godwit_core::id::AgentId;
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Session;
use super::client::Client;
use super::error::CliError;
use super::output::{Column, Format};

/// Pause before looking for a host again that went away.
const RECONNECT: Duration = Duration::from_secs(1);
/// Tries to find it again, before giving up.
const RECONNECTS_MAX: u32 = 30;
/// A line of the stream in bytes; an event is far smaller.
const LINE_BYTES_MAX: usize = 1 << 20;

const COLUMNS: [Column; 5] = [
    Column::text("SEQ", "/seq"),
    Column::time("TIME", "/at_ms"),
    Column::text("KIND", "/kind"),
    Column::text("AGENT", "/agent"),
    Column::text("DATA", "/data"),
];

const AGENT_COLUMNS: [Column; 4] = [
    Column::text("PLACE", "/place"),
    Column::time("TIME", "/at_ms"),
    Column::text("KIND", "/kind"),
    Column::text("DATA", "/data"),
];

#[derive(Debug, Args)]
struct Filter {
    /// Only those of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only those of agents that had this label then.
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Option<String>,
}

impl Filter {
    fn query(&self) -> Vec<(&str, &str)> {
        let parts = [("kind", &self.kind), ("label", &self.label)];
        parts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// `godwit agent events`: in the agent's own count, wherever it goes.
#[derive(Debug, Args)]
pub(super) struct AgentEvents {
    /// Which agent.
    id: AgentId,
    /// Go on with what happens from now on, also where the agent moves to, until interrupted.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only those after this one: GENERATION.NUMBER, as in the column PLACE.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
}

impl AgentEvents {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/events", self.id);
        let mut query = self.filter.query();
        if self.follow {
            let about = About { path: &path, query: &query, agent: Some(&self.id) };
            return follow(session, &about, self.after.clone()).await;
        }
        query.push(("follow", "0"));
        query.extend(self.after.as_deref().map(|after| ("after", after)));
        let mut items = session.client.pages(&path, &query).await?;
        for gap in items.iter().map(|item| &item["gap"]).filter(|gap| !gap.is_null()) {
            session.output.note(&format!("gap: events are missing: {gap}"))?;
        }
        items.retain(|item| item["gap"].is_null());
        session.output.list(items, &AGENT_COLUMNS, "/place")
    }
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on with what happens from now on, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Only those about this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    #[command(flatten)]
    filter: Filter,
    /// Only those after this one: SEQ, or STORE:SEQ.
    #[arg(long, value_name = "SEQ")]
    after: Option<String>,
}

impl Events {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        if self.follow {
            let about = About { path: "/v1/events", query: &self.query(), agent: None };
            return follow(session, &about, self.after.clone()).await;
        }
        let mut query = self.query();
        query.push(("follow", "0"));
        query.extend(self.after.as_deref().map(|after| ("after", after)));
        let items = session.client.pages("/v1/events", &query).await?;
        session.output.list(items, &COLUMNS, "/id")
    }

    fn query(&self) -> Vec<(&str, &str)> {
        let agent = self.agent.as_ref().map(|agent| ("agent", agent.as_str()));
        agent.into_iter().chain(self.filter.query()).collect()
    }
}

/// What is followed.
struct About<'a> {
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    /// When it is an agent: from its home.
    agent: Option<&'a AgentId>,
}

/// Prints events as they come; a host that goes away is looked for again, and an agent that moves, from the last event on.
async fn follow(session: &Session, about: &About<'_>, after: Option<String>) -> Result<(), CliError> {
    let mut last = after;
    let mut tries = 0;
    let mut is_known = false;
    loop {
        match open(session, about, last.as_deref()).await {
            Ok(stream) => {
                (tries, is_known) = (0, true);
                print_stream(session, stream, &mut last).await?;
            }
            Err(error @ CliError::Unreachable(_)) if !is_known || tries >= RECONNECTS_MAX => {
                return Err(error);
            }
            // It moves on while it is looked for.
            Err(CliError::Problem { status, .. })
                if status == StatusCode::MISDIRECTED_REQUEST && tries < RECONNECTS_MAX =>
            {
                tries += 1;
            }
            Err(CliError::Unreachable(_)) => tries += 1,
            Err(error) => return Err(error),
        }
        sleep(RECONNECT).await;
    }
}

async fn open(session: &Session, about: &About<'_>, last: Option<&str>) -> Result<Response, CliError> {
    let client = match about.agent {
        Some(agent) => home_of(session, agent).await?,
        None => session.client.clone(),
    };
    let request = client.request(Method::GET, about.path).query(about.query);
    let request = request.query(&[("follow", "1")]).header(header::ACCEPT, "text/event-stream");
    let request = match last {
        Some(id) => request.header("last-event-id", id),
        None => request,
    };
    client.send(request).await
}

/// The host where an agent is at home.
async fn home_of(session: &Session, agent: &AgentId) -> Result<Client, CliError> {
    let view = session.client.get(&format!("/v1/agents/{agent}")).await?;
    let hosts = session.client.get("/v1/hosts").await?;
    let mut hosts = hosts["items"].as_array().into_iter().flatten();
    let home = hosts.find(|host| host["id"] == view["home"] && host["self"] != true);
    Ok(match home.and_then(|host| host["api"].as_str()) {
        Some(api) => session.client.at(&format!("http://{api}")),
        None => session.client.clone(),
    })
}

/// Prints until the stream ends, and remembers the last event's id.
async fn print_stream(
    session: &Session,
    mut stream: Response,
    last: &mut Option<String>,
) -> Result<(), CliError> {
    let mut parser = Parser::default();
    // A connection that breaks is a reason to come back, like one that ends.
    while let Ok(Some(chunk)) = stream.chunk().await {
        for message in parser.feed(&chunk)? {
            print(session, &message)?;
            if let Some(id) = message.id {
                *last = Some(id);
            }
        }
    }
    Ok(())
}

fn print(session: &Session, message: &Message) -> Result<(), CliError> {
    let value: Value = serde_json::from_str(&message.data).unwrap_or_else(|_| json!(message.data));
    match message.event.as_str() {
        "gap" => return session.output.note(&format!("gap: events are missing: {}", message.data)),
        "moved" => return session.output.note(&format!("the agent has moved: {}", message.data)),
        _ => {}
    }
    match session.output.format {
        Format::Json => session.output.line(&value.to_string()),
        Format::Yaml => {
            session.output.line("---")?;
            session.output.value(&value)
        }
        Format::Name => session.output.line(value["id"].as_str().unwrap_or_default()),
        Format::Table => {
            let cells: Vec<_> = COLUMNS.iter().map(|column| column.cell(&value)).collect();
            session.output.line(&cells.join("   "))
        }
    }
}

/// One message of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    id: Option<String>,
    event: String,
    data: String,
}

/// Cuts a stream of server-sent events into messages.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Message>, CliError> {
        let mut done = Vec::new();
        for &byte in chunk {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > LINE_BYTES_MAX {
                    return Err(
                        anyhow::anyhow!("the stream has a line of more than {LINE_BYTES_MAX} bytes").into()
                    );
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            done.extend(self.on_line(line.trim_end_matches('\r')));
        }
        Ok(done)
    }

    /// Takes one line; an empty one ends a message.
    fn on_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments, `retry`, and what is not known.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
