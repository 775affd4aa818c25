//! The place of an event among those of its agent: counted in its row, without gaps, wherever it is at home; and the labels
//! that it had then.

use std::collections::BTreeMap;

use crate::event::{Event, EventKind, EventPlace, NewEvent};
use crate::id::Generation;
use crate::lifecycle::{BrokenReason, Lifecycle, LifecycleCommit, SuspendReason, Verb};
use crate::limits::{PAGE_MAX, Quotas};
use crate::migration::Phase;
use crate::store::conformance::fixture::{Desk, Site, Store, World, host, id, new_agent};
use crate::store::conformance::journey::Journey;
use crate::store::conformance::{Case, Opening, START_MS};
use crate::store::{RuntimeStore, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(each_change_of_life_and_lease_is_one_event_in_order),
        Case::of(the_count_goes_on_over_generations_and_restarts),
        Case::of(what_happens_where_an_agent_is_not_at_home_has_no_place),
        Case::of(the_count_moves_with_the_agent),
        Case::of(an_aborted_handoff_leaves_no_gap),
        Case::of(labels_are_those_of_the_moment),
        Case::of(events_of_an_agent_are_read_after_a_number),
        Case::of(old_events_go_and_the_newest_stay),
        Case::of(a_restore_begins_above_all_numbers_given),
        Case::of(who_waits_is_told_of_the_newest_event),
    ]
}

/// All events of an agent that have a place.
async fn placed(store: &dyn RuntimeStore, agent: &str) -> Vec<Event> {
    store.agent_events(&id(agent), 0, PAGE_MAX).await.unwrap()
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.event.kind).collect()
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| event.place).map(|place| place.number).collect()
}

fn generations(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| event.place).map(|place| place.generation.0).collect()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The desk of the agent as it stands: verbs raise the token.
async fn again(site: &Site, desk: &Desk) -> Desk {
    site.take(desk.agent()).await
}

async fn each_change_of_life_and_lease_is_one_event_in_order(world: World) {
    let site = world.site("a").await;
    let mut desk = site.own("agent").await;
    let broken = || Verb::Break(BrokenReason::Corrupt { what: "a row".into() });
    let tour = [
        Verb::Pause,
        Verb::Resume,
        broken(),
        Verb::Recover,
        Verb::Respawn,
        Verb::Suspend(SuspendReason::Restored),
        Verb::Resume,
        Verb::Reset,
        Verb::Retire,
        Verb::Drained,
        Verb::Resume,
    ];
    for verb in &tour {
        desk.verb(verb).await.unwrap();
        desk = again(&site, &desk).await;
    }
    // What is repeated, or changes nothing, is no event.
    desk.verb(&Verb::Resume).await.unwrap();
    site.store.release(&desk.owner).await.unwrap();
    site.store.release(&desk.owner).await.unwrap();
    let desk = again(&site, &desk).await;
    desk.verb(&Verb::Delete).await.unwrap();
    assert_eq!(site.store.recreate(new_agent("agent", "plain")).await, Ok(true));
    assert_eq!(site.store.recreate(new_agent("agent", "plain")).await, Ok(false));
    use EventKind::*;
    let expected = [
        AgentCreated,
        LeaseAcquired,
        AgentPaused,
        AgentResumed,
        AgentBroken,
        AgentRecovered,
        LeaseAcquired,
        AgentRespawned,
        AgentSuspended,
        LeaseAcquired,
        AgentResumed,
        LeaseAcquired,
        AgentReset,
        AgentRetiring,
        AgentRetired,
        AgentResumed,
        LeaseReleased,
        LeaseAcquired,
        AgentDeleted,
        AgentCreated,
    ];
    let events = placed(site.store.as_ref(), "agent").await;
    assert_eq!(kinds(&events), expected);
    assert_eq!(numbers(&events), (1..=expected.len() as u64).collect::<Vec<_>>());
    assert!(
        events.is_sorted_by_key(|event| (event.seq, event.place)),
        "the same order in the store and for the agent"
    );
    let row = site.store.agent(&id("agent")).await.unwrap().unwrap();
    assert_eq!(row.next_event, expected.len() as u64 + 1);
}

async fn the_count_goes_on_over_generations_and_restarts(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.verb(&Verb::Reset).await.unwrap();
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let site = Site::join(store, site.host).await;
    let desk = site.take(&id("agent")).await;
    desk.verb(&Verb::Pause).await.unwrap();
    let events = placed(site.store.as_ref(), "agent").await;
    assert_eq!(numbers(&events), [1, 2, 3, 4, 5, 6]);
    // The grant is the last of the old generation; what the reset made comes in the new one.
    assert_eq!(generations(&events), [1, 1, 1, 2, 2, 2]);
}

