//! Channels: what an agent publishes to all who subscribe, wherever they are.
//!
//! ```text
//! subscriber: subscribe --commit--> Subscription{asked} + request --delivery--> owner's home: Subscriber row + answer, one step
//! owner:      publish   --commit--> one output per Subscriber row, in the same transaction --delivery--> input of kind `event`
//! subscriber: answer accepted = Subscription{subscribed}; unsubscribe goes the same way
//! ```
//! A channel belongs to one agent, its owner, and is named by both. Requests, answers and events are outputs like all others:
//! numbered without gaps per receiver, accepted once, in order. So a subscription outlives every move of either side, and
//! behind the answer to `unsubscribe` nothing more comes. What a channel costs is bounded: see `limits.rs`; a subscriber that
//! does not keep up stops the publisher (`Overflow::Refuse`) or ends visibly (`Overflow::End`), and nothing is left out. Who
//! publishes on another's channel is stopped when its owner does not keep up, and counts with the owner's own publications:
//! deliveries that are accepted together become no more copies than a turn.
//!
//! `channel/rules.rs` says what each message does to the rows, for every store; `channel/token.rs` are permission tokens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Generation, Revision};
use crate::input::Kind;
use crate::limits::CHANNEL_NAME_BYTES_MAX;
use crate::output::{Output, ReplyRole};

pub mod rules;
pub mod token;

pub use rules::ChannelTable;
pub use token::{Rights, Token};

/// The header of an event, an answer and an end with the channel's name.
pub const CHANNEL_HEADER: &str = "godwit-channel";
/// The header of an event with the publication's number: 1.. since the channel was opened, no gaps.
pub const PUBLICATION_HEADER: &str = "godwit-publication";
/// The header of an event that another agent than the owner has published: who.
pub const PUBLISHER_HEADER: &str = "godwit-published-by";
/// The header of an answer: what became of the request.
pub const ANSWER_HEADER: &str = "godwit-channel-answer";
/// The header of a refusal, and of the end of a subscription: why.
pub const REASON_HEADER: &str = "godwit-channel-reason";
/// The header of the input that says that the owner's side has ended a subscription: `ended`.
pub const END_HEADER: &str = "godwit-channel-end";

/// The name of a channel: as that of an agent, 1..=128 bytes of `[a-z0-9._:-]`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(Arc<str>);

/// A text is no name of a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "channel name {text:?} is not 1..={CHANNEL_NAME_BYTES_MAX} bytes of [a-z0-9._:-] starting with a letter or digit"
)]
pub struct ChannelNameError {
    /// The refused text, shortened to 160 characters.
    pub text: String,
}

impl ChannelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChannelName {
    type Err = ChannelNameError;

    fn from_str(text: &str) -> Result<Self, ChannelNameError> {
        match AgentId::parse(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(ChannelNameError { text: text.chars().take(160).collect() }),
        }
    }
}

impl TryFrom<String> for ChannelName {
    type Error = ChannelNameError;

    fn try_from(text: String) -> Result<Self, ChannelNameError> {
        text.parse()
    }
}

impl From<ChannelName> for String {
    fn from(name: ChannelName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Who may subscribe. Variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Every agent that may send to the owner.
    Open,
    /// Whoever holds a token with the right to.
    ByToken,
}

impl Access {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ByToken => "by-token",
        }
    }
}

/// What becomes of a subscriber for whom `SUBSCRIBER_BACKLOG_MAX` outputs wait. Variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overflow {
    /// Publishing is refused until it has caught up. What was under way when it reached the bound may take it to twice as many;
    /// above that it ends as with `End`.
    Refuse,
    /// Its subscription ends as lagging, behind all that waits.
    End,
}

impl Overflow {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::End => "end",
        }
    }
}

/// A row of the owner: one of its channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// Who may subscribe.
    pub access: Access,
    /// What becomes of slow subscribers.
    pub overflow: Overflow,
    /// Tokens that were issued at earlier revisions of the owner's generation are worth nothing.
    pub tokens_from: Revision,
    /// The number that the next publication gets.
    pub next_publication: u64,
    /// Wall time at which it was opened, Unix milliseconds.
    pub opened_at_ms: u64,
}

/// A row of the owner: who subscribes to one of its channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriber {
    /// To which channel.
    pub channel: ChannelName,
    /// Who.
    pub agent: AgentId,
    /// Wall time at which it was accepted first, Unix milliseconds.
    pub since_ms: u64,
    /// The id of the request that it stands on.
    pub request: String,
    /// The token that it stands on.
    pub permission: Option<Permission>,
}

/// What is kept of the token that let a subscriber in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Its expiry, Unix milliseconds.
    pub until_ms: u64,
    /// The owner's generation when it was issued.
    pub generation: Generation,
    /// The owner's revision that issued it.
    pub issued_at: Revision,
}

