//! Channels: who subscribes, what comes of a publication, who may, and that all of it moves with its agent.

use bytes::Bytes;

use crate::channel::token::{Rights, Terms, Token};
use crate::channel::{
    ANSWER_HEADER, Access, Ask, CHANNEL_HEADER, ChannelChange, ChannelName, ChannelRequest, ChannelVerb,
    END_HEADER, EndReason, Overflow, PUBLICATION_HEADER, REASON_HEADER, Refusal, Subscription,
    SubscriptionState,
};
use crate::event::EventKind;
use crate::id::{Generation, Revision};
use crate::identity::EntityKey;
use crate::input::{DeliveryStamp, Kind, NewInput};
use crate::lifecycle::Verb;
use crate::limits::PAGE_MAX;
use crate::migration::Phase;
use crate::output::{Output, OutputState, Sender, StoredOutput, UndeliverableReason};
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{ALL, Desk, Turn, World, delivery, id, picture, put_plugin};
use crate::store::conformance::journey::Journey;
use crate::store::{
    AcceptError, Accepted, ImportRequest, OutputEnd, OutputKey, Page, Row, StoreError, StoredInput,
};

mod bounds;
mod tokens;

pub(super) fn cases() -> Vec<crate::store::conformance::Case> {
    use crate::store::conformance::Case;
    let mut cases = vec![
        Case::of(a_subscriber_gets_what_is_published_until_it_leaves),
        Case::of(sends_and_publications_keep_their_order),
        Case::of(a_publication_is_one_output_for_each_subscriber),
        Case::of(what_asks_for_no_channel_is_refused),
        Case::of(an_event_that_can_not_be_delivered_ends_its_subscription),
        Case::of(an_event_of_before_ends_no_newer_subscription),
        Case::of(a_request_that_can_not_be_delivered_is_refused),
        Case::of(who_does_not_subscribe_takes_no_events),
        Case::of(a_closed_channel_tells_its_subscribers),
        Case::of(a_deleted_agent_leaves_and_tells),
        Case::of(a_reset_keeps_open_subscriptions),
        Case::of(rows_of_channels_move_with_their_agent),
        Case::of(rows_of_channels_are_in_an_archive),
        Case::of(deliveries_come_together_and_in_order),
    ];
    cases.extend(tokens::cases());
    cases.extend(bounds::cases());
    cases
}

impl Turn {
    /// Sends what has to do with a channel.
    fn channel_output(mut self, output: Output) -> Self {
        self.outputs.push(output);
        self
    }

    /// Does something to one of the agent's channels, behind the outputs so far.
    fn channel(mut self, verb: ChannelVerb) -> Self {
        let before_output = u32::try_from(self.outputs.len()).unwrap();
        self.channels.push(ChannelChange { before_output, verb });
        self
    }
}

fn name(text: &str) -> ChannelName {
    text.parse().unwrap()
}

fn news() -> ChannelName {
    name("news")
}

fn open(access: Access, overflow: Overflow) -> ChannelVerb {
    ChannelVerb::Open { channel: news(), access, overflow }
}

fn publication(owner: &str, text: &str) -> Output {
    let mut output = crate::channel::request(
        &id(owner),
        ChannelRequest { channel: news(), ask: Ask::Publish, token: None },
        Some(format!("id of {text}")),
    );
    output.kind = Kind::Event;
    output.payload = Bytes::from(text.to_owned());
    output.channel = Some(Box::new(crate::channel::ChannelMessage::Publish { channel: news() }));
    output
}

fn ask(owner: &str, ask: Ask, token: Option<&Token>, request: &str) -> Output {
    let asked = ChannelRequest { channel: news(), ask, token: token.map(Token::to_bytes) };
    crate::channel::request(&id(owner), asked, Some(request.to_owned()))
}

async fn sender(desk: &Desk) -> Sender {
    let row = desk.row().await;
    Sender {
        generation: row.generation,
        token: row.token,
        host: desk.site.host,
        origin_hash: row.known_as().hash,
        key: desk.store().entity_key(desk.agent()).await.unwrap(),
    }
}

