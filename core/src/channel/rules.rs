//! What channels do to the rows of an agent: the same in every store, inside the transaction that has the agent's row.
//!
//! A store gives its rows as a `ChannelTable`; nothing here knows where they are. What an agent is told by another one is an
//! output that is appended in the same transaction, so that the row and the message can't differ.

use bytes::Bytes;

use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, InputId, Revision};
use crate::input::{Input, Kind, NewInput, Source};
use crate::limits::{
    FAN_OUT_MAX, RECEIVER_BACKLOG_MAX, SUBSCRIBER_BACKLOG_MAX, SUBSCRIBERS_MAX, SUBSCRIBERS_PER_AGENT_MAX,
};
use crate::output::{Output, ReplyRole, StoredOutput};

use super::token::{Credential, Owner};
use super::{
    ANSWER_HEADER, Access, AnswerOutcome, Ask, CHANNEL_HEADER, Channel, ChannelAnswer, ChannelChange,
    ChannelMessage, ChannelName, ChannelRequest, ChannelVerb, EndReason, Overflow, Permission, Publication,
    REASON_HEADER, Refusal, Subscriber, Subscription, SubscriptionState, answer, ended,
};

/// The rows of one agent, within one transaction.
pub trait ChannelTable {
    /// Why rows can't be read or written.
    type Error;

    /// One of its channels.
    ///
    /// # Errors
    /// Those of the store, as of all methods.
    fn channel(&mut self, name: &ChannelName) -> Result<Option<Channel>, Self::Error>;

    /// All its channels, by name.
    ///
    /// # Errors
    /// As `channel`.
    fn channels(&mut self) -> Result<Vec<Channel>, Self::Error>;

    /// Writes a channel.
    ///
    /// # Errors
    /// As `channel`.
    fn put_channel(&mut self, channel: Channel) -> Result<(), Self::Error>;

    /// Removes a channel, which has no subscribers.
    ///
    /// # Errors
    /// As `channel`.
    fn delete_channel(&mut self, name: &ChannelName) -> Result<(), Self::Error>;

    /// Who subscribes to a channel, by name, and the outputs that wait for each.
    ///
    /// # Errors
    /// As `channel`.
    fn subscribers(&mut self, channel: &ChannelName) -> Result<Vec<(Subscriber, u64)>, Self::Error>;

    /// How many subscribe to all its channels.
    ///
    /// # Errors
    /// As `channel`.
    fn subscriber_count(&mut self) -> Result<usize, Self::Error>;

    /// One subscriber.
    ///
    /// # Errors
    /// As `channel`.
    fn subscriber(
        &mut self,
        channel: &ChannelName,
        agent: &AgentId,
    ) -> Result<Option<Subscriber>, Self::Error>;

    /// Writes a subscriber.
    ///
    /// # Errors
    /// As `channel`.
    fn put_subscriber(&mut self, subscriber: Subscriber) -> Result<(), Self::Error>;

    /// Removes a subscriber.
    ///
    /// # Errors
    /// As `channel`.
    fn delete_subscriber(&mut self, channel: &ChannelName, agent: &AgentId) -> Result<(), Self::Error>;

    /// One of its own subscriptions.
    ///
    /// # Errors
    /// As `channel`.
    fn subscription(
        &mut self,
        owner: &AgentId,
        channel: &ChannelName,
    ) -> Result<Option<Subscription>, Self::Error>;

    /// All its own subscriptions.
    ///
    /// # Errors
    /// As `channel`.
    fn subscriptions(&mut self) -> Result<Vec<Subscription>, Self::Error>;

    /// Writes a subscription.
    ///
    /// # Errors
    /// As `channel`.
    fn put_subscription(&mut self, subscription: Subscription) -> Result<(), Self::Error>;

    /// Removes a subscription.
    ///
    /// # Errors
    /// As `channel`.
    fn delete_subscription(&mut self, owner: &AgentId, channel: &ChannelName) -> Result<(), Self::Error>;

    /// The outputs that wait for a receiver.
    ///
    /// # Errors
    /// As `channel`.
    fn waiting(&mut self, receiver: &AgentId) -> Result<u64, Self::Error>;

    /// Appends the output of this index of the turn that commits.
    ///
    /// # Errors
    /// As `channel`.
    fn append(&mut self, index: usize, output: &Output) -> Result<(), Self::Error>;