/// A row of the subscriber: what it has last heard of one of its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The channel's owner.
    pub owner: AgentId,
    /// The channel.
    pub channel: ChannelName,
    /// How it stands.
    pub state: SubscriptionState,
    /// The id of the last request about it.
    pub request: String,
    /// Wall time of that request, Unix milliseconds.
    pub since_ms: u64,
}

/// How a subscription stands. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionState {
    /// The owner has not answered.
    Asked,
    /// Events come.
    Subscribed,
    /// An end was asked for, and the owner has not answered.
    Leaving,
    /// The owner said no.
    Refused(Refusal),
    /// The owner's side has ended it.
    Ended(EndReason),
}

impl SubscriptionState {
    /// The name in the HTTP API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Subscribed => "subscribed",
            Self::Leaving => "leaving",
            Self::Refused(_) => "refused",
            Self::Ended(_) => "ended",
        }
    }

    /// Why it is over, if it is.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.name()),
            Self::Ended(reason) => Some(reason.name()),
            Self::Asked | Self::Subscribed | Self::Leaving => None,
        }
    }

    /// Whether events may come.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Asked | Self::Subscribed | Self::Leaving)
    }
}

/// Why a request was refused. Variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The owner has no channel of that name.
    NoChannel,
    /// It has as many subscribers as it may.
    Full,
    /// A token is needed, and there was none.
    TokenNeeded,
    /// The token can't be read, or one of its signatures is another.
    TokenInvalid,
    /// The token is another agent's.
    TokenOfAnother,
    /// The token is for another channel.
    TokenForAnother,
    /// The token has expired.
    TokenExpired,
    /// The token was issued before the owner revoked, or was reset.
    TokenRevoked,
    /// The token does not give this right, or one of its links gives more than the one before it.
    NoRight,
    /// The token was passed on more often than it may be.
    TooDeep,
    /// The owner's subscribers have not kept up.
    Backlogged,
    /// The request could not be delivered.
    Undeliverable,
}

impl Refusal {
    /// The name in headers and in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoChannel => "no-channel",
            Self::Full => "full",
            Self::TokenNeeded => "token-needed",
            Self::TokenInvalid => "token-invalid",
            Self::TokenOfAnother => "token-of-another",
            Self::TokenForAnother => "token-for-another",
            Self::TokenExpired => "token-expired",
            Self::TokenRevoked => "token-revoked",
            Self::NoRight => "no-right",
            Self::TooDeep => "too-deep",
            Self::Backlogged => "backlogged",
            Self::Undeliverable => "undeliverable",
        }
    }
}

/// Why the owner's side has ended a subscription. Variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The channel was closed.
    Closed,
    /// The owner, or an agent that may, has removed the subscriber.
    Removed,
    /// The token that it stood on was revoked, or the channel asks for one now.
    Revoked,
    /// The token that it stood on has expired.
    Expired,
    /// Too much waited for the subscriber.
    Lagging,
    /// The owner was deleted.
    Deleted,
    /// An event could not be delivered. The subscriber is not told.
    Undeliverable,
}

impl EndReason {
    /// The name in headers, events and the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Removed => "removed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Lagging => "lagging",
            Self::Deleted => "deleted",
            Self::Undeliverable => "undeliverable",
        }
    }
}

/// What an output has to do with a channel. Guests can't make these but through the verbs of channels. Variants are appended,
/// never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelMessage {
    /// It is no output yet: when its turn commits, it becomes one for each subscriber. Its destination is the owner.
    Publish {
        /// On which of the owner's channels.
        channel: ChannelName,
    },
    /// One subscriber's copy of a publication.
    Event {
        /// Of which of the sender's channels.
        channel: ChannelName,
    },
    /// A request to the owner of a channel.
    Request(ChannelRequest),
    /// The answer to the request that the output's correlation names.
    Answer(ChannelAnswer),
    /// The owner's side has ended a subscription.
    Ended {
        /// To which of the sender's channels.
        channel: ChannelName,
        /// The request that it stood on.
        request: String,
        /// Why.
        reason: EndReason,
    },
}

/// What an agent asks of the owner of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRequest {
    /// The channel.
    pub channel: ChannelName,
    /// What.
    pub ask: Ask,
    /// The encoded permission token, if any.
    pub token: Option<Bytes>,
}

/// What can be asked of the owner of a channel. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Let me subscribe.
    Subscribe,
    /// Send me nothing more. Needs no right.
    Unsubscribe,
    /// Publish the output's payload.
    Publish,
    /// End another agent's subscription.
    Remove {
        /// Whose.
        agent: AgentId,
    },
    /// Who subscribes?
    List,
}

