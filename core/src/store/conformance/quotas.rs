//! What agents may fill: their inboxes in bytes, their rows in number and bytes. What does not fit leaves everything as it was.

use crate::id::{Revision, Seq};
use crate::limits::{EVENTS_KEPT, Quotas};
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{ALL, Site, Turn, World, done, host, message, picture};
use crate::store::conformance::{Case, Opening};
use crate::store::{AcceptError, AgentRow, Sharing, UnitFailure};

/// Little enough to be reached with a few rows.
const SMALL: Quotas = Quotas {
    inbox_inputs_max: 10,
    inbox_bytes_max: 300,
    state_keys_max: 3,
    state_bytes_max: 100,
    store_bytes_max: None,
    events_kept: EVENTS_KEPT,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_inbox_is_bounded_in_bytes),
        Case::of(rows_are_bounded_in_number),
        Case::of(rows_are_bounded_in_bytes),
        Case::of(counters_follow_the_rows),
    ]
}

async fn small(world: &World, name: &str) -> Site {
    let opening = Opening { sharing: Sharing::Exclusive, clock: world.clock.clone(), quotas: SMALL };
    Site::join(world.factory.open(name, opening).await, host(1)).await
}

fn sizes(row: &AgentRow) -> (u64, u64, u64) {
    (row.open_bytes, row.state_keys, row.state_bytes)
}

async fn an_inbox_is_bounded_in_bytes(world: World) {
    let site = small(&world, "quotas-inbox").await;
    let desk = site.own("agent").await;
    let body = "x".repeat(200);
    let first = desk.accept(&body).await;
    assert_eq!(desk.row().await.open_bytes, first.input.bytes());
    let second = desk.accept(&body).await;
    let bytes = first.input.bytes() + second.input.bytes();
    let busy = AcceptError::Busy { depth: 2, bytes };
    let refused = site.store.accept(message(desk.agent(), "late"), site.incarnation).await;
    assert_eq!(refused, Err(busy.clone()));
    let unit = desk.chain().await.accept(message(desk.agent(), "late")).unit();
    assert_eq!(desk.commit(unit).await.failure, Some(UnitFailure::Refused(busy)));
    // One that is known is known all the same.
    let again = site.store.accept(message(desk.agent(), &body), site.incarnation).await;
    assert!(again.is_err(), "a new id of the same body is another input: {again:?}");
    assert_eq!(desk.row().await.next_seq, Seq(3), "a refusal takes no number");
    desk.turn(Turn::ends([&first])).await;
    assert_eq!(desk.row().await.open_bytes, second.input.bytes());
    desk.accept("now there is room").await;
}

async fn rows_are_bounded_in_number(world: World) {
    let site = small(&world, "quotas-keys").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::ends([]).state("a", Some("1")).state("b", Some("2")).state("c", Some("3"))).await;
    let input = desk.accept("one more").await;
    let before = picture(desk.store(), desk.agent()).await;
    let unit = desk.chain().await.turn(Turn::ends([&input]).state("d", Some("4"))).unit();
    let outcome = desk.commit(unit).await;
    match outcome.failure {
        Some(UnitFailure::Quota { what }) => assert!(what.contains("4 rows, and may be 3"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(outcome.committed, 0);
    assert_eq!(picture(desk.store(), desk.agent()).await, before, "nothing of it is there");
    // In the place of another it fits, and what is there can be written anew.
    let turn = Turn::ends([&input]).state("a", None).state("d", Some("4")).state("b", Some("5"));
    assert_eq!(desk.commit(desk.chain().await.turn(turn).unit()).await, done(1));
    assert_eq!(site.store.state_keys(desk.agent(), "", None, 9).await.unwrap(), ["b", "c", "d"]);
}

async fn rows_are_bounded_in_bytes(world: World) {
    let site = small(&world, "quotas-bytes").await;
    let desk = site.own("agent").await;
    let (half, most) = ("x".repeat(48), "x".repeat(51));
    // A chain commits the steps before the one that does not fit.
    let chain = desk.chain().await.turn(Turn::ends([]).state("a", Some(&half)));
    let chain = chain.turn(Turn::of(BoundaryKind::Turn).state("b", Some(&most)));
    let outcome = desk.commit(chain.unit()).await;
    assert_eq!(outcome.committed, 1);
    match outcome.failure {
        Some(UnitFailure::Quota { what }) => assert!(what.contains("101 bytes, and may be 100"), "{what}"),
        other => panic!("{other:?}"),
    }
    let row = desk.row().await;
    assert_eq!((row.revision, sizes(&row)), (Revision(1), (0, 1, 49)));
    desk.turn(Turn::ends([]).state("b", Some(&"x".repeat(50)))).await;
    assert_eq!(sizes(&desk.row().await), (0, 2, 100));
}

async fn counters_follow_the_rows(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let first = desk.accept("0123456789").await;
    desk.accept("01234").await;
    let turn = Turn::ends([&first]).state("äö", Some("value")).state("b", Some("")).state("c", Some("x"));
    desk.turn(turn).await;
    let open = site.store.open_inputs(desk.agent(), ALL).await.unwrap();
    let open_bytes: u64 = open.iter().map(|stored| stored.input.bytes()).sum();
    assert_eq!(sizes(&desk.row().await), (open_bytes, 3, 9 + 1 + 2), "keys in bytes, not letters");
    desk.turn(Turn::ends([]).state("äö", Some("longer value")).state("c", None).state("none", None)).await;
    assert_eq!(sizes(&desk.row().await), (open_bytes, 2, 16 + 1));
    let agent = desk.agent().clone();
    site.store
        .abandon(&agent, open[0].input.id, open[0].state, crate::input::AbandonReason::Cancelled)
        .await
        .unwrap();
    assert_eq!(sizes(&desk.row().await), (0, 2, 17));
    desk.verb(&crate::lifecycle::Verb::Reset).await.unwrap();
    assert_eq!(sizes(&site.store.agent(&agent).await.unwrap().unwrap()), (0, 0, 0));
}