/// All that waits in an outbox.
async fn pending(desk: &Desk) -> Vec<StoredOutput> {
    let mut page = Page { after: 0, limit: PAGE_MAX };
    let mut all = Vec::new();
    loop {
        let outputs = desk.store().pending_outputs(desk.agent(), page).await.unwrap();
        let Some(last) = outputs.last() else { return all };
        page.after = last.position;
        all.extend(outputs);
    }
}

/// Delivers what waits in one agent's outbox for another one, and ends it. Answers what came of each.
async fn deliver(from: &Desk, to: &Desk) -> Vec<Result<Accepted, AcceptError>> {
    let sender = sender(from).await;
    let mut outputs = pending(from).await;
    outputs.retain(|stored| stored.output.destination == *to.agent());
    let lowest = outputs.first().map_or(1, |stored| stored.number);
    let inputs = outputs.iter().map(|stored| stored.delivery(&sender, lowest, 1)).collect();
    let accepted = to.store().accept_deliveries(inputs, to.owner.incarnation).await;
    let arrived = outputs.iter().zip(&accepted).filter(|(_, accepted)| accepted.is_ok());
    let ends: Vec<_> = arrived.map(|(stored, _)| (key_of(stored), OutputEnd::Acknowledged)).collect();
    assert_eq!(from.store().end_outputs(&from.owner, &ends).await, Ok(()));
    accepted
}

fn key_of(stored: &StoredOutput) -> OutputKey {
    let StoredOutput { generation, number, output, .. } = stored;
    OutputKey { destination: output.destination.clone(), generation: *generation, number: *number }
}

async fn acknowledge(desk: &Desk, stored: &StoredOutput) {
    let ends = [(key_of(stored), OutputEnd::Acknowledged)];
    assert_eq!(desk.store().end_outputs(&desk.owner, &ends).await, Ok(()));
}

fn header<'a>(input: &'a StoredInput, name: &str) -> &'a str {
    let found = input.input.headers.iter().find(|(header, _)| header == name);
    found.map_or("", |(_, value)| value.as_str())
}

async fn inbox(desk: &Desk) -> Vec<StoredInput> {
    desk.store().inputs(desk.agent(), None, ALL).await.unwrap()
}

/// What has come: events by payload, answers and ends by what they say.
async fn heard(desk: &Desk) -> Vec<String> {
    let line = |input: &StoredInput| match header(input, ANSWER_HEADER) {
        "" if header(input, END_HEADER) == "ended" => format!("ended {}", header(input, REASON_HEADER)),
        "" => String::from_utf8(input.input.payload.to_vec()).unwrap(),
        "refused" => format!("refused {}", header(input, REASON_HEADER)),
        answer => answer.to_owned(),
    };
    inbox(desk).await.iter().map(line).collect()
}

async fn state(desk: &Desk) -> Option<SubscriptionState> {
    let known = desk.store().subscriptions(desk.agent()).await.unwrap();
    assert!(known.len() <= 1);
    known.into_iter().next().map(|subscription| subscription.state)
}

async fn subscribers(desk: &Desk) -> Vec<String> {
    let known = desk.store().subscribers(desk.agent(), &news(), None, PAGE_MAX).await.unwrap();
    known.into_iter().map(|subscriber| subscriber.agent.to_string()).collect()
}

/// An owner with a channel, and two others, in one store.
async fn scene(world: &World, access: Access, overflow: Overflow) -> (Desk, Desk, Desk) {
    let site = world.site("a").await;
    let owner = site.own("owner").await;
    owner.turn(Turn::of(BoundaryKind::Init).channel(open(access, overflow))).await;
    let (one, two) = (site.own("one").await, site.own("two").await);
    one.turn(Turn::of(BoundaryKind::Init)).await;
    two.turn(Turn::of(BoundaryKind::Init)).await;
    (owner, one, two)
}

