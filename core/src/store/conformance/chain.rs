//! Chains of steps: a prefix commits, the first failure ends the chain; accepting, attempts and checkpoints inside it.

use futures::future::join;

use crate::id::{FencingToken, Revision, Seq};
use crate::input::InputState;
use crate::receipt::BoundaryKind;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    ALL, Chain, Desk, Turn, World, assert_failed, done, is_conflict, is_stale, keyed, message, picture,
    stamp_message,
};
use crate::store::{AcceptError, Attempt, Step, StoreError, StoredInput, UnitFailure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_chain_commits_in_order),
        Case::of(the_first_failure_ends_the_chain),
        Case::of(units_that_build_on_each_other_need_no_answer_in_between),
        Case::of(an_input_is_accepted_and_ended_in_one_unit),
        Case::of(an_accept_with_another_seq_is_stale),
        Case::of(a_duplicate_ends_the_chain_with_what_is_stored),
        Case::of(a_reused_key_ends_the_chain),
        Case::of(a_delivery_is_not_accepted_inside_a_unit),
        Case::of(attempts_are_no_boundary),
        Case::of(attempts_at_what_is_not_open_are_refused_whole),
        Case::of(a_checkpoint_is_no_boundary),
        Case::of(a_checkpoint_of_another_revision_is_stale),
        Case::of(a_checkpoint_never_replaces_a_snapshot_of_its_revision),
        Case::of(an_empty_unit_is_fenced_like_any),
    ]
}

async fn a_chain_commits_in_order(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (first, second) = (desk.accept("1").await, desk.accept("2").await);
    let chain = desk.chain().await.turn(Turn::of(BoundaryKind::Init).state("a", Some("0")));
    let chain =
        chain.attempt(first.seq, InputState::Staged, 1).turn(Turn::ends([&first]).state("a", Some("1")));
    let unit = chain.turn(Turn::ends([&second]).state("a", Some("2")).snapshot("two")).unit();
    assert_eq!(desk.commit(unit).await, done(4));
    let row = desk.row().await;
    assert_eq!((row.revision, row.open_inputs), (Revision(3), 0));
    let value = site.store.state_value(desk.agent(), "a").await.unwrap();
    assert_eq!(value.as_deref(), Some(b"2".as_slice()));
    assert_eq!(site.store.image(desk.agent(), None).await.unwrap().unwrap().check(), Ok(()));
    let stored = stored(&desk, &first).await;
    assert_eq!((stored.state, stored.attempts), (InputState::Consumed, 1));
}

async fn stored(desk: &Desk, input: &StoredInput) -> StoredInput {
    let stored = desk.store().input(desk.agent(), input.input.id).await;
    stored.unwrap().unwrap()
}

async fn the_first_failure_ends_the_chain(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("work").await;
    let good = desk.chain().await.turn(Turn::ends([&input]).state("a", Some("kept")));
    let (revision, head) = (good.revision, good.head);
    // Ends the same input again; what follows would fit if this were skipped.
    let mut chain = good.turn(Turn::ends([&input]).state("a", Some("lost")));
    (chain.revision, chain.head) = (revision, head);
    let late = message(desk.agent(), "late");
    let unit = chain.turn(Turn::ends([]).state("b", Some("lost"))).accept(late.clone()).unit();
    assert_eq!(unit.steps.len(), 4);
    assert_failed(&desk.commit(unit).await, 1, is_conflict);
    assert_eq!(desk.row().await.revision, Revision(1));
    let keys = site.store.state_keys(desk.agent(), "", None, 9).await.unwrap();
    assert_eq!(keys, ["a"]);
    let value = site.store.state_value(desk.agent(), "a").await.unwrap();
    assert_eq!(value.as_deref(), Some(b"kept".as_slice()));
    assert_eq!(site.store.input(desk.agent(), late.input.id).await, Ok(None));
}

/// A chain on top of one that is not committed yet.
fn on(mut chain: Chain, lower: &Chain) -> Chain {
    (chain.base, chain.revision, chain.head) = (lower.revision, lower.revision, lower.head);
    chain
}

