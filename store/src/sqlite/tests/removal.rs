//! Removing plugins: what their former users keep is read beside the writer thread, which only asks who they are.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::{Revision, SpecRevision};
use godwit_core::spec::{PluginInfo, Spec, SpecChange};
use godwit_core::store::{Pin, RuntimeStore, Step, StoreError, Unit};
use rusqlite::trace::TraceEvent;

use super::fixture::{Desk, Place, create, done, join, plugin};
use crate::sqlite::plugins::{self, Former};
use crate::sqlite::{SqliteMode, SqliteStore};

/// SQLite's hook carries no pointer; only one test here sets it.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(_, sql) = event {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(sql.to_owned());
    }
}

async fn put(store: &SqliteStore, name: &'static str) -> Digest {
    let component = Bytes::from_static(name.as_bytes());
    let digest = Digest::of(&component);
    let info = PluginInfo { digest, name: name.into(), ..plugin().0 };
    store.put_plugin(info, component).await.unwrap();
    digest
}

/// Gives an agent that has no boundary yet another plugin.
async fn take(store: &SqliteStore, desk: &Desk, revision: u64, plugin: Digest) {
    let change = SpecChange { revision: SpecRevision(revision), spec: Spec::new(plugin) };
    let unit = Unit { owner: desk.owner.clone(), base: Revision(0), steps: vec![Step::Configure(change)] };
    assert_eq!(store.commit_turns(unit).await, done(1));
}

async fn former(store: &SqliteStore, plugin: Digest) -> Former {
    store.read(move |conn| plugins::former_users(conn, plugin, &Former::new())).await.unwrap()
}

async fn remove(store: &SqliteStore, plugin: Digest, former: Former) -> Option<bool> {
    store.write(move |tx| plugins::remove(tx, plugin, &former)).await.unwrap()
}

#[tokio::test]
async fn who_takes_a_plugin_up_while_it_is_looked_at_keeps_it() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let desk = Desk::new(&store, "a").await;
    let (plain, other) = (plugin().0.digest, put(&store, "other").await);
    take(&store, &desk, 2, other).await;
    let seen = former(&store, plain).await;
    assert_eq!(seen.len(), 1, "it ran the plugin once");

    let agent = create(&store, "b").await;
    assert_eq!(remove(&store, plain, seen.clone()).await, None, "another agent uses it");
    let pinned = Err(StoreError::Pinned { agent: agent.clone(), pin: Pin::Spec });
    assert_eq!(store.remove_plugin(plain).await, pinned);
    let other_desk = Desk::take(&store, desk.owner.incarnation, &agent).await;
    take(&store, &other_desk, 2, other).await;
    let seen = former(&store, plain).await;
    take(&store, &desk, 3, plain).await;
    take(&store, &desk, 4, other).await;
    assert_eq!(remove(&store, plain, seen).await, None, "it has run it once more");
    assert_eq!(store.remove_plugin(plain).await, Ok(true));
    assert_eq!(store.remove_plugin(plain).await, Ok(false));
}

#[tokio::test]
async fn the_writer_reads_nothing_of_what_former_users_keep() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let (left, current) = (put(&store, "left").await, put(&store, "current").await);
    for number in 0..3 {
        let agent = create(&store, &format!("a{number}")).await;
        let mut desk = Desk::take(&store, incarnation, &agent).await;
        take(&store, &desk, 2, left).await;
        take(&store, &desk, 3, current).await;
        desk.asked(&store, b"ask", b"state").await;
    }
    store.trace_writes(Some(note));
    let refused = [store.remove_plugin(current).await, store.remove_plugin(plugin().0.digest).await];
    let seen_before = SEEN.lock().unwrap().len();
    let removed = store.remove_plugin(left).await;
    store.trace_writes(None);
    let pins = refused.map(|refused| match refused {
        Err(StoreError::Pinned { pin, .. }) => pin,
        other => panic!("{other:?}"),
    });
    // The receipts that the fixture writes name the plain plugin.
    assert_eq!(pins, [Pin::Spec, Pin::Snapshot { revision: Revision(1) }]);
    assert_eq!(seen_before, 0, "what a reader refuses never comes to the writer");
    assert_eq!(removed, Ok(true));
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    assert!(seen.iter().any(|sql| sql.contains("FROM spec")), "{seen:#?}");
    assert!(!seen.iter().any(|sql| sql.contains("receipt")), "{seen:#?}");
}