    /// Appends an output of the host's.
    ///
    /// # Errors
    /// As `channel`.
    fn send(&mut self, output: Output) -> Result<(), Self::Error>;

    /// Appends an output of each of these publications for each of these subscribers: all of the first one before those of the
    /// next.
    ///
    /// # Errors
    /// As `channel`.
    fn fan_out(&mut self, publications: &[Publication<'_>], to: &[AgentId]) -> Result<(), Self::Error>;

    /// Appends an event about the agent.
    ///
    /// # Errors
    /// As `channel`.
    fn tell(&mut self, event: NewEvent) -> Result<(), Self::Error>;
}

/// What a request that was delivered has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The answer is in the outbox, unless nobody waits for one.
    Answered,
    /// Too much waits for whoever asked, or the transaction has enough copies: not now.
    Busy,
}

/// Copies of publications that deliveries of one transaction have become.
#[derive(Debug, Default)]
pub struct Copies(usize);

impl Copies {
    /// Counts those of one more publication, if they still fit: as many as of one turn. The first one always does.
    fn take(&mut self, copies: usize) -> bool {
        let fits = self.0 + copies <= FAN_OUT_MAX;
        self.0 += if fits { copies } else { 0 };
        fits
    }
}

/// Appends the outputs of a turn in order, with what it does to its own channels in between. `revision` is the one that it makes.
///
/// # Errors
/// Those of the table.
pub fn commit<T: ChannelTable>(
    table: &mut T,
    owner: &Owner<'_>,
    revision: Revision,
    (outputs, changes): (&[Output], &[ChannelChange]),
    now_ms: u64,
) -> Result<(), T::Error> {
    let mut changes = changes.iter().peekable();
    let mut index = 0;
    while let Some(output) = outputs.get(index) {
        while let Some(change) = changes.next_if(|change| change.before_output as usize <= index) {
            apply(table, owner.agent, revision, &change.verb, now_ms)?;
        }
        let mut taken = 1;
        match output.channel.as_deref() {
            Some(ChannelMessage::Publish { channel }) => {
                let end = changes.peek().map_or(outputs.len(), |next| next.before_output as usize);
                let run = outputs[index..end.min(outputs.len())].iter();
                let bodies: Vec<&Output> = run.take_while(|output| publishes_on(output, channel)).collect();
                publish(table, owner, channel, (&bodies, None), now_ms)?;
                taken = bodies.len();
            }
            Some(ChannelMessage::Request(request)) => {
                requested(table, output, request, now_ms)?;
                table.append(index, output)?;
            }
            _ => table.append(index, output)?,
        }
        index += taken;
    }
    changes.try_for_each(|change| apply(table, owner.agent, revision, &change.verb, now_ms))
}

fn publishes_on(output: &Output, name: &ChannelName) -> bool {
    matches!(output.channel.as_deref(), Some(ChannelMessage::Publish { channel }) if channel == name)
}

fn apply<T: ChannelTable>(
    table: &mut T,
    agent: &AgentId,
    revision: Revision,
    verb: &ChannelVerb,
    now_ms: u64,
) -> Result<(), T::Error> {
    let known = table.channel(verb.channel())?;
    match (verb, known) {
        (ChannelVerb::Open { access, overflow, .. }, Some(known)) => {
            table.put_channel(Channel { access: *access, overflow: *overflow, ..known })
        }
        (ChannelVerb::Open { channel, access, overflow }, None) => table.put_channel(Channel {
            name: channel.clone(),
            access: *access,
            overflow: *overflow,
            tokens_from: revision,
            next_publication: 1,
            opened_at_ms: now_ms,
        }),
        (_, None) => Ok(()),
        (ChannelVerb::Close { channel }, Some(_)) => close(table, agent, channel, EndReason::Closed, now_ms),
        (ChannelVerb::Revoke { channel }, Some(known)) => {
            table.put_channel(Channel { tokens_from: revision, ..known })?;
            let mut subscribers = table.subscribers(channel)?;
            subscribers.retain(|(subscriber, _)| {
                subscriber.permission.is_some_and(|permission| permission.issued_at < revision)
            });
            end_all(table, agent, subscribers, EndReason::Revoked, now_ms)
        }
        (ChannelVerb::Remove { channel, agent: subscriber }, Some(_)) => {
            let known = table.subscriber(channel, subscriber)?.map(|subscriber| (subscriber, 0));
            end_all(table, agent, Vec::from_iter(known), EndReason::Removed, now_ms)
        }
    }
}

/// Closes all channels of an agent that is deleted, and leaves those of others.
///
/// # Errors
/// Those of the table.
pub fn delete<T: ChannelTable>(table: &mut T, agent: &AgentId, now_ms: u64) -> Result<(), T::Error> {
    for channel in table.channels()? {
        close(table, agent, &channel.name, EndReason::Deleted, now_ms)?;
    }
    for Subscription { owner, channel, state, .. } in table.subscriptions()? {
        table.delete_subscription(&owner, &channel)?;
        if state.is_open() && owner != *agent {
            let request = ChannelRequest { channel, ask: Ask::Unsubscribe, token: None };
            table.send(super::request(&owner, request, None))?;
        }
    }
    Ok(())
}

/// A reset has begun a new generation, whose revisions count anew: it voids all tokens of the one before, and none of its own.
///
/// # Errors
/// Those of the table.
pub fn reset<T: ChannelTable>(table: &mut T) -> Result<(), T::Error> {
    let channels = table.channels()?;
    let mut revoked = channels.into_iter().filter(|channel| channel.tokens_from > Revision(0));
    revoked.try_for_each(|channel| table.put_channel(Channel { tokens_from: Revision(0), ..channel }))
}

fn close<T: ChannelTable>(
    table: &mut T,
    agent: &AgentId,
    channel: &ChannelName,
    reason: EndReason,
    now_ms: u64,
) -> Result<(), T::Error> {
    let subscribers = table.subscribers(channel)?;
    end_all(table, agent, subscribers, reason, now_ms)?;
    table.delete_channel(channel)
}

fn end_all<T: ChannelTable>(
    table: &mut T,
    agent: &AgentId,
    subscribers: Vec<(Subscriber, u64)>,
    reason: EndReason,
    now_ms: u64,
) -> Result<(), T::Error> {
    subscribers.into_iter().try_for_each(|(subscriber, _)| end(table, agent, &subscriber, reason, now_ms))
}

/// Ends a subscription at the owner's side, and tells the subscriber behind all that waits for it.
fn end<T: ChannelTable>(
    table: &mut T,
    agent: &AgentId,
    subscriber: &Subscriber,
    reason: EndReason,
    now_ms: u64,
) -> Result<(), T::Error> {
    table.delete_subscriber(&subscriber.channel, &subscriber.agent)?;
    table.tell(left(agent, &subscriber.channel, &subscriber.agent, reason.name(), now_ms))?;
    table.send(ended(subscriber, reason))
}

fn left(agent: &AgentId, channel: &ChannelName, subscriber: &AgentId, why: &str, now_ms: u64) -> NewEvent {
    NewEvent::of_agent(agent, EventKind::ChannelLeft, now_ms)
        .with("channel", channel)
        .with("subscriber", subscriber)
        .with("reason", why)
}

/// Publishes one body after the other: an output of each for each subscriber. Subscriptions that are not good any more, and those
/// of whom is too far behind, end instead. Answers the number of the first one; `None` when there is no such channel, and so
/// nobody who waits.
///
/// # Errors
/// Those of the table.
pub fn publish<T: ChannelTable>(
    table: &mut T,
    owner: &Owner<'_>,
    name: &ChannelName,
    (mut bodies, by): (&[&Output], Option<&AgentId>),
    now_ms: u64,
) -> Result<Option<u64>, T::Error> {
    let Some(mut channel) = table.channel(name)? else {
        return Ok(None);
    };
    let first = channel.next_publication;
    while !bodies.is_empty() {
        // As many at once as all have room for; then whoever has none left is looked for again.
        let mut count = bodies.len();
        let subscribers = table.subscribers(name)?;
        let mut to = Vec::with_capacity(subscribers.len());
        for (subscriber, waiting) in subscribers {
            match unfit(owner, &channel, &subscriber, waiting, now_ms) {
                Some(reason) => end(table, owner.agent, &subscriber, reason, now_ms)?,
                None => {
                    let room = waiting_max(&channel).saturating_sub(waiting);
                    count = count.min(usize::try_from(room).unwrap_or(usize::MAX));
                    to.push(subscriber.agent);
                }
            }
        }
        let (some, rest) = bodies.split_at(count);
        let numbers = channel.next_publication..;
        let publications: Vec<Publication<'_>> =
            numbers.zip(some).map(|(number, body)| Publication { channel: name, number, by, body }).collect();
        channel.next_publication += publications.len() as u64;
        table.put_channel(channel.clone())?;
        table.fan_out(&publications, &to)?;
        bodies = rest;
    }
    Ok(Some(first))
}

/// What may wait for a subscriber of a channel.
fn waiting_max(channel: &Channel) -> u64 {
    match channel.overflow {
        Overflow::End => SUBSCRIBER_BACKLOG_MAX,
        Overflow::Refuse => RECEIVER_BACKLOG_MAX,
    }
}

/// Why a subscriber gets nothing more, if so.
fn unfit(
    owner: &Owner<'_>,
    channel: &Channel,
    subscriber: &Subscriber,
    waiting: u64,
    now_ms: u64,
) -> Option<EndReason> {
    match (channel.access, &subscriber.permission) {
        (Access::ByToken, None) => Some(EndReason::Revoked),
        (_, Some(permission)) if !permission.is_current(owner.generation, channel) => {
            Some(EndReason::Revoked)
        }
        (_, Some(permission)) if permission.until_ms <= now_ms => Some(EndReason::Expired),
        _ if waiting >= waiting_max(channel) => Some(EndReason::Lagging),
        _ => None,
    }
}

/// A request as it was delivered to the owner of a channel.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// Who asks.
    pub origin: &'a AgentId,
    /// What is asked.
    pub request: &'a ChannelRequest,
    /// What its token comes to (`token::credential`).
    pub credential: &'a Result<Option<Credential>, Refusal>,
    /// What it would be as an input: the body of a publication, and the request's id as correlation.
    pub input: &'a Input,
}