async fn units_that_build_on_each_other_need_no_answer_in_between(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (first, second) = (desk.accept("1").await, desk.accept("2").await);
    let lower = desk.chain().await.turn(Turn::of(BoundaryKind::Init)).turn(Turn::ends([&first]));
    let upper = on(desk.chain().await, &lower).turn(Turn::ends([&second]));
    let outcomes = join(desk.store().commit_turns(lower.unit()), desk.store().commit_turns(upper.unit()));
    assert_eq!(outcomes.await, (done(2), done(1)));
    assert_eq!(desk.row().await.revision, Revision(3));
    // The lower one is refused half way: what builds on it can't commit.
    let third = desk.accept("3").await;
    let lower = desk.chain().await.turn(Turn::ends([&third])).turn(Turn::ends([&first]));
    let upper = on(desk.chain().await, &lower).turn(Turn::ends([]).state("a", Some("lost")));
    let outcomes = join(desk.store().commit_turns(lower.unit()), desk.store().commit_turns(upper.unit()));
    let (lower, upper) = outcomes.await;
    assert_failed(&lower, 1, is_conflict);
    assert_failed(&upper, 0, is_stale);
    assert_eq!(desk.row().await.revision, Revision(4));
    assert_eq!(site.store.state_value(desk.agent(), "a").await, Ok(None));
}

async fn an_input_is_accepted_and_ended_in_one_unit(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let new = keyed(desk.agent(), "key", "body");
    let (seq, input) = (Seq(1), new.input.id);
    let unit = desk.chain().await.accept(new.clone()).turn(Turn::ends([]).end(seq, input)).unit();
    assert_eq!(desk.commit(unit).await, done(2));
    let stored = site.store.input(desk.agent(), input).await.unwrap().unwrap();
    assert_eq!((stored.seq, stored.state), (seq, InputState::Consumed));
    assert_eq!(stored.input, new.input, "dated as the guest has seen it");
    assert_eq!(stored.accepted_by, desk.owner.incarnation);
    assert_eq!(stored.idempotency_key.as_deref(), Some("key"));
    assert_eq!(desk.row().await.next_seq, Seq(2));
}

async fn an_accept_with_another_seq_is_stale(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let new = message(desk.agent(), "body");
    let unit = desk.chain().await.accept(new.clone()).turn(Turn::ends([]).end(Seq(1), new.input.id)).unit();
    desk.accept("came first").await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_failed(&desk.commit(unit).await, 0, is_stale);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn a_duplicate_ends_the_chain_with_what_is_stored(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let first = keyed(desk.agent(), "key", "body");
    site.store.accept(first.clone(), site.incarnation).await.unwrap();
    let known = site.store.input(desk.agent(), first.input.id).await.unwrap().unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let same_key = keyed(desk.agent(), "key", "body");
    for new in [same_key, first] {
        // The seq is not looked at: whoever waits joins the input that is here.
        let mut chain = desk.chain().await;
        chain.next_seq = Seq(77);
        let unit = chain.accept(new).turn(Turn::ends([])).unit();
        let outcome = desk.commit(unit).await;
        assert_eq!(outcome.failure, Some(UnitFailure::Duplicate(Box::new(known.clone()))));
        assert_eq!(outcome.committed, 0);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
}

async fn a_reused_key_ends_the_chain(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let first = keyed(desk.agent(), "key", "body");
    let chain = desk.chain().await.accept(first).accept(keyed(desk.agent(), "key", "other"));
    let outcome = desk.commit(chain.turn(Turn::ends([])).unit()).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Refused(AcceptError::KeyReused)));
    assert_eq!(outcome.committed, 1);
    let row = desk.row().await;
    assert_eq!((row.next_seq, row.open_inputs, row.revision), (Seq(2), 1, Revision(0)));
}

async fn a_delivery_is_not_accepted_inside_a_unit(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let new = stamp_message(desk.agent(), "origin", 1, 1, 1);
    let unit = desk.chain().await.accept(new).unit();
    let outcome = desk.commit(unit).await;
    assert_failed(&outcome, 0, |error| matches!(error, StoreError::Unsupported { .. }));
    assert_eq!(desk.row().await.open_inputs, 0);
}

