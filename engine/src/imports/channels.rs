//! `godwit:agent/channels`: what the agent does to its channels, publishes, and asks of others, collected for the commit.
//!
//! Tokens are no effects: they are out as soon as the agent tells them, and are kept on the tape, since an agent whose history
//! runs again may have another key. Requests are signed when they are sent, not here.

use bytes::Bytes;
use godwit_core::channel::token::{Rights, Terms, Token};
use godwit_core::channel::{
    self, Access, Ask, ChannelMessage, ChannelName, ChannelRequest, ChannelVerb, ChannelView, Overflow,
    Refusal, Subscription, SubscriptionState,
};
use godwit_core::id::{AgentId, Revision};
use godwit_core::identity::EntityPublicKey;
use godwit_core::input::Kind;
use godwit_core::limits::{
    CHANNELS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, SUBSCRIBER_BACKLOG_MAX, SUBSCRIPTIONS_MAX, TOKEN_BYTES_MAX,
};
use godwit_core::output::{Output, ReplyRole};

use crate::bindings::godwit::agent::channels::{self as wit, ChannelError};
use crate::context::GuestContext;
use crate::effects::{QuotaReached, check_envelope};
use crate::fault::Stop;
use crate::limits::OUTPUT_PAYLOAD_BYTES_MAX;
use crate::tape::Answered;

/// Headers that the host adds to a publication.
const HOST_HEADERS: usize = 3;
/// Bytes of them at most: two names of 128 bytes, a number, and the headers' names.
const HOST_HEADER_BYTES: usize = 1 << 10;

/// Begins the names of the host's headers.
const HOST_HEADER_PREFIX: &str = "godwit-";

/// What a call gives, or why it did nothing; the outer error ends the turn.
type Called<T> = Result<Result<T, ChannelError>, Stop>;

impl wit::Host for GuestContext {
    fn open(
        &mut self,
        channel: String,
        access: wit::Access,
        overflow: wit::Overflow,
    ) -> wasmtime::Result<Result<(), ChannelError>> {
        self.taped("channels.open", |context| {
            let (access, overflow) = (access_of(access), overflow_of(overflow));
            let verb = name(&channel).map(|channel| ChannelVerb::Open { channel, access, overflow });
            context.open_channel(verb).map(Answered::Computed)
        })
    }

    fn close(&mut self, channel: String) -> wasmtime::Result<Result<(), ChannelError>> {
        self.taped("channels.close", |context| {
            let verb = name(&channel).map(|channel| ChannelVerb::Close { channel });
            context.change_own(verb).map(Answered::Computed)
        })
    }

    fn publish(
        &mut self,
        channel: String,
        payload: Vec<u8>,
        options: wit::PublishOptions,
    ) -> wasmtime::Result<Result<String, ChannelError>> {
        self.taped("channels.publish", |context| {
            context.publish_own(&channel, payload, options).map(Answered::Computed)
        })
    }

    fn list_channels(&mut self) -> wasmtime::Result<Result<Vec<wit::ChannelInfo>, ChannelError>> {
        self.taped("channels.list-channels", |context| {
            if !context.call.phase.may_read() {
                return Ok(Answered::Computed(Err(ChannelError::NotInTurn)));
            }
            context.check_live()?;
            let known = context.known_channels(None)?;
            Ok(Answered::Fetched(Ok(known.into_iter().map(info).collect())))
        })
    }

    fn list_subscribers(&mut self, channel: String) -> wasmtime::Result<Result<Vec<String>, ChannelError>> {
        self.taped("channels.list-subscribers", |context| {
            if !context.call.phase.may_read() {
                return Ok(Answered::Computed(Err(ChannelError::NotInTurn)));
            }
            let channel = match name(&channel) {
                Ok(channel) => channel,
                Err(error) => return Ok(Answered::Computed(Err(error))),
            };
            context.check_live()?;
            context.subscribers_of(&channel).map(Answered::Fetched)
        })
    }