async fn what_happens_where_an_agent_is_not_at_home_has_no_place(world: World) {
    let journey = Journey::bare(&world).await;
    let of = |agent: &str| NewEvent::of_agent(&id(agent), EventKind::Fenced, START_MS);
    let (source, target) = (journey.from.store(), journey.to.store.as_ref());
    target.append_events(vec![of("agent"), of("nobody")]).await.unwrap();
    let granted = journey.begin().await.granted;
    source.append_events(vec![of("agent")]).await.unwrap();
    journey.prepare(granted).await;
    target.append_events(vec![of("agent")]).await.unwrap();
    journey.finish().await;
    source.append_events(vec![of("agent")]).await.unwrap();
    for (store, expected) in [(source, 2), (target, 3)] {
        let events = store.events(0, None, Some(EventKind::Fenced), PAGE_MAX).await.unwrap();
        assert_eq!(events.len(), expected);
        assert!(events.iter().all(|event| event.place.is_none() && event.labels.is_empty()), "{events:?}");
    }
    assert_eq!(placed(target, "agent").await, []);
    let hosts = target.events(0, None, Some(EventKind::HostJoined), PAGE_MAX).await.unwrap();
    assert!(hosts.iter().all(|event| event.place.is_none()));
}

async fn the_count_moves_with_the_agent(world: World) {
    let journey = Journey::furnished(&world).await;
    journey.record_at_source(Phase::Transfer).await;
    // Sent early; what is counted since must travel with the last rows.
    let early = journey.export(0).await;
    let sent = early.last().map_or(0, |frame| frame.change);
    journey.receive(early).await;
    journey.from.verb(&Verb::Pause).await.unwrap();
    let granted = journey.begin().await.granted;
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    desk.verb(&Verb::Resume).await.unwrap();
    let there = placed(journey.from.store(), "agent").await;
    let here = placed(desk.store(), "agent").await;
    use EventKind::*;
    assert_eq!(kinds(&there), [AgentCreated, LeaseAcquired, Migration, AgentPaused]);
    assert_eq!(kinds(&here), [HomeMoved, LeaseAcquired, AgentResumed]);
    assert_eq!((numbers(&there), numbers(&here)), (vec![1, 2, 3, 4], vec![5, 6, 7]));
    journey.from.store().forget_moved(&id("agent"), journey.migration).await.unwrap();
    assert_eq!(placed(journey.from.store(), "agent").await, there, "they stay where they happened");
}

async fn an_aborted_handoff_leaves_no_gap(world: World) {
    let journey = Journey::furnished(&world).await;
    let granted = journey.begin().await.granted;
    journey.prepare(granted).await;
    journey.to.store.discard_copy(journey.migration).await.unwrap();
    let (store, incarnation) = (journey.from.store(), journey.from.owner.incarnation);
    store.abort_handoff(&id("agent"), journey.migration, incarnation).await.unwrap();
    let events = placed(store, "agent").await;
    assert_eq!(
        (numbers(&events), events.last().map(|event| event.event.kind)),
        (vec![1, 2, 3], Some(EventKind::LeaseAcquired))
    );
    assert_eq!(placed(journey.to.store.as_ref(), "agent").await, []);
}

async fn labels_are_those_of_the_moment(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let born = desk.row().await.labels;
    let (first, second) = (labels(&[("team", "red"), ("tier", "1")]), labels(&[]));
    site.store.set_labels(&id("agent"), first.clone()).await.unwrap();
    desk.verb(&Verb::Pause).await.unwrap();
    site.store.set_labels(&id("agent"), second.clone()).await.unwrap();
    desk.verb(&Verb::Resume).await.unwrap();
    let expected = [born.clone(), born, first.clone(), first, second.clone(), second];
    let stamped = |events: Vec<Event>| events.into_iter().map(|event| event.labels).collect::<Vec<_>>();
    assert_eq!(stamped(placed(site.store.as_ref(), "agent").await), expected);
    let all = site.store.events(0, Some(&id("agent")), None, PAGE_MAX).await.unwrap();
    assert_eq!(stamped(all), expected);
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(stamped(placed(store.as_ref(), "agent").await), expected);
}