async fn attempts_are_no_boundary(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("work").await;
    for (state, attempts) in [(InputState::Staged, 1), (InputState::Queued, 1), (InputState::Staged, 2)] {
        let unit = desk.chain().await.attempt(input.seq, state, attempts).unit();
        assert_eq!(desk.commit(unit.clone()).await, done(1));
        assert_eq!(desk.commit(unit).await, done(1), "repeated");
        let stored = stored(&desk, &input).await;
        assert_eq!((stored.state, stored.attempts), (state, attempts));
    }
    let row = desk.row().await;
    assert_eq!((row.revision, row.open_inputs), (Revision(0), 1));
    desk.turn(Turn::ends([&input])).await;
    assert_eq!(stored(&desk, &input).await.attempts, 2, "kept");
}

async fn attempts_at_what_is_not_open_are_refused_whole(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (ended, open) = (desk.accept("1").await, desk.accept("2").await);
    desk.turn(Turn::ends([&ended])).await;
    let before = picture(desk.store(), desk.agent()).await;
    let attempt = |seq, state| Attempt { seq, state, attempts: 1, deaths: 0 };
    let staged = InputState::Staged;
    let refused = [
        vec![attempt(open.seq, staged), attempt(ended.seq, staged)],
        vec![attempt(open.seq, staged), attempt(Seq(99), staged)],
        vec![attempt(open.seq, InputState::Consumed)],
        vec![attempt(open.seq, InputState::Abandoned)],
    ];
    for attempts in refused {
        let unit = desk.chain().await.step(Step::Attempts(attempts)).unit();
        assert_failed(&desk.commit(unit).await, 0, is_conflict);
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
}

async fn a_checkpoint_is_no_boundary(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    let chain = desk.chain().await.turn(Turn::ends([]));
    let checkpoint = Step::Checkpoint(chain.snapshot(Revision(2), "two"));
    let unit = chain.step(checkpoint).turn(Turn::ends([])).unit();
    assert_eq!(desk.commit(unit).await, done(3));
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!(image.check(), Ok(()));
    let snapshot = image.snapshot.unwrap();
    assert_eq!((snapshot.revision, snapshot.state.as_ref()), (Revision(2), b"two".as_slice()));
    assert_eq!((image.row.revision, image.receipts.len()), (Revision(3), 2));
}

async fn a_checkpoint_of_another_revision_is_stale(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init)).await;
    desk.turn(Turn::ends([]).snapshot("two")).await;
    let before = picture(desk.store(), desk.agent()).await;
    for revision in [Revision(1), Revision(3)] {
        let chain = desk.chain().await;
        let checkpoint = Step::Checkpoint(chain.snapshot(revision, "other"));
        assert_failed(&desk.commit(chain.step(checkpoint).unit()).await, 0, is_stale);
    }
    let chain = desk.chain().await;
    let mut snapshot = chain.snapshot(Revision(2), "two");
    snapshot.generation = snapshot.generation.next();
    let unit = chain.step(Step::Checkpoint(snapshot)).unit();
    assert_failed(&desk.commit(unit).await, 0, is_stale);
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn a_checkpoint_never_replaces_a_snapshot_of_its_revision(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("one")).await;
    let checkpoint = async |state: &str| {
        let chain = desk.chain().await;
        let step = Step::Checkpoint(chain.snapshot(Revision(1), state));
        desk.commit(chain.step(step).unit()).await
    };
    assert_eq!(checkpoint("one").await, done(1), "the same again");
    assert_failed(&checkpoint("other").await, 0, is_conflict);
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!(image.snapshot.as_ref().unwrap().state.as_ref(), b"one");
    assert_eq!(image.check(), Ok(()), "the receipt names this state");
}

async fn an_empty_unit_is_fenced_like_any(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(desk.commit(desk.chain().await.unit()).await, done(0));
    let mut unit = desk.chain().await.unit();
    unit.owner.token = FencingToken(99);
    let outcome = desk.commit(unit).await;
    assert_failed(&outcome, 0, |error| matches!(error, StoreError::Fenced { .. }));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    assert_eq!(site.store.open_inputs(desk.agent(), ALL).await, Ok(vec![]));
}
