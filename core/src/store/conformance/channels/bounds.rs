//! What may wait for a subscriber, and for whoever asks.

use super::{
    ask, asked, deliver, header, key, key_of, news, open, pending, publication, publish, scene, state,
    subscribers, token,
};
use crate::channel::token::Rights;
use crate::channel::{
    Access, Ask, ChannelDelivery, ChannelMessage, ChannelRequest, END_HEADER, EndReason, Overflow,
    REASON_HEADER, SubscriptionState,
};
use crate::input::NewInput;
use crate::limits::{FAN_OUT_MAX, RECEIVER_BACKLOG_MAX, SUBSCRIBER_BACKLOG_MAX};
use crate::output::StoredOutput;
use crate::store::conformance::Case;
use crate::store::conformance::edges::under_its_key;
use crate::store::conformance::fixture::{Desk, Turn, World, delivery, id, picture};
use crate::store::{AcceptError, Accepted, OutputEnd, OutputKey, Page};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(who_does_not_keep_up_ends_visibly),
        Case::of(publications_of_one_turn_go_as_far_as_each_has_room),
        Case::of(requests_wait_behind_what_waits),
        Case::of(deliveries_of_one_transaction_become_no_more_copies_than_a_turn),
    ]
}

/// A turn that publishes so many times.
fn busy(times: u64) -> Turn {
    (0..times).fold(Turn::ends([]), |turn, n| turn.channel_output(publication("owner", &n.to_string())))
}

async fn who_does_not_keep_up_ends_visibly(world: World) {
    let (owner, one, _) = scene(&world, Access::Open, Overflow::End).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    owner.turn(busy(SUBSCRIBER_BACKLOG_MAX)).await;
    assert_eq!(subscribers(&owner).await, ["one"], "at the bound, not above it");
    let view = owner.store().channels(owner.agent(), None).await.unwrap().remove(0);
    assert_eq!(view.backlog, SUBSCRIBER_BACKLOG_MAX);
    publish(&owner, "too much").await;
    assert_eq!(subscribers(&owner).await, Vec::<String>::new());
    assert_eq!(
        pending(&owner).await.len() as u64,
        SUBSCRIBER_BACKLOG_MAX + 1,
        "all that waited, and the end"
    );
    deliver(&owner, &one).await;
    assert_eq!(heard_last(&one).await, "ended lagging");
    assert_eq!(state(&one).await, Some(SubscriptionState::Ended(EndReason::Lagging)));
    // A channel that refuses leaves that to whoever publishes, up to twice as much.
    owner.turn(Turn::ends([]).channel(open(Access::Open, Overflow::Refuse))).await;
    one.turn(Turn::ends([]).channel_output(ask("owner", Ask::Subscribe, None, "again"))).await;
    assert_eq!(deliver(&one, &owner).await, [Ok(Accepted::Answered)]);
    deliver(&owner, &one).await;
    owner.turn(busy(RECEIVER_BACKLOG_MAX)).await;
    assert_eq!(subscribers(&owner).await, ["one"]);
    publish(&owner, "too much").await;
    assert_eq!(subscribers(&owner).await, Vec::<String>::new());
}

async fn publications_of_one_turn_go_as_far_as_each_has_room(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::End).await;
    asked(&one, &owner, Ask::Subscribe, None, "r1").await;
    owner.turn(busy(SUBSCRIBER_BACKLOG_MAX - 2)).await;
    asked(&two, &owner, Ask::Subscribe, None, "r2").await;
    let before = pending(&owner).await.last().unwrap().position;
    owner.turn(busy(4)).await;
    let mut of_turn = pending(&owner).await;
    of_turn.retain(|stored| stored.position > before);
    let said = |stored: &StoredOutput| {
        format!("{} {}", stored.output.destination, String::from_utf8_lossy(&stored.output.payload))
    };
    let said: Vec<String> = of_turn.iter().map(said).collect();
    assert_eq!(said, ["one 0", "two 0", "one 1", "two 1", "one ", "two 2", "two 3"]);
    assert_eq!(subscribers(&owner).await, ["two"]);
    // The answers to the requests come first.
    let (first, numbers) = (SUBSCRIBER_BACKLOG_MAX, of_turn.iter().map(|stored| stored.number));
    assert_eq!(numbers.collect::<Vec<_>>(), [first, 2, first + 1, 3, first + 2, 4, 5]);
    let view = owner.store().channels(owner.agent(), None).await.unwrap().remove(0);
    assert_eq!((view.backlog, view.channel.next_publication), (4, SUBSCRIBER_BACKLOG_MAX + 3));
    // All but the second one of `two` have arrived: what is named is what goes.
    let ends: Vec<(OutputKey, OutputEnd)> =
        [1, 5, 6].map(|at| (key_of(&of_turn[at]), OutputEnd::Acknowledged)).into();
    owner.store().end_outputs(&owner.owner, &ends).await.unwrap();
    let mut left = pending(&owner).await;
    left.retain(|stored| stored.output.destination.as_str() == "two");
    assert_eq!(left, of_turn[3..4]);
    owner.store().end_outputs(&owner.owner, &ends).await.unwrap();
    let view = owner.store().channels(owner.agent(), None).await.unwrap().remove(0);
    assert_eq!(view.backlog, 1, "what has ended counts once");
}

