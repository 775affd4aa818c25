//! Permission tokens: whom they let in, to what, and until when.

use bytes::Bytes;

use super::{
    ask, asked, deliver, header, heard, inbox, key, news, pending, publish, scene, sender, state,
    subscribers, token,
};
use crate::channel::token::{Rights, Terms, Token};
use crate::channel::{Access, Ask, ChannelVerb, EndReason, Overflow, Refusal, SubscriptionState};
use crate::lifecycle::Verb;
use crate::output::Sender;
use crate::receipt::BoundaryKind;
use crate::store::Accepted;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{Turn, World, id};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_token_lets_its_bearer_in_and_nobody_else),
        Case::of(a_revoked_or_expired_token_ends_what_stands_on_it),
        Case::of(a_token_publishes_lists_and_removes),
        Case::of(after_a_reset_new_tokens_count_and_old_ones_do_not),
    ]
}

async fn a_token_lets_its_bearer_in_and_nobody_else(world: World) {
    let (owner, one, two) = scene(&world, Access::ByToken, Overflow::Refuse).await;
    let (of_one, of_two) = (key(&one).await, key(&two).await);
    let good = token(&owner, &of_one, Rights::SUBSCRIBE).await;
    assert_eq!(asked(&two, &owner, Ask::Subscribe, None, "none").await, "refused token-needed");
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&good), "stolen").await, "refused token-of-another");
    assert_eq!(subscribers(&owner).await, Vec::<String>::new());
    assert_eq!(asked(&one, &owner, Ask::Subscribe, Some(&good), "good").await, "subscribed");
    assert_eq!(asked(&one, &owner, Ask::Publish, Some(&good), "p").await, "refused no-right");
    // Passed on: only with the right to, and only what one has.
    let terms = Terms { bearer: of_two.public(), rights: Rights::SUBSCRIBE, expires_at_ms: 1 << 60 };
    assert_eq!(good.delegate(&of_one, terms), Err(Refusal::NoRight));
    let wide = token(&owner, &of_one, Rights::SUBSCRIBE.with(Rights::DELEGATE)).await;
    let passed = wide.delegate(&of_one, terms).unwrap();
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&passed), "passed").await, "subscribed");
    assert_eq!(subscribers(&owner).await, ["one", "two"]);
    // Another key's word for the owner's.
    let (row, bearer) = (owner.row().await, of_two.public());
    let terms = Terms { bearer, rights: Rights::SUBSCRIBE, expires_at_ms: u64::MAX };
    let forged = Token::issue(&of_two, (&id("owner"), &news()), (row.generation, row.revision.next()), terms);
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&forged), "forged").await, "refused token-invalid");
    assert_eq!(subscribers(&owner).await, ["one"], "what was refused takes the place of what was there");
    // Without a proof the bearer is nobody.
    let request = ask("owner", Ask::Subscribe, Some(&passed), "unproven");
    two.turn(Turn::ends([]).channel_output(request)).await;
    let stored = pending(&two).await.remove(0);
    let keyless = Sender { key: None, ..sender(&two).await };
    let new = stored.delivery(&keyless, stored.number, 1);
    assert_eq!(owner.store().accept(new, owner.owner.incarnation).await, Ok(Accepted::Answered));
    assert_eq!(subscribers(&owner).await, ["one"]);
}

