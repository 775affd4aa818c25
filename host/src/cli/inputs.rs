//! `godwit ask`, `send`, `enqueue`, `query`, `inputs`, `dead-letters`.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use godwit_core::id::{AgentId, InputId};
use godwit_core::input::{InputState, Mode};
use godwit_core::limits::ASK_TIMEOUT_DEFAULT;
use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::{Value, json};

use super::Session;
use super::client::REQUEST_MAX;
use super::error::{CliError, Exit};
use super::output::{Column, Format};

/// How much longer than the host's own bound the client waits for the answer.
const ANSWER_SLACK: Duration = Duration::from_secs(10);

const COLUMNS: [Column; 6] = [
    Column::text("SEQ", "/seq"),
    Column::text("ID", "/id"),
    Column::text("KIND", "/kind"),
    Column::text("STATE", "/state"),
    Column::text("ATTEMPTS", "/attempts"),
    Column::time("ACCEPTED", "/accepted_at_ms"),
];

const DEAD_COLUMNS: [Column; 6] = [
    Column::text("SEQ", "/seq"),
    Column::text("ID", "/id"),
    Column::text("REASON", "/outcome/reason"),
    Column::text("ATTEMPTS", "/attempts"),
    Column::time("ACCEPTED", "/accepted_at_ms"),
    Column::text("MESSAGE", "/outcome/message"),
];

/// The bytes that an agent gets.
#[derive(Debug, Args)]
struct Payload {
    /// The payload; `-` reads it from stdin.
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// Read the payload from a file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Payload {
    fn read(&self) -> Result<Vec<u8>, CliError> {
        match (&self.file, self.payload.as_deref()) {
            (Some(file), _) => {
                Ok(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)
            }
            (None, Some("-")) => {
                let mut bytes = Vec::new();
                std::io::stdin().lock().read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            (None, text) => Ok(text.unwrap_or_default().into()),
        }
    }
}

/// What to send.
#[derive(Debug, Args)]
pub(super) struct What {
    #[command(flatten)]
    payload: Payload,
    /// Send under this key: the same key never runs twice.
    #[arg(long)]
    key: Option<String>,
    /// In which lane it waits: steer runs before queue.
    #[arg(long, value_parser = [Mode::Queue.name(), Mode::Steer.name()])]
    mode: Option<String>,
    /// Take the place of queued inputs that were sent under this key.
    #[arg(long, value_name = "KEY")]
    supersedes: Option<String>,
    /// What it is about: message, event, flow-step [default: message].
    #[arg(long)]
    kind: Option<String>,
    /// MIME type of the payload [default: text/plain, or application/octet-stream when it is no text].
    #[arg(long = "type", value_name = "MIME")]
    content_type: Option<String>,
}

impl What {
    /// The request to a path.
    fn request(&self, session: &Session, path: &str) -> Result<RequestBuilder, CliError> {
        let payload = self.payload.read()?;
        let guessed = match std::str::from_utf8(&payload) {
            Ok(_) => "text/plain; charset=utf-8",
            Err(_) => "application/octet-stream",
        };
        let content_type = self.content_type.as_deref().unwrap_or(guessed);
        let request = session.client.request(Method::POST, path);
        let request = request.header(header::CONTENT_TYPE, content_type).body(payload);
        let headers = [
            ("idempotency-key", &self.key),
            ("godwit-mode", &self.mode),
            ("godwit-supersedes", &self.supersedes),
            ("godwit-kind", &self.kind),
        ];
        let given = headers.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        Ok(given.fold(request, |request, (name, value)| request.header(name, value)))
    }

