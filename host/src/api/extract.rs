//! Reading requests: every part that can be malformed becomes a `Problem`, in the same words everywhere.
//!
//! `AgentDoor` is how handlers reach an agent: it holds the parsed id, knows whether the caller forbids forwarding, and
//! turns the runtime's errors into problems.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::RequestExt;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use godwit_core::event::EventPlace;
use godwit_core::id::{AgentId, IdError, InputId};
use godwit_core::limits::{PAGE_MAX, TEXT_BYTES_MAX};
use godwit_core::store::StoredInput;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use super::problem::{Code, Problem};
use crate::runtime::Runtime;
use crate::runtime::call::{AgentCall, CallError, Rows};
use crate::runtime::events::Subscription;
use crate::runtime::outputs::{Output, OutputPlace};
use crate::runtime::routing::{Called, Forward};

/// Items in a list when the caller does not say.
pub(super) const LIST_DEFAULT: usize = 100;
/// Items in a list at most. One more is read to know whether there are more.
pub(super) const LIST_MAX: usize = 500;
const _: () = assert!(LIST_MAX < PAGE_MAX);

const NO_FORWARD: &str = "godwit-no-forward";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";

/// Parameters of the path, decoded but not parsed.
pub(super) struct PathText(RawPathParams);

impl PathText {
    /// Parses the parameter of this name.
    pub(super) fn parse<T: FromStr<Err = IdError>>(&self, name: &str) -> Result<T, Problem> {
        Ok(self.text(name).parse()?)
    }

    /// The parameter of this name, as it stands.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, text)| text)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|rejection| Problem::malformed(rejection.to_string()))
    }
}

/// The query string. Unknown parameters are refused by `deny_unknown_fields` on `T`.
pub(super) struct QueryOf<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|rejection| Problem::malformed(rejection.body_text()))
    }
}

/// The whole body, within the route's limit.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let body: Result<Bytes, _> = request.extract().await;
        body.map(Self).map_err(|rejection| {
            let rejection: axum::extract::rejection::BytesRejection = rejection;
            unread(rejection.status(), rejection.body_text())
        })
    }
}

/// The problem of a body that can't be read.
pub(super) fn unread(status: StatusCode, text: String) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Code::TooLarge, "the body is over the limit of this path")
    } else {
        Problem::malformed(text)
    }
}

/// A JSON body, whatever its content type says.
pub(super) struct JsonOf<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonOf<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Body(bytes) = Body::from_request(request, state).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::malformed(format!("body is not the JSON expected here: {error}")))
    }
}

/// A query string without parameters: those that are given are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// No body: one that is given would be passed over in silence.
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Body::from_request(request, state).await? {
            Body(bytes) if bytes.is_empty() => Ok(Self),
            Body(_) => Err(Problem::malformed(
                "this path takes no body: arguments, if it has any, are query parameters",
            )),
        }
    }
}

/// An agent named in the path, how to call it, and the query string.
pub(super) struct AgentDoor<Q = Nothing> {
    /// Which agent.
    pub(super) agent: AgentId,
    /// What the caller wants to know, or how.
    pub(super) query: Q,
    runtime: Runtime,
    forward: Forward,
    path_and_query: String,
}

impl<Q: DeserializeOwned> FromRequestParts<Runtime> for AgentDoor<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, runtime: &Runtime) -> Result<Self, Problem> {
        let path = PathText::from_request_parts(parts, runtime).await?;
        let QueryOf(query) = QueryOf::from_request_parts(parts, runtime).await?;
        let stays = parts.headers.get(NO_FORWARD).is_some_and(|value| value == "1");
        let path_and_query = parts.uri.path_and_query();
        Ok(Self {
            agent: path.parse("id")?,
            query,
            runtime: runtime.clone(),
            forward: if stays { Forward::No } else { Forward::Yes },
            path_and_query: path_and_query.map_or_else(String::new, ToString::to_string),
        })
    }
}

impl<Q> AgentDoor<Q> {
    /// Does a call at the agent's home.
    pub(super) async fn call(&self, call: AgentCall) -> Result<Called, Problem> {
        match self.runtime.call(&self.agent, call, self.forward).await {
            Ok(called) => Ok(called),
            Err(error) => Err(self.problem(error).await),
        }
    }

