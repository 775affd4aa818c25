//! Groups: a label makes a member, wherever it comes from and wherever its agent goes.

use std::collections::BTreeMap;

use crate::group::{GroupName, LABEL};
use crate::id::AgentId;
use crate::lifecycle::Verb;
use crate::limits::PAGE_MAX;
use crate::migration::Phase;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{World, id, new_agent, put_plugin};
use crate::store::conformance::journey::Journey;
use crate::store::{Home, NewAgent, RuntimeStore, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(members_are_found_by_their_label),
        Case::of(a_member_is_one_until_its_label_goes),
        Case::of(a_deleted_agent_takes_no_member_s_place),
        Case::of(membership_moves_with_its_agent),
    ]
}

fn labels(group: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL.to_owned(), group.to_owned()), ("team".to_owned(), "blue".to_owned())])
}

fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

async fn members(store: &dyn RuntimeStore, name: &str) -> Vec<AgentId> {
    let rows = store.members(&group(name), None, PAGE_MAX).await.unwrap();
    rows.into_iter().map(|row| row.agent).collect()
}

async fn members_are_found_by_their_label(world: World) {
    let site = world.site("a").await;
    put_plugin(&site.store, "plain").await;
    let named = [("c", "workers"), ("a", "workers"), ("b", "worker"), ("d", "workers")];
    for (agent, group) in named {
        let new = NewAgent { labels: labels(group), ..new_agent(agent, "plain") };
        assert_eq!(site.store.create(new).await, Ok(true));
    }
    site.create("none").await;
    assert_eq!(members(site.store.as_ref(), "workers").await, [id("a"), id("c"), id("d")]);
    assert_eq!(members(site.store.as_ref(), "worker").await, [id("b")]);
    assert_eq!(members(site.store.as_ref(), "nobody").await, []);
    let page = site.store.members(&group("workers"), Some(&id("a")), 1).await.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(Some(&page[0]), site.store.agent(&id("c")).await.unwrap().as_ref(), "the row as it is");
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(members(store.as_ref(), "worker").await, [id("b")], "it is durable");
}

async fn a_member_is_one_until_its_label_goes(world: World) {
    let site = world.site("a").await;
    let agent = site.create("a").await;
    let store = site.store.as_ref();
    assert_eq!(members(store, "one").await, []);
    for name in ["one", "two"] {
        store.set_labels(&agent, labels(name)).await.unwrap();
        assert_eq!(members(store, name).await, [id("a")]);
    }
    assert_eq!(members(store, "one").await, [], "of one group at a time");
    store.set_labels(&agent, BTreeMap::new()).await.unwrap();
    assert_eq!(members(store, "two").await, []);
}

async fn a_deleted_agent_takes_no_member_s_place(world: World) {
    let first = world.site("a").await.own("a").await;
    first.site.create("b").await;
    let store = first.store();
    for agent in ["a", "b"] {
        store.set_labels(&id(agent), labels("workers")).await.unwrap();
    }
    first.verb(&Verb::Delete).await.unwrap();
    assert_eq!(
        store.agent(&id("a")).await.unwrap().unwrap().labels,
        labels("workers"),
        "it keeps its labels"
    );
    let page = store.members(&group("workers"), None, 1).await.unwrap();
    assert_eq!(page.iter().map(|row| &row.agent).collect::<Vec<_>>(), [&id("b")]);
}

async fn membership_moves_with_its_agent(world: World) {
    let journey = Journey::furnished(&world).await;
    let (from, to) = (journey.from.site.store.clone(), journey.to.store.clone());
    from.set_labels(journey.agent(), labels("workers")).await.unwrap();
    journey.record_at_source(Phase::Transfer).await;
    journey.receive(journey.export(0).await).await;
    assert_eq!(members(to.as_ref(), "workers").await, [], "a copy that is not bound is nobody");
    let granted = journey.begin().await.granted;
    assert_eq!(members(from.as_ref(), "workers").await, [id("agent")], "on its way out");
    journey.prepare(granted).await;
    let bound = to.members(&group("workers"), None, 1).await.unwrap();
    assert!(matches!(bound[0].home, Home::Prepared { .. }), "{bound:?}");
    journey.finish().await;
    assert_eq!(members(from.as_ref(), "workers").await, []);
    journey.adopt().await;
    assert_eq!(members(to.as_ref(), "workers").await, [id("agent")]);
    from.forget_moved(journey.agent(), journey.migration).await.unwrap();
    assert_eq!(members(from.as_ref(), "workers").await, []);
}