async fn events_of_an_agent_are_read_after_a_number(world: World) {
    let site = world.site("a").await;
    let (one, other) = (site.own("one").await, site.own("other").await);
    for verb in [Verb::Pause, Verb::Resume, Verb::Pause] {
        one.verb(&verb).await.unwrap();
        other.verb(&verb).await.unwrap();
    }
    let read = async |agent: &str, after, limit| {
        numbers(&site.store.agent_events(&id(agent), after, limit).await.unwrap())
    };
    assert_eq!(read("one", 0, 10).await, [1, 2, 3, 4, 5]);
    assert_eq!(read("one", 2, 2).await, [3, 4]);
    assert_eq!(read("other", 4, 10).await, [5]);
    assert_eq!(read("one", 5, 10).await, []);
    assert_eq!(read("one", u64::MAX, 10).await, []);
    assert_eq!(read("nobody", 0, 10).await, []);
    let events = placed(site.store.as_ref(), "one").await;
    assert!(events.iter().all(|event| event.event.agent == Some(id("one"))));
    assert_eq!(events[0].place, Some(EventPlace { generation: Generation(1), number: 1 }));
}

/// A store that keeps so many events.
async fn keeping(world: &World, events_kept: u64) -> Store {
    let clock = world.clock.clone();
    let opening =
        Opening { sharing: Sharing::Exclusive, clock, quotas: Quotas { events_kept, ..Quotas::default() } };
    world.factory.open("few-events", opening).await
}

async fn old_events_go_and_the_newest_stay(world: World) {
    const KEPT: u64 = 10;
    let store = keeping(&world, KEPT).await;
    let site = Site::join(store, host(1)).await;
    site.create("agent").await;
    site.create("silent").await;
    let event = || NewEvent::of_agent(&id("agent"), EventKind::Fenced, START_MS);
    let before = site.store.mark().await.unwrap().event;
    // Stores may remove many at once.
    for _ in 0..10 {
        site.store.append_events(vec![event(); 100]).await.unwrap();
    }
    let (oldest, newest) = site.store.event_range().await.unwrap();
    assert_eq!(newest, before + 1_000);
    assert!(oldest > 1 && newest - oldest + 1 >= KEPT, "{oldest}..={newest}");
    let kept = placed(site.store.as_ref(), "agent").await;
    let first = kept[0].place.unwrap().number;
    assert!(first > 1, "a reader from the start sees that something is missing");
    assert_eq!(numbers(&kept), (first..=1_001).collect::<Vec<_>>());
    assert_eq!(placed(site.store.as_ref(), "silent").await, []);
    let silent = site.store.agent(&id("silent")).await.unwrap().unwrap();
    assert_eq!(silent.next_event, 2, "its row knows that there was one");
    assert_eq!(site.store.mark().await.unwrap().event, newest);
}

async fn a_restore_begins_above_all_numbers_given(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let before = desk.row().await;
    let above = site.store.mark().await.unwrap();
    site.store.leave(site.incarnation).await.unwrap();
    site.store.restore(above).await.unwrap();
    let events = placed(site.store.as_ref(), "agent").await;
    let row = site.store.agent(&id("agent")).await.unwrap().unwrap();
    let first = row.token.first_number();
    assert!(first > before.next_event + 1_000_000, "{first}");
    assert_eq!(numbers(&events), [1, 2, first]);
    assert_eq!((events[2].event.kind, row.next_event), (EventKind::AgentSuspended, first + 1));
    let resumed = LifecycleCommit::plan(&id("agent"), &row.lifecycle, &Verb::Resume, START_MS).unwrap();
    assert_eq!(resumed.next(), &Lifecycle::Active);
    let site = Site::join(site.store.clone(), host(1)).await;
    let desk = site.take(&id("agent")).await;
    desk.verb(&Verb::Resume).await.unwrap();
    assert_eq!(numbers(&placed(site.store.as_ref(), "agent").await), [1, 2, first, first + 1, first + 2]);
}

async fn who_waits_is_told_of_the_newest_event(world: World) {
    let site = world.site("a").await;
    let mut hints = site.store.event_hints();
    hints.mark_unchanged();
    let _desk = site.own("agent").await;
    assert!(hints.has_changed().unwrap());
    let told = *hints.borrow_and_update();
    assert_eq!(told, site.store.mark().await.unwrap().event);
    site.store.release(&site.take(&id("agent")).await.owner).await.unwrap();
    assert!(hints.has_changed().unwrap());
}