/// Asks, has it answered, and answers what became of it.
async fn asked(desk: &Desk, owner: &Desk, what: Ask, token: Option<&Token>, request: &str) -> String {
    desk.turn(Turn::ends([]).channel_output(ask("owner", what, token, request))).await;
    assert_eq!(deliver(desk, owner).await, [Ok(Accepted::Answered)]);
    deliver(owner, desk).await;
    heard(desk).await.pop().unwrap()
}

async fn publish(owner: &Desk, text: &str) {
    owner.turn(Turn::ends([]).channel_output(publication("owner", text))).await;
}

async fn a_subscriber_gets_what_is_published_until_it_leaves(world: World) {
    let (owner, one, _) = scene(&world, Access::Open, Overflow::Refuse).await;
    publish(&owner, "for nobody").await;
    assert_eq!(pending(&owner).await, []);
    one.turn(Turn::ends([]).channel_output(ask("owner", Ask::Subscribe, None, "first"))).await;
    assert_eq!(state(&one).await, Some(SubscriptionState::Asked));
    assert_eq!(subscribers(&owner).await, Vec::<String>::new(), "nobody has asked yet");
    let before = inbox(&owner).await.len();
    assert_eq!(deliver(&one, &owner).await, [Ok(Accepted::Answered)]);
    assert_eq!(inbox(&owner).await.len(), before, "a request is no input");
    assert_eq!(subscribers(&owner).await, ["one"]);
    publish(&owner, "hello").await;
    assert_eq!(deliver(&owner, &one).await.len(), 2);
    assert_eq!(state(&one).await, Some(SubscriptionState::Subscribed));
    assert_eq!(heard(&one).await, ["subscribed", "hello"]);
    let inputs = inbox(&one).await;
    let (answer, event) = (&inputs[0], &inputs[1]);
    assert_eq!(
        (answer.input.correlation.as_deref(), &answer.input.kind),
        (Some("first"), &Kind::PeerResponseTerminal)
    );
    assert_eq!((header(answer, PUBLICATION_HEADER), header(answer, CHANNEL_HEADER)), ("2", "news"));
    assert_eq!((&event.input.kind, event.input.correlation.as_deref()), (&Kind::Event, Some("id of hello")));
    assert_eq!((header(event, CHANNEL_HEADER), header(event, PUBLICATION_HEADER)), ("news", "2"));

    one.turn(Turn::ends([]).channel_output(ask("owner", Ask::Unsubscribe, None, "last"))).await;
    assert_eq!(state(&one).await, Some(SubscriptionState::Leaving));
    publish(&owner, "on its way").await;
    deliver(&one, &owner).await;
    publish(&owner, "too late").await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["subscribed", "hello", "on its way", "unsubscribed"]);
    assert_eq!((state(&one).await, subscribers(&owner).await), (None, Vec::new()));
    assert_eq!(pending(&owner).await, []);
    let told = |kind| owner.store().events(0, Some(owner.agent()), Some(kind), PAGE_MAX);
    assert_eq!(told(EventKind::ChannelSubscribed).await.unwrap().len(), 1);
    assert_eq!(told(EventKind::ChannelLeft).await.unwrap().len(), 1);
}

async fn sends_and_publications_keep_their_order(world: World) {
    let (owner, one, _) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    let turn = Turn::ends([]).output(&id("one"), "1").channel_output(publication("owner", "2"));
    let turn = turn.output(&id("one"), "3").channel(ChannelVerb::Close { channel: news() });
    owner.turn(turn.output(&id("one"), "4")).await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["subscribed", "1", "2", "3", "ended closed", "4"]);
}