    /// Follows the agent from where it is at home: another host is not asked.
    pub(super) async fn subscribe(&self, after: Option<EventPlace>) -> Result<Subscription, Problem> {
        match self.runtime.subscribe(&self.agent, after).await {
            Ok(subscription) => Ok(subscription),
            Err(error) => Err(self.problem(error).await),
        }
    }

    /// Waits for what the agent says next.
    pub(super) async fn output(
        &self,
        containing: Option<Bytes>,
        after: Option<OutputPlace>,
        limit: Duration,
    ) -> Result<Output, Problem> {
        let (runtime, agent, forward) = (&self.runtime, &self.agent, self.forward);
        let waited = match containing {
            Some(needle) => runtime.wait_for_output_containing(agent, needle, after, limit, forward).await,
            None => runtime.wait_for_output(agent, after, limit, forward).await,
        };
        match waited {
            Ok(output) => Ok(output),
            Err(error) => Err(self.problem(error).await),
        }
    }

    /// Reads an input, and waits for its end, at most for `limit`.
    pub(super) async fn end_of_input(
        &self,
        input: InputId,
        limit: Duration,
    ) -> Result<Option<Box<StoredInput>>, Problem> {
        match self.runtime.end_of_input(&self.agent, input, limit, self.forward).await {
            Ok(stored) => Ok(stored),
            Err(error) => Err(self.problem(error).await),
        }
    }

    async fn problem(&self, error: CallError) -> Problem {
        let holder = match &error {
            CallError::Misdirected { host, .. } => Some(*host),
            _ => None,
        };
        let problem = Problem::from(error).with("agent", self.agent.as_str());
        let Some(holder) = holder else { return problem };
        // Where the holder's API listens is known once it has answered; without it the key has to do.
        let hosts = self.runtime.hosts().await.unwrap_or_default();
        let api = hosts.into_iter().find(|host| host.id == holder).and_then(|host| host.api);
        match api {
            Some(api) => {
                let location = format!("http://{api}{}", self.path_and_query);
                problem.with_header(header::LOCATION, &location)
            }
            None => problem,
        }
    }
}

/// The client's idempotency key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    short_header(headers, IDEMPOTENCY_KEY)
}

/// A header that is a key: 1 to `TEXT_BYTES_MAX` bytes.
pub(super) fn short_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    match text_header(headers, name)? {
        Some(key) if key.is_empty() || key.len() > TEXT_BYTES_MAX => Err(Problem::malformed(format!(
            "{name} of {} bytes is not 1..={TEXT_BYTES_MAX} bytes",
            key.len()
        ))),
        key => Ok(key),
    }
}

/// The content type, which the guest will see.
pub(super) fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let name = header::CONTENT_TYPE;
    let text = text_header(headers, name.as_str())?;
    Ok(text.unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned()))
}

/// A header as text.
pub(super) fn text_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Problem::malformed(format!("header {name} is not UTF-8"))),
    }
}

/// Parses `?limit=`.
pub(super) fn page_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(LIST_DEFAULT),
        Some(limit @ 1..=LIST_MAX) => Ok(limit),
        Some(limit) => Err(Problem::malformed(format!("limit {limit} is not 1..={LIST_MAX}"))),
    }
}

/// A list and the cursor that `?after=` takes for the rest.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<String>,
}

impl<T> List<T> {
    /// All there is.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// What a home host gave of a list.
    pub(super) fn rows<R>(rows: Rows<R>, cursor: impl Fn(&R) -> String, item: impl Fn(R) -> T) -> Self {
        let next = rows.items.last().filter(|_| rows.has_more).map(cursor);
        Self { items: rows.items.into_iter().map(item).collect(), next }
    }

    /// The first `limit` of `rows`, of which one more was read if there are more.
    pub(super) fn page<R>(
        mut rows: Vec<R>,
        limit: usize,
        cursor: impl Fn(&R) -> String,
        item: impl Fn(R) -> T,
    ) -> Self {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(cursor);
        Self { items: rows.into_iter().map(item).collect(), next }
    }
}

/// Reads a field that is left out, or a text: the form in which answers show the value.
pub(super) fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

#[cfg(test)]
mod tests;
