//! Problems: every answer that is an error, as RFC 9457 `application/problem+json`.
//!
//! `Code` is the one table of what can go wrong, with its status and whether repeating the same request can help.
//! `Problem` is an occurrence of it. Handlers make them from the runtime's errors with `?`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_core::agent::recover::Refused;
use godwit_core::group::GroupNameError;
use godwit_core::id::{AgentId, IdError, Revision};
use serde_json::{Map, Value, json};

use crate::runtime::call::CallError;
use crate::runtime::plugins::PluginError;

/// Prefix of a problem's `type`; the code follows.
const TYPE_PREFIX: &str = "urn:godwit:problem:";
/// Seconds after which a busy agent is worth another try.
const BUSY_RETRY_AFTER_S: &str = "1";

/// What can go wrong, for callers to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request can't be understood.
    Malformed,
    /// No token, or a wrong one.
    Unauthorized,
    /// A page of another site sent it.
    Forbidden,
    /// No such path.
    NoRoute,
    /// No such agent.
    AgentNotFound,
    /// No such thing of an agent or host.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// Something stands in the way.
    Conflict,
    /// The agent moves already, to another host.
    AlreadyMigrating,
    /// A newer input took the place of this one.
    InputReplaced,
    /// A verb ended this input.
    InputAbandoned,
    /// The body is over its limit.
    TooLarge,
    /// Another host is home and the caller asked not to forward.
    Misdirected,
    /// The agent said no; its turn committed.
    AgentRefused,
    /// The agent gave the input up.
    AgentError,
    /// The key was used for another body.
    IdempotencyKeyReused,
    /// Clients may not submit inputs of this kind.
    KindRefused,
    /// The component can't run here.
    PluginRefused,
    /// The agent's inbox is full.
    Busy,
    /// The host is at fault.
    Internal,
    /// The agent's guest broke at every attempt.
    AgentFault,
    /// Some peers did not answer, and one of them may know.
    PeersSilent,
    /// Not now.
    Unavailable,
    /// The agent can't run until somebody acts.
    AgentBroken,
    /// A claim or a commit would not work now.
    NotReady,
    /// It may or may not have happened.
    Unknown,
    /// The agent was deleted.
    AgentDeleted,
    /// The agent accepts nothing more.
    AgentRetired,
    /// The agent waits for an operator's word.
    AgentSuspended,
    /// The agent's state does not allow the verb.
    IllegalMove,
    /// A verb ended the turn.
    Interrupted,
    /// The spec is not the one that the caller has seen.
    SpecMismatch,
    /// Nothing more can be stored now.
    StoreFull,
    /// The agent's plugin answers no queries.
    NoQuery,
    /// An agent needs the plugin.
    PluginInUse,
    /// The agent's history does not fit what is recorded of it.
    NotRecovered,
    /// The agent takes no inputs from outside.
    NotAddressable,
    /// Another host is about to create the agent.
    Claimed,
    /// Another agent of this name is meant.
    IdentityMismatch,
    /// No room to follow or to wait.
    TooManyWatch,
    /// What was waited for did not come in time.
    NoOutput,
    /// Too many sign-ins are open.
    AuthFlowsFull,
    /// The sign-in has ended.
    AuthFlowOver,
    /// The sign-in does not take this.
    AuthFlowRefused,
    /// The authorization server gave nothing.
    AuthServerFailed,
    /// No agent is in the group.
    GroupNotFound,
    /// No member of the group takes inputs now.
    NoMember,
    /// Hosts that may have the agent do not answer.
    PromotionInDoubt,
}

/// What is fixed for a code.
struct Row {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    is_retryable: bool,
}

