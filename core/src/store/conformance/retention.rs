//! Retention: what has ended goes when its time is over, and nothing else does.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};

use crate::digest::Digest;
use crate::id::{HostId, Revision, Seq};
use crate::input::InputState;
use crate::limits::{INPUTS_KEPT, OUTPUT_LIFETIME, PAGE_MAX, PRUNE_ROWS_MAX};
use crate::migration::{Phase, Role};
use crate::output::UndeliverableReason;
use crate::receipt::{BoundaryKind, Checkpoint, ReceiptCheckpoint};
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    ALL, Desk, Turn, World, host, id, is_conflict, is_not_home, keyed, message, migration, picture,
    put_plugin,
};
use crate::store::conformance::migrations::record;
use crate::store::{
    Accepted, OutputEnd, OutputKey, PrepareRequest, Pruned, Retention, Sharing, StoreError, StoredInput,
};
use crate::time::Clock;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_end_has_a_time_and_a_redriven_input_has_none),
        Case::of(ended_inputs_go_when_their_time_is_over),
        Case::of(a_pruned_key_is_new_again),
        Case::of(open_inputs_stay_however_old),
        Case::of(the_newest_dead_letters_stay),
        Case::of(what_replay_would_need_stays),
        Case::of(many_are_pruned_in_bounded_steps),
        Case::of(what_stays_does_not_keep_what_is_behind_it),
        Case::of(old_undeliverable_outputs_go),
        Case::of(nothing_goes_while_a_migration_is_open),
        Case::of(the_count_of_what_went_moves_with_the_agent),
        Case::of(receipts_are_replaced_by_a_signed_checkpoint),
        Case::of(a_checkpoint_that_does_not_fit_changes_nothing),
        Case::of(checkpoints_move_with_the_agent),
    ]
}

const FIRST: Seq = Seq(0);

/// A day more than ended inputs are kept.
fn long() -> Duration {
    INPUTS_KEPT + Duration::from_secs(24 * 3600)
}

async fn prune(desk: &Desk) -> Pruned {
    desk.store().prune(desk.agent(), &Retention::default(), FIRST).await.unwrap()
}

async fn seqs(desk: &Desk) -> Vec<u64> {
    let inputs = desk.store().inputs(desk.agent(), None, ALL).await.unwrap();
    inputs.iter().map(|input| input.seq.0).collect()
}

async fn end(desk: &Desk, input: &StoredInput) {
    desk.turn(Turn::ends([input]).snapshot("s")).await;
}

fn removed(inputs: u64) -> Pruned {
    Pruned { inputs, ..Pruned::default() }
}

async fn an_end_has_a_time_and_a_redriven_input_has_none(world: World) {
    let desk = world.site("a").await.own("x").await;
    let input = desk.accept("one").await;
    assert_eq!(input.ended_at_ms, None);
    world.clock.advance(Duration::from_secs(5));
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&input])).await;
    let stored = || async { desk.store().input(desk.agent(), input.input.id).await.unwrap().unwrap() };
    assert_eq!(stored().await.ended_at_ms, Some(world.clock.wall_ms()));
    desk.store().redrive(desk.agent(), input.input.id).await.unwrap();
    assert_eq!(stored().await.ended_at_ms, None);
}

async fn ended_inputs_go_when_their_time_is_over(world: World) {
    let desk = world.site("a").await.own("x").await;
    let (one, two) = (desk.accept("one").await, desk.accept("two").await);
    end(&desk, &one).await;
    world.clock.advance(INPUTS_KEPT - Duration::from_millis(1));
    end(&desk, &two).await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(prune(&desk).await, removed(0));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(prune(&desk).await, removed(1));
    assert_eq!(seqs(&desk).await, [2]);
    assert_eq!(desk.store().input(desk.agent(), one.input.id).await, Ok(None));
    assert_eq!(desk.row().await.inputs_pruned, 1);
    assert_eq!(prune(&desk).await, removed(0));
    let nobody = desk.store().prune(&id("nobody"), &Retention::default(), FIRST).await;
    assert_eq!(nobody, Err(StoreError::NoAgent));
}

