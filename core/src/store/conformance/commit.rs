//! One boundary: all its rows or none, receipts that chain, state rows, fates of inputs, repetition (rules 1, 7).

use crate::digest::Digest;
use crate::event::{EventKind, NewEvent};
use crate::id::{Generation, InputId, Revision, Seq};
use crate::input::{AbandonReason, InputState, Outcome, ReplyOutcome};
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Desk, Turn, World, assert_failed, done, end, id, is_conflict, is_stale, picture,
};
use crate::store::conformance::{Case, START_MS};
use crate::store::{Boundary, Sharing, Step, StoredInput};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_boundary_writes_all_its_rows),
        Case::of(what_was_answered_is_there_after_reopening),
        Case::of(receipts_chain_and_are_read_in_pages),
        Case::of(a_wrong_parent_is_a_conflict),
        Case::of(a_boundary_that_does_not_fit_changes_nothing),
        Case::of(an_input_ends_once),
        Case::of(neighbours_end_together_each_with_its_own_answer),
        Case::of(a_dead_letter_is_a_boundary),
        Case::of(state_rows_are_written_listed_and_deleted),
        Case::of(a_repeated_unit_is_success_and_changes_nothing),
        Case::of(another_unit_on_an_old_revision_is_stale),
        Case::of(events_commit_with_their_boundary),
        Case::of(agent_time_never_goes_back),
    ]
}

async fn a_boundary_writes_all_its_rows(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("work").await;
    let turn = Turn::ends([&input]).state("key", Some("value")).snapshot("after").output(&id("friend"), "hi");
    let receipt = desk.turn(turn).await;
    let row = desk.row().await;
    assert_eq!((row.revision, row.head), (Revision(1), receipt.digest()));
    assert_eq!((row.open_inputs, row.token), (0, desk.owner.token));
    let stored = site.store.input(desk.agent(), input.input.id).await.unwrap().unwrap();
    assert_eq!(stored.state, InputState::Consumed);
    assert_eq!(stored.outcome, Some(end(BoundaryKind::Turn, Revision(1), desk.owner.token)));
    let value = site.store.state_value(desk.agent(), "key").await.unwrap();
    assert_eq!(value.as_deref(), Some(b"value".as_slice()));
    let outputs = site.store.pending_outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!((outputs.len(), outputs[0].revision), (1, Revision(1)));
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.check(), image.receipts), (Ok(()), vec![receipt]));
    assert_eq!(image.snapshot.unwrap().state.as_ref(), b"after");
}

async fn what_was_answered_is_there_after_reopening(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let agent = desk.agent().clone();
    let before = picture(desk.store(), &agent).await;
    let sessions = site.store.sessions().await.unwrap();
    let (plugins, range) = (site.store.plugins().await, site.store.event_range().await);
    let store_id = site.store.id();
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.id(), store_id);
    assert_eq!(picture(store.as_ref(), &agent).await, before);
    assert_eq!(store.sessions().await, Ok(sessions));
    assert_eq!((store.plugins().await, store.event_range().await), (plugins, range));
}

async fn receipts_chain_and_are_read_in_pages(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let mut receipts = Vec::new();
    for _ in 0..5 {
        receipts.push(desk.turn(Turn::ends([])).await);
    }
    let mut parent = Digest::ZERO;
    for receipt in &receipts {
        assert_eq!(receipt.parent, parent);
        parent = receipt.digest();
    }
    assert_eq!(desk.row().await.head, parent);
    let read = async |generation, after, limit| {
        let agent = desk.agent();
        site.store.receipts(agent, Generation(generation), Revision(after), limit).await.unwrap()
    };
    assert_eq!(read(1, 0, PAGE_MAX).await, receipts);
    assert_eq!(read(1, 1, 2).await, receipts[1..3]);
    assert_eq!(read(1, 5, 2).await, []);
    assert_eq!(read(2, 0, 2).await, []);
}

