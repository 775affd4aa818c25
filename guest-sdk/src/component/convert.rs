//! Between the types of the bindings and those of the SDK. Buffers move; nothing is copied.

use super::bindings::godwit::agent::{identity, operations, outbox, state, timers, types};
use crate::{
    AgentError, HttpRequest, IdentityError, Input, InputId, Kind, OperationError, Outcome, PeerKind, Reply,
    SendError, SendOptions, Source, StateError, TimerError, TurnInfo,
};

impl From<types::Input> for Input {
    fn from(input: types::Input) -> Self {
        let (high, low) = input.id;
        Self {
            id: InputId(u128::from(high) << 64 | u128::from(low)),
            kind: input.kind.into(),
            source: input.source.into(),
            content_type: input.content_type,
            payload: input.payload,
            headers: input.headers,
            correlation: input.correlation,
            accepted_at_ms: input.accepted_at_ms,
        }
    }
}

impl From<types::Kind> for Kind {
    fn from(kind: types::Kind) -> Self {
        match kind {
            types::Kind::Message => Self::Message,
            types::Kind::Peer(peer) => Self::Peer(peer.into()),
            types::Kind::FlowStep => Self::FlowStep,
            types::Kind::Event => Self::Event,
            types::Kind::Continuation => Self::Continuation,
            types::Kind::Operation => Self::Operation,
            types::Kind::Timer => Self::Timer,
        }
    }
}

impl From<types::PeerKind> for PeerKind {
    fn from(kind: types::PeerKind) -> Self {
        match kind {
            types::PeerKind::Message => Self::Message,
            types::PeerKind::Request(intent) => Self::Request { intent },
            types::PeerKind::ResponseProgress => Self::ResponseProgress,
            types::PeerKind::ResponseTerminal => Self::ResponseTerminal,
        }
    }
}

impl From<PeerKind> for types::PeerKind {
    fn from(kind: PeerKind) -> Self {
        match kind {
            PeerKind::Message => Self::Message,
            PeerKind::Request { intent } => Self::Request(intent),
            PeerKind::ResponseProgress => Self::ResponseProgress,
            PeerKind::ResponseTerminal => Self::ResponseTerminal,
        }
    }
}

impl From<types::Source> for Source {
    fn from(source: types::Source) -> Self {
        match source {
            types::Source::Operator => Self::Operator,
            types::Source::Peer(peer) => Self::Peer { agent: peer.agent, expects_reply: peer.expects_reply },
            types::Source::Flow(flow) => Self::Flow { id: flow.id, step: flow.step },
            types::Source::System => Self::System,
            types::Source::External(name) => Self::External(name),
        }
    }
}

impl From<Reply> for types::Reply {
    fn from(reply: Reply) -> Self {
        let outcome = match reply.outcome {
            Outcome::None => types::Outcome::None,
            Outcome::Ok(body) => types::Outcome::Ok(body),
            Outcome::Refused { code, body } => types::Outcome::Refused(types::Refusal { code, body }),
        };
        Self { outcome, content_type: reply.content_type, headers: reply.headers }
    }
}

impl From<AgentError> for types::AgentError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Retryable(reason) => Self::Retryable(reason),
            AgentError::Fatal(reason) => Self::Fatal(reason),
        }
    }
}

impl From<types::TurnInfo> for TurnInfo {
    fn from(turn: types::TurnInfo) -> Self {
        Self {
            agent: turn.agent,
            generation: turn.generation,
            token: turn.token,
            revision: turn.revision,
            attempt: turn.attempt,
            now_ms: turn.now_ms,
        }
    }
}

impl From<SendOptions> for types::SendOptions {
    fn from(options: SendOptions) -> Self {
        let expects_reply = options.expects_reply_ms.map(|timeout_ms| types::ReplyExpectation { timeout_ms });
        Self {
            kind: options.kind.into(),
            content_type: options.content_type,
            headers: options.headers,
            correlation: options.correlation,
            expects_reply,
        }
    }
}

impl From<state::StateError> for StateError {
    fn from(error: state::StateError) -> Self {
        match error {
            state::StateError::InvalidKey => Self::InvalidKey,
            state::StateError::TooLarge => Self::TooLarge,
            state::StateError::Quota => Self::Quota,
            state::StateError::NotInTurn => Self::NotInTurn,
            state::StateError::Other(reason) => Self::Other(reason),
        }
    }
}

impl From<HttpRequest> for operations::Request {
    fn from(request: HttpRequest) -> Self {
        let class = match request.is_repeatable {
            true => operations::Class::AtLeastOnce,
            false => operations::Class::AtMostOnce,
        };
        Self::Http(operations::HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            timeout_ms: request.timeout_ms,
            class,
        })
    }
}

impl From<operations::OperationError> for OperationError {
    fn from(error: operations::OperationError) -> Self {
        match error {
            operations::OperationError::NotGranted => Self::NotGranted,
            operations::OperationError::InvalidRequest(what) => Self::InvalidRequest(what),
            operations::OperationError::TooLarge => Self::TooLarge,
            operations::OperationError::Quota => Self::Quota,
            operations::OperationError::NotInTurn => Self::NotInTurn,
            operations::OperationError::Other(reason) => Self::Other(reason),
        }
    }
}

impl From<identity::IdentityError> for IdentityError {
    fn from(error: identity::IdentityError) -> Self {
        match error {
            identity::IdentityError::TooLarge => Self::TooLarge,
            identity::IdentityError::NoKey => Self::NoKey,
            identity::IdentityError::NotInTurn => Self::NotInTurn,
            identity::IdentityError::Other(reason) => Self::Other(reason),
        }
    }
}

impl From<timers::TimerError> for TimerError {
    fn from(error: timers::TimerError) -> Self {
        match error {
            timers::TimerError::InvalidName => Self::InvalidName,
            timers::TimerError::InvalidTime => Self::InvalidTime,
            timers::TimerError::TooLarge => Self::TooLarge,
            timers::TimerError::Quota => Self::Quota,
            timers::TimerError::NotInTurn => Self::NotInTurn,
            timers::TimerError::Other(reason) => Self::Other(reason),
        }
    }
}

impl From<outbox::SendError> for SendError {
    fn from(error: outbox::SendError) -> Self {
        match error {
            outbox::SendError::BadAgentId => Self::BadAgentId,
            outbox::SendError::TooLarge => Self::TooLarge,
            outbox::SendError::Quota => Self::Quota,
            outbox::SendError::NotInTurn => Self::NotInTurn,
            outbox::SendError::Unsupported(option) => Self::Unsupported(option),
            outbox::SendError::Other(reason) => Self::Other(reason),
        }
    }
}
