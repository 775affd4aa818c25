//! Between the types of the bindings and those of the SDK. Buffers move; nothing is copied.

use super::bindings::godwit::agent::{channels, identity, operations, outbox, state, timers, types};
use crate::{
    Access, Administration, ChannelError, ChannelInfo, Overflow, PublishOptions, Rights, Subscription,
    SubscriptionState,
};
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

impl From<Access> for channels::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Open => Self::Open,
            Access::ByToken => Self::ByToken,
        }
    }
}

impl From<Overflow> for channels::Overflow {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::Refuse => Self::Refuse,
            Overflow::End => Self::End,
        }
    }
}

impl From<Rights> for channels::Rights {
    fn from(rights: Rights) -> Self {
        let given = [
            (rights.publish, Self::PUBLISH),
            (rights.subscribe, Self::SUBSCRIBE),
            (rights.admin, Self::ADMIN),
            (rights.delegate, Self::DELEGATE),
        ];
        let given = given.into_iter().filter(|(is_given, _)| *is_given);
        given.fold(Self::empty(), |rights, (_, right)| rights | right)
    }
}

impl From<PublishOptions> for channels::PublishOptions {
    fn from(options: PublishOptions) -> Self {
        Self { content_type: options.content_type, headers: options.headers }
    }
}

impl From<Administration> for channels::Administration {
    fn from(what: Administration) -> Self {
        match what {
            Administration::ListSubscribers => Self::ListSubscribers,
            Administration::RemoveSubscriber(agent) => Self::RemoveSubscriber(agent),
        }
    }
}

impl From<channels::ChannelInfo> for ChannelInfo {
    fn from(info: channels::ChannelInfo) -> Self {
        Self {
            name: info.name,
            access: match info.access {
                channels::Access::Open => Access::Open,
                channels::Access::ByToken => Access::ByToken,
            },
            overflow: match info.overflow {
                channels::Overflow::Refuse => Overflow::Refuse,
                channels::Overflow::End => Overflow::End,
            },
            subscribers: info.subscribers,
            backlog: info.backlog,
        }
    }
}

impl From<channels::Subscription> for Subscription {
    fn from(subscription: channels::Subscription) -> Self {
        use channels::SubscriptionState as State;
        Self {
            owner: subscription.owner,
            channel: subscription.channel,
            state: match subscription.state {
                State::Asked => SubscriptionState::Asked,
                State::Subscribed => SubscriptionState::Subscribed,
                State::Leaving => SubscriptionState::Leaving,
                State::Refused(reason) => SubscriptionState::Refused(reason),
                State::Ended(reason) => SubscriptionState::Ended(reason),
            },
        }
    }
}

impl From<channels::ChannelError> for ChannelError {
    fn from(error: channels::ChannelError) -> Self {
        use channels::ChannelError as Error;
        match error {
            Error::InvalidName(what) => Self::InvalidName(what),
            Error::NoChannel => Self::NoChannel,
            Error::TooLarge => Self::TooLarge,
            Error::Quota => Self::Quota,
            Error::Backlogged => Self::Backlogged,
            Error::Token(why) => Self::Token(why),
            Error::NoKey => Self::NoKey,
            Error::NotInTurn => Self::NotInTurn,
            Error::Other(reason) => Self::Other(reason),
        }
    }
}