/// Does what another agent asks of one of this agent's channels, and puts the answer into the outbox. `copies` are those of the
/// transaction.
///
/// # Errors
/// Those of the table.
pub fn hear<T: ChannelTable>(
    table: &mut T,
    owner: &Owner<'_>,
    delivered: &Delivered<'_>,
    copies: &mut Copies,
    now_ms: u64,
) -> Result<Heard, T::Error> {
    let Delivered { origin, request, input, .. } = delivered;
    if table.waiting(origin)? >= RECEIVER_BACKLOG_MAX {
        return Ok(Heard::Busy);
    }
    let (outcome, payload) = match grant(table, owner, delivered, copies, now_ms)? {
        None => return Ok(Heard::Busy),
        Some(Ok(answered)) => answered,
        Some(Err(refusal)) => {
            if request.ask == Ask::Subscribe && table.subscriber(&request.channel, origin)?.is_some() {
                // The answer takes the place of the subscription that was there.
                table.delete_subscriber(&request.channel, origin)?;
                table.tell(left(owner.agent, &request.channel, origin, refusal.name(), now_ms))?;
            }
            (AnswerOutcome::Refused(refusal), Bytes::new())
        }
    };
    if let Some(id) = &input.correlation {
        let said = ChannelAnswer { channel: request.channel.clone(), outcome };
        table.send(answer(origin, id, said, payload))?;
    }
    Ok(Heard::Answered)
}