impl Code {
    /// All codes, for tests and documentation.
    pub const ALL: [Self; 48] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NoRoute,
        Self::AgentNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::AlreadyMigrating,
        Self::InputReplaced,
        Self::InputAbandoned,
        Self::TooLarge,
        Self::Misdirected,
        Self::AgentRefused,
        Self::AgentError,
        Self::IdempotencyKeyReused,
        Self::KindRefused,
        Self::PluginRefused,
        Self::Busy,
        Self::Internal,
        Self::AgentFault,
        Self::PeersSilent,
        Self::Unavailable,
        Self::AgentBroken,
        Self::NotReady,
        Self::Unknown,
        Self::AgentDeleted,
        Self::AgentRetired,
        Self::AgentSuspended,
        Self::IllegalMove,
        Self::Interrupted,
        Self::SpecMismatch,
        Self::StoreFull,
        Self::NoQuery,
        Self::PluginInUse,
        Self::NotRecovered,
        Self::NotAddressable,
        Self::Claimed,
        Self::IdentityMismatch,
        Self::TooManyWatch,
        Self::NoOutput,
        Self::AuthFlowsFull,
        Self::AuthFlowOver,
        Self::AuthFlowRefused,
        Self::AuthServerFailed,
        Self::GroupNotFound,
        Self::NoMember,
        Self::PromotionInDoubt,
    ];

    fn row(self) -> Row {
        let (status, name, title, is_retryable) = match self {
            Self::Malformed => (400, "malformed", "the request can't be understood", false),
            Self::Unauthorized => (401, "unauthorized", "a bearer token is needed", false),
            Self::Forbidden => (403, "forbidden", "the request comes from another site", false),
            Self::NoRoute => (404, "no_route", "no such path", false),
            Self::AgentNotFound => (404, "agent_not_found", "no such agent", false),
            Self::NotFound => (404, "not_found", "not found", false),
            Self::MethodNotAllowed => (405, "method_not_allowed", "the path has no such method", false),
            Self::Conflict => (409, "conflict", "something stands in the way", false),
            Self::AlreadyMigrating => (409, "already_migrating", "the agent moves already", false),
            Self::InputReplaced => (409, "input_replaced", "a newer input took its place", false),
            Self::InputAbandoned => (409, "input_abandoned", "the input was ended by a verb", false),
            Self::TooLarge => (413, "too_large", "the body is too large", false),
            Self::Misdirected => (421, "misdirected", "another host is the agent's home", false),
            Self::AgentRefused => (422, "agent_refused", "the agent refused", false),
            Self::AgentError => (422, "agent_error", "the agent gave the input up", false),
            Self::IdempotencyKeyReused => {
                (422, "idempotency_key_reused", "the idempotency key was used for another body", false)
            }
            Self::KindRefused => (422, "kind_refused", "clients don't submit this kind", false),
            Self::PluginRefused => (422, "plugin_refused", "the component can't run here", false),
            Self::Busy => (429, "busy", "too much waits for the agent", true),
            Self::Internal => (500, "internal", "the host is at fault", false),
            Self::AgentFault => (500, "agent_fault", "the agent's guest broke", false),
            Self::PeersSilent => (503, "peers_silent", "some peers did not answer", true),
            Self::Unavailable => (503, "unavailable", "not now", true),
            Self::AgentBroken => (503, "agent_broken", "the agent can't run", false),
            Self::NotReady => (503, "not_ready", "the host is not ready", true),
            Self::Unknown => (504, "unknown", "the outcome is unknown", false),
            Self::StoreFull => (503, "store_full", "the store is full", true),
            Self::AgentDeleted => (410, "agent_deleted", "the agent is deleted", false),
            Self::AgentRetired => (423, "agent_retired", "the agent accepts nothing more", false),
            Self::AgentSuspended => (423, "agent_suspended", "the agent waits for an operator", false),
            Self::IllegalMove => (409, "illegal_move", "the agent's state does not allow it", false),
            Self::SpecMismatch => (412, "spec_mismatch", "the spec has changed meanwhile", false),
            Self::NoQuery => (422, "no_query", "the agent's plugin answers no queries", false),
            Self::Interrupted => (409, "interrupted", "an operator ended the turn", false),
            Self::PluginInUse => (409, "plugin_in_use", "an agent needs the plugin", false),
            Self::Claimed => (409, "claimed", "another host is about to create the agent", true),
            Self::IdentityMismatch => {
                (409, "identity_mismatch", "another agent of this name is meant", false)
            }
            Self::NotAddressable => (403, "not_addressable", "the agent takes nothing from outside", false),
            Self::TooManyWatch => (429, "too_many_watch", "too many follow or wait already", true),
            Self::NoOutput => (504, "no_output", "no output came in time", true),
            Self::NotRecovered => (409, "not_recovered", "the agent is still broken", false),
            Self::AuthFlowsFull => (429, "auth_flows_full", "too many sign-ins are open", true),
            Self::AuthFlowOver => (409, "auth_flow_over", "the sign-in has ended", false),
            Self::AuthFlowRefused => (422, "auth_flow_refused", "the sign-in does not take this", false),
            Self::GroupNotFound => (404, "group_not_found", "no agent is in the group", false),
            Self::NoMember => (503, "no_member", "no member of the group takes inputs now", true),
            Self::PromotionInDoubt => (409, "promotion_in_doubt", "the agent may live elsewhere", false),
            Self::AuthServerFailed => {
                (502, "auth_server_failed", "the authorization server gave nothing", false)
            }
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Row { status, name, title, is_retryable }
    }

    /// The name in the member `code`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.row().status
    }
}