async fn a_publication_is_one_output_for_each_subscriber(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r1").await;
    asked(&two, &owner, Ask::Subscribe, None, "r2").await;
    publish(&owner, "both").await;
    let waiting = pending(&owner).await;
    let destinations: Vec<&str> = waiting.iter().map(|stored| stored.output.destination.as_str()).collect();
    assert_eq!(destinations, ["one", "two"]);
    assert!(waiting.is_sorted_by(|a, b| a.position < b.position));
    let bodies = waiting.iter().map(|stored| stored.output.payload.clone());
    assert!(bodies.eq([Bytes::from("both"), Bytes::from("both")]));
    let view = owner.store().channels(owner.agent(), Some(&news())).await.unwrap().remove(0);
    assert_eq!((view.subscribers, view.backlog, view.channel.next_publication), (2, 1, 2));
    assert_eq!(owner.store().channels(owner.agent(), Some(&name("other"))).await, Ok(Vec::new()));
    // One of them ends in each way, and the other is still whole.
    acknowledge(&owner, &waiting[0]).await;
    assert_eq!(pending(&owner).await, waiting[1..]);
    let end = (key_of(&waiting[1]), OutputEnd::Undeliverable(UndeliverableReason::Expired));
    owner.store().end_outputs(&owner.owner, &[end]).await.unwrap();
    let kept = owner.store().outputs(owner.agent(), ALL).await.unwrap();
    assert_eq!((kept.len(), &kept[0].output), (1, &waiting[1].output));
    assert!(matches!(kept[0].state, OutputState::Undeliverable { .. }));
    let view = owner.store().channels(owner.agent(), None).await.unwrap().remove(0);
    assert_eq!(view.backlog, 0);
}

async fn what_asks_for_no_channel_is_refused(world: World) {
    let (owner, one, _) = scene(&world, Access::Open, Overflow::Refuse).await;
    let request = ChannelRequest { channel: name("other"), ask: Ask::Subscribe, token: None };
    let request = crate::channel::request(&id("owner"), request, Some("r".to_owned()));
    one.turn(Turn::ends([]).channel_output(request)).await;
    deliver(&one, &owner).await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["refused no-channel"]);
    assert_eq!(state(&one).await, Some(SubscriptionState::Refused(Refusal::NoChannel)));
    // What needs a right is refused without a token, on an open channel as well.
    for (what, number) in [(Ask::Publish, 1), (Ask::List, 2), (Ask::Remove { agent: id("two") }, 3)] {
        let answer = asked(&one, &owner, what, None, &format!("r{number}")).await;
        assert_eq!(answer, "refused token-needed");
    }
}

async fn key(desk: &Desk) -> EntityKey {
    desk.store().entity_key(desk.agent()).await.unwrap().unwrap()
}

/// A token of the owner as it is now.
async fn token(owner: &Desk, bearer: &EntityKey, rights: Rights) -> Token {
    let row = owner.row().await;
    let terms = Terms { bearer: bearer.public(), rights, expires_at_ms: u64::MAX };
    Token::issue(&key(owner).await, (&id("owner"), &news()), (row.generation, row.revision.next()), terms)
}

async fn an_event_that_can_not_be_delivered_ends_its_subscription(world: World) {
    let (owner, one, _) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    publish(&owner, "lost").await;
    let stored = pending(&owner).await.remove(0);
    let end = [(key_of(&stored), OutputEnd::Undeliverable(UndeliverableReason::Deleted))];
    for _ in 0..2 {
        assert_eq!(owner.store().end_outputs(&owner.owner, &end).await, Ok(()));
    }
    assert_eq!(subscribers(&owner).await, Vec::<String>::new());
    let kind = Some(EventKind::ChannelLeft);
    let told = owner.store().events(0, Some(owner.agent()), kind, PAGE_MAX).await.unwrap();
    assert_eq!(told.len(), 1);
    publish(&owner, "for nobody").await;
    assert_eq!(pending(&owner).await, []);
}

