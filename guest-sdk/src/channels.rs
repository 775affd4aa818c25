//! Channels: what goes with a publication, how subscriptions stand, and what inputs say of both.

use crate::{Headers, Input, Kind, Source};

/// Who may subscribe to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Every agent that may send to the owner.
    #[default]
    Open,
    /// Whoever holds a token with the right to.
    ByToken,
}

/// What becomes of a subscriber for whom 1,000 outputs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Publishing is refused until it has caught up.
    #[default]
    Refuse,
    /// Its subscription ends as `lagging`.
    End,
}

/// What a token lets its bearer do on a channel of another agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// Publish.
    pub publish: bool,
    /// Subscribe.
    pub subscribe: bool,
    /// List and remove subscribers.
    pub admin: bool,
    /// Pass on what it has.
    pub delegate: bool,
}

impl Rights {
    /// Rights by name: `publish+subscribe+admin+delegate`, or some of these.
    pub fn named(text: &str) -> Option<Self> {
        let mut rights = Self::default();
        for right in text.split('+') {
            match right {
                "publish" => rights.publish = true,
                "subscribe" => rights.subscribe = true,
                "admin" => rights.admin = true,
                "delegate" => rights.delegate = true,
                _ => return None,
            }
        }
        Some(rights)
    }
}

/// What goes with a publication.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishOptions {
    /// MIME type of the payload; may be empty.
    pub content_type: String,
    /// Header pairs; names that begin with `godwit-` are the host's.
    pub headers: Headers,
}

/// One of the agent's channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// Who may subscribe.
    pub access: Access,
    /// What becomes of slow subscribers.
    pub overflow: Overflow,
    /// How many subscribe.
    pub subscribers: u32,
    /// The most outputs that wait for one of them.
    pub backlog: u64,
}

/// What the agent has last heard of one of its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The channel's owner.
    pub owner: String,
    /// The channel's name.
    pub channel: String,
    /// How it stands.
    pub state: SubscriptionState,
}

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionState {
    /// The owner has not answered.
    Asked,
    /// Publications come.
    Subscribed,
    /// An end was asked for, and the owner has not answered.
    Leaving,
    /// The owner said no: the reason.
    Refused(String),
    /// The owner's side has ended it: the reason.
    Ended(String),
}

/// What is asked of another agent's channel by somebody with the right to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Administration {
    /// Who subscribes?
    ListSubscribers,
    /// End the subscription of this agent.
    RemoveSubscriber(String),
}

/// Why a call on a channel did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// A channel's name, an agent's id, or a header's name is none that may be.
    #[error("{0}")]
    InvalidName(String),
    /// The agent has no channel of that name.
    #[error("the agent has no channel of that name")]
    NoChannel,
    /// The payload is longer than 256 KiB, or an option or a token longer than it may be.
    #[error("the payload is longer than 256 KiB, or an option or a token is too long")]
    TooLarge,
    /// The agent has as many channels or subscriptions as it may, or the turn has done all that it may.
    #[error(
        "the agent has as many channels or subscriptions as it may, or the turn has done all that it may"
    )]
    Quota,
    /// 1,000 outputs wait for a subscriber: publish later.
    #[error("a subscriber has not kept up: publish later")]
    Backlogged,
    /// The token can't be used so.
    #[error("the token can't be used so: {0}")]
    Token(String),
    /// The agent can't sign here.
    #[error("the agent can't sign here")]
    NoKey,
    /// There is no turn.
    #[error("there is no turn")]
    NotInTurn,
    /// Another reason; a retry may help.
    #[error("{0}")]
    Other(String),
}

impl ChannelError {
    /// A word for the reason, as a refusal's code. `None` for what is no fault of whoever asked.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidName(_) => "invalid_name",
            Self::NoChannel => "no_channel",
            Self::TooLarge => "too_large",
            Self::Quota => "quota",
            Self::Backlogged => "backlogged",
            Self::Token(_) => "token",
            Self::NoKey => "no_key",
            Self::NotInTurn | Self::Other(_) => return None,
        })
    }
}

/// What an input of kind [`Kind::Event`] says of the publication that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication<'a> {
    /// The channel's owner.
    pub owner: &'a str,
    /// The channel.
    pub channel: &'a str,
    /// 1 and up since the channel was opened, without gaps.
    pub number: u64,
    /// Its id.
    pub id: &'a str,
    /// Which other agent has published it, when it was not the owner.
    pub published_by: Option<&'a str>,
}

/// The answer to a request to the owner of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelAnswer<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The request's id.
    pub request: &'a str,
    /// `subscribed`, `unsubscribed`, `published`, `removed`, `subscribers` or `refused`.
    pub answer: &'a str,
    /// Why it was refused.
    pub reason: Option<&'a str>,
}

/// That the owner's side has ended a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelEnd<'a> {
    /// The channel's owner.
    pub owner: &'a str,
    /// The channel.
    pub channel: &'a str,
    /// `closed`, `removed`, `revoked`, `expired`, `lagging` or `deleted`.
    pub reason: &'a str,
}

impl Input {
    /// What the input is a copy of, if it was published on a channel.
    pub fn publication(&self) -> Option<Publication<'_>> {
        let (Kind::Event, Source::Peer { agent, .. }) = (&self.kind, &self.source) else { return None };
        Some(Publication {
            owner: agent,
            channel: self.header("godwit-channel")?,
            number: self.header("godwit-publication")?.parse().ok()?,
            id: self.correlation.as_deref().unwrap_or_default(),
            published_by: self.header("godwit-published-by"),
        })
    }

    /// What became of a request to the owner of a channel, if the input is the answer to one.
    pub fn channel_answer(&self) -> Option<ChannelAnswer<'_>> {
        Some(ChannelAnswer {
            channel: self.header("godwit-channel")?,
            request: self.correlation.as_deref()?,
            answer: self.header("godwit-channel-answer")?,
            reason: self.header("godwit-channel-reason"),
        })
    }

    /// The subscription that has ended, if the input says so.
    pub fn channel_end(&self) -> Option<ChannelEnd<'_>> {
        let (Kind::Event, Source::Peer { agent, .. }) = (&self.kind, &self.source) else { return None };
        self.header("godwit-channel-end")?;
        Some(ChannelEnd {
            owner: agent,
            channel: self.header("godwit-channel")?,
            reason: self.header("godwit-channel-reason")?,
        })
    }

    /// A publication, as tests send it.
    pub fn published(owner: &str, channel: &str, number: u64, payload: impl AsRef<[u8]>) -> Self {
        let headers = vec![
            ("godwit-channel".to_owned(), channel.to_owned()),
            ("godwit-publication".to_owned(), number.to_string()),
        ];
        let source = Source::Peer { agent: owner.into(), expects_reply: false };
        let correlation = Some(format!("publication {number} of {channel}"));
        Self { kind: Kind::Event, source, headers, correlation, ..Self::message(payload) }
    }

    /// The answer to a request, as tests send it.
    pub fn answered(owner: &str, channel: &str, request: &str, answer: &str) -> Self {
        let headers = vec![
            ("godwit-channel".to_owned(), channel.to_owned()),
            ("godwit-channel-answer".to_owned(), answer.to_owned()),
        ];
        let kind = Kind::Peer(crate::PeerKind::ResponseTerminal);
        Self { kind, headers, correlation: Some(request.into()), ..Self::from_peer(owner, "") }
    }
}
