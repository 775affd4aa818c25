//! The event log over HTTP: a stream that follows it (SSE), or a page of it.
//!
//! Each event's id is `STORE:SEQ`. A client that comes back with one gets what followed; when that is not kept any more,
//! or the id is of another store, it gets an explicit `gap` event first. The log in the store is read again and again, when a
//! hint says so and twice a second; nothing is pushed, so nothing can be lost on the way.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use godwit_core::event::{Event, EventKind};
use godwit_core::id::{AgentId, StoreId};
use godwit_core::time::{sleep, within};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::extract::page_limit;
use super::extract::{LIST_MAX, QueryOf};
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::call::CallError;
use crate::runtime::events::{EventPage, LOOK_AGAIN};

/// How long a client waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);
/// Silence after which a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pause after the log could not be read.
pub(super) const ERROR_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: Option<String>,
    agent: Option<AgentId>,
    kind: Option<String>,
    /// `NAME=VALUE` or `NAME`, of the labels that the agent had then.
    label: Option<String>,
    limit: Option<usize>,
    /// `0` asks for a page, `1` for a stream.
    follow: Option<u8>,
}

/// Where a reader is: a seq, and the store it counts in when it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    store: Option<StoreId>,
    seq: u64,
}

impl Cursor {
    /// Parses `STORE:SEQ` or `SEQ`.
    fn parse(text: &str) -> Result<Self, Problem> {
        let (store, seq) = match text.split_once(':') {
            Some((store, seq)) => (Some(store.parse()?), seq),
            None => (None, text),
        };
        // The highest number can't be an event's: nothing could follow it.
        let seq = seq.parse().ok().filter(|seq| *seq < u64::MAX);
        let seq =
            seq.ok_or_else(|| Problem::malformed(format!("event id {text:?} is not STORE:SEQ or SEQ")))?;
        Ok(Self { store, seq })
    }
}

/// `GET /v1/events`
pub(super) async fn events(
    State(runtime): State<Runtime>,
    QueryOf(query): QueryOf<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cursor = cursor_text(&headers, query.after.as_deref())?.map(Cursor::parse).transpose()?;
    let kind = query.kind.as_deref().map(parse_kind).transpose()?;
    let limit = page_limit(query.limit)?;
    let follows = follows(query.follow, &headers)?;
    let reader = Reader::new(runtime, cursor, query.agent, kind, query.label);
    if !follows {
        return Ok(Json(reader.page(limit).await?).into_response());
    }
    let room = reader.runtime.watcher()?;
    Ok(streamed(reader.stream(room)))
}

/// The cursor of a stream: what the client had last wins over what it asked for.
pub(super) fn cursor_text<'a>(
    headers: &'a HeaderMap,
    after: Option<&'a str>,
) -> Result<Option<&'a str>, Problem> {
    let last_id = headers.get("last-event-id").map(HeaderValue::to_str);
    let last_id = last_id.transpose().map_err(|_| Problem::malformed("header last-event-id is not text"))?;
    Ok(last_id.or(after))
}

/// A stream as the answer to a request.
pub(super) fn streamed(
    events: impl Stream<Item = Result<SseEvent, Infallible>> + Send + 'static,
) -> Response {
    let stream = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Some proxies hold streams back unless told not to.
    ([("x-accel-buffering", "no")], stream).into_response()
}

/// What every stream begins with.
pub(super) fn hello() -> SseEvent {
    SseEvent::default().retry(RETRY).comment("events")
}

/// Whether an event's agent had a label then: `NAME=VALUE`, or `NAME` with any value.
pub(super) fn has_label(event: &Event, selector: &str) -> bool {
    match selector.split_once('=') {
        Some((name, value)) => event.labels.get(name).is_some_and(|known| known == value),
        None => event.labels.contains_key(selector),
    }
}

pub(super) fn parse_kind(text: &str) -> Result<EventKind, Problem> {
    let found = EventKind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| {
        let names = EventKind::ALL.map(EventKind::name).join(", ");
        Problem::malformed(format!("kind {text:?} is not one of {names}"))
    })
}

/// A stream, unless the caller asks for a page or accepts JSON and no stream.
pub(super) fn follows(asked: Option<u8>, headers: &HeaderMap) -> Result<bool, Problem> {
    let accepts = |media_type: &str| {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let mut texts = accepted.filter_map(|value| value.to_str().ok());
        texts.any(|text| text.contains(media_type))
    };
    match asked {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        Some(other) => Err(Problem::malformed(format!("follow {other} is not 0 or 1"))),
        None => Ok(accepts("text/event-stream") || !accepts("application/json")),
    }
}

/// Reads the log forwards.
struct Reader {
    runtime: Runtime,
    agent: Option<AgentId>,
    kind: Option<EventKind>,
    label: Option<String>,
    cursor: Option<Cursor>,
    /// Told of what this process appends: hints to look again.
    hints: watch::Receiver<u64>,
    /// Everything up to here has been shown, or does not fit the filter.
    after: u64,
    /// The newest seq that the last look saw.
    newest: u64,
}

/// What a look at the log gave.
struct Look {
    store: StoreId,
    gap: Option<Value>,
    events: Vec<Event>,
    /// Whether there was no more.
    is_read: bool,
}

impl Reader {
    fn new(
        runtime: Runtime,
        cursor: Option<Cursor>,
        agent: Option<AgentId>,
        kind: Option<EventKind>,
        label: Option<String>,
    ) -> Self {
        let (hints, after) = (runtime.event_hints(), cursor.map_or(0, |cursor| cursor.seq));
        Self { runtime, agent, kind, label, cursor, hints, after, newest: 0 }
    }