async fn a_wrong_parent_is_a_conflict(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let first = desk.turn(Turn::of(BoundaryKind::Init)).await;
    desk.turn(Turn::ends([])).await;
    let before = picture(desk.store(), desk.agent()).await;
    for head in [Digest::ZERO, first.digest(), Digest::of(b"invented")] {
        let mut chain = desk.chain().await;
        chain.head = head;
        let outcome = desk.commit(chain.turn(Turn::ends([])).unit()).await;
        assert_failed(&outcome, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
}

/// A way to spoil a boundary.
type Spoil = fn(&mut Boundary, &StoredInput);

async fn a_boundary_that_does_not_fit_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let input = desk.accept("work").await;
    let before = picture(desk.store(), desk.agent()).await;
    let spoils: &[(&str, Spoil)] = &[
        ("agent", |b, _| b.receipt.agent = id("other")),
        ("generation", |b, _| b.receipt.generation = Generation(2)),
        ("token", |b, _| b.receipt.token = b.receipt.token.next()),
        ("incarnation", |b, _| b.receipt.incarnation = b.receipt.incarnation.next()),
        ("a whole turn of another token", |b, _| {
            b.receipt.token = b.receipt.token.next();
            b.ends[0].outcome = end(BoundaryKind::Turn, b.receipt.revision, b.receipt.token);
        }),
        ("no inputs named", |b, _| b.receipt.inputs.clear()),
        ("another input named", |b, _| b.receipt.inputs = vec![InputId([9; 16])]),
        ("no end", |b, _| b.ends.clear()),
        ("unknown input", |b, _| b.ends[0].seq = Seq(99)),
        ("one input twice", |b, input| {
            b.ends.push(b.ends[0].clone());
            b.receipt.inputs.push(input.input.id);
        }),
        ("another revision's end", |b, _| {
            b.ends[0].outcome = end(BoundaryKind::Turn, Revision(1), b.receipt.token);
        }),
        ("another token's end", |b, _| {
            b.ends[0].outcome = end(BoundaryKind::Turn, b.receipt.revision, b.receipt.token.next());
        }),
        ("an end that is no turn's", |b, _| {
            b.ends[0].outcome = Outcome::Abandoned { reason: AbandonReason::Cancelled };
        }),
        ("another state named", |b, _| b.receipt.state = Some(Digest::of(b"another"))),
        ("no state named", |b, _| b.receipt.state = None),
        ("a state named that is not there", |b, _| b.snapshot = None),
        ("another revision's snapshot", |b, _| {
            let snapshot = b.snapshot.as_mut().unwrap();
            snapshot.revision = snapshot.revision.next();
        }),
    ];
    for (what, spoil) in spoils {
        let turn = Turn::ends([&input])
            .state("b", None)
            .state("c", Some("3"))
            .output(&id("somebody"), "never")
            .snapshot("never")
            .event(NewEvent::of_agent(desk.agent(), EventKind::AgentBroken, START_MS));
        let chain = desk.chain().await;
        let mut boundary = chain.boundary(turn);
        spoil(&mut boundary, &input);
        let unit = chain.step(Step::Boundary(Box::new(boundary))).unit();
        let outcome = desk.commit(unit).await;
        assert!(outcome.committed == 0 && outcome.failure.is_some(), "{what}: {outcome:?}");
        assert_failed(&outcome, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before, "{what}");
    }
}

async fn an_input_ends_once(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (input, other) = (desk.accept("work").await, desk.accept("more").await);
    desk.turn(Turn::ends([&input])).await;
    let before = picture(desk.store(), desk.agent()).await;
    for kind in [BoundaryKind::Turn, BoundaryKind::DeadLetter] {
        let turn = Turn::of(kind).and_ends([&other, &input]);
        let unit = desk.chain().await.turn(turn).unit();
        assert_failed(&desk.commit(unit).await, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
}

async fn neighbours_end_together_each_with_its_own_answer(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let mut inputs = Vec::new();
    for body in ["1", "2", "3", "4", "5"] {
        inputs.push(desk.accept(body).await);
    }
    let answers = ["same", "same", "other", "same", "same"];
    let mut unit = desk.chain().await.turn(Turn::ends(&inputs)).unit();
    let Some(Step::Boundary(boundary)) = unit.steps.last_mut() else { panic!("a boundary") };
    for (ended, answer) in boundary.ends.iter_mut().zip(answers) {
        let Outcome::Committed { reply, .. } = &mut ended.outcome else { panic!("a committed turn") };
        reply.outcome = ReplyOutcome::Ok(answer.into());
    }
    let expected: Vec<Outcome> = boundary.ends.iter().map(|ended| ended.outcome.clone()).collect();
    assert_eq!(desk.commit(unit).await, done(1));
    let stored = site.store.inputs(desk.agent(), None, ALL).await.unwrap();
    assert!(stored.iter().all(|input| input.state == InputState::Consumed));
    assert!(stored.into_iter().map(|input| input.outcome.unwrap()).eq(expected));
    let row = desk.row().await;
    assert_eq!((row.open_inputs, row.waking_inputs), (0, 0));
    // No two rows have one change number, or a move would pass one of them by.
    let frames = site.store.export_rows(desk.agent(), 0, usize::MAX).await.unwrap();
    assert!(frames.is_sorted_by(|one, next| one.change < next.change), "{frames:?}");

    // One of several that has ended already spoils it for all.
    let mut inputs = Vec::new();
    for body in ["6", "7", "8"] {
        inputs.push(desk.accept(body).await);
    }
    desk.turn(Turn::ends([&inputs[1]])).await;
    let before = picture(desk.store(), desk.agent()).await;
    let unit = desk.chain().await.turn(Turn::ends(&inputs)).unit();
    assert_failed(&desk.commit(unit).await, 0, is_conflict);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn a_dead_letter_is_a_boundary(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("poison").await;
    let receipt = desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&input])).await;
    assert_eq!(receipt.inputs, [input.input.id]);
    let stored = site.store.input(desk.agent(), input.input.id).await.unwrap().unwrap();
    assert_eq!(stored.state, InputState::DeadLettered);
    assert!(
        matches!(stored.outcome, Some(Outcome::DeadLettered { revision, .. }) if revision == Revision(1))
    );
    let row = desk.row().await;
    assert_eq!((row.revision, row.open_inputs), (Revision(1), 0));
}

async fn state_rows_are_written_listed_and_deleted(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let turn = Turn::of(BoundaryKind::Init)
        .state("user/a", Some("1"))
        .state("user/b", Some("2"))
        .state("user/ä%_", Some("3"))
        .state("user", Some(""))
        .state("zebra", Some("4"));
    desk.turn(turn).await;
    let turn = Turn::ends([]).state("user/a", None).state("zebra", Some("5")).state("nothing", None);
    desk.turn(turn).await;
    let keys = async |prefix: &str, after: Option<&str>, limit| {
        site.store.state_keys(desk.agent(), prefix, after, limit).await.unwrap()
    };
    assert_eq!(keys("", None, 9).await, ["user", "user/b", "user/ä%_", "zebra"]);
    assert_eq!(keys("user/", None, 9).await, ["user/b", "user/ä%_"]);
    assert_eq!(keys("user/", None, 1).await, ["user/b"]);
    assert_eq!(keys("user/", Some("user/b"), 9).await, ["user/ä%_"]);
    assert_eq!(keys("user/ä%", None, 9).await, ["user/ä%_"]);
    assert_eq!(keys("user/%", None, 9).await, Vec::<String>::new(), "a prefix is text, not a pattern");
    let value = async |key: &str| site.store.state_value(desk.agent(), key).await.unwrap();
    assert_eq!(value("user/a").await, None);
    assert_eq!(value("user").await.as_deref(), Some(b"".as_slice()), "empty is not missing");
    assert_eq!(value("zebra").await.as_deref(), Some(b"5".as_slice()));
}

async fn a_repeated_unit_is_success_and_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("work").await;
    let chain = desk.chain().await.attempt(input.seq, InputState::Staged, 1);
    let chain = chain.turn(Turn::ends([&input]).output(&id("friend"), "hi").state("a", Some("1")));
    let unit = chain.turn(Turn::ends([]).state("a", None)).unit();
    assert_eq!(desk.commit(unit.clone()).await, done(3));
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(desk.commit(unit.clone()).await, done(3));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    desk.turn(Turn::ends([])).await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(desk.commit(unit).await, done(3), "also when the agent has gone on");
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn another_unit_on_an_old_revision_is_stale(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let old = desk.chain().await.turn(Turn::ends([]).snapshot("other")).unit();
    let longer = desk.chain().await.turn(Turn::ends([])).turn(Turn::ends([])).unit();
    let without_boundary = desk.chain().await.step(Step::Attempts(vec![])).unit();
    desk.turn(Turn::ends([])).await;
    let before = picture(desk.store(), desk.agent()).await;
    for unit in [old, longer, without_boundary] {
        assert_failed(&desk.commit(unit).await, 0, is_stale);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
}

async fn events_commit_with_their_boundary(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let kind = EventKind::InputDeadLettered;
    let event = NewEvent::of_agent(desk.agent(), kind, START_MS).with("reason", "fatal");
    desk.turn(Turn::of(BoundaryKind::DeadLetter).event(event.clone())).await;
    let events = events_of(&desk, kind).await;
    assert_eq!(events, [event]);
}

async fn events_of(desk: &Desk, kind: EventKind) -> Vec<NewEvent> {
    let events = desk.store().events(0, Some(desk.agent()), Some(kind), PAGE_MAX).await;
    events.unwrap().into_iter().map(|event| event.event).collect()
}

async fn agent_time_never_goes_back(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let commit_at = async |committed_at_ms| {
        let chain = desk.chain().await;
        let mut boundary = chain.boundary(Turn::ends([]));
        boundary.receipt.committed_at_ms = committed_at_ms;
        let unit = chain.step(Step::Boundary(Box::new(boundary))).unit();
        assert_eq!(desk.commit(unit).await, done(1));
        desk.row().await.time_ms
    };
    assert_eq!(commit_at(START_MS + 50).await, START_MS + 50);
    assert_eq!(commit_at(START_MS + 10).await, START_MS + 50);
    assert_eq!(commit_at(START_MS + 60).await, START_MS + 60);
}