async fn a_pruned_key_is_new_again(world: World) {
    let desk = world.site("a").await.own("x").await;
    let by = desk.owner.incarnation;
    desk.store().accept(keyed(desk.agent(), "key", "one"), by).await.unwrap();
    let input = desk.store().inputs(desk.agent(), None, ALL).await.unwrap().remove(0);
    end(&desk, &input).await;
    world.clock.advance(long());
    let again = desk.store().accept(keyed(desk.agent(), "key", "one"), by).await;
    assert!(matches!(again, Ok(Accepted::Duplicate(_))), "not pruned yet: {again:?}");
    assert_eq!(prune(&desk).await, removed(1));
    let again = desk.store().accept(keyed(desk.agent(), "key", "another body"), by).await;
    assert_eq!(again, Ok(Accepted::New { seq: Seq(2) }));
}

async fn open_inputs_stay_however_old(world: World) {
    let desk = world.site("a").await.own("x").await;
    let (one, _) = (desk.accept("one").await, desk.accept("two").await);
    let unit = desk.chain().await.attempt(one.seq, InputState::Staged, 1).unit();
    desk.commit(unit).await;
    world.clock.advance(long());
    assert_eq!(prune(&desk).await, removed(0));
    assert_eq!(seqs(&desk).await, [1, 2]);
}

async fn the_newest_dead_letters_stay(world: World) {
    let desk = world.site("a").await.own("x").await;
    for body in ["one", "two", "three"] {
        let input = desk.accept(body).await;
        let turn = Turn::of(BoundaryKind::DeadLetter).and_ends([&input]).snapshot("s");
        desk.turn(turn).await;
    }
    world.clock.advance(long());
    assert_eq!(prune(&desk).await, removed(0));
    let keep = |dead_letters| Retention { dead_letters, ..Retention::default() };
    let pruned = desk.store().prune(desk.agent(), &keep(2), FIRST).await;
    assert_eq!((pruned, seqs(&desk).await), (Ok(removed(1)), vec![2, 3]));
    let pruned = desk.store().prune(desk.agent(), &keep(0), FIRST).await;
    assert_eq!((pruned, seqs(&desk).await), (Ok(removed(2)), vec![]));
}

async fn what_replay_would_need_stays(world: World) {
    let desk = world.site("a").await.own("x").await;
    let (one, two) = (desk.accept("one").await, desk.accept("two").await);
    end(&desk, &one).await;
    desk.turn(Turn::ends([&two])).await;
    world.clock.advance(long());
    assert_eq!(prune(&desk).await, removed(1));
    assert_eq!(seqs(&desk).await, [2]);
    for _ in 0..2 {
        desk.turn(Turn::ends([]).snapshot("base").journaled()).await;
    }
    assert_eq!(prune(&desk).await, removed(1), "no kept snapshot needs its journal entry");
    assert_eq!(seqs(&desk).await, [0; 0]);
}

async fn many_are_pruned_in_bounded_steps(world: World) {
    let desk = world.site("a").await.own("x").await;
    let count = PRUNE_ROWS_MAX as u64 + 10;
    let mut turn = Turn::of(BoundaryKind::Turn).snapshot("s");
    for number in 0..count {
        let input = desk.accept(&format!("{number}")).await;
        turn = turn.and_ends([&input]);
    }
    desk.turn(turn).await;
    world.clock.advance(long());
    let first = prune(&desk).await;
    let last = Seq(PRUNE_ROWS_MAX as u64);
    assert_eq!(first, Pruned { inputs: last.0, outputs: 0, next: Some(last) });
    let rest = desk.store().prune(desk.agent(), &Retention::default(), last).await;
    assert_eq!(rest, Ok(removed(10)));
    assert_eq!((seqs(&desk).await, desk.row().await.inputs_pruned), (vec![], count));
}

async fn what_stays_does_not_keep_what_is_behind_it(world: World) {
    let desk = world.site("a").await.own("x").await;
    // A whole page stays: an open input, and young ones that ended long after what came behind them.
    let mut late = Turn::of(BoundaryKind::Turn).snapshot("s");
    desk.accept("open").await;
    for number in 1..PRUNE_ROWS_MAX {
        late = late.and_ends([&desk.accept(&format!("late {number}")).await]);
    }
    let behind = desk.accept("early").await;
    end(&desk, &behind).await;
    world.clock.advance(long());
    desk.turn(late).await;
    let first = prune(&desk).await;
    let last = Seq(PRUNE_ROWS_MAX as u64);
    assert_eq!(first, Pruned { next: Some(last), ..Pruned::default() });
    let rest = desk.store().prune(desk.agent(), &Retention::default(), last).await;
    assert_eq!(rest, Ok(removed(1)));
    assert_eq!(desk.store().input(desk.agent(), behind.input.id).await, Ok(None));
}