async fn heard_last(desk: &Desk) -> String {
    let last = desk.row().await.next_seq.0 - 2;
    let page = Page { after: last, limit: 1 };
    let input = desk.store().inputs(desk.agent(), None, page).await.unwrap().pop().unwrap();
    format!("{} {}", header(&input, END_HEADER), header(&input, REASON_HEADER))
}

async fn requests_wait_behind_what_waits(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    owner.turn(busy(RECEIVER_BACKLOG_MAX)).await;
    one.turn(Turn::ends([]).channel_output(ask("owner", Ask::Unsubscribe, None, "u"))).await;
    let before = picture(owner.store(), owner.agent()).await;
    let refused = deliver(&one, &owner).await;
    assert!(matches!(refused[..], [Err(AcceptError::Busy { .. })]), "{refused:?}");
    assert_eq!(picture(owner.store(), owner.agent()).await, before);
    assert_eq!(asked(&two, &owner, Ask::Subscribe, None, "r").await, "subscribed", "others do not");
    let all = token(&owner, &key(&two).await, Rights::PUBLISH).await;
    assert_eq!(asked(&two, &owner, Ask::Publish, Some(&all), "p").await, "refused backlogged");
    deliver(&owner, &one).await;
    assert_eq!(deliver(&one, &owner).await, [Ok(Accepted::Answered)]);
}

/// A request to the owner that nobody waits to be answered.
fn request_of(origin: &str, number: u64, what: Ask) -> NewInput {
    let mut new = delivery(&id("owner"), origin, (1, 1), number, 1);
    let message = ChannelMessage::Request(ChannelRequest { channel: news(), ask: what, token: None });
    new.delivery.as_mut().unwrap().channel = Some(Box::new(ChannelDelivery { message, proof: None }));
    new
}

async fn deliveries_of_one_transaction_become_no_more_copies_than_a_turn(world: World) {
    const SUBSCRIBERS: usize = 100;
    const FIT: usize = FAN_OUT_MAX / SUBSCRIBERS;
    let (owner, _, _) = scene(&world, Access::Open, Overflow::End).await;
    let by = owner.owner.incarnation;
    let subscribe = |number| request_of(&format!("s{number}"), 1, Ask::Subscribe);
    let accepted = owner.store().accept_deliveries((0..SUBSCRIBERS).map(subscribe).collect(), by).await;
    assert!(accepted.iter().all(|accepted| *accepted == Ok(Accepted::Answered)), "{accepted:?}");
    let mut asking = Vec::new();
    for number in 1..=FIT as u64 + 2 {
        asking.push(under_its_key(owner.store(), request_of("owner", number, Ask::Publish)).await);
    }
    let accepted = owner.store().accept_deliveries(asking.clone(), by).await;
    assert!(accepted[..FIT].iter().all(|accepted| *accepted == Ok(Accepted::Answered)), "{accepted:?}");
    let more = &accepted[FIT..];
    assert!(matches!(more, [Err(AcceptError::Busy { .. }), Err(AcceptError::Gap { .. })]), "{more:?}");
    assert_eq!(owner.row().await.pending_outputs, FAN_OUT_MAX as u64);
    let again = owner.store().accept_deliveries(asking[FIT..].to_vec(), by).await;
    assert_eq!(again, [Ok(Accepted::Answered), Ok(Accepted::Answered)]);
}
