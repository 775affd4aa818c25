//! Rows that travel: exported by change number, received in any order, deletes included.

use std::collections::BTreeSet;

use crate::id::{Incarnation, Revision, Seq};
use crate::input::InputState;
use crate::migration::{Phase, Role};
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    ALL, Desk, Turn, World, delivery, id, is_conflict, keyed, message, migration, picture,
};
use crate::store::conformance::journey::{Journey, moved};
use crate::store::{Accepted, OutputEnd, OutputKey, Row, RowFrame, RowKey};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(rows_are_exported_by_change_in_pages),
        Case::of(only_what_changed_is_exported_again),
        Case::of(a_copy_is_invisible_until_it_is_bound),
        Case::of(a_transfer_in_rounds_equals_one_at_once),
        Case::of(deletes_travel_while_a_migration_is_open),
        Case::of(rows_may_arrive_twice_and_in_any_order),
        Case::of(rows_that_come_late_change_nothing),
        Case::of(rows_of_another_agent_are_refused),
        Case::of(a_moved_inbox_remembers_what_it_accepted),
        Case::of(received_inputs_are_of_no_session),
    ]
}

async fn rows_are_exported_by_change_in_pages(world: World) {
    let journey = Journey::furnished(&world).await;
    let all = journey.export(0).await;
    assert!(all.is_sorted_by(|one, next| one.change < next.change), "unique and ascending");
    assert_eq!(all.last().map(|frame| frame.change), Some(journey.from.row().await.change));
    for bytes_max in [0, 1, 200, 600] {
        let mut paged: Vec<RowFrame> = Vec::new();
        loop {
            let after = paged.last().map_or(0, |frame| frame.change);
            let page = journey.from.store().export_rows(journey.agent(), after, bytes_max).await.unwrap();
            if page.is_empty() {
                break;
            }
            if bytes_max <= 1 {
                assert_eq!(page.len(), 1, "at least one row, and no more than fits");
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "pages of {bytes_max} bytes");
    }
    let has = |fits: fn(&Row) -> bool| all.iter().any(|frame| fits(&frame.row));
    assert!(has(|row| matches!(row, Row::Agent(_))) && has(|row| matches!(row, Row::Spec { .. })));
    assert!(has(|row| matches!(row, Row::Input(_))) && has(|row| matches!(row, Row::Receipt(_))));
    assert!(has(|row| matches!(row, Row::Snapshot { .. })) && has(|row| matches!(row, Row::State { .. })));
    assert!(has(|row| matches!(row, Row::Output(_))) && has(|row| matches!(row, Row::Destination { .. })));
    assert!(has(|row| matches!(row, Row::Receiver(_))) && has(|row| matches!(row, Row::Timer(_))));
    assert!(has(|row| matches!(row, Row::Operation(_))) && has(|row| matches!(row, Row::EntityKey(_))));
}

async fn only_what_changed_is_exported_again(world: World) {
    let journey = Journey::furnished(&world).await;
    let change = journey.from.row().await.change;
    assert_eq!(journey.export(change).await, []);
    let input = journey.from.accept("more").await;
    journey.from.turn(Turn::ends([&input]).state("b", Some("changed"))).await;
    let frames = journey.export(change).await;
    let mut states: Vec<&str> = Vec::new();
    for frame in &frames {
        assert!(frame.change > change);
        match &frame.row {
            Row::State { key, .. } => states.push(key),
            Row::Input(input) => assert_eq!((input.seq, input.state), (Seq(3), InputState::Consumed)),
            Row::Receipt(receipt) => assert_eq!(receipt.revision, Revision(3)),
            Row::Agent(portable) => assert_eq!(portable.revision, Revision(3)),
            Row::Journal { revision, .. } => assert_eq!(*revision, Revision(3)),
            other => panic!("unchanged: {other:?}"),
        }
    }
    assert_eq!((states, frames.len()), (vec!["b"], 5));
}

async fn a_copy_is_invisible_until_it_is_bound(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (&journey.to.store, journey.agent());
    let before = (picture(store.as_ref(), agent).await, store.event_range().await);
    journey.receive(journey.export(0).await).await;
    let after = (picture(store.as_ref(), agent).await, store.event_range().await);
    assert_eq!(after, before);
    assert_eq!(store.agents(None, 9).await, Ok(vec![]));
    assert_eq!(store.runnable(journey.to.incarnation, 9).await, Ok(vec![]));
    let living = journey.to.own("agent").await;
    assert_eq!(living.row().await.revision, Revision(0), "the id is still free");
    living.turn(Turn::ends([])).await;
}

async fn a_transfer_in_rounds_equals_one_at_once(world: World) {
    let journey = Journey::furnished(&world).await;
    journey.record_at_source(Phase::Transfer).await;
    let mut sent = 0;
    for round in 0..3 {
        let frames = journey.export(sent).await;
        sent = frames.last().map_or(sent, |frame| frame.change);
        journey.receive(frames).await;
        let input = journey.from.accept(&format!("round {round}")).await;
        let turn = Turn::ends([&input]).state("a", Some("again")).snapshot(&format!("round {round}"));
        journey.from.turn(turn.state("b", None).output(&id("somebody"), "more")).await;
    }
    let granted = journey.begin().await.granted;
    let expected = journey.export(0).await;
    let request = journey.request(granted, sent).await;
    assert!(request.frames.len() < expected.len());
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    let mut arrived = picture(desk.store(), desk.agent()).await.moved_rows();
    arrived.retain(|frame| !matches!(frame.row, Row::Deleted(_)));
    let kept = |frame: &RowFrame| !matches!(frame.row, Row::Deleted(_));
    let expected: Vec<RowFrame> = expected.into_iter().filter(kept).collect();
    assert_eq!(arrived, moved(expected));
}

fn deleted(frames: &[RowFrame]) -> BTreeSet<String> {
    let keys = frames.iter().filter_map(|frame| match &frame.row {
        Row::Deleted(RowKey::State(key)) => Some(format!("state {key}")),
        Row::Deleted(RowKey::Output(to, generation, number)) => {
            Some(format!("output {to} {generation} {number}"))
        }
        Row::Deleted(RowKey::Timer(name)) => Some(format!("timer {name}")),
        Row::Deleted(RowKey::Operation(operation)) => Some(format!("operation {operation}")),
        _ => None,
    });
    keys.collect()
}

async fn acknowledge(desk: &Desk, number: u64) {
    let key = OutputKey { destination: id("somebody"), generation: desk.owner.generation, number };
    let ends = [(key, OutputEnd::Acknowledged)];
    assert_eq!(desk.store().end_outputs(&desk.owner, &ends).await, Ok(()));
}

async fn deletes_travel_while_a_migration_is_open(world: World) {
    let journey = Journey::furnished(&world).await;
    acknowledge(&journey.from, 1).await;
    assert_eq!(deleted(&journey.export(0).await), BTreeSet::new(), "nobody asks for them yet");
    let arriving = journey.record(Role::Target, Phase::Transfer);
    assert_eq!(journey.from.store().put_migration(arriving).await, Ok(()));
    acknowledge(&journey.from, 2).await;
    assert_eq!(deleted(&journey.export(0).await), BTreeSet::new(), "nor who receives");
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    let sent = first.last().unwrap().change;
    journey.receive(first).await;
    acknowledge(&journey.from, 3).await;
    journey.from.turn(Turn::ends([]).state("b", None).state("c", Some("3"))).await;
    journey.from.turn(Turn::ends([]).state("c", None).state("d", Some("4"))).await;
    let frames = journey.export(sent).await;
    let expected = ["output somebody 1 3", "state b", "state c"].map(str::to_owned);
    assert_eq!(deleted(&frames), BTreeSet::from(expected));

    let granted = journey.begin().await.granted;
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    let keys = desk.store().state_keys(desk.agent(), "", None, 9).await.unwrap();
    assert_eq!(keys, ["d"]);
    let outputs = desk.store().outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(outputs, []);
    let onward = desk.store().export_rows(desk.agent(), 0, usize::MAX);
    assert_eq!(deleted(&onward.await.unwrap()), BTreeSet::new(), "they end with their migration");
}

async fn rows_may_arrive_twice_and_in_any_order(world: World) {
    let journey = Journey::furnished(&world).await;
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    acknowledge(&journey.from, 1).await;
    let input = journey.from.accept("later").await;
    journey.from.turn(Turn::ends([&input]).state("b", None).state("a", Some("new")).snapshot("new")).await;
    let second = journey.export(first.last().unwrap().change).await;
    journey.receive(second.clone()).await;
    journey.receive(second.into_iter().rev().collect()).await;
    journey.receive(first.clone()).await;
    journey.receive(first.into_iter().rev().collect()).await;
    let granted = journey.begin().await.granted;
    let mut request = journey.request(granted, 0).await;
    request.frames.clear();
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    let before = picture(journey.from.store(), journey.agent()).await.moved_rows();
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    let present = |frames: Vec<RowFrame>| -> Vec<RowFrame> {
        let is_row = |frame: &RowFrame| !matches!(frame.row, Row::Deleted(_));
        frames.into_iter().filter(is_row).collect()
    };
    let arrived = picture(desk.store(), desk.agent()).await.moved_rows();
    assert_eq!(present(arrived), present(before));
    assert_eq!(desk.store().image(desk.agent(), None).await.unwrap().unwrap().check(), Ok(()));
    assert_eq!(desk.store().state_value(desk.agent(), "b").await, Ok(None), "a delete is not undone");
}

async fn rows_that_come_late_change_nothing(world: World) {
    let journey = Journey::furnished(&world).await;
    let frames = journey.export(0).await;
    let granted = journey.begin().await.granted;
    journey.prepare(granted).await;
    let before = picture(journey.to.store.as_ref(), journey.agent()).await;
    let mut forged = frames.clone();
    for frame in &mut forged {
        frame.change += 1_000;
    }
    journey.receive(forged).await;
    journey.receive(frames).await;
    assert_eq!(picture(journey.to.store.as_ref(), journey.agent()).await, before);
}

async fn rows_of_another_agent_are_refused(world: World) {
    let journey = Journey::furnished(&world).await;
    let frames = journey.export(0).await;
    let (store, other) = (&journey.to.store, id("other"));
    let refused = store.receive_rows(journey.migration, &other, frames.clone()).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    journey.receive(frames).await;
    let refused = store.receive_rows(journey.migration, &other, vec![]).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "the copy is another's: {refused:?}");
    let second = store.receive_rows(migration(2), &other, vec![]).await;
    assert_eq!(second, Ok(()), "another migration is another copy");
}

