//! Channels of a turn, without a guest: what is noted, and what of a hostile guest is refused.

use std::sync::Arc;

use godwit_core::channel::Channel;
use godwit_core::guest::GuestRequest;
use godwit_core::identity::EntityKey;
use godwit_core::limits::{CHANNEL_NAME_BYTES_MAX, FAN_OUT_MAX, OUTPUTS_MAX};

use super::*;
use crate::bindings::godwit::agent::channels::Host;
use crate::context::Phase;
use crate::testing::{Rows, request as guest_request, turn};

fn view(name: &str, subscribers: u64, backlog: u64, overflow: Overflow) -> ChannelView {
    let channel = Channel {
        name: name.parse().expect("a name"),
        access: Access::Open,
        overflow,
        tokens_from: Revision(1),
        next_publication: 1,
        opened_at_ms: 0,
    };
    ChannelView { channel, subscribers, backlog }
}

fn context_of(rows: Rows, phase: Phase) -> GuestContext {
    let request = GuestRequest { state: Arc::new(rows), ..guest_request(Default::default()) };
    let mut context = GuestContext::new(request, &turn(1));
    context.begin_call(phase, &turn(1));
    context
}

/// An agent with a channel `news` of so many subscribers, for the slowest of whom so many outputs wait.
fn context(subscribers: u64, backlog: u64) -> GuestContext {
    let channels = vec![view("news", subscribers, backlog, Overflow::Refuse)];
    let entity_key = Some(EntityKey::from_secret(&[1; 32]));
    context_of(Rows { channels, entity_key, ..Rows::default() }, Phase::Handle)
}

fn plain() -> wit::PublishOptions {
    wit::PublishOptions { content_type: String::new(), headers: Vec::new() }
}

fn publish(context: &mut GuestContext, channel: &str, payload: Vec<u8>) -> Result<String, ChannelError> {
    context.publish(channel.into(), payload, plain()).expect("no trap")
}

fn said<T: std::fmt::Debug>(result: Result<T, ChannelError>) -> String {
    format!("{:?}", result.expect_err("it is refused"))
}

#[test]
fn what_a_turn_does_is_noted_in_order() {
    let mut context = context_of(Rows::default(), Phase::Handle);
    let open = |context: &mut GuestContext, name: &str| {
        context.open(name.into(), wit::Access::ByToken, wit::Overflow::End).expect("no trap")
    };
    assert!(said(publish(&mut context, "news", Vec::new())).contains("NoChannel"));
    open(&mut context, "news").expect("there is room");
    let first = publish(&mut context, "news", b"1".to_vec()).expect("it is open now");
    let asked = context.subscribe("other".into(), "their".into(), None).expect("no trap").expect("asked");
    context.close("news".into()).expect("no trap").expect("it is open");
    assert!(said(publish(&mut context, "news", Vec::new())).contains("NoChannel"), "closed in this turn");
    let known = context.list_subscriptions().expect("no trap").expect("a turn");
    assert!(matches!(&known[..], [one] if matches!(one.state, wit::SubscriptionState::Asked)));
    let effects = std::mem::take(&mut context.effects).finish(Vec::new(), Default::default()).expect("whole");
    let places: Vec<_> = effects.channels.iter().map(|change| change.before_output).collect();
    assert_eq!(places, [0, 2], "the close comes behind both outputs");
    let ids: Vec<_> = effects.outputs.iter().map(|output| output.correlation.clone()).collect();
    assert_eq!(ids, [Some(first), Some(asked)]);
    assert_eq!(effects.outputs[0].destination.as_str(), "agent-1");
}

#[test]
fn names_and_sizes_of_a_hostile_guest_are_refused() {
    let mut context = context(1, 0);
    let long = "x".repeat(CHANNEL_NAME_BYTES_MAX + 1);
    for name in ["", "News", "a\0b", "../x", long.as_str()] {
        let refused = [
            said(context.open(name.into(), wit::Access::Open, wit::Overflow::End).expect("no trap")),
            said(context.close(name.into()).expect("no trap")),
            said(publish(&mut context, name, Vec::new())),
            said(context.subscribe("other".into(), name.into(), None).expect("no trap")),
            said(context.subscribe(name.into(), "news".into(), None).expect("no trap")),
            said(context.unsubscribe(name.into(), "news".into()).expect("no trap")),
            said(context.remove_subscriber("news".into(), name.into()).expect("no trap")),
            said(context.list_subscribers(name.into()).expect("no trap")),
        ];
        assert!(refused.iter().all(|error| error.contains("InvalidName")), "{name:?}: {refused:?}");
    }
    let big = vec![0; OUTPUT_PAYLOAD_BYTES_MAX + 1];
    assert!(said(publish(&mut context, "news", big)).contains("TooLarge"));
    let token = Some(vec![0; TOKEN_BYTES_MAX + 1]);
    assert!(
        said(context.subscribe("other".into(), "news".into(), token).expect("no trap")).contains("TooLarge")
    );
    let headers = |count: usize| (0..count).map(|n| (format!("h{n}"), String::new())).collect();
    let with = |headers| wit::PublishOptions { content_type: String::new(), headers };
    let mut publish_with = |options| context.publish("news".into(), Vec::new(), options).expect("no trap");
    assert!(said(publish_with(with(headers(HEADERS_MAX - HOST_HEADERS + 1)))).contains("TooLarge"));
    let forged = vec![("godwit-publication".to_owned(), "9".to_owned())];
    assert!(said(publish_with(with(forged))).contains("InvalidName"));
    publish_with(with(headers(HEADERS_MAX - HOST_HEADERS))).expect("there is room for the host's");
    assert_eq!(context.effects.outputs_len(), 1);
}