    /// Reads up to `limit` events, moves on, and answers those that have the label.
    async fn look(&mut self, limit: usize) -> Result<Look, CallError> {
        let mut page = self.read(limit).await?;
        let mut gap = None;
        let is_resumed = self.cursor.is_some() || self.newest > 0;
        let foreign = self.cursor.take().and_then(|cursor| foreign(cursor, &page));
        if let Some(reason) = foreign {
            // The number means nothing in this store: begin with what is kept.
            let after = std::mem::take(&mut self.after);
            page = self.read(limit).await?;
            gap = Some(gap_json(reason, after, page.gap.map_or(1, |(_, first)| first)));
        } else if let (Some((missing, first)), true) = (page.gap, is_resumed) {
            gap = Some(gap_json("not-kept", missing.saturating_sub(1), first));
        }
        self.moved_past(&page, limit);
        let is_read = page.events.len() < limit;
        let mut events = page.events;
        if let Some(label) = &self.label {
            events.retain(|event| has_label(event, label));
        }
        Ok(Look { store: page.store, gap, events, is_read })
    }

    async fn read(&self, limit: usize) -> Result<EventPage, CallError> {
        self.runtime.events(self.after, self.agent.as_ref(), self.kind, limit).await
    }

    /// Moves the cursor behind what was read. What the look before already saw as newest has been filtered by now, so
    /// that a reader of rare events does not fall behind what is kept.
    fn moved_past(&mut self, page: &EventPage, limit: usize) {
        if let Some(last) = page.events.last() {
            self.after = last.seq;
        }
        if page.events.len() < limit {
            self.after = self.after.max(self.newest);
        }
        if let Some((_, first)) = page.gap {
            self.after = self.after.max(first - 1);
        }
        self.newest = page.newest;
    }

    /// One page: items, the cursor for more, and the gap before them. Where few have the label it reads on.
    async fn page(mut self, limit: usize) -> Result<Value, Problem> {
        let Look { store, gap, mut events, mut is_read } = self.look(limit + 1).await?;
        while !is_read && events.len() <= limit {
            let more = self.look(limit + 1).await?;
            events.extend(more.events);
            is_read = more.is_read;
        }
        let has_more = events.len() > limit;
        events.truncate(limit);
        let next = events.last().filter(|_| has_more).map(|event| event_id(store, event.seq));
        let items: Vec<_> = events.iter().map(event_json).collect();
        Ok(json!({"items": items, "next": next, "newest": event_id(store, self.newest), "gap": gap}))
    }

    /// All events from the cursor on, until shutdown. `room` is that of one who follows.
    fn stream(self, room: OwnedSemaphorePermit) -> impl Stream<Item = Result<SseEvent, Infallible>> {
        let start = (self, std::collections::VecDeque::from([hello()]), room);
        futures::stream::unfold(start, |(mut reader, mut ready, room)| async move {
            let shutdown = reader.runtime.shutdown_token();
            while ready.is_empty() {
                // Cancel safe: an unfinished look has moved nothing.
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return None,
                    more = reader.next_events() => ready = more.into(),
                }
            }
            let event = ready.pop_front()?;
            Some((Ok(event), (reader, ready, room)))
        })
    }

    /// One look; waits when there is nothing.
    async fn next_events(&mut self) -> Vec<SseEvent> {
        // Before the log is read: what is appended after that wakes it.
        self.hints.mark_unchanged();
        let look = match self.look(LIST_MAX).await {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(%error, "events can't be read");
                sleep(ERROR_PAUSE).await;
                return Vec::new();
            }
        };
        let gap = look.gap.map(|gap| gap_event(look.store, gap));
        let events: Vec<_> = gap.into_iter().chain(look.events.iter().map(sse_event)).collect();
        if events.is_empty() && look.is_read {
            // Woken or not, the log is read again.
            let _is_woken = within(LOOK_AGAIN, self.hints.changed()).await;
        }
        events
    }
}

/// Why a cursor means nothing here, if so.
fn foreign(cursor: Cursor, page: &EventPage) -> Option<&'static str> {
    if cursor.store.is_some_and(|store| store != page.store) {
        Some("other-store")
    } else if cursor.seq > page.newest {
        Some("ahead")
    } else {
        None
    }
}

/// What is missing: everything after one seq and before another.
fn gap_json(reason: &str, after: u64, first: u64) -> Value {
    json!({"reason": reason, "after": after.to_string(), "first": first.to_string()})
}

fn event_id(store: StoreId, seq: u64) -> String {
    format!("{store}:{seq}")
}

pub(super) fn event_json(event: &Event) -> Value {
    let data: Map<_, _> =
        event.event.data.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "id": event_id(event.store, event.seq),
        "seq": event.seq.to_string(),
        "kind": event.event.kind.name(),
        "agent": event.event.agent.as_ref().map(AgentId::as_str),
        "place": event.place.map(|place| place.to_string()),
        "labels": event.labels,
        "at_ms": event.event.at_ms,
        "data": data,
    })
}

fn sse_event(event: &Event) -> SseEvent {
    SseEvent::default().id(event_id(event.store, event.seq)).data(event_json(event).to_string())
}

/// Its id lets a client that comes back begin with the first event that is kept.
fn gap_event(store: StoreId, gap: Value) -> SseEvent {
    let first = gap["first"].as_str().and_then(|first| first.parse::<u64>().ok());
    let before = first.unwrap_or(1).saturating_sub(1);
    SseEvent::default().event("gap").id(event_id(store, before)).data(gap.to_string())
}

#[cfg(test)]
mod tests;
