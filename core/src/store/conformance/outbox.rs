//! The outbox: numbers without gaps per destination, commit order, ends.

use std::collections::BTreeSet;

use crate::event::EventKind;
use crate::id::{AgentId, Generation, Revision};
use crate::limits::PAGE_MAX;
use crate::output::{OutputState, StoredOutput, UndeliverableReason};
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{ALL, Desk, Turn, World, id, picture};
use crate::store::conformance::{Case, START_MS};
use crate::store::{OutputEnd, OutputKey, Page, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(outputs_are_numbered_per_destination_in_commit_order),
        Case::of(outputs_are_read_in_pages),
        Case::of(the_first_outputs_of_each_are_found_behind_those_that_rest),
        Case::of(an_acknowledged_output_is_gone),
        Case::of(an_undeliverable_output_is_kept_with_its_reason),
        Case::of(ending_what_is_not_there_is_success),
        Case::of(numbers_go_on_after_ends_and_restarts),
    ]
}

fn key(destination: &str, number: u64) -> OutputKey {
    OutputKey { destination: id(destination), generation: Generation(1), number }
}

fn bodies(outputs: &[StoredOutput]) -> Vec<(&str, u64, &str)> {
    let body = |output: &StoredOutput| -> &str { std::str::from_utf8(&output.output.payload).unwrap() }
        as for<'a> fn(&'a StoredOutput) -> &'a str;
    outputs.iter().map(|output| (output.output.destination.as_str(), output.number, body(output))).collect()
}

/// Two turns that send a, b, a and b, a.
async fn sender(world: &World) -> Desk {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (a, b): (AgentId, AgentId) = (id("a"), id("b"));
    let first = Turn::of(BoundaryKind::Init).output(&a, "a1").output(&b, "b1").output(&a, "a2");
    desk.turn(first).await;
    desk.turn(Turn::ends([]).output(&b, "b2").output(&a, "a3")).await;
    desk
}

const SENT: [(&str, u64, &str); 5] =
    [("a", 1, "a1"), ("b", 1, "b1"), ("a", 2, "a2"), ("b", 2, "b2"), ("a", 3, "a3")];

async fn outputs_are_numbered_per_destination_in_commit_order(world: World) {
    let desk = sender(&world).await;
    let outputs = desk.store().pending_outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(bodies(&outputs), SENT);
    assert_eq!(desk.store().outputs(desk.agent(), ALL).await, Ok(outputs.clone()));
    assert!(outputs.is_sorted_by(|one, next| one.position < next.position));
    let revisions: Vec<Revision> = outputs.iter().map(|output| output.revision).collect();
    assert_eq!(revisions, [1, 1, 1, 2, 2].map(Revision));
    let last = &outputs[4];
    assert_eq!((&last.agent, last.generation), (desk.agent(), Generation(1)));
    assert_eq!((last.committed_at_ms, &last.state), (START_MS + 2, &OutputState::Pending));
    assert_eq!(last.output.headers, [("name".to_owned(), "value".to_owned())]);
}

async fn outputs_are_read_in_pages(world: World) {
    let desk = sender(&world).await;
    let mut read = Vec::new();
    let mut after = 0;
    loop {
        let page = desk.store().pending_outputs(desk.agent(), Page { after, limit: 2 }).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = last.position;
        read.extend(page);
    }
    assert_eq!(bodies(&read), SENT);
}

