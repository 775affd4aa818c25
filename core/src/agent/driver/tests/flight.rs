//! Tests of turns that run on top of commits which have not returned.

use tokio::task::JoinHandle;

use super::super::flight::FLIGHTS_MAX;
use super::*;
use crate::agent::Interrupted;
use crate::event::EventKind;
use crate::input::{AbandonReason, InputState};
use crate::store::memory::{CommitPoint, Doubt};

/// Long enough for a turn that should not run to be seen.
const WHILE: Duration = Duration::from_millis(60);

impl World {
    /// Asks, and comes back when the guest has run the turn `calls` times.
    async fn ask_until_run(&self, handle: &Handle, text: &str, calls: u64) -> JoinHandle<Answer> {
        let before = self.loader.handled();
        let (handle, input) = (handle.clone(), self.input(text, None));
        let asking = tokio::spawn(async move { handle.ask(input).await.expect("a driver") });
        self.until_run(before + calls).await;
        asking
    }

    async fn until_run(&self, handled: u64) {
        eventually("the turn", || self.loader.handled() >= handled).await;
    }

    async fn revision(&self) -> Revision {
        self.env.store.agent(&self.agent).await.unwrap().unwrap().revision
    }

    /// A driver that has committed `init` and one turn.
    async fn driven() -> (Self, Handle) {
        let world = world().await;
        let handle = world.drive().await;
        assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
        (world, handle)
    }
}

async fn answer(asking: JoinHandle<Answer>) -> Answer {
    within(Duration::from_secs(20), asking).await.expect("an answer in time").unwrap()
}

#[tokio::test]
async fn turns_run_on_commits_that_wait_and_are_released_after_their_own() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let first = world.ask_until_run(&handle, "write k v", 1).await;
    let second = world.ask_until_run(&handle, "read k", 1).await;
    sleep(WHILE).await;
    assert!(!first.is_finished() && !second.is_finished(), "nothing is said before its commit");
    assert!(world.notices.lock().unwrap().is_empty());
    assert_eq!(world.revision().await, Revision(2));
    drop(held);
    assert_eq!(reply(&answer(first).await), "1");
    assert_eq!(reply(&answer(second).await), "v", "a turn sees what is not committed yet");
    assert_eq!(reply(&world.ask(&handle, "read k").await), "v", "and what is");
}

#[tokio::test]
async fn a_driver_runs_ahead_up_to_its_bound() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let mut asking = Vec::new();
    for _ in 0..FLIGHTS_MAX {
        asking.push(world.ask_until_run(&handle, "add 1", 1).await);
    }
    let handled = world.loader.handled();
    asking.push(world.ask_until_run(&handle, "add 1", 0).await);
    sleep(WHILE).await;
    assert_eq!(world.loader.handled(), handled, "it waits for a commit first");
    drop(held);
    for (asking, sum) in asking.into_iter().zip(2..) {
        assert_eq!(reply(&answer(asking).await), sum.to_string());
    }
}

#[tokio::test]
async fn a_refused_commit_takes_back_all_above_it_and_nothing_is_counted() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let first = world.ask_until_run(&handle, "add 10", 1).await;
    let second = world.ask_until_run(&handle, "add 100", 1).await;
    // Takes the seq for which the first was run.
    let sent = world.accept(world.input("add 1000", None)).await;
    drop(held);
    assert_eq!(reply(&answer(first).await), "1011", "behind what was accepted before it");
    assert_eq!(reply(&answer(second).await), "1111");
    let turns = world.turns().await;
    assert_eq!(turns.len(), 4, "one turn per input: {turns:?}");
    assert_eq!(turns[1], [sent]);
    assert_eq!(world.revision().await, Revision(5), "no dead letter, no attempt");
}

#[tokio::test]
async fn a_commit_above_one_whose_answer_was_lost_is_released() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    world.memory.doubt(CommitPoint::Turns, Doubt::Written);
    let first = world.ask_until_run(&handle, "add 10", 1).await;
    let second = world.ask_until_run(&handle, "add 100", 1).await;
    drop(held);
    assert!(matches!(answer(first).await, Answer::Unknown { .. }), "nobody knows");
    assert_eq!(reply(&answer(second).await), "111", "it has committed, whatever is said of the one below");
    assert_eq!(reply(&world.ask(&handle, "get").await), "111");
    assert_eq!(world.turns().await.len(), 4, "one turn per input");
}

