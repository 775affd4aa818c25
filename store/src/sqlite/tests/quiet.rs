//! Checkpoints that are put off: as long as somebody has asked for quiet, and the log is not too long.

use std::sync::Arc;
use std::time::Duration;

use godwit_core::id::{AgentId, Incarnation, MigrationId};
use godwit_core::store::RuntimeStore;
use tokio::time::{Instant, sleep, timeout};

use super::fixture::{Place, StillClock, create, join, message};
use super::lazy::source;
use crate::sqlite::checkpoint::{LAZY_QUIET, Quiet};
use crate::sqlite::{SqliteMode, SqliteStore};

/// What one round writes, in bytes.
const ROUND_BYTES: u64 = 8 * 400_000;
/// Enough for a checkpoint, and not enough to make it start in any case: of 32 and 96 MiB.
const SOME_ROUNDS: u64 = 48_000_000 / ROUND_BYTES;
const SOON: Duration = Duration::from_secs(20);

/// A store whose log grows, and the size of the file that checkpoints write.
struct Scene {
    place: Place,
    store: Arc<SqliteStore>,
    incarnation: Incarnation,
    agents: Vec<AgentId>,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::new();
        let store = place.open(SqliteMode::Exclusive);
        let incarnation = join(&store, 1).await;
        let mut agents = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            agents.push(create(&store, name).await);
        }
        Self { place, store, incarnation, agents }
    }

    async fn write(&self, rounds: u64) {
        let payload = vec![9_u8; (ROUND_BYTES / 8) as usize];
        for _ in 0..rounds {
            // A commit for each: the log is looked at now and then.
            for agent in &self.agents {
                self.store.accept(message(agent, &payload), self.incarnation).await.unwrap();
            }
        }
    }

    fn moved_back(&self) -> bool {
        std::fs::metadata(self.place.path()).unwrap().len() > 16 << 20
    }

    async fn until_moved_back(&self) {
        let begun = Instant::now();
        while !self.moved_back() {
            assert!(begun.elapsed() < SOON, "the log is not moved back");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_for_the_end_of_the_quiet() {
    let loud = Scene::new().await;
    loud.write(SOME_ROUNDS).await;
    loud.until_moved_back().await;

    let scene = Scene::new().await;
    scene.store.keep_quiet(Duration::from_secs(5)).await;
    scene.write(SOME_ROUNDS).await;
    sleep(Duration::from_millis(200)).await;
    assert!(!scene.moved_back(), "it was to be quiet");
    scene.place.clock.advance(Duration::from_secs(5));
    scene.until_moved_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_ask_for_quiet_while_the_log_grows_and_grows() {
    let scene = Scene::new().await;
    scene.store.keep_quiet(Duration::from_secs(3_600)).await;
    scene.write(3 * SOME_ROUNDS).await;
    scene.until_moved_back().await;
    scene.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_while_rows_come_in() {
    let from = Place::new();
    let (desk, frames) = source(&from, 2).await;
    let scene = Scene::new().await;
    scene.store.receive_rows(MigrationId([9; 16]), &desk.owner.agent, frames).await.unwrap();
    scene.write(SOME_ROUNDS).await;
    sleep(Duration::from_millis(200)).await;
    assert!(!scene.moved_back(), "more rows may come");
    scene.place.clock.advance(LAZY_QUIET);
    scene.until_moved_back().await;
}

#[tokio::test]
async fn quiet_waits_for_the_checkpoint_that_is_under_way() {
    let quiet = Quiet::new(Arc::new(StillClock::default()));
    quiet.keep(SOON).await;
    // The log is too long to wait.
    quiet.begin(|| true);
    let mut keeping = std::pin::pin!(quiet.keep(SOON));
    assert!(futures::poll!(&mut keeping).is_pending(), "one is under way");
    quiet.end();
    assert!(futures::poll!(&mut keeping).is_ready());
    quiet.begin(|| true);
    assert!(timeout(Duration::from_secs(60), quiet.keep(Duration::from_millis(20))).await.is_ok());
    quiet.end();
}