/// One error answer.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    detail: String,
    is_retryable: bool,
    members: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with details for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            detail: detail.into(),
            is_retryable: code.row().is_retryable,
            members: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// The request can't be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }

    /// Another host answered a call with another call's reply.
    pub(super) fn wrong_reply() -> Self {
        Self::new(Code::Internal, "the agent's host answered another call than this")
    }

    /// Adds a member beside the standard ones.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds all members of an object.
    #[must_use]
    pub(super) fn with_all(mut self, members: Map<String, Value>) -> Self {
        self.0.members.extend(members);
        self
    }

    /// Says whether repeating the same request can help, where the code alone does not know.
    #[must_use]
    pub(super) fn retryable(mut self, is_retryable: bool) -> Self {
        self.0.is_retryable = is_retryable;
        self
    }

    /// Adds a header; one whose value can't be a header is left out.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The members of the body.
    pub fn to_json(&self) -> Value {
        let row = self.0.code.row();
        let mut members = self.0.members.clone();
        let standard = [
            ("type", json!(format!("{TYPE_PREFIX}{}", row.name))),
            ("title", json!(row.title)),
            ("status", json!(row.status.as_u16())),
            ("detail", json!(self.0.detail)),
            ("code", json!(row.name)),
            ("retryable", json!(self.0.is_retryable)),
        ];
        members.extend(standard.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(members)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json().to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.code.status();
        *response.headers_mut() = self.0.headers;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let detail = error.to_string();
        match error {
            CallError::NotFound { agent } => of_agent(Code::AgentNotFound, detail, &agent),
            CallError::PeersSilent { agent, silent } => {
                Self::new(Code::PeersSilent, detail).with("agent", agent.as_str()).with("silent", silent)
            }
            CallError::Misdirected { agent, host } => Self::new(Code::Misdirected, detail)
                .with("agent", agent.as_str())
                .with("holder", host.to_string()),
            CallError::NoSuch { .. } => Self::new(Code::NotFound, detail),
            CallError::Broken { reason } => {
                Self::new(Code::AgentBroken, detail).with("reason", reason.name())
            }
            CallError::KindRefused { kind, .. } => Self::new(Code::KindRefused, detail).with("kind", kind),
            CallError::KeyReused => Self::new(Code::IdempotencyKeyReused, detail),
            CallError::Busy { .. } | CallError::InboxFull { .. } => later(Code::Busy, detail),
            CallError::Invalid { .. } => Self::new(Code::Malformed, detail),
            CallError::Conflict { .. } => Self::new(Code::Conflict, detail),
            CallError::AlreadyMigrating { migration, .. } => {
                Self::new(Code::AlreadyMigrating, detail).with("migration", migration.to_string())
            }
            CallError::Unavailable { .. } => Self::new(Code::Unavailable, detail),
            CallError::Unknown { .. } => Self::new(Code::Unknown, detail),
            CallError::Internal { .. } => Self::new(Code::Internal, detail),
            CallError::Deleted => Self::new(Code::AgentDeleted, detail),
            CallError::Retired { state } => Self::new(Code::AgentRetired, detail).with("state", state),
            CallError::Suspended { reason } => {
                Self::new(Code::AgentSuspended, detail).with("reason", reason.name())
            }
            CallError::Illegal(illegal) => {
                Self::new(Code::IllegalMove, detail).with("state", illegal.state).with("verb", illegal.verb)
            }
            CallError::Full => later(Code::StoreFull, detail),
            CallError::Interrupted => Self::new(Code::Interrupted, detail),
            CallError::Claimed { agent, .. } => of_agent(Code::Claimed, detail, &agent),
            CallError::AnotherAgent { agent, .. } => of_agent(Code::IdentityMismatch, detail, &agent),
            CallError::NotAddressable => Self::new(Code::NotAddressable, detail),
            CallError::TooManyWatch { .. } => later(Code::TooManyWatch, detail),
            CallError::NoOutput { after } => Self::new(Code::NoOutput, detail)
                .with("generation", after.generation.to_string())
                .with("after", after.revision.to_string()),
            CallError::NoQuery => Self::new(Code::NoQuery, detail),
            CallError::QueryFailed { is_retryable, .. } => {
                Self::new(Code::AgentError, detail).retryable(is_retryable)
            }
            CallError::QueryFault(fault) => {
                Self::new(Code::AgentFault, detail).with("fault", fault.kind.name())
            }
            CallError::PluginInUse { agent, pin } => Self::new(Code::PluginInUse, detail)
                .with("agent", agent.as_str())
                .with("by", pin.name())
                .with("revision", pin.revision().map(|revision| revision.to_string())),
            CallError::NoGroup { group, silent } => {
                Self::new(Code::GroupNotFound, detail).with("group", group.as_str()).with("silent", silent)
            }
            CallError::NoMember { group, members, silent, .. } => Self::new(Code::NoMember, detail)
                .with("group", group.as_str())
                .with("members", members)
                .with("silent", silent),
            CallError::PromotionInDoubt { agent, silent, revision, age_ms } => {
                let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
                in_doubt(&agent, revision, detail).with("silent", silent).with("age_ms", age_ms)
            }
            CallError::NotRecovered(refused) => not_recovered(&refused, detail),
            CallError::SpecMismatch { current } => {
                Self::new(Code::SpecMismatch, detail).with("spec_revision", current.to_string())
            }
        }
    }
}