impl Ask {
    /// The right that it needs; `None` when it needs none.
    pub fn right(&self) -> Option<Rights> {
        match self {
            Self::Subscribe => Some(Rights::SUBSCRIBE),
            Self::Unsubscribe => None,
            Self::Publish => Some(Rights::PUBLISH),
            Self::Remove { .. } | Self::List => Some(Rights::ADMIN),
        }
    }
}

/// The answer of a channel's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelAnswer {
    /// The channel.
    pub channel: ChannelName,
    /// What became of the request.
    pub outcome: AnswerOutcome,
}

/// What became of a request. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerOutcome {
    /// Publications from this number on come.
    Subscribed {
        /// The number of the next one.
        next: u64,
    },
    /// Nothing more comes.
    Unsubscribed,
    /// It was published.
    Published {
        /// Its number.
        number: u64,
    },
    /// The subscription that was to end has ended, or was none.
    Removed,
    /// The payload has the ids of the subscribers, a line each.
    Subscribers,
    /// No.
    Refused(Refusal),
}

impl AnswerOutcome {
    /// The name in headers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed => "unsubscribed",
            Self::Published { .. } => "published",
            Self::Removed => "removed",
            Self::Subscribers => "subscribers",
            Self::Refused(_) => "refused",
        }
    }
}

/// What comes with a delivery that has to do with a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelDelivery {
    /// What it is. Never `Publish`.
    pub message: ChannelMessage,
    /// Who asks, proven: there when the request has a token and the sender can sign.
    pub proof: Option<token::Proof>,
}

/// What a turn does to its agent's own channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelChange {
    /// It happens before the output of this index, and behind the ones before: publications are among them.
    pub before_output: u32,
    /// What.
    pub verb: ChannelVerb,
}

/// What an agent does to one of its channels. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelVerb {
    /// Opens it, or says anew who may subscribe and what becomes of slow subscribers.
    Open {
        /// Which.
        channel: ChannelName,
        /// Who may subscribe.
        access: Access,
        /// What becomes of slow subscribers.
        overflow: Overflow,
    },
    /// Ends all its subscriptions and removes it.
    Close {
        /// Which.
        channel: ChannelName,
    },
    /// Makes all tokens worthless that were issued at earlier revisions, and ends the subscriptions that stand on them.
    Revoke {
        /// Of which.
        channel: ChannelName,
    },
    /// Ends one subscription.
    Remove {
        /// To which.
        channel: ChannelName,
        /// Whose.
        agent: AgentId,
    },
}

impl ChannelVerb {
    /// The channel that it is about.
    pub fn channel(&self) -> &ChannelName {
        match self {
            Self::Open { channel, .. }
            | Self::Close { channel }
            | Self::Revoke { channel }
            | Self::Remove { channel, .. } => channel,
        }
    }
}

/// A channel as its owner, or an operator, sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelView {
    /// Its row.
    pub channel: Channel,
    /// How many subscribe.
    pub subscribers: u64,
    /// The most outputs that wait for one of them.
    pub backlog: u64,
}

impl ChannelView {
    /// An agent's channels after something was done to them that is not committed yet: as far as it can be known. By name.
    #[must_use]
    pub fn after(mut known: Vec<Self>, verb: &ChannelVerb) -> Vec<Self> {
        let place = known.binary_search_by(|view| view.channel.name.cmp(verb.channel()));
        match (verb, place) {
            (ChannelVerb::Open { access, overflow, .. }, Ok(place)) => {
                let channel = &mut known[place].channel;
                (channel.access, channel.overflow) = (*access, *overflow);
            }
            (ChannelVerb::Open { channel, access, overflow }, Err(place)) => {
                let channel = Channel {
                    name: channel.clone(),
                    access: *access,
                    overflow: *overflow,
                    tokens_from: Revision(0),
                    next_publication: 1,
                    opened_at_ms: 0,
                };
                known.insert(place, Self { channel, subscribers: 0, backlog: 0 });
            }
            (ChannelVerb::Close { .. }, Ok(place)) => {
                known.remove(place);
            }
            (ChannelVerb::Remove { .. }, Ok(place)) => {
                known[place].subscribers = known[place].subscribers.saturating_sub(1);
            }
            (ChannelVerb::Revoke { .. }, _) | (_, Err(_)) => {}
        }
        known
    }
}

impl Subscription {
    /// What an agent knows of a subscription when it has sent this, before that has committed. Of an end that it asks for only
    /// together with what was known before: see `put_into`.
    pub fn asked_by(output: &Output) -> Option<Self> {
        let Some(ChannelMessage::Request(request)) = output.channel.as_deref() else { return None };
        let state = match request.ask {
            Ask::Subscribe => SubscriptionState::Asked,
            Ask::Unsubscribe => SubscriptionState::Leaving,
            Ask::Publish | Ask::Remove { .. } | Ask::List => return None,
        };
        Some(Self {
            owner: output.destination.clone(),
            channel: request.channel.clone(),
            state,
            request: output.correlation.clone().unwrap_or_default(),
            since_ms: 0,
        })
    }

