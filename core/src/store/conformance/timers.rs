//! Timers: set and cancelled with a boundary, due for who may fire them, fired once.

use std::time::Duration;

use crate::id::{Generation, InputId, Revision, Seq};
use crate::input::{InputState, Kind, Source};
use crate::lifecycle::Verb;
use crate::limits::INBOX_INPUTS_MAX;
use crate::migration::Phase;
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Desk, Site, TTL, Turn, World, done, id, is_fenced, is_not_home, message, picture,
};
use crate::store::conformance::journey::Journey;
use crate::store::conformance::{Case, START_MS};
use crate::store::{AcceptError, BrokenReason, Row, RowKey, Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_timer_is_set_with_its_boundary),
        Case::of(a_later_setting_replaces_and_a_cancel_removes),
        Case::of(a_refused_boundary_sets_nothing),
        Case::of(due_timers_come_earliest_first),
        Case::of(a_timer_fires_once),
        Case::of(a_timer_set_anew_is_another_timer),
        Case::of(only_the_owner_fires),
        Case::of(timers_are_due_for_who_may_own_the_agent),
        Case::of(timers_of_agents_that_take_nothing_are_not_due),
        Case::of(a_full_inbox_leaves_the_timer),
        Case::of(timers_survive_reopening),
        Case::of(timers_move_with_their_agent),
        Case::of(a_fired_timer_does_not_arrive_again),
    ]
}

/// An owned agent whose boundary 1 has set `early` to 10 ms and `late` to 20 ms after the start.
async fn sleeper(site: &Site) -> Desk {
    let desk = site.own("agent").await;
    let turn = Turn::of(BoundaryKind::Init)
        .timer("late", Some((START_MS + 20, "later")))
        .timer("early", Some((START_MS + 10, "sooner")));
    desk.turn(turn).await;
    desk
}

async fn names(desk: &Desk) -> Vec<(String, u64, u64)> {
    let timers = desk.store().timers(desk.agent()).await.unwrap();
    timers.into_iter().map(|timer| (timer.name, timer.revision.0, timer.timer.at_ms - START_MS)).collect()
}

async fn due(site: &Site, after_ms: u64, limit: usize) -> Vec<(String, u64)> {
    let due = site.store.due_timers(site.incarnation, START_MS + after_ms, limit).await.unwrap();
    due.into_iter().map(|timer| (timer.name, timer.at_ms - START_MS)).collect()
}

fn named(name: &str, number: u64) -> (String, u64) {
    (name.to_owned(), number)
}

async fn a_timer_is_set_with_its_boundary(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    let stored = desk.store().timers(desk.agent()).await.unwrap();
    assert_eq!(names(&desk).await, [("early".to_owned(), 1, 10), ("late".to_owned(), 1, 20)]);
    assert_eq!((stored[0].generation, stored[0].revision), (Generation(1), Revision(1)));
    assert_eq!(stored[0].timer.payload, "sooner");
    assert_eq!(desk.store().timers(&id("nobody")).await, Ok(vec![]));
    let other = site.own("other").await;
    assert_eq!(names(&other).await, [], "nothing of one agent shows under another");
}

async fn a_later_setting_replaces_and_a_cancel_removes(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    let turn = Turn::ends([]).timer("early", Some((START_MS + 30, "x"))).timer("late", None);
    desk.turn(turn.timer("unknown", None)).await;
    assert_eq!(names(&desk).await, [("early".to_owned(), 2, 30)]);
    let fired = desk.store().fire_timer(&desk.owner, "late", Revision(1)).await;
    assert_eq!(fired, Ok(None), "a cancelled timer does not fire");
    assert_eq!(desk.row().await.open_inputs, 0);
}