fn of_agent(code: Code, detail: String, agent: &AgentId) -> Problem {
    Problem::new(code, detail).with("agent", agent.as_str())
}

fn later(code: Code, detail: String) -> Problem {
    Problem::new(code, detail).with_header(header::RETRY_AFTER, BUSY_RETRY_AFTER_S)
}

fn in_doubt(agent: &AgentId, revision: Revision, detail: String) -> Problem {
    let problem = Problem::new(Code::PromotionInDoubt, detail).with("agent", agent.as_str());
    problem.with("revision", revision.to_string())
}

fn not_recovered(refused: &Refused, detail: String) -> Problem {
    let ways = refused.ways.iter().map(|way| {
        let from = way.from.map(|from| from.to_string());
        json!({"from": from, "accept_state": way.accepts_state})
    });
    Problem::new(Code::NotRecovered, detail)
        .with("from_snapshot", refused.from.to_string())
        .with("turns", refused.turns)
        .with("ways", ways.collect::<Vec<_>>())
}

impl From<PluginError> for Problem {
    fn from(error: PluginError) -> Self {
        let detail = error.to_string();
        match error {
            PluginError::Load(error) => {
                Self::new(Code::PluginRefused, detail).with("problems", error.problems)
            }
            PluginError::Unnamed | PluginError::Manifest { .. } | PluginError::Name { .. } => {
                Self::new(Code::Malformed, detail)
            }
            PluginError::TooLarge { .. } => Self::new(Code::TooLarge, detail),
            PluginError::Call(error) => error.into(),
        }
    }
}

impl From<GroupNameError> for Problem {
    fn from(error: GroupNameError) -> Self {
        Self::malformed(error.to_string())
    }
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        Self::malformed(error.to_string())
    }
}

#[cfg(test)]
mod tests;
