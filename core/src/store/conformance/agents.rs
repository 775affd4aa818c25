//! Agents as rows: creation, listing, runnable ones, lifecycle, images; empty answers (rule 10) and isolation (rule 11).

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::event::EventKind;
use crate::id::{AgentId, ClaimId, FencingToken, Generation, Incarnation, Revision, Seq, SpecRevision};
use crate::lifecycle::Verb;
use crate::limits::{CLAIM_MAX, PAGE_MAX};
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Turn, World, host, id, is_conflict, keyed, message, migration, new_agent, picture, put_plugin,
};
use crate::store::conformance::{Case, START_MS};
use crate::store::{
    AcceptError, Accepted, Adoption, BrokenReason, Home, Lifecycle, LifecycleCommit, NewAgent, OutputEnd,
    OutputKey, Owner, Sharing, StoreError, Unit, UnitFailure,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_created_agent_starts_at_nothing),
        Case::of(creating_again_is_success_only_for_the_same_content),
        Case::of(a_claim_stands_until_a_lower_host_comes),
        Case::of(agents_are_listed_in_pages_by_id),
        Case::of(loads_of_something_unknown_are_empty),
        Case::of(writes_to_an_unknown_agent_say_so),
        Case::of(runnable_are_free_or_mine_with_work),
        Case::of(runnable_starves_nobody),
        Case::of(an_image_holds_all_that_a_start_needs),
        Case::of(nothing_of_one_agent_shows_under_another),
    ]
}

fn broken() -> Verb {
    Verb::Break(BrokenReason::Init { message: "no".to_owned() })
}

async fn a_created_agent_starts_at_nothing(world: World) {
    let site = world.site("a").await;
    let agent = site.create("agent").await;
    let new = new_agent("agent", "plain");
    let check = async |store: &super::fixture::Store| {
        let row = store.agent(&agent).await.unwrap().unwrap();
        assert_eq!((row.home, row.lifecycle), (Home::Here, Lifecycle::Active));
        assert_eq!((row.generation, row.revision), (Generation(1), Revision(0)));
        assert_eq!((row.token, row.holder), (FencingToken(0), None));
        assert_eq!((row.head, row.next_seq, row.open_inputs), (Digest::ZERO, Seq(1), 0));
        assert_eq!((row.spec_revision, row.plugin), (SpecRevision(1), new.spec.plugin));
        assert_eq!((row.labels, row.created_at_ms), (new.labels.clone(), START_MS));
    };
    check(&site.store).await;
    let kind = Some(EventKind::AgentCreated);
    let events = site.store.events(0, Some(&agent), kind, PAGE_MAX).await.unwrap();
    assert_eq!(events.len(), 1);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    check(&store).await;
}

async fn a_claim_stands_until_a_lower_host_comes(world: World) {
    let store = world.site("a").await.store;
    put_plugin(&store, "plain").await;
    let agent = id("agent");
    let mut hosts = [host(1), host(2), host(3)];
    hosts.sort();
    let [low, own, high] = hosts;
    let [first, second, others] = [1, 2, 3].map(|number| ClaimId([number; 16]));
    let create_under = |claim| store.create(NewAgent { claim: Some(claim), ..new_agent("agent", "plain") });
    let create = || create_under(second);
    assert_eq!(create().await, Err(StoreError::Unclaimed), "nobody has claimed it");
    store.claim(&agent, high, others).await.unwrap();
    assert_eq!(create().await, Err(StoreError::Unclaimed), "another has");
    store.claim(&agent, own, first).await.unwrap();
    store.claim(&agent, own, second).await.unwrap();
    assert_eq!(create_under(first).await, Err(StoreError::Unclaimed), "what is tried again has begun anew");
    assert_eq!(store.yield_claims(&agent, high).await, Ok(Some(own)), "the lower one stands");
    assert_eq!(
        store.yield_claims(&agent, own).await,
        Ok(None),
        "its own claim is in nobody's way, and stays"
    );
    assert_eq!(store.yield_claims(&agent, high).await, Ok(Some(own)));
    assert_eq!(store.yield_claims(&agent, low).await, Ok(None), "a lower host's comes first");
    assert_eq!(create().await, Err(StoreError::Unclaimed), "it has yielded");
    store.claim(&agent, own, second).await.unwrap();
    world.clock.advance(CLAIM_MAX);
    assert_eq!(create().await, Err(StoreError::Unclaimed), "it has run out");
    assert_eq!(store.yield_claims(&agent, high).await, Ok(None), "so it stands in nobody's way");
    store.claim(&agent, own, second).await.unwrap();
    assert_eq!(store.yield_claims(&id("other"), low).await, Ok(None));
    assert_eq!(create().await, Ok(true));
    assert_eq!(create().await, Ok(false), "a repetition needs none");
    assert_eq!(store.yield_claims(&agent, high).await, Ok(None), "a claim goes with the creation");
}