async fn a_refused_boundary_sets_nothing(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    let before = picture(desk.store(), desk.agent()).await;
    let mut unit = desk.chain().await.turn(Turn::ends([]).timer("new", Some((START_MS, "")))).unit();
    unit.base = Revision(0);
    let outcome = desk.commit(unit).await;
    assert_eq!(outcome.committed, 0);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn due_timers_come_earliest_first(world: World) {
    let site = world.site("a").await;
    assert_eq!(site.store.next_timer_at(site.incarnation).await, Ok(None));
    sleeper(&site).await;
    let other = site.own("other").await;
    other.turn(Turn::of(BoundaryKind::Init).timer("middle", Some((START_MS + 15, "")))).await;
    assert_eq!(site.store.next_timer_at(site.incarnation).await, Ok(Some(START_MS + 10)));
    assert_eq!(due(&site, 9, 9).await, []);
    assert_eq!(due(&site, 10, 9).await, [named("early", 10)]);
    assert_eq!(due(&site, 99, 9).await, [named("early", 10), named("middle", 15), named("late", 20)]);
    assert_eq!(due(&site, 99, 2).await, [named("early", 10), named("middle", 15)]);
    let of_all = site.store.due_timers(site.incarnation, START_MS + 99, 9).await.unwrap();
    assert_eq!(of_all[1].agent, *other.agent());
    assert_eq!(of_all[1].revision, Revision(1));
}

async fn a_timer_fires_once(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    world.clock.advance(Duration::from_secs(1));
    let revision = desk.row().await.revision;
    for _ in 0..3 {
        let fired = desk.store().fire_timer(&desk.owner, "early", Revision(1)).await;
        assert_eq!(fired, Ok(Some(Seq(1))));
    }
    let inputs = desk.store().inputs(desk.agent(), None, ALL).await.unwrap();
    let [fired] = inputs.as_slice() else { panic!("{inputs:?}") };
    assert_eq!(fired.input.id, InputId::of_timer(desk.agent(), Generation(1), "early", Revision(1)));
    assert_eq!((&fired.input.kind, &fired.input.source), (&Kind::Timer, &Source::System));
    assert_eq!((fired.state, fired.attempts), (InputState::Queued, 0));
    assert_eq!((fired.accepted_by, fired.input.accepted_at_ms), (site.incarnation, START_MS + 1_000));
    assert_eq!(fired.input.payload, "sooner");
    let header = |name: &str, value: String| (name.to_owned(), value);
    let at_ms = (START_MS + 10).to_string();
    let headers = [header("godwit-timer", "early".into()), header("godwit-timer-at-ms", at_ms)];
    assert_eq!(fired.input.headers, headers);
    assert_eq!(names(&desk).await, [("late".to_owned(), 1, 20)]);
    assert_eq!(desk.row().await.revision, revision, "no boundary");
    assert_eq!(due(&site, 99, 9).await, [named("late", 20)]);
    desk.turn(Turn::ends(&inputs)).await;
    let again = desk.store().fire_timer(&desk.owner, "early", Revision(1)).await;
    assert_eq!((again, desk.row().await.open_inputs), (Ok(Some(Seq(1))), 0), "nor after its turn");
}

async fn a_timer_set_anew_is_another_timer(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    desk.turn(Turn::ends([]).timer("early", Some((START_MS + 10, "sooner")))).await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(desk.store().fire_timer(&desk.owner, "early", Revision(1)).await, Ok(None));
    assert_eq!(desk.store().fire_timer(&desk.owner, "unknown", Revision(1)).await, Ok(None));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    assert_eq!(desk.store().fire_timer(&desk.owner, "early", Revision(2)).await, Ok(Some(Seq(1))));
    desk.turn(Turn::ends([]).timer("early", Some((START_MS + 10, "sooner")))).await;
    assert_eq!(desk.store().fire_timer(&desk.owner, "early", Revision(2)).await, Ok(Some(Seq(1))));
    assert_eq!(names(&desk).await.len(), 2, "the new one still waits");
    assert_eq!(desk.store().fire_timer(&desk.owner, "early", Revision(3)).await, Ok(Some(Seq(2))));
}

async fn only_the_owner_fires(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    let before = picture(desk.store(), desk.agent()).await;
    let mut stale = desk.owner.clone();
    stale.token.0 -= 1;
    let mut other = desk.owner.clone();
    other.incarnation.0 += 1;
    let mut earlier = desk.owner.clone();
    earlier.generation.0 += 1;
    for owner in [stale, other, earlier] {
        let fired = desk.store().fire_timer(&owner, "early", Revision(1)).await;
        assert!(matches!(&fired, Err(AcceptError::Store(error)) if is_fenced(error)), "{fired:?}");
    }
    let nobody = crate::store::Owner { agent: id("nobody"), ..desk.owner.clone() };
    let fired = desk.store().fire_timer(&nobody, "early", Revision(1)).await;
    assert_eq!(fired, Err(AcceptError::Store(StoreError::NoAgent)));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn timers_are_due_for_who_may_own_the_agent(world: World) {
    let one = world.shared_site("a").await;
    let two = one.beside(2).await;
    let desk = sleeper(&one).await;
    assert_eq!(due(&one, 10, 9).await, [named("early", 10)]);
    assert_eq!(due(&two, 10, 9).await, [], "another holds it");
    assert_eq!(two.store.next_timer_at(two.incarnation).await, Ok(None));
    world.clock.advance(TTL + Duration::from_secs(1));
    two.store.heartbeat(two.incarnation).await.unwrap();
    assert_eq!(due(&two, 10, 9).await, [], "expired is not dead");
    two.store.bury_expired().await.unwrap();
    assert_eq!(due(&two, 10, 9).await, [named("early", 10)], "its session is dead");
    let taken = two.take(desk.agent()).await;
    assert_eq!(taken.store().fire_timer(&taken.owner, "early", Revision(1)).await, Ok(Some(Seq(1))));
    taken.store().release(&taken.owner).await.unwrap();
    let three = one.beside(3).await;
    assert_eq!(due(&three, 99, 9).await, [named("late", 20)], "nobody holds it");
}

async fn timers_of_agents_that_take_nothing_are_not_due(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    desk.verb(&Verb::Break(BrokenReason::Corrupt { what: "a row".into() })).await.unwrap();
    assert_eq!(due(&site, 99, 9).await, []);
    assert_eq!(site.store.next_timer_at(site.incarnation).await, Ok(None));
    desk.verb(&Verb::Recover).await.unwrap();
    assert_eq!(due(&site, 99, 9).await.len(), 2);
}

async fn a_full_inbox_leaves_the_timer(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    for chunk in 0..INBOX_INPUTS_MAX.div_ceil(500) {
        let mut chain = desk.chain().await;
        for number in 0..500.min(INBOX_INPUTS_MAX - chunk * 500) {
            chain = chain.accept(message(desk.agent(), &format!("{chunk} {number}")));
        }
        let unit = chain.unit();
        let steps = unit.steps.len();
        assert_eq!(desk.commit(unit).await, done(steps));
    }
    let fired = desk.store().fire_timer(&desk.owner, "early", Revision(1)).await;
    let bytes = desk.row().await.open_bytes;
    assert_eq!(fired, Err(AcceptError::Busy { depth: INBOX_INPUTS_MAX, bytes }));
    assert_eq!(names(&desk).await.len(), 2);
    assert_eq!(due(&site, 99, 9).await, [], "not due while there is no room");
    assert_eq!(site.store.next_timer_at(site.incarnation).await, Ok(None));
}

async fn timers_survive_reopening(world: World) {
    let site = world.site("a").await;
    let desk = sleeper(&site).await;
    let stored = desk.store().timers(desk.agent()).await.unwrap();
    let agent = desk.agent().clone();
    drop(desk);
    let host = site.host;
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.timers(&agent).await, Ok(stored));
    let site = Site::join(store, host).await;
    assert_eq!(due(&site, 10, 9).await, [named("early", 10)]);
}

async fn timers_move_with_their_agent(world: World) {
    let journey = Journey::furnished(&world).await;
    let turn = Turn::ends([]).timer("kept", Some((START_MS + 5, "k"))).timer("gone", Some((START_MS, "g")));
    journey.from.turn(turn).await;
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    let sent = first.last().unwrap().change;
    journey.receive(first).await;
    assert_eq!(due(&journey.to, 99, 9).await, [], "a copy wakes nobody");
    journey.from.turn(Turn::ends([]).timer("gone", None).timer("kept", Some((START_MS + 7, "k")))).await;
    let waiting = journey.from.store().timers(journey.agent()).await.unwrap();
    let frames = journey.export(sent).await;
    let gone = Row::Deleted(RowKey::Timer("gone".to_owned()));
    assert!(frames.iter().any(|frame| frame.row == gone), "{frames:?}");
    let granted = journey.begin().await.granted;
    let fired = journey.from.store().fire_timer(&journey.from.owner, "kept", waiting[0].revision).await;
    assert!(matches!(&fired, Err(AcceptError::Store(error)) if is_not_home(error)), "{fired:?}");
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    assert_eq!(due(&journey.to, 99, 9).await, [], "nor does a prepared one");
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    assert_eq!(desk.store().timers(desk.agent()).await, Ok(waiting.clone()));
    let kept = waiting.iter().find(|timer| timer.name == "kept").unwrap();
    let fired = desk.store().fire_timer(&desk.owner, "kept", kept.revision).await;
    assert!(matches!(fired, Ok(Some(_))), "{fired:?}");
}

async fn a_fired_timer_does_not_arrive_again(world: World) {
    let journey = Journey::furnished(&world).await;
    journey.from.turn(Turn::ends([]).timer("t", Some((START_MS, "")))).await;
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    let sent = first.last().unwrap().change;
    let revision = journey.from.row().await.revision;
    let fired = journey.from.store().fire_timer(&journey.from.owner, "t", revision).await;
    assert!(matches!(fired, Ok(Some(_))), "{fired:?}");
    let second = journey.export(sent).await;
    // Late, and the newer round before the older one.
    journey.receive(second.clone()).await;
    journey.receive(first).await;
    let granted = journey.begin().await.granted;
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    let names: Vec<String> = names(&desk).await.into_iter().map(|(name, ..)| name).collect();
    assert!(!names.contains(&"t".to_owned()), "{names:?}");
    let again = desk.store().fire_timer(&desk.owner, "t", revision).await;
    assert_eq!(again, fired);
}