    fn remove_subscriber(
        &mut self,
        channel: String,
        agent: String,
    ) -> wasmtime::Result<Result<(), ChannelError>> {
        self.taped("channels.remove-subscriber", |context| {
            let verb = name(&channel)
                .and_then(|channel| Ok(ChannelVerb::Remove { channel, agent: agent_id(&agent)? }));
            context.change_own(verb).map(Answered::Computed)
        })
    }

    fn issue(
        &mut self,
        channel: String,
        bearer: Vec<u8>,
        rights: wit::Rights,
        expires_at_ms: u64,
    ) -> wasmtime::Result<Result<Vec<u8>, ChannelError>> {
        self.taped("channels.issue", |context| {
            let asked =
                name(&channel).and_then(|channel| Ok((channel, terms(&bearer, rights, expires_at_ms)?)));
            let (channel, terms) = match asked {
                _ if !context.call.phase.is_turn() => {
                    return Ok(Answered::Computed(Err(ChannelError::NotInTurn)));
                }
                Ok(asked) => asked,
                Err(error) => return Ok(Answered::Computed(Err(error))),
            };
            context.check_live()?;
            context.issue_token(&channel, terms).map(Answered::Fetched)
        })
    }

    fn delegate(
        &mut self,
        token: Vec<u8>,
        bearer: Vec<u8>,
        rights: wit::Rights,
        expires_at_ms: u64,
    ) -> wasmtime::Result<Result<Vec<u8>, ChannelError>> {
        self.taped("channels.delegate", |context| {
            if !context.call.phase.is_turn() {
                return Ok(Answered::Computed(Err(ChannelError::NotInTurn)));
            }
            let terms = match terms(&bearer, rights, expires_at_ms) {
                Ok(terms) => terms,
                Err(error) => return Ok(Answered::Computed(Err(error))),
            };
            let Some(key) = context.own_key()? else {
                return Ok(Answered::Fetched(Err(ChannelError::NoKey)));
            };
            let passed = Token::from_bytes(&token).and_then(|token| token.delegate(key, terms));
            Ok(Answered::Fetched(passed.map(|token| token.to_bytes().to_vec()).map_err(unusable)))
        })
    }

    fn revoke(&mut self, channel: String) -> wasmtime::Result<Result<(), ChannelError>> {
        self.taped("channels.revoke", |context| {
            let verb = name(&channel).map(|channel| ChannelVerb::Revoke { channel });
            context.change_own(verb).map(Answered::Computed)
        })
    }

    fn subscribe(
        &mut self,
        owner: String,
        channel: String,
        token: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<String, ChannelError>> {
        self.taped("channels.subscribe", |context| {
            let asked = request(&owner, &channel, Ask::Subscribe, token);
            let asked = match asked {
                Ok(asked) if context.call.phase.is_turn() => asked,
                Ok(_) => return Ok(Answered::Computed(Err(ChannelError::NotInTurn))),
                Err(error) => return Ok(Answered::Computed(Err(error))),
            };
            if !context.has_room_for_subscription(&asked)? {
                return Ok(Answered::Computed(Err(ChannelError::Quota)));
            }
            Ok(Answered::Computed(context.ask(asked)))
        })
    }

    fn unsubscribe(
        &mut self,
        owner: String,
        channel: String,
    ) -> wasmtime::Result<Result<String, ChannelError>> {
        self.taped("channels.unsubscribe", |context| {
            let asked = request(&owner, &channel, Ask::Unsubscribe, None);
            Ok(Answered::Computed(asked.and_then(|asked| context.ask(asked))))
        })
    }

    fn list_subscriptions(&mut self) -> wasmtime::Result<Result<Vec<wit::Subscription>, ChannelError>> {
        self.taped("channels.list-subscriptions", |context| {
            if !context.call.phase.may_read() {
                return Ok(Answered::Computed(Err(ChannelError::NotInTurn)));
            }
            context.check_live()?;
            let known = context.known_subscriptions()?;
            Ok(Answered::Fetched(Ok(known.into_iter().map(subscription).collect())))
        })
    }

    fn publish_to(
        &mut self,
        owner: String,
        channel: String,
        payload: Vec<u8>,
        options: wit::PublishOptions,
        token: Vec<u8>,
    ) -> wasmtime::Result<Result<String, ChannelError>> {
        self.taped("channels.publish-to", |context| {
            let asked = request(&owner, &channel, Ask::Publish, Some(token));
            let asked = asked.and_then(|asked| {
                let wit::PublishOptions { content_type, headers } = options;
                let payload = body(payload, &content_type, &headers)?;
                Ok(Output { payload, content_type, headers, ..asked })
            });
            context.ask_with_token(asked).map(Answered::Computed)
        })
    }

    fn administer(
        &mut self,
        owner: String,
        channel: String,
        what: wit::Administration,
        token: Vec<u8>,
    ) -> wasmtime::Result<Result<String, ChannelError>> {
        self.taped("channels.administer", |context| {
            let what = match what {
                wit::Administration::ListSubscribers => Ok(Ask::List),
                wit::Administration::RemoveSubscriber(agent) => {
                    agent_id(&agent).map(|agent| Ask::Remove { agent })
                }
            };
            let asked = what.and_then(|what| request(&owner, &channel, what, Some(token)));
            context.ask_with_token(asked).map(Answered::Computed)
        })
    }
}

impl GuestContext {
    /// The agent's channels, all or one, with what this turn has done to them.
    fn known_channels(&self, only: Option<&ChannelName>) -> Result<Vec<ChannelView>, Stop> {
        let committed = self.state.channels(only).map_err(Stop::StateRead)?;
        let verbs = self.effects.channels();
        let verbs = verbs.filter(|verb| only.is_none_or(|only| verb.channel() == only));
        Ok(verbs.fold(committed, ChannelView::after))
    }

