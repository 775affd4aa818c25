//! Turns whose rows have no room: faults of the guest, counted as such, and nobody else's.

use super::*;
use crate::input::{Fault, FaultKind, InputState};

async fn small() -> World {
    world_within(Durability::Auto, Quotas { state_keys_max: 3, ..Quotas::default() }).await
}

fn fault(answer: &Answer) -> &Fault {
    match answer {
        Answer::Ended {
            outcome: Outcome::DeadLettered { reason: DeadLetterReason::Fault { fault, attempts: 3 }, .. },
            ..
        } => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_turn_that_leaves_too_many_rows_is_a_dead_letter_after_its_attempts() {
    let world = small().await;
    let handle = world.drive().await;
    world.ask(&handle, "paint 2 red").await;
    let ended = world.ask(&handle, "paint 5 blue").await;
    let Fault { kind, message } = fault(&ended);
    assert_eq!(*kind, FaultKind::Effects);
    assert!(message.contains("5 rows, and may be 3"), "{message}");
    assert_eq!(reply(&world.ask(&handle, "read row-0").await), "red", "nothing of it is there");
    world.ask(&handle, "paint 3 green").await;
    assert_eq!(reply(&world.ask(&handle, "read row-2").await), "green");
    assert!(world.open().await.is_empty());
    let row = world.env.store.agent(&world.agent).await.unwrap().unwrap();
    assert_eq!((row.state_keys, row.lifecycle), (3, Lifecycle::Active));
}

#[tokio::test]
async fn turns_around_one_without_room_commit_in_their_order() {
    let world = small().await;
    let handle = world.drive().await;
    world.ask(&handle, "add 1").await;
    let mut asked = Vec::new();
    for text in ["add 10", "paint 9 blue", "add 100", "add 1000"] {
        asked.push(handle.ask(world.input(text, None)));
    }
    let ended = within(Duration::from_secs(20), join_all(asked)).await.expect("all end");
    let ended: Vec<Answer> = ended.into_iter().map(|answer| answer.expect("a driver")).collect();
    fault(&ended[1]);
    assert_eq!(reply(&ended[0]), "11");
    assert_eq!([reply(&ended[2]), reply(&ended[3])], ["111", "1111"]);
    assert_eq!(reply(&world.ask(&handle, "get").await), "1111");
}

#[tokio::test]
async fn a_batch_without_room_runs_one_by_one() {
    let world = small().await;
    for text in ["add 1", "paint 7 blue", "add 2"] {
        world.accept(world.event(text)).await;
    }
    let handle = world.drive().await;
    handle.wake();
    let paint = async {
        while !world.open().await.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(Duration::from_secs(20), paint).await.expect("all end");
    assert_eq!(reply(&world.ask(&handle, "get").await), "3");
    let letters =
        world.env.store.inputs(&world.agent, Some(InputState::DeadLettered), Page { after: 0, limit: 9 });
    assert_eq!(letters.await.unwrap().len(), 1);
}