    /// Sends it to a path, and says that it is durable.
    pub(super) async fn send_to(&self, session: &Session, path: &str) -> Result<(), CliError> {
        let request = self.request(session, path)?.timeout(REQUEST_MAX);
        accepted(session, &session.client.json(request).await?)
    }
}

/// What to ask.
#[derive(Debug, Args)]
pub(super) struct Question {
    #[command(flatten)]
    what: What,
    /// How long to wait for the reply, in milliseconds [default: 30000].
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

impl Question {
    /// Sends it to a path, and prints the reply.
    pub(super) async fn ask_at(&self, session: &Session, path: &str) -> Result<(), CliError> {
        let bound = self.timeout_ms.map_or(ASK_TIMEOUT_DEFAULT, Duration::from_millis);
        let request = self.what.request(session, path)?;
        let request = match self.timeout_ms {
            Some(millis) => request.query(&[("timeout_ms", millis)]),
            None => request,
        };
        let answer = session.client.send(request.timeout(bound.saturating_add(ANSWER_SLACK))).await?;
        print_reply(session, answer, "/input_id", "the reply broke off; ask again with the same --key").await
    }
}

#[derive(Debug, Args)]
pub(super) struct Ask {
    /// Which agent.
    id: AgentId,
    #[command(flatten)]
    question: Question,
}

impl Ask {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        self.question.ask_at(session, &format!("/v1/agents/{}/ask", self.id)).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Query {
    /// Which agent.
    id: AgentId,
    #[command(flatten)]
    payload: Payload,
}

impl Query {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/query", self.id);
        let request = session.client.request(Method::POST, &path).body(self.payload.read()?);
        let answer = session.client.send(request.timeout(REQUEST_MAX)).await?;
        print_reply(session, answer, "/revision", "the reply broke off; query again").await
    }
}

#[derive(Debug, Args)]
pub(super) struct WaitOutput {
    /// Which agent.
    id: AgentId,
    /// Only an output that contains this text.
    #[arg(long, value_name = "TEXT")]
    containing: Option<String>,
    /// Behind this boundary: REVISION, or GENERATION.REVISION; without it, what is said from now on.
    #[arg(long, value_name = "REVISION")]
    after: Option<String>,
    /// How long to wait, in milliseconds [default: 30000].
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

impl WaitOutput {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let bound = self.timeout_ms.map_or(ASK_TIMEOUT_DEFAULT, Duration::from_millis);
        let timeout = self.timeout_ms.map(|millis| millis.to_string());
        let parts = [("containing", &self.containing), ("after", &self.after), ("timeout_ms", &timeout)];
        let query: Vec<_> =
            parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        let request = session.client.request(Method::GET, &format!("/v1/agents/{}/wait-output", self.id));
        let request = request.query(&query).timeout(bound.saturating_add(ANSWER_SLACK));
        let output = session.client.json(request).await?;
        let reply = &output["reply"];
        let said = reply["body"].as_str().or_else(|| reply["body_base64"].as_str()).unwrap_or_default();
        match session.output.format {
            Format::Table => session.output.line(said),
            _ => session.output.done(&output, "/after", said),
        }
    }
}

async fn print_reply(
    session: &Session,
    answer: Response,
    name: &str,
    broken_off: &'static str,
) -> Result<(), CliError> {
    let about = about(&answer);
    let reply = answer.bytes().await.context(broken_off)?;
    match session.output.format {
        Format::Table => session.output.raw(&reply),
        _ => session.output.done(&with_reply(about, &reply), name, ""),
    }
}

/// What an answer's headers say; a query has no input.
fn about(answer: &Response) -> Value {
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    json!({
        "agent": text("godwit-agent"),
        "input_id": text("godwit-input-id"),
        "revision": text("godwit-revision"),
        "token": text("godwit-token"),
        "content_type": text("content-type"),
    })
}

fn with_reply(mut about: Value, reply: &[u8]) -> Value {
    about["bytes"] = reply.len().into();
    about["reply"] = String::from_utf8_lossy(reply).into();
    about
}

#[derive(Debug, Args)]
pub(super) struct Send {
    /// Which agent.
    id: AgentId,
    #[command(flatten)]
    what: What,
}

impl Send {
    pub(super) async fn run(&self, session: &Session, verb: &str) -> Result<(), CliError> {
        self.what.send_to(session, &format!("/v1/agents/{}/{verb}", self.id)).await
    }
}

#[derive(Debug, Args)]
pub(super) struct Dispatch {
    /// Which agent.
    id: AgentId,
    #[command(flatten)]
    what: What,
    /// What dispatches: a connector, a scheduler, a flow.
    #[arg(long)]
    origin: String,
    /// What it belongs to.
    #[arg(long)]
    correlation: String,
}

impl Dispatch {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        if self.what.key.is_none() {
            return Err(CliError::Usage("a dispatch needs a --key, so that its repetition is known".into()));
        }
        let path = format!("/v1/agents/{}/dispatch", self.id);
        let request = self.what.request(session, &path)?.timeout(REQUEST_MAX);
        let request = request.header("godwit-origin", &self.origin);
        let request = request.header("godwit-correlation", &self.correlation);
        accepted(session, &session.client.json(request).await?)
    }
}

/// Says that an input is durable.
fn accepted(session: &Session, answer: &Value) -> Result<(), CliError> {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let did = if answer["deduplicated"] == true { "was accepted before" } else { "accepted" };
    let sentence =
        format!("input {} {did} by agent {} as number {}", text("input_id"), text("agent"), text("seq"));
    session.output.done(answer, "/input_id", &sentence)
}

#[derive(Debug, Args)]
pub(super) struct Inputs {
    /// Which agent.
    id: AgentId,
    /// Show this one only, with payload and reply.
    input: Option<InputId>,
    /// End this one, which must be queued, as cancelled.
    #[arg(long, requires = "input")]
    cancel: bool,
    /// Wait for its end first, at most this many milliseconds [without a number: 30000].
    #[arg(long, requires = "input", conflicts_with = "cancel", value_name = "MS", num_args = 0..=1, default_missing_value = "30000")]
    wait: Option<u64>,
    /// Only those in this state.
    #[arg(long, value_parser = InputState::ALL.map(InputState::name))]
    state: Option<String>,
    /// Only those after this number.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

impl Inputs {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/inputs", self.id);
        if let Some(input) = self.input.filter(|_| self.cancel) {
            return end(session, &format!("{path}/{input}"), &format!("input {input} is cancelled")).await;
        }
        if let Some(input) = self.input {
            let request = session.client.request(Method::GET, &format!("{path}/{input}"));
            let request = match self.wait {
                Some(millis) => request
                    .query(&[("wait_ms", millis)])
                    .timeout(Duration::from_millis(millis).saturating_add(ANSWER_SLACK)),
                None => request,
            };
            let shown = session.client.json(request).await?;
            session.output.one(&shown, "/id")?;
            let is_open = shown["outcome"].is_null();
            return match self.wait {
                Some(millis) if is_open => {
                    let text = format!("input {input} has not ended within {millis} ms");
                    Err(CliError::Ended { exit: Exit::Unknown, text })
                }
                _ => Ok(()),
            };
        }
        let after = self.after.unwrap_or(0).to_string();
        let mut query = vec![("after", after.as_str())];
        query.extend(self.state.as_deref().map(|state| ("state", state)));
        session.output.list(session.client.pages(&path, &query).await?, &COLUMNS, "/id")
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    verb: Option<DeadLetter>,
    /// Which agent: the same as `list`.
    id: Option<AgentId>,
}

#[derive(Debug, Subcommand)]
enum DeadLetter {
    /// List an agent's dead letters.
    List {
        /// Which agent.
        id: AgentId,
    },
    /// Give a dead letter another chance.
    Retry {
        /// Which agent.
        id: AgentId,
        /// Which input.
        input: InputId,
    },
    /// Give a dead letter up for good.
    Drop {
        /// Which agent.
        id: AgentId,
        /// Which input.
        input: InputId,
    },
}

impl DeadLetters {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        match (&self.verb, &self.id) {
            (Some(DeadLetter::List { id }), _) | (None, Some(id)) => {
                let path = format!("/v1/agents/{id}/dead-letters");
                let items = session.client.pages(&path, &[]).await?;
                session.output.list(items, &DEAD_COLUMNS, "/id")
            }
            (Some(DeadLetter::Retry { id, input }), _) => {
                let path = format!("/v1/agents/{id}/dead-letters/{input}/retry");
                let answer = session.client.post(&path, None).await?;
                session.output.done(&answer, "/input_id", &format!("input {input} is queued again"))
            }
            (Some(DeadLetter::Drop { id, input }), _) => {
                let path = format!("/v1/agents/{id}/dead-letters/{input}");
                end(session, &path, &format!("input {input} is dropped")).await
            }
            (None, None) => Err(CliError::Usage("which agent?".into())),
        }
    }
}

async fn end(session: &Session, path: &str, sentence: &str) -> Result<(), CliError> {
    let request = session.client.request(Method::DELETE, path).timeout(REQUEST_MAX);
    let answer = session.client.json(request).await?;
    session.output.done(&answer, "/input_id", sentence)
}
