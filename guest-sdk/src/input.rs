//! What is delivered to an agent and what it answers.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Names, in lower case, and values. The extension point of inputs, replies and outputs.
pub type Headers = Vec<(String, String)>;

/// The id of an input; a UUID as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InputId(pub u128);

impl fmt::Display for InputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.write_str(&parts.join("-"))
    }
}

impl fmt::Debug for InputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One thing delivered to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Unique for the agent for all time.
    pub id: InputId,
    /// What it is about.
    pub kind: Kind,
    /// Who sent it. The host vouches for it.
    pub source: Source,
    /// MIME type of the payload; empty if the sender gave none.
    pub content_type: String,
    /// At most 512 KiB.
    pub payload: Vec<u8>,
    /// Ignore names that you do not know.
    pub headers: Headers,
    /// Ties an answer to its question.
    pub correlation: Option<String>,
    /// When the host accepted it, in Unix milliseconds. The same at every attempt.
    pub accepted_at_ms: u64,
}

impl Input {
    /// A message from outside, as tests send it.
    pub fn message(payload: impl AsRef<[u8]>) -> Self {
        let source = Source::External("test".into());
        Self::new(Kind::Message, source, payload.as_ref())
    }

    /// A message of another agent, as tests send it.
    pub fn from_peer(agent: &str, payload: impl AsRef<[u8]>) -> Self {
        let source = Source::Peer { agent: agent.into(), expects_reply: false };
        Self::new(Kind::Peer(PeerKind::Message), source, payload.as_ref())
    }

    /// A timer of the agent that fired, as tests send it.
    pub fn timer(name: &str, at_ms: u64, payload: impl AsRef<[u8]>) -> Self {
        let headers = vec![
            ("godwit-timer".to_owned(), name.to_owned()),
            ("godwit-timer-at-ms".to_owned(), at_ms.to_string()),
        ];
        Self { headers, ..Self::new(Kind::Timer, Source::System, payload.as_ref()) }
    }

    /// The end of an operation, as tests send it.
    pub fn operation_end(
        id: &str,
        outcome: OperationOutcome,
        status: Option<u16>,
        body: impl AsRef<[u8]>,
    ) -> Self {
        let mut headers = vec![("godwit-operation-outcome".to_owned(), outcome.name().to_owned())];
        headers.extend(status.map(|status| ("godwit-operation-status".to_owned(), status.to_string())));
        Self {
            headers,
            correlation: Some(id.to_owned()),
            ..Self::new(Kind::Operation, Source::System, body.as_ref())
        }
    }

    fn new(kind: Kind, source: Source, payload: &[u8]) -> Self {
        Self {
            id: InputId::default(),
            kind,
            source,
            content_type: String::new(),
            payload: payload.to_vec(),
            headers: Headers::new(),
            correlation: None,
            accepted_at_ms: 0,
        }
    }

    /// The payload as text, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok()
    }

    /// The payload read as JSON, if it has the form of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.payload).ok()
    }

    /// The value of a header, if it has one of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The name of the timer that fired, if it is one.
    pub fn timer_name(&self) -> Option<&str> {
        if self.kind == Kind::Timer { self.header("godwit-timer") } else { None }
    }

    /// The time for which the timer that fired was set, in Unix milliseconds, if it is one.
    pub fn timer_at_ms(&self) -> Option<u64> {
        if self.kind == Kind::Timer { self.header("godwit-timer-at-ms")?.parse().ok() } else { None }
    }

    /// How which operation ended, if it is an end of one. The payload is the body of the answer.
    pub fn operation(&self) -> Option<OperationEnd<'_>> {
        if self.kind != Kind::Operation {
            return None;
        }
        let named = self.header("godwit-operation-outcome")?;
        Some(OperationEnd {
            id: self.correlation.as_deref()?,
            outcome: OperationOutcome::ALL.into_iter().find(|outcome| outcome.name() == named)?,
            status: self.header("godwit-operation-status").and_then(|status| status.parse().ok()),
            reason: self.header("godwit-operation-reason").unwrap_or_default(),
        })
    }

    /// The agent that sent it, if one did.
    pub fn peer(&self) -> Option<&str> {
        match &self.source {
            Source::Peer { agent, .. } => Some(agent),
            _ => None,
        }
    }
}

/// How an operation of the agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationEnd<'a> {
    /// Which operation, as its start has named it.
    pub id: &'a str,
    /// How it ended.
    pub outcome: OperationOutcome,
    /// The status of the HTTP answer, if one came.
    pub status: Option<u16>,
    /// For people: why it did not complete.
    pub reason: &'a str,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationOutcome {
    /// An answer came, whatever its status.
    Completed,
    /// No answer came, and nothing was done; or an answer came that could not be taken.
    Failed,
    /// It may have been done.
    Unknown,
    /// The agent has cancelled it. If it had begun, it may have been done.
    Cancelled,
}

impl OperationOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Unknown, Self::Cancelled];

    /// Its name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What an input is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A message from outside.
    Message,
    /// From another agent.
    Peer(PeerKind),
    /// A step of a flow; the source names it.
    FlowStep,
    /// Something published on a channel that the agent subscribes to.
    Event,
    /// Work that the agent left for itself.
    Continuation,
    /// The end of an operation that the agent started.
    Operation,
    /// A timer of the agent that fired.
    Timer,
}

/// What an agent says to another agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PeerKind {
    /// A message that stands for itself.
    #[default]
    Message,
    /// A request.
    Request {
        /// What it is about, in words that the two agents agree on.
        intent: String,
    },
    /// An answer to a request that more answers will follow.
    ResponseProgress,
    /// The last answer to a request.
    ResponseTerminal,
}

/// Who sent an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A person or tool that operates the host.
    Operator,
    /// Another agent.
    Peer {
        /// Its id.
        agent: String,
        /// Whether the reply to this input is sent back to it.
        expects_reply: bool,
    },
    /// A flow.
    Flow {
        /// Which flow.
        id: String,
        /// Which of its steps.
        step: String,
    },
    /// The host.
    System,
    /// A client of the host's API, by the name it gave.
    External(String),
}

/// The answer to one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Whether and what is answered.
    pub outcome: Outcome,
    /// MIME type of the bytes; may be empty.
    pub content_type: String,
    /// Header pairs.
    pub headers: Headers,
}

/// Whether and what is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing to say.
    None,
    /// An answer; at most 512 KiB.
    Ok(Vec<u8>),
    /// The agent says no. The turn is good and its effects are committed.
    Refused {
        /// A short reason for programs.
        code: String,
        /// Details.
        body: Vec<u8>,
    },
}

impl Reply {
    /// No answer.
    pub fn none() -> Self {
        Self::new(Outcome::None, "")
    }

    /// An answer of bytes.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self::new(Outcome::Ok(body.into()), "application/octet-stream")
    }

    /// An answer of text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::new(Outcome::Ok(body.into().into_bytes()), "text/plain; charset=utf-8")
    }

    /// An answer in JSON.
    ///
    /// # Panics
    /// When `value` has no form in JSON: a map whose keys are no texts, or a `Serialize` that fails.
    pub fn json(value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("a reply has a form in json");
        Self::new(Outcome::Ok(body), "application/json")
    }

    /// No, and why: a short code for programs.
    pub fn refused(code: impl Into<String>) -> Self {
        let outcome = Outcome::Refused { code: code.into(), body: Vec::new() };
        Self::new(outcome, "")
    }

    fn new(outcome: Outcome, content_type: &str) -> Self {
        Self { outcome, content_type: content_type.into(), headers: Headers::new() }
    }
}