async fn an_event_of_before_ends_no_newer_subscription(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "first").await;
    publish(&owner, "of the first").await;
    for (what, request) in [(Ask::Unsubscribe, "leave"), (Ask::Subscribe, "second")] {
        world.clock.advance(std::time::Duration::from_secs(1));
        one.turn(Turn::ends([]).channel_output(ask("owner", what, None, request))).await;
        assert_eq!(deliver(&one, &owner).await, [Ok(Accepted::Answered)]);
    }
    world.clock.advance(std::time::Duration::from_secs(1));
    let publishing = token(&owner, &key(&two).await, Rights::PUBLISH).await;
    assert_eq!(asked(&two, &owner, Ask::Publish, Some(&publishing), "of the second").await, "published");
    let waiting = pending(&owner).await;
    for (event, left) in [(waiting.first(), vec!["one".to_owned()]), (waiting.last(), Vec::new())] {
        let end = [(key_of(event.unwrap()), OutputEnd::Undeliverable(UndeliverableReason::Deleted))];
        assert_eq!(owner.store().end_outputs(&owner.owner, &end).await, Ok(()));
        assert_eq!(subscribers(&owner).await, left);
    }
}

async fn a_request_that_can_not_be_delivered_is_refused(world: World) {
    let (_, one, _) = scene(&world, Access::Open, Overflow::Refuse).await;
    one.turn(Turn::ends([]).channel_output(ask("nobody", Ask::Subscribe, None, "r"))).await;
    let stored = pending(&one).await.remove(0);
    let end = [(key_of(&stored), OutputEnd::Undeliverable(UndeliverableReason::NotFound))];
    for _ in 0..2 {
        assert_eq!(one.store().end_outputs(&one.owner, &end).await, Ok(()));
    }
    assert_eq!(heard(&one).await, ["refused undeliverable"]);
    assert_eq!(state(&one).await, Some(SubscriptionState::Refused(Refusal::Undeliverable)));
    assert_eq!(inbox(&one).await[0].input.correlation.as_deref(), Some("r"));
}

async fn who_does_not_subscribe_takes_no_events(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    publish(&owner, "mine").await;
    let stored = pending(&owner).await.remove(0);
    let mut new: NewInput = stored.delivery(&sender(&owner).await, 1, 1);
    new.agent = id("two");
    let stamp: &mut DeliveryStamp = new.delivery.as_mut().unwrap();
    stamp.number = 1;
    let before = picture(two.store(), two.agent()).await;
    let refused = two.store().accept(new, two.owner.incarnation).await;
    let expected = AcceptError::NotSubscribed { origin: id("owner"), channel: news() };
    assert_eq!(refused, Err(expected));
    assert_eq!(picture(two.store(), two.agent()).await, before);
}

async fn a_closed_channel_tells_its_subscribers(world: World) {
    let (owner, one, _) = scene(&world, Access::Open, Overflow::Refuse).await;
    let old = token(&owner, &key(&one).await, Rights::PUBLISH).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    owner.turn(Turn::ends([]).channel(ChannelVerb::Close { channel: news() })).await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["subscribed", "ended closed"]);
    assert_eq!(owner.store().channels(owner.agent(), None).await, Ok(Vec::new()));
    assert_eq!(state(&one).await, Some(SubscriptionState::Ended(EndReason::Closed)));
    owner.turn(Turn::ends([]).channel(open(Access::Open, Overflow::Refuse))).await;
    // Tokens of its earlier life stay worthless.
    assert_eq!(asked(&one, &owner, Ask::Publish, Some(&old), "p").await, "refused token-revoked");
}

async fn a_deleted_agent_leaves_and_tells(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    asked(&two, &owner, Ask::Subscribe, None, "r").await;
    one.verb(&Verb::Delete).await.unwrap();
    assert_eq!(one.store().subscriptions(one.agent()).await, Ok(Vec::new()));
    let goodbye = pending(&one).await;
    assert_eq!(goodbye.len(), 1);
    let new = goodbye[0].delivery(&sender(&one).await, goodbye[0].number, 1);
    assert_eq!(owner.store().accept(new, owner.owner.incarnation).await, Ok(Accepted::Answered));
    assert_eq!(subscribers(&owner).await, ["two"]);
    assert_eq!(pending(&owner).await, [], "nobody waits for an answer");
    owner.verb(&Verb::Delete).await.unwrap();
    assert_eq!(owner.store().channels(owner.agent(), None).await, Ok(Vec::new()));
    deliver_of_deleted(&owner, &two).await;
    assert_eq!(heard(&two).await, ["subscribed", "ended deleted"]);
}