async fn a_moved_inbox_remembers_what_it_accepted(world: World) {
    let journey = Journey::furnished(&world).await;
    let agent = journey.agent().clone();
    let first = keyed(&agent, "key", "body");
    journey.from.store().accept(first.clone(), journey.from.owner.incarnation).await.unwrap();
    let desk = journey.complete().await;
    let accept = async |new| desk.store().accept(new, desk.owner.incarnation).await;
    let again = accept(keyed(&agent, "key", "body")).await;
    assert!(matches!(again, Ok(Accepted::Duplicate(known)) if known.input.id == first.input.id));
    assert!(accept(keyed(&agent, "key", "other")).await.is_err());
    let repeated = accept(delivery(&agent, "origin", (1, 1), 1, 1)).await;
    assert_eq!(repeated, Ok(Accepted::AlreadyEnded));
    let next = accept(delivery(&agent, "origin", (1, 1), 2, 1)).await;
    assert_eq!(next, Ok(Accepted::New { seq: Seq(4) }));
    assert_eq!(accept(message(&agent, "new")).await, Ok(Accepted::New { seq: Seq(5) }));
    desk.turn(Turn::ends([]).output(&id("somebody"), "fourth")).await;
    let outputs = desk.store().pending_outputs(&agent, ALL).await.unwrap();
    let numbers: Vec<u64> = outputs.iter().map(|output| output.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(outputs.is_sorted_by(|one, next| one.position < next.position));
}

async fn received_inputs_are_of_no_session(world: World) {
    let journey = Journey::furnished(&world).await;
    journey.from.accept("waits").await;
    let desk = journey.complete().await;
    let inputs = desk.store().inputs(desk.agent(), None, ALL).await.unwrap();
    assert_eq!(inputs.len(), 3);
    assert!(inputs.iter().all(|input| input.accepted_by == Incarnation(0)));
    assert_eq!(desk.accept("new").await.accepted_by, desk.owner.incarnation);
}