type Granted = Result<(AnswerOutcome, Bytes), Refusal>;

/// What the rows say to a request; `None` when they can't say it in this transaction.
fn grant<T: ChannelTable>(
    table: &mut T,
    owner: &Owner<'_>,
    delivered: &Delivered<'_>,
    copies: &mut Copies,
    now_ms: u64,
) -> Result<Option<Granted>, T::Error> {
    let Delivered { origin, request, input, .. } = delivered;
    let name = &request.channel;
    if request.ask == Ask::Unsubscribe {
        if table.subscriber(name, origin)?.is_some() {
            table.delete_subscriber(name, origin)?;
            table.tell(left(owner.agent, name, origin, "unsubscribed", now_ms))?;
        }
        return Ok(Some(Ok((AnswerOutcome::Unsubscribed, Bytes::new()))));
    }
    let Some(channel) = table.channel(name)? else {
        return Ok(Some(Err(Refusal::NoChannel)));
    };
    let permission = match permitted(owner, &channel, delivered, now_ms) {
        Ok(permission) => permission,
        Err(refusal) => return Ok(Some(Err(refusal))),
    };
    let granted = match &request.ask {
        Ask::Subscribe => {
            let id = input.correlation.clone().unwrap_or_default();
            subscribe(table, owner.agent, &channel, (origin, id), permission, now_ms)?
        }
        Ask::Publish => {
            let subscribers = table.subscribers(name)?;
            let backlog = subscribers.iter().map(|(_, waiting)| *waiting).max().unwrap_or(0);
            if channel.overflow == Overflow::Refuse && backlog >= SUBSCRIBER_BACKLOG_MAX {
                return Ok(Some(Err(Refusal::Backlogged)));
            }
            if !copies.take(subscribers.len()) {
                return Ok(None);
            }
            let body = published(origin, input);
            let number = publish(table, owner, name, (&[&body], Some(origin)), now_ms)?;
            number.map(|number| (AnswerOutcome::Published { number }, Bytes::new())).ok_or(Refusal::NoChannel)
        }
        Ask::Remove { agent } => {
            let known = table.subscriber(name, agent)?.map(|subscriber| (subscriber, 0));
            end_all(table, owner.agent, Vec::from_iter(known), EndReason::Removed, now_ms)?;
            Ok((AnswerOutcome::Removed, Bytes::new()))
        }
        Ask::List => {
            let ids = table.subscribers(name)?;
            let lines: String = ids.iter().map(|(subscriber, _)| format!("{}\n", subscriber.agent)).collect();
            Ok((AnswerOutcome::Subscribers, Bytes::from(lines)))
        }
        Ask::Unsubscribe => Ok((AnswerOutcome::Unsubscribed, Bytes::new())),
    };
    Ok(Some(granted))
}