#[tokio::test]
async fn durable_inputs_on_their_way_are_not_run_again_whatever_is_read() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let handled = world.loader.handled();
    let id = world.accept(world.input("add 10", None)).await;
    handle.wake();
    world.until_run(handled + 1).await;
    let joined = (handle.clone(), handle.clone());
    let first = tokio::spawn(async move { joined.0.join(id, Seq(2)).await });
    let later = world.accept(world.input("add 100", None)).await;
    handle.wake();
    world.until_run(handled + 2).await;
    handle.reload().await;
    let second = tokio::spawn(async move { joined.1.join(id, Seq(2)).await });
    sleep(WHILE).await;
    assert_eq!(world.loader.handled(), handled + 2, "each has run once");
    drop(held);
    assert_eq!((reply(&answer(first).await), reply(&answer(second).await)), ("11".into(), "11".into()));
    assert_eq!(reply(&world.ask(&handle, "get").await), "111");
    assert_eq!(world.turns().await[1..3], [[id], [later]]);
    assert_eq!(world.loader.handled(), handled + 3);
}

#[tokio::test]
async fn an_input_that_was_given_up_on_its_way_takes_nothing_with_it() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let handled = world.loader.handled();
    let id = world.accept(world.input("add 10", None)).await;
    handle.wake();
    world.until_run(handled + 1).await;
    let later = world.accept(world.input("add 100", None)).await;
    handle.wake();
    world.until_run(handled + 2).await;
    let (store, reason) = (&world.env.store, AbandonReason::Cancelled);
    store.abandon(&world.agent, id, InputState::Queued, reason).await.unwrap();
    drop(held);
    assert_eq!(reply(&world.ask(&handle, "get").await), "101", "only the later one counts");
    assert_eq!(world.turns().await[1], [later]);
}

#[tokio::test]
async fn what_needs_a_committed_boundary_waits_for_the_commits() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let asking = world.ask_until_run(&handle, "add 10", 1).await;
    let freezing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.freeze().await.unwrap() }
    });
    sleep(WHILE).await;
    assert!(!freezing.is_finished());
    drop(held);
    let frozen = freezing.await.unwrap();
    assert_eq!((frozen.revision, world.revision().await), (Revision(3), Revision(3)));
    assert_eq!(reply(&answer(asking).await), "11");
    drop(frozen);

    let held = world.memory.hold_commits().await;
    let asking = world.ask_until_run(&handle, "add 10", 1).await;
    let parking = tokio::spawn({
        let handle = handle.clone();
        async move { handle.park().await }
    });
    sleep(WHILE).await;
    assert!(!parking.is_finished(), "an agent parks with all it has done");
    drop(held);
    parking.await.unwrap();
    assert_eq!(reply(&answer(asking).await), "21");
    assert_eq!(world.revision().await, Revision(4));
}

#[tokio::test]
async fn a_turn_that_fails_on_top_of_a_commit_costs_that_one_nothing() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let first = world.ask_until_run(&handle, "add 10", 1).await;
    let failing = world.ask_until_run(&handle, "trap", 1).await;
    drop(held);
    assert_eq!(reply(&answer(first).await), "11");
    match answer(failing).await {
        Answer::Ended { outcome: Outcome::DeadLettered { reason, .. }, .. } => {
            assert!(matches!(reason, DeadLetterReason::Fault { attempts: 3, .. }), "{reason:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reply(&world.ask(&handle, "get").await), "11");
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_on_top_and_leaves_the_commit_below() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let first = world.ask_until_run(&handle, "add 10", 1).await;
    let hanging = world.ask_until_run(&handle, "hang", 0).await;
    eventually("the turn on top", || world.loader.hung() == 1).await;
    let interrupting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.interrupt().await }
    });
    sleep(WHILE).await;
    drop(held);
    assert_eq!(reply(&answer(first).await), "11");
    assert_eq!(answer(hanging).await, Answer::NotAccepted(NotAccepted::Interrupted));
    assert!(matches!(interrupting.await.unwrap(), Ok(Interrupted::NotAccepted(_))));
    assert_eq!(reply(&world.ask(&handle, "get").await), "11");
}

#[tokio::test]
async fn a_lost_lease_takes_all_that_is_on_its_way() {
    let (world, handle) = World::driven().await;
    let held = world.memory.hold_commits().await;
    let first = world.ask_until_run(&handle, "add 10", 1).await;
    let second = world.ask_until_run(&handle, "add 100", 1).await;
    let newer = join(world.env.store.as_ref()).await;
    world.env.store.acquire(newer, std::slice::from_ref(&world.agent)).await.unwrap().remove(0).unwrap();
    drop(held);
    assert_eq!((answer(first).await, answer(second).await), (Answer::Elsewhere, Answer::Elsewhere));
    assert_eq!(world.revision().await, Revision(2));
    let fenced = world.env.store.events(0, None, Some(EventKind::Fenced), 100).await.unwrap();
    assert_eq!(fenced.len(), 1, "{fenced:?}");
}