    /// An agent's subscriptions, by owner and channel, with this one among them.
    #[must_use]
    pub fn put_into(self, mut known: Vec<Self>) -> Vec<Self> {
        let place =
            known.binary_search_by(|other| (&other.owner, &other.channel).cmp(&(&self.owner, &self.channel)));
        match place {
            Ok(place) => known[place] = self,
            Err(_) if self.state == SubscriptionState::Leaving => {}
            Err(place) => known.insert(place, self),
        }
        known
    }
}

/// A publication: what all subscribers get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication<'a> {
    /// On which channel.
    pub channel: &'a ChannelName,
    /// 1.. since the channel was opened.
    pub number: u64,
    /// Which other agent has published it, when it was not the owner.
    pub by: Option<&'a AgentId>,
    /// Content type, payload, the publisher's headers, and the publication's id as correlation.
    pub body: &'a Output,
}

impl Publication<'_> {
    /// What a subscriber gets: the same for all but for the destination.
    pub fn event(&self, subscriber: &AgentId) -> Output {
        let mut headers = vec![
            (CHANNEL_HEADER.to_owned(), self.channel.to_string()),
            (PUBLICATION_HEADER.to_owned(), self.number.to_string()),
        ];
        headers.extend(self.by.map(|by| (PUBLISHER_HEADER.to_owned(), by.to_string())));
        headers.extend(self.body.headers.iter().cloned());
        Output {
            destination: subscriber.clone(),
            kind: Kind::Event,
            content_type: self.body.content_type.clone(),
            payload: self.body.payload.clone(),
            headers,
            correlation: self.body.correlation.clone(),
            reply: ReplyRole::None,
            channel: Some(Box::new(ChannelMessage::Event { channel: self.channel.clone() })),
        }
    }
}

/// The answer to a request.
fn answer(to: &AgentId, request: &str, answer: ChannelAnswer, payload: Bytes) -> Output {
    let mut headers = vec![
        (CHANNEL_HEADER.to_owned(), answer.channel.to_string()),
        (ANSWER_HEADER.to_owned(), answer.outcome.name().to_owned()),
    ];
    match &answer.outcome {
        AnswerOutcome::Refused(why) => headers.push((REASON_HEADER.to_owned(), why.name().to_owned())),
        AnswerOutcome::Subscribed { next: number } | AnswerOutcome::Published { number } => {
            headers.push((PUBLICATION_HEADER.to_owned(), number.to_string()));
        }
        AnswerOutcome::Unsubscribed | AnswerOutcome::Removed | AnswerOutcome::Subscribers => {}
    }
    Output {
        destination: to.clone(),
        kind: Kind::PeerResponseTerminal,
        content_type: if payload.is_empty() { String::new() } else { "text/plain".to_owned() },
        payload,
        headers,
        correlation: Some(request.to_owned()),
        reply: ReplyRole::Given,
        channel: Some(Box::new(ChannelMessage::Answer(answer))),
    }
}

/// What a subscriber is told whose subscription ends at the owner's.
fn ended(subscriber: &Subscriber, reason: EndReason) -> Output {
    let headers = vec![
        (CHANNEL_HEADER.to_owned(), subscriber.channel.to_string()),
        (END_HEADER.to_owned(), "ended".to_owned()),
        (REASON_HEADER.to_owned(), reason.name().to_owned()),
    ];
    Output {
        destination: subscriber.agent.clone(),
        kind: Kind::Event,
        content_type: String::new(),
        payload: Bytes::new(),
        headers,
        correlation: Some(subscriber.request.clone()),
        reply: ReplyRole::None,
        channel: Some(Box::new(ChannelMessage::Ended {
            channel: subscriber.channel.clone(),
            request: subscriber.request.clone(),
            reason,
        })),
    }
}

/// A request that a guest, or the host on its behalf, sends to the owner of a channel. Without an id nobody answers it.
pub fn request(owner: &AgentId, request: ChannelRequest, id: Option<String>) -> Output {
    Output {
        destination: owner.clone(),
        kind: Kind::PeerRequest { intent: "godwit-channel".to_owned() },
        content_type: String::new(),
        payload: Bytes::new(),
        headers: Vec::new(),
        correlation: id,
        reply: ReplyRole::None,
        channel: Some(Box::new(ChannelMessage::Request(request))),
    }
}

#[cfg(test)]
mod tests;
