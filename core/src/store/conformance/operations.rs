//! Operations: started and cancelled with a boundary, begun under the fence, ended once.

use bytes::Bytes;

use crate::id::{FencingToken, InputId, OperationId, Revision, Seq};
use crate::input::{InputState, Kind, Source};
use crate::lifecycle::Verb;
use crate::limits::INBOX_INPUTS_MAX;
use crate::migration::Phase;
use crate::operation::{Class, OperationEnd, OperationState, Outcome, StoredOperation};
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Desk, Site, TTL, Turn, World, done, id, is_conflict, is_fenced, is_not_home, message, picture,
};
use crate::store::conformance::journey::Journey;
use crate::store::conformance::{Case, START_MS};
use crate::store::{AcceptError, BrokenReason, Row, RowKey, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_operation_is_started_with_its_boundary),
        Case::of(a_cancel_is_a_mark_until_the_end),
        Case::of(a_refused_boundary_starts_nothing),
        Case::of(an_operation_is_begun_before_it_ends),
        Case::of(a_later_owner_begins_again_what_may_be_done_again),
        Case::of(an_operation_ends_once),
        Case::of(only_the_owner_begins_and_ends),
        Case::of(a_full_inbox_takes_ends),
        Case::of(operations_are_looked_after_by_who_may_own_the_agent),
        Case::of(operations_survive_reopening),
        Case::of(a_reset_forgets_operations),
        Case::of(operations_move_with_their_agent),
    ]
}

/// An owned agent whose boundary 1 has started an operation of each class.
async fn asker(site: &Site) -> (Desk, OperationId, OperationId) {
    let desk = site.own("agent").await;
    let turn = Turn::of(BoundaryKind::Init).start(desk.agent(), Revision(0), 0, Class::AtLeastOnce).start(
        desk.agent(),
        Revision(0),
        1,
        Class::AtMostOnce,
    );
    desk.turn(turn).await;
    let of = |index| OperationId::of(desk.agent(), desk.owner.generation, Revision(0), index);
    let (again, once) = (of(0), of(1));
    (desk, again, once)
}

async fn stored(desk: &Desk) -> Vec<StoredOperation> {
    desk.store().operations(desk.agent()).await.unwrap()
}

fn states(operations: &[StoredOperation]) -> Vec<OperationState> {
    operations.iter().map(|operation| operation.state).collect()
}

fn end(outcome: Outcome) -> OperationEnd {
    OperationEnd { body: Bytes::from_static(b"answer"), ..OperationEnd::without_answer(outcome, "because") }
}

async fn an_operation_is_started_with_its_boundary(world: World) {
    let site = world.site("a").await;
    let (desk, again, once) = asker(&site).await;
    let operations = stored(&desk).await;
    assert_eq!(operations.iter().map(StoredOperation::id).collect::<Vec<_>>(), [again, once]);
    assert_eq!(states(&operations), [OperationState::Wanted; 2]);
    let first = &operations[0];
    assert_eq!((first.generation, first.revision), (desk.owner.generation, Revision(1)));
    assert_eq!((first.operation.index, first.is_cancelled, first.since_ms), (0, false, START_MS + 1));
    assert_eq!(operations[1].operation.request.class(), Class::AtMostOnce);
    assert_eq!(desk.store().operations(&id("nobody")).await, Ok(vec![]));
    let other = site.own("other").await;
    assert_eq!(stored(&other).await, [], "nothing of one agent shows under another");
    desk.turn(Turn::ends([]).start(desk.agent(), Revision(1), 0, Class::AtMostOnce)).await;
    let later = OperationId::of(desk.agent(), desk.owner.generation, Revision(1), 0);
    assert_eq!(stored(&desk).await[2].id(), later, "in the order of their starts");
}

