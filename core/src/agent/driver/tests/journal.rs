//! Journaled agents: what a commit writes, and that an agent is the same after its turns ran again.

use super::*;
use crate::agent::Checkpointed;
use crate::id::Generation;
use crate::limits::AUTO_SNAPSHOT_BYTES_MAX;
use crate::store::AgentImage;

impl World {
    async fn image(&self) -> AgentImage {
        self.env.store.image(&self.agent, None).await.unwrap().unwrap()
    }

    /// Ends the driver, and starts over as a new incarnation. A long tail gets a snapshot on the way out.
    async fn restart(&mut self) {
        self.tasks.close().await;
        self.tasks = TaskGroup::default();
        self.incarnation = join(self.env.store.as_ref()).await;
    }

    async fn journaled(&self) -> Vec<u64> {
        self.image().await.journal.keys().map(|revision| revision.0).collect()
    }
}

fn checkpointed(revision: u64) -> Checkpointed {
    Checkpointed { generation: Generation(1), revision: Revision(revision) }
}

/// What an agent says of itself that depends on its whole history since its base.
async fn portrait(world: &World, handle: &Handle) -> Vec<String> {
    let mut said = Vec::new();
    for text in ["age", "get", "read a", "dice", "get"] {
        said.push(reply(&world.ask(handle, text).await));
    }
    said
}

#[tokio::test]
async fn journaled_turns_run_again_and_give_the_same() {
    let mut world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    for text in ["add 2", "write a hello", "read a", "write a bye", "dice", "age"] {
        world.ask(&handle, text).await;
    }
    assert_eq!(world.journaled().await, [2, 3, 4, 5, 6, 7]);
    assert_eq!(world.image().await.snapshot.unwrap().revision, Revision(1), "that of init");
    let before = reply(&world.ask(&handle, "get").await);
    world.restart().await;
    let again = world.drive().await;
    assert_eq!(reply(&world.ask(&again, "get").await), before);
    let age = reply(&world.ask(&again, "age").await);
    assert_eq!(age, "9", "every turn since the base, those that ran again as well");
    assert_eq!(reply(&world.ask(&again, "read a").await), "bye");
    assert_eq!(world.image().await.check(), Ok(()));
}