/// As `deliver`, without ends: the owner's token was raised.
async fn deliver_of_deleted(from: &Desk, to: &Desk) {
    let sender = sender(from).await;
    for stored in pending(from).await {
        if stored.output.destination == *to.agent() {
            let new = stored.delivery(&sender, stored.number, 1);
            to.store().accept(new, to.owner.incarnation).await.unwrap();
        }
    }
}

async fn a_reset_keeps_open_subscriptions(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    let token = token(&owner, &key(&two).await, Rights::PUBLISH).await;
    owner.verb(&Verb::Reset).await.unwrap();
    one.verb(&Verb::Reset).await.unwrap();
    let (owner, one) = (owner.site.take(&id("owner")).await, one.site.take(&id("one")).await);
    assert_eq!(
        (subscribers(&owner).await, state(&one).await),
        (vec!["one".to_owned()], Some(SubscriptionState::Subscribed))
    );
    owner.turn(Turn::of(BoundaryKind::Init).channel_output(publication("owner", "anew"))).await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await.pop().unwrap(), "anew");
    assert_eq!(asked(&two, &owner, Ask::Publish, Some(&token), "p").await, "refused token-revoked");
}

async fn rows_of_channels_move_with_their_agent(world: World) {
    let journey = Journey::bare(&world).await;
    let owner = &journey.from;
    let site = world.site("c").await;
    let (one, two) = (site.own("one").await, site.own("two").await);
    owner.turn(Turn::of(BoundaryKind::Init).channel(open(Access::Open, Overflow::Refuse))).await;
    let subscribe = |request| ask("agent", Ask::Subscribe, None, request);
    for desk in [&one, &two] {
        desk.turn(Turn::of(BoundaryKind::Init).channel_output(subscribe("r"))).await;
        deliver(desk, owner).await;
        deliver(owner, desk).await;
    }
    let mut asking = ask("elsewhere", Ask::Subscribe, None, "s");
    asking.correlation = Some("s".to_owned());
    owner.turn(Turn::ends([]).channel_output(asking).channel_output(publication("agent", "before"))).await;
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    let sent = first.last().unwrap().change;
    journey.receive(first.clone()).await;
    // While it travels: one leaves, and more is published.
    two.turn(Turn::ends([]).channel_output(ask("agent", Ask::Unsubscribe, None, "u"))).await;
    deliver(&two, owner).await;
    owner.turn(Turn::ends([]).channel_output(publication("agent", "between"))).await;
    let granted = journey.begin().await.granted;
    let waiting = pending(owner).await;
    let request = journey.request(granted, sent).await;
    let is_delete = |row: &Row| matches!(row, Row::Deleted(crate::store::RowKey::Subscriber(..)));
    assert!(request.frames.iter().any(|frame| is_delete(&frame.row)), "the delete travels");
    let before = picture(owner.store(), owner.agent()).await.moved_rows();
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.receive(first).await;
    journey.finish().await;
    let owner = journey.to.desk(journey.adopt().await);
    let present = |frames: Vec<crate::store::RowFrame>| -> Vec<crate::store::RowFrame> {
        frames.into_iter().filter(|frame| !matches!(frame.row, Row::Deleted(_))).collect()
    };
    assert_eq!(present(picture(owner.store(), owner.agent()).await.moved_rows()), present(before));
    assert_eq!(pending(&owner).await, waiting);
    assert_eq!(subscribers(&owner).await, ["one"]);
    let view = owner.store().channels(owner.agent(), None).await.unwrap().remove(0);
    assert_eq!((view.subscribers, view.backlog), (1, 2));
    let known: Vec<Subscription> = owner.store().subscriptions(owner.agent()).await.unwrap();
    assert_eq!((known.len(), &known[0].state), (1, &SubscriptionState::Asked));
    owner.turn(Turn::ends([]).channel_output(publication("agent", "after"))).await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["subscribed", "before", "between", "after"]);
    assert_eq!(owner.row().await.generation, Generation(1));
}