async fn the_first_outputs_of_each_are_found_behind_those_that_rest(world: World) {
    let desk = sender(&world).await;
    let first = async |resting: &[&str], most: (usize, usize)| {
        let resting: BTreeSet<AgentId> = resting.iter().map(|name| id(name)).collect();
        desk.store().first_outputs(desk.agent(), &resting, most).await.unwrap()
    };
    let waiting = async |name: &str| desk.store().waiting(desk.agent(), &id(name)).await.unwrap();
    assert_eq!((waiting("a").await, waiting("b").await, waiting("nobody").await), (3, 2, 0));
    assert_eq!(bodies(&first(&[], (9, 9)).await), SENT);
    assert_eq!(bodies(&first(&[], (1, 9)).await), SENT[..2]);
    assert_eq!(bodies(&first(&[], (2, 9)).await), SENT[..4]);
    let of_a = [SENT[0], SENT[2], SENT[4]];
    assert_eq!(bodies(&first(&[], (9, 3)).await), of_a, "whose first one waits longest");
    assert_eq!(bodies(&first(&[], (9, 4)).await), [SENT[0], SENT[1], SENT[2], SENT[4]]);
    assert_eq!(bodies(&first(&[], (9, 1)).await), SENT[..1]);
    assert_eq!(bodies(&first(&["a"], (9, 9)).await), [SENT[1], SENT[3]]);
    assert_eq!(bodies(&first(&["b", "nobody"], (2, 9)).await), [SENT[0], SENT[2]]);
    assert_eq!(first(&["a", "b"], (9, 9)).await, []);
    let ends = [
        (key("a", 1), OutputEnd::Acknowledged),
        (key("b", 1), OutputEnd::Undeliverable(UndeliverableReason::Deleted)),
    ];
    desk.store().end_outputs(&desk.owner, &ends).await.unwrap();
    assert_eq!(bodies(&first(&[], (1, 9)).await), [SENT[2], SENT[3]], "what has ended does not count");
    assert_eq!(bodies(&first(&[], (9, 1)).await), [SENT[2]]);
    assert_eq!((waiting("a").await, waiting("b").await), (2, 1));
    assert_eq!(desk.store().waiting(&id("nobody"), &id("a")).await, Ok(0));
    assert_eq!(desk.store().first_outputs(&id("nobody"), &BTreeSet::new(), (9, 9)).await, Ok(vec![]));
}

async fn an_acknowledged_output_is_gone(world: World) {
    let desk = sender(&world).await;
    let ends = [(key("a", 1), OutputEnd::Acknowledged), (key("b", 2), OutputEnd::Acknowledged)];
    let revision = desk.row().await.revision;
    for _ in 0..2 {
        assert_eq!(desk.store().end_outputs(&desk.owner, &ends).await, Ok(()));
        let outputs = desk.store().outputs(desk.agent(), ALL).await.unwrap();
        assert_eq!(bodies(&outputs), [SENT[1], SENT[2], SENT[4]]);
    }
    assert_eq!(desk.row().await.revision, revision, "no boundary");
}

async fn an_undeliverable_output_is_kept_with_its_reason(world: World) {
    let desk = sender(&world).await;
    let reason = UndeliverableReason::Forbidden;
    let ends = [(key("b", 1), OutputEnd::Undeliverable(reason))];
    for _ in 0..2 {
        assert_eq!(desk.store().end_outputs(&desk.owner, &ends).await, Ok(()));
    }
    let pending = desk.store().pending_outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(bodies(&pending), [SENT[0], SENT[2], SENT[3], SENT[4]]);
    let outputs = desk.store().outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(bodies(&outputs), SENT);
    assert_eq!(outputs[1].state, OutputState::Undeliverable { reason });
    let kind = Some(EventKind::OutputUndeliverable);
    let events = desk.store().events(0, Some(desk.agent()), kind, PAGE_MAX).await.unwrap();
    assert_eq!(events.len(), 1, "once");
}

async fn ending_what_is_not_there_is_success(world: World) {
    let desk = sender(&world).await;
    let before = picture(desk.store(), desk.agent()).await;
    let mut other_generation = key("a", 1);
    other_generation.generation = Generation(2);
    let undeliverable = OutputEnd::Undeliverable(UndeliverableReason::Expired);
    let ends = [
        (key("a", 9), OutputEnd::Acknowledged),
        (key("nobody", 1), undeliverable),
        (other_generation, OutputEnd::Acknowledged),
    ];
    assert_eq!(desk.store().end_outputs(&desk.owner, &ends).await, Ok(()));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn numbers_go_on_after_ends_and_restarts(world: World) {
    let desk = sender(&world).await;
    let ends = (1..=3).map(|number| (key("a", number), OutputEnd::Acknowledged));
    let ends: Vec<(OutputKey, OutputEnd)> = ends.collect();
    desk.store().end_outputs(&desk.owner, &ends).await.unwrap();
    let last = desk.store().outputs(desk.agent(), ALL).await.unwrap().pop().unwrap().position;
    let (agent, site) = (desk.agent().clone(), desk.site);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let site = super::fixture::Site::join(store, site.host).await;
    let desk = site.take(&agent).await;
    desk.turn(Turn::ends([]).output(&id("a"), "a4").output(&id("c"), "c1")).await;
    let outputs = desk.store().outputs(&agent, ALL).await.unwrap();
    assert_eq!(bodies(&outputs), [SENT[1], SENT[3], ("a", 4, "a4"), ("c", 1, "c1")]);
    assert!(outputs[2].position > last + 1, "positions are never given twice");
}