#[tokio::test]
async fn a_turn_that_does_something_else_breaks_the_agent() {
    let mut world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    world.ask(&handle, "drift").await;
    world.restart().await;
    let again = world.drive().await;
    match world.ask(&again, "get").await {
        Answer::NotAccepted(NotAccepted::Broken(BrokenReason::Diverged { message })) => {
            assert!(message.contains("turn 3"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let row = world.env.store.agent(&world.agent).await.unwrap().unwrap();
    assert!(matches!(row.lifecycle, Lifecycle::Broken(BrokenReason::Diverged { .. })), "{row:?}");
}

#[tokio::test]
async fn a_long_tail_ends_in_a_base_from_which_live_run_and_replay_both_start() {
    let mut world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    let long = "x".repeat(10_000);
    for turn in 0..20 {
        let answer = world.ask(&handle, &format!("write b{turn} {long}")).await;
        assert!(matches!(answer, Answer::Ended { .. }), "{answer:?}");
    }
    let image = world.image().await;
    let base = image.snapshot.unwrap().revision;
    assert!(base > Revision(5), "{base}");
    assert_eq!(image.journal.len() as u64, image.row.revision.0 - base.0);
    let kept = world.env.store.kept_snapshots(&world.agent).await.unwrap();
    assert_eq!(kept.len(), 2);
    let age = reply(&world.ask(&handle, "age").await);
    assert_eq!(age, (image.row.revision.0 - base.0 + 1).to_string(), "a new instance since the base");
    let before = portrait(&world, &handle).await;
    world.restart().await;
    let image = world.image().await;
    let tail = image.row.revision.0 - image.snapshot.unwrap().revision.0;
    let again = world.drive().await;
    let after = portrait(&world, &again).await;
    assert_eq!(after[0], (tail + 1).to_string());
    assert_eq!(after[1], before[4], "the sum");
}

#[tokio::test]
async fn auto_writes_snapshots_while_they_are_small() {
    let mut world = world_of(Durability::Auto).await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    assert_eq!(world.journaled().await, [0; 0]);
    assert_eq!(world.image().await.snapshot.unwrap().revision, Revision(2));
    world.ask(&handle, &format!("pad {}", AUTO_SNAPSHOT_BYTES_MAX + 1)).await;
    assert_eq!(world.image().await.snapshot.unwrap().revision, Revision(3), "the last one of the small ones");
    assert_eq!(reply(&world.ask(&handle, "age").await), "1", "restored from it");
    world.ask(&handle, "add 2").await;
    assert_eq!(world.journaled().await, [4, 5]);
    world.restart().await;
    let again = world.drive().await;
    assert_eq!(reply(&world.ask(&again, "get").await), "3");
    assert_eq!(reply(&world.ask(&again, "age").await), "4");
}

#[tokio::test]
async fn a_checkpoint_is_a_base() {
    let mut world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    world.ask(&handle, "add 5").await;
    assert_eq!(handle.checkpoint().await, Ok(checkpointed(2)));
    assert_eq!(handle.checkpoint().await, Ok(checkpointed(2)), "it is there already");
    assert_eq!(world.journaled().await, [0; 0]);
    assert_eq!(reply(&world.ask(&handle, "age").await), "1");
    assert_eq!(world.journaled().await, [3]);
    let older = world.env.store.image(&world.agent, Some(Revision(1))).await.unwrap().unwrap();
    assert_eq!(older.journal.len(), 2);
    world.restart().await;
    let again = world.drive().await;
    assert_eq!(reply(&world.ask(&again, "age").await), "2");
    assert_eq!(reply(&world.ask(&again, "get").await), "5");
}

#[tokio::test]
async fn failed_turns_and_dead_letters_leave_the_history_as_it_runs_again() {
    let world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    let ended = world.ask(&handle, "fatal").await;
    assert!(matches!(ended, Answer::Ended { outcome: Outcome::DeadLettered { .. }, .. }), "{ended:?}");
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "2");
    assert_eq!(reply(&world.ask(&handle, "age").await), "3", "the failed turn is not part of it");
    assert_eq!(world.journaled().await, [2, 4, 5]);
    assert_eq!(reply(&world.ask(&handle, "retry-until 2").await), "2");
    handle.park().await;
    let again = world.drive().await;
    assert_eq!(reply(&world.ask(&again, "get").await), "2");
}

#[tokio::test]
async fn a_tail_of_another_plugin_than_the_spec_is_damage() {
    let world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    let mut image = world.image().await;
    assert_eq!(image.check(), Ok(()));
    image.spec.plugin = crate::digest::Digest::of(b"another");
    assert!(image.check().unwrap_err().contains("plugin"));
}

#[tokio::test]
async fn a_turn_reads_what_earlier_turns_of_its_chain_wrote() {
    for durability in Durability::ALL {
        let world = world_of(durability).await;
        // All of them wait before the driver starts: they run in one go.
        for text in ["write a one", "write a two", "read a", "write b three"] {
            world.env.store.accept(world.input(text, None), world.incarnation).await.unwrap();
        }
        let handle = world.drive().await;
        assert_eq!(reply(&world.ask(&handle, "read b").await), "three");
        let inputs = world.env.store.inputs(&world.agent, None, Page { after: 0, limit: 9 }).await.unwrap();
        let Some(Outcome::Committed { reply: read, .. }) = &inputs[2].outcome else { panic!("{inputs:?}") };
        assert_eq!(read.outcome, ReplyOutcome::Ok("two".into()), "{durability:?}");
        assert_eq!(world.image().await.check(), Ok(()));
    }
}
