//! Entity keys at rest: sealed in the file, and of no use under another store's key.

use std::sync::Arc;

use godwit_core::id::AgentId;
use godwit_core::identity::EntityKeyRow;
use godwit_core::limits::Quotas;
use godwit_core::store::{Row, RuntimeStore, StoreError};

use super::fixture::{Place, create, join};
use crate::sqlite::lock::beside;
use crate::sqlite::{SealKey, SqliteMode, SqliteStore};

fn open(place: &Place, number: u8) -> Arc<SqliteStore> {
    let (clock, key) = (place.clock.clone(), SealKey::new([number; 32]));
    SqliteStore::open_sealing(&place.path(), SqliteMode::Exclusive, clock, key, Quotas::default()).unwrap()
}

/// Whether bytes are anywhere in the store's files.
fn is_on_disk(place: &Place, wanted: &[u8]) -> bool {
    ["", "-wal"].into_iter().any(|suffix| {
        let bytes = std::fs::read(beside(&place.path(), suffix)).unwrap_or_default();
        bytes.windows(wanted.len()).any(|window| window == wanted)
    })
}

async fn exported(store: &SqliteStore, agent: &AgentId) -> EntityKeyRow {
    let frames = store.export_rows(agent, 0, usize::MAX).await.unwrap();
    let keys = frames.into_iter().filter_map(|frame| match frame.row {
        Row::EntityKey(row) => Some(row),
        _ => None,
    });
    keys.last().unwrap()
}

#[tokio::test]
async fn the_secret_is_not_in_the_file() {
    let place = Place::new();
    let store = open(&place, 1);
    join(&store, 1).await;
    let agent = create(&store, "agent").await;
    let key = store.entity_key(&agent).await.unwrap().unwrap();
    assert!(is_on_disk(&place, &key.public().0), "the search finds what is there");
    assert!(!is_on_disk(&place, key.secret()));
    store.close().await;
    assert!(is_on_disk(&place, &key.public().0));
    assert!(!is_on_disk(&place, key.secret()));
}

#[tokio::test]
async fn under_another_key_the_agent_is_known_and_can_not_sign() {
    let place = Place::new();
    let store = open(&place, 1);
    join(&store, 1).await;
    let agent = create(&store, "agent").await;
    let key = store.entity_key(&agent).await.unwrap().unwrap();
    assert_eq!(exported(&store, &agent).await, EntityKeyRow::Whole(key.clone()));
    store.close().await;
    let store = open(&place, 2);
    let refused = store.entity_key(&agent).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(store.agent(&agent).await.unwrap().unwrap().public_key, Some(key.public()));
    assert_eq!(exported(&store, &agent).await, EntityKeyRow::Public(key.public()));
    store.close().await;
    let store = open(&place, 1);
    assert_eq!(store.entity_key(&agent).await, Ok(Some(key)), "nothing was lost");
}

#[tokio::test]
async fn a_secret_that_lies_with_another_agent_does_not_open() {
    let place = Place::new();
    let store = open(&place, 1);
    join(&store, 1).await;
    let (one, other) = (create(&store, "one").await, create(&store, "other").await);
    let copy = "UPDATE entity_key SET (public, secret) = (SELECT public, secret FROM entity_key e
                WHERE e.agent <> entity_key.agent) WHERE agent = (SELECT key FROM agent WHERE id = 'one')";
    assert_eq!(place.intruder().execute(copy, []).unwrap(), 1);
    let refused = store.entity_key(&one).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert!(store.entity_key(&other).await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_that_seals_nothing_gives_no_keys() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    join(&store, 1).await;
    let agent = create(&store, "agent").await;
    assert_eq!(store.entity_key(&agent).await, Ok(None));
    assert_eq!(store.agent(&agent).await.unwrap().unwrap().public_key, None);
}