async fn old_undeliverable_outputs_go(world: World) {
    let desk = world.site("a").await.own("x").await;
    let other = id("somebody");
    desk.turn(Turn::of(BoundaryKind::Init).output(&other, "first").output(&other, "second")).await;
    let key = OutputKey { destination: other, generation: desk.owner.generation, number: 1 };
    let end = OutputEnd::Undeliverable(UndeliverableReason::NotFound);
    desk.store().end_outputs(&desk.owner, &[(key, end)]).await.unwrap();
    world.clock.advance(long());
    assert_eq!(prune(&desk).await, removed(0));
    world.clock.advance(OUTPUT_LIFETIME);
    assert_eq!(prune(&desk).await, Pruned { outputs: 1, ..Pruned::default() });
    let left = desk.store().outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(left.iter().map(|output| output.number).collect::<Vec<_>>(), [2]);
}

async fn nothing_goes_while_a_migration_is_open(world: World) {
    let site = world.site("a").await;
    let desk = site.own("x").await;
    let input = desk.accept("one").await;
    end(&desk, &input).await;
    world.clock.advance(long());
    let store = desk.store();
    store.put_migration(record(1, "x", Role::Source, Phase::Reserve)).await.unwrap();
    assert_eq!(prune(&desk).await, removed(0));
    let base = desk.row().await.revision;
    store.begin_handoff(&desk.owner, base, migration(1), host(2)).await.unwrap();
    let refused = store.prune(desk.agent(), &Retention::default(), FIRST).await;
    assert!(matches!(&refused, Err(error) if is_not_home(error)), "{refused:?}");
    store.abort_handoff(desk.agent(), migration(1), site.incarnation).await.unwrap();
    store.put_migration(record(1, "x", Role::Source, Phase::Aborted)).await.unwrap();
    let desk = site.desk(store.lease(desk.agent()).await.unwrap().unwrap());
    assert_eq!(prune(&desk).await, removed(1));
}

async fn the_count_of_what_went_moves_with_the_agent(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    put_plugin(&target.store, "plain").await;
    let desk = source.own("x").await;
    let input = desk.accept("one").await;
    end(&desk, &input).await;
    world.clock.advance(long());
    assert_eq!(prune(&desk).await, removed(1));
    let by = desk.owner.incarnation;
    desk.store().accept(message(desk.agent(), "two"), by).await.unwrap();
    let frames = desk.store().export_rows(desk.agent(), 0, usize::MAX).await.unwrap();
    target.store.receive_rows(migration(1), desk.agent(), frames).await.unwrap();
    let row = desk.row().await;
    let request = PrepareRequest {
        migration: migration(1),
        agent: desk.agent().clone(),
        source: source.host,
        token: desk.owner.token.next(),
        generation: row.generation,
        revision: row.revision,
        frames: Vec::new(),
    };
    target.store.prepare(request).await.unwrap();
    let copy = target.store.agent(desk.agent()).await.unwrap().unwrap();
    assert_eq!((copy.inputs_pruned, copy.next_seq), (1, Seq(3)));
}

/// A checkpoint that the first receipts of an agent make, signed by a host of its own.
async fn checkpoint(desk: &Desk, to: u64) -> ReceiptCheckpoint {
    let generation = desk.owner.generation;
    let receipts = desk.store().receipts(desk.agent(), generation, Revision(0), PAGE_MAX).await.unwrap();
    let known = desk.store().receipt_checkpoints(desk.agent()).await.unwrap().pop();
    let start = || Checkpoint::start(desk.agent(), generation);
    let mut checkpoint = known.map_or_else(start, |known| known.checkpoint);
    for receipt in receipts.iter().filter(|receipt| receipt.revision.0 <= to) {
        checkpoint.push(receipt).unwrap();
    }
    sign(checkpoint)
}

fn sign(checkpoint: Checkpoint) -> ReceiptCheckpoint {
    let key = SigningKey::from_bytes(&[9; 32]);
    let host = HostId(key.verifying_key().to_bytes());
    checkpoint.sign(host, |bytes| key.sign(bytes).to_bytes())
}

/// An agent with receipts 1 to 5, of which the last stored a snapshot.
async fn five_turns(desk: &Desk) {
    for number in 1..=5 {
        let input = desk.accept(&format!("{number}")).await;
        desk.turn(Turn::ends([&input]).snapshot("s")).await;
    }
}