#[test]
fn there_is_so_much_of_everything_and_no_more() {
    let channels = (0..CHANNELS_MAX).map(|n| view(&format!("c{n:02}"), 0, 0, Overflow::End)).collect();
    let mut full = context_of(Rows { channels, ..Rows::default() }, Phase::Handle);
    let mut open =
        |name: &str| full.open(name.into(), wit::Access::Open, wit::Overflow::End).expect("no trap");
    assert!(said(open("one-more")).contains("Quota"));
    open("c07").expect("it is open already");

    let mut fast = context(FAN_OUT_MAX as u64 / 2, 0);
    for _ in 0..2 {
        publish(&mut fast, "news", Vec::new()).expect("there is room");
    }
    assert!(said(publish(&mut fast, "news", Vec::new())).contains("Quota"), "more copies than one turn may");

    let mut busy = context(1, SUBSCRIBER_BACKLOG_MAX - 1);
    publish(&mut busy, "news", Vec::new()).expect("just below");
    let mut behind = context(1, SUBSCRIBER_BACKLOG_MAX);
    assert!(said(publish(&mut behind, "news", Vec::new())).contains("Backlogged"));
    let channels = vec![view("news", 1, SUBSCRIBER_BACKLOG_MAX, Overflow::End)];
    let mut ending = context_of(Rows { channels, ..Rows::default() }, Phase::Handle);
    publish(&mut ending, "news", Vec::new()).expect("the slow one ends instead");

    let publish_to = |waiting| {
        let mut context = context_of(Rows { waiting, ..Rows::default() }, Phase::Handle);
        context.publish_to("other".into(), "c".into(), Vec::new(), plain(), Vec::new()).expect("no trap")
    };
    publish_to(SUBSCRIBER_BACKLOG_MAX - 1).expect("just below");
    assert!(said(publish_to(SUBSCRIBER_BACKLOG_MAX)).contains("Backlogged"));

    let mut asking = context_of(Rows::default(), Phase::Handle);
    for number in 0..SUBSCRIPTIONS_MAX.min(OUTPUTS_MAX) {
        asking
            .subscribe("other".into(), format!("c{number}"), None)
            .expect("no trap")
            .expect("there is room");
    }
    assert!(said(asking.subscribe("other".into(), "more".into(), None).expect("no trap")).contains("Quota"));
}

#[test]
fn tokens_are_made_with_the_agents_own_key() {
    let mut context = context(0, 0);
    let rights = wit::Rights::SUBSCRIBE | wit::Rights::DELEGATE;
    let own = EntityKey::from_secret(&[1; 32]).public().0.to_vec();
    let mut issue =
        |channel: &str, bearer: Vec<u8>| context.issue(channel.into(), bearer, rights, 9).expect("no trap");
    assert!(said(issue("other", own.clone())).contains("NoChannel"));
    assert!(said(issue("news", vec![0; 31])).contains("Token"));
    let token = issue("news", own.clone()).expect("it is its channel");
    let read = Token::from_bytes(&token).expect("a token");
    assert!(read.verify().is_ok());
    assert_eq!((read.0[0].link.issued_at, read.0[0].link.owner.as_str()), (Revision(2), "agent-1"));
    let mut pass =
        |rights, until| context.delegate(token.clone(), own.clone(), rights, until).expect("no trap");
    pass(wit::Rights::SUBSCRIBE, 9).expect("it may");
    assert!(said(pass(wit::Rights::PUBLISH, 9)).contains("no-right"));
    assert!(said(pass(wit::Rights::SUBSCRIBE, 10)).contains("no-right"));
    assert!(
        said(context.delegate(b"nonsense".to_vec(), own, rights, 9).expect("no trap"))
            .contains("token-invalid")
    );
    let mut keyless = context_of(
        Rows { channels: vec![view("news", 0, 0, Overflow::End)], ..Rows::default() },
        Phase::Handle,
    );
    let refused = keyless.issue("news".into(), vec![0; 32], rights, 9).expect("no trap");
    assert!(said(refused).contains("NoKey"));
}

#[test]
fn outside_a_turn_nothing_happens() {
    for phase in [Phase::Start, Phase::Snapshot, Phase::Restore, Phase::Query] {
        let channels = vec![view("news", 1, 0, Overflow::End)];
        let mut context = context_of(Rows { channels, ..Rows::default() }, phase);
        let refused = [
            said(context.open("a".into(), wit::Access::Open, wit::Overflow::End).expect("no trap")),
            said(context.close("news".into()).expect("no trap")),
            said(context.revoke("news".into()).expect("no trap")),
            said(publish(&mut context, "news", Vec::new())),
            said(context.subscribe("other".into(), "news".into(), None).expect("no trap")),
            said(context.unsubscribe("other".into(), "news".into()).expect("no trap")),
            said(
                context.publish_to("o".into(), "c".into(), Vec::new(), plain(), Vec::new()).expect("no trap"),
            ),
            said(context.issue("news".into(), vec![0; 32], wit::Rights::PUBLISH, 1).expect("no trap")),
        ];
        assert!(refused.iter().all(|error| error.contains("NotInTurn")), "{refused:?}");
        let listed = context.list_channels().expect("no trap");
        assert_eq!(listed.is_ok(), phase == Phase::Query);
        assert_eq!(context.effects.outputs_len(), 0);
    }
}