    /// One of the agent's channels. `Ok(None)` when the turn runs again: had there been none, the error would be on the tape.
    fn own_channel(&self, channel: &ChannelName) -> Called<Option<ChannelView>> {
        if self.call.tape.is_replay() {
            return Ok(Ok(None));
        }
        let known = self.known_channels(Some(channel))?.pop();
        Ok(known.map(Some).ok_or(ChannelError::NoChannel))
    }

    fn open_channel(&mut self, verb: Result<ChannelVerb, ChannelError>) -> Called<()> {
        let verb = match self.in_turn(verb) {
            Ok(verb) => verb,
            Err(error) => return Ok(Err(error)),
        };
        if !self.call.tape.is_replay() {
            let known = self.known_channels(None)?;
            let is_open = known.iter().any(|view| view.channel.name == *verb.channel());
            if !is_open && known.len() >= CHANNELS_MAX {
                return Ok(Err(ChannelError::Quota));
            }
        }
        Ok(self.note_verb(verb))
    }

    /// Does something to a channel that must be open.
    fn change_own(&mut self, verb: Result<ChannelVerb, ChannelError>) -> Called<()> {
        let verb = match self.in_turn(verb) {
            Ok(verb) => verb,
            Err(error) => return Ok(Err(error)),
        };
        match self.own_channel(verb.channel())? {
            Ok(_) => Ok(self.note_verb(verb)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn note_verb(&mut self, verb: ChannelVerb) -> Result<(), ChannelError> {
        self.effects.change_channel(verb).map_err(|QuotaReached| ChannelError::Quota)
    }

    fn in_turn<T>(&self, what: Result<T, ChannelError>) -> Result<T, ChannelError> {
        if self.call.phase.is_turn() { what } else { Err(ChannelError::NotInTurn) }
    }

    fn publish_own(
        &mut self,
        channel: &str,
        payload: Vec<u8>,
        options: wit::PublishOptions,
    ) -> Called<String> {
        let wit::PublishOptions { content_type, headers } = options;
        let checked = name(channel).and_then(|name| Ok((name, body(payload, &content_type, &headers)?)));
        let (channel, payload) = match self.in_turn(checked) {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        let known = match self.own_channel(&channel)? {
            Ok(known) => known,
            Err(error) => return Ok(Err(error)),
        };
        let is_full = |view: &ChannelView| {
            view.channel.overflow == Overflow::Refuse && view.backlog >= SUBSCRIBER_BACKLOG_MAX
        };
        if known.as_ref().is_some_and(is_full) {
            return Ok(Err(ChannelError::Backlogged));
        }
        let subscribers = known.map_or(0, |view| view.subscribers);
        let id = self.output_id(self.effects.outputs_len());
        let output = Output {
            destination: self.agent.clone(),
            kind: Kind::Event,
            content_type,
            payload,
            headers,
            correlation: Some(id.clone()),
            reply: ReplyRole::None,
            channel: Some(Box::new(ChannelMessage::Publish { channel })),
        };
        let noted = self.effects.publish(output, usize::try_from(subscribers).unwrap_or(usize::MAX));
        Ok(noted.map(|()| id).map_err(|QuotaReached| ChannelError::Quota))
    }

    fn subscribers_of(&self, channel: &ChannelName) -> Called<Vec<String>> {
        if self.known_channels(Some(channel))?.is_empty() {
            return Ok(Err(ChannelError::NoChannel));
        }
        let mut known = self.state.subscribers(channel).map_err(Stop::StateRead)?;
        for verb in self.effects.channels().filter(|verb| verb.channel() == channel) {
            match verb {
                ChannelVerb::Close { .. } => known.clear(),
                ChannelVerb::Remove { agent, .. } => known.retain(|subscriber| subscriber != agent),
                ChannelVerb::Open { .. } | ChannelVerb::Revoke { .. } => {}
            }
        }
        Ok(Ok(known.iter().map(AgentId::to_string).collect()))
    }

    fn issue_token(&mut self, channel: &ChannelName, terms: Terms) -> Called<Vec<u8>> {
        if self.known_channels(Some(channel))?.is_empty() {
            return Ok(Err(ChannelError::NoChannel));
        }
        let (agent, turn) = (self.agent.clone(), &self.call.turn);
        let issued_at = (turn.generation, Revision(turn.revision.0).next());
        let Some(key) = self.own_key()? else {
            return Ok(Err(ChannelError::NoKey));
        };
        Ok(Ok(Token::issue(key, (&agent, channel), issued_at, terms).to_bytes().to_vec()))
    }

    fn known_subscriptions(&self) -> Result<Vec<Subscription>, Stop> {
        let committed = self.state.subscriptions().map_err(Stop::StateRead)?;
        let asked = self.effects.outputs().iter().filter_map(Subscription::asked_by);
        Ok(asked.fold(committed, |known, asked| asked.put_into(known)))
    }

    fn has_room_for_subscription(&self, asked: &Output) -> Result<bool, Stop> {
        if self.call.tape.is_replay() {
            return Ok(true);
        }
        let known = self.known_subscriptions()?;
        let after = Subscription::asked_by(asked).map_or(known.len(), |asked| asked.put_into(known).len());
        Ok(after <= SUBSCRIPTIONS_MAX)
    }

    /// Notes a request that may be made again and again, while no more waits for the owner than may wait for a subscriber.
    fn ask_with_token(&mut self, asked: Result<Output, ChannelError>) -> Called<String> {
        let asked = match asked.and_then(|asked| self.in_turn(Ok(asked))) {
            Ok(asked) => asked,
            Err(error) => return Ok(Err(error)),
        };
        // When the turn runs again, the error would be on the tape.
        let is_backlogged = !self.call.tape.is_replay()
            && self.state.waiting(&asked.destination).map_err(Stop::StateRead)? >= SUBSCRIBER_BACKLOG_MAX;
        Ok(if is_backlogged { Err(ChannelError::Backlogged) } else { self.ask(asked) })
    }

    /// Notes a request to the owner of a channel.
    fn ask(&mut self, asked: Output) -> Result<String, ChannelError> {
        let asked = self.in_turn(Ok(asked))?;
        let id = self.output_id(self.effects.outputs_len());
        let output = Output { correlation: Some(id.clone()), ..asked };
        self.effects.send(output).map(|()| id).map_err(|QuotaReached| ChannelError::Quota)
    }
}

fn name(text: &str) -> Result<ChannelName, ChannelError> {
    text.parse().map_err(|error: channel::ChannelNameError| ChannelError::InvalidName(error.to_string()))
}

fn agent_id(text: &str) -> Result<AgentId, ChannelError> {
    AgentId::parse(text).map_err(|error| ChannelError::InvalidName(error.to_string()))
}

fn request(owner: &str, channel: &str, ask: Ask, token: Option<Vec<u8>>) -> Result<Output, ChannelError> {
    let (owner, channel) = (agent_id(owner)?, name(channel)?);
    if token.as_ref().is_some_and(|token| token.len() > TOKEN_BYTES_MAX) {
        return Err(ChannelError::TooLarge);
    }
    let request = ChannelRequest { channel, ask, token: token.map(Bytes::from) };
    Ok(channel::request(&owner, request, None))
}

/// The payload of a publication whose parts are within their limits, with what the host adds to them.
fn body(payload: Vec<u8>, content_type: &str, headers: &[(String, String)]) -> Result<Bytes, ChannelError> {
    let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let is_too_large = payload.len() > OUTPUT_PAYLOAD_BYTES_MAX
        || headers.len() + HOST_HEADERS > HEADERS_MAX
        || header_bytes + HOST_HEADER_BYTES > HEADER_BYTES_MAX
        || check_envelope(&[("content type", content_type)], headers).is_err();
    if is_too_large {
        return Err(ChannelError::TooLarge);
    }
    match headers.iter().find(|(name, _)| name.starts_with(HOST_HEADER_PREFIX)) {
        Some((name, _)) => {
            Err(ChannelError::InvalidName(format!("the header {name:?}: such names are the host's")))
        }
        None => Ok(Bytes::from(payload)),
    }
}

fn terms(bearer: &[u8], rights: wit::Rights, expires_at_ms: u64) -> Result<Terms, ChannelError> {
    let bearer = bearer.try_into().map_err(|_| {
        ChannelError::Token(format!("the bearer's public key has {} bytes, not 32", bearer.len()))
    })?;
    let given = [
        (wit::Rights::PUBLISH, Rights::PUBLISH),
        (wit::Rights::SUBSCRIBE, Rights::SUBSCRIBE),
        (wit::Rights::ADMIN, Rights::ADMIN),
        (wit::Rights::DELEGATE, Rights::DELEGATE),
    ];
    let given = given.into_iter().filter(|(asked, _)| rights.contains(*asked));
    let rights = given.fold(Rights::default(), |rights, (_, right)| rights.with(right));
    Ok(Terms { bearer: EntityPublicKey(bearer), rights, expires_at_ms })
}

fn unusable(refusal: Refusal) -> ChannelError {
    ChannelError::Token(refusal.name().to_owned())
}

fn access_of(access: wit::Access) -> Access {
    match access {
        wit::Access::Open => Access::Open,
        wit::Access::ByToken => Access::ByToken,
    }
}

fn overflow_of(overflow: wit::Overflow) -> Overflow {
    match overflow {
        wit::Overflow::Refuse => Overflow::Refuse,
        wit::Overflow::End => Overflow::End,
    }
}

fn info(view: ChannelView) -> wit::ChannelInfo {
    wit::ChannelInfo {
        name: view.channel.name.to_string(),
        access: match view.channel.access {
            Access::Open => wit::Access::Open,
            Access::ByToken => wit::Access::ByToken,
        },
        overflow: match view.channel.overflow {
            Overflow::Refuse => wit::Overflow::Refuse,
            Overflow::End => wit::Overflow::End,
        },
        subscribers: u32::try_from(view.subscribers).unwrap_or(u32::MAX),
        backlog: view.backlog,
    }
}

fn subscription(known: Subscription) -> wit::Subscription {
    let reason = known.state.reason().unwrap_or_default().to_owned();
    wit::Subscription {
        owner: known.owner.to_string(),
        channel: known.channel.to_string(),
        state: match known.state {
            SubscriptionState::Asked => wit::SubscriptionState::Asked,
            SubscriptionState::Subscribed => wit::SubscriptionState::Subscribed,
            SubscriptionState::Leaving => wit::SubscriptionState::Leaving,
            SubscriptionState::Refused(_) => wit::SubscriptionState::Refused(reason),
            SubscriptionState::Ended(_) => wit::SubscriptionState::Ended(reason),
        },
    }
}

#[cfg(test)]
mod tests;
