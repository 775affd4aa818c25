//! The event log: numbered in one order, read after a cursor, filtered.

use crate::event::{Event, EventKind, NewEvent};
use crate::limits::PAGE_MAX;
use crate::store::conformance::fixture::{World, id};
use crate::store::conformance::{Case, START_MS};
use crate::store::{RuntimeStore, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_empty_log_has_no_range),
        Case::of(events_are_numbered_in_the_order_of_appending),
        Case::of(events_are_read_after_a_cursor_by_agent_and_kind),
        Case::of(a_list_call_answers_one_page_at_most),
    ]
}

fn event(agent: &str, kind: EventKind, detail: &str) -> NewEvent {
    NewEvent::of_agent(&id(agent), kind, START_MS).with("detail", detail)
}

fn details(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.event.data[0].1.as_str()).collect()
}

async fn append(store: &dyn RuntimeStore) {
    let first = vec![
        event("one", EventKind::Fenced, "a"),
        event("two", EventKind::Fenced, "b"),
        event("one", EventKind::AgentBroken, "c"),
    ];
    store.append_events(first).await.unwrap();
    store.append_events(vec![]).await.unwrap();
    store.append_events(vec![event("one", EventKind::Fenced, "d")]).await.unwrap();
}

async fn an_empty_log_has_no_range(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    assert_eq!(store.event_range().await, Ok((0, 0)));
    assert_eq!(store.events(0, None, None, 10).await, Ok(vec![]));
}

async fn events_are_numbered_in_the_order_of_appending(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    append(store.as_ref()).await;
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    store.append_events(vec![event("one", EventKind::Fenced, "e")]).await.unwrap();
    let events = store.events(0, None, None, 10).await.unwrap();
    assert_eq!(details(&events), ["a", "b", "c", "d", "e"]);
    assert!(events.is_sorted_by(|one, next| one.seq < next.seq));
    assert!(events[0].seq >= 1);
    assert!(events.iter().all(|event| event.store == store.id()));
    assert_eq!(events[0].event, event("one", EventKind::Fenced, "a"));
    assert_eq!(store.event_range().await, Ok((events[0].seq, events[4].seq)));
}

async fn events_are_read_after_a_cursor_by_agent_and_kind(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    append(store.as_ref()).await;
    let all = store.events(0, None, None, 10).await.unwrap();
    let one = id("one");
    let read = async |after, agent, kind, limit| {
        let events = store.events(after, agent, kind, limit).await.unwrap();
        details(&events).join("")
    };
    let fenced = Some(EventKind::Fenced);
    assert_eq!(read(all[0].seq, None, None, 2).await, "bc");
    assert_eq!(read(0, Some(&one), None, 10).await, "acd");
    assert_eq!(read(0, None, fenced, 10).await, "abd");
    assert_eq!(read(0, Some(&one), fenced, 10).await, "ad");
    assert_eq!(read(all[0].seq, Some(&one), fenced, 10).await, "d");
    assert_eq!(read(all[3].seq, None, None, 10).await, "");
    assert_eq!(read(0, Some(&id("nobody")), None, 10).await, "");
}

async fn a_list_call_answers_one_page_at_most(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let many = (0..=PAGE_MAX).map(|number| event("one", EventKind::Fenced, &number.to_string()));
    store.append_events(many.collect()).await.unwrap();
    let page = store.events(0, None, None, usize::MAX).await.unwrap();
    assert_eq!(page.len(), PAGE_MAX);
    let rest = store.events(page[PAGE_MAX - 1].seq, None, None, usize::MAX);
    assert_eq!(details(&rest.await.unwrap()), [PAGE_MAX.to_string()]);
}
