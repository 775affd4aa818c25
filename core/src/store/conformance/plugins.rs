//! Plugins: bytes under their digest, one component per name and version, pinned while an agent runs them.

use bytes::Bytes;

use crate::digest::Digest;
use crate::event::EventKind;
use crate::limits::PAGE_MAX;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{World, is_conflict, new_agent, plugin, put_plugin};
use crate::store::{Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_plugin_is_stored_with_its_bytes),
        Case::of(the_same_digest_again_is_success),
        Case::of(another_component_of_a_name_and_version_is_a_conflict),
        Case::of(bytes_of_another_digest_are_refused),
        Case::of(a_plugin_stays_while_an_agent_runs_it),
        Case::of(a_removed_plugin_is_gone),
    ]
}

async fn a_plugin_is_stored_with_its_bytes(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let mut infos = Vec::new();
    for name in ["zeta", "alpha"] {
        let (info, component) = plugin(name);
        assert_eq!(store.put_plugin(info.clone(), component).await, Ok(true));
        infos.insert(0, info);
    }
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    assert_eq!(store.plugins().await, Ok(infos.clone()), "by name");
    let component = store.component(infos[0].digest).await;
    assert_eq!(component, Ok(Some(plugin("alpha").1)));
    let kind = Some(EventKind::PluginLoaded);
    assert_eq!(store.events(0, None, kind, PAGE_MAX).await.unwrap().len(), 2);
}

async fn the_same_digest_again_is_success(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put_plugin(&store, "plain").await;
    let before = (store.plugins().await, store.event_range().await);
    let (mut info, component) = plugin("plain");
    info.loaded_at_ms += 1_000;
    assert_eq!(store.put_plugin(info, component).await, Ok(false));
    assert_eq!((store.plugins().await, store.event_range().await), before);
}

async fn another_component_of_a_name_and_version_is_a_conflict(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put_plugin(&store, "plain").await;
    let (mut info, component) = plugin("other");
    let digest = info.digest;
    info.name = "plain".to_owned();
    let refused = store.put_plugin(info.clone(), component.clone()).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(store.component(digest).await, Ok(None));
    info.version = "2".to_owned();
    assert_eq!(store.put_plugin(info, component).await, Ok(true));
    let versions: Vec<String> = store.plugins().await.unwrap().into_iter().map(|info| info.version).collect();
    assert_eq!(versions, ["1", "2"]);
}

async fn bytes_of_another_digest_are_refused(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let (info, _) = plugin("plain");
    let refused = store.put_plugin(info, Bytes::from_static(b"something else")).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert_eq!(store.plugins().await, Ok(vec![]));
}

async fn a_plugin_stays_while_an_agent_runs_it(world: World) {
    let site = world.site("a").await;
    let digest = put_plugin(&site.store, "plain").await;
    assert_eq!(site.store.create(new_agent("agent", "plain")).await, Ok(true));
    let refused = site.store.remove_plugin(digest).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert!(site.store.component(digest).await.unwrap().is_some());
}

async fn a_removed_plugin_is_gone(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let digest = put_plugin(&store, "plain").await;
    assert_eq!(store.remove_plugin(digest).await, Ok(true));
    assert_eq!(store.remove_plugin(digest).await, Ok(false));
    assert_eq!(store.remove_plugin(Digest::of(b"unknown")).await, Ok(false));
    assert_eq!((store.plugins().await, store.component(digest).await), (Ok(vec![]), Ok(None)));
    let kind = Some(EventKind::PluginRemoved);
    assert_eq!(store.events(0, None, kind, PAGE_MAX).await.unwrap().len(), 1);
    assert_eq!(put_plugin(&store, "plain").await, digest, "and may come back");
}
