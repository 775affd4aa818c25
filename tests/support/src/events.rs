//! The event log, read as a client reads it: server-sent events after a cursor.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::client::Client;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its JSON.
    pub body: Value,
}

impl Event {
    /// The kind's name.
    pub fn kind(&self) -> &str {
        self.body["kind"].as_str().unwrap_or_default()
    }

    /// Its number in the store's log.
    pub fn seq(&self) -> u64 {
        self.body["seq"].as_str().and_then(|seq| seq.parse().ok()).unwrap_or_default()
    }

    /// Wall time at which it was written, in Unix milliseconds.
    pub fn at_ms(&self) -> u64 {
        self.body["at_ms"].as_u64().unwrap_or_default()
    }

    /// The agent that it is about.
    pub fn agent(&self) -> &str {
        self.body["agent"].as_str().unwrap_or_default()
    }

    /// A detail.
    pub fn detail(&self, name: &str) -> &str {
        self.body["data"][name].as_str().unwrap_or_default()
    }
}

/// Reads events from the oldest on until one is `wanted`, at most for `limit`.
///
/// # Errors
/// When none comes: names what was waited for, and which kinds came.
pub async fn find(
    client: &Client,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Event> {
    find_after(client, 0, what, limit, wanted).await
}

/// As `find`, from behind a seq on.
///
/// # Errors
/// As `find`.
pub async fn find_after(
    client: &Client,
    after: u64,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Event> {
    let began = Instant::now();
    let mut seen = Vec::new();
    while began.elapsed() < limit {
        seen.clear();
        let left = limit.saturating_sub(began.elapsed());
        // A stream that breaks is opened again: the host may be coming back.
        if let Ok(Ok(Some(event))) =
            tokio::time::timeout(left, search(client, after, left, &wanted, &mut seen)).await
        {
            return Ok(event);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen: Vec<_> = seen.iter().map(|event| event.body.to_string()).collect();
    bail!("waited {limit:?} in vain for {what}; the last events:\n{}", seen.join("\n"))
}

/// The event that says that an act of a stale owner was refused at `place`.
///
/// # Errors
/// When none comes in time.
pub async fn fenced(client: &Client, agent: &str, place: &str, limit: Duration) -> Result<Event> {
    let what = format!("the event that {agent} was fenced at the {place}");
    let wanted =
        |event: &Event| event.kind() == "fenced" && event.agent() == agent && event.detail("place") == place;
    find(client, &what, limit, wanted).await
}

/// Reads one stream. Ends with the wanted event, or with the stream.
async fn search(
    client: &Client,
    after: u64,
    limit: Duration,
    wanted: &impl Fn(&Event) -> bool,
    seen: &mut Vec<Event>,
) -> Result<Option<Event>> {
    let mut response = client.open(&format!("/v1/events?after={after}"), limit).await?;
    let mut buffer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Some(event) = data(&line) else { continue };
            if wanted(&event) {
                return Ok(Some(event));
            }
            seen.push(event);
            let excess = seen.len().saturating_sub(20);
            seen.drain(..excess);
        }
    }
    Ok(None)
}

/// The event of a `data:` line. The host writes each event's JSON on one line.
fn data(line: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let body = serde_json::from_str(text.strip_prefix("data:")?.trim_start()).ok()?;
    Some(Event { body })
}

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to go on from.
    pub id: String,
    /// `message`, `gap` or `moved`.
    pub name: String,
    /// The JSON.
    pub data: Value,
}

/// A stream that is read message by message.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Stream {
    /// Opens a stream at a path, for at most `limit`.
    ///
    /// # Errors
    /// When it does not open.
    pub async fn open(client: &Client, path: &str, limit: Duration) -> Result<Self> {
        Ok(Self { response: client.open(path, limit).await?, buffer: Vec::new() })
    }

    /// The next message; `None` when the stream ends.
    ///
    /// # Errors
    /// When it breaks, or its time is over.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                match message(&block) {
                    Some(message) => return Ok(Some(message)),
                    None => continue,
                }
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The messages up to the first that is `wanted`, that included.
    ///
    /// # Errors
    /// When the stream ends before.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Result<Vec<Message>> {
        let mut messages: Vec<Message> = Vec::new();
        while let Some(message) = self.next().await? {
            messages.push(message);
            if messages.last().is_some_and(&wanted) {
                return Ok(messages);
            }
        }
        bail!("the stream ended before {what}: {messages:?}")
    }
}

impl Message {
    /// The kind of the event that it is.
    pub fn kind(&self) -> &str {
        self.data["kind"].as_str().unwrap_or_default()
    }
}

/// A message without data is none: a comment, or how long to wait before coming back.
fn message(block: &[u8]) -> Option<Message> {
    let text = std::str::from_utf8(block).ok()?;
    let of = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.next().map(|value| value.trim_start().to_owned())
    };
    Some(Message {
        data: serde_json::from_str(&of("data")?).ok()?,
        id: of("id").unwrap_or_default(),
        name: of("event").unwrap_or_else(|| "message".to_owned()),
    })
}