/// Whether whoever asks may; answers what a subscription rests on.
fn permitted(
    owner: &Owner<'_>,
    channel: &Channel,
    delivered: &Delivered<'_>,
    now_ms: u64,
) -> Result<Option<Permission>, Refusal> {
    let Some(right) = delivered.request.ask.right() else {
        return Ok(None);
    };
    // The owner needs no token for what is its own; an open channel looks at none.
    let is_free = delivered.request.ask == Ask::Subscribe && channel.access == Access::Open;
    if is_free || delivered.origin == owner.agent {
        return Ok(None);
    }
    match delivered.credential {
        Err(refusal) => Err(*refusal),
        Ok(None) => Err(Refusal::TokenNeeded),
        Ok(Some(credential)) => {
            credential.check(owner, channel, right, now_ms)?;
            Ok(Some(credential.permission))
        }
    }
}

fn subscribe<T: ChannelTable>(
    table: &mut T,
    owner: &AgentId,
    channel: &Channel,
    (agent, request): (&AgentId, String),
    permission: Option<Permission>,
    now_ms: u64,
) -> Result<Granted, T::Error> {
    let known = table.subscriber(&channel.name, agent)?;
    if known.is_none() {
        let of_channel = table.subscribers(&channel.name)?.len();
        if of_channel >= SUBSCRIBERS_MAX || table.subscriber_count()? >= SUBSCRIBERS_PER_AGENT_MAX {
            return Ok(Err(Refusal::Full));
        }
        let event = NewEvent::of_agent(owner, EventKind::ChannelSubscribed, now_ms)
            .with("channel", &channel.name)
            .with("subscriber", agent);
        table.tell(event)?;
    }
    table.put_subscriber(Subscriber {
        channel: channel.name.clone(),
        agent: agent.clone(),
        since_ms: known.map_or(now_ms, |known| known.since_ms),
        request,
        permission,
    })?;
    Ok(Ok((AnswerOutcome::Subscribed { next: channel.next_publication }, Bytes::new())))
}

/// The body of a publication that another agent asks for.
fn published(by: &AgentId, input: &Input) -> Output {
    Output {
        destination: by.clone(),
        kind: Kind::Event,
        content_type: input.content_type.clone(),
        payload: input.payload.clone(),
        headers: input.headers.clone(),
        correlation: input.correlation.clone(),
        reply: ReplyRole::None,
        channel: None,
    }
}

// --- the subscriber's side

