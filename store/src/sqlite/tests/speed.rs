//! A smoke figure, printed and not judged: asks per second, one by one and concurrently.

use std::sync::Arc;
use std::time::Duration;

use godwit_core::store::RuntimeStore;
use godwit_core::time::{Clock, SystemClock};

use super::fixture::{Desk, Place, create, done, join, message};
use crate::sqlite::{SqliteMode, SqliteStore};

const AGENTS: usize = 64;
const FOR: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn asks_commit_one_by_one_and_in_groups() {
    let place = Place::new();
    let clock = Arc::new(SystemClock);
    let store = SqliteStore::open(&place.path(), SqliteMode::Exclusive, clock).unwrap();
    let incarnation = join(&store, 1).await;
    let state = vec![5_u8; 1_024];
    let mut desks = Vec::new();
    for number in 0..AGENTS {
        let agent = create(&store, &format!("a{number}")).await;
        desks.push(Desk::take(&store, incarnation, &agent).await);
    }

    let begun = SystemClock.boot();
    let mut asks = 0_u32;
    while SystemClock.boot() - begun < FOR {
        desks[0].asked(&store, b"ask", &state).await;
        asks += 1;
    }
    let alone = f64::from(asks) / (SystemClock.boot() - begun).as_secs_f64();

    let (begun, commits) = (SystemClock.boot(), store.commits());
    let tasks: Vec<_> = desks
        .into_iter()
        .map(|mut desk| {
            let (store, state) = (Arc::clone(&store), state.clone());
            tokio::spawn(async move {
                let mut asks = 0_u32;
                while SystemClock.boot() - begun < FOR {
                    let unit = desk.ask(message(&desk.owner.agent, b"ask"), &state);
                    assert_eq!(store.commit_turns(unit).await, done(2));
                    asks += 1;
                }
                asks
            })
        })
        .collect();
    let mut asks = 0;
    for task in tasks {
        asks += task.await.unwrap();
    }
    let together = f64::from(asks) / (SystemClock.boot() - begun).as_secs_f64();
    let per_commit = f64::from(asks) / (store.commits() - commits) as f64;
    println!(
        "asks/s: {alone:.0} one by one, {together:.0} from {AGENTS} tasks ({per_commit:.1} per transaction)"
    );
}