async fn a_revoked_or_expired_token_ends_what_stands_on_it(world: World) {
    let (owner, one, two) = scene(&world, Access::ByToken, Overflow::Refuse).await;
    let old = token(&owner, &key(&one).await, Rights::SUBSCRIBE).await;
    assert_eq!(asked(&one, &owner, Ask::Subscribe, Some(&old), "r").await, "subscribed");
    publish(&owner, "seen").await;
    owner.turn(Turn::ends([]).channel(ChannelVerb::Revoke { channel: news() })).await;
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["subscribed", "seen", "ended revoked"]);
    assert_eq!(state(&one).await, Some(SubscriptionState::Ended(EndReason::Revoked)));
    assert_eq!(asked(&one, &owner, Ask::Subscribe, Some(&old), "again").await, "refused token-revoked");
    let new = token(&owner, &key(&one).await, Rights::SUBSCRIBE).await;
    assert_eq!(asked(&one, &owner, Ask::Subscribe, Some(&new), "new").await, "subscribed");
    // One that has expired already lets nobody in.
    let row = owner.row().await;
    let terms = Terms { bearer: key(&two).await.public(), rights: Rights::SUBSCRIBE, expires_at_ms: 1 };
    let expired = Token::issue(
        &key(&owner).await,
        (&id("owner"), &news()),
        (row.generation, row.revision.next()),
        terms,
    );
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&expired), "r").await, "refused token-expired");
    // Time passes over one that had let somebody in.
    let now_ms = inbox(&one).await[0].input.accepted_at_ms;
    let soon =
        Terms { bearer: key(&two).await.public(), rights: Rights::SUBSCRIBE, expires_at_ms: now_ms + 60_000 };
    let soon = Token::issue(
        &key(&owner).await,
        (&id("owner"), &news()),
        (row.generation, owner.row().await.revision.next()),
        soon,
    );
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&soon), "soon").await, "subscribed");
    world.clock.advance(std::time::Duration::from_secs(61));
    publish(&owner, "later").await;
    deliver(&owner, &two).await;
    assert_eq!(heard(&two).await.pop().unwrap(), "ended expired");
    assert_eq!(subscribers(&owner).await, ["one"]);
}

async fn a_token_publishes_lists_and_removes(world: World) {
    let (owner, one, two) = scene(&world, Access::Open, Overflow::Refuse).await;
    asked(&one, &owner, Ask::Subscribe, None, "r").await;
    let all = token(&owner, &key(&two).await, Rights::PUBLISH.with(Rights::ADMIN)).await;
    let mut request = ask("owner", Ask::Publish, Some(&all), "p");
    request.payload = Bytes::from("from two");
    two.turn(Turn::ends([]).channel_output(request)).await;
    deliver(&two, &owner).await;
    deliver(&owner, &one).await;
    deliver(&owner, &two).await;
    assert_eq!(heard(&one).await, ["subscribed", "from two"]);
    let event = inbox(&one).await.pop().unwrap();
    assert_eq!(header(&event, crate::channel::PUBLISHER_HEADER), "two");
    assert_eq!(event.input.correlation.as_deref(), Some("p"));
    assert_eq!(heard(&two).await, ["published"]);
    assert_eq!(asked(&two, &owner, Ask::List, Some(&all), "l").await, "subscribers");
    assert_eq!(inbox(&two).await.pop().unwrap().input.payload, Bytes::from("one\n"));
    let remove = Ask::Remove { agent: id("one") };
    assert_eq!(asked(&two, &owner, remove, Some(&all), "x").await, "removed");
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await.pop().unwrap(), "ended removed");
    assert_eq!(subscribers(&owner).await, Vec::<String>::new());
}

async fn after_a_reset_new_tokens_count_and_old_ones_do_not(world: World) {
    let (owner, one, two) = scene(&world, Access::ByToken, Overflow::Refuse).await;
    publish(&owner, "for nobody").await;
    owner.turn(Turn::ends([]).channel(ChannelVerb::Revoke { channel: news() })).await;
    let old = token(&owner, &key(&one).await, Rights::SUBSCRIBE).await;
    assert_eq!(asked(&one, &owner, Ask::Subscribe, Some(&old), "r1").await, "subscribed");
    owner.verb(&Verb::Reset).await.unwrap();
    let owner = owner.site.take(&id("owner")).await;
    owner.turn(Turn::of(BoundaryKind::Init)).await;
    let new = token(&owner, &key(&two).await, Rights::SUBSCRIBE).await;
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&new), "r2").await, "subscribed");
    publish(&owner, "anew").await;
    assert_eq!(subscribers(&owner).await, ["two"]);
    deliver(&owner, &one).await;
    assert_eq!(heard(&one).await, ["subscribed", "ended revoked"]);
    assert_eq!(asked(&one, &owner, Ask::Subscribe, Some(&old), "r3").await, "refused token-revoked");
    // It can be revoked as before.
    owner.turn(Turn::ends([]).channel(ChannelVerb::Revoke { channel: news() })).await;
    assert_eq!(asked(&two, &owner, Ask::Subscribe, Some(&new), "r4").await, "refused token-revoked");
}