/// A turn has sent a request: what the agent knows of its subscription from here.
///
/// # Errors
/// Those of the table.
pub fn requested<T: ChannelTable>(
    table: &mut T,
    output: &Output,
    request: &ChannelRequest,
    now_ms: u64,
) -> Result<(), T::Error> {
    let owner = &output.destination;
    let id = output.correlation.clone().unwrap_or_default();
    let known = table.subscription(owner, &request.channel)?;
    let state = match (&request.ask, &known) {
        (Ask::Subscribe, _) => SubscriptionState::Asked,
        (Ask::Unsubscribe, Some(_)) => SubscriptionState::Leaving,
        _ => return Ok(()),
    };
    table.put_subscription(Subscription {
        owner: owner.clone(),
        channel: request.channel.clone(),
        state,
        request: id,
        since_ms: now_ms,
    })
}

/// Whether the agent takes events of a channel.
///
/// # Errors
/// Those of the table.
pub fn takes_events<T: ChannelTable>(
    table: &mut T,
    owner: &AgentId,
    channel: &ChannelName,
) -> Result<bool, T::Error> {
    Ok(table.subscription(owner, channel)?.is_some_and(|subscription| subscription.state.is_open()))
}

/// An answer, or the end of a subscription, is accepted as an input: what the agent knows of it from here.
///
/// # Errors
/// Those of the table.
pub fn told<T: ChannelTable>(
    table: &mut T,
    owner: &AgentId,
    input: &Input,
    message: &ChannelMessage,
) -> Result<(), T::Error> {
    let (channel, request, state) = match message {
        ChannelMessage::Answer(ChannelAnswer { channel, outcome }) => {
            let state = match outcome {
                AnswerOutcome::Subscribed { .. } => Some(SubscriptionState::Subscribed),
                AnswerOutcome::Refused(refusal) => Some(SubscriptionState::Refused(*refusal)),
                AnswerOutcome::Unsubscribed => None,
                _ => return Ok(()),
            };
            (channel, input.correlation.as_deref().unwrap_or_default(), state)
        }
        ChannelMessage::Ended { channel, request, reason } => {
            (channel, request.as_str(), Some(SubscriptionState::Ended(*reason)))
        }
        ChannelMessage::Publish { .. } | ChannelMessage::Event { .. } | ChannelMessage::Request(_) => {
            return Ok(());
        }
    };
    // What is about an earlier request does not change what a later one has begun.
    match table.subscription(owner, channel)?.filter(|known| known.request == request) {
        None => Ok(()),
        Some(known) => match state {
            Some(state) => table.put_subscription(Subscription { state, ..known }),
            None => table.delete_subscription(owner, channel),
        },
    }
}

/// An output will never arrive. If it was an event, its subscription ends, but not one that was accepted after it was committed. If it was a request that somebody waits for, it is
/// refused: the answer is an input, which the caller accepts.
///
/// # Errors
/// Those of the table.
pub fn undeliverable<T: ChannelTable>(
    table: &mut T,
    agent: &AgentId,
    stored: &StoredOutput,
    now_ms: u64,
) -> Result<Option<NewInput>, T::Error> {
    let output = &stored.output;
    let receiver = &output.destination;
    match output.channel.as_deref() {
        Some(ChannelMessage::Event { channel }) => {
            let known = table.subscriber(channel, receiver)?;
            if known.is_some_and(|known| known.since_ms <= stored.committed_at_ms) {
                table.delete_subscriber(channel, receiver)?;
                table.tell(left(agent, channel, receiver, EndReason::Undeliverable.name(), now_ms))?;
            }
            Ok(None)
        }
        Some(ChannelMessage::Request(request)) => {
            let Some(id) = &output.correlation else {
                return Ok(None);
            };
            let outcome = AnswerOutcome::Refused(Refusal::Undeliverable);
            let input = Input {
                id: InputId::of_reply(agent, id),
                kind: Kind::PeerResponseTerminal,
                source: Source::System,
                content_type: String::new(),
                payload: Bytes::new(),
                headers: vec![
                    (CHANNEL_HEADER.to_owned(), request.channel.to_string()),
                    (ANSWER_HEADER.to_owned(), outcome.name().to_owned()),
                    (REASON_HEADER.to_owned(), Refusal::Undeliverable.name().to_owned()),
                ],
                correlation: Some(id.clone()),
                accepted_at_ms: now_ms,
            };
            let answer = ChannelAnswer { channel: request.channel.clone(), outcome };
            told(table, receiver, &input, &ChannelMessage::Answer(answer))?;
            Ok(Some(NewInput::of_host(agent, input)))
        }
        _ => Ok(None),
    }
}