async fn creating_again_is_success_only_for_the_same_content(world: World) {
    let site = world.site("a").await;
    let agent = site.create("agent").await;
    let before = picture(site.store.as_ref(), &agent).await;
    assert_eq!(site.store.create(new_agent("agent", "plain")).await, Ok(false));
    put_plugin(&site.store, "other").await;
    let other_plugin = new_agent("agent", "other");
    let mut other_labels = new_agent("agent", "plain");
    other_labels.labels.clear();
    for new in [other_plugin, other_labels] {
        let refused = site.store.create(new).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    }
    assert_eq!(picture(site.store.as_ref(), &agent).await, before);
    let unknown = new_agent("second", "nowhere");
    let plugin = unknown.spec.plugin;
    assert_eq!(site.store.create(unknown).await, Err(StoreError::NoPlugin { plugin }));
    assert_eq!(site.store.agent(&id("second")).await, Ok(None));
}

async fn agents_are_listed_in_pages_by_id(world: World) {
    let site = world.site("a").await;
    for agent in ["c", "a", "b:1", "b"] {
        site.create(agent).await;
    }
    let mut listed = Vec::new();
    let mut after: Option<AgentId> = None;
    loop {
        let page = site.store.agents(after.as_ref(), 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.agent.clone());
        listed.extend(page.into_iter().map(|row| row.agent.to_string()));
    }
    assert_eq!(listed, ["a", "b", "b:1", "c"]);
}

async fn loads_of_something_unknown_are_empty(world: World) {
    let site = world.site("a").await;
    let (store, nobody) = (&site.store, id("nobody"));
    let input = message(&nobody, "body").input.id;
    let generation = Generation(1);
    assert_eq!(store.agent(&nobody).await, Ok(None));
    assert_eq!(store.image(&nobody, None).await, Ok(None));
    assert_eq!(store.lease(&nobody).await, Ok(None));
    assert_eq!(store.input(&nobody, input).await, Ok(None));
    assert_eq!(store.inputs(&nobody, None, ALL).await, Ok(vec![]));
    assert_eq!(store.open_inputs(&nobody, ALL).await, Ok(vec![]));
    assert_eq!(store.outputs(&nobody, ALL).await, Ok(vec![]));
    assert_eq!(store.pending_outputs(&nobody, ALL).await, Ok(vec![]));
    assert_eq!(store.receipts(&nobody, generation, Revision(0), 10).await, Ok(vec![]));
    assert_eq!(store.state_value(&nobody, "key").await, Ok(None));
    assert_eq!(store.state_keys(&nobody, "", None, 10).await, Ok(vec![]));
    assert_eq!(store.export_rows(&nobody, 0, 1_000).await, Ok(vec![]));
    assert_eq!(store.events(0, Some(&nobody), None, 10).await, Ok(vec![]));
    assert_eq!(store.component(Digest::of(b"nothing")).await, Ok(None));
    assert_eq!(store.migration(migration(1)).await, Ok(None));
    assert_eq!(store.migrations(10).await, Ok(vec![]));
    assert_eq!(store.runnable(site.incarnation, 10).await, Ok(vec![]));
    assert_eq!(store.probe().await, Ok(()));
}

async fn writes_to_an_unknown_agent_say_so(world: World) {
    let site = world.site("a").await;
    let (store, nobody) = (&site.store, id("nobody"));
    let owner = Owner {
        agent: nobody.clone(),
        generation: Generation(1),
        incarnation: site.incarnation,
        token: FencingToken(1),
    };
    let base = Revision(0);
    let moved = migration(1);
    let input = message(&nobody, "body");
    let input_id = input.input.id;
    let accepted = store.accept(input, site.incarnation).await;
    assert_eq!(accepted, Err(AcceptError::Store(StoreError::NoAgent)));
    let unit = Unit { owner: owner.clone(), base, steps: vec![] };
    let outcome = store.commit_turns(unit).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Store(StoreError::NoAgent)));
    let no_agent = Err(StoreError::NoAgent);
    assert_eq!(store.redrive(&nobody, input_id).await, no_agent);
    assert_eq!(store.release(&owner).await, no_agent);
    let commit = LifecycleCommit::plan(&nobody, &Lifecycle::Active, &broken(), START_MS).unwrap();
    assert_eq!(store.commit_lifecycle(&owner, commit).await, Err(StoreError::NoAgent));
    assert_eq!(store.recreate(new_agent("nobody", "plain")).await, Err(StoreError::NoAgent));
    assert_eq!(store.end_outputs(&owner, &[]).await, no_agent);
    assert_eq!(store.finish_handoff(&nobody, moved).await, no_agent);
    let no_lease = Err(StoreError::NoAgent);
    assert_eq!(store.transfer(&owner, base, moved, host(2)).await, no_lease);
    assert_eq!(store.adopt(&nobody, moved, site.incarnation, Adoption::Granted).await, no_lease);
    assert_eq!(store.abort_handoff(&nobody, moved, site.incarnation).await, no_lease);
    let begun = store.begin_handoff(&owner, base, moved, host(2)).await;
    assert_eq!(begun, Err(StoreError::NoAgent));
}