async fn revisions(desk: &Desk) -> Vec<u64> {
    let receipts =
        desk.store().receipts(desk.agent(), desk.owner.generation, Revision(0), PAGE_MAX).await.unwrap();
    receipts.iter().map(|receipt| receipt.revision.0).collect()
}

async fn receipts_are_replaced_by_a_signed_checkpoint(world: World) {
    let site = world.site("a").await;
    let desk = site.own("x").await;
    assert_eq!(desk.store().kept_from(desk.agent()).await, Ok(Revision(0)));
    five_turns(&desk).await;
    assert_eq!(desk.store().kept_from(desk.agent()).await, Ok(Revision(5)));
    let first = checkpoint(&desk, 2).await;
    assert_eq!(desk.store().checkpoint_receipts(first.clone()).await, Ok(2));
    assert_eq!(desk.store().checkpoint_receipts(first.clone()).await, Ok(0), "repeated");
    assert_eq!(desk.store().receipt_checkpoints(desk.agent()).await, Ok(vec![first]));
    assert_eq!(revisions(&desk).await, [3, 4, 5]);
    let second = checkpoint(&desk, 4).await;
    assert_eq!((second.checkpoint.revision, second.checkpoint.inputs), (Revision(4), 4));
    assert_eq!(desk.store().checkpoint_receipts(second.clone()).await, Ok(2));
    assert_eq!(desk.store().receipt_checkpoints(desk.agent()).await, Ok(vec![second.clone()]));
    let image = desk.store().image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.check(), image.receipts.len()), (Ok(()), 1));
    let input = desk.accept("six").await;
    desk.turn(Turn::ends([&input]).snapshot("s")).await;
    assert_eq!(revisions(&desk).await, [5, 6]);
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.receipt_checkpoints(&id("x")).await, Ok(vec![second]));
    assert_eq!(store.receipt_checkpoints(&id("nobody")).await, Ok(Vec::new()));
}

async fn a_checkpoint_that_does_not_fit_changes_nothing(world: World) {
    let desk = world.site("a").await.own("x").await;
    five_turns(&desk).await;
    let good = checkpoint(&desk, 3).await;
    let head = Digest::of(b"another");
    let wrong = [
        ReceiptCheckpoint { signature: vec![0; 64], ..good.clone() },
        sign(Checkpoint { head, ..good.checkpoint.clone() }),
        sign(Checkpoint { revision: Revision(9), ..good.checkpoint.clone() }),
        // Receipt 5 is that of the snapshot.
        checkpoint(&desk, 5).await,
        sign(Checkpoint { generation: crate::id::Generation(7), ..good.checkpoint.clone() }),
    ];
    let before = picture(desk.store(), desk.agent()).await;
    for wrong in wrong {
        let refused = desk.store().checkpoint_receipts(wrong.clone()).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?} to {wrong:?}");
        assert_eq!(picture(desk.store(), desk.agent()).await, before, "{wrong:?}");
    }
    desk.store().put_migration(record(1, "x", Role::Source, Phase::Reserve)).await.unwrap();
    assert_eq!(desk.store().checkpoint_receipts(good.clone()).await, Err(StoreError::Busy));
    desk.store().put_migration(record(1, "x", Role::Source, Phase::Aborted)).await.unwrap();
    assert_eq!(desk.store().checkpoint_receipts(good.clone()).await, Ok(3));
    // What went can't be named again.
    let older = sign(Checkpoint { revision: Revision(2), ..good.checkpoint });
    let refused = desk.store().checkpoint_receipts(older).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
}

async fn checkpoints_move_with_the_agent(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    put_plugin(&target.store, "plain").await;
    let desk = source.own("x").await;
    five_turns(&desk).await;
    let signed = checkpoint(&desk, 3).await;
    desk.store().checkpoint_receipts(signed.clone()).await.unwrap();
    let frames = desk.store().export_rows(desk.agent(), 0, usize::MAX).await.unwrap();
    let row = desk.row().await;
    let request = PrepareRequest {
        migration: migration(1),
        agent: desk.agent().clone(),
        source: source.host,
        token: desk.owner.token.next(),
        generation: row.generation,
        revision: row.revision,
        frames,
    };
    target.store.prepare(request).await.unwrap();
    assert_eq!(target.store.receipt_checkpoints(desk.agent()).await, Ok(vec![signed]));
    let receipts = target.store.receipts(desk.agent(), row.generation, Revision(0), PAGE_MAX).await.unwrap();
    assert_eq!(receipts.first().map(|receipt| receipt.revision), Some(Revision(4)));
}