async fn a_cancel_is_a_mark_until_the_end(world: World) {
    let site = world.site("a").await;
    let (desk, again, once) = asker(&site).await;
    desk.turn(Turn::ends([]).cancel(once).cancel(OperationId([9; 16]))).await;
    let marks: Vec<bool> = stored(&desk).await.iter().map(|operation| operation.is_cancelled).collect();
    assert_eq!(marks, [false, true]);
    let begun = desk.store().begin_operation(&desk.owner, once).await;
    assert!(matches!(&begun, Ok(Some(begun)) if begun.is_cancelled), "who works on it sees it: {begun:?}");
    assert_eq!(
        desk.store().end_operation(&desk.owner, once, end(Outcome::Cancelled)).await,
        Ok(Some(Seq(1)))
    );
    desk.turn(Turn::ends([]).cancel(once)).await;
    assert_eq!(stored(&desk).await.len(), 1, "what has ended is left alone");
    assert_eq!(stored(&desk).await[0].id(), again);
}

async fn a_refused_boundary_starts_nothing(world: World) {
    let site = world.site("a").await;
    let (desk, ..) = asker(&site).await;
    let before = picture(desk.store(), desk.agent()).await;
    let turn = Turn::ends([]).start(desk.agent(), Revision(1), 0, Class::AtLeastOnce);
    let mut unit = desk.chain().await.turn(turn).unit();
    unit.base = Revision(0);
    assert_eq!(desk.commit(unit).await.committed, 0);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn an_operation_is_begun_before_it_ends(world: World) {
    let site = world.site("a").await;
    let (desk, again, once) = asker(&site).await;
    for outcome in [Outcome::Completed, Outcome::Unknown] {
        let ended = desk.store().end_operation(&desk.owner, again, end(outcome)).await;
        assert!(
            matches!(&ended, Err(AcceptError::Store(error)) if is_conflict(error)),
            "{outcome:?}: {ended:?}"
        );
    }
    assert_eq!((stored(&desk).await.len(), desk.row().await.open_inputs), (2, 0));
    let revision = desk.row().await.revision;
    for _ in 0..2 {
        world.clock.advance(std::time::Duration::from_secs(1));
        let begun = desk.store().begin_operation(&desk.owner, again).await.unwrap().unwrap();
        let since_ms = START_MS + 1_000;
        assert_eq!((begun.state, begun.since_ms), (OperationState::Begun(desk.owner.token), since_ms));
    }
    assert_eq!(desk.row().await.revision, revision, "no boundary");
    let expected = [OperationState::Begun(desk.owner.token), OperationState::Wanted];
    assert_eq!(states(&stored(&desk).await), expected);
    assert_eq!(desk.store().begin_operation(&desk.owner, OperationId([9; 16])).await, Ok(None));
    let failed = desk.store().end_operation(&desk.owner, once, end(Outcome::Failed)).await;
    assert_eq!(failed, Ok(Some(Seq(1))), "what was not begun can fail");
}

async fn a_later_owner_begins_again_what_may_be_done_again(world: World) {
    let site = world.site("a").await;
    let (desk, again, once) = asker(&site).await;
    for operation in [again, once] {
        desk.store().begin_operation(&desk.owner, operation).await.unwrap();
    }
    desk.store().release(&desk.owner).await.unwrap();
    let later = site.take(desk.agent()).await;
    let begun = later.store().begin_operation(&later.owner, again).await.unwrap().unwrap();
    assert_eq!(begun.state, OperationState::Begun(later.owner.token));
    let refused = later.store().begin_operation(&later.owner, once).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    let unknown = later.store().end_operation(&later.owner, once, end(Outcome::Unknown)).await;
    assert_eq!(unknown, Ok(Some(Seq(1))));
}

async fn an_operation_ends_once(world: World) {
    let site = world.site("a").await;
    let (desk, again, _) = asker(&site).await;
    desk.store().begin_operation(&desk.owner, again).await.unwrap();
    for outcome in [Outcome::Completed, Outcome::Completed, Outcome::Unknown] {
        let ended = desk.store().end_operation(&desk.owner, again, end(outcome)).await;
        assert_eq!(ended, Ok(Some(Seq(1))), "{outcome:?}");
    }
    let inputs = desk.store().inputs(desk.agent(), None, ALL).await.unwrap();
    let [ended] = inputs.as_slice() else { panic!("{inputs:?}") };
    assert_eq!(ended.input.id, InputId::of_operation_end(desk.agent(), again));
    assert_eq!((&ended.input.kind, &ended.input.source), (&Kind::Operation, &Source::System));
    assert_eq!(ended.input.correlation, Some(again.to_string()));
    assert_eq!((ended.state, &ended.input.payload), (InputState::Queued, &Bytes::from_static(b"answer")));
    assert_eq!((ended.accepted_by, ended.input.accepted_at_ms), (site.incarnation, START_MS));
    let outcome = ("godwit-operation-outcome".to_owned(), "completed".to_owned());
    assert!(ended.input.headers.contains(&outcome), "the first end counts: {:?}", ended.input.headers);
    assert_eq!(stored(&desk).await.len(), 1);
    assert_eq!(desk.store().begin_operation(&desk.owner, again).await, Ok(None), "it has ended");
    desk.turn(Turn::ends(&inputs)).await;
    let repeated = desk.store().end_operation(&desk.owner, again, end(Outcome::Completed)).await;
    assert_eq!((repeated, desk.row().await.open_inputs), (Ok(Some(Seq(1))), 0));
    let nothing = desk.store().end_operation(&desk.owner, OperationId([9; 16]), end(Outcome::Failed)).await;
    assert_eq!(nothing, Ok(None));
}

async fn only_the_owner_begins_and_ends(world: World) {
    let site = world.site("a").await;
    let (desk, again, _) = asker(&site).await;
    let before = picture(desk.store(), desk.agent()).await;
    let mut stale = desk.owner.clone();
    stale.token = FencingToken(stale.token.0 - 1);
    let mut other = desk.owner.clone();
    other.incarnation.0 += 1;
    for owner in [stale, other] {
        let begun = desk.store().begin_operation(&owner, again).await;
        assert!(matches!(&begun, Err(error) if is_fenced(error)), "{begun:?}");
        let ended = desk.store().end_operation(&owner, again, end(Outcome::Failed)).await;
        assert!(matches!(&ended, Err(AcceptError::Store(error)) if is_fenced(error)), "{ended:?}");
    }
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn a_full_inbox_takes_ends(world: World) {
    let site = world.site("a").await;
    let (desk, again, _) = asker(&site).await;
    for chunk in 0..INBOX_INPUTS_MAX.div_ceil(500) {
        let mut chain = desk.chain().await;
        for number in 0..500.min(INBOX_INPUTS_MAX - chunk * 500) {
            chain = chain.accept(message(desk.agent(), &format!("{chunk} {number}")));
        }
        let unit = chain.unit();
        let steps = unit.steps.len();
        assert_eq!(desk.commit(unit).await, done(steps));
    }
    let ended = desk.store().end_operation(&desk.owner, again, end(Outcome::Failed)).await;
    assert_eq!(ended, Ok(Some(Seq(INBOX_INPUTS_MAX + 1))));
}

async fn operations_are_looked_after_by_who_may_own_the_agent(world: World) {
    let one = world.shared_site("a").await;
    let two = one.beside(2).await;
    let (desk, ..) = asker(&one).await;
    let idle = one.own("idle").await;
    idle.turn(Turn::of(BoundaryKind::Init)).await;
    let other = one.own("other").await;
    other.turn(Turn::of(BoundaryKind::Init).start(&id("other"), Revision(0), 0, Class::AtMostOnce)).await;
    let named = async |site: &Site, after: Option<&str>, limit: usize| {
        let after = after.map(id);
        let agents = site.store.operating(Some(site.incarnation), after.as_ref(), limit).await.unwrap();
        agents.iter().map(|agent| agent.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(named(&one, None, 9).await, ["agent", "other"]);
    assert_eq!(named(&one, None, 1).await, ["agent"]);
    assert_eq!(named(&one, Some("agent"), 9).await, ["other"]);
    assert_eq!(named(&two, None, 9).await, [""; 0], "another holds them");
    other.verb(&Verb::Break(BrokenReason::Forked)).await.unwrap();
    assert_eq!(named(&one, None, 9).await, ["agent"]);
    let all = async |after: Option<&str>| {
        let after = after.map(id);
        let agents = two.store.operating(None, after.as_ref(), 9).await.unwrap();
        agents.iter().map(|agent| agent.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all(None).await, ["agent", "other"], "whoever holds them, whatever their state");
    assert_eq!(all(Some("agent")).await, ["other"]);
    world.clock.advance(TTL + std::time::Duration::from_secs(1));
    two.store.heartbeat(two.incarnation).await.unwrap();
    two.store.bury_expired().await.unwrap();
    assert_eq!(named(&two, None, 9).await, ["agent"], "its session is dead");
    let taken = two.take(desk.agent()).await;
    for operation in stored(&taken).await {
        taken.store().end_operation(&taken.owner, operation.id(), end(Outcome::Failed)).await.unwrap();
    }
    assert_eq!(named(&two, None, 9).await, [""; 0]);
}

async fn operations_survive_reopening(world: World) {
    let site = world.site("a").await;
    let (desk, again, once) = asker(&site).await;
    desk.store().begin_operation(&desk.owner, again).await.unwrap();
    desk.turn(Turn::ends([]).cancel(once)).await;
    let (before, agent) = (stored(&desk).await, desk.agent().clone());
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.operations(&agent).await, Ok(before));
}

async fn a_reset_forgets_operations(world: World) {
    let site = world.site("a").await;
    let (desk, again, _) = asker(&site).await;
    desk.verb(&Verb::Reset).await.unwrap();
    assert_eq!(stored(&desk).await, []);
    let desk = site.take(desk.agent()).await;
    assert_eq!(desk.store().begin_operation(&desk.owner, again).await, Ok(None));
    assert_eq!(desk.store().end_operation(&desk.owner, again, end(Outcome::Completed)).await, Ok(None));
}

async fn operations_move_with_their_agent(world: World) {
    let journey = Journey::furnished(&world).await;
    let base = journey.from.row().await.revision;
    let turn = Turn::ends([]).start(journey.agent(), base, 0, Class::AtMostOnce).start(
        journey.agent(),
        base,
        1,
        Class::AtMostOnce,
    );
    journey.from.turn(turn).await;
    let of = |index| OperationId::of(journey.agent(), journey.from.owner.generation, base, index);
    let (kept, gone) = (of(0), of(1));
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    let sent = first.last().unwrap().change;
    journey.receive(first.clone()).await;
    let (store, owner) = (journey.from.store(), &journey.from.owner);
    store.begin_operation(owner, kept).await.unwrap();
    let ended = store.end_operation(owner, gone, end(Outcome::Failed)).await;
    assert!(matches!(ended, Ok(Some(_))), "{ended:?}");
    let waiting = store.operations(journey.agent()).await.unwrap();
    let frames = journey.export(sent).await;
    let deleted = Row::Deleted(RowKey::Operation(gone));
    assert!(frames.iter().any(|frame| frame.row == deleted), "{frames:?}");
    // Late, and the newer round before the older one.
    journey.receive(frames).await;
    journey.receive(first).await;
    let granted = journey.begin().await.granted;
    let refused = store.end_operation(owner, kept, end(Outcome::Completed)).await;
    assert!(matches!(&refused, Err(AcceptError::Store(error)) if is_not_home(error)), "{refused:?}");
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    assert_eq!(journey.to.store.operating(Some(journey.to.incarnation), None, 9).await, Ok(vec![]));
    journey.finish().await;
    let desk = journey.to.desk(journey.adopt().await);
    assert_eq!(stored(&desk).await, waiting, "begun stays begun");
    let refused = desk.store().begin_operation(&desk.owner, kept).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    let again = desk.store().end_operation(&desk.owner, gone, end(Outcome::Completed)).await;
    assert_eq!(again, ended, "its end has travelled");
}
