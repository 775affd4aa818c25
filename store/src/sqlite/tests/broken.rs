//! Each switch breaks the rule it names: so that a checker that stays silent under it can be told from a blind one.

use godwit_core::id::AgentId;
use godwit_core::store::{Accepted, RuntimeStore, StoreError, UnitFailure};

use super::fixture::{Desk, Place, create, done, host, join, message};
use crate::sqlite::faults::Faults;
use crate::sqlite::{SqliteMode, SqliteStore};

/// Opens a store with faults; without them, for comparison.
fn stores(faults: Faults) -> [(Place, std::sync::Arc<SqliteStore>); 2] {
    [Faults::default(), faults].map(|faults| {
        let place = Place::new();
        let mut env = place.env(SqliteMode::Shared);
        env.faults = faults;
        let store = SqliteStore::open_in(&place.path(), env).unwrap();
        (place, store)
    })
}

#[tokio::test]
async fn without_the_token_check_a_stale_owner_commits() {
    let faults = Faults { no_token_check: true, ..Faults::default() };
    let mut outcomes = Vec::new();
    for (_place, store) in stores(faults) {
        let mut stale = Desk::new(&store, "a").await;
        join(&store, 2).await;
        let migration = godwit_core::id::MigrationId([1; 16]);
        let base = stale.revision;
        store.transfer(&stale.owner, base, migration, host(2)).await.unwrap();
        let unit = stale.ask(message(&stale.owner.agent, b"late"), b"state");
        outcomes.push(store.commit_turns(unit).await);
    }
    assert!(
        matches!(outcomes[0].failure, Some(UnitFailure::Store(StoreError::Fenced { .. }))),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1], done(2));
}

#[tokio::test]
async fn without_dedup_a_repeated_key_is_another_input() {
    let faults = Faults { no_dedup: true, ..Faults::default() };
    let mut depths = Vec::new();
    for (_place, store) in stores(faults) {
        let incarnation = join(&store, 1).await;
        let agent = create(&store, "a").await;
        let input = message(&agent, b"once");
        for _ in 0..2 {
            store.accept(input.clone(), incarnation).await.unwrap();
        }
        depths.push(store.agent(&agent).await.unwrap().unwrap().open_inputs);
    }
    assert_eq!(depths, [1, 2]);
}

#[tokio::test]
async fn with_ack_before_commit_refused_writes_are_acknowledged() {
    let faults = Faults { ack_before_commit: true, ..Faults::default() };
    let mut answers = Vec::new();
    for (_place, store) in stores(faults) {
        let mut desk = Desk::new(&store, "a").await;
        let accepted = store.accept(message(&desk.owner.agent, b"x"), desk.owner.incarnation).await;
        assert!(matches!(accepted, Ok(Accepted::New { .. })), "{accepted:?}");
        let unknown = AgentId::parse("unknown").unwrap();
        desk.owner.agent = unknown.clone();
        let unit = desk.ask(message(&unknown, b"lost"), b"state");
        answers.push(store.commit_turns(unit).await.committed);
    }
    assert_eq!(answers, [0, 2]);
}
