//! The payload of auth flows: one per store, replaced in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::limits::AUTH_FLOW_BYTES_MAX;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{Store, World};
use crate::store::{AuthFlowError, Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(the_payload_is_durable_and_the_last_write_wins),
        Case::of(an_update_sees_what_is_there_and_replaces_it),
        Case::of(an_update_that_fails_leaves_the_payload),
        Case::of(updates_at_once_all_count),
        Case::of(a_payload_above_its_limit_is_refused),
        Case::of(every_handle_has_the_same_authority_key),
    ]
}

fn payload(text: &str) -> Option<Bytes> {
    Some(Bytes::from(text.to_owned()))
}

async fn load(store: &Store) -> Option<Bytes> {
    store.load_auth_flow().await.unwrap()
}

async fn the_payload_is_durable_and_the_last_write_wins(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    assert_eq!(load(&store).await, None);
    for text in ["one", "two", ""] {
        store.persist_auth_flow(Bytes::from(text)).await.unwrap();
        assert_eq!(load(&store).await, payload(text));
    }
    store.persist_auth_flow(Bytes::from("three")).await.unwrap();
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    assert_eq!(load(&store).await, payload("three"));
}

async fn an_update_sees_what_is_there_and_replaces_it(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    for (seen, next) in [(None, "one"), (Some("one"), "two")] {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let update = Box::new(move |current: Option<&[u8]>| {
            counted.fetch_add(1, Ordering::SeqCst);
            assert_eq!(current, seen.map(str::as_bytes));
            Ok(next.as_bytes().to_vec())
        });
        assert_eq!(store.update_auth_flow(update).await, Ok(Bytes::from(next)));
        assert_eq!((calls.load(Ordering::SeqCst), load(&store).await), (1, payload(next)));
    }
}

async fn an_update_that_fails_leaves_the_payload(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    store.persist_auth_flow(Bytes::from("one")).await.unwrap();
    let refused = store.update_auth_flow(Box::new(|_| Err("no room".to_owned()))).await;
    assert_eq!(refused, Err(AuthFlowError::Refused { reason: "no room".to_owned() }));
    let panicked = store.update_auth_flow(Box::new(|_| panic!("somebody else's fault"))).await;
    assert!(matches!(panicked, Err(AuthFlowError::Refused { .. })), "{panicked:?}");
    assert_eq!(load(&store).await, payload("one"));
    let update = store.update_auth_flow(Box::new(|_| Ok(b"two".to_vec()))).await;
    assert_eq!(update, Ok(Bytes::from("two")), "the store goes on");
}

async fn updates_at_once_all_count(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let updates = (0..20u8).map(|number| {
        let store = store.clone();
        async move {
            let update = Box::new(move |current: Option<&[u8]>| {
                let mut next = current.unwrap_or_default().to_vec();
                next.push(number);
                Ok(next)
            });
            store.update_auth_flow(update).await.unwrap();
        }
    });
    futures::future::join_all(updates).await;
    let mut numbers = load(&store).await.unwrap().to_vec();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<u8>>());
}

async fn a_payload_above_its_limit_is_refused(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    store.persist_auth_flow(Bytes::from("one")).await.unwrap();
    let large = vec![0; AUTH_FLOW_BYTES_MAX + 1];
    assert_eq!(store.persist_auth_flow(Bytes::from(large.clone())).await, Err(StoreError::Full));
    let update = store.update_auth_flow(Box::new(move |_| Ok(large))).await;
    assert_eq!(update, Err(StoreError::Full.into()));
    assert_eq!(load(&store).await, payload("one"));
}

async fn every_handle_has_the_same_authority_key(world: World) {
    let store = world.open("a", Sharing::Shared).await;
    let (again, other) = (world.open("a", Sharing::Shared).await, world.open("b", Sharing::Shared).await);
    let key = store.auth_authority_key();
    assert!(key.is_some());
    assert_eq!(again.auth_authority_key(), key);
    assert_ne!(other.auth_authority_key(), key);
}
