//! An agent that fetches what it is told to: bytes in, bytes out, all of them text.
//!
//! | payload | does | reply |
//! |---|---|---|
//! | `fetch URL` | has the host make a GET request, again if its host dies meanwhile | the operation's id |
//! | `fetch URL`, and below it lines `NAME: VALUE` | the same, with these headers; a value may name a secret, `{{secret:fetcher}}` | the operation's id |
//! | `post URL TEXT` | has the host make a POST request with TEXT, once at most | the operation's id |
//! | `cancel ID` | asks that an operation ends | `ok` |
//! | `active` | | ids of the operations that have not ended, by line |
//! | `last` | | `OUTCOME STATUS` of the last end (status 0 without an answer), and behind a line break the body, or why there is none |
//! | `count` | | how many operations have ended, in decimal |
//!
//! `last` before the first end is `none`. What the host has no grant for is `refused("not_granted")`, too many operations
//! at once are `refused("busy")`, what can't be parsed is `refused("malformed")`.

#![forbid(unsafe_code)]

use godwit_guest::{Agent, AgentError, Bytes, Host, HttpRequest, Input, OperationError, Reply};
use serde::{Deserialize, Serialize};

/// What came back last.
#[derive(Default, Serialize, Deserialize)]
pub struct Fetcher {
    ended: u64,
    outcome: String,
    status: u16,
    body: Bytes,
}

enum Command<'a> {
    Start(HttpRequest),
    Cancel(&'a str),
    Active,
    Last,
    Count,
}

impl<'a> Command<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match (word, rest) {
            ("active", "") => Self::Active,
            ("last", "") => Self::Last,
            ("count", "") => Self::Count,
            ("fetch", rest) => {
                let mut lines = rest.lines();
                let mut request = HttpRequest::get(lines.next().unwrap_or_default());
                for line in lines {
                    let (name, value) = line.split_once(": ")?;
                    request.headers.push((name.to_owned(), value.to_owned()));
                }
                Self::Start(request)
            }
            ("post", rest) => {
                let (url, body) = rest.split_once(' ')?;
                Self::Start(HttpRequest::post(url, body))
            }
            ("cancel", id) if !id.is_empty() => Self::Cancel(id),
            _ => return None,
        })
    }
}

impl Fetcher {
    fn end(&mut self, input: &Input) -> Reply {
        if let Some(end) = input.operation() {
            self.ended += 1;
            self.outcome = end.outcome.name().to_owned();
            self.status = end.status.unwrap_or(0);
            self.body = match end.reason {
                "" => input.payload.clone().into(),
                reason => reason.as_bytes().to_vec().into(),
            };
        }
        Reply::none()
    }

    fn last(&self) -> Reply {
        if self.ended == 0 {
            return Reply::text("none");
        }
        let body = String::from_utf8_lossy(self.body.as_slice());
        Reply::text(format!("{} {}\n{body}", self.outcome, self.status))
    }
}

impl Agent for Fetcher {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        if input.operation().is_some() {
            return Ok(self.end(input));
        }
        let answer = match input.text().and_then(Command::parse) {
            None => return Ok(Reply::refused("malformed")),
            Some(Command::Last) => return Ok(self.last()),
            Some(Command::Count) => return Ok(Reply::text(self.ended.to_string())),
            Some(Command::Active) => host.operations_active().map(|ids| ids.join("\n")),
            Some(Command::Cancel(id)) => host.operation_cancel(id).map(|()| "ok".to_owned()),
            Some(Command::Start(request)) => host.http_start(request),
        };
        Ok(match answer {
            Ok(text) => Reply::text(text),
            Err(OperationError::NotGranted) => Reply::refused("not_granted"),
            Err(OperationError::Quota) => Reply::refused("busy"),
            Err(OperationError::InvalidRequest(_) | OperationError::TooLarge) => Reply::refused("malformed"),
            Err(error) => return Err(error.into()),
        })
    }
}

godwit_guest::export!(Fetcher, manifest = include_str!("../godwit.toml"));

#[cfg(test)]
mod tests;