async fn rows_of_channels_are_in_an_archive(world: World) {
    let site = world.site("a").await;
    let desk = site.own("x").await;
    let turn = Turn::of(BoundaryKind::Init).channel(open(Access::Open, Overflow::Refuse));
    desk.turn(turn.channel_output(ask("owner", Ask::Subscribe, None, "s"))).await;
    let new = delivery(&id("x"), "reader", (1, 1), 1, 1);
    let request = ChannelRequest { channel: news(), ask: Ask::Subscribe, token: None };
    let message = crate::channel::ChannelMessage::Request(request);
    let mut asking = new.clone();
    asking.input.correlation = Some("r".to_owned());
    let channel = crate::channel::ChannelDelivery { message, proof: None };
    asking.delivery.as_mut().unwrap().channel = Some(Box::new(channel));
    assert_eq!(site.store.accept(asking, site.incarnation).await, Ok(Accepted::Answered));
    let (row, frames) = super::archive::whole(&site, "x").await.unwrap();
    let request = super::archive::request(&row.unwrap());
    let to = world.site("b").await;
    put_plugin(&to.store, "plain").await;
    to.store.receive_rows(request.copy, &id("x"), frames).await.unwrap();
    to.store.import(ImportRequest { is_suspended: false, ..request }).await.unwrap();
    let desk = to.take(&id("x")).await;
    assert_eq!(subscribers(&desk).await, ["reader"]);
    assert_eq!(state(&desk).await, Some(SubscriptionState::Asked));
    assert_eq!(desk.store().channels(desk.agent(), None).await.unwrap()[0].channel.tokens_from, Revision(1));
}

async fn deliveries_come_together_and_in_order(world: World) {
    let site = world.site("a").await;
    let (one, two) = (site.create("one").await, site.create("two").await);
    let gone = site.own("gone").await;
    gone.verb(&Verb::Delete).await.unwrap();
    let new = |agent, number| delivery(agent, "origin", (1, 1), number, 1);
    let together = vec![
        new(&one, 1),
        new(&two, 1),
        new(&id("nobody"), 1),
        new(&one, 2),
        new(&two, 3),
        new(&id("gone"), 1),
    ];
    let accepted = site.store.accept_deliveries(together.clone(), site.incarnation).await;
    let is_new = |accepted: &Result<Accepted, AcceptError>| matches!(accepted, Ok(Accepted::New { .. }));
    assert!(is_new(&accepted[0]) && is_new(&accepted[1]) && is_new(&accepted[3]), "{accepted:?}");
    assert_eq!(accepted[2], Err(AcceptError::Store(StoreError::NoAgent)));
    assert_eq!(accepted[4], Err(AcceptError::Gap { next: 2 }));
    assert!(matches!(&accepted[5], Err(AcceptError::Store(StoreError::Lifecycle { .. }))));
    let inputs = site.store.inputs(&one, None, ALL).await.unwrap();
    let bodies: Vec<&[u8]> = inputs.iter().map(|input| &input.input.payload[..]).collect();
    assert_eq!(bodies, [b"delivery 1".as_slice(), b"delivery 2"]);
    let again = site.store.accept_deliveries(together, site.incarnation).await;
    assert_eq!((&again[0], &again[3]), (&Ok(Accepted::AlreadyEnded), &Ok(Accepted::AlreadyEnded)));
    assert_eq!(site.store.inputs(&one, None, ALL).await.unwrap(), inputs);
    assert_eq!(site.store.accept_deliveries(Vec::new(), site.incarnation).await, []);
}
