//! What a client knows after a submission: accepted, refused or unknown. There is no fourth.

use serde_json::Value;

use crate::json::optional_number;

/// The three fates.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Durable: the host said so. For an ask, its turn is over too.
    Accepted(Answer),
    /// Definitely not accepted.
    Refused(Problem),
    /// Nobody can say; repeating it with its key finds out.
    Unknown(String),
}

/// What an accepted submission gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The input's id.
    pub input_id: String,
    /// The revision that it made, if the answer said.
    pub revision: Option<u64>,
    /// The token under which it committed, if the answer said.
    pub token: Option<u64>,
    /// How it ended, as far as the caller waited.
    pub end: End,
}

/// How an accepted submission ended.
#[derive(Debug, Clone)]
pub enum End {
    /// A send: it waits, or has run meanwhile.
    Queued {
        /// Its place in the inbox.
        seq: u64,
        /// Whether the key had been accepted before.
        deduplicated: bool,
    },
    /// The agent's reply.
    Reply(Vec<u8>),
    /// The agent replied nothing.
    Silent,
    /// The agent refused; the turn committed.
    AgentRefused(Problem),
    /// The agent gave it up: dead-lettered.
    AgentError(Problem),
    /// The guest broke at every attempt: dead-lettered.
    AgentFault(Problem),
}

/// An `application/problem+json` answer.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The member `code`.
    pub code: String,
    /// All members.
    pub body: Value,
}

impl Problem {
    /// The member `detail`, or all of the body when there is none.
    pub fn detail(&self) -> String {
        let detail = self.body["detail"].as_str();
        detail.map_or_else(|| self.body.to_string(), str::to_owned)
    }
}

impl Fate {
    /// The answer, if it was accepted.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Accepted(answer) => Some(answer),
            Self::Refused(_) | Self::Unknown(_) => None,
        }
    }

    /// The reply as text, if there was one.
    pub fn reply(&self) -> Option<&str> {
        match &self.answer()?.end {
            End::Reply(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The problem of a refusal, by the door or by the agent.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Accepted(answer) => match &answer.end {
                End::AgentRefused(problem) | End::AgentError(problem) | End::AgentFault(problem) => {
                    Some(problem)
                }
                End::Queued { .. } | End::Reply(_) | End::Silent => None,
            },
            Self::Unknown(_) => None,
        }
    }

    /// Whether asking again with the same key can give another fate.
    pub fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Accepted(_) => false,
            Self::Unknown(_) => true,
            Self::Refused(problem) => {
                problem.body["retryable"].as_bool().unwrap_or(false) || problem.status == 0
            }
        }
    }
}

/// The parts of an HTTP answer that decide a fate.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) status: u16,
    pub(crate) input_id: Option<String>,
    pub(crate) revision: Option<u64>,
    pub(crate) token: Option<u64>,
    pub(crate) body: Vec<u8>,
}

impl Parts {
    fn problem(&self) -> Problem {
        let body: Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into_owned()));
        Problem { status: self.status, code: body["code"].as_str().unwrap_or_default().to_owned(), body }
    }

    fn accepted(self, input_id: Option<String>, end: End) -> Fate {
        match input_id {
            Some(input_id) => {
                Fate::Accepted(Answer { input_id, revision: self.revision, token: self.token, end })
            }
            // An acknowledgement that names no input acknowledges nothing that can be checked.
            None => Fate::Unknown(format!("status {} without an input id", self.status)),
        }
    }
}

/// The fate of an ask.
pub(crate) fn of_ask(parts: Parts) -> Fate {
    let id = parts.input_id.clone();
    let problem = parts.problem();
    match (parts.status, problem.code.as_str()) {
        (200, _) => {
            let reply = parts.body.clone();
            parts.accepted(id, End::Reply(reply))
        }
        (204, _) => parts.accepted(id, End::Silent),
        (422, "agent_refused") => parts.accepted(id, End::AgentRefused(problem)),
        (422, "agent_error") => parts.accepted(id, End::AgentError(problem)),
        (500, "agent_fault") => parts.accepted(id, End::AgentFault(problem)),
        _ => of_error(problem),
    }
}

/// The fate of a send.
pub(crate) fn of_send(parts: Parts) -> Fate {
    if parts.status != 202 {
        return of_error(parts.problem());
    }
    let body: Value = serde_json::from_slice(&parts.body).unwrap_or_default();
    let id = body["input_id"].as_str().map(str::to_owned);
    match (optional_number(&body, "seq"), body["deduplicated"].as_bool()) {
        (Some(seq), Some(deduplicated)) => parts.accepted(id, End::Queued { seq, deduplicated }),
        _ => Fate::Unknown(format!("a 202 without seq or deduplicated: {body}")),
    }
}

fn of_error(problem: Problem) -> Fate {
    match problem.status {
        400..=499 | 503 => Fate::Refused(problem),
        _ => Fate::Unknown(format!("status {}: {}", problem.status, problem.detail())),
    }
}

#[cfg(test)]
mod tests;