async fn runnable_are_free_or_mine_with_work(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let idle = site.own("idle").await;
    let (mine, theirs) = (site.own("mine").await, other.own("theirs").await);
    let free = site.create("free").await;
    let publishing = site.own("publishing").await;
    let sick = site.own("sick").await;
    for agent in [mine.agent(), theirs.agent(), &free, sick.agent()] {
        let accepted = site.store.accept(message(agent, "work"), site.incarnation).await;
        assert!(matches!(accepted, Ok(Accepted::New { .. })));
    }
    publishing.turn(Turn::of(BoundaryKind::Init).output(&free, "hello")).await;
    sick.verb(&broken()).await.unwrap();
    let named: BTreeSet<AgentId> = runnable_of(&site).await;
    let expected = [&free, mine.agent(), publishing.agent()].map(AgentId::clone);
    assert_eq!(named, BTreeSet::from(expected));
    assert!(!named.contains(idle.agent()));

    other.store.leave(other.incarnation).await.unwrap();
    assert!(runnable_of(&site).await.contains(theirs.agent()), "its holder is dead");
    let key = OutputKey { destination: free.clone(), generation: Generation(1), number: 1 };
    let ends = [(key, OutputEnd::Acknowledged)];
    site.store.end_outputs(&publishing.owner, &ends).await.unwrap();
    assert!(!runnable_of(&site).await.contains(publishing.agent()), "nothing is pending");
}

async fn runnable_of(site: &super::fixture::Site) -> BTreeSet<AgentId> {
    let named = site.store.runnable(site.incarnation, PAGE_MAX).await.unwrap();
    let distinct: BTreeSet<AgentId> = named.iter().cloned().collect();
    assert_eq!(distinct.len(), named.len(), "each is named once: {named:?}");
    distinct
}

async fn runnable_starves_nobody(world: World) {
    let site = world.site("a").await;
    let mut waiting = BTreeSet::new();
    for number in 0..7 {
        let desk = site.own(&format!("agent-{number}")).await;
        desk.accept("work").await;
        waiting.insert(desk.agent().clone());
    }
    // Nothing is ever done about those that are named; the others must come all the same.
    for _ in 0..500 {
        let named = site.store.runnable(site.incarnation, 2).await.unwrap();
        assert!(named.len() <= 2);
        waiting.retain(|agent| !named.contains(agent));
        if waiting.is_empty() {
            return;
        }
    }
    panic!("never named: {waiting:?}");
}

async fn an_image_holds_all_that_a_start_needs(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!(image.check(), Ok(()));
    assert_eq!((image.snapshot.as_ref(), image.receipts.len()), (None, 0));
    assert_eq!(image.spec, new_agent("agent", "plain").spec);
    assert_eq!(image.plugin.map(|plugin| plugin.name), Some("plain".to_owned()));

    let mut receipts = vec![desk.turn(Turn::of(BoundaryKind::Init)).await];
    receipts.push(desk.turn(Turn::ends([])).await);
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.check(), &image.receipts), (Ok(()), &receipts), "all, without a snapshot");
    receipts.push(desk.turn(Turn::ends([]).snapshot("three")).await);
    receipts.push(desk.turn(Turn::ends([])).await);
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!(image.check(), Ok(()));
    let snapshot = image.snapshot.unwrap();
    assert_eq!((snapshot.revision, snapshot.state.as_ref()), (Revision(3), b"three".as_slice()));
    assert_eq!(image.receipts, receipts[2..], "from the snapshot's revision on");
    assert_eq!(image.row, desk.row().await);
}

async fn nothing_of_one_agent_shows_under_another(world: World) {
    let site = world.site("a").await;
    let (one, two) = (site.own("one").await, site.own("two").await);
    one.furnish().await;
    let input = one.accept("mine").await;
    let before = picture(two.store(), two.agent()).await;
    assert_eq!(site.store.input(two.agent(), input.input.id).await, Ok(None));
    assert_eq!(site.store.inputs(two.agent(), None, ALL).await, Ok(vec![]));
    assert_eq!(site.store.outputs(two.agent(), ALL).await, Ok(vec![]));
    assert_eq!(site.store.state_value(two.agent(), "b").await, Ok(None));
    assert_eq!(site.store.receipts(two.agent(), Generation(1), Revision(0), 9).await, Ok(vec![]));
    assert_eq!(site.store.image(two.agent(), None).await.unwrap().unwrap().snapshot, None);

    let same_key = |agent: &AgentId, body| keyed(agent, "key", body);
    let first = site.store.accept(same_key(one.agent(), "a"), site.incarnation).await;
    assert!(matches!(first, Ok(Accepted::New { .. })));
    assert_eq!(picture(two.store(), two.agent()).await, before, "the other has not changed at all");
    let second = site.store.accept(same_key(two.agent(), "b"), site.incarnation).await;
    assert_eq!(second, Ok(Accepted::New { seq: Seq(1) }), "keys and numbers are each agent's own");
    let mut same_id = message(two.agent(), "mine too");
    same_id.input.id = input.input.id;
    let third = site.store.accept(same_id, Incarnation(7)).await;
    assert_eq!(third, Ok(Accepted::New { seq: Seq(2) }));
}
