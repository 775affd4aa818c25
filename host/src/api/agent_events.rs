//! The events of one agent over HTTP, in its own count: a stream from where it is at home, or a page from anywhere.
//!
//! Ids are `GENERATION.NUMBER`, and mean the same on every host. A stream ends with `moved` when the agent goes to another
//! host; its client goes on there, from the id that it had last.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use futures::Stream;
use godwit_core::event::{Event, EventKind, EventPlace};
use godwit_core::id::HostId;
use godwit_core::time::sleep;
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::{ERROR_PAUSE, cursor_text, event_json, follows, has_label, hello, parse_kind, streamed};
use super::extract::{AgentDoor, page_limit};
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, AgentReply};
use crate::runtime::events::{Gap, Subscription, Told};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentEventsQuery {
    after: Option<String>,
    kind: Option<String>,
    /// `NAME=VALUE` or `NAME`, of the labels that the agent had then.
    label: Option<String>,
    limit: Option<usize>,
    /// `0` asks for a page, `1` for a stream.
    follow: Option<u8>,
}

/// Which events are shown. Gaps always are.
struct Filter {
    kind: Option<EventKind>,
    label: Option<String>,
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        self.kind.is_none_or(|kind| event.event.kind == kind)
            && self.label.as_deref().is_none_or(|label| has_label(event, label))
    }

    fn takes_told(&self, told: &Told) -> bool {
        match told {
            Told::Event(event) => self.takes(event),
            Told::Gap(_) | Told::Moved { .. } => true,
        }
    }
}

/// `GET /v1/agents/{id}/events`
pub(super) async fn events(
    State(runtime): State<Runtime>,
    door: AgentDoor<AgentEventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let AgentEventsQuery { after, kind, label, limit, follow } = &door.query;
    let after = cursor_text(&headers, after.as_deref())?.map(parse_place).transpose()?;
    let filter = Filter { kind: kind.as_deref().map(parse_kind).transpose()?, label: label.clone() };
    let limit = page_limit(*limit)?;
    if follows(*follow, &headers)? {
        let subscription = door.subscribe(after).await?;
        return Ok(streamed(stream(runtime, subscription, filter)));
    }
    let call = AgentCall::Events { after: after.unwrap_or(EventPlace::START), limit };
    match door.call(call).await?.reply {
        AgentReply::Events(page) => {
            let next = page.told.iter().rev().find_map(Told::place).filter(|_| page.has_more);
            let shown = page.told.iter().filter(|told| filter.takes_told(told));
            let items: Vec<_> = shown.filter_map(told_json).collect();
            Ok(Json(json!({"items": items, "next": next.map(|place| place.to_string())})).into_response())
        }
        _ => Err(Problem::wrong_reply()),
    }
}

fn parse_place(text: &str) -> Result<EventPlace, Problem> {
    text.parse().map_err(|error: godwit_core::event::PlaceError| Problem::malformed(error.to_string()))
}

/// An item of a page: an event, or `{"gap": ..}`.
fn told_json(told: &Told) -> Option<Value> {
    match told {
        Told::Event(event) => Some(event_json(event)),
        Told::Gap(gap) => Some(json!({"gap": gap_json(gap)})),
        Told::Moved { .. } => None,
    }
}

/// What is missing: everything behind one place and up to another.
fn gap_json(gap: &Gap) -> Value {
    json!({"reason": gap.reason.name(), "after": gap.after.to_string(), "to": gap.to.to_string()})
}

/// All that happens to the agent, until it moves away or the host stops.
fn stream(
    runtime: Runtime,
    subscription: Subscription,
    filter: Filter,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let start = (runtime, subscription, filter, VecDeque::from([hello()]));
    futures::stream::unfold(start, |(runtime, mut subscription, filter, mut ready)| async move {
        while ready.is_empty() {
            match subscription.next().await {
                Ok(Some(told)) => ready.extend(shown(&runtime, &filter, &told).await),
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(agent = %subscription.agent(), %error, "events can't be read");
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
        let event = ready.pop_front()?;
        Some((Ok(event), (runtime, subscription, filter, ready)))
    })
}

async fn shown(runtime: &Runtime, filter: &Filter, told: &Told) -> Option<SseEvent> {
    let message = SseEvent::default();
    match told {
        Told::Event(event) if !filter.takes(event) => None,
        Told::Event(event) => {
            let id = event.place.map(|place| place.to_string()).unwrap_or_default();
            Some(message.id(id).data(event_json(event).to_string()))
        }
        Told::Gap(gap) => Some(message.event("gap").id(gap.to.to_string()).data(gap_json(gap).to_string())),
        Told::Moved { host } => {
            Some(message.event("moved").data(moved_json(runtime, *host).await.to_string()))
        }
    }
}

/// Where to go on: the host, and where its API listens when that is known.
async fn moved_json(runtime: &Runtime, host: HostId) -> Value {
    let hosts = runtime.hosts().await.unwrap_or_default();
    let api = hosts.into_iter().find(|view| view.id == host).and_then(|view| view.api);
    json!({"host": host.to_string(), "api": api.map(|api| format!("http://{api}"))})
}
