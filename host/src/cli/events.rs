//! `godwit events`: what happened, and what happens while we watch.

use std::time::Duration;

use clap::Args;
use godwit_core::id::AgentId;
use reqwest::{Method, Response, header};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Session;
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

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on with what happens from now on, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Only those about this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    /// Only those of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only those after this one: SEQ, or STORE:SEQ.
    #[arg(long, value_name = "SEQ")]
    after: Option<String>,
}

impl Events {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        if self.follow {
            return self.follow(session).await;
        }
        let mut query = self.query();
        query.push(("follow", "0"));
        query.extend(self.after.as_deref().map(|after| ("after", after)));
        let items = session.client.pages("/v1/events", &query).await?;
        session.output.list(items, &COLUMNS, "/id")
    }

    fn query(&self) -> Vec<(&str, &str)> {
        let agent = self.agent.as_ref().map(|agent| ("agent", agent.as_str()));
        let kind = self.kind.as_deref().map(|kind| ("kind", kind));
        agent.into_iter().chain(kind).collect()
    }

    /// Prints events as they come; a host that goes away is looked for again, from the last event on.
    async fn follow(&self, session: &Session) -> Result<(), CliError> {
        let mut last = self.after.clone();
        let mut tries = 0;
        loop {
            let request = session.client.request(Method::GET, "/v1/events").query(&self.query());
            let request = request.query(&[("follow", "1")]).header(header::ACCEPT, "text/event-stream");
            let request = match &last {
                Some(id) => request.header("last-event-id", id),
                None => request,
            };
            match session.client.send(request).await {
                Ok(stream) => {
                    tries = 0;
                    print_stream(session, stream, &mut last).await?;
                }
                Err(error @ CliError::Unreachable(_)) if last.is_none() || tries >= RECONNECTS_MAX => {
                    return Err(error);
                }
                Err(CliError::Unreachable(_)) => tries += 1,
                Err(error) => return Err(error),
            }
            sleep(RECONNECT).await;
        }
    }
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
    if message.event == "gap" {
        return session.output.note(&format!("gap: events are missing: {}", message.data));
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
